"""The subcommands of `muster`, one module each: plan, status, logs, preflight (and drift), pin, weights, bundle, bench,
eval, report, sandbox."""
