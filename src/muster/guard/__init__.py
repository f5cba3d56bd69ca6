"""The group-restart guard: one unit per host, vLLM as its child, one generation at a time. Stdlib only.

    messages         what guards say to each other: Report, View, Failure                            pure
    host_judge       what a host must be before a start, judged from facts; the preflight's judge too    pure
    endpoint_kinds   what an endpoint is asked, by the kind of its model: canary, verify, bench       pure
    group_settings   timers, bounds and the hosts of the group, as types                             pure
    config           guard.json -> Config                                                            pure
    loader_choice    which loader an engine reads its weights with, by what its hosts measured              pure
    barrier          which hosts may join, and which still keep the group from starting              pure
    restart_policy   backoff, budget, holds, the last failures: the record kept between lives        pure
    head_core        the head's decisions: (state, event, now) -> (state, actions)                   pure
    member_core      a member's decisions, the same way; every guard runs one                        pure
    blocked_causes   why a host cannot start a rank, in one word                                         pure
    liveness         does every DP rank make progress? judged by counters and canaries               pure
    status           the group's state as JSON, one line, and Prometheus text                        pure
    printable_text   text of hosts and engines without what a terminal or browser would act on        pure
    page_style       the page's stylesheet, and what a browser may do with the page                    pure
    status_page      the group's state as a page for browsers                                         pure
    events           what happens to a group: starts, failures, restarts, holds, blocks               pure
    protocol         the bytes between guards: hello, frames, HMAC                                   pure
    http             the HTTP a guard speaks: answers a GET, asks the engine
    connection_slots which connections the control port holds, and which give way                    pure
    control_port     the head's listening socket: guards and HTTP readers
    head_link        a member's connection to the head
    load_times       how long weights took to load, in the engine's own words                         pure
    engine_deaths    the engine's own words for a dead worker                                         pure
    cgroup           the processes below the guard, their titles, and how they are killed
    short_commands   runs a short command; whether a condition on this host holds
    standby_program  the process that stands by for the next generation: imports, and waits
    standby          starts such a process, and lets it be the engine
    page_cache_program  the process that reads weights back into the page cache, once
    page_cache       how much of the weights the page cache holds; lets that program keep them there
    children         starts the engine's processes, keeps their output, notices their ends
    engine_watch     asks the engine for /health, /metrics and canaries
    kept_weights     weights that daemons keep on the GPUs: who serves them, and who still maps them
    start_checks     what must hold on this host before a start
    bounded_file     reads files that the engine's user may have replaced
    loader_record    reads what was measured of the loaders on this host
    xids             which of the driver's errors in the kernel's log keep a group from starting               pure
    kernel_log       follows the kernel's log
    credentials      the secrets of the unit, and how the group's key is kept from the children
    state_store      files kept between two lives of the guard
    stack_dumps      what the engine's own watchdog wrote of a process that stands still
    failure_bundle   what one host keeps of a failed generation
    sd_notify        READY, STATUS and WATCHDOG for systemd
    event_log        events as entries of the journal
    named_tasks      the guard's coroutines, by name
    head_io          carries out the head's decisions
    start_gate       why this host may not start a child, asked while none runs
    answers          HTTP reads and the local control socket
    life_end         the end of a guard: all processes killed, the failure kept, what outlives it
    loop             one guard from start to exit: events in, actions out
    client           `ctl`: the command line that asks the local guard
    main             the guard's command line

Imports go up this list only. Hosts run these same files on their own Python (3.9 to 3.13): see `program_files`.
"""

from __future__ import annotations

from pathlib import Path

ENTRY = '''"""Started by the unit as `python3 -I <this folder>`."""

import sys

# A guard speaks no TLS. asyncio does without this module, which would take 3 MB of every host.
sys.modules["ssl"] = None

from guard.main import main

sys.exit(main(sys.argv[1:]))
'''


def program_files() -> dict[str, str]:
    """Relative path -> text of every file that a host needs to run the guard from one folder."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return {"__main__.py": ENTRY, **{f"guard/{path.name}": path.read_text(encoding="utf-8") for path in sources}}
