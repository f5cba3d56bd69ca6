"""An outcome for people: host x check, then what is wrong and how to mend it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from muster.preflight.catalogue import CHECKS
from muster.preflight.node_set import node_set
from muster.preflight.outcome import Outcome
from muster.preflight.parity import NONE, ParityRow
from muster.preflight.verdict import ORDER, Verdict

MARKS = {"ok": "✓", "warn": "!", "fail": "✗", "waived": "w"}
PLAIN_MARKS = {"ok": "+", "warn": "!", "fail": "X", "waived": "w"}
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "waived": "cyan"}
WORDS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "waived": "waived"}
CHECK_WIDTH = max(len(name) for name in CHECKS) + 2
# A column narrower than this cannot carry words, and gets marks.
WORDY = 24
NARROW = 3


def console_on(file: TextIO) -> Console:
    """Return a console that prints on a file or terminal of any encoding; hosts may answer in any language."""
    if isinstance(file, io.TextIOWrapper):
        file.reconfigure(errors="backslashreplace")
    return Console(file=file)


def render(outcome: Outcome, console: Console, *, brief: bool = False) -> None:
    """Print an outcome; rich leaves colours out where the output is no terminal.

    Args:
        outcome: what to print.
        console: where, and how wide.
        brief: leave out the tables, print what is wrong and the sum.
    """
    console.print(Text(outcome.title, style="bold"))
    for note in outcome.notes:
        console.print(Text(note))
    if outcome.waived:
        console.print(Text(f"waived by preflight_waive: {', '.join(outcome.waived)}", style=STYLES["waived"]))
    if not brief:
        _tables(outcome, console)
    for verdicts in _troubles(outcome):
        _print_trouble(verdicts, console)
    console.print(_summary(outcome))


def _tables(outcome: Outcome, console: Console) -> None:
    console.print()
    room = console.width - CHECK_WIDTH
    groups: list[tuple[str, ...]] = [(host,) for host in outcome.hosts]
    if len(groups) * (WORDY + 2) > room:
        groups = alike(outcome)
    if groups and len(groups) * (WORDY + 2) <= room:
        _wordy(outcome, groups, console, room // len(groups) - 2)
    else:
        _lettered(outcome, groups, console, max(1, room // (NARROW + 2)))
    console.print()
    for row in _parity(outcome.rows):
        console.print(row)


def alike(outcome: Outcome) -> list[tuple[str, ...]]:
    """Return the hosts in groups whose checks came out the same, those with trouble first."""
    shapes: dict[tuple[tuple[str, str], ...], list[str]] = {}
    checks = _checks(outcome)
    index = _index(outcome)
    for host in outcome.hosts:
        shape = tuple((check, _kind(verdict)) for check in checks for verdict in index.get((check, host), ()))
        shapes.setdefault(shape, []).append(host)

    def trouble(shape: tuple[tuple[str, str], ...]) -> tuple[int, int]:
        kinds = Counter(kind for _, kind in shape)
        return -kinds["fail"], -kinds["warn"]

    return [tuple(shapes[shape]) for shape in sorted(shapes, key=trouble)]


def _kind(verdict: Verdict) -> str:
    return "waived" if verdict.waived else verdict.level


def _checks(outcome: Outcome) -> list[str]:
    # Parity has a table of its own below.
    names = dict.fromkeys(verdict.check for verdict in outcome.verdicts)
    return [name for name in names if not name.startswith("parity.") or not outcome.rows]


Index = Mapping[tuple[str, str], Sequence[Verdict]]


def _index(outcome: Outcome) -> Index:
    """Return (check, host) -> verdicts."""
    by_place: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in outcome.verdicts:
        by_place.setdefault((verdict.check, verdict.host), []).append(verdict)
    return by_place


def _of(index: Index, check: str, hosts: Sequence[str]) -> list[Verdict]:
    return [verdict for host in hosts for verdict in index.get((check, host), ())]


def _mark(console: Console, kind: str) -> str:
    return (PLAIN_MARKS if console.options.ascii_only else MARKS)[kind]


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    return max(verdicts, key=lambda verdict: (ORDER[verdict.counts_as], ORDER[verdict.level]))


def _wordy(outcome: Outcome, groups: list[tuple[str, ...]], console: Console, width: int) -> None:
    """Print the table with what was found, for as many columns as can carry words."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("check", width=CHECK_WIDTH - 2, no_wrap=True)
    index = _index(outcome)
    names = [_name(hosts) for hosts in groups]
    heads = [name if len(name) <= width else _letter(place) for place, name in enumerate(names)]
    for head in heads:
        table.add_column(head, width=width, no_wrap=True, overflow="crop" if console.options.ascii_only else "ellipsis")
    for check in _checks(outcome):
        cells = []
        for hosts in groups:
            verdicts = _of(index, check, hosts)
            if not verdicts:
                cells.append(Text(""))
                continue
            worst = _worst(verdicts)
            found = {verdict.found for verdict in verdicts}
            text = worst.found if len(found) == 1 else f"such as {worst.found}"
            cells.append(Text(f"{_mark(console, _kind(worst))} {text}", style=STYLES[_kind(worst)], end=""))
        table.add_row(check, *cells)
    console.print(table)
    for head, name in zip(heads, names, strict=True):
        if head != name:
            console.print(Text(f"{head}: {name}"))


def _lettered(outcome: Outcome, groups: list[tuple[str, ...]], console: Console, per_block: int) -> None:
    """Print the table in marks, a letter a group of hosts, in as many blocks as the width asks for."""
    index = _index(outcome)
    for start in range(0, len(groups), per_block):
        block = groups[start : start + per_block]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("check", width=CHECK_WIDTH - 2, no_wrap=True)
        for place in range(start, start + len(block)):
            table.add_column(_letter(place), width=NARROW, no_wrap=True)
        for check in _checks(outcome):
            kinds = [_kind(_worst(found)) if (found := _of(index, check, hosts)) else "" for hosts in block]
            table.add_row(check, *(Text(_mark(console, k), style=STYLES[k]) if k else Text("") for k in kinds))
        console.print(table)
        for place, hosts in enumerate(block, start):
            console.print(Text(f"{_letter(place)}: {_name(hosts)}"))


def _letter(place: int) -> str:
    return _letter(place // 26 - 1) + chr(65 + place % 26) if place >= 26 else chr(65 + place)


def _name(hosts: Sequence[str]) -> str:
    return hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts: {node_set(hosts)}"


def _parity(rows: Sequence[ParityRow]) -> list[Table | Text]:
    """Return the parity table: the value of most hosts, and who has another."""
    shown = [row for row in rows if len(row.values) > 1 and set(row.values.values()) != {NONE}]
    if not shown:
        return []
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("same on all hosts", width=CHECK_WIDTH - 2, no_wrap=True)
    table.add_column("most have", overflow="fold")
    table.add_column("odd one out", overflow="fold")
    for row in shown:
        odd: dict[str, list[str]] = {}
        for host in row.odd:
            odd.setdefault(row.values[host], []).append(host)
        text = "; ".join(f"{node_set(hosts)}: {value}" for value, hosts in odd.items())
        usual = row.usual if row.usual is not None else "(no majority)"
        table.add_row(row.name, usual, Text(text, style=STYLES["warn"] if odd else ""))
    return [table, Text("")]


def _troubles(outcome: Outcome) -> list[list[Verdict]]:
    """Return what is not ok, equal verdicts of several hosts together, the worst first."""
    same: dict[tuple[str, ...], list[Verdict]] = {}
    for verdict in outcome.verdicts:
        if verdict.level != "ok":
            key = (verdict.check, _kind(verdict), verdict.found, verdict.needed, verdict.fix)
            same.setdefault(key, []).append(verdict)
    return sorted(same.values(), key=lambda verdicts: -ORDER[verdicts[0].counts_as])


def _print_trouble(verdicts: list[Verdict], console: Console) -> None:
    first = verdicts[0]
    kind = _kind(first)
    head = Text.assemble(
        (f"{WORDS[kind]:<6} ", STYLES[kind]), (first.check, "bold"), f"  {node_set(v.host for v in verdicts)}"
    )
    console.print(head)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=5)
    grid.add_column(width=7)
    grid.add_column(overflow="fold")
    for label, text in (("found", first.found), ("needed", first.needed), ("fix", first.fix)):
        if text:
            grid.add_row("", f"{label}:", Text(text))
    console.print(grid)
    console.print()


def _summary(outcome: Outcome) -> Text:
    kinds = Counter(_kind(verdict) for verdict in outcome.verdicts)
    count = len(outcome.hosts)
    parts = [f"{kinds['fail']} failed", f"{kinds['warn']} warned", f"{kinds['ok']} ok"]
    parts += [f"{kinds['waived']} waived"] if kinds["waived"] else []
    where = f"on {count} host{'s' if count != 1 else ''}"
    return Text(f"{', '.join(parts)} {where}", style=STYLES[outcome.level])
