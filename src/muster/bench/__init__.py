"""Benchmarks: scenarios from the recipe, the tool's command line, what it printed, and whether that got worse.

recipe -> scenario -> argv          (pure)
tool's JSON -> result, engine's log -> log       (pure)
ledger entries -> gate              (pure)
runner                              (SSH to the head, through pyinfra)
"""
