"""Every module of the room runs on a host's own Python and is in the room's map."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from muster import on_host
from muster.hosts import programs

MODULES = sorted(path.stem for path in Path(str(on_host.__file__)).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_the_standard_library_of_3_9_and_its_own_room(name: str) -> None:
    tree = ast.parse(programs.source(name), feature_version=(3, 9))
    for node in tree.body:
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            package = (node.module or "").split(".")
            assert node.level == 0
            assert package[:2] == ["muster", "on_host"] or package[0] in sys.stdlib_module_names


def test_the_map_names_every_module_once() -> None:
    rows = [line.split()[0] for line in (on_host.__doc__ or "").splitlines() if line.startswith("    ")]
    assert sorted(rows) == MODULES
