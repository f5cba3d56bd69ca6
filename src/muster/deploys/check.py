"""Check: every host is what the inventory promises, and all changes are known, before anything is touched."""

from __future__ import annotations

import difflib

from pyinfra import logger
from pyinfra.api.state import State

from muster.deploys import former_group
from muster.deploys.former_group import Former
from muster.deploys.shared.group_run import GroupRun
from muster.deploys.shared.stop_question import stop_question
from muster.hosts.pyinfra_types import current_host, current_state
from muster.hosts.run_words import words
from muster.plan.plan_history import expected, last_start

_REASONS = 6


def check(recipe: str, group: str = "") -> tuple[GroupRun, Former | None]:
    """Return the run of a recipe's group, and what it replaces, once every host is probed and fit for it.

    Args:
        recipe, group: as for `GroupRun.of`.

    Raises:
        DeployError: the plan cannot be made, or hosts do not fit it; all problems of all hosts in one text.
    """
    state, host = current_state(), current_host()
    run = GroupRun.of(state, recipe, group)
    former = former_group.of(state, run)
    if host.name == next(iter(run.plan.hosts)):
        _announce(state, run)
        if former is not None:
            former.announce(run)
    return run, former


def _announce(state: State, run: GroupRun) -> None:
    """Print once for the group what this run is about to do, and why."""
    plan, decision = run.plan, run.decision
    engine = f"vLLM {plan.vllm_version}{f', build {plan.cuda_variant}' if plan.cuda_variant else ''}"
    logger.info(f"group {plan.group}: {plan.label}, {len(plan.hosts)} hosts, {engine}, {plan.digest}")
    for warning in plan.warnings:
        logger.warning(warning)
    transaction = run.progress.transaction
    if transaction is not None and transaction.unfinished is not None:
        cut = transaction.unfinished
        logger.warning(f"{cut.sentence}; {cut.next_step(plan.digest)}")
    if decision.held:
        logger.info(f"the group is {decision.held}; this run resumes it")
    if not decision.restart:
        waits = "every guard runs as planned" if decision.held else "every rank runs as planned; not ready yet"
        logger.info("every rank runs as planned" if decision.ready else waits)
        return
    if run.downloads and plan.weights:
        logger.warning(f"weights, on {', '.join(run.downloads)}: {plan.weights.line(len(plan.hosts))}")
    stops = any(host.stop for host in decision.hosts.values())
    if stops:
        start = last_start(run.history, plan.digest)
        words.ask(stop_question("restart", plan.group, list(plan.hosts), drain_seconds(run), start))
    logger.info(f"the group will be {'restarted' if stops else 'started'}:")
    for reason in decision.reasons[:_REASONS]:
        logger.info(f"  {reason}")
    if len(decision.reasons) > _REASONS:
        logger.info(f"  and {len(decision.reasons) - _REASONS} more")
    if stops:
        logger.info(f"  {expected(run.history, plan.digest, drain_seconds(run))}")
        logger.info(f"  {run.back.announcement}")
    if state.config.DIFF:
        _diff(run)


def drain_seconds(run: GroupRun) -> int:
    """Return how long the plan that the head runs waits for requests in flight; the new plan's where it is not kept."""
    units = run.observations[run.plan.head.name]["units"].values()
    runs = {unit.get("digest") for unit in units}
    return next((plan.drain_seconds for plan in run.history if plan.digest in runs), run.plan.drain_seconds)


def _diff(run: GroupRun) -> None:
    """Print how files differ. Secrets are no planned files, and no host sends them back."""
    for name, decision in run.decision.hosts.items():
        for path in (*decision.base, *decision.files):
            before = run.observations[name]["files"].get(path, {}).get("text", "")
            after = run.plan.hosts[name].files[path].text
            lines = difflib.unified_diff(
                before.splitlines(), after.splitlines(), f"{name}:{path}", "planned", lineterm=""
            )
            for line in lines:
                logger.info(line)
