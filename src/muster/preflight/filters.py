"""What filters a host's network, as values: input chains of nftables, firewalld, ufw, and what the kernel enforces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from muster.preflight.tool_text import Unreadable, command_text, first_line

OWN_TABLE = re.compile(r"inet muster[-_]")
MAX_LINES = 50_000
_REFUSES = re.compile(r"(^|\s)(drop|reject)\b")
_JUMP = re.compile(r"\b(?:jump|goto) (\S+)")


@dataclass(frozen=True)
class Filter:
    """Something that may refuse connections to this host: a firewall, with the rule that does.

    Args:
        name: `firewalld`, `ufw`, or the table and chain of nftables.
        rule: the policy or rule that refuses.
        fix: how to let the group's hosts through.
    """

    name: str
    rule: str
    fix: str

    def __str__(self) -> str:
        return f"{self.name} ({self.rule})"


@dataclass(frozen=True)
class Filters:
    """What one host answered about its filters.

    Args:
        foreign: firewalls that are not muster's.
        nftables: why the kernel would not take muster's table; None when it would.
        ip_filter: why systemd's IPAddressDeny= would not work; empty when it would, None when that is not known.
        first_port: lowest port that the kernel picks by itself; None when not read.
    """

    foreign: tuple[Filter, ...] | Unreadable
    nftables: str | None
    ip_filter: str | None
    first_port: int | None


def read(answer: Mapping[str, object]) -> Filters:
    """Read the answer of `probe_firewall`; whatever it holds, a value comes out."""
    sources = {
        name: _value(answer, name) for name in ("ruleset", "trial", "firewalld", "ufw", "ip_filter", "port_range")
    }
    trial = sources["trial"]
    works, why = sources["ip_filter"].get("works"), str(sources["ip_filter"].get("why", ""))[:200]
    first = sources["port_range"].get("first")
    return Filters(
        foreign=_foreign(sources["ruleset"], sources["firewalld"], sources["ufw"]),
        nftables=None if trial.get("rc") == 0 else _complaint(trial, "nft"),
        ip_filter="" if works is True else (why or "unknown") if works is False else None,
        first_port=first if isinstance(first, int) and not isinstance(first, bool) else None,
    )


def _value(answer: Mapping[str, object], source: str) -> Mapping[str, object]:
    source_answer = answer.get(source)
    value = source_answer.get("value", source_answer) if isinstance(source_answer, Mapping) else None
    return value if isinstance(value, Mapping) else {"error": str(answer.get("error", "no answer"))}


def _complaint(outcome: Mapping[str, object], tool: str) -> str:
    text = first_line(outcome.get("error")) or first_line(outcome.get("stderr")) or first_line(outcome.get("text"))
    return text or f"{tool} ended with {outcome.get('rc')}"


def _foreign(
    ruleset: Mapping[str, object], firewalld: Mapping[str, object], ufw: Mapping[str, object]
) -> tuple[Filter, ...] | Unreadable:
    known = []
    if first_line(firewalld.get("text")) == "running":
        fix = "firewall-cmd --permanent --zone=trusted --add-source=ADDRESS for each, then firewall-cmd --reload"
        known.append(Filter("firewalld", "running", fix))
    if first_line(ufw.get("text")) == "Status: active":
        known.append(Filter("ufw", "active", "ufw allow from ADDRESS for each"))
    text = command_text(ruleset, "nft")
    if isinstance(text, Unreadable):
        return tuple(known) or text
    # firewalld and ufw show up as tables, too; whoever edits those loses it with the next reload.
    return tuple(known) or tuple(input_filters(text))


def input_filters(ruleset: str) -> Iterator[Filter]:
    """Return the chains of `nft list ruleset` that see incoming packets and refuse some, muster's own left out."""
    tables: dict[str, dict[str, list[str]]] = {}
    table = chain = ""
    for line in ruleset.splitlines()[:MAX_LINES]:
        text = line.strip()
        if match := re.match(r"table (\w+ \S+) \{", text):
            table, chain = match.group(1), ""
        elif match := re.match(r"chain (\S+) \{", text):
            chain = match.group(1)
        elif text == "}":
            chain = ""
        elif table and chain:
            tables.setdefault(table, {}).setdefault(chain, []).append(text)
    for name, chains in tables.items():
        if OWN_TABLE.match(name):
            continue
        for chain, rules in chains.items():
            if rules and " hook input " in f"{rules[0]} ":
                rule = _refusal(chains, chain, 0)
                if rule:
                    fix = f"in {name} {chain}, before that rule: ip saddr {{ ADDRESSES }} accept; and where it is kept"
                    yield Filter(f"nftables table {name}, chain {chain}", rule, fix)


def _refusal(chains: Mapping[str, list[str]], chain: str, depth: int) -> str:
    """Return the policy or the rule with which a chain, or one that it jumps to, refuses packets; or nothing."""
    rules = chains.get(chain, [])
    if any("policy drop" in rule for rule in rules[:1]):
        return "policy drop"
    for rule in rules:
        if _REFUSES.search(rule.split(" comment ")[0]):
            return first_line(rule)[:120]
        jump = _JUMP.search(rule)
        if jump and depth < 8 and jump.group(1) != chain:
            below = _refusal(chains, jump.group(1), depth + 1)
            if below:
                return below
    return ""
