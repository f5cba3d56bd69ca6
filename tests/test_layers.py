"""The pure core imports nothing that reaches out, and the control machine imports no engine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "muster"
REACHES_OUT = {
    "__init__",
    "cli",
    "facts",
    "guards",
    "planning",
    "inventory",
    "operations",
    "remote",
    "ledger",
    "secret_store",
    "session",
    "typed",
}
REACHES_OUT |= {"uv_binary"}
PURE = sorted(path.stem for path in SOURCE.glob("*.py") if path.stem not in REACHES_OUT)
PURE_MAY = {
    "__future__",
    "collections",
    "dataclasses",
    "typing",
    "math",
    "re",
    "json",
    "hashlib",
    "ipaddress",
    "difflib",
}
PURE_MAY |= {"urllib", "pathlib", "functools", "yaml", "pydantic", "jinja2", "muster"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("module", PURE)
def test_the_core_is_pure(module: str) -> None:
    assert imported(SOURCE / f"{module}.py") <= PURE_MAY


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_the_control_machine_imports_no_engine(path: Path) -> None:
    if "on_host" not in path.relative_to(SOURCE).parts:
        assert not imported(path) & {"vllm", "torch", "ray"}
