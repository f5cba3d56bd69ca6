"""Run GSM8K against a group and keep the scores in the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from muster.bench import eval_result, eval_task, ledger
from muster.bench.ledger import Entry
from muster.bench.measured_group import Cluster, Done, Seen
from muster.bench.run_scenarios import entry_of, new_session
from muster.errors import Refusal
from muster.hosts import uv_binary

INSTALL_SECONDS, RUN_SECONDS = 1800, 6 * 3600


def install(cluster: Cluster) -> str:
    """Make sure that lm_eval is on the head, in an environment of its own, and return its path.

    Raises:
        Refusal: uv's own words.
    """
    settings, release = cluster.settings, cluster.plan.release
    requirements = settings.evaluation.requirements or list(eval_task.REQUIREMENTS)
    name = hashlib.sha256(json.dumps([release.python, requirements]).encode()).hexdigest()[:8]
    path = f"{settings.root}/tools/lm-eval-{name}"
    request: dict[str, Any] = {
        "path": path,
        "program": "lm_eval",
        "python": release.python,
        "requirements": requirements,
        "install_args": _without_torch(release.install_args),
        "env": dict(release.env),
        "uv": uv_binary.path_on_hosts(settings.root),
        "uv_payload": None,
        "python_dir": f"{settings.root}/python",
        "cache_dir": "/var/cache/muster/uv",
    }
    head = cluster.plan.head.name
    told = cluster.ask(head, {"install_tool": request}, "install lm_eval", seconds=INSTALL_SECONDS)["install_tool"]
    if not told["installed"]:
        request["uv_payload"] = uv_binary.payload(told["machine"])
        cluster.ask(head, {"install_tool": request}, "install lm_eval", seconds=INSTALL_SECONDS)
    return f"{path}/bin/lm_eval"


def _without_torch(args: tuple[str, ...]) -> list[str]:
    words = list(args)
    if "--torch-backend" in words:
        at = words.index("--torch-backend")
        del words[at : at + 2]
    return words


def evaluate(
    cluster: Cluster, seen: Seen, *, directory: Path, limit: int | None, fewshot: int, say: Callable[[str], None]
) -> tuple[Entry, list[eval_result.Score]]:
    """Ask the questions, keep and return the scores.

    Args:
        cluster, seen: of `Cluster.check`.
        directory: of the ledger.
        limit: questions to ask; None asks all.
        fewshot: examples before each question.
        say: for progress.

    Raises:
        Refusal: lm_eval cannot be installed.
    """
    questions, session = cluster.settings.evaluation.gsm8k_path, new_session()
    program, name = install(cluster), f"muster-bench-{session.lower()}-eval"
    place = cluster.directory(name)
    files = {f"{eval_task.LOCAL_TASK}.yaml": eval_task.local_task(questions)} if questions else {}
    words = eval_task.argv(
        program=program,
        base_url=cluster.plan.local_endpoint,
        served_model_name=cluster.plan.served_model_name,
        output=f"{place}/out",
        limit=limit,
        tasks_dir=place if questions else None,
        fewshot=fewshot,
    )
    env = {"HF_HOME": f"{place}/hf", "OPENAI_API_KEY": "none"}  # the engine's own key replaces the latter
    if not questions:
        env["HF_HUB_OFFLINE"] = "0"
    done = cluster.run_tool(name, words, result=".json", seconds=RUN_SECONDS, env=env, files=files, say=say)
    scores, problems, raw = outcome(done)
    figures = {score.name: score.value for score in scores}
    figures |= {f"{score.name} stderr": score.error for score in scores}
    own = {"scenario": eval_task.TASK, "prompts": scores[0].questions if scores else 0, "load": {"fewshot": fewshot}}
    entry = entry_of(
        cluster, seen, kind="eval", session=session, number=1, figures=figures, problems=problems, raw=raw, **own
    )
    ledger.write(directory, entry)
    return entry, scores


def outcome(done: Done) -> tuple[list[eval_result.Score], tuple[str, ...], Any]:
    """Return scores, problems and lm_eval's JSON of a run that has ended."""
    if done.status or done.result is None:
        last = " / ".join(done.lines[-3:]) or "it said nothing"
        return [], (f"lm_eval ended with {done.status}: {last}",), None
    try:
        raw = json.loads(done.result)
        return eval_result.parse(raw), (), raw
    except ValueError as error:
        return [], (str(error),), None


def verdict(cluster: Cluster, score: eval_result.Score) -> str:
    """Return a line: the score, its margin, and how it stands to the published one."""
    line = f"{score.name}: {score.value:.4f} ± {score.margin:.4f} (95 %, {score.questions} questions)"
    for published in cluster.recipe.published:
        value = published.values.get(cluster.plan.strategy)
        if published.metric == score.name and value is not None:
            agrees = "agrees with" if score.agrees(value) else "differs from"
            line += f"; {agrees} the published {value:.4f} ({published.hardware})"
    return line


def require(scores: list[eval_result.Score], entry: Entry) -> None:
    """Refuse an evaluation without scores.

    Raises:
        Refusal: with what lm_eval said.
    """
    if not scores:
        raise Refusal("the evaluation gave no score: " + "; ".join(entry.problems))
