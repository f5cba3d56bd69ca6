"""The rendered configuration in a real HAProxy on loopback: who gets in, where requests go, what faults cost."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import required
from tests.edge.live import PATHS, SECONDS, Answer, Engine, LiveEdge, bearer, record
from tests.faults.edge_matrix import by_key

pytestmark = pytest.mark.slow  # real processes on real sockets

ENGINE_KEY = "engine-secret"
ALL, ONE = "sk-of-all-models", "sk-of-one-model"


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    made = {name: Engine(name) for name in ("a0", "a1", "b0")}
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(scope="module")
def edge(engines: dict[str, Engine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEdge]:
    """Model `org/a` with two engines that ask for a key, and model `b` with one that asks for none."""
    groups = {"a": ("org/a", [engines["a0"], engines["a1"]]), "b": ("b", [engines["b0"]])}
    made = LiveEdge(tmp_path_factory.mktemp("edge"), groups, {"org/a": ENGINE_KEY}, edge_max_body=100_000)
    made.keys(**{ALL: record("all"), ONE: record("one", "org/a")})
    with made as running:
        yield running


def test_a_model_is_routed_to_its_engines(edge: LiveEdge) -> None:
    assert {edge.ask(ALL, model="org/a").json["from"] for _ in range(8)} == {"a0", "a1"}
    assert {edge.ask(ALL, model="b").json["from"] for _ in range(4)} == {"b0"}
    # Clients of the openai package name the model last, after the messages.
    late = json.dumps({"messages": ["x" * 90_000], "model": "b"}).encode()
    assert edge.ask(ALL, raw=late).json == {"from": "b0"}


def test_the_engines_key_is_the_edges_alone(edge: LiveEdge, engines: dict[str, Engine]) -> None:
    with edge.open() as connection:
        sent = {**bearer(ALL), "X-data-parallel-rank": "3"}
        for model in ("org/a", "org/a", "b"):
            connection.request("POST", PATHS[1], json.dumps({"model": model}), sent)
            connection.getresponse().read()
    for name, expected in (("a0", f"Bearer {ENGINE_KEY}"), ("b0", None)):
        headers = engines[name].requests[-1]["headers"]
        assert headers.get("authorization", headers.get("Authorization")) == expected
        assert "x-data-parallel-rank" not in {header.lower() for header in headers}
        assert ALL not in str(headers)


@pytest.mark.parametrize(
    ("key", "path", "method", "body", "status", "code"),
    [
        ("", PATHS[0], "POST", b'{"model": "b"}', 401, "invalid_api_key"),
        ("sk-wrong", PATHS[0], "POST", b'{"model": "b"}', 401, "invalid_api_key"),
        ("sk-wrong", "/v1/models", "GET", b"", 401, "invalid_api_key"),
        (ONE, PATHS[0], "POST", b'{"model": "b"}', 403, "model_not_allowed"),
        (ALL, PATHS[0], "POST", b'{"model": "c"}', *by_key("model-of-nobody").answer),
        (ALL, PATHS[0], "POST", b"{}", 400, "missing_model"),
        (ALL, PATHS[0], "POST", b"no json", 400, "missing_model"),
        (ALL, PATHS[0], "POST", b'{"x": {"model": "b"}}', 400, "missing_model"),
        (ALL, "/metrics", "GET", b"", 404, "unknown_url"),
        (ALL, "/v1/chat/completions/", "POST", b'{"model": "b"}', 404, "unknown_url"),
        (ALL, "/v1/../metrics", "GET", b"", 404, "unknown_url"),
        (ALL, "/scale_elastic_ep", "POST", b'{"model": "b"}', 404, "unknown_url"),
        (ALL, PATHS[0], "DELETE", b"", 404, "unknown_url"),
    ],
)
def test_refusals_have_the_apis_shape(
    edge: LiveEdge, key: str, path: str, method: str, body: bytes, status: int, code: str
) -> None:
    answer = edge.ask(key, path, method, body)
    assert (answer.status, answer.code) == (status, code)


def test_a_long_body_is_refused_before_it_is_sent(edge: LiveEdge) -> None:
    with edge.open() as connection:
        connection.request("POST", PATHS[0], None, {**bearer(ALL), "Content-Length": "100001"})
        answer = Answer(connection.getresponse())
    assert (answer.status, answer.code) == (413, "request_too_large")


def test_a_long_body_without_a_length_reaches_no_engine(edge: LiveEdge, engines: dict[str, Engine]) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"model": "b", "x": "'
        for _ in range(20):
            yield b"x" * 10_000
        yield b'"}'

    before = len(engines["b0"].requests)
    with edge.open() as connection, contextlib.suppress(OSError):  # it may be closed before all of it is sent
        connection.request("POST", PATHS[0], pieces(), bearer(ALL), encode_chunked=True)
        assert Answer(connection.getresponse()).code == "request_too_large"
    assert len(engines["b0"].requests) == before


@pytest.mark.parametrize("size", [1000, 90_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize(
    ("key", "code", "whole"),
    [
        ("sk-wrong", "401 invalid_api_key", True),
        (ONE, "403 model_not_allowed", False),
        ("sk-spent", "429 rate_limit_exceeded", False),
    ],
)
def test_a_client_over_http2_reads_a_refusal(edge: LiveEdge, key: str, code: str, whole: bool, size: int) -> None:
    """Before the body has come, which curl sends in pieces as it is let; `whole`: bodies that are too large too."""
    edge.keys(**{"sk-spent": record("spent", rate=1)})
    over_http2(edge, "sk-spent", 10)
    status, body = over_http2(edge, key, size)
    assert f"{status} {json.loads(body)['error']['code']}" == (
        code if whole or size < 100_000 else "413 request_too_large"
    )


def test_over_http2_engines_answer_too(edge: LiveEdge) -> None:
    assert over_http2(edge, ALL, 90_000) == (200, '{"from": "b0"}')


def over_http2(edge: LiveEdge, key: str, size: int) -> tuple[int, str]:
    """Ask over HTTP/2 with a body of some size; return status and body of the answer."""
    command = ["curl", "-sS", "--http2", "--cacert", str(edge.certificate), "--max-time", str(SECONDS)]
    command += ["--noproxy", "*", "-H", f"Authorization: Bearer {key}", "-H", "Expect:", "--data-binary", "@-"]
    command += ["-w", "\n%{http_version} %{http_code}", f"https://127.0.0.1:{edge.port}{PATHS[0]}"]
    sent = json.dumps({"x": "x" * size, "model": "b"})
    ran = subprocess.run(command, input=sent, capture_output=True, text=True, check=False)
    if "unsupported protocol" in ran.stderr or "doesn't support" in ran.stderr:
        required.lacking("curl knows no HTTP/2")
    assert ran.returncode == 0, ran.stderr
    body, _, words = ran.stdout.rpartition("\n")
    version, status = words.split()
    assert version == "2"
    return int(status), body


def test_models_are_listed(edge: LiveEdge) -> None:
    answer = edge.ask(ALL, "/v1/models", "GET")
    assert [row["id"] for row in answer.json["data"]] == ["b", "org/a"]


def test_keys_take_effect_without_a_reload(edge: LiveEdge) -> None:
    one = "sk-new"
    assert edge.ask(one, model="b").status == 401
    edge.keys(**{one: record("new")})
    assert edge.ask(one, model="b").status == 200
    edge.keys(**{one: {**record("new"), "revoked": 2}})
    assert edge.ask(one, model="b").code == "invalid_api_key"
    assert edge.keys("read")["current"]


def test_many_keys_are_loaded_whole(edge: LiveEdge) -> None:
    keys = {f"sk-{index}": record(f"many{index}", "b", "org/a") for index in range(2000)}
    edge.keys(**keys)
    assert edge.ask("sk-1999", model="b").status == 200
    assert edge.ask(ONE, model="org/a").status == 200
    edge.keys(**{key: {**kept, "revoked": 2} for key, kept in keys.items()})
    assert edge.ask("sk-1999", model="b").status == 401


def test_a_key_expires_by_itself(edge: LiveEdge) -> None:
    edge.keys(**{"sk-old": record("old", expires=int(time.time()) - 1), "sk-fresh": record("fresh", expires=2**33)})
    assert edge.ask("sk-old", model="b").code == "expired_api_key"
    assert edge.ask("sk-fresh", model="b").status == 200


def test_a_rate_is_kept_and_what_is_refused_is_not_counted(edge: LiveEdge) -> None:
    edge.keys(**{"sk-rate": record("rate", rate=3)})
    answers = [edge.ask("sk-rate", model="b") for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 3 + [429] * 3
    assert (answers[-1].code, answers[-1].headers["Retry-After"]) == ("rate_limit_exceeded", "21")
    assert edge.keys("read")["used"]["rate"]["requests"] == 3
    assert edge.ask(ALL, model="b").status == 200


def test_requests_at_once_are_limited(edge: LiveEdge, engines: dict[str, Engine]) -> None:
    edge.keys(**{"sk-two": record("two", concurrent=2)})
    answered: list[int] = []
    threads = [
        threading.Thread(target=lambda: answered.append(edge.ask("sk-two", model="b", wait=True).status))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    edge.wait(lambda: edge.keys("read")["used"].get("two", {}).get("in_flight") == 2)
    third = edge.ask("sk-two", model="b")
    assert (third.status, third.code, third.headers["Retry-After"]) == (429, "too_many_requests", "1")
    engines["b0"].gate.set()
    for thread in threads:
        thread.join(SECONDS)
    engines["b0"].gate.clear()
    assert answered == [200, 200]
    assert edge.ask("sk-two", model="b").status == 200


def test_an_engine_that_is_not_ready_gets_nothing(edge: LiveEdge, engines: dict[str, Engine]) -> None:
    def sources() -> set[str]:
        return {edge.ask(ALL, model="org/a").json["from"] for _ in range(6)}

    engines["a0"].ready = False
    edge.wait(lambda: sources() == {"a1"})
    engines["a0"].ready = True
    edge.wait(lambda: sources() == {"a0", "a1"})


def test_a_request_that_nothing_was_answered_of_goes_to_another_engine(
    edge: LiveEdge, engines: dict[str, Engine]
) -> None:
    before = {name: len(engine.requests) for name, engine in engines.items()}
    answer = edge.ask(ALL, model="org/a", die=True)
    assert (answer.status, answer.code) == (502, "engine_failed")
    # Both engines of the model have had it, none of them more often than HAProxy retries.
    assert all(0 < len(engines[name].requests) - before[name] <= 4 for name in ("a0", "a1"))


def test_an_engines_own_failure_goes_to_another_engine(edge: LiveEdge) -> None:
    """vLLM answers 500 to what it has in hand when its EngineCore dies."""
    assert {edge.ask(ALL, model="org/a", fail=["a0"]).json.get("from") for _ in range(6)} == {"a1"}
    answer = edge.ask(ALL, model="org/a", fail=["a0", "a1"])
    assert (answer.status, answer.json) == (500, {"error": {"code": 500}})


def test_without_an_engine_that_is_ready_clients_are_told_to_come_again(
    edge: LiveEdge, engines: dict[str, Engine]
) -> None:
    engines["b0"].ready = False
    try:
        status, code = by_key("no-engine").answer
        edge.wait(lambda: edge.ask(ALL, model="b").status == status)
        answer = edge.ask(ALL, model="b")
        assert (answer.code, answer.headers["Retry-After"]) == (code, "5")
        assert edge.ask("", "/health", "GET").status == 200  # the other model is served
    finally:
        engines["b0"].ready = True
    edge.wait(lambda: edge.ask(ALL, model="b").status == 200)


def test_a_request_fetches_no_memory_from_the_kernel(engines: dict[str, Engine], tmp_path: Path) -> None:
    """What the buffers of bodies take is kept: by glibc's defaults each request costs hundreds of page faults."""
    edge = LiveEdge(tmp_path, {"b": ("b", [engines["b0"]])})
    edge.keys(**{ALL: record("all")})

    def faults() -> int:
        workers = Path(f"/proc/{edge.process.pid}/task/{edge.process.pid}/children").read_text().split()
        return sum(int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[7]) for worker in workers)

    def ask(times: int) -> None:
        for _ in range(times):
            assert edge.ask(ALL, model="b", messages=[{"role": "user", "content": "x" * 4000}]).status == 200

    with edge:
        ask(50)
        before = faults()
        ask(50)
        assert faults() - before < 50 * 50


def test_a_reload_loses_no_request(edge: LiveEdge, engines: dict[str, Engine]) -> None:
    statuses: list[int] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            statuses.append(edge.ask(ALL, model="org/a").status)

    waiting = threading.Thread(target=lambda: statuses.append(edge.ask(ALL, model="b", wait=True).status))
    waiting.start()
    edge.wait(lambda: edge.keys("read")["used"]["all"]["in_flight"] >= 1)
    workers = [threading.Thread(target=work) for _ in range(2)]
    for thread in workers:
        thread.start()
    try:
        edge.reload()
        counted = len(statuses)
        edge.wait(lambda: len(statuses) > counted + 20)
    finally:
        done.set()
        engines["b0"].gate.set()
        for thread in (*workers, waiting):
            thread.join(SECONDS)
        engines["b0"].gate.clear()
    assert set(statuses) == {200}
    assert edge.ask(ONE, model="org/a").status == 200


def test_the_log_names_key_and_model_and_holds_neither_prompts_nor_keys(edge: LiveEdge) -> None:
    edge.ask(ALL, "/v1/chat/completions?key=sk-in-the-address", model="b", prompt="a secret prompt")
    edge.ask("sk-wrong", model="b", prompt="a secret prompt")
    edge.wait(lambda: any(line["status"] == 401 for line in edge.logged()[-2:]))
    line = next(line for line in reversed(edge.logged()) if line["key"] == "all")
    assert (line["status"], line["path"], line["server"]) == (200, "/v1/chat/completions", "b-0_host")
    text = edge.log.read_text()
    assert not [secret for secret in ("secret prompt", ALL, ONE, "sk-", ENGINE_KEY) if secret in text]
