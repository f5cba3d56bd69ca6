"""Broken copies of the decision core: each takes one rule away, and the simulation must notice."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

from muster import guard

SOURCE = Path(guard.__file__).parent

MUTANTS: dict[str, tuple[str, str, str]] = {
    "a member believes any answer, also one to an old report": (
        "member",
        "if view.seq != state.seq and not own_end:",
        "if False:",
    ),
    "a member with a child follows the head into another generation": (
        "member",
        'return state, (Exit("the head runs another generation"),)',
        "return _send(replace(state, generation=view.generation), now)",
    ),
    "a member starts on any run, without having joined it": (
        "member",
        "return _send(replace(state, generation=view.generation), now)",
        "state = replace(state, generation=view.generation)",
    ),
    "a member keeps its child under a silent head": (
        "member",
        "now - state.heard > state.settings.silence_timeout",
        "now - state.heard > 1e9",
    ),
    "the answer counts from its arrival": (
        "member",
        "heard=max(state.heard, state.sent)",
        "heard=float('inf')",
    ),
    "a member never sends a lost report again": (
        "member",
        "pause = state.settings.report_timeout if state.waiting",
        "pause = 1e9 if state.waiting",
    ),
    "a guard that lost its child says nothing": (
        "member",
        "if state.child != RUNNING or state.ending is not None:",
        "if True:",
    ),
    "the barrier does not ask whether a host is blocked": ("barrier", "elif report.blocked:", "elif False:"),
    "the barrier takes a host for joined that never did": (
        "barrier",
        "if report is None or now - peer.heard > 3 * settings.poll_interval:",
        "if report is None:\n            continue\n        elif False:",
    ),
    "reports from another generation count": (
        "head",
        "if report.generation != state.generation or report.instance not in peer.seen:",
        "if report.instance not in peer.seen:",
    ),
    "reports from an older instance count": (
        "head",
        "if known and peer.seen.index(report.instance) < peer.seen.index(peer.instance):",
        "if False:",
    ),
    "a guard started anew during a run is welcome": ("head", "if replaced:", "if False:"),
    "the head keeps a silent member": (
        "head",
        "if now - peer.heard > settings.silence_timeout:",
        "if now - peer.heard > 1e9:",
    ),
    "any digest may join": ("barrier", "if report.digest != group.digest:", "if False:"),
    "the head has no patience": (
        "head",
        "if now - peer.heard > settings.silence_timeout:",
        "if now - peer.heard > settings.poll_interval:",
    ),
    "a stop by a person is forgotten": (
        "head",
        "state = replace(state, memory=replace(state.memory, held=STOPPED))",
        "pass",
    ),
    "a run that is never closed is not remembered": (
        "head",
        "memory = replace(state.memory, running=state.generation)",
        "memory = state.memory",
    ),
    "a hold does not hold": ("head", "phase = HELD if memory.held else GATHER", "phase = GATHER"),
    "resume does nothing": ("head", "if state.phase == HELD:\n        state", "if False:\n        state"),
    "the budget is never spent": ("memory", "held=FAILED if len(recent) > settings.budget else", "held="),
    "no backoff": ("memory", "if not memory.aborts or not memory.streak:", "if True:"),
    "the backoff does not grow": ("memory", "min(memory.streak - 1, 10)", "0"),
}


def core(name: str) -> SimpleNamespace:
    """The decision core with the named rule broken."""
    module, rule, broken = MUTANTS[name]
    modules: dict[str, ModuleType] = {}
    for part in ("memory", "barrier", "head", "member"):
        text = (SOURCE / f"{part}.py").read_text(encoding="utf-8")
        if part == module:
            assert text.count(rule) == 1, f"{part}.py has {text.count(rule)} times: {rule}"
            text = text.replace(rule, broken)
        full = f"muster.guard._mutant_{part}"
        spec = importlib.util.spec_from_loader(full, loader=None)
        assert spec is not None
        made = importlib.util.module_from_spec(spec)
        made.__package__ = "muster.guard"
        sys.modules[full] = made
        exec(compile(text, f"{part}.py ({name})", "exec"), made.__dict__)
        modules[part] = made
    modules["head"].__dict__.update(remember=modules["memory"], barrier=modules["barrier"])
    return SimpleNamespace(**modules)
