"""Preflight: what is wrong with a host, known before anything touches it.

The way of the data, left to right; everything but `sessions`, `run` and its fronts is pure:

    host programs (text) -> parse -> report ─┐
                                             ├─> checks, group -> Verdict -> table | JSON | exit status
    plan + settings ------------------> needs ┘

- `parse`     tools' text to frozen values; what cannot be read becomes `Unreadable`, never a traceback
- `report`    everything one host said; `reading` builds it from JSON
- `needs`     what a plan needs of one host; `plan_needs` works it out, `options` are the preflight's own settings
- `builds`    driver -> CUDA build of the engine
- `catalogue` the stable names of all checks
- `checks`    (report, needs) -> verdicts of one host
- `parity`, `clocks`, `pairs`, `nccl`   verdicts that need several hosts
- `outcome`   waivers, the whole result, exit status; `table` renders it; `drift` compares with the plan
- `sessions`  host programs over SSH; `run` gathers and measures with them; `deploy`, `cli` are its two fronts
"""
