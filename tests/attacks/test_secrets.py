"""A secret fails closed: a file that is not one key stops the deploy, and every reader gets the same key."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.hosts.secret_store import open_store
from muster.on_host import api_key, verify_group
from muster.spec import secret_files
from tests import sample_observations, sample_plans


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key"),
        ("\n\n", "holds no key"),
        ("# VLLM_API_KEY=sesame\n", "holds no key"),
        ("VLLM_API_KEY=\n", "an empty key"),
        ('VLLM_API_KEY=""\n', "an empty key"),
        ("VLLM_API_KEY='  '\n", "readers take differently"),
        ('VLLM_API_KEY="correct horse"\n', "readers take differently"),
        ("VLLM_API_KEY=correct horse\n", "readers take differently"),
        ("VLLM_API_KEY=sesame # mine\n", "readers take differently"),
        ("VLLM_API_KEY='se\"same'\n", "readers take differently"),
        ("VLLM_API_KEY=se\\same\n", "readers take differently"),
        ("VLLM_API_KEY=sésame\n", "readers take differently"),
        ("VLLM_API_KEY=one\nVLLM_API_KEY=two\n", "holds 2 lines"),
        ("one\ntwo\n", "holds 2 lines"),
        ("OPENAI_API_KEY=sesame\n", "sets OPENAI_API_KEY"),
    ],
)
def test_a_file_that_is_not_one_key_is_refused_before_anything_stops(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "api.env"
    file.write_text(text)
    plan = sample_plans.plain("kimi-k2-thinking", 1, "H200", api_key_file=str(file))
    with pytest.raises(Refusal, match=says) as refusal:
        open_store(plan, sample_observations.as_planned(plan))
    assert "sesame" not in str(refusal.value)
    assert "horse" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "VLLM_API_KEY=sesame",
        "VLLM_API_KEY=sesame\n",
        "VLLM_API_KEY=sesame\r\n",
        "# ours\n\nVLLM_API_KEY = 'sesame'\n",
        'export VLLM_API_KEY="sesame"\n',
        "sesame\n",
        "  sesame  \n",
    ],
)
def test_every_way_to_write_a_key_is_shipped_in_one_form(tmp_path: Path, text: str) -> None:
    file = tmp_path / "api.env"
    file.write_text(text)
    plan = sample_plans.plain("kimi-k2-thinking", 1, "H200", api_key_file=str(file))
    assert open_store(plan, sample_observations.as_planned(plan)).texts == {plan.api_key_path: "VLLM_API_KEY=sesame\n"}


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"a" * 100_000, None])
def test_a_file_that_is_no_text_or_endless_is_refused(tmp_path: Path, broken: bytes | None) -> None:
    if broken is None:
        file = Path("/dev/zero")
    else:
        file = tmp_path / "api.env"
        file.write_bytes(broken)
    with pytest.raises(Refusal):
        secret_files.api_key(secret_files.read(str(file)), where="api.env")


@given(st.text(max_size=60))
def test_what_is_shipped_reads_back_as_the_same_key_on_the_host(tmp_path_factory: Any, text: str) -> None:
    try:
        shipped = secret_files.api_key(text, where="f")
    except Refusal:
        return
    file = tmp_path_factory.mktemp("host") / "secrets.env"
    file.write_text(shipped)
    assert shipped == f"VLLM_API_KEY={api_key.read(str(file))}\n"


@pytest.mark.parametrize("text", ["", "VLLM_API_KEY=\n", "#\nVLLM_API_KEY=x\n", "VLLM_API_KEY=x", 'VLLM_API_KEY="x"\n'])
def test_a_host_s_program_takes_no_other_form_for_no_key(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets.env"
    file.write_text(text)
    with pytest.raises(ValueError, match="deploy again"):
        api_key.read(str(file))
    with pytest.raises(OSError, match="cannot be read"):
        api_key.read(str(tmp_path / "none"))


@pytest.mark.parametrize("kept", ["", "abc", "\n", "g" * 64 + "\n"])
def test_a_random_secret_that_a_cut_run_left_half_written_is_made_again(state: Path, kept: str) -> None:
    plan = sample_plans.plan("kimi-k2-thinking", 1, "H200")
    place = state / "muster" / plan.group / "guard-key"
    place.parent.mkdir(parents=True)
    place.write_text(kept)
    store = open_store(plan, sample_observations.fresh(plan))
    assert len(store.texts[plan.secrets[0].path].strip()) == 64


class Endpoint(http.server.BaseHTTPRequestHandler):
    """An API that asks for a key, or one that lets everybody in."""

    def _answer(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        welcome = not server.closed or self.headers.get("Authorization") == "Bearer sesame"
        body = b'{"data": [{"id": "m"}], "choices": [{}]}' if welcome else b"{}"
        self.send_response(200 if welcome else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.closed = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("closed", [True, False])
def test_verify_sees_401_without_the_key_and_200_with_it(endpoint: Any, tmp_path: Path, closed: bool) -> None:
    endpoint.closed = closed
    file = tmp_path / "secrets.env"
    file.write_text("VLLM_API_KEY=sesame\n")
    request = {
        "processes": [],
        "url": f"http://127.0.0.1:{endpoint.server_address[1]}",
        "model": "m",
        "ranks": 1,
        "tool_calling": True,
        "seconds": 10,
        "api_key_file": str(file),
    }
    problems = verify_group.main(request)["problems"]
    assert problems == [] if closed else "without the API key got HTTP 200" in problems[0]
