"""Summary: where the endpoint is, how to try it, where the logs are."""

from __future__ import annotations

import json

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.group_run import GroupRun
from muster.guard.endpoint_kinds import COMPLETIONS
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host, stage
from muster.hosts.run_words import words
from muster.hosts.say import say
from muster.plan import firewall
from muster.plan.types import Plan


@stage("Summary")
def summary(run: GroupRun) -> None:
    """Print it once, under the head's name."""
    question = FunctionCommand(_print, [run], {})
    run.progress.note(current_host(), "summary", operations.holds(question, name=f"{run.plan.group} serves"))


def _print(_state: State, host: Host, run: GroupRun) -> bool:
    if run.host(host).node_rank == 0:
        say(host, text(run.plan))
        words.done(outcome(run))
    return True


def outcome(run: GroupRun) -> str:
    """Return what is true now, in one line."""
    plan, count = run.plan, len(run.plan.hosts)
    how = f"started in {run.progress.passed_seconds:.0f} s" if run.progress.started else "nothing to change"
    where = f"{count} host{'s' * (count > 1)}"
    notes = "" if run.decision.changes or not plan.warnings else f"; {len(plan.warnings)} note(s): muster plan"
    return f"{plan.group}: {how}; {plan.label} serves at {plan.endpoint}/v1 on {where}, plan {plan.digest}{notes}"


def text(plan: Plan) -> str:
    """Return the summary of a plan that has been brought up."""
    if plan.endpoint_kind == COMPLETIONS:
        path = "/v1/chat/completions"
        body = {"model": plan.served_model_name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}
    else:
        path, body = plan.kind.path, plan.kind.body(plan.served_model_name, "Hello")
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if plan.api_key_path else ""
    curl = f"curl {plan.endpoint}{path} -H 'Content-Type: application/json'{key} -d '{json.dumps(body)}'"
    head = plan.head
    lines = [
        f"endpoint  {plan.endpoint}/v1  ({plan.served_model_name}, {plan.label})",
        f"reached by {firewall.reach(head.firewall)}",
        *([f"engine    vLLM {plan.vllm_version}, build {plan.cuda_variant}"] if plan.cuda_variant else []),
        f"try it    {curl}",
        f"logs      journalctl -f -u {head.units[-1]}   on {head.name}",
    ]
    others = [host for host in plan.hosts.values() if host is not head]
    if others:
        lines.append(f"          journalctl -f -u {others[-1].units[-1]}   on {', '.join(h.name for h in others)}")
    return "\n".join(lines)
