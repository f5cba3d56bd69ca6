"""Imports go down one street, pure rooms reach nothing outside, and every package's map names all of its modules."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

STREET = (
    ("errors", "resources"),
    ("guard", "on_host"),
    ("spec",),
    ("plan",),
    ("monitoring",),
    ("edge",),
    ("hosts", "sandbox"),
    ("preflight", "weights", "status"),
    ("deploys",),
    ("bench",),
    ("commands",),
    ("cli",),
)
"""Rooms from the bottom up: a module imports from its own room and from rooms before it, never from one beside it."""
LEAVES = ("guard", "on_host")
"""Rooms whose programs run on hosts: they import the standard library and themselves."""

PURE_ROOMS = ("spec", "plan", "monitoring", "edge")
PURE_MODULES = (
    "hosts.explain",
    "hosts.programs",
    "hosts.printable",
    "hosts.answer_fields",
    "hosts.answer_models",
    "hosts.guard_answers",
    "hosts.check_answers",
    "deploys.shared.engine_addresses",
    "deploys.shared.guard_trouble",
    "deploys.shared.can_return",
    "preflight.group_files",
    "status.group_status",
    "status.failures",
    "guard.head_core",
    "guard.member_core",
    "guard.barrier",
    "guard.blocked_causes",
    "guard.restart_policy",
    "guard.host_judge",
    "guard.xids",
    "guard.endpoint_kinds",
    "guard.load_times",
    "guard.loader_choice",
    "guard.liveness",
    "guard.protocol",
    "guard.messages",
    "bench.scenario",
    "bench.bench_result",
    "bench.engine_log",
    "bench.failed_requests",
    "bench.figures",
    "bench.eval_result",
    "bench.eval_task",
    "bench.report_data",
    "bench.report_markdown",
    "preflight.checks",
    "preflight.chosen_gpus",
    "preflight.filters",
    "preflight.meeting",
    "preflight.catalogue",
    "preflight.drift",
    "preflight.host_report",
    "preflight.needs",
    "preflight.outcome",
    "preflight.pairs",
    "preflight.parity",
    "preflight.read_report",
    "preflight.smi",
    "preflight.tool_text",
    "preflight.verdict",
    "weights.staging_roles",
    "weights.loader_requests",
)
IMPURE = dict.fromkeys(
    ("spec.inventory", "spec.inventory_groups", "spec.inventory_source"), "it reads pyinfra's inventories"
)
"""Modules of pure rooms that are not pure, with the reason."""
REACHES_OUT = frozenset(
    {"pyinfra", "pyinfra_cli", "gevent", "paramiko", "subprocess", "socket", "asyncio", "http", "requests", "threading"}
)
ENGINES = frozenset({"vllm", "torch", "ray"})
BROUGHT = {"on_host.transfer_hub": "huggingface_hub"}
"""Host program -> the package it imports besides: it runs in the engine's environment, which has it."""
SAME_NAME = {"__init__", "options"}
"""Names that a room may use whatever other rooms call theirs; all other names that occur twice stand in the map."""


def module_of(path: Path, source: Path = SOURCE) -> str:
    """Return a module's name without `muster.`: `plan.make`, `preflight.checks`."""
    parts = path.relative_to(source / "muster").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(source: Path = SOURCE) -> dict[str, tuple[ast.Module, bool]]:
    """Return module -> its syntax tree, and whether it is a package."""
    return {
        module_of(path, source): (ast.parse(path.read_text(encoding="utf-8")), path.name == "__init__.py")
        for path in sorted((source / "muster").rglob("*.py"))
    }


def imports(name: str, tree: ast.Module, is_package: bool) -> Iterator[str]:
    """Yield every dotted name that a module imports, anywhere in it, `from . import make` as `muster.plan.make`."""
    here = ["muster", *name.split(".")] if name else ["muster"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + is_package] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def graph(modules: Mapping[str, tuple[ast.Module, bool]]) -> dict[str, set[str]]:
    """Return module -> modules of muster that it imports; `from muster import session` is `session`."""
    edges: dict[str, set[str]] = {}
    for name, (tree, is_package) in modules.items():
        found = set()
        for dotted in imports(name, tree, is_package):
            if dotted.split(".")[0] == "muster":
                parts = dotted.split(".")[1:]
                while parts and ".".join(parts) not in modules:
                    parts.pop()
                found.add(".".join(parts))
        edges[name] = found - {name, ""}
    return edges


def room(module: str) -> str:
    return module.split(".")[0]


def climbing(edges: Mapping[str, set[str]]) -> list[str]:
    """Return the imports that leave the street, as text."""
    level = {name: number for number, rooms in enumerate(STREET) for name in rooms}
    wrong = []
    for module, targets in edges.items():
        for target in targets:
            here, there = room(module), room(target)
            if module and here != there and (there not in level or here not in level or level[there] >= level[here]):
                wrong.append(f"{module} imports {target}")
    return sorted(wrong)


def circles(edges: Mapping[str, set[str]]) -> list[str]:
    """Return one line for each circle of modules or of rooms."""
    return sorted({" -> ".join(circle) for circle in (*_circles(edges), *_circles(_rooms(edges)))})


def _rooms(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return room -> rooms it imports; a package inside a room is part of it, and its modules are looked at above."""
    rooms: dict[str, set[str]] = {}
    for module, targets in edges.items():
        rooms.setdefault(room(module), set()).update({room(target) for target in targets} - {room(module), ""})
    return rooms


def _circles(edges: Mapping[str, set[str]]) -> Iterator[list[str]]:
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> Iterator[list[str]]:
        if node in path:
            yield [*path[path.index(node) :], node]
        elif node not in done:
            for target in sorted(edges.get(node, ())):
                yield from visit(target, [*path, node])
            done.add(node)

    for node in sorted(edges):
        yield from visit(node, [])


MODULES = read()
EDGES = graph(MODULES)


def test_imports_go_down_the_street() -> None:
    assert climbing(EDGES) == []


def test_there_is_no_circle() -> None:
    assert [circle for circle in circles(EDGES) if "guard.loop" not in circle] == []


def test_every_room_stands_on_the_street() -> None:
    assert {room(module) for module in MODULES if module} == {name for rooms in STREET for name in rooms}


def test_pure_modules_reach_nothing_outside() -> None:
    pure = {name for name in MODULES if room(name) in PURE_ROOMS and name not in IMPURE}
    for prefix in PURE_MODULES:
        named = {name for name in MODULES if name == prefix or name.startswith(f"{prefix}.")}
        assert named, f"{prefix} is gone: correct this list"
        pure |= named
    found = [
        f"{name} imports {dotted}"
        for name in sorted(pure)
        for dotted in imports(name, *MODULES[name])
        if dotted.split(".")[0] in REACHES_OUT or dotted.startswith("urllib.request")
    ]
    assert found == []


def test_host_programs_import_the_standard_library_and_each_other() -> None:
    found = [
        f"{name} imports {dotted}"
        for name, (tree, is_package) in MODULES.items()
        if room(name) in LEAVES
        for dotted in imports(name, tree, is_package)
        if dotted.split(".")[0] not in sys.stdlib_module_names
        and not dotted.startswith(f"muster.{room(name)}")
        and dotted.split(".")[0] not in {*ENGINES, BROUGHT.get(name)}
    ]
    assert found == []


def test_the_control_machine_imports_no_engine() -> None:
    found = [
        f"{name} imports {dotted}"
        for name, (tree, is_package) in MODULES.items()
        if room(name) != "on_host"
        for dotted in imports(name, tree, is_package)
        if dotted.split(".")[0] in ENGINES
    ]
    assert found == []


@pytest.mark.parametrize(
    "package", sorted(name for name, (_, is_package) in MODULES.items() if is_package and name and name != "guard")
)
def test_the_map_of_a_package_names_all_of_it(package: str) -> None:
    docstring = ast.get_docstring(MODULES[package][0]) or ""
    inside = {name.removeprefix(f"{package}.") for name in MODULES if name.startswith(f"{package}.")}
    missing = sorted(name for name in inside if "." not in name and not re.search(rf"\b{name}\b", docstring))
    assert not missing, f"the docstring of muster.{package} does not name {', '.join(missing)}"


def test_the_map_names_every_room() -> None:
    docstring = ast.get_docstring(MODULES[""][0]) or ""
    assert [name for rooms in STREET for name in rooms if not re.search(rf"\b{name}\b", docstring)] == []


def test_a_name_that_occurs_twice_stands_in_the_map() -> None:
    docstring = ast.get_docstring(MODULES[""][0]) or ""
    places: dict[str, list[str]] = {}
    for name in MODULES:
        if name and not MODULES[name][1]:
            places.setdefault(name.rpartition(".")[2], []).append(name)
    twice = {name: where for name, where in places.items() if len(where) > 1 and name not in SAME_NAME}
    assert [
        f"{name}: {where}" for name, where in twice.items() if not re.search(rf"^ +{name} .*", docstring, re.M)
    ] == []


def planted(**files: str) -> dict[str, set[str]]:
    modules = {name.replace("__", "."): (ast.parse(text), False) for name, text in files.items()}
    return graph({"": (ast.parse(""), True), **modules})


def test_a_planted_circle_is_found() -> None:
    edges = planted(plan__make="from muster.plan import render", plan__render="import muster.plan.make")
    assert circles(edges) == ["plan.make -> plan.render -> plan.make"]
    one, other = "from muster.plan import b", "from muster.spec.d import y"
    edges = planted(spec__a=one, plan__b="", plan__c=other, spec__d="")
    assert circles(edges) == ["plan -> spec -> plan"]


def test_a_planted_import_from_the_top_counts() -> None:
    edges = planted(
        plan__make="def f():\n    from muster import session",
        session="",
        hosts__x="",
        spec__y="from muster.hosts import x",
    )
    assert climbing(edges) == ["plan.make imports session", "spec.y imports hosts.x"]
