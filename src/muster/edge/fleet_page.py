"""The fleet's page on the edge: HAProxy fills in what it knows of each group and answers it to operators. Pure.

A file in HAProxy's log format: `%[...]` is evaluated at each request, and `%%` is a percent sign. The page shows what
the edge sees, which is whether each endpoint gets requests; why a group is not ready, its own page says.
"""

from __future__ import annotations

import html
from collections.abc import Iterator

from muster.edge import admission
from muster.edge.edge_plan import EdgeGroup, EdgePlan, backend, server
from muster.guard.page_style import STYLE
from muster.guard.printable_text import one_line
from muster.plan.endpoint import Endpoint

_NAME = 80
"""Characters of a name."""
_MORE = 200
"""Bytes for the line that counts what is left out."""


def page(plan: EdgePlan, room: int) -> str:
    """Return the page as HAProxy reads it.

    Args:
        plan: of the edge.
        room: bytes that it may have. HAProxy fills it in within a buffer, and an expression is longer than its value;
            groups beyond that are counted.
    """
    top, foot = "".join(_top(plan)), "".join(_foot())
    size, parts, left = len((top + foot).encode()) + _MORE, [top], len(plan.groups)
    for model, groups in sorted(plan.models.items()):
        heading, end = "".join(_heading(plan, model)), "</ul></section>"
        cards: list[str] = []
        size += len((heading + end).encode())
        for card in (_card(plan, group) for group in groups):
            size += len(card.encode())
            if size > room:
                break
            cards.append(card)
        left -= len(cards)
        parts += [heading, *cards, end] if cards else []
        if size > room:
            break
    if left:
        parts.append(f"<p>and {left} groups more: muster status shows all</p>")
    return "".join([*parts, foot])


def _top(plan: EdgePlan) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
    yield f"<title>fleet · muster</title><style>{STYLE.replace('%', '%%')}</style></head><body>"
    yield "<header><h1>Fleet behind %[hostname]</h1>"
    yield f'<p class="quiet">{len(plan.groups)} groups, {len(plan.models)} models. '
    yield "%[fe_conn(edge)] connections of clients.</p></header><main>"


def _heading(plan: EdgePlan, model: str) -> Iterator[str]:
    name = backend(model)
    yield f'<section aria-labelledby="{name}"><h2 id="{name}">{_text(model)}</h2>'
    yield f"<p>endpoints up: %[nbsrv({name})], requests in flight: %[be_conn({name})], "
    yield f"waiting: %[queue({name})]. All groups run {admission.of_model(plan, model):,} at once.</p>"
    yield '<ul class="cards">'


def _card(plan: EdgePlan, group: EdgeGroup) -> str:
    address = html.escape(f"http://{group.control.at}/")
    rows = "".join(_endpoint(group, endpoint, admission.per_endpoint(plan, group)) for endpoint in group.endpoints)
    return f'<li><b><a href="{address}">{_text(group.name)}</a></b>{rows}</li>'


def _endpoint(group: EdgeGroup, endpoint: Endpoint, at_once: int) -> str:
    place = f"{backend(group.model)}/{server(group, endpoint)}"
    up = f"srv_is_up({place})"
    return (
        f'<br>{_text(endpoint.host)} <span class="%[{up},iif(good,bad)]">%[{up},iif(up,down)]</span>, '
        f"%[srv_uweight({place}),bool,iif(open,drained)] "
        f'<span class="quiet">· %[srv_conn({place})] in flight of {at_once:,}</span>'
    )


def _foot() -> Iterator[str]:
    yield '</main><footer><p>As of %[date,utime("%Y-%m-%d %H:%M:%S UTC")]. <a href="/">Read again</a> · '
    yield '<a href="/metrics">Metrics</a></p><p>Up: every rank of the group answers, by the word of its guard. '
    yield "Why one is down: its group's page, or muster status. Nothing can be changed here.</p></footer>"
    yield "</body></html>\n"


def _text(value: str) -> str:
    """Return a name as text of the page, for HAProxy and for browsers."""
    return html.escape(one_line(value, _NAME)).replace("%", "%%")
