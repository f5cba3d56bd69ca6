"""The one list of places knows everything that a deploy makes: what it misses, a removal would leave behind."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from muster.guard import host_judge
from muster.hosts import uv_binary
from muster.on_host import places
from muster.plan.manifest import with_manifest
from muster.plan.types import Plan
from muster.spec.settings import Settings
from tests.sample_plans import plain, plan

SOURCE = Path(places.__file__).parents[1]
KEYS = {"api_key_file": "/keys/api", "secret_env_file": "/keys/env"}
PLANS: dict[str, Callable[[], Plan]] = {
    "guard": lambda: plan("kimi-k2-instruct", 2, "H200", **KEYS),
    "guard and Ray": lambda: plan("kimi-k2-instruct", 2, "H800", executor="ray", **KEYS),
    "plain units": lambda: plain("kimi-k2-instruct", 2, "H200", **KEYS),
    "plain units and Ray": lambda: plain("kimi-k2-instruct", 2, "H800", executor="ray", **KEYS),
    "kept weights": lambda: plan("kimi-k2-instruct", 2, "H200", strategy="dp-ep", keep_weights=True, **KEYS),
    "one host, another root": lambda: plan("kimi-k2-thinking", 1, "H200", root="/data/engines-of-muster", **KEYS),
}
PLACE = re.compile(r"/(?:etc|var|run(?!/credentials)|opt|data)/[A-Za-z0-9_./@-]*muster[A-Za-z0-9_./@-]*")
"""A path with muster's name in it, in the text of a file."""
OWN = re.compile(r"/(etc|var/lib|var/cache|run|opt)/muster|/etc/systemd/system|/etc/(sysusers|tmpfiles|sysctl)\.d/.")
SPELLED_ELSEWHERE = {
    "spec/settings.py": "the defaults of root, hf_home and weights_root, which a removal is told",
    "spec/safe_text.py": "directories that no setting may name",
}


def made_by(plan: Plan) -> Iterator[str]:
    """Yield every path of a plan: of files and secrets, and in their texts."""
    yield plan.release.path
    yield from (secret.path for secret in plan.secrets)
    for host in with_manifest(plan).hosts.values():
        yield host.firewall.path
        for path, file in host.files.items():
            yield path
            yield from PLACE.findall(file.text)
            for kind, place in (("State", places.STATE), ("Cache", places.CACHE), ("Runtime", places.RUN)):
                for name in re.findall(rf"^{kind}Directory=muster/(\S+)$", file.text, re.M):
                    yield f"{place}/{name}"


def unknown(paths: Iterable[str], group: str, root: str) -> list[str]:
    """Return the paths that a removal of everything would leave behind."""
    known = {*places.of_group(group), *places.of_host(root)}
    unit = re.compile(rf"{places.UNITS}/muster-({group}(-ray|-vllm|-weights)?|firewall@)\.service")
    return sorted(
        path
        for path in set(paths) - {root}
        if not any(path == place or path.startswith(place + "/") for place in known) and not unit.fullmatch(path)
    )


@pytest.mark.parametrize("name", PLANS)
def test_every_path_of_a_plan_is_a_known_place(name: str) -> None:
    made = PLANS[name]()
    root = made.release.path.partition("/engines/")[0]
    assert unknown(made_by(made), made.group, root) == []


def test_a_path_that_is_no_known_place_is_found() -> None:
    made = plan("kimi-k2-instruct", 2, "H200")
    new = ["/etc/cron.d/muster", "/etc/systemd/system/muster-x.timer", "/opt/muster/plans/1", "/var/log/muster/x"]
    assert unknown([*made_by(made), *new], made.group, "/opt/muster") == sorted(new)


def test_what_uv_makes_is_a_known_place() -> None:
    assert unknown(uv_binary.places("/opt/muster").values(), "g", "/opt/muster") == []


def test_places_of_the_host_are_no_groups() -> None:
    reserved = {places.REPAIRED, places.ACCEPTED, places.UV_CACHE}
    assert not reserved & {path for name in ("repaired", "accepted", "uv") for path in places.of_group(name)}


def test_guard_and_programs_mean_one_file() -> None:
    assert host_judge.REPAIRED == places.REPAIRED


def spelled(text: str) -> list[str]:
    """Return the strings of a module that name a place of muster's; docstrings are prose."""
    tree = ast.parse(text)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose)
    return [node.value for node in strings if isinstance(node.value, str) and OWN.match(node.value)]


def test_a_place_is_spelled_in_one_module() -> None:
    """The guard takes its own from its configuration, and the sandbox makes hosts, not groups."""
    modules = (path.relative_to(SOURCE) for path in sorted(SOURCE.rglob("*.py")))
    found = {
        str(path): texts
        for path in modules
        if path.parts[0] not in ("guard", "sandbox") and str(path) != "on_host/places.py"
        if (texts := spelled((SOURCE / path).read_text(encoding="utf-8")))
    }
    assert set(found) - set(SPELLED_ELSEWHERE) == set(), found
    assert set(SPELLED_ELSEWHERE) <= set(found), "a module spells no place any more: correct this list"


def test_a_default_directory_is_told_to_the_removal() -> None:
    settings = Settings()
    assert (settings.root, settings.weights.root, settings.hf_home) == (
        "/opt/muster",
        f"{places.STATE}/weights",
        f"{places.STATE}/hf",
    )
