"""pyinfra reads this file from the working directory only; keep running it from the top of the clone."""

# A group with a missing rank must not be started: one failed host stops the run for all.
FAIL_PERCENT = 0
