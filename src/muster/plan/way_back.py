"""What a change that fails goes back to, and what is said of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muster.plan.plan_history import KeptPlan


@dataclass(frozen=True)
class WayBack:
    """What a change that fails goes back to.

    Args:
        plan: the kept plan; None where there is none.
        why: there is none.
    """

    plan: KeptPlan | None
    why: str = ""

    @property
    def announcement(self) -> str:
        """What is said of it before anything is stopped."""
        if self.plan is None:
            return f"nothing to go back to should this fail: {self.why}"
        return f"should this fail, the group goes back to plan {self.plan.digest}, verified {self.plan.verified}"

    def announcement_of(self, group: str) -> str:
        """What is said of it where another group serves again, the one that is replaced.

        Args:
            group: its name.
        """
        if self.plan is None:
            return f"group {group} does not serve again should this fail: {self.why}"
        return (
            f"should this fail, group {group} serves again with plan {self.plan.digest}, verified {self.plan.verified}"
        )


def way_back(plans: Sequence[KeptPlan], hosts: Sequence[str], planned: str, *, keep_failed: bool = False) -> WayBack:
    """Return what a change goes back to if it fails: the plan that was verified last, whole on every host.

    Args:
        plans: the history.
        hosts: of the new plan.
        planned: digest of the new plan.
        keep_failed: the user wants to look at what fails.
    """
    if keep_failed:
        return WayBack(None, "keep_failed is set")
    if not plans:
        return WayBack(None, "the hosts keep no plan that was verified before")
    last = plans[0]
    if last.digest == planned:
        return WayBack(None, f"plan {planned} is itself the one that was verified last")
    if set(last.hosts) != set(hosts):
        return WayBack(None, f"plan {last.digest}, verified last, ran on {', '.join(last.hosts)}")
    if last.foreign:
        return WayBack(None, last.foreign)
    if last.lacking:
        return WayBack(None, f"{', '.join(last.lacking)}: no copy of plan {last.digest}, which was verified last")
    return WayBack(last)


def failed(planned: str, reason: str, back: WayBack, problem: str, seconds: float | None) -> str:
    """Return what is true at the end of a change that failed.

    Args:
        planned: digest of the new plan.
        reason: of the failure, with its host.
        back: what it went back to, if anything.
        problem: why that does not serve either; empty where it does.
        seconds: without service; None where nothing served before.
    """
    lost = f"plan {planned} failed: {reason}"
    if back.plan is None:
        return f"{lost}; it was left as it is: {back.why}"
    if problem:
        return f"{lost}; plan {back.plan.digest} could not be put back: {problem}; the group does not serve"
    after = "" if seconds is None else f" after {seconds:.0f} s without service"
    return f"{lost}; plan {back.plan.digest} serves again{after}"


def failed_rename(planned: str, reason: str, former: str, back: WayBack, problem: str, seconds: float | None) -> str:
    """Return what is true at the end of a change that failed to take the place of another group.

    Args:
        planned, reason: as for `failed`.
        former: the group that was to be replaced.
        back: the plan of it that serves again, if any.
        problem: why it does not; empty where it does.
        seconds: without service; None where nothing served before.
    """
    lost = f"plan {planned} failed: {reason}"
    if back.plan is None:
        return f"{lost}; it was left as it is: {back.why}; group {former} is stopped, its files are in place"
    if problem:
        return f"{lost}; group {former} does not serve again: {problem}"
    after = "" if seconds is None else f" after {seconds:.0f} s without service"
    return f"{lost}; group {former} serves again with plan {back.plan.digest}{after}"
