"""Every template with hostile values: refused in words, or a file that systemd reads with the same directives.

Refusal at reading is `tests/spec`'s; here a value has slipped through, and the renderer is the last to stand.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster import resources
from muster.edge.api_errors import REFUSED
from muster.plan import render as rendering
from muster.plan.render import render
from tests import systemd_analyze

EXAMPLES = max(settings().max_examples, 1000 if settings().max_examples > 100 else 0)
"""1,000 of each template in the nightly profile."""

NASTY = [
    "x\n[Service]\nExecStartPre=+/bin/sh -c id",
    "x\r\nUser=root",
    "x\\",
    "%n $HOME ${IFS} `id` $(id)",
    "+/bin/sh",
    "/bin/sh ; /bin/sh",
    "/a/../../etc/shadow",
    "../../../etc/x",
    "\u2028User=root",
    "\x85User=root",
    "\x00",
    "\ud800",
    "\u202eevil",
    "'\"",
    "#",
    "; User=root",
    "",
    " ",
    "0.0.0.0/0\nIPAddressAllow=any",
    "any",
    "fe80::1%eth0\nUser=root",
    "}; accept; #",
    "-/etc/shadow",
    "a.service\nUser=root",
]
TEXT = st.one_of(
    st.sampled_from(NASTY), st.text(max_size=40), st.builds("{}{}".format, st.just("/a"), st.sampled_from(NASTY))
)
WORDS = st.lists(TEXT, max_size=3)
NUMBER = st.one_of(st.integers(), TEXT, st.booleans(), st.floats())


def hostile(values: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return values of the same shape, one or two of them hostile: more would nearly always be refused."""
    if not values:
        return st.just({})
    keys = st.sets(st.sampled_from(sorted(values)), min_size=1, max_size=2)
    return keys.flatmap(
        lambda chosen: st.fixed_dictionaries(
            {key: _like(value) if key in chosen else st.just(value) for key, value in values.items()}
        )
    )


def _like(value: Any) -> st.SearchStrategy[Any]:
    if isinstance(value, bool):
        return st.just(value)
    if isinstance(value, int):
        return NUMBER
    if isinstance(value, str):
        return TEXT
    if isinstance(value, Mapping):
        count, pair = len(value), st.tuples(TEXT, TEXT)
        pairs = st.lists(pair, min_size=count, max_size=count, unique_by=lambda item: item[0])
        return pairs.map(dict)
    return st.tuples(*(st.one_of(st.just(item), _like(item)) for item in value))


UNIT: dict[str, Any] = {
    "group": "kimi-k2",
    "title": "Kimi K2, node rank 0",
    "digest": "0123456789abcdef",
    "guarded": True,
    "command": ("/usr/bin/python3", "-I", "--config", "/etc/muster/kimi-k2/guard.json"),
    "start_pre": [("/usr/bin/true", "1")],
    "stop_post": [("/usr/bin/true", "post")],
    "restart_seconds": 3,
    "start_seconds": 90,
    "stop_seconds": 60,
    "writable": ["/var/lib/muster/hf"],
    "devices": ["char-nvidia", "/dev/gdrdrv"],
    "closed": True,
    "peers": ["198.51.100.1", "198.51.100.8/29"],
    "clients": ["10.0.0.0/8"],
    "after": ["muster-kimi-k2-ray.service"],
    "joins": ["muster-kimi-k2-ray.service"],
    "wants": ["muster-kimi-k2-weights.service"],
    "owner": "kimi-k2",
    "private": "8f14e45f",
    "env_files": ["/etc/muster/kimi-k2/vllm.env", "/etc/muster/kimi-k2/secrets.env"],
    "standard_input": "/etc/muster/kimi-k2/guard-key",
    "credentials": [("api-key", "/etc/muster/kimi-k2/secrets.env")],
}
TEMPLATES: dict[str, dict[str, Any]] = {
    "unit.service.j2": UNIT,
    "env.j2": {"env": {"HOME": "/var/lib/muster/kimi-k2", "PATH": "/usr/bin:/bin"}},
    "tmpfiles.conf.j2": {"root": "/opt/muster", "hf_home": "/var/lib/muster/hf"},
    "sysusers.conf.j2": {},
    "sysctl.conf.j2": {},
    "ray_ready.py.j2": {},
    "firewall.service.j2": {},
    "nftables.conf.j2": {
        "group": "kimi-k2",
        "unit": "muster-firewall@kimi-k2.service",
        "table": "muster-kimi-k2",
        "sets": [("peers", 4, ["198.51.100.1"]), ("peers", 6, ["2001:db8::/64"]), ("clients", 4, ["10.0.0.0/8"])],
        "opened": [("clients", [(8000, 8000)])],
        "named": [(8000, 8000), (10002, 19999)],
        "first_ephemeral": 32768,
    },
    "port_firewall.nft.j2": {
        "unit": "muster-metrics-firewall.service",
        "table": "muster_metrics",
        "port": 9100,
        "monitors": [("ip", ["198.51.100.9"]), ("ip6", ["2001:db8::9"])],
    },
    "port_firewall.service.j2": {
        "ruleset": "/opt/muster/monitoring/firewall.nft",
        "table": "muster_metrics",
        "guarded": "prometheus-node-exporter.service",
        "required": True,
    },
    "host_metrics.service.j2": {
        "program": "/opt/muster/monitoring/host_metrics.py",
        "devices": ["char-nvidia", "/dev/gdrdrv"],
    },
    "host_metrics.timer.j2": {"seconds": 15},
    "haproxy_refuse.lua.j2": {"answers": [("key", 401, '{"error": {}}', 0)]},
    "haproxy.cfg.j2": {
        "monitor_port": 8405,
        "monitors": ["198.51.100.9", "2001:db8::/64"],
        "page_policy": "default-src 'none'",
        "socket": "/run/haproxy/admin.sock",
        "keys": "/etc/haproxy/muster/keys.map",
        "port": 443,
        "http2": True,
        "connections": 4000,
        "accepted": 4256,
        "all_connections": 4320,
        "buffer": 1081344,
        "max_body": 1048576,
        "silence": 600,
        "queue_seconds": 30,
        "by_session": True,
        "by_prefix": False,
        "prefix_bytes": 1024,
        "session_header": "X-Session-ID",
        "paths": ("/v1/completions",),
        "listing": '{"data": []}',
        **{f"refused_{what}": (error.status, error.body, error.retry_after) for what, error in REFUSED.items()},
        "failed": [(503, '{"error": {}}', 5)],
        "backends": [
            ("m-1", ("/v1/completions",), True, [("a_h", "198.51.100.1", 8000, "198.51.100.1", 29600, 8)], 8, 150, 1)
        ],
    },
}


def logical_lines(text: str) -> list[str]:
    """Return the lines of a unit file as systemd joins and splits them: the reader that a value could fool."""
    lines, rest = list[str](), ""
    for line in re.split(r"[\n\r\x00\x85\u2028\u2029]", text):
        if rest and line.lstrip().startswith(("#", ";")):
            continue  # a comment within a continuation is skipped
        if line.endswith("\\") and not line.lstrip().startswith(("#", ";")):
            rest += line[:-1] + " "
            continue
        lines.append((rest + line).strip())
        rest = ""
    return [line for line in [*lines, rest.strip()] if line and not line.startswith(("#", ";"))]


def unit_shape(text: str) -> list[str]:
    """Return sections and directives, without what they are set to."""
    return [line if line.startswith("[") else line.partition("=")[0] for line in logical_lines(text)]


def env_shape(text: str) -> list[bool]:
    return [bool(re.match(r"[A-Za-z_]\w*=", line)) for line in logical_lines(text)]


def fields_shape(text: str) -> list[tuple[int, str]]:
    return [(len(line.split()), line.split()[0]) for line in logical_lines(text)]


def nft_shape(text: str) -> list[str]:
    """Return lines with every word and every list of elements as one: what is left is the grammar."""
    lines = [line for line in re.split(r"[\n\r\x85\u2028\u2029;]", text) if not line.lstrip().startswith("#")]
    return [re.sub(r"[A-Za-z0-9_-]+", "w", re.sub(r"\{ [0-9a-f:./, -]+ \}", "{}", line)) for line in lines]


def haproxy_shape(text: str) -> list[str]:
    """Return lines with every quoted text and every word as one; whether an answer has Retry-After is a value."""
    lines = re.split(r"[\n\r\x85\u2028\u2029]", re.sub(r" hdr Retry-After \d+", "", text))
    return [re.sub(r"[^\s']+", "w", re.sub(r"\"[^\"]*\"|'[^']*'", "w", line)) for line in lines]


def lua_shape(text: str) -> list[str]:
    """Return lines with every long text and every word as one."""
    lines = re.split(r"[\n\r\x85\u2028\u2029]", text)
    return [re.sub(r"[A-Za-z0-9_-]+", "w", re.sub(r"\[==\[.*?\]==\]", "w", line)) for line in lines]


SHAPES: dict[str, Callable[[str], list[Any]]] = {
    "unit.service.j2": unit_shape,
    "env.j2": env_shape,
    "tmpfiles.conf.j2": fields_shape,
    "sysusers.conf.j2": fields_shape,
    "sysctl.conf.j2": fields_shape,
    "ray_ready.py.j2": str.splitlines,
    "firewall.service.j2": unit_shape,
    "nftables.conf.j2": nft_shape,
    "port_firewall.nft.j2": nft_shape,
    "port_firewall.service.j2": unit_shape,
    "host_metrics.service.j2": unit_shape,
    "host_metrics.timer.j2": unit_shape,
    "haproxy.cfg.j2": haproxy_shape,
    "haproxy_refuse.lua.j2": lua_shape,
}


def test_every_template_of_a_host_has_hostile_values_here() -> None:
    names = {path.name for path in Path(resources.directory("templates")).glob("*.j2")}
    assert names - {"report.html.j2"} == TEMPLATES.keys() == SHAPES.keys()  # the report is HTML, escaped by jinja2


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_value_becomes_another_line(template: str) -> None:
    expected = SHAPES[template](render(template, TEMPLATES[template]))
    assert expected

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(hostile(TEMPLATES[template]))
    def attack(values: dict[str, Any]) -> None:
        try:
            text = render(template, values)
        except (ValueError, TypeError):
            return
        text.encode()
        assert SHAPES[template](text) == expected

    attack()


@pytest.mark.parametrize("template", [name for name, values in TEMPLATES.items() if values])
@pytest.mark.parametrize("nasty", NASTY[:3])
def test_what_was_shown_to_work_is_refused_or_quoted(template: str, nasty: str) -> None:
    for key in TEMPLATES[template]:
        if isinstance(TEMPLATES[template][key], str):
            with pytest.raises(ValueError):
                render(template, {**TEMPLATES[template], key: nasty})


def test_a_value_through_no_filter_is_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "raw.j2").write_text("Description={{ title }}\n")
    (tmp_path / "joined.j2").write_text("Description={{ (title | unit_text) ~ title }}\n")
    monkeypatch.setattr(rendering.resources, "directory", lambda _: tmp_path)
    rendering._environment.cache_clear()
    try:
        for template in ("raw.j2", "joined.j2"):
            with pytest.raises(ValueError, match="through no filter"):
                render(template, {"title": "harmless"})
    finally:
        rendering._environment.cache_clear()


def complaints(texts: Iterable[str], directory: Path) -> list[str]:
    """Return what systemd says of units, but for programs and files that are not on this machine."""
    paths = []
    for number, text in enumerate(texts):
        paths.append(directory / f"muster-hostile{number}.service")
        paths[-1].write_text(text)
    return systemd_analyze.complaints(paths)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
def test_systemd_itself_reads_every_unit_that_is_rendered(tmp_path: Path) -> None:
    texts = list[str]()

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(hostile(UNIT))
    def collect(values: dict[str, Any]) -> None:
        try:
            texts.append(render("unit.service.j2", values))
        except (ValueError, TypeError):
            return

    collect()
    assert texts
    unique = list(dict.fromkeys(texts))
    for start in range(0, len(unique), 50):
        assert complaints(unique[start : start + 50], tmp_path) == []
