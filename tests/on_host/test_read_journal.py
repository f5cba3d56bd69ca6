"""What a unit wrote: the newest lines that are not the guard's own polling, and how a reader goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.guard.endpoint_kinds import KINDS
from muster.on_host import read_journal

POLLING = [
    'INFO:     127.0.0.1:45434 - "GET /health HTTP/1.1" 200 OK',
    'INFO:     127.0.0.1:57878 - "GET /metrics HTTP/1.1" 200 OK',
    *(f'INFO:     127.0.0.1:45444 - "POST {kind.path} HTTP/1.1" 200 OK' for kind in KINDS.values()),
    (
        "(APIServer pid=14344) INFO 11-26 10:09:29 [loggers.py:335] Engine 000: Avg prompt throughput: 0.2 tokens/s,"
        " Avg generation throughput: 1.5 tokens/s, Running: 0 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.0%"
    ),
]
TELLING = [
    'INFO:     127.0.0.1:45434 - "GET /health HTTP/1.1" 503 Service Unavailable',
    'INFO:     10.1.2.3:45444 - "POST /v1/completions HTTP/1.1" 200 OK',
    "Engine 000: Avg prompt throughput: 9.2 tokens/s, Running: 3 reqs, Waiting: 0 reqs",
    "EngineCore encountered a fatal error",
]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a journalctl in the way that prints entries, last first with --reverse, and keeps its arguments."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "journalctl").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/argv\n'
        f'case "$*" in *--reverse*) tac {tmp_path}/entries ;; *) cat {tmp_path}/entries ;; esac\n'
    )
    (tools / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    def write(messages: list[Any]) -> Any:
        entries = [
            {"MESSAGE": message, "__CURSOR": f"i={number}", "__REALTIME_TIMESTAMP": str(number * 1_000_000)}
            for number, message in enumerate(messages, 1)
        ]
        (tmp_path / "entries").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return tmp_path / "argv"

    return write


def read(**request: Any) -> dict[str, Any]:
    return read_journal.main({"units": ["a.service", "b.service"], "count": 3, **request})


def test_the_newest_lines_that_tell_something(journal: Any) -> None:
    argv = journal([*TELLING, *POLLING * 50])
    answer = read()
    assert [line["text"] for line in answer["lines"]] == TELLING[-3:]
    assert [line["at"] for line in answer["lines"]] == [2, 3, 4]
    assert answer["cursor"] == f"i={len(TELLING) + 50 * len(POLLING)}"
    assert {"--unit=a.service", "--unit=b.service"} <= set(argv.read_text().splitlines())
    assert [line["text"] for line in read(polling=True)["lines"]] == POLLING[-3:]


def test_a_reader_goes_on_after_its_cursor(journal: Any) -> None:
    argv = journal(["one", POLLING[0], "two", POLLING[1]])
    answer = read(after="s=ab;i=7")
    assert [line["text"] for line in answer["lines"]] == ["one", "two"]
    assert answer["cursor"] == "i=4"
    assert "--after-cursor=s=ab;i=7" in argv.read_text().splitlines()
    with pytest.raises(ValueError, match="no cursor"):
        read(after="x --file=/etc/shadow")


def test_a_beginning_is_given_in_seconds(journal: Any) -> None:
    argv = journal(["one"])
    read(time=600.0)
    assert "--since=@600.000000" in argv.read_text()
    read(age=60.0)
    assert "--since=@" in argv.read_text()


def test_entries_are_found_and_returned_by_their_fields(journal: Any) -> None:
    argv = journal(["one"])
    entry = {
        "MESSAGE": "a",
        "__REALTIME_TIMESTAMP": "1",
        "MUSTER_EVENT": "start",
        "MUSTER_BY": list(b"x\xff"),
        "OTHER": "y",
    }
    (argv.parent / "entries").write_text(json.dumps({**entry, "MUSTER_GROUP": "g" * 999}) + "\n")
    names = ["MUSTER_EVENT", "MUSTER_BY", "MUSTER_GROUP", "MUSTER_CAUSE"]
    (line,) = read(fields=names, matches=["MUSTER_EVENT=start", "MUSTER_EVENT=hold"])["lines"]
    assert line["fields"] == {
        "MUSTER_EVENT": "start",
        "MUSTER_BY": "x\ufffd",
        "MUSTER_GROUP": "g" * 300,
        "MUSTER_CAUSE": "",
    }
    assert read_journal.main({"units": [], "count": 1})["lines"] == []
    assert len(read_journal.main({"units": [], "count": 1, "matches": ["MUSTER_EVENT=start"]})["lines"]) == 1
    read(fields=names, matches=["MUSTER_EVENT=start", "MUSTER_EVENT=hold"])
    words = argv.read_text().splitlines()
    assert words[-2:] == ["MUSTER_EVENT=start", "MUSTER_EVENT=hold"]
    assert "--output-fields=MESSAGE,MUSTER_EVENT,MUSTER_BY,MUSTER_GROUP,MUSTER_CAUSE" in words


@pytest.mark.parametrize("wrong", [{"fields": ["A,B"]}, {"matches": ["--file=/etc/shadow"]}, {"matches": ["A=b c"]}])
def test_a_match_is_no_option(journal: Any, wrong: dict[str, list[str]]) -> None:
    journal(["one"])
    with pytest.raises(ValueError, match="no field"):
        read(**wrong)


def test_bytes_and_oddities_are_text(journal: Any) -> None:
    journal([list(b"\x1b[32mgreen\x1b[0m \xff"), None, 3, " ", "x" * 5000])
    texts = [line["text"] for line in read(count=10)["lines"]]
    assert texts == ["\x1b[32mgreen\x1b[0m \ufffd", "x" * 2000]


def test_journalctls_own_words_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "journalctl").write_text("#!/bin/sh\necho 'Failed to open journal' >&2\nexit 1\n")
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(OSError, match="ended with 1: Failed to open journal"):
        read()
