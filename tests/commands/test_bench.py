"""`muster bench`, `eval` and `report` by hand, on a group that is not there: what they say and how they end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from muster.bench import engine_log, measured_group
from muster.bench import run_eval as evaluation
from muster.commands.bench import bench
from muster.commands.eval import evaluate
from muster.commands.report import report
from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.spec import recipe
from muster.spec.host import HostSpec
from muster.spec.settings import Settings

RECORDED = Path(__file__).parents[1] / "bench" / "recorded"


class Group:
    """Stands for a connected group: its tool answers with what it was given, run after run."""

    def __init__(self, answers: Sequence[measured_group.ToolResult], problems: str = "", **settings: Any) -> None:
        self.answers, self.problems, self.argvs = list(answers), problems, list[list[str]]()
        self.recipe = recipe.load("kimi-k2-thinking")
        self.settings = Settings.model_validate(settings)
        self.plan = build_plan(self.recipe, [HostSpec("gpu0", "10.0.0.1", None, "H200", 8)], self.settings)

    def check(self) -> measured_group.RunningEngine:
        if self.problems:
            raise Refusal(self.problems)
        return measured_group.RunningEngine(engine_log.EngineLog(cache_tokens=(715_072,)), "8x NVIDIA H200", "580.1")

    def directory(self, name: str) -> str:
        return f"/var/lib/muster/{name}"

    def run_tool(self, name: str, argv: Sequence[str], **_: Any) -> measured_group.ToolResult:
        self.argvs.append(list(argv))
        return self.answers[(len(self.argvs) - 1) % len(self.answers)]


def done(status: int = 0, **own: Any) -> measured_group.ToolResult:
    """Return a run's end, with figures of a recorded run."""
    raw = json.loads((RECORDED / "bench-serve-0.26.json").read_text(encoding="utf-8")) | own
    return measured_group.ToolResult(status, ("the last line",), json.dumps(raw))


def scored(share: float, questions: int = 1319) -> measured_group.ToolResult:
    """Return what an evaluation leaves; the error is that of its number of questions."""
    error = math.sqrt(share * (1 - share) / questions)
    scores = {"exact_match,strict-match": share, "exact_match_stderr,strict-match": error}
    whole = {"results": {"gsm8k": scores}, "n-samples": {"gsm8k": {"effective": questions}}}
    return measured_group.ToolResult(0, (), json.dumps(whole))


def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: Group, *words: str, command: Any = bench) -> Result:
    @contextmanager
    def connected(inventory: str, name: str, overrides: Mapping[str, Any]) -> Iterator[Group]:
        yield group

    monkeypatch.setattr(measured_group, "connected", connected)
    argv = ["inventories/h200-8.py", "kimi-k2-thinking", "--ledger", str(tmp_path / "ledger"), *words]
    return CliRunner().invoke(command, argv)


def kept(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((tmp_path / "ledger").glob("*.json"))]


def test_a_run_is_printed_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group = Group([done()])
    ran = invoke(monkeypatch, tmp_path, group)
    assert ran.exit_code == 0, ran.output
    assert "2,160.14 tok/s, TTFT 399.8 ms" in ran.output
    (entry,) = kept(tmp_path)
    assert entry["digest"] == group.plan.digest
    assert (entry["hardware"], entry["driver"], entry["label"]) == ("8x NVIDIA H200", "580.1", "TP8")
    assert entry["figures"]["kv_cache_tokens"] == 715_072
    assert entry["raw"]["model_id"] == "/dev/shm/muster-gpu/none"


def test_a_run_with_a_failed_request_fails_although_the_tool_did_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = invoke(monkeypatch, tmp_path, Group([done(failed=1, completed=7)]))
    assert ran.exit_code == 1
    assert "FAILED" in ran.output
    assert kept(tmp_path)[0]["problems"] == ["1 of 8 requests failed"]


@pytest.mark.parametrize(
    "end", [measured_group.ToolResult(1, ("ValueError: no tokenizer",), None), measured_group.ToolResult(0, (), None)]
)
def test_a_tool_that_writes_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: measured_group.ToolResult
) -> None:
    ran = invoke(monkeypatch, tmp_path, Group([end]))
    assert ran.exit_code == 1
    assert "wrote no result" in ran.output


def test_a_broken_group_is_found_before_a_tool_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group = Group([done()], problems="DP rank 3 did not answer")
    ran = invoke(monkeypatch, tmp_path, group)
    assert isinstance(ran.exception, Refusal)
    assert group.argvs == []


def test_repeats_get_prompts_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group = Group([done()])
    invoke(monkeypatch, tmp_path, group, "--repeat", "3")
    seeds = [argv[argv.index("--seed") + 1] for argv in group.argvs]
    assert len(set(seeds)) == 3


def test_a_regression_ends_with_1_and_noise_with_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = [done(output_throughput=speed, request_throughput=speed / 500) for speed in (1000.0, 1030.0, 970.0)]
    slow = [done(output_throughput=speed, request_throughput=speed / 500) for speed in (700.0, 720.0, 690.0)]
    noise = [done(output_throughput=speed, request_throughput=speed / 500) for speed in (940.0, 990.0, 1010.0)]
    invoke(monkeypatch, tmp_path, Group(usual), "--repeat", "3")
    session = kept(tmp_path)[0]["session"]
    same = invoke(monkeypatch, tmp_path, Group(noise), "--against", session, "--tolerance", "1%")
    assert same.exit_code == 0, same.output
    worse = invoke(monkeypatch, tmp_path, Group(slow), "--against", session, "--tolerance", "5%")
    assert worse.exit_code == 1
    assert "WORSE" in worse.output
    assert "2 of 5 figures got worse" in worse.output


@pytest.mark.parametrize("share", ["5", "-1%", "100%", "five"])
def test_a_tolerance_that_is_no_share_is_refused(share: str) -> None:
    ran = CliRunner().invoke(bench, ["i", "r", "--tolerance", share])
    assert ran.exit_code == 2
    assert "write 5% or 0.05" in ran.output


def test_an_evaluation_says_its_margin_and_the_published_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluation, "install", lambda *_: "/opt/muster/tools/lm-eval/bin/lm_eval")
    group = Group([scored(0.93)])
    ran = invoke(monkeypatch, tmp_path, group, "--limit", "20", command=evaluate)
    assert ran.exit_code == 0, ran.output
    assert "0.9300 ± 0.0138 (95 %, 1319 questions); agrees with the published 0.9409 (8x H200)" in ran.output
    assert group.argvs[0][-2:] == ["--limit", "20"]


def test_a_score_that_fell_ends_with_1_and_chance_with_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluation, "install", lambda *_: "lm_eval")
    invoke(monkeypatch, tmp_path, Group([scored(0.94, 200)]), "--limit", "200", "--fewshot", "3", command=evaluate)
    session = kept(tmp_path)[0]["session"]
    chance = Group([scored(0.92, 200)])
    ran = invoke(monkeypatch, tmp_path, chance, "--against", session, command=evaluate)
    assert ran.exit_code == 0, ran.output
    assert chance.argvs[0][-2:] == ["--limit", "200"]
    assert "ok    gsm8k, 3 examples, 200 questions" in ran.output
    ran = invoke(monkeypatch, tmp_path, Group([scored(0.80, 200)]), "--against", session, command=evaluate)
    assert ran.exit_code == 1
    assert "WORSE gsm8k, 3 examples, 200 questions" in ran.output
    other = Group([scored(0.94)])
    ran = invoke(monkeypatch, tmp_path, other, "--against", session, "--limit", "100", command=evaluate)
    assert isinstance(ran.exception, Refusal)
    assert other.argvs == []


def test_an_evaluation_without_scores_is_kept_and_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluation, "install", lambda *_: "lm_eval")
    group = Group([measured_group.ToolResult(1, ("no data set",), None)])
    ran = invoke(monkeypatch, tmp_path, group, command=evaluate)
    assert isinstance(ran.exception, Refusal)
    assert "no data set" in str(ran.exception)
    assert kept(tmp_path)[0]["problems"]


def test_a_load_longer_than_what_is_served_is_refused_before_a_tool_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    group = Group([done()], max_model_len=2048)
    ran = invoke(monkeypatch, tmp_path, group)
    assert isinstance(ran.exception, Refusal)
    assert "12,000 tokens, and 2,048 are served" in str(ran.exception)
    assert "max_model_len=12000" in ran.exception.fix
    assert group.argvs == []


def test_a_failed_request_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = invoke(monkeypatch, tmp_path, Group([done(failed=1, completed=7, errors=[["Bad Request", 1]])]))
    assert "1 of 8 requests failed: 1 x Bad Request" in ran.output


def test_an_evaluation_without_internet_names_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluation, "install", lambda *_: "lm_eval")
    lines = ("ConnectionError: Couldn't reach 'openai/gsm8k' on the Hub (LocalEntryNotFoundError)",)
    ran = invoke(monkeypatch, tmp_path, Group([measured_group.ToolResult(1, lines, None)]), command=evaluate)
    assert isinstance(ran.exception, Refusal)
    assert "gsm8k_path=DIRECTORY" in ran.exception.fix
    group = Group([measured_group.ToolResult(1, lines, None)], offline=True)
    ran = invoke(monkeypatch, tmp_path, group, command=evaluate)
    assert "gpu0 is offline and has no questions" in str(ran.exception)
    assert group.argvs == []


def test_the_report_of_what_was_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    invoke(monkeypatch, tmp_path, Group([done()]), "--repeat", "2")
    place, out = str(tmp_path / "ledger"), tmp_path / "report.html"
    shown = CliRunner().invoke(report, ["--ledger", place, "--recipe", "kimi-k2-thinking"])
    assert "## TP8, vLLM 0.33.0, 8x NVIDIA H200" in shown.output
    written = CliRunner().invoke(report, ["--ledger", place, "--out", str(out)])
    assert written.exit_code == 0, written.output
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_what_is_wrong_with_the_running_group_is_said_by_host() -> None:
    group = Group([])
    unit = {"muster-k2-vllm.service": {"active": "active", "digest": "ffff"}}
    answer = {"verify_group": {"problems": ["DP rank 0 did not answer"]}, "run_tool": {"units": unit}}
    real = measured_group.MeasuredGroup(group.recipe, group.plan, group.settings, SimpleNamespace(), {})  # type: ignore[arg-type]
    assert list(real._problems("gpu0", answer)) == [
        "gpu0: DP rank 0 did not answer",
        f"gpu0: muster-k2-vllm.service runs plan ffff, not {group.plan.digest}",
    ]
