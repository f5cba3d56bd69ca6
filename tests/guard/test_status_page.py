"""The page for browsers: what it shows, that hostile text stays text, its size, and its colours."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.guard import status
from muster.guard.http import response, sent_key
from muster.guard.messages import ABORT, GATHER, RUN, Failure
from muster.guard.page_style import POLICY, STYLE
from muster.guard.restart_policy import RestartRecord
from muster.guard.status_page import PAGE_LIMIT, page, tone
from tests.guard.test_status import ABORTED, ALL, CONFIG, NOW, READY, engine, state

AT = 1764178800.0
VOID = ("meta", "br")
SCRIPT = '<script>alert(1)</script><img src=x onerror="x"> & \'"\x1b]0;title\x07\x00\x9b31m\u202ereversed\nsecond'


class Document(HTMLParser):
    """A page as a browser reads it: its elements, which must be closed in order, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text.append(data)


def named(head: Any, alive: Any) -> dict[str, Any]:
    """What `/status` answers with the API key."""
    group = {"group": "kimi-k2", "recipe": "kimi_k2_instruct", "digest": "4b1d", "release": "0.33.0", "guard": "0a1b"}
    return {**group, **(status.without_lines(status.group_status(CONFIG, head, alive, NOW)) or {})}


def shown(document: Mapping[str, Any], **more: Any) -> str:
    return " ".join("".join(Document(page(document, AT, **more)).text).split())


def test_a_running_group_shows_its_state_load_hosts_ranks_plan_and_versions() -> None:
    text = shown(named(READY, ALL))
    for part in (
        "running every rank answers",
        "in this phase100 s",
        "generationgggggggg",
        "plan4b1d",
        "engine0.33.0",
        "guard0a1b",
        "h0 ",
        "rank 0 · DP 0-1 · 0 tok/s · 0 in flight",
        "10 s ago",
        "None recorded.",
        "As of 2025-11-26 17:40:00 UTC.",
    ):
        assert part in text, part
    assert tone(named(READY, ALL)) == "good"


def test_what_keeps_a_host_comes_first_with_its_host_and_reason() -> None:
    document = named(state(GATHER, ABORTED), None)
    document["members"][1].update(blocked="", lacks="fatal Xid: GPU 3 has fallen off the bus")
    document["members"][0].update(lacks="", child="none")
    text = shown(document)
    assert text.index("fatal Xid: GPU 3 has fallen off the bus") < text.index("h0 no engine")
    assert "h1 vllm was killed by SIGKILL" in text
    assert "2 s ago" in text
    assert tone(document) == "wait"


def test_of_a_failures_reason_the_first_line_is_shown() -> None:
    failure = Failure("h1", "vllm: CUDA out of memory\nTraceback (most recent call last)", at=NOW - 5, process="vllm")
    text = shown(named(state(ABORT, RestartRecord(failures=(failure,)), reason="h1: x"), None))
    assert "vllm: CUDA out of memory" in text
    assert "Traceback" not in text
    assert "5 s ago · vllm" in text


def test_without_names_there_are_numbers_and_the_way_to_the_rest() -> None:
    numbers = status.numbers(READY, ALL, NOW)
    text = shown(numbers, key=True)
    assert "Hosts and reasons: any name, and the API key as the password." in text
    assert "muster status" in shown(numbers)
    assert ("/sign-in" in page(numbers, AT), "/sign-in" in page(numbers, AT, key=True)) == (False, True)
    for secret in ("kimi-k2", "10.0.0.", "4b1d", "gggg", "Last failures"):
        assert secret not in text
    assert "hosts2" in text


def test_it_reads_itself_again_only_where_a_reader_asked() -> None:
    def refreshes(**more: Any) -> list[str | None]:
        made = Document(page(named(READY, ALL), AT, **more))
        return [found["content"] for tag, found in made.elements if found.get("http-equiv") == "refresh"]

    assert (refreshes(), refreshes(live=True)) == ([], ["5"])


def test_language_title_landmarks_and_headings() -> None:
    made = Document(page(named(READY, ALL), AT))
    tags = [tag for tag, _ in made.elements]
    assert dict(made.elements)["html"] == {"lang": "en"}
    assert (tags.count("h1"), tags.count("main"), tags.count("header"), tags.count("footer")) == (1, 1, 1, 1)
    assert {tag for tag in tags if re.fullmatch(r"h[1-6]", tag)} == {"h1", "h2"}
    assert "<title>running · kimi-k2 · muster</title>" in page(named(READY, ALL), AT)
    labels = [found["aria-labelledby"] for tag, found in made.elements if tag == "section"]
    assert labels == [found["id"] for tag, found in made.elements if tag == "h2"]
    assert not {"script", "img", "link", "form", "iframe", "object", "input"} & set(tags)
    assert not [
        name for _, found in made.elements for name in found if name.startswith("on") or name in ("style", "src")
    ]
    assert {found["href"] for tag, found in made.elements if tag == "a"} == {"/", "/live"}


def with_texts(value: Any, text: str) -> Any:
    """A document whose every text is this one; keys stay."""
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        return {key: with_texts(item, text) for key, item in value.items()}
    return [with_texts(item, text) for item in value] if isinstance(value, list) else value


def hostile(document: dict[str, Any], text: str) -> dict[str, Any]:
    return {**with_texts(copy.deepcopy(document), text), "phase": document["phase"]}


FAILED = named(state(GATHER, ABORTED), engine(0, 1))


@given(st.one_of(st.text(), st.text(alphabet="<>&\"'\x00\x1b[]\x9b\u202e\n\r\t/=; azé日\ud800", max_size=60)))
def test_whatever_hosts_say_is_text(text: str) -> None:
    made = page(hostile(FAILED, text), AT)
    # A text may be empty, which drops its line; none makes an element or an attribute of its own.
    assert kinds(made) <= kinds(page(hostile(FAILED, "x"), AT)) | kinds(page(hostile(FAILED, ""), AT))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", made)
    made.encode()


def kinds(text: str) -> set[str]:
    """The elements of a page with their attributes."""
    return {f"{tag} {found}" for tag, found in Document(text).elements}


def test_a_script_in_every_place_is_shown_as_text() -> None:
    made = page(hostile(FAILED, SCRIPT), AT)
    assert Document(made).elements == Document(page(hostile(FAILED, "x"), AT)).elements
    assert "<script" not in made
    assert "<img" not in made
    assert '<script>alert(1)</script><img src=x onerror="x"> & \'"' in "".join(Document(made).text)


def test_a_page_of_any_group_is_bounded() -> None:
    document = hostile(named(state(GATHER, ABORTED), ALL), "é'" * 5000)
    document["members"] = document["members"] * 2000
    document["engines"] = [{**engine, "dp_rank": number} for number, engine in enumerate(document["engines"] * 2000)]
    document["failures"] = document["failures"] * 500
    made = page(document, AT)
    assert len(made.encode()) < PAGE_LIMIT
    assert re.search(r"and \d+ more: muster status shows all", made)
    healthy = {**named(READY, ALL)}
    healthy["members"] = [{**healthy["members"][0], "host": f"h200-{number}"} for number in range(16)]
    assert len(page(healthy, AT).encode()) < 16_000


@pytest.mark.parametrize("value", [None, "x", float("nan"), float("inf"), -1, 10**30, [], {}, True])
def test_a_number_that_is_none_costs_its_place_alone(value: Any) -> None:
    document = named(state(RUN), engine(1))
    for name in ("phase_for", "starts_in", "restarts", "budget", "aborts_in_window", "ready_for"):
        document[name] = value
    document["members"][0].update(heard=value, node_rank=value)
    document["engines"][0].update(proof=value, strikes=value)
    assert "Data parallel ranks" in shown(document)


# Colours, by WCAG 2.2: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def schemes() -> dict[str, dict[str, str]]:
    light, dark = STYLE.split("@media (prefers-color-scheme:dark)")
    return {
        name: dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", text)) for name, text in (("light", light), ("dark", dark))
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_every_background(scheme: str) -> None:
    colours = schemes()[scheme]
    used = set(re.findall(r"color:var\(--(\w+)\)", STYLE))
    assert used == {"ink", "quiet", "good", "wait", "bad", "link"}
    assert set(colours) == {*used, "paper", "panel", "line"}
    low = {
        (text, ground): round(contrast(colours[text], colours[ground]), 2)
        for text in used
        for ground in ("paper", "panel")
        if contrast(colours[text], colours[ground]) < 4.5
    }
    assert low == {}
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


def test_a_browser_may_use_this_stylesheet_and_nothing_else() -> None:
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert re.search(r"<style>(.*)</style>", page({}, AT), re.DOTALL)[1] == STYLE  # type: ignore[index]
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules.pop("style-src") == f"'sha256-{style}'"
    assert set(rules.values()) == {"'none'"}
    assert set(rules) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    head = response(200, "x", "text/html; charset=utf-8").decode().partition("\r\n\r\n")[0].split("\r\n")
    assert f"Content-Security-Policy: {POLICY}" in head
    assert {"X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer", "Cache-Control: no-store"} <= {*head}


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b"Authorization: Bearer a-key\r\n", "a-key"),
        (b"authorization: BASIC " + base64.b64encode(b"anybody:a:key") + b"\r\n", "a:key"),
        (b"Authorization: Basic " + base64.b64encode(b":a-key") + b" \n", "a-key"),
        (b"Authorization: Basic " + base64.b64encode(b"a-key") + b"\r\n", ""),
        (b"Authorization: Basic " + base64.b64encode(b"x:a key") + b"\r\n", ""),
        (b"Authorization: Basic " + base64.b64encode(b"x:" + b"y" * 1025) + b"\r\n", ""),
        (b"Authorization: Basic not*base64\r\n", ""),
        (b"Authorization: Digest abc\r\n", ""),
        (b"X-Authorization: Bearer a-key\r\n", ""),
    ],
)
def test_the_key_of_a_browser_and_of_a_program(header: bytes, key: str) -> None:
    assert sent_key(header) == key
