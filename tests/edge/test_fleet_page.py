"""The fleet's page: what is in it, what is escaped, how large it is; and as a real HAProxy answers it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator

import pytest

from muster.edge import fleet_page, haproxy_files
from muster.edge.edge_plan import EdgePlan, edge_plan
from muster.guard.page_style import POLICY
from muster.spec.settings import Edge
from tests.edge.live import Engine, LiveEdge
from tests.edge.test_edge_plan import group

HOSTILE = "org/<script>alert(1)</script>%[hostname]%{x}"
ROOM = 256_000


def two_models() -> EdgePlan:
    return edge_plan([group("a"), group("b"), group("c", HOSTILE)], Edge())


def test_every_group_has_its_endpoints_and_a_link_to_its_own_page() -> None:
    text = fleet_page.page(two_models(), ROOM)
    for name in ("a", "b", "c"):
        assert f'<a href="http://198.51.100.1:29600/">{name}</a>' in text
        assert text.count(f"/{name}_h0)") == text.count("/a_h0)") > 1
    assert "<script" not in text
    assert "%%[hostname]%%{x}" in text


def test_what_has_no_room_is_counted() -> None:
    plan = edge_plan([group(f"g{number}", f"m{number}") for number in range(500)], Edge(max_body=1 << 12))
    text = haproxy_files.files(plan)[haproxy_files.PAGE]
    shown = len(set(re.findall(r">(g\d+)</a>", text)))
    assert 20 < shown < 500
    assert f"and {500 - shown} groups more" in text
    assert len(text.encode()) < plan.settings.max_body + (24 << 10)


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    made = {name: Engine(name) for name in ("a", "b")}
    made["b"].ready = False
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(scope="module")
def edge(engines: dict[str, Engine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEdge]:
    groups = {"a": ("m", [engines["a"]]), "b": (HOSTILE, [engines["b"]])}
    with LiveEdge(tmp_path_factory.mktemp("edge"), groups) as running:
        yield running


def state(edge: LiveEdge, name: str) -> str:
    text = edge.operators("/").body.decode()
    card = next(part for part in text.split("<li>") if f">{name}</a>" in part)
    return " ".join(re.findall(r'class="(?:good|bad)">(\w+)</span>, (\w+)', card)[0])


@pytest.mark.slow
def test_haproxy_fills_the_page_in(edge: LiveEdge, engines: dict[str, Engine]) -> None:
    edge.wait(lambda: (state(edge, "a-0"), state(edge, "b-0")) == ("up open", "down open"))
    answer = edge.operators("/")
    text = answer.body.decode()
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    (style,) = re.findall("<style>(.*?)</style>", text, re.S)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in POLICY
    assert "&lt;script&gt;alert(1)&lt;/script&gt;%[hostname]%{x}" in text
    assert "%[" not in text.replace("%[hostname]%{x}", "")


@pytest.mark.slow
def test_metrics_are_there_and_nothing_else(edge: LiveEdge) -> None:
    assert b'haproxy_frontend_status{proxy="edge"' in edge.operators("/metrics").body
    for path, method in (("/metrics/", "GET"), ("/v1/models", "GET"), ("/", "POST"), ("/metrics", "POST")):
        assert edge.operators(path, method).status == 404
    assert edge.ask("", "/metrics", "GET").status == 404
