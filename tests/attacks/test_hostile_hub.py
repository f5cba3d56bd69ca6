"""Whatever a hub, an index or an engine answers ends in words, within bounds; a pin is written whole or not at all."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from muster.commands.pin import pin
from muster.errors import Refusal
from muster.guard.endpoint_kinds import KINDS
from muster.on_host import bounded_http, endpoint_api, http_bounds, resolve_engine, transfer_download, transfer_source
from muster.spec import pins, recipe
from muster.weights import gather, hub, staging_run, tokens
from tests.attacks.hostile_http import (
    COMMIT,
    as_json,
    endless,
    hostile,
    hub_metadata,
    plain,
    raw_answers,
    scope_metadata,
)

RECIPE = "kimi-k2-instruct"
QUICK = hypothesis.settings(max_examples=40, deadline=None)
NIGHTLY = hypothesis.settings(max_examples=1000, deadline=None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No example waits for long: neither for an answer nor before it asks again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_SECONDS", 2.0)
    monkeypatch.setattr(transfer_download, "_LONGEST_WAIT", 0.0)


def run_pin(*words: str) -> Any:
    return CliRunner().invoke(pin, [RECIPE, *words])


def good_pin() -> bytes:
    """Write a pin and return its bytes."""
    Path("model").mkdir()
    Path("model", "config.json").write_text("{}")
    assert run_pin("--from", "model").exit_code == 0
    return pins.path_of(RECIPE).read_bytes()


# --- the pin


@pytest.mark.parametrize(
    "metadata",
    [
        {"sha": "main", "siblings": [{"rfilename": "config.json", "size": 2}]},
        {"sha": COMMIT, "siblings": [{"rfilename": "../../etc/cron.d/x", "size": 2}]},
        {"sha": COMMIT, "siblings": [{"rfilename": "x", "lfs": {"sha256": "zz", "size": 2}}]},
        {"sha": COMMIT, "siblings": [{"rfilename": "x", "lfs": {"sha256": "0" * 64, "size": -2}}]},
        {"sha": COMMIT, "siblings": [{"rfilename": "a", "size": 2}, {"rfilename": "a/b", "size": 2}]},
        {"sha": COMMIT, "siblings": [{"rfilename": ".muster-manifest.json", "size": 2}]},
        {"sha": COMMIT, "siblings": []},
        {"sha": COMMIT},
        [],
    ],
)
def test_what_would_be_refused_later_is_not_written_over_a_good_pin(metadata: Any) -> None:
    before = good_pin()
    with hostile(lambda path, _: iter([plain(as_json(metadata) if "/api/" in path else b"{}")])) as server:
        done = run_pin("--endpoint", server.url)
    assert isinstance(done.exception, Refusal), done.exception
    assert pins.path_of(RECIPE).read_bytes() == before
    assert not any("etc" in path for path, _ in server.requests)


def test_another_commit_than_the_one_asked_for_is_refused() -> None:
    metadata = {"sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": 2}]}
    with hostile(lambda path, _: iter([plain(as_json(metadata) if "/api/" in path else b"{}")])) as server:
        assert run_pin("--endpoint", server.url, "--revision", COMMIT).exit_code == 0
        done = run_pin("--endpoint", server.url, "--revision", "d" * 40)
    assert "was asked for commit dddd" in str(done.exception)
    kept = pins.read(RECIPE)
    assert kept is not None
    assert kept.revision == COMMIT


def test_a_pin_that_cannot_be_read_is_replaced_by_a_new_one() -> None:
    good_pin()
    pins.path_of(RECIPE).write_text("{" * 10_000)
    assert run_pin("--from", "model").exit_code == 0
    assert pins.read(RECIPE) is not None


def test_a_pin_is_written_whole_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = good_pin()
    Path("model", "more").write_text("x")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pins.whole_files.os, "fsync", full)
    done = run_pin("--from", "model")
    assert "No space left on device" in str(done.exception)
    assert pins.path_of(RECIPE).read_bytes() == before
    assert [path.name for path in Path("pins").iterdir()] == [f"{RECIPE}.json"]


# --- the token


def test_a_token_does_not_go_over_http_to_another_machine() -> None:
    Path("token").write_text("hub-token\n")
    done = run_pin("--endpoint", "http://hub.example", "--token-file", "token")
    assert isinstance(done.exception, Refusal)
    assert "is not https" in str(done.exception)
    assert "hub-token" not in str(done.exception)


@pytest.mark.parametrize("text", ["", "two words", "two\nlines", "x" * 5000, "\x1b[2J", "ümlaut"])
def test_a_file_that_is_no_token_is_refused_without_showing_it(text: str) -> None:
    Path("token").write_text(text)
    with pytest.raises(Refusal, match="nothing but the token") as refusal:
        tokens.read("token", setting="weights_token_file")
    assert not text or text not in str(refusal.value)


def test_a_token_is_not_sent_to_where_a_redirect_leads() -> None:
    metadata = {"sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": 2}]}
    Path("token").write_text("hub-token\n")
    with hostile(lambda path, _: iter([plain(as_json(metadata) if "/api/" in path else b"{}")])) as other:

        def away(path: str, _: dict[str, str]) -> Iterator[bytes]:
            yield plain(b"", "302 Found", f"Location: {other.url}{path}")

        with hostile(away) as server:
            assert run_pin("--endpoint", server.url, "--token-file", "token").exit_code == 0
    assert all(headers.get("authorization") == "Bearer hub-token" for _, headers in server.requests)
    assert other.requests
    assert not any("authorization" in headers for _, headers in other.requests)


def test_staging_refuses_a_token_for_an_endpoint_in_clear(tmp_path: Path) -> None:
    from muster.spec.settings import Settings

    Path("token").write_text("hub-token")
    settings = Settings(weights_source="hub", weights_token_file="token", hf_endpoint="http://hub.example")
    with pytest.raises(Refusal, match=r"hf_endpoint .* is not https"):
        staging_run.source_of(settings, settings.weights)


def test_a_seed_sends_no_token_in_clear() -> None:
    with pytest.raises(http_bounds.HttpError, match="not sent over http"):
        transfer_download.credentials_for("http://hub.example/x", {"token": {"text": "t"}})


# --- bounds


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"]
)
def test_an_endless_answer_ends_at_its_bound(head: bytes) -> None:
    def reply(path: str, _: dict[str, str]) -> Iterator[bytes]:
        yield head
        yield from endless(b"x" * (1 << 20))

    with hostile(reply) as server:
        before = memory()
        with pytest.raises(http_bounds.HttpError, match=r"more than 100 bytes|negative"):
            bounded_http.Client().get(server.url, limit=100, seconds=10)
        assert server.sent < 64 << 20
        assert memory() - before < 64 << 20


@pytest.mark.parametrize("name", ["header", "body"])
def test_a_trickle_ends_at_its_deadline(name: str) -> None:
    def reply(path: str, _: dict[str, str]) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n" if name == "header" else b"HTTP/1.1 200 OK\r\n\r\n"
        for _ in range(2_400):
            time.sleep(0.05)
            yield b"X: y\r\n" if name == "header" else b"x"

    with hostile(reply) as server:
        began = time.monotonic()
        with pytest.raises(http_bounds.HttpError, match=r"no whole answer within 1 s|more than 100 headers"):
            bounded_http.Client().get(server.url, limit=1 << 20, seconds=1)
        assert time.monotonic() - began < 60


def fetch(server_url: str, size: int = 100, **source: Any) -> list[str]:
    """Fetch one file of 100 bytes as a seed does."""
    entry = {"path": "model.safetensors", "size": size, "sha256": "0" * 64}
    full = {"kind": "urls", "urls": {"model.safetensors": f"{server_url}/x"}, "timeout": 1, **source}
    return list(transfer_source.fetch(full, {}, [entry], str(Path.cwd() / "store")))


def arrived() -> int:
    part = Path("store", "model.safetensors.muster-wan")
    return part.stat().st_size if part.exists() else 0


def test_a_file_is_never_longer_than_it_is_pinned() -> None:
    def reply(path: str, _: dict[str, str]) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        yield from endless(b"x" * (1 << 20))

    with hostile(reply) as server, pytest.raises(OSError, match="more than 100 bytes"):
        fetch(server.url)
    assert arrived() == 100
    assert server.sent < 256 << 20


def test_a_download_that_trickles_is_named() -> None:
    def reply(path: str, _: dict[str, str]) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        for _ in range(100):
            yield b"x"
            time.sleep(0.05)

    with hostile(reply) as server, pytest.raises(OSError, match=r"only \d+ bytes in \d s"):
        fetch(server.url, size=100_000, stall=0.5)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("-5", 0, 0), ("7", 7, 7), ("date", 50, 61), ("1e999", 300, 300)],
)
def test_a_wait_is_a_number_or_a_date_within_bounds(text: str, least: float, most: float) -> None:
    seconds = http_bounds.retry_after(formatdate(time.time() + 60, usegmt=True) if text == "date" else text)
    assert seconds is not None
    assert least <= seconds <= most


@given(st.text(max_size=40))
def test_no_text_is_a_wait_beyond_the_bounds(text: str) -> None:
    assert 0 <= (http_bounds.retry_after(text) or 0) <= 300


def test_an_index_that_does_not_say_a_size_is_named() -> None:
    silent = [b"HTTP/1.1 200 OK\r\n\r\n"]
    with hostile(lambda *_: iter(silent)) as server, pytest.raises(OSError, match="HEAD without Content-Length"):
        resolve_engine.size_of(f"{server.url}/x.whl", {})


def test_a_wheel_larger_than_resolved_is_not_gathered(tmp_path: Path) -> None:
    Path("pylock.toml").write_text(
        'lock-version = "1.0"\n[[packages]]\nname = "x"\nversion = "1"\nwheels = [{{ url = "{}/x-1-py3-none-any.whl", '
        'size = 100, hashes = {{ sha256 = "{}" }} }}]\n'.format("{url}", "0" * 64)
    )

    def reply(path: str, _: dict[str, str]) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        yield from endless(b"x" * (1 << 20))

    with hostile(reply) as server:
        Path("pylock.toml").write_text(Path("pylock.toml").read_text().replace("{url}", server.url))
        with pytest.raises(Refusal, match="more than 100 bytes"):
            gather.wheels(Path("pylock.toml"), tmp_path / "wheels")
    assert sum(path.stat().st_size for path in (tmp_path / "wheels").iterdir()) <= 100


def test_an_engine_that_redirects_gets_no_key_elsewhere() -> None:
    with (
        hostile(lambda *_: iter([plain(b"{}")])) as other,
        hostile(lambda *_: iter([plain(b"", "302 Found", f"Location: {other.url}/")])) as engine,
    ):
        api = endpoint_api.Api(engine.url, 2, None)
        api.credentials = "Bearer key"
        assert api.models() == []
    assert other.requests == []


# --- a thousand hostile answers


def _pins_or_refuses(answer: bytes, small: bytes, kind: str) -> None:
    def reply(path: str, _: dict[str, str]) -> Iterator[bytes]:
        yield answer if "/api/" in path else small

    with hostile(reply) as server:
        began = time.monotonic()
        words, listing = "", None
        try:
            if kind == "hub":
                listing = hub.from_hub(recipe.load(RECIPE).model, "main", endpoint=server.url)
            else:
                listing = hub.from_modelscope(recipe.load(RECIPE).model, "master", endpoint=server.url)
        except Refusal as refusal:
            words = str(refusal)
        assert words.replace("\n", "").isprintable()
        if listing is not None:
            pins.write(RECIPE, listing)
            assert pins.read(RECIPE) == listing
        assert time.monotonic() - began < 60


small_files = raw_answers(st.sampled_from([b"{}", b"{}", b"", b"x" * 100]))


class TestAnswers:
    """The same property for both hubs; nightly it sees a thousand answers each."""

    @QUICK
    @given(raw_answers(hub_metadata().map(as_json)), small_files)
    def test_a_hub(self, answer: bytes, small: bytes) -> None:
        _pins_or_refuses(answer, small, "hub")

    @QUICK
    @given(raw_answers(scope_metadata().map(as_json)))
    def test_modelscope(self, answer: bytes) -> None:
        _pins_or_refuses(answer, b"", "modelscope")

    @QUICK
    @given(raw_answers(st.binary(max_size=120)))
    def test_a_source(self, answer: bytes) -> None:
        _fetches_or_refuses(answer)

    @QUICK
    @given(raw_answers(st.binary(max_size=60) | hub_metadata().map(as_json)))
    def test_an_engine(self, answer: bytes) -> None:
        _engine_answers(answer)

    @pytest.mark.nightly
    @NIGHTLY
    @given(raw_answers(hub_metadata().map(as_json)), small_files)
    def test_a_thousand_of_a_hub(self, answer: bytes, small: bytes) -> None:
        _pins_or_refuses(answer, small, "hub")

    @pytest.mark.nightly
    @NIGHTLY
    @given(raw_answers(scope_metadata().map(as_json)))
    def test_a_thousand_of_modelscope(self, answer: bytes) -> None:
        _pins_or_refuses(answer, b"", "modelscope")

    @pytest.mark.nightly
    @NIGHTLY
    @given(raw_answers(st.binary(max_size=120)))
    def test_a_thousand_of_a_source(self, answer: bytes) -> None:
        _fetches_or_refuses(answer)

    @pytest.mark.nightly
    @NIGHTLY
    @given(raw_answers(st.binary(max_size=60) | hub_metadata().map(as_json)))
    def test_a_thousand_of_an_engine(self, answer: bytes) -> None:
        _engine_answers(answer)


def _fetches_or_refuses(answer: bytes) -> None:
    Path("store", "model.safetensors.muster-wan").unlink(missing_ok=True)
    with hostile(lambda *_: iter([answer])) as server:
        words = ""
        try:
            fetch(server.url)
        except OSError as error:
            words = str(error)
    assert words.isprintable()
    assert arrived() <= 100 if words else arrived() == 100


def _engine_answers(answer: bytes) -> None:
    with hostile(lambda *_: iter([answer])) as engine:
        api = endpoint_api.Api(engine.url, 1, None)
        assert all(isinstance(name, str) for name in api.models())
        assert isinstance(api.answer(KINDS["completions"].question("m"), 0), str)
        assert isinstance(api.without_key(), str)


def test_deep_json_is_refused() -> None:
    deep = b"[" * 100_000
    with hostile(lambda *_: iter([plain(deep)])) as server:
        with pytest.raises(Refusal, match="something else"):
            hub.from_hub("a/b", "main", endpoint=server.url)
        assert endpoint_api.Api(server.url, 2, None).models() == []
    assert json.loads("[]") == []
