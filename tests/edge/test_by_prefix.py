"""A real HAProxy that chooses an engine by what a prompt begins with (`edge_balance = "prefix"`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.live import PATHS, SECONDS, Answer, Engine, LiveEdge, bearer, record

pytestmark = pytest.mark.slow  # real processes on real sockets

KEY, NAMES = "sk-of-all-models", ("a0", "a1", "a2")
SYSTEM = {"role": "system", "content": "Answer in one word. " * 100}
Messages = list[dict[str, Any]]


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    made = {name: Engine(name) for name in NAMES}
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(scope="module")
def edge(engines: dict[str, Engine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEdge]:
    made = LiveEdge(tmp_path_factory.mktemp("edge"), {"a": ("a", list(engines.values()))}, edge_balance="prefix")
    made.keys(**{KEY: record("all")})
    with made as running:
        yield running


def source(edge: LiveEdge, path: str = PATHS[0], **body: Any) -> str:
    """Return which engine answers where nothing else is in flight: what is, counts as its engine's load."""
    edge.wait_until_idle()
    return str(edge.ask(KEY, path, model="a", **body).json["from"])


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def conversation(first: Messages, turns: int = 4) -> Iterator[Messages]:
    """Yield the messages of each turn."""
    said = list(first)
    for turn in range(turns):
        yield said
        said = [*said, {"role": "assistant", "content": f"answer {turn}"}, user(f"and then {turn}")]


@pytest.mark.parametrize("before", [[], [SYSTEM], [{**SYSTEM, "role": "developer"}]])
def test_a_conversation_stays_and_many_of_them_spread(edge: LiveEdge, before: Messages) -> None:
    sources = []
    for number in range(24):
        (its,) = {source(edge, messages=said) for said in conversation([*before, user(f"question {number}")])}
        sources.append(its)
    assert set(sources) == set(NAMES)


def test_a_document_stays_whatever_is_asked_of_it(edge: LiveEdge) -> None:
    documents = [f"document {number} " * 200 for number in range(24)]
    sources = [{source(edge, messages=[SYSTEM, user(f"{text}{asked}")]) for asked in "abc"} for text in documents]
    assert all(len(its) == 1 for its in sources)
    assert {name for its in sources for name in its} == set(NAMES)


def test_content_in_parts_and_prompts_count_as_well(edge: LiveEdge) -> None:
    def part(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text}]

    def spread(sources: list[set[str]]) -> None:
        assert all(len(its) == 1 for its in sources)
        assert {name for its in sources for name in its} == set(NAMES)

    parted = [[{**SYSTEM, "content": part("instructions")}, user(part(f"question {number}"))] for number in range(24)]
    spread([{source(edge, messages=said) for said in conversation(first)} for first in parted])
    prompts = [f"prompt {number} " * 200 for number in range(24)]
    spread([{source(edge, PATHS[1], prompt=text + end) for end in "abc"} for text in prompts])


def test_what_has_no_beginning_is_answered_by_any(edge: LiveEdge) -> None:
    for body in ({"messages": []}, {"messages": "text"}, {"messages": [user(None)]}, {"prompt": None}, {}):
        assert {edge.ask(KEY, model="a", **body).json["from"] for _ in range(9)} == set(NAMES), body


def test_a_client_does_not_choose(edge: LiveEdge, engines: dict[str, Engine]) -> None:
    sources = set()
    with edge.open() as connection:
        for number in range(12):
            headers = {**bearer(KEY), "X-Prefix": f"{number}"}
            connection.request("POST", PATHS[0], b'{"model": "a", "messages": [{"content": "hello"}]}', headers)
            sources.add(Answer(connection.getresponse()).json["from"])
    assert len(sources) == 1
    # The engine gets a digest: a beginning with line ends is no header of its own.
    assert edge.ask(KEY, model="a", messages=[user("a\r\nX-Evil: 1\r\n\r\n")]).status == 200
    last = {
        name.lower(): value for engine in engines.values() for name, value in engine.requests[-1]["headers"].items()
    }
    assert "x-evil" not in last
    assert len(last["x-prefix"]) == 64


def test_requests_that_all_begin_alike_do_not_crowd_one_engine(edge: LiveEdge, engines: dict[str, Engine]) -> None:
    """Of three engines one has three quarters of them at most."""
    before = {name: len(engine.requests) for name, engine in engines.items()}
    asked = [
        threading.Thread(target=lambda: edge.ask(KEY, model="a", messages=[SYSTEM, user("the same")], wait=True))
        for _ in range(12)
    ]
    for thread in asked:
        thread.start()

    def had() -> list[int]:
        return [len(engine.requests) - before[name] for name, engine in engines.items()]

    try:
        edge.wait(lambda: sum(had()) == 12)
        assert max(had()) <= 9
    finally:
        for engine in engines.values():
            engine.gate.set()
        for thread in asked:
            thread.join(SECONDS)
        for engine in engines.values():
            engine.gate.clear()


def test_an_engine_that_is_not_ready_hands_over_and_gets_its_own_back(
    edge: LiveEdge, engines: dict[str, Engine]
) -> None:
    first = {number: source(edge, messages=[user(f"question {number}")]) for number in range(12)}

    def sources() -> dict[int, str]:
        return {number: source(edge, messages=[user(f"question {number}")]) for number in first}

    engines["a0"].ready = False
    edge.wait(lambda: "a0" not in sources().values())
    now = sources()
    assert {number: now[number] for number, its in first.items() if its != "a0"} == {
        number: its for number, its in first.items() if its != "a0"
    }
    engines["a0"].ready = True
    edge.wait(lambda: sources() == first)


def rank_of(engine: Engine) -> list[str]:
    """Return the DP ranks that an engine's requests name, "" for none."""
    named = [{name.lower(): value for name, value in each["headers"].items()} for each in engine.requests]
    return [each.get("x-data-parallel-rank", "") for each in named]


def test_a_conversation_keeps_its_rank_unless_many_share_its_beginning(tmp_path: Path) -> None:
    engine = Engine("a")
    made = LiveEdge(tmp_path, {"a": ("a", [engine])}, ranks=4, edge_balance="prefix", edge_prefix_ranks=True)
    made.keys(**{KEY: record("all")})
    try:
        with made as edge:
            ranks = set()
            for number in range(24):
                engine.requests.clear()
                for said in conversation([SYSTEM, user(f"question {number}")]):
                    source(edge, messages=said)
                (its,) = {*rank_of(engine)}
                ranks.add(its)
            assert ranks == {"0", "1", "2", "3"}
            engine.requests.clear()
            source(edge, messages=[])
            assert rank_of(engine) == [""]

            engine.requests.clear()
            asked = [
                threading.Thread(target=lambda: edge.ask(KEY, model="a", messages=[user("the same")], wait=True))
                for _ in range(12)
            ]
            for thread in asked:
                thread.start()
            edge.wait(lambda: len(engine.requests) == 12)
            engine.gate.set()
            for thread in asked:
                thread.join(SECONDS)
            assert 1 <= sum(rank != "" for rank in rank_of(engine)) <= 4
    finally:
        engine.close()
