"""A group that runs, seen from the control machine: is it fit to be measured, and run a tool on its head."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gevent.pool import Pool
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.bench import engine_log
from muster.deploys.verify import request as verify_request
from muster.errors import Refusal
from muster.hosts import all_hosts
from muster.plan.prepare import plan_for
from muster.plan.types import Plan
from muster.preflight.run_checks import deployed_plan
from muster.spec import inventory, recipe
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings

CHECK_SECONDS, SESSION_SECONDS, LOOK_EVERY = 400, 120, 5.0


@dataclass(frozen=True)
class Seen:
    """What the hosts say of the engine that runs: its log, the GPUs and their driver."""

    engine: engine_log.EngineLog
    hardware: str
    driver: str


@dataclass(frozen=True)
class Done:
    """A tool's end: exit status, last lines, and the text of its result file (None: it wrote none)."""

    status: int
    lines: tuple[str, ...]
    result: str | None


@dataclass(frozen=True)
class Cluster:
    """A group with an SSH session to each of its hosts."""

    recipe: Recipe
    plan: Plan
    settings: Settings
    state: State
    hosts: Mapping[str, Host]

    def ask(self, host: str, requests: Mapping[str, Any], says: str, *, seconds: int = SESSION_SECONDS) -> Any:
        """Run host programs on one host and return program name -> answer.

        Raises:
            Refusal: no answer, or one that says what is wrong.
        """
        answer = all_hosts.ask(self.state, self.hosts[host], requests, says, seconds=seconds)
        wrong = [str(told["error"]) for told in answer.values() if isinstance(told, Mapping) and "error" in told]
        wrong += [str(answer["error"])] if isinstance(answer.get("error"), str) else []
        if wrong:
            raise Refusal(f"{host}: {wrong[0]}", fix="look at the host's own log: muster status, or journalctl there")
        return answer

    def check(self) -> Seen:
        """Make sure that what runs is what is planned, serves the model, and answers on every rank.

        Raises:
            Refusal: what is broken, by host: nothing is measured then.
        """

        def one(name: str) -> Any:
            host = self.plan.hosts[name]
            requests = {
                "verify_group": verify_request(self.plan, host),
                "run_tool": {"do": "log", "units": list(host.units)},
            }
            try:
                return self.ask(name, requests, "is the group fit to be measured?", seconds=CHECK_SECONDS)
            except Refusal as refusal:
                return refusal

        names = list(self.plan.hosts)
        answers = dict(zip(names, Pool(len(names)).map(one, names), strict=True))
        problems = [line for name, answer in answers.items() for line in self._problems(name, answer)]
        if problems:
            raise Refusal(
                "the group is not fit to be measured:\n  " + "\n  ".join(problems),
                needed=f"every rank of plan {self.plan.digest} answering",
                fix="bring it up with the deploy of this inventory and recipe, then measure",
            )
        told = [answer["run_tool"] for answer in answers.values()]
        gpus = [gpu for one_host in told for gpu in one_host["gpus"]]
        return Seen(
            engine=engine_log.parse(line for one_host in told for line in one_host["lines"]),
            hardware=", ".join(f"{gpus.count(name)}x {name}" for name in dict.fromkeys(gpus)) or "no GPU",
            driver=", ".join(dict.fromkeys(one_host["driver"] for one_host in told if one_host["driver"])),
        )

    def _problems(self, name: str, answer: Any) -> Iterator[str]:
        if isinstance(answer, Refusal):
            yield str(answer.found)
            return
        for problem in answer["verify_group"]["problems"]:
            yield f"{name}: {problem}"
        for unit, told in answer["run_tool"]["units"].items():
            if told["active"] == "active" and told["digest"] not in (None, self.plan.digest):
                yield f"{name}: {unit} runs plan {told['digest']}, not {self.plan.digest}"

    def run_tool(
        self,
        name: str,
        argv: Sequence[str],
        *,
        result: str,
        seconds: int,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> Done:
        """Run a tool on the head, as the engine's user and in its environment, and wait for its end.

        Args:
            name: of its unit, `muster-bench-…`.
            argv: the command; its first word is looked for in the engine's release.
            result: name, or ending, of the file it writes below its directory.
            seconds: the longest it may take.
            env: besides the engine's.
            files: name -> text, laid into its directory.
            say: called with the tool's last line now and then.
        """
        head, directory = self.plan.head, self.directory(name)
        keys = [secret.path for secret in self.plan.secrets if secret.path.endswith("secrets.env")]
        program = argv[0] if argv[0].startswith("/") else f"{self.plan.release.path}/bin/{argv[0]}"
        start = {
            "do": "start", "name": name, "directory": directory, "argv": [program, *argv[1:]], "user": "muster",
            "env": {**head.processes[-1].env, **(env or {})}, "seconds": seconds, "files": dict(files or {}),
            "api_key_file": keys[0] if keys else None,
        }  # fmt: skip
        self.ask(head.name, {"run_tool": start}, f"start {name}")
        look = {"do": "look", "name": name, "directory": directory, "result": result}
        try:
            deadline, said = time.monotonic() + seconds + 60, ""
            while True:
                told = self.ask(head.name, {"run_tool": look}, f"look after {name}")["run_tool"]
                if not told["running"] or time.monotonic() > deadline:
                    return Done(int(told["status"]), tuple(told["lines"]), told["result"])
                last = told["lines"][-1] if told["lines"] else ""
                if last != said:
                    say(last)
                    said = last
                time.sleep(LOOK_EVERY)
        finally:
            self.ask(head.name, {"run_tool": {"do": "end", "name": name, "directory": directory}}, f"end {name}")

    def directory(self, name: str) -> str:
        """Return where a tool works on the head."""
        return f"/var/lib/muster/{self.plan.group}/{name}"


@contextmanager
def connected(inventory_file: str, recipe_name: str, overrides: Mapping[str, Any]) -> Iterator[Cluster]:
    """Plan the group, connect to its hosts, and disconnect at the end.

    Args:
        inventory_file, recipe_name: as for `muster plan`.
        overrides: settings that beat the rest.

    Raises:
        Refusal: no plan, or a host that cannot be reached.
    """
    from pyinfra.api.config import Config
    from pyinfra.api.connect import disconnect_all
    from pyinfra.context import ctx_state

    hosts = inventory.load(inventory_file, overrides)
    fleet = inventory.from_pyinfra(hosts, name=inventory_file)
    wanted = recipe.load(recipe_name)
    plan = plan_for(recipe_name, fleet)  # refused before anybody is asked
    state = State(hosts, Config())
    ctx_state.set(state)
    unreached = all_hosts.connect(state)
    try:
        if unreached:
            raise Refusal("no SSH session to " + ", ".join(f"{name} ({why})" for name, why in unreached.items()))
        plan = deployed_plan(state, plan, lambda variant: plan_for(recipe_name, fleet, variant))
        yield Cluster(wanted, plan, fleet.settings, state, {host.name: host for host in state.inventory})
    finally:
        disconnect_all(state)
