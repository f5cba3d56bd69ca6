"""Run GSM8K against a group and keep the scores in the ledger."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from muster.bench import eval_result, eval_task, ledger
from muster.bench.ledger import LedgerEntry
from muster.bench.measured_group import MeasuredGroup, RunningEngine, ToolResult
from muster.bench.run_scenarios import entry_of, new_session
from muster.errors import Refusal
from muster.guard.endpoint_kinds import COMPLETIONS
from muster.hosts import uv_binary
from muster.hosts.printable import printable_data
from muster.on_host import places
from muster.on_host.whole_files import text_sha256
from muster.plan.types import Plan
from muster.spec.settings import Settings

INSTALL_SECONDS, RUN_SECONDS = 1800, 6 * 3600


def install(group: MeasuredGroup) -> str:
    """Install lm_eval on the head, in an environment of its own, unless it is there; return its path.

    Raises:
        Refusal: in uv's own words.
    """
    settings, release = group.settings, group.plan.release
    requirements = settings.evaluation.requirements or list(eval_task.REQUIREMENTS)
    name = text_sha256(json.dumps([release.python, requirements]))[:8]
    path = f"{settings.root}/{places.TOOLS}/lm-eval-{name}"
    request: dict[str, Any] = {
        "path": path,
        "program": "lm_eval",
        "python": release.python,
        "requirements": requirements,
        "install_args": _without_torch(release.install_args),
        "env": dict(release.env),
        **uv_binary.places(settings.root),
        "uv_payload": None,
    }
    head = group.plan.head.name
    state = group.ask(head, {"install_tool": request}, seconds=INSTALL_SECONDS)["install_tool"]
    if not state["installed"]:
        request["uv_payload"] = uv_binary.payload(state["machine"])
        group.ask(head, {"install_tool": request}, seconds=INSTALL_SECONDS)
    return f"{path}/bin/lm_eval"


def _without_torch(args: tuple[str, ...]) -> list[str]:
    words = list(args)
    if "--torch-backend" in words:
        at = words.index("--torch-backend")
        del words[at : at + 2]
    return words


def require_askable(plan: Plan, settings: Settings) -> None:
    """Refuse a group that cannot be asked GSM8K.

    Raises:
        Refusal: the model answers no completions, or the hosts are offline and have no questions.
    """
    if plan.endpoint_kind != COMPLETIONS:
        raise Refusal(
            f"{plan.recipe} answers {plan.endpoint_kind}",
            needed="a model that answers completions: GSM8K is asked there",
            fix="measure it with muster bench",
        )
    if settings.offline and not settings.evaluation.gsm8k_path:
        raise Refusal(f"{plan.head.name} is offline and has no questions", needed=_QUESTIONS, fix=_QUESTIONS_FIX)


def comparable(kept: Iterable[LedgerEntry], recipe: str) -> list[LedgerEntry]:
    """Return the completed evaluations of a recipe that another one can repeat, of those that were kept."""
    return [
        entry
        for entry in kept
        if (entry.kind, entry.recipe, entry.scenario) == ("eval", recipe, eval_task.TASK)
        and not entry.problems
        and entry.prompts > 0
        and isinstance(entry.load.get("fewshot"), int)
    ]


def evaluate(
    group: MeasuredGroup,
    running: RunningEngine,
    *,
    directory: Path,
    limit: int | None,
    fewshot: int,
    say: Callable[[str], None],
) -> tuple[LedgerEntry, list[eval_result.Score]]:
    """Ask the questions, keep and return the scores.

    Args:
        group: to score.
        running: from `MeasuredGroup.check`.
        directory: of the ledger.
        limit: questions to ask; None asks all.
        fewshot: examples before each question.
        say: prints progress.

    Raises:
        Refusal: as `require_askable`, or lm_eval cannot be installed.
    """
    require_askable(group.plan, group.settings)
    questions, session = group.settings.evaluation.gsm8k_path, new_session()
    program, name = install(group), f"muster-bench-{session.lower()}-eval"
    place = group.directory(name)
    files = {f"{eval_task.LOCAL_TASK}.yaml": eval_task.local_task(questions)} if questions else {}
    words = eval_task.argv(
        program=program,
        base_url=group.plan.local_endpoint,
        served_model_name=group.plan.served_model_name,
        output=f"{place}/out",
        limit=limit,
        tasks_dir=place if questions else None,
        fewshot=fewshot,
    )
    env = {"HF_HOME": f"{place}/hf", "OPENAI_API_KEY": "none"}  # the engine's key, if any, replaces the latter
    if not questions:
        env["HF_HUB_OFFLINE"] = "0"
    done = group.run_tool(name, words, result=".json", seconds=RUN_SECONDS, env=env, files=files, say=say)
    scores, problems, raw = outcome(done)
    figures = {score.name: score.value for score in scores}
    figures |= {score.name + ledger.STANDARD_ERROR: score.error for score in scores}
    asked = scores[0].questions if scores else limit or 0
    fields = {"scenario": eval_task.TASK, "prompts": asked, "load": {"fewshot": fewshot}}
    entry = entry_of(
        group, running, kind="eval", session=session, number=1, figures=figures, problems=problems, raw=raw, **fields
    )
    ledger.write(directory, entry)
    return entry, scores


def outcome(done: ToolResult) -> tuple[list[eval_result.Score], tuple[str, ...], Any]:
    """Return scores, problems and lm_eval's JSON of a finished run."""
    if done.status or done.result is None:
        last = " / ".join(done.lines[-3:]) or "it printed nothing"
        return [], (f"lm_eval ended with {done.status}: {last}",), None
    try:
        raw = printable_data(json.loads(done.result), finite=False)  # its names of scores are printed
        return eval_result.parse(raw), (), raw
    except (ValueError, RecursionError) as error:
        return [], (str(error),), None


def verdict(group: MeasuredGroup, score: eval_result.Score) -> str:
    """Return the score as a line, with its margin and whether it agrees with the published one."""
    line = f"{score.name}: {score.value:.4f} ± {score.margin:.4f} (95 %, {score.questions} questions)"
    for published in group.recipe.published:
        value = published.values.get(group.plan.strategy)
        if published.metric == score.name and value is not None:
            agrees = "agrees with" if score.agrees(value) else "differs from"
            line += f"; {agrees} the published {value:.4f} ({published.hardware})"
    return line


_QUESTIONS = "GSM8K's train.jsonl and test.jsonl in a directory on the head"
_QUESTIONS_FIX = "copy them there, and --data gsm8k_path=DIRECTORY"
_NO_HUB = re.compile(
    r"ConnectionError|Couldn't reach|Max retries exceeded|name resolution|Name or service not known"
    r"|Hub is not reachable|Network is unreachable|OfflineMode|LocalEntryNotFound"
    r"|Connection (?:refused|timed out|reset)|(?:Read|Connect)Timeout"
)
"""How lm_eval and the libraries below it say that the questions cannot be fetched."""


def require(scores: list[eval_result.Score], entry: LedgerEntry) -> None:
    """Refuse an evaluation without scores.

    Raises:
        Refusal: with lm_eval's last lines; where the hub was out of reach, with how to do without it.
    """
    if not scores:
        problems = "; ".join(entry.problems)
        hub = _NO_HUB.search(problems)
        needed, fix = (_QUESTIONS, _QUESTIONS_FIX) if hub else ("", "")
        raise Refusal(f"the evaluation gave no score: {problems}", needed=needed, fix=fix)
