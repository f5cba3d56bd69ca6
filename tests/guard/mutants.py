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
        "member_core",
        "if view.seq != state.seq and not own_end:",
        "if False:",
    ),
    "a member with a child follows the head into another generation": (
        "member_core",
        'return state, (Exit("the head runs another generation"),)',
        "return _send(replace(state, generation=view.generation), now)",
    ),
    "a member starts on any run, without having joined it": (
        "member_core",
        "return _send(replace(state, generation=view.generation), now)",
        "state = replace(state, generation=view.generation)",
    ),
    "a member keeps its child under a silent head": (
        "member_core",
        "now - state.heard > state.settings.silence_timeout",
        "now - state.heard > 1e9",
    ),
    "the answer counts from its arrival": (
        "member_core",
        "heard=max(state.heard, state.sent)",
        "heard=float('inf')",
    ),
    "a member never sends a lost report again": (
        "member_core",
        "pause = state.settings.report_timeout if state.waiting",
        "pause = 1e9 if state.waiting",
    ),
    "a guard that lost its child says nothing": (
        "member_core",
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
        "head_core",
        "if report.generation != state.generation or report.instance not in peer.instances:",
        "if report.instance not in peer.instances:",
    ),
    "reports from an older instance count": (
        "head_core",
        "if known and peer.instances.index(report.instance) < peer.instances.index(peer.instance):",
        "if False:",
    ),
    "a guard that restarted during a run is accepted": ("head_core", "if replaced:", "if False:"),
    "the head keeps a silent member": (
        "head_core",
        "if now - peer.heard > settings.silence_timeout:",
        "if now - peer.heard > 1e9:",
    ),
    "any digest may join": ("barrier", "if report.digest != group.digest:", "if False:"),
    "the head has no patience": (
        "head_core",
        "if now - peer.heard > settings.silence_timeout:",
        "if now - peer.heard > settings.poll_interval:",
    ),
    "an operator's stop is forgotten": (
        "head_core",
        "return restart_policy.stopped(record, command.by, command.at)",
        "return record",
    ),
    "a run that is never closed is not remembered": (
        "head_core",
        "record = restart_policy.begun(state.record, state.generation, loader)",
        "record = state.record",
    ),
    "the loader is chosen anew for each answer": (
        "head_core",
        "state.deliberate, state.loader)",
        "state.deliberate, loader_choice.choose(loads(state), state.record.unfit, state.loaders))",
    ),
    "a loader with which a start failed is taken again": (
        "restart_policy",
        "unfit=(*record.unfit, record.loading) if record.loading else record.unfit,",
        "",
    ),
    "a start that was ready counts against its loader": (
        "head_core",
        'record = replace(state.record, loading="")',
        "record = state.record",
    ),
    "a hold does not hold": ("head_core", "phase = HELD if record.held else GATHER", "phase = GATHER"),
    "resume does nothing": ("head_core", "if state.phase == HELD:\n        state", "if False:\n        state"),
    "the budget is never spent": ("restart_policy", "held=FAILED if len(recent) > settings.budget else", "held="),
    "no backoff": ("restart_policy", "if not record.aborts or record.streak < 2:", "if True:"),
    "the backoff does not grow": ("restart_policy", "min(record.streak - 2, 10)", "0"),
}


def core(name: str) -> SimpleNamespace:
    """The decision core with the named rule broken."""
    module, rule, broken = MUTANTS[name]
    modules: dict[str, ModuleType] = {}
    for part in ("restart_policy", "barrier", "head_core", "member_core"):
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
    modules["head_core"].__dict__.update(restart_policy=modules["restart_policy"], barrier=modules["barrier"])
    return SimpleNamespace(**modules)
