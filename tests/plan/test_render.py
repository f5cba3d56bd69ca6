"""Rendered text: quoting that systemd reads back, and units without a complaint."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.on_host.hardening import DEVICES
from muster.plan.render import device, env_value, render, systemd_command, systemd_word
from tests import systemd_analyze
from tests.sample_plans import plan

TEXT = st.text(
    st.characters(
        min_codepoint=32, max_codepoint=0x2FFF, blacklist_categories=["Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"]
    ),
    max_size=30,
)


def read_back(word: str) -> str:
    """Undo a unit's quoting as systemd.syntax(7) and systemd.service(5) describe it."""
    if word.startswith('"'):
        word = re.sub(r"\\(.)", r"\1", word[1:-1])
    return word.replace("%%", "%").replace("$$", "$")


@given(TEXT)
def test_a_word_of_a_unit_reads_back_as_it_was(word: str) -> None:
    assert read_back(systemd_word(word)) == word


@pytest.mark.parametrize("bad", ["a\nb", "a\0b", "\x1b[0m"])
def test_control_characters_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        systemd_word(bad)
    with pytest.raises(ValueError, match="control characters"):
        env_value(bad)


@pytest.mark.parametrize("bad", ["/a", "/dev", "/devices/a", "/dev/../a", "char-", "nvidia0"])
def test_only_devices_are_allowed_as_devices(bad: str) -> None:
    assert [device(each) for each in DEVICES] == list(DEVICES)
    with pytest.raises(ValueError, match="a device"):
        device(bad)


def test_a_command_has_one_flag_a_line() -> None:
    assert systemd_command(["/x/vllm", "serve", "m", "--port", "1", "--json", '{"a": 1}']) == (
        '/x/vllm serve m \\\n    --port 1 \\\n    --json "{\\"a\\": 1}"'
    )


def test_the_firewall_s_unit_is_as_hard_as_the_ranks(tmp_path: Path) -> None:
    p = plan("kimi-k2-instruct", 2, "H200")
    path = tmp_path / "muster-firewall@.service"
    path.write_text(p.head.files[f"/etc/systemd/system/{path.name}"].text)
    assert systemd_analyze.exposure(path) <= 1.6
    for host in p.hosts.values():
        text = host.files[f"/etc/systemd/system/{host.units[0]}"].text
        assert f"Requires={p.head.firewall.unit}\nAfter={p.head.firewall.unit}\n" in text


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("tmpfiles.conf.j2", {})


UNITS = [
    ("kimi-k2-instruct", 2, "H800", {}),
    ("kimi-k2-instruct", 2, "H800", {"executor": "mp", "offline": True}),
    ("kimi-k2-instruct", 2, "H200", {}),
    ("kimi-k2-thinking", 1, "H200", {"api_key_file": "/etc/hostname"}),
    ("kimi-k2-instruct", 2, "H800", {"supervisor": "guard", "api_key_file": "/etc/hostname"}),
    ("kimi-k2-instruct", 2, "H200", {"supervisor": "guard", "offline": True}),
    ("kimi-k2-instruct", 2, "H800", {"supervisor": "systemd", "api_key_file": "/etc/hostname"}),
]


def unexplained(path: str) -> list[str]:
    """Return what systemd holds against a unit and no comment in it mentions: each exception has its line."""
    command = ["systemd-analyze", "security", "--offline=true", "--json=short", path]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    lines = Path(path).read_text().splitlines()
    comments = " ".join(line for line in lines if line.startswith("#"))
    above = {line.split("=")[0]: before for before, line in pairwise(lines)}
    # RestrictAddressFamilies=~AF_(INET|INET6) -> INET6, RootDirectory=/RootImage= -> RootDirectory.
    words = [re.findall(r"@?\w+", item["name"].split("/")[0])[-1] for item in told if item["set"] is False]
    assert words
    return [word for word in words if word not in comments and not above.get(word, "").startswith("#")]


@pytest.mark.parametrize(("name", "count", "gpu", "settings"), UNITS)
def test_systemd_has_nothing_to_say_about_any_unit(name, count, gpu, settings, tmp_path: Path) -> None:
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing: apt-get install systemd"
    p = plan(name, count, gpu, engine_path="/usr/lib/muster-test", **settings)
    for host in p.hosts.values():
        root = tmp_path / host.name
        for path, file in host.files.items():
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.text)
        for program in ("vllm", "ray", "python"):
            binary = root / "usr/lib/muster-test/bin" / program
            binary.parent.mkdir(parents=True, exist_ok=True)
            binary.write_text("#!/bin/sh\n")
            binary.chmod(0o755)
        (root / "usr/bin").mkdir()
        shutil.copy("/bin/true", root / "usr/bin/python3")
        for target in (
            "network-online.target",
            "multi-user.target",
            "sysinit.target",
            "basic.target",
            "shutdown.target",
        ):
            (root / f"etc/systemd/system/{target}").write_text("[Unit]\n")
        paths = [str(root / f"etc/systemd/system/{unit}") for unit in host.units]
        seen = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", f"--root={root}", *paths],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (seen.stdout, seen.stderr) == ("", "")
        for path in paths:
            assert systemd_analyze.exposure(Path(path)) <= 2.0
            assert unexplained(path) == []
