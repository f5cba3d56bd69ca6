"""The group's state as one page for a browser: a function of what `/status` answers to the same reader. Pure.

What hosts and engines say is text here, whatever it holds: control characters are taken out, each text has a bound, and
everything is escaped on its way in. Lists are cut by their bytes, so that no group makes a page of unbounded size.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .page_style import STYLE
from .printable_text import one_line

NAME, SENTENCE = 80, 400
"""Characters of a name, and of a reason."""
HOSTS_LIMIT, RANKS_LIMIT = 120_000, 60_000
"""Bytes of these lists; the rest is counted."""
PAGE_LIMIT = 256_000
"""Bytes of a page: none is larger."""
EVERY = 5
"""Seconds between two readings of a page that a reader asked to refresh itself."""

GOOD, WAIT, BAD = "good", "wait", "bad"
TONES = {"running": GOOD, "failed": BAD, "abort": BAD, "stopped": BAD}
"""Phase -> tone; the others wait for something."""
ADVICE = {
    "gather": "The group starts once no host is in its way.",
    "backoff": "The group starts by itself after the pause.",
    "starting": "The engine loads.",
    "drain": "Requests in flight are answered, then every rank ends.",
    "abort": "Every rank is being killed; a new generation follows.",
    "stopped": "Nothing starts until somebody resumes the group: muster resume.",
    "failed": "Read what failed (muster logs --failure), mend it, then muster resume.",
}


ENGINES = {"": "no engine", "none": "no engine", "ended": "engine ended"}
"""State of a host's children -> words, where it does not speak for itself."""


def page(document: Mapping[str, Any], at: float, *, live: bool = False, key: bool = False) -> str:
    """The whole page.

    `document`: what `/status` answers, with names or without. `at`: seconds since 1970 when it was true. `live`: the
    page reads itself again. `key`: hosts and reasons are shown to readers who send the group's API key.
    """
    named = isinstance(document.get("members"), list)
    phase = _name(document.get("phase"))
    group = _name(document.get("group"))
    refresh = f'<meta http-equiv="refresh" content="{EVERY}">' if live else ""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">',
        refresh,
        f"<title>{' · '.join(part for part in (phase, group, 'muster') if part)}</title>",
        f"<style>{STYLE}</style></head><body>",
        *_top(document, phase, group),
        "<main>",
        *_figures(document),
        *(_hosts(document) if named else ()),
        *(_failures(document) if named else ()),
        *_ranks(document),
        "</main>",
        *_foot(at, live, named, key),
        "</body></html>\n",
    ]
    return "".join(parts)


def tone(document: Mapping[str, Any]) -> str:
    """How the group is, as a colour beside the word: a running group without fresh proof of life waits for it."""
    found = TONES.get(str(document.get("phase")), WAIT)
    return WAIT if found == GOOD and not document.get("ready") else found


def _top(document: Mapping[str, Any], phase: str, group: str) -> Iterator[str]:
    yield f"<header><h1>{group or 'muster group'}</h1>"
    ready = "every rank answers" if document.get("ready") else "not ready"
    yield f'<p><b class="phase {tone(document)}">{phase or "unknown"}</b> <span class="quiet">{ready}</span></p>'
    reason = str(document.get("reason") or "").removeprefix(str(document.get("phase"))).lstrip(":, ")
    if reason:
        yield f"<p>{_sentence(reason)}</p>"
    advice = ADVICE.get(str(document.get("phase")), "")
    if advice:
        yield f'<p class="quiet">{advice}</p>'
    yield "</header>"


def _figures(document: Mapping[str, Any]) -> Iterator[str]:
    engines = _items(document.get("engines"))
    members = document.get("members")
    budget = f"{_count(document.get('aborts_in_window'))} of {_count(document.get('budget'))}"
    pause = document.get("starts_in")
    rows = [
        ("in this phase", _span(document.get("phase_for"))),
        ("ready for", _span(document.get("ready_for"))),
        ("starts in", _span(pause) if pause else ""),
        ("tokens per second", _count(_sum(engines, "tokens_per_s")) if engines else ""),
        ("requests in flight", _count(_sum(engines, "in_flight")) if engines else ""),
        ("hosts", _count(len(members) if isinstance(members, list) else members)),
        ("restarts since boot", _count(document.get("restarts"))),
        ("restart budget used", budget),
        ("generation", _name(str(document.get("generation") or "")[:8])),
        ("plan", _name(str(document.get("digest") or "")[:12])),
        ("recipe", _name(document.get("recipe"))),
        ("engine", _name(document.get("release"))),
        ("guard", _name(document.get("guard"))),
    ]
    yield '<section aria-labelledby="now"><h2 id="now">Now</h2><dl>'
    yield from (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows if value)
    yield "</dl></section>"


def _hosts(document: Mapping[str, Any]) -> Iterator[str]:
    """Those with trouble come first: they are what a reader looks for."""
    engines = {engine.get("dp_rank"): engine for engine in _items(document.get("engines"))}
    members = sorted(_items(document.get("members")), key=lambda member: not _trouble(member))
    yield '<section aria-labelledby="hosts"><h2 id="hosts">Hosts</h2><ul class="cards">'
    yield from _bounded((_host(member, engines) for member in members), len(members), HOSTS_LIMIT, "<li>{}</li>")
    yield "</ul></section>"


def _host(member: Mapping[str, Any], engines: Mapping[Any, Mapping[str, Any]]) -> str:
    ranks = member.get("dp_ranks") or ()
    own = [engines[rank] for rank in ranks if rank in engines]
    trouble = _trouble(member)
    engine = str(member.get("child") or "")
    if engine == "running" and own:
        engine = "answering" if all(each.get("proof") is not None for each in own) else "starting"
    words = [
        f"rank {_count(member.get('node_rank'))}",
        f"DP {_ranges(ranks)}" if ranks else "",
        f"{_count(_sum(own, 'tokens_per_s'))} tok/s" if own else "",
        f"{_count(_sum(own, 'in_flight'))} in flight" if own else "",
        f"heard {_span(member.get('heard'))} ago" if member.get("heard") is not None else "never heard",
    ]
    state = GOOD if engine in ("answering", "running") and not trouble else (BAD if trouble else WAIT)
    text = f'<b>{_name(member.get("host"))}</b> <span class="{state}">{_name(ENGINES.get(engine, engine))}</span>'
    text += f'<br><span class="quiet">{" · ".join(word for word in words if word)}</span>'
    detail = str(member.get("detail") or "")
    if trouble:
        text += f'<br><span class="bad">{_sentence(trouble)}</span>'
    elif engine == "starting" and not detail.endswith(" runs"):
        text += f"<br>{_sentence(detail)}"
    return f'<li class="troubled">{text}</li>' if trouble else f"<li>{text}</li>"


def _trouble(member: Mapping[str, Any]) -> str:
    """What keeps this host from its part: the head's word on it first, then its own."""
    return str(member.get("refused") or member.get("lacks") or member.get("blocked") or "")


def _ranks(document: Mapping[str, Any]) -> Iterator[str]:
    engines = _items(document.get("engines"))
    if not engines:
        return
    yield '<section aria-labelledby="ranks"><h2 id="ranks">Data parallel ranks</h2><table><thead><tr>'
    yield "".join(f'<th scope="col">{name}</th>' for name in ("rank", "tok/s", "in flight", "last proof of life"))
    yield "</tr></thead><tbody>"
    more = '<tr><td colspan="4">{}</td></tr>'
    yield from _bounded((_rank(engine) for engine in engines), len(engines), RANKS_LIMIT, more)
    yield "</tbody></table></section>"


def _rank(engine: Mapping[str, Any]) -> str:
    proof = f"{_span(engine.get('proof'))} ago" if engine.get("proof") is not None else "none yet"
    strikes = engine.get("strikes")
    missed = f' <span class="bad">{_count(strikes)} unanswered</span>' if strikes else ""
    cells = (_count(engine.get("tokens_per_s")), _count(engine.get("in_flight")), proof + missed)
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{_count(engine.get("dp_rank"))}</th>{columns}</tr>'


def _failures(document: Mapping[str, Any]) -> Iterator[str]:
    failures = _items(document.get("failures"))[:8]
    yield '<section aria-labelledby="failures"><h2 id="failures">Last failures</h2>'
    if not failures:
        yield "<p>None recorded.</p></section>"
        return
    yield '<ol class="cards">'
    for failure in failures:
        # A reason may be a whole message of the engine: its first line says what happened.
        reason = str(failure.get("reason") or "").strip().partition("\n")[0]
        age = failure.get("age")
        when = f"{_span(age)} ago" if age is not None else "at an unknown time"
        digest = failure.get("digest")
        plan = f" · plan {_name(str(digest)[:12])}" if digest and digest != document.get("digest") else ""
        process = f" · {_name(failure.get('process'))}" if failure.get("process") else ""
        yield f"<li><b>{_name(failure.get('host'))}</b> {_sentence(reason)}"
        yield f'<br><span class="quiet">{when}{process}{plan}</span></li>'
    yield "</ol></section>"


def _foot(at: float, live: bool, named: bool, key: bool) -> Iterator[str]:
    yield f"<footer><p>As of {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(at))}. "
    if live:
        yield f'Read again every {EVERY} s. <a href="/">Stop that</a></p>'
    else:
        yield f'<a href="/">Read again</a> · <a href="/live">Read again every {EVERY} s</a></p>'
    if not named and key:
        yield '<p><a href="/sign-in">Hosts and reasons</a>: any name, and the API key as the password.</p>'
    elif not named:
        yield "<p>Hosts and reasons: muster status. This group has no API key to show them here by.</p>"
    yield "<p>The engine's log: muster logs. Nothing can be changed here.</p></footer>"


def _bounded(rows: Iterable[str], total: int, limit: int, more: str) -> Iterator[str]:
    """Rows up to `limit` bytes; a last one counts what is left out."""
    size = 0
    for number, row in enumerate(rows):
        size += len(row.encode())
        if size > limit:
            yield more.format(f"and {total - number} more: muster status shows all")
            return
        yield row


def _items(value: Any) -> Sequence[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []


def _sum(items: Iterable[Mapping[str, Any]], name: str) -> float:
    return sum(float(item.get(name) or 0) for item in items)


def _name(value: Any) -> str:
    return html.escape(one_line(str(value or ""), NAME))


def _sentence(text: str) -> str:
    return html.escape(one_line(text, SENTENCE))


def _count(value: Any) -> str:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return ""
    return f"{value:,.0f}"


def _span(seconds: Any) -> str:
    """A time as a person says it."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds) // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _ranges(ranks: Sequence[int]) -> str:
    return _count(ranks[0]) if len(ranks) == 1 else f"{_count(ranks[0])}-{_count(ranks[-1])}"
