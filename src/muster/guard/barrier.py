"""Which hosts may join, and which still keep the group from running. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .group_settings import Group, Settings
from .messages import NONE, Report


@dataclass(frozen=True)
class Peer:
    """What the head knows of one host."""

    instances: tuple[str, ...] = ()
    """Every instance id this host has reported, in order of first report."""
    instance: str = ""
    report: Report | None = None
    heard: float = float("-inf")
    refused: str = ""


def blockers(group: Group, peers: Mapping[str, Peer], settings: Settings, now: float) -> dict[str, str]:
    """Host -> why it keeps the group from starting. Empty: the barrier is complete."""
    reasons = {}
    for host in group.hosts:
        peer = peers[host]
        report = peer.report
        if report is None or now - peer.heard > 3 * settings.poll_interval:
            reasons[host] = peer.refused or ("silent" if report else "not joined yet")
        elif report.child != NONE:
            reasons[host] = "still has a child"
        elif report.blocked:
            reasons[host] = f"blocked: {report.blocked}"
    return reasons


def refusal(group: Group, report: Report) -> str:
    """Why this group refuses the sender, or empty."""
    if report.group != group.name:
        return f"{report.host} belongs to group {report.group}; this is {group.name}"
    if report.host not in group.hosts:
        return f"{report.host} is no host of group {group.name} ({', '.join(group.hosts)}); deploy the plan that has it"
    if report.digest != group.digest:
        return (
            f"{report.host} carries plan {report.digest[:12]}, the head {group.head} carries {group.digest[:12]}; "
            "run the deploy on every host"
        )
    if report.engine != group.engine:
        return f"{report.host} has engine {report.engine}, the head {group.head} has {group.engine}"
    return ""
