"""Preflight: what is wrong with a host, known before anything touches it.

The way of the data, left to right; everything but `run` and `cli` is pure:

    host programs (text) -> parse -> report ─┐
                                             ├─> checks, group -> Verdict -> table | JSON | exit status
    plan + settings ------------------> needs ┘

- `parse`     tools' text to frozen values; what cannot be read becomes `Unreadable`, never a traceback
- `report`    everything one host said; `reading` builds it from JSON
- `needs`     what a plan needs of one host
- `builds`    driver -> CUDA build of the engine
- `catalogue` the stable names of all checks
- `checks`    (report, needs) -> verdicts of one host
- `parity`, `clocks`, `pairs`, `nccl`   verdicts that need several hosts
- `outcome`   waivers, the whole result, exit status; `table`, `blocks` render it
- `run`       gathers over SSH with pyinfra; `deploy`, `cli` are its two fronts
"""
