"""Reports: what stands in them, that they need no network, and that nothing of a run can break the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest

from muster.bench import report_charts, report_data, report_markdown, report_page
from muster.bench.ledger import LedgerEntry
from muster.errors import Refusal
from muster.spec import recipe
from tests.bench.sample import entry


def ledger() -> list[LedgerEntry]:
    """Return a made-up sweep of two shapes, a failed run and an evaluation."""
    runs = []
    for at, (label, strategy, speed) in enumerate((("TP8", "tp", 1.0), ("TP8+DCP8", "tp-dcp", 1.4))):
        for step, prompts in enumerate((1, 16, 64, 256)):
            latency = {
                f"{p}_{m}_ms": 100.0 * prompts / speed for p in report_charts.PERCENTILES for m in ("ttft", "tpot")
            }
            figures = {
                "request_throughput": 0.5 * speed * (step + 1),
                "output_throughput": 300.0 * speed * (step + 1),
                "mean_ttft_ms": 90.0 * prompts / speed,
                "mean_tpot_ms": 12.0 + step,
                "kv_cache_tokens": 715072.0 * (8 if at else 1),
                **latency,
            }
            session = f"2026010{at + 1}T000000Z-aaaa"
            engine = {"cache_tokens": [715072], "seconds": 114.0, "phases": {"compile": 19.6}, "weights_gib": 70.5}
            number = 10 * at + step
            runs.append(
                entry(
                    number,
                    session=session,
                    label=label,
                    strategy=strategy,
                    prompts=prompts,
                    figures=figures,
                    engine=engine,
                )
            )
    later = [
        entry(20 + n, session="20260103T000000Z-cccc", figures=runs[2].figures | {"output_throughput": 900.0 + 9 * n})
        for n in range(3)
    ]
    scores = {"gsm8k exact_match (strict)": 0.9371, "gsm8k exact_match (strict) stderr": 0.0067}
    return [
        *runs,
        *later,
        entry(30, problems=("3 of 64 requests failed",), figures={}),
        entry(31, kind="eval", scenario="gsm8k", prompts=1319, strategy="tp-dcp", label="TP8+DCP8", figures=scores),
    ]


def summary(entries: Sequence[LedgerEntry], **own: Sequence[str]) -> report_data.Summary:
    return report_data.summarize(entries, recipe.load("kimi-k2-thinking"), **own)


def test_two_shapes_stand_next_to_the_published_figures() -> None:
    text = report_markdown.render(summary(ledger()))
    assert "| output throughput, tok/s | 8x H200 | tp -> tp-dcp | 485.78 -> 695.13 | +43.1 % |" in text
    assert "| kv cache, tokens | 8x H200 | tp -> tp-dcp | 715,072 -> 5,721,088 |" in text
    assert "Output token throughput | 300 tok/s | 420 tok/s | +40.0 % better | not repeated" in text
    assert "0.9371 | ± 0.0131 | 1,319 | 0.9371 | 8x H200" in text


def test_only_the_published_load_stands_beside_the_published_figures() -> None:
    figures = {"output_throughput": 512.0}
    like = [
        entry(50 + n, strategy=strategy, prompts=1000, figures=figures) for n, strategy in enumerate(("tp", "tp-dcp"))
    ]
    rows = {row.name: row for row in summary([*ledger(), *like]).published}
    assert rows["output throughput"].measured == (512.0, 512.0)
    assert rows["request throughput"].measured == (None, None)
    assert rows["kv cache"].measured == (715072, 8 * 715072)


def test_failed_runs_are_listed_and_not_counted() -> None:
    whole = summary(ledger(), broken=["x.json: not an entry"])
    assert len(whole.runs) == 11
    assert "3 of 64 requests failed" in report_markdown.render(whole)
    assert "unreadable: x.json" in report_markdown.render(whole)


def test_sides_are_chosen_by_shape_or_session() -> None:
    rows = summary(ledger(), compare=("TP8+DCP8", "20260101T")).rows
    throughput = next(row for row in rows if row.name == "Output token throughput")
    assert not throughput.better
    with pytest.raises(Refusal, match="TP8\\+DCP8"):
        summary(ledger(), compare=("TP4", "TP8"))


def test_a_run_stands_with_its_date_session_and_plan() -> None:
    text = report_markdown.render(summary(ledger()))
    assert "| date | session | plan | load |" in text
    assert "| 2026-01-01 00:00 | 20260101T000000Z-aaaa | 0123456789abcdef | h200, " in text


def test_sessions_are_not_pooled() -> None:
    (row, *_) = (row for row in summary(ledger()).rows if "64 prompts" in row.load and row.name.startswith("Output"))
    assert row.sessions == ("20260103T000000Z-cccc", "20260102T000000Z-aaaa")
    assert row.before == 909.0
    assert row.spread is not None
    assert "| 20260103T000000Z-cccc -> 20260102T000000Z-aaaa |" in report_markdown.render(summary(ledger()))
    steps = report_charts._steps(summary(ledger()).series["TP8, vLLM 0.33.0, 8x NVIDIA H200"])
    assert {run.session for runs in steps.values() for run in runs} == {"20260101T000000Z-aaaa"}


def test_an_empty_ledger_is_refused() -> None:
    with pytest.raises(Refusal, match="empty"):
        report_data.summarize([], None)


class _Links(HTMLParser):
    """Collects what a page would load, and whether its elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data") and not (value or "").startswith("#"):
                self.loads.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")


def test_the_page_asks_nothing_of_the_network_and_every_id_is_its_own() -> None:
    text = report_page.render(summary(ledger()))
    links = _Links()
    links.feed(text)
    assert links.loads == []
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(links.ids) == len(set(links.ids))
    assert text.count("<svg") == 3


def test_figures_are_drawn_the_same_every_time_and_are_well_formed() -> None:
    first, second = (report_charts.draw(summary(ledger())) for _ in range(2))
    assert first == second
    assert list(first) == ["Throughput against latency", "Percentiles of latency", "Runs over time"]
    for svg in first.values():
        ET.fromstring(svg)


def test_series_differ_in_marker_and_line_besides_colour() -> None:
    names = list("abcdefg")
    styles = [report_charts.style_of(names, name) for name in names]
    assert len({style["marker"] for style in styles}) == len(names)
    assert len({style["color"] for style in styles}) == len(names)


def test_text_from_a_run_is_escaped() -> None:
    text = report_page.render(summary([*ledger(), entry(40, problems=("<script>alert(1)</script>",), figures={})]))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
