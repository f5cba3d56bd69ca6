"""An engine's log lines and their times become phases per process, and the path that decided when it answered."""

from __future__ import annotations

from muster.bench import start_phases
from muster.bench.start_phases import Span, critical, spans

# The lines of a start of vLLM 0.33.0 on two H100s that end a phase, with whole seconds.
LINES = [
    (3.4, "W1126 14:01:35.338000 13637 torch/_opaque_base.py:6] torch._opaque_base is deprecated"),
    (10.0, "(MainProcess pid=10) INFO 11-26 14:01:42 [serve.py:127] Defaulting api_server_count to data_parallel_size"),
    (10.5, "(MainProcess pid=10) INFO 11-26 14:01:42 [kernel.py:480] Final IR op priority after setting platform"),
    (19.0, "(MainProcess pid=10) INFO 11-26 14:01:51 [utils.py:1279] Started DP Coordinator process (PID: 11)"),
    (29.0, "(EngineCore_DP0 pid=12) INFO 11-26 14:02:01 [core.py:139] Initializing a V1 LLM engine (v0.33.0) with"),
    (30.0, "(ApiServer_0 pid=13) INFO 11-26 14:02:02 [model.py:744] Resolved architecture: DeepseekV3ForCausalLM"),
    (40.0, "(Worker pid=14) INFO 11-26 14:02:12 [parallel_state.py:1929] world_size=2 rank=0 local_rank=0"),
    (
        41.0,
        "(Worker pid=14) INFO 11-26 14:02:13 [parallel_state.py:2385] rank 0 in world size 2 is assigned",
    ),
    (
        43.0,
        "(Worker_DP0_EP0 pid=14) INFO 11-26 [model_runner.py:428] Model loading took 4.86 GiB memory and 1.97 s",
    ),
    (44.0, "(Worker_DP0_EP0 pid=14) INFO 11-26 [monitor.py:62] [backbone] torch.compile took 0.19 s in total"),
    (45.0, "(Worker_DP0_EP0 pid=14) INFO 11-26 [monitor.py:91] [backbone] Initial profiling/warmup run took 0.69 s"),
    (
        50.0,
        "(Worker_DP0_EP0 pid=14) INFO 11-26 [model_runner.py:1163] Graph capturing finished in 5 secs, took 2.38 GiB",
    ),
    (
        51.0,
        "(EngineCore_DP0 pid=12) INFO 11-26 [core.py:405] init engine (profile, create kv cache, warmup model) took 7",
    ),
    (51.0, "(VLLM_DP_Coordinator pid=11) INFO 11-26 [coordinator.py:256] All engine subscriptions received"),
    (52.0, "(ApiServer_0 pid=13) INFO 11-26 [entry.py:135] Supported tasks: ['generate']"),
    (53.0, "INFO:     Application startup complete."),
    (53.0, "(ApiServer_0 pid=13) INFO 11-26 [entry.py:139] Starting vLLM server on http://0.0.0.0:8000"),
]
BORN = {10: 0.0, 11: 10.5, 12: 19.5, 13: 19.5, 14: 29.5}


def test_phases_of_a_start_by_process() -> None:
    made = spans([(when + 100, line) for when, line in LINES], began=100.0, born={p: t + 100 for p, t in BORN.items()})
    assert [span for span in made if span.pid == 14] == [
        Span("Worker_DP0_EP0", 14, phase, begin, end)
        for phase, begin, end in (
            (start_phases.IMPORTS, 29.5, 40.0),
            (start_phases.NCCL, 40.0, 41.0),
            (start_phases.WEIGHTS, 41.0, 43.0),
            (start_phases.COMPILE, 43.0, 44.0),
            (start_phases.PROFILING, 44.0, 45.0),
            (start_phases.GRAPHS, 45.0, 50.0),
        )
    ]
    assert [span.phase for span in made if span.pid == 11] == [start_phases.WAITING]
    assert {span.process for span in made} == {
        *("MainProcess", "VLLM_DP_Coordinator", "EngineCore_DP0", "ApiServer_0", "Worker_DP0_EP0")
    }
    for span in made:
        assert span.phase in start_phases.PHASES
        assert 0 <= span.begin < span.end


def test_what_decided_is_the_work_that_others_waited_for() -> None:
    decided = critical(spans(LINES, began=0.0, born=BORN, answered=54.5))
    assert decided[start_phases.IMPORTS] == 10 + 10 + 10.5  # of three processes, one after the other
    assert decided[start_phases.GRAPHS] == 5
    assert decided[start_phases.ANSWER] == 1.5
    assert sum(decided.values()) > 0.95 * 54.5


def test_no_lines_and_lines_of_nobody_are_no_start() -> None:
    assert spans([], began=0.0, born={}) == []
    assert spans([(1.0, "INFO: nobody said this"), (2.0, "(x pid=notanumber) hello")], began=0.0, born={}) == []
    assert critical([]) == {}
