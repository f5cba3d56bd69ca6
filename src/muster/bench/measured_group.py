"""A running group, seen from the control machine: check that it is fit to be measured, run a tool on its head."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.bench import engine_log
from muster.deploys import verify
from muster.errors import Refusal
from muster.hosts.all_hosts import each, hosts_of
from muster.hosts.connect import connected as connected_hosts
from muster.hosts.run_programs import run_programs
from muster.on_host import run_tool
from muster.plan.prepare import plan_for
from muster.plan.types import Plan
from muster.preflight.run_checks import deployed_plan
from muster.spec import inventory, inventory_source, recipe
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings

CHECK_SECONDS, SESSION_SECONDS, POLL_SECONDS = 400, 120, 5.0


@dataclass(frozen=True)
class RunningEngine:
    """The running engine as the hosts report it: its log, the GPUs and their driver."""

    log: engine_log.EngineLog
    hardware: str
    driver: str


@dataclass(frozen=True)
class ToolResult:
    """A finished tool: exit status, last lines, and the text of its result file (None: it wrote none)."""

    status: int
    lines: tuple[str, ...]
    result: str | None


@dataclass(frozen=True)
class MeasuredGroup:
    """A group whose hosts are connected."""

    recipe: Recipe
    plan: Plan
    settings: Settings
    state: State
    hosts: Mapping[str, Host]

    def ask(self, host: str, requests: Mapping[str, Any], *, seconds: int = SESSION_SECONDS) -> Any:
        """Run host programs on one host and return program name -> answer.

        Raises:
            Refusal: no answer, or an answer that is an error.
        """
        answer = run_programs(self.state, self.hosts[host], requests, seconds=seconds)
        errors = [str(part["error"]) for part in answer.values() if "error" in part]
        if errors:
            raise Refusal(f"{host}: {errors[0]}", fix="read the host's own log: muster logs, or journalctl there")
        return answer

    def check(self) -> RunningEngine:
        """Make sure that the planned group is running, serves the model and answers on every rank.

        Raises:
            Refusal: what is broken, by host; nothing is measured then.
        """
        # A rank that is gone keeps its requests waiting for minutes: what runs is asked before what answers.
        answers = self._ask_all(
            {
                name: {
                    "verify_group": verify.what_runs(self.plan, planned),
                    "run_tool": {"do": "log", "units": list(planned.units)},
                }
                for name, planned in self.plan.hosts.items()
            }
        )
        serving = {name: verify.what_answers(self.plan, planned) for name, planned in self.plan.hosts.items()}
        self._ask_all({name: {"verify_group": question} for name, question in serving.items() if question})
        logs = [answer["run_tool"] for answer in answers.values()]
        gpus = [gpu for host_log in logs for gpu in host_log["gpus"]]
        return RunningEngine(
            log=engine_log.parse(line for host_log in logs for line in host_log["lines"]),
            hardware=", ".join(f"{gpus.count(name)}x {name}" for name in dict.fromkeys(gpus)) or "no GPU",
            driver=", ".join(dict.fromkeys(host_log["driver"] for host_log in logs if host_log["driver"])),
        )

    def _ask_all(self, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Run each host's programs; a Refusal names what any host reports as broken."""

        def one(host: Host) -> Any:
            try:
                return self.ask(host.name, requests[host.name], seconds=CHECK_SECONDS)
            except Refusal as refusal:
                return refusal

        answers = each([self.hosts[name] for name in requests], one)
        problems = [line for name, answer in answers.items() for line in self._problems(name, answer)]
        if problems:
            raise Refusal(
                "the group is not fit to be measured:\n  " + "\n  ".join(problems),
                needed=f"every rank of plan {self.plan.digest} answering",
                fix="bring it up with the deploy of this inventory and recipe, then measure",
            )
        return answers

    def _problems(self, name: str, answer: Any) -> Iterator[str]:
        if isinstance(answer, Refusal):
            yield str(answer.found)
            return
        for problem in answer["verify_group"]["problems"]:
            yield f"{name}: {problem}"
        for unit, state in answer.get("run_tool", {}).get("units", {}).items():
            if state["active"] == "active" and state["digest"] not in (None, self.plan.digest):
                yield f"{name}: {unit} runs plan {state['digest']}, not {self.plan.digest}"

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
    ) -> ToolResult:
        """Run a tool on the head, as a user of its own and in the engine's environment, and wait for it to end.

        Args:
            name: of its unit, `muster-bench-…`.
            argv: the command; a bare program name means the one in the engine's release.
            result: name or suffix of the file that it writes below its directory.
            seconds: limit of its run time.
            env: variables besides the engine's.
            files: name -> text, written into its directory.
            say: called with the tool's last line when that changes.
        """
        head = self.plan.head
        program = argv[0] if argv[0].startswith("/") else f"{self.plan.release.path}/bin/{argv[0]}"
        start = {
            "do": "start", "name": name, "argv": [program, *argv[1:]],
            "env": {**head.processes[-1].env, **(env or {})}, "seconds": seconds, "files": dict(files or {}),
            "api_key_file": self.plan.api_key_path,
        }  # fmt: skip
        self.ask(head.name, {"run_tool": start})
        poll = {"do": "poll", "name": name, "result": result}
        try:
            deadline, printed = time.monotonic() + seconds + 60, ""
            while True:
                state = self.ask(head.name, {"run_tool": poll})["run_tool"]
                if not state["running"] or time.monotonic() > deadline:
                    return ToolResult(int(state["status"]), tuple(state["lines"]), state["result"])
                last = state["lines"][-1] if state["lines"] else ""
                if last != printed:
                    say(last)
                    printed = last
                time.sleep(POLL_SECONDS)
        finally:
            self.ask(head.name, {"run_tool": {"do": "end", "name": name}})

    def directory(self, name: str) -> str:
        """Return a tool's working directory on the head."""
        return run_tool.directory(name)


@contextmanager
def connected(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any]) -> Iterator[MeasuredGroup]:
    """Plan the group, connect to its hosts, and disconnect at the end.

    Args:
        inventory_file, recipe_name: as for `muster plan`.
        overrides: settings that take precedence over all others.

    Raises:
        Refusal: no plan, or a host that cannot be reached.
    """
    hosts = inventory_source.load(inventory_file, overrides)
    fleet = inventory.from_pyinfra(hosts, name=inventory_file, recipe=recipe_name)
    name = inventory.recipe_of(recipe_name, fleet)
    plan = plan_for(name, fleet)  # refused before any host is asked
    with connected_hosts(hosts, needs_all=True, names=plan.hosts.keys()) as there:
        plan = deployed_plan(there.state, plan, lambda variant: plan_for(name, fleet, variant))
        yield MeasuredGroup(recipe.load(name), plan, fleet.settings, there.state, hosts_of(there.state))
