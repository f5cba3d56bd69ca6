"""What hosts answer, as an attacker would: wrong types, depth, size, escape sequences, paths; for each host program.

Each answer goes through the real runner, as bytes from a channel, and then to the code that reads it. Nothing may end
in a traceback or hang, and nothing that a terminal obeys may be printed.
"""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import DeployError
from rich.console import Console

from muster.bench import engine_log, run_eval, run_scenarios
from muster.bench.measured_group import ToolResult
from muster.commands import logs as logs_command
from muster.commands import status as status_command
from muster.commands import weights as weights_command
from muster.deploys import deployed_group, prune, remove, verify
from muster.deploys.shared import guard_commands, polling
from muster.deploys.shared.progress import Progress
from muster.edge import key_records
from muster.errors import Refusal
from muster.hosts import answer_models, uv_binary
from muster.hosts.printable import one_line, printable, printable_data
from muster.hosts.run_programs import run_programs
from muster.plan import cold_load, plan_history
from muster.plan.restart_decision import decide
from muster.preflight import allreduce, meeting, outcome, pairs, read_report
from muster.preflight.deploy_checks import verdicts
from muster.preflight.table import render
from muster.spec.inventory import Fleet
from muster.spec.listing import Entry, Listing
from muster.spec.settings import Settings, Weights
from muster.status import host_events
from muster.status.failures import gather
from muster.status.group_status import group_status
from muster.weights import loader_requests, staging_roles, upload
from tests import sample_observations, sample_plans
from tests.hosts.fake_host import FakeChannel, fake_host
from tests.preflight import sample
from tests.status.test_host_events import KILLED
from tests.status.test_host_events import line as event_line

PLAN = sample_plans.plan("kimi-k2-instruct", 2, "H200", model="/srv/m", offline=True)
FLEET = Fleet("two", tuple(sample_plans.hosts(2, "H200")), Settings())
PLAIN = sample_plans.plain("kimi-k2-instruct", 2, "H200")
HEAD, OTHER = PLAN.hosts
SHA = "a" * 64
LISTING = Listing("org/model", "d" * 40, "hub", (Entry("a.safetensors", 100, "1" * 64),))
CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What no text from a host may bring to a terminal."""
COLOUR = re.compile("\x1b\\[[0-9;]*m")
"""What rich itself prints."""


# the answers, as honest hosts give them

RATE = {"one": 10**9, "all": 6 * 10**9, "readers": 8, "age": 60}
LOADERS = {
    "engine": "vllm-1",
    "ranks": "8-1-8-384-16-1",
    "age": 60,
    "loaders": {name: {"rate": 10**9, "peak": 5} for name in ("auto", "auto-cached", "instanttensor")},
}
GUARD_STATUS = {
    "rate": RATE,
    "loaders": LOADERS,
    "unit": {"active": "active", "sub": "running", "restarts": 1, "since": ""},
    "answer": {
        "host": HEAD,
        "ending": False,
        "detail": "vllm runs",
        "link_problem": "",
        "member": {"child": "running", "blocked": "", "head_heard": 1.0, "generation": "g"},
        "children": [{"name": "vllm", "load": {"read": 81.0, "model": 90.0}}],
        "group": {
            "phase": "running",
            "ready": True,
            "reason": "running",
            "generation": "ab" * 16,
            "loader": "instanttensor",
            "digest": "d1",
            "restarts": 2,
            "members": [{"host": name, "child": "running", "refused": "", "lacks": ""} for name in PLAN.hosts],
            "engines": [{"dp_rank": 0, "proof": 2.0, "tokens_per_s": 100.0, "strikes": 0, "detail": ""}],
            "failures": [{"host": OTHER, "reason": "killed", "process": "vllm", "lines": "one\ntwo", "age": 7.0}],
        },
    },
}
BUNDLES = {
    "answer": {
        "bundles": [
            {
                "generation": "g2",
                "wall": "2026-11-22T10:00:02Z",
                "reason": "killed",
                "first_here": {"reason": "killed", "process": "vllm"},
                "processes": [{"name": "vllm", "lines": "one\ntwo"}],
            }
        ]
    }
}
MANIFEST, OTHER_MANIFEST = (
    json.loads(host.files[f"/etc/muster/{PLAIN.group}/plan.json"].text) for host in PLAIN.hosts.values()
)
RUN_UNITS = {"done": True, "died": {}, "pending": "", "last": {}, "since": {"u.service": "i1"}, "host": "h"}
BENCH = {"num_prompts": 2, "completed": 2, "failed": 0, "duration": 1.0, "total_input_tokens": 3}


# who reads them


def read_observation(answer: Mapping[str, Any]) -> list[str]:
    observations = sample_observations.as_planned(PLAIN)
    observations[HEAD] = dict(answer)
    problems = verdicts(PLAIN, observations)
    if not problems:
        decision = decide(PLAIN, observations, {secret.path: SHA for secret in PLAIN.secrets})
        return [*decision.reasons, *(path for host in decision.hosts.values() for path in host.remove)]
    return [problem.found for problem in problems]


def read_groups(answer: Mapping[str, Any]) -> list[str]:
    manifests = {HEAD: answer["groups"], OTHER: {PLAIN.group: OTHER_MANIFEST}}
    group = deployed_group.choose(manifests, group=None, recipe=None)
    own = {host: groups[group] for host, groups in manifests.items() if group in groups}
    return [deployed_group.from_manifests(group, own, []).head]


def read_status(answer: Mapping[str, Any]) -> list[str]:
    console = Console(width=80, highlight=False, no_color=True)
    with console.capture() as captured:
        console.print(status_command.render(group_status(PLAN, {HEAD: answer, OTHER: answer})))
    return [captured.get()]


def read_bundles(answer: Mapping[str, Any]) -> list[str]:
    gathered = gather("g", "d", {"n1": answer}, 10)
    json.dumps(gathered.as_json())
    return [*(logs_command.failure_text(failure) for failure in gathered.failures), *gathered.silent.values()]


def read_probes(program: str) -> Callable[[Mapping[str, Any]], list[str]]:
    def read(answer: Mapping[str, Any]) -> list[str]:
        report = read_report.from_answers("h200-0", {**sample.answers(), program: answer}, 1.0, 2.0)
        found = outcome.judge_group("preflight", [report], {"h200-0": sample.needs()})
        console = Console(width=120, no_color=True)
        with console.capture() as captured:
            render(found, console)
        json.dumps(found.as_json())
        return [captured.get()]

    return read


def read_units(answer: Mapping[str, Any]) -> list[str]:
    return [answer["pending"], *answer["last"].values(), *(line for lines in answer["died"].values() for line in lines)]


def read_weights(answer: Mapping[str, Any]) -> list[str]:
    addresses, probes = {"n0": "198.51.100.1", "n1": "198.51.100.2"}, {"n0": answer, "n1": answer}
    lines = weights_command.status_lines(LISTING, probes, PLAN)
    keys = {"n0": {"n1": "k"}, "n1": {"n0": "k"}}
    staging = staging_roles.staging(addresses, probes, LISTING, Weights(source="hub"), keys, {"kind": "hub"})
    return [*lines, staging.text(LISTING), json.dumps(staging.requests)]


def read_loaders(answer: Mapping[str, Any]) -> list[str]:
    kept, choice = answer["loaders"], PLAN.loaders
    assert choice is not None
    loader_requests.of(FLEET, [PLAN], {"n0": answer, "n1": answer}, "/srv/m", SHA)
    lines = [choice.line(kept)] if kept else [str(answer.get("why"))]
    lines += [f"{name} is not taken: {why}" for name, why in answer.get("failed", {}).items()]
    return [*lines, choice.expected({"n0": kept, "n1": kept}), str(choice.seconds(kept, "instanttensor"))]


def read_rates(answer: Mapping[str, Any]) -> list[str]:
    rate = answer["rate"]
    lines = [cold_load.measured(PLAN.load, rate)] if rate else [str(answer.get("why"))]
    return [*lines, cold_load.slowest(PLAN.load, {"n0": rate, "n1": rate})]


def read_tool(answer: Mapping[str, Any]) -> list[str]:
    done = ToolResult(answer["status"], tuple(answer["lines"]), answer["result"])
    _, problems, raw = run_scenarios.outcome(done)
    scores, more, _ = run_eval.outcome(done)
    json.dumps(raw)
    return [*problems, *more, *(score.name for score in scores), *done.lines]


def read_log(answer: Mapping[str, Any]) -> list[str]:
    engine_log.parse(answer["lines"])
    return [*answer["gpus"], answer["driver"], *answer["units"]]


def read_pair(answer: Mapping[str, Any]) -> list[str]:
    pair = pairs.rounds(["n0", "n1"])[0][0]
    return [str(pairs.measured(pair, {"n0": answer, "n1": answer}))]


def read_meeting(answer: Mapping[str, Any]) -> list[str]:
    return [str(result) for result in meeting.results({"n0": answer, "n1": answer})]


def read_all_reduce(answer: Mapping[str, Any]) -> list[str]:
    return [verdict.found for verdict in allreduce.verdicts({"n0": allreduce.read(answer)}, [])]


@dataclass(frozen=True)
class Case:
    """One host program: a request, an honest answer, and who reads it."""

    program: str
    request: Mapping[str, Any]
    answer: Mapping[str, Any]
    read: Callable[[Mapping[str, Any]], list[str]]


OBSERVATION = sample_observations.as_planned(PLAIN)[HEAD]
ARGVS = {"argvs": [["vllm"]] * len(OBSERVATION["accepted"])}
CASES = {
    "probe_group": Case("probe_group", ARGVS, OBSERVATION, read_observation),
    "groups": Case("probe_group", ARGVS, {**OBSERVATION, "groups": {PLAIN.group: MANIFEST}}, read_groups),
    "guard status": Case("ask_guard", {"command": "status"}, GUARD_STATUS, read_status),
    "guard logs": Case("ask_guard", {"command": "logs"}, BUNDLES, read_bundles),
    "journal": Case(
        "read_journal",
        {"count": 5, "units": ["u"]},
        {"lines": [{"at": 0.0, "text": "one"}, {"at": 1.5, "text": "two"}], "cursor": "s=0;i=1"},
        lambda answer: [str(logs_command.print_journals({"n1": answer}))],
    ),
    "events": Case(
        "read_journal",
        {"count": 5, "units": [], **host_events.question(5)},
        {"lines": [event_line(1.5, KILLED)], "cursor": "s=0;i=1"},
        lambda answer: [str(event.as_json()) for event in host_events.merged({"n1": answer})],
    ),
    "guard stop": Case(
        "ask_guard",
        {"command": "stop"},
        {"unit": GUARD_STATUS["unit"], "answer": {"answer": "stopping"}},
        lambda answer: [str(answer["answer"].get("error", "")), str(answer["answer"].get("pending", ""))],
    ),
    "kept plans": Case(
        "kept_plans",
        {"do": "list"},
        {"plans": [sample_observations.kept(PLAIN)]},
        lambda a: [str(plan.as_json()) for plan in plan_history.history({HEAD: a["plans"]})],
    ),
    "restore plan": Case(
        "restore_plan",
        {"do": "check"},
        {"lacks": ["the engine /opt/e"], "notes": ["a key"], "units": ["u.service"], "manifest": MANIFEST,
         "verify": {"processes": [{"unit": "u.service", "argv": ["vllm", "serve"]}]}},
        lambda a: [*a["lacks"], *a["notes"], *a["units"], *(str(each["argv"]) for each in a["verify"]["processes"])],
    ),
    "place_services": Case(
        "place_services",
        {"do": "compare"},
        {"changed": ["/etc/prometheus/prometheus.yml"], "units": ["prometheus.service"]},
        lambda a: [*a["changed"], *a["units"]],
    ),
    "edge_keys": Case(
        "edge_keys",
        {"do": "read"},
        {
            "keys": {
                "1" * 64: {
                    "name": "team", "models": ["kimi-k2"], "rate": 600,
                    "concurrent": 0, "expires": 0, "made": 1, "revoked": 0,
                }
            },
            "current": True,
            "running": True,
            "notes": ["keys.json was torn"],
            "used": {"team": {"requests": 1, "in_flight": 0, "bytes_in": 2, "bytes_out": 3}},
            "models": ["kimi-k2"],
        },
        lambda a: [
            *(str(row) for row in key_records.rows(a["keys"], [a["used"]], 1)),
            *a["notes"],
            *a["models"],
        ],
    ),
    "edge_load": Case(
        "edge_load", {}, {"running": True, "asked": {"kimi-k2-bcd55e": 7}}, lambda a: [*a["asked"]]
    ),
    "drain_servers": Case(
        "drain_servers",
        {"do": "read", "servers": ["kimi/a"]},
        {"drained": ["kimi/a"], "up": ["kimi/a"], "alone": []},
        lambda a: a["drained"],
    ),
    "move_servers": Case(
        "move_servers",
        {"do": "read", "servers": {}},
        {"elsewhere": {"kimi/a": "198.51.100.1:8000, asked for /ready at 198.51.100.1:29600"}},
        lambda a: [*a["elsewhere"], *a["elsewhere"].values()],
    ),
    "reach_ports": Case(
        "reach_ports", {}, {"unreached": {"198.51.100.1:8000": "timed out"}}, lambda a: [*a["unreached"].values()]
    ),
    "place_files": Case("place_files", {}, {"changed": ["/etc/a"], "notes": ["no such key"]}, lambda a: a["notes"]),
    "removable": Case(
        "removable",
        {"groups": None},
        {"groups": {PLAIN.group: MANIFEST}, "going": ["g"], "paths": {"/etc/muster/g": 7},
         "kept": {"/data": ["a link", 3]}, "units": ["muster-g.service"], "user": True,
         "changes": {"g": {"locked": False, "holder": {}, "record": {}, "installed": "abc"}}},
        lambda answer: remove.plan_text({HEAD: answer}, everything=True),
    ),
    "remove_muster": Case(
        "remove_muster", {}, {"removed": ["/etc/a"], "notes": ["a note"]}, lambda answer: answer["notes"]
    ),
    "prune_releases": Case(
        "prune_releases",
        {},
        {"removed": {"vllm-1": 7}, "kept": {"vllm-2": "runs"}},
        lambda answer: [prune.in_words(answer)],
    ),
    "ask_parser": Case(
        "ask_parser",
        {},
        {"refused": [[["vllm", "serve"], "no such flag"]]},
        lambda answer: [f"{error} {' '.join(argv)}" for argv, error in answer["refused"]],
    ),
    "resolve_engine": Case(
        "resolve_engine",
        {},
        {"text": "lock-version", "sizes": {"a.whl": 3}},
        lambda answer: [answer["text"], *answer.get("sizes", {})],
    ),
    "run_units": Case("run_units", {}, RUN_UNITS, read_units),
    "verify_group": Case(
        "verify_group",
        {"ranks": 2},
        {"problems": [], "ranks": [0, 1], "served": ["kimi-k2"]},
        lambda a: [", ".join(a["served"]), *a["problems"], *map(str, a["ranks"])],
    ),
    "install_tool": Case(
        "install_tool", {}, {"installed": False, "machine": "x86_64"}, lambda a: [uv_binary.payload(a["machine"])[:9]]
    ),
    "weights probe": Case(
        "weights_on_disk",
        {"do": "probe"},
        {"complete": False, "good": 0, "wrong": {"a": "missing"}, "bytes": 1, "free": 10**12, "link": "",
         "revisions": {"r": 5}, "manifest": None, "extra": [], "rate": RATE, "loaders": LOADERS},
        read_weights,
    ),
    "read rate": Case("read_rate", {}, {"rate": RATE, "why": "the disk hangs"}, read_rates),
    "kept rate": Case("kept_rate", {}, {"rate": RATE}, read_rates),
    "loader rates": Case(
        "loader_rates",
        {},
        {"loaders": LOADERS, "failed": {"fastsafetensors": "is not installed"}, "why": ""},
        read_loaders,
    ),
    "kept loaders": Case("kept_loaders", {}, {"loaders": LOADERS}, read_loaders),
    "weights verify": Case(
        "weights_on_disk",
        {"do": "verify"},
        {"wrong": {"a": "other bytes"}, "extra": ["b"], "files": 2, "bytes": 7},
        lambda a: [*(f"{p}: {why}" for p, why in a["wrong"].items()), *a["extra"], f"{a['files']} {a['bytes'] / 1e9}"],
    ),
    "weights prune": Case(
        "weights_on_disk",
        {"do": "prune"},
        {"removed": {"r": 5}, "kept": {"s": "a unit names it"}, "free": 3},
        lambda a: [*a["removed"], *(f"{name} ({why})" for name, why in a["kept"].items())],
    ),
    "tool": Case(
        "run_tool",
        {"do": "poll"},
        {"running": False, "status": 0, "why": "", "lines": ["done"], "result": json.dumps(BENCH)},
        read_tool,
    ),
    "tool log": Case(
        "run_tool",
        {"do": "log"},
        {"units": {"u.service": {"active": "active", "digest": None}}, "lines": ["GPU KV cache size: 12 tokens"],
         "gpus": ["H200"], "driver": "580"},
        read_log,
    ),
    "measure_pair": Case(
        "measure_pair",
        {},
        {"packet": 9000, "round_trip": 0.001, "bits": 1e9, "ping": {"arrived": True, "complaint": ""}},
        read_pair,
    ),
    "meet_peers": Case(
        "meet_peers",
        {},
        {"peers": {"n1": {"packet": 9000, "ping": {"arrived": True}, "ports": [[40001, "low", "no"]]}}},
        read_meeting,
    ),
    "measure_allreduce": Case(
        "measure_allreduce", {}, {"ranks": 2, "seconds": 0.1, "bytes": 8, "log": " via NET/IB"}, read_all_reduce
    ),
    "unprivileged": Case(
        "run_unprivileged",
        {},
        {"measure_allreduce": {"ranks": 2, "seconds": 0.1, "bytes": 8, "log": " via NET/IB"}},
        lambda answer: [v.found for v in allreduce.verdicts({"n0": allreduce.read_inner(answer)}, [])],
    ),
    **{
        program: Case(program, {}, sample.answers()[program], read_probes(program))
        for program in ("probe_gpus", "probe_firewall", "probe_machine", "probe_engine")
    },
}  # fmt: skip


def through(case: Case, output: bytes) -> dict[str, Any]:
    """Let a host print bytes and return the answer of the runner."""
    state, host = fake_host(FakeChannel([output[at : at + 65536] for at in range(0, len(output), 65536)]))
    return run_programs(state, host, {case.program: case.request})[case.program]


def told(case: Case, answer: Any) -> list[str]:
    """Return what people see of an answer that a host gave."""
    line = json.dumps({case.program: answer}).encode(errors="replace") + b"\n"
    checked = through(case, b"Welcome\n" + line)
    if "error" in checked:
        assert checked["error"].strip()
        return [checked["error"]]
    try:
        return case.read(checked)
    except (Refusal, DeployError) as refusal:
        return [str(refusal)]


@pytest.mark.parametrize("name", CASES)
def test_an_honest_answer_passes_unchanged(name: str) -> None:
    case = CASES[name]
    answer = through(case, json.dumps({case.program: case.answer}).encode() + b"\n")
    assert "error" not in answer
    assert json.loads(json.dumps(answer)) == json.loads(json.dumps(case.answer))
    case.read(answer)


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


HOSTILE = [
    None, True, False, -1, 0, 7, 2**70, 0.5, float("inf"), float("nan"), "", "x", "5", "\x00", "\ud800", CLIPBOARD,
    "\x9b2J\x1b[2J\x1bc", "a\nb", "\u202eevil", "../../../etc/passwd", "/root/.ssh/id_ed25519", "x" * 200_000, [],
    [None], {}, {"error": 1}, {"error": ""}, {"error": CLIPBOARD}, {CLIPBOARD: CLIPBOARD}, deep(30), deep(900),
    [[]] * 1000, {"value": {"rc": "x", "text": 5}}, "9" * 5000,
]  # fmt: skip
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@st.composite
def spoilt(draw: st.DrawFn, answer: Any) -> Any:
    """Return an answer with one to three values replaced, removed or added."""
    spoiled = copy.deepcopy(answer)
    for _ in range(draw(st.integers(1, 3))):
        value = draw(st.sampled_from(HOSTILE) | JSONS)
        node = spoiled
        while isinstance(node, (dict, list)) and node:
            keys = sorted(node) if isinstance(node, dict) else range(len(node))
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(node[key], (dict, list)) or not node[key] or draw(st.integers(0, 3)) == 0:
                change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
                if change == "remove":
                    del node[key]
                elif change == "add" and isinstance(node, dict):
                    node[draw(st.sampled_from(["error", "answer", CLIPBOARD, "../x"]))] = copy.deepcopy(value)
                else:
                    node[key] = copy.deepcopy(value)
                break
            node = node[key]
        else:
            spoiled = copy.deepcopy(value)
    return spoiled


def attack(case: Case, examples: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Send spoilt answers; none may end in an exception or bring a control character."""

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(answer=spoilt(case.answer) | st.sampled_from(HOSTILE))
    def run(answer: Any) -> None:
        texts = told(case, answer)
        printed = capsys.readouterr()
        for text in (*texts, printed.out, printed.err):
            assert not OBEYED.search(COLOUR.sub("", text))

    run()


@pytest.mark.parametrize("name", CASES)
def test_40_hostile_answers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    attack(CASES[name], 40, capsys)


@pytest.mark.nightly
@pytest.mark.parametrize("name", CASES)
def test_1000_hostile_answers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    attack(CASES[name], 1000, capsys)


def test_every_program_that_answers_has_a_model_and_a_case() -> None:
    known = {*answer_models._BY_PROGRAM, *(program for program, _ in answer_models._BY_COMMAND)}
    assert {case.program for case in CASES.values()} == known
    source = Path(answer_models.__file__).parents[1]
    names = {path.stem for path in (source / "on_host").glob("*.py")}
    rooms = [path for path in source.rglob("*.py") if path.parent.name != "on_host" and path.name != "answer_models.py"]
    text = "".join(path.read_text() for path in rooms)
    asked = {name for name in names if f'"{name}"' in text}
    # Two stream lines, two are run by other programs, two by the host itself, one is talked to (`transaction`), and one
    # is a part of the probe.
    assert asked - known == {
        "install_engine",
        "transfer_stage",
        "transfer_hub",
        "return_change",
        "host_metrics",
        "measure_loaders",
        "hold_change",
        "startable",
    }


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"\xff\xfe\x00garbage\xc3\x28\n" * 10,
        b'{"probe_group": "\xff\xfe"}\n',
        b'{"probe_group": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        b'{"probe_group": ' + b"[" * 600 + b"]" * 600 + b"}\n",
        b'{"probe_group": [' + b"[]," * 3_000_000 + b"[]]}\n",
        b'{"probe_group": ' + b"9" * 10_000 + b"}\n",
        b'{"probe_group": 1e999}\n',
        b"[1]\n{1}\n",
        b'{"no_python": [[1]]}\n',
        b"{}\n",
        CLIPBOARD.encode() + b"\n",
    ],
)
def test_bytes_that_are_no_answer_are_an_error_in_words(output: bytes) -> None:
    began = time.process_time()
    answer = through(CASES["probe_group"], output)
    assert set(answer) == {"error"}
    assert answer["error"].strip()
    assert not OBEYED.search(answer["error"])
    assert len(answer["error"]) < 10_000
    assert time.process_time() - began < 10


def test_a_line_of_300_mb_is_cut_off_early() -> None:
    class Flood:
        pieces = 0

        def __iter__(self) -> Any:
            for _ in range(300 * 16):
                Flood.pieces += 1
                yield b"x" * 65536

    case, began = CASES["guard status"], time.process_time()
    state, host = fake_host(FakeChannel(Flood()))
    answer = run_programs(state, host, {case.program: case.request})[case.program]
    assert "printed more than 32 MiB" in answer["error"]
    assert Flood.pieces < 33 * 16
    assert time.process_time() - began < 10


# what one answer could do to the control machine, or to other hosts


def test_a_host_gets_no_file_that_is_not_in_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    secret = tmp_path / "id_ed25519"
    secret.write_text("PRIVATE")
    answer = {"missing": {str(secret): 0, "../id_ed25519": 0, "a.safetensors": 0}}
    sent: dict[str, bytearray] = {}

    class Channel:
        def __init__(self, path: str) -> None:
            self.data = sent.setdefault(path, bytearray())

        def sendall(self, piece: bytes) -> None:
            self.data += piece

        def shutdown_write(self) -> None:
            pass

        def recv_exit_status(self) -> int:
            return 0

        status_event = SimpleNamespace(wait=lambda _seconds: True)

    monkeypatch.setattr(upload, "_append", lambda _state, _host, path: Channel(path))
    state, host = fake_host(FakeChannel([json.dumps({"weights_on_disk": answer}).encode() + b"\n"]))
    assert upload.send(state, host, LISTING, "/srv/w", str(tmp_path))
    assert {path: bytes(data) for path, data in sent.items()} == {"/srv/w/a.safetensors.muster-wan": b"x" * 100}


def test_a_manifest_plans_no_command_for_another_host() -> None:
    check = {"host": OTHER, "kind": "command", "target": ["sh", "-c", "id >/owned"], "text": "x"}
    evil = {**MANIFEST, "steps": [{**step, "checks": [*step["checks"], check]} for step in MANIFEST["steps"]]}
    with pytest.raises(Refusal, match=f"{HEAD}: /etc/muster/.*/plan.json has checks for {OTHER}"):
        deployed_group.from_manifests(PLAIN.group, {HEAD: evil, OTHER: OTHER_MANIFEST}, [])


@pytest.mark.parametrize("group", ["../../tmp/x", "a/b", "", "-x", "a" * 200, "x\n"])
def test_a_group_of_a_hosts_own_naming_becomes_no_path(group: str) -> None:
    (text,) = told(CASES["groups"], {**OBSERVATION, "groups": {group: MANIFEST}})
    assert "probe_group answered in a form that it does not have: groups" in text


def test_a_bundle_names_no_file_of_the_control_machine() -> None:
    bundles = copy.deepcopy(BUNDLES)
    bundles["answer"]["bundles"][0]["wall"] = "../../../../tmp/owned"
    (text,) = told(CASES["guard logs"], bundles)
    assert "wall" in text


@pytest.mark.parametrize("machine", ["../../../tmp/x", "x86_64 --index-url=http://evil", "-x", "X"])
def test_a_machine_name_becomes_no_path_and_no_option(machine: str) -> None:
    (text,) = told(CASES["install_tool"], {"installed": False, "machine": machine})
    assert "machine" in text


def test_a_line_of_a_log_forges_no_line_of_another_host(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["fine\nnode9  owned", "b\x85node9  owned"]
    told(CASES["journal"], {"lines": [{"at": 0.0, "text": text} for text in texts]})
    assert all(line.startswith("1970-01-01T00:00:00Z  n1  ") for line in capsys.readouterr().out.splitlines())


def test_a_host_that_answers_at_once_is_not_asked_without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(polling.gevent, "sleep", lambda seconds=0: pauses.append(seconds))
    busy = json.dumps({"run_units": {**RUN_UNITS, "done": False, "pending": "u to stop"}}).encode() + b"\n"
    done = json.dumps({"run_units": RUN_UNITS}).encode() + b"\n"
    state, host = fake_host(FakeChannel([busy]), FakeChannel([busy]), FakeChannel([done]))
    assert polling.stop(state, host, ("u.service",), Progress(("n1",), (), 60))
    assert [round(seconds) for seconds in pauses if seconds] == [5, 10]


def test_a_deploy_names_the_host_whose_verification_is_no_answer() -> None:
    state, host = fake_host(FakeChannel([b'{"verify_group": {"problems": 5}}\n']))
    planned = PLAN.hosts[HEAD]
    assert verify.runs_as_planned(state, host, verify.request(PLAN, planned), planned.units) is False
    assert any("verify_group answered in a form" in line for line in host.printed)  # type: ignore[attr-defined]


def test_a_guard_that_answers_nonsense_ends_a_stop_with_words() -> None:
    state, host = fake_host(FakeChannel([b'{"ask_guard": {"answer": [1]}}\n']))
    assert guard_commands.end_generation(state, host, "g", "stop", "s", 0, ()) is False
    assert any("ask_guard answered in a form" in line for line in host.printed)  # type: ignore[attr-defined]


# the filter


@given(text=st.text(max_size=300) | st.text(alphabet="\x1b\x07\x9b\x9d\x90\x9c]P[0;?m\\a\r\n", max_size=80))
def test_a_printable_text_has_nothing_to_obey(text: str) -> None:
    clean = printable(text)
    assert not OBEYED.search(clean)
    assert printable(clean) == clean
    clean.encode()
    assert "\n" not in one_line(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a{CLIPBOARD}b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x1bc\x1b(Bx", "x"),
        ("never ended \x1b]52;c;AAAA", "never ended 52;c;AAAA"),
        ("50 %\r100 %", "50 % 100 %"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("ünï 中 🚀", "ünï 中 🚀"),
        ("\x00\x08", "\ufffd\ufffd"),
    ],
)
def test_what_is_left_of_a_text(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[", "\x9d" + "x" * 4096, "\x1bP0", "\x1b[" + "0" * 64, "\x1b"])
def test_the_filter_is_fast_on_what_is_made_to_be_slow(piece: str) -> None:
    def cpu_seconds(text: str) -> float:
        began = time.process_time()
        printable(text)
        return time.process_time() - began

    length = 4_000_000
    assert cpu_seconds(piece * (length // len(piece))) < 40 * cpu_seconds("x\n" * (length // 2))


def test_too_deep_and_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="levels deep"):
        printable_data(deep(30))
    with pytest.raises(ValueError, match="out of all bounds"):
        printable_data({"a": 2**70})


def test_a_log_is_printed_without_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    told(CASES["journal"], {"lines": [{"at": 0.0, "text": f"x{CLIPBOARD}y"}]})
    assert capsys.readouterr().out == "1970-01-01T00:00:00Z  n1  xy\n"
