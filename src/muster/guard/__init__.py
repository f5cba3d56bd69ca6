"""The group-restart guard: one unit per host, vLLM as its child, one generation at a time. Stdlib only.

    messages, settings, config   what is said and configured, as types
    head, member, memory         the decision core: (state, event, now) -> (state, actions)      pure
    liveness, status, protocol   judging the engine, telling people, bytes between guards        pure
    server, link, control, http  sockets
    process, cgroup, checks, kernel, engine, store, notify, failure                              the host
    agent, ctl, main             the loop, and the command line

The same files run on the hosts, on their own Python (3.9 to 3.13): see `bundle`.
"""

from __future__ import annotations

from pathlib import Path

ENTRY = '''"""Started by the unit as `python3 -I <this folder>`."""

import sys

from guard.main import main

sys.exit(main(sys.argv[1:]))
'''


def bundle() -> dict[str, str]:
    """Relative path -> text of every file that a host needs to run the guard from one folder."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return {"__main__.py": ENTRY, **{f"guard/{path.name}": path.read_text(encoding="utf-8") for path in sources}}
