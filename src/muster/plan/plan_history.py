"""The plans that a group's hosts keep, as one history: what a rollback takes, how long a start took. Pure.

Each host keeps the last plans that were verified (`muster.on_host.kept_plans`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from muster.errors import Refusal, shown
from muster.on_host import kept_plans

Header = Mapping[str, Any]

HISTORY = "see `muster history` of this inventory and recipe"


@dataclass(frozen=True)
class Seconds:
    """How long a change took; None where it was not measured, because nothing was stopped or started.

    Args:
        stop: from the first stop until the ranks were started: drain, end, files.
        start: from there until the group was ready.
    """

    stop: float | None = None
    start: float | None = None

    @property
    def without_service(self) -> float | None:
        """Seconds in which the group took no requests; None where nothing ran before."""
        return None if self.stop is None or self.start is None else self.stop + self.start


@dataclass(frozen=True)
class KeptPlan:
    """One verified plan, as the hosts keep it.

    Args:
        digest: of the plan.
        number: the newest has the highest; a plan that is verified again becomes the newest.
        label, recipe, release: what it is.
        verified: when, by the control machine's clock, UTC.
        by: who, and on which machine.
        hosts: of the plan, the head first.
        drain_seconds: how long its stop waits for requests in flight.
        seconds: how long it took.
        on: the hosts that keep it.
        form: of its copies; those of another muster may say in other words how the plan is started and verified.
    """

    digest: str
    number: int
    label: str
    recipe: str
    release: str
    verified: str
    by: str
    hosts: tuple[str, ...]
    drain_seconds: int
    seconds: Seconds
    on: tuple[str, ...]
    form: int = kept_plans.FORM

    @property
    def foreign(self) -> str:
        """Why this muster cannot put the plan back, by the form of its copies; empty where it can."""
        if self.form == kept_plans.FORM:
            return ""
        return (
            f"plan {self.digest} is kept in form {self.form}, by another muster; this one reads form {kept_plans.FORM}"
        )

    @property
    def lacking(self) -> tuple[str, ...]:
        """Hosts of the plan that keep no copy of it."""
        return tuple(name for name in self.hosts if name not in self.on)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for scripts."""
        return {**asdict(self), "without_service": self.seconds.without_service}


def history(kept: Mapping[str, Sequence[Header]]) -> tuple[KeptPlan, ...]:
    """Return the plans that hosts keep, newest first.

    Args:
        kept: host -> what it keeps.
    """
    on: dict[str, list[str]] = {}
    newest: dict[str, Header] = {}
    for host, headers in kept.items():
        for header in headers:
            digest = header["digest"]
            on.setdefault(digest, []).append(host)
            if digest not in newest or header["number"] > newest[digest]["number"]:
                newest[digest] = header
    plans = [_plan(header, tuple(on[digest])) for digest, header in newest.items()]
    return tuple(sorted(plans, key=lambda plan: (plan.number, plan.digest), reverse=True))


def _plan(header: Header, on: tuple[str, ...]) -> KeptPlan:
    seconds = header.get("seconds") or {}
    return KeptPlan(
        digest=header["digest"],
        number=header["number"],
        label=header.get("label", ""),
        recipe=header.get("recipe", ""),
        release=(header.get("release") or {}).get("id", ""),
        verified=header.get("verified", ""),
        by=header.get("by", ""),
        hosts=tuple(header.get("hosts", ())),
        drain_seconds=header.get("drain_seconds", 0),
        seconds=Seconds(seconds.get("stop"), seconds.get("start")),
        on=on,
        form=header.get("version", 1),
    )


def next_number(plans: Sequence[KeptPlan], digest: str) -> int:
    """Return the number under which a plan that has just been verified is kept: its own where it is the newest."""
    if plans and plans[0].digest == digest:
        return plans[0].number
    return plans[0].number + 1 if plans else 1


def named(plans: Sequence[KeptPlan], digest: str) -> KeptPlan:
    """Return the kept plan that a user names by its digest, or by how it begins; "" is the newest.

    Raises:
        Refusal: there is no such plan, or several begin so.
    """
    fits = [plan for plan in plans if plan.digest.startswith(digest)]
    if not fits or (digest and len(fits) > 1):
        needed = f"one plan whose digest begins with {shown(digest)}" if digest else "a plan that was verified"
        raise Refusal(f"kept plans: {_list(plans)}", needed=needed, fix=HISTORY)
    return fits[0]


def choose(plans: Sequence[KeptPlan], hosts: Sequence[str], running: str, digest: str = "") -> KeptPlan:
    """Return the plan that a rollback puts back.

    Args:
        plans: the history.
        hosts: that take part.
        running: digest of the plan that is on the hosts; "" where they differ.
        digest: as the user named it; "" takes the newest that is not on the hosts.

    Raises:
        Refusal: there is no such plan, several begin so, or hosts lack their copy of it.
    """
    others = [plan for plan in plans if plan.digest != running]
    if not digest and not others:
        needed = "a verified plan besides the one on them"
        raise Refusal(f"kept plans: {_list(plans)}", needed=needed, fix=HISTORY)
    plan = named(plans, digest) if digest else others[0]
    if plan.digest == running:
        raise Refusal(
            f"plan {plan.digest} is the one on the hosts",
            needed="another plan to go back to",
            fix="restart or resume the group, or deploy it again",
        )
    if set(plan.hosts) != set(hosts):
        raise Refusal(
            f"plan {plan.digest} ran on {', '.join(plan.hosts)}; this run has {', '.join(hosts)}",
            needed="the hosts of the plan, no more and no fewer",
            fix="run on the inventory that the plan was made for, without --limit",
        )
    if plan.foreign:
        raise Refusal(
            plan.foreign,
            needed="a kept plan whose start and verification this muster knows",
            fix="roll back with the muster that kept it, or deploy its recipe and settings (see `muster diff`) again",
        )
    if plan.lacking:
        raise Refusal(
            f"{', '.join(plan.lacking)}: no copy of plan {plan.digest}",
            needed="the plan on all of its hosts: a group runs one plan",
            fix="go back to another plan, or deploy its recipe and settings again",
        )
    return plan


def _list(plans: Sequence[KeptPlan]) -> str:
    return ", ".join(f"{plan.digest} ({plan.verified})" for plan in plans) or "none"


def last_start(plans: Sequence[KeptPlan], planned: str) -> float | None:
    """Return how long a plan's last start took, or that of the newest plan that was measured; None where none was.

    Args:
        plans: the history.
        planned: digest of the plan that is to be started.
    """
    measured = [plan for plan in plans if plan.seconds.start is not None]
    last = next((plan for plan in measured if plan.digest == planned), measured[0] if measured else None)
    return last.seconds.start if last is not None else None


def expected(plans: Sequence[KeptPlan], planned: str, drain_seconds: int) -> str:
    """Return how long a restart will leave the group without service, in words.

    Args:
        plans, planned: as for `last_start`.
        drain_seconds: how long the plan that is stopped waits for requests in flight.
    """
    start = last_start(plans, planned)
    if start is None:
        return f"without service for up to {drain_seconds} s and the start, which was not measured on these hosts yet"
    return (
        f"without service for up to {drain_seconds + start:.0f} s: {drain_seconds} s to drain, {start:.0f} s to start"
    )
