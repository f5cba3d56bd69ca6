"""Put back: a kept plan takes the place of what is on the hosts, all of it or none; no download, no build.

The steps are functions of one host. A rollback runs them as operations, a change that failed by itself (`go_back`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.change_steps import back
from muster.deploys.deployed_group import DeployedGroup, from_manifests
from muster.deploys.shared import guard_commands, polling
from muster.deploys.shared.progress import Progress
from muster.deploys.verify import runs_as_planned
from muster.errors import Refusal
from muster.hosts.all_hosts import each
from muster.hosts.run_programs import run_program
from muster.hosts.say import fail, say

_CHECK_SECONDS = 150


@dataclass(frozen=True)
class Restored:
    """A kept plan that can be put back on every one of its hosts.

    Args:
        digest: of the plan.
        deployed: the group as that plan describes it.
        present: host -> units of the group that are there now, to be stopped.
        verify: host -> request of `muster.on_host.verify_group`.
    """

    digest: str
    deployed: DeployedGroup
    present: Mapping[str, tuple[str, ...]]
    verify: Mapping[str, Mapping[str, Any]]

    def returns(self, host: str) -> dict[str, Any]:
        """Return what has a host put the plan back by itself when this is cut."""
        return back(host == self.deployed.head, self.units(host), kept=self.digest)

    def units(self, host: str) -> tuple[str, ...]:
        """Return the units of both plans on a host."""
        return tuple(sorted({*self.present[host], *self.deployed.units[host]}))

    def request(self, do: str, host: str) -> dict[str, Any]:
        """Return the request of `muster.on_host.restore_plan` for one step on a host."""
        fence = self.deployed.progress.fence(host)
        return {"do": do, "group": self.deployed.group, "digest": self.digest, "fence": fence}


def find(state: State, hosts: Mapping[str, Host], group: str, digest: str) -> Restored:
    """Ask every host whether it can put a kept plan back; changes nothing.

    Args:
        state: pyinfra's.
        hosts: of the plan, by name.
        group: its name.
        digest: of the kept plan.

    Raises:
        Refusal: hosts do not answer, or lack what the plan needs.
    """
    request = {"do": "check", "group": group, "digest": digest}
    answers = each(
        hosts.values(), lambda host: run_program(state, host, "restore_plan", request, seconds=_CHECK_SECONDS)
    )
    lacks = [f"{name}: {answer['error']}" for name, answer in answers.items() if "error" in answer]
    lacks += [f"{name} has no {what}" for name, answer in answers.items() for what in answer.get("lacks", ())]
    if lacks:
        raise Refusal(
            "; ".join(lacks),
            needed=f"on every host what plan {digest} needs: nothing is downloaded or built to put it back",
            fix="deploy the recipe with the settings of that plan (`muster diff` shows them)",
        )
    for name, answer in answers.items():
        for note in answer["notes"]:
            say(hosts[name], f"note: {note}")
    deployed = from_manifests(group, {name: answer["manifest"] for name, answer in answers.items()}, unreached=())
    return Restored(
        digest,
        deployed,
        {name: tuple(answer["units"]) for name, answer in answers.items()},
        {name: answer["verify"] for name, answer in answers.items()},
    )


def put_back(state: State, hosts: Mapping[str, Host], restored: Restored, former: Progress) -> str:
    """Put a kept plan back on all hosts at once and verify it; return what went wrong, empty where it serves.

    The change that failed becomes one to the kept plan, and ends once that serves.

    Args:
        state: pyinfra's.
        hosts: of the plan, by name.
        restored: as `find` returned it.
        former: of the change that failed: its ranks are stopped first.
    """
    deployed = restored.deployed
    progress = deployed.progress
    progress.transaction = change = former.transaction
    if change is not None:
        change.turn_back(restored.digest, deployed.head, restored.returns)

    def on_all(title: str, work: Callable[[Host], bool]) -> str:
        wrong = [name for name, done in each(hosts.values(), work).items() if not done]
        return f"{', '.join(wrong)} failed at '{title}'" if wrong else ""

    def step(do: str) -> Callable[[Host], bool]:
        return lambda host: restore(state, host, restored, do)

    def lift(host: Host) -> bool:
        return guard_commands.resume(state, host, deployed.group, host.name == deployed.head)

    def record(_host: Host) -> bool:
        return change is None or not change.record("committed")

    def start(number: int) -> Callable[[Host], bool]:
        checks = {check.host for check in progress.steps[number].checks}
        concerned = checks | set(progress.steps[number].units)
        return lambda host: host.name not in concerned or polling.start(state, host, progress, number)

    steps: list[tuple[str, Callable[[Host], bool]]] = [
        ("stage the files of the plan", step("stage")),
        ("stop what failed", lambda host: stop(state, host, restored, former)),
        ("put the files in place", step("commit")),
        ("record the change as committed", record),
        *([("lift the hold", lift)] if deployed.guarded else []),
        *((text.text, start(number)) for number, text in enumerate(progress.steps)),
        ("verify", lambda host: verified(state, host, restored)),
    ]
    for title, work in steps:
        problem = on_all(title, work)
        if problem:
            return progress.failure or problem
    if change is not None:
        change.finish()
    return ""


def restore(state: State, host: Host, restored: Restored, do: str) -> bool:
    """Do one step of `muster.on_host.restore_plan` on a host."""
    answer = run_program(state, host, "restore_plan", restored.request(do, host.name))
    if "error" in answer:
        fail(host, answer["error"])
        return False
    for note in answer["notes"]:
        say(host, f"note: {note}")
    return True


def stop(state: State, host: Host, restored: Restored, former: Progress) -> bool:
    """Stop every unit of the group that is on a host now."""
    units = tuple(reversed(restored.present[host.name]))
    return not units or polling.stop(state, host, units, former)


def verified(state: State, host: Host, restored: Restored) -> bool:
    """Ask a host whether it runs the plan, and the head whether every rank answers."""
    return runs_as_planned(state, host, restored.verify[host.name], restored.deployed.units[host.name])
