"""Judging the engine by its counters: what is a stall, what is idle, and what is never held against it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.guard import liveness
from muster.guard.group_settings import Settings
from muster.guard.liveness import AllAnswered, Canary, CanaryBack, Sample, Scraped, Stall, Tick, Up

SETTINGS = Settings()


class Engine:
    """A liveness state that is driven through time, second by second, with what an engine would say."""

    def __init__(self, ranks: int = 2, *, pinned: bool = True) -> None:
        self.state = liveness.start(SETTINGS, range(ranks), pinned=pinned)
        self.now = 0.0
        self.actions: list[tuple[float, object]] = []

    def do(self, event: liveness.LivenessEvent) -> list[object]:
        self.state, actions = liveness.step(self.state, event, self.now)
        self.actions += [(self.now, action) for action in actions]
        return list(actions)

    def ready(self) -> Engine:
        self.do(Up())
        for rank in self.state.ranks:
            self.do(CanaryBack(rank, "answered"))
        return self

    def of(self, kind: type) -> list[tuple[float, object]]:
        return [(at, action) for at, action in self.actions if isinstance(action, kind)]


def sample(tokens: float, in_flight: float = 1.0) -> Sample:
    return Sample((tokens, in_flight), in_flight, tokens)


def test_nothing_is_asked_before_the_endpoint_is_up() -> None:
    engine = Engine()
    for engine.now in range(4000):
        assert engine.do(Tick()) == []


def test_ready_when_every_rank_has_answered() -> None:
    engine = Engine()
    assert engine.do(Up()) == [Canary(0), Canary(1)]
    assert engine.do(CanaryBack(1, "answered")) == []
    assert engine.do(CanaryBack(0, "answered")) == [AllAnswered()]
    assert liveness.fresh(engine.state, 59.0)
    assert not liveness.fresh(engine.state, 61.0)


def test_before_ready_a_failing_canary_is_only_tried_again() -> None:
    engine = Engine(1)
    engine.do(Up())
    for engine.now in range(1, 3000):
        engine.do(Tick())
        if engine.state.ranks[0].asked is not None and engine.now - engine.state.ranks[0].asked >= 60:
            engine.do(CanaryBack(0, "failed", "no answer in 60 s"))
    assert engine.of(Stall) == []
    assert len(engine.of(Canary)) > 40


def test_advancing_counters_are_health_and_need_no_canary() -> None:
    engine = Engine().ready()
    for engine.now in range(0, 3600, 5):
        engine.do(Scraped({0: sample(engine.now * 100.0), 1: sample(engine.now * 50.0)}))
        assert liveness.fresh(engine.state, engine.now)
    assert engine.of(Canary) == [(0.0, Canary(0)), (0.0, Canary(1))]
    assert [rank.tokens_per_s for rank in engine.state.ranks.values()] == [100.0, 50.0]


def test_work_in_flight_without_progress_is_a_stall_after_two_minutes() -> None:
    engine = Engine().ready()
    for engine.now in range(0, 600, 5):
        engine.do(Scraped({0: sample(engine.now * 100.0), 1: sample(7.0)}))
        if engine.of(Stall):
            break
    ((at, stall),) = engine.of(Stall)
    assert 120 < at <= 130
    assert stall == Stall(1, "DP rank 1 made no progress for 120 s with requests in flight")


def test_an_idle_dead_rank_is_found_by_a_canary_within_the_bound_under_load() -> None:
    engine = Engine().ready()
    for engine.now in range(600):
        engine.do(Scraped({0: sample(0, 0), 1: sample(0, 0)}))
        for number, rank in engine.state.ranks.items():
            if rank.asked is not None and (number == 0 or engine.now - rank.asked >= 60):
                engine.do(CanaryBack(number, "answered" if number == 0 else "failed", "no answer in 60 s"))
        if engine.of(Stall):
            break
    ((at, stall),) = engine.of(Stall)
    assert at <= 122
    assert stall == Stall(1, "DP rank 1 made no progress for 120 s and did not answer a canary: no answer in 60 s")


def test_a_lost_canary_is_forgotten_when_the_rank_goes_on() -> None:
    engine = Engine().ready()
    for engine.now in range(600):
        engine.do(Scraped({0: sample(engine.now, 0), 1: sample(engine.now // 100, 0)}))  # does something every 100 s
        asked = engine.state.ranks[1].asked
        if asked is not None and engine.now - asked >= 60:
            engine.do(CanaryBack(1, "failed", "no answer in 60 s"))
    assert engine.of(Stall) == []


def test_a_dead_endpoint_is_found_in_seconds_once_asked() -> None:
    engine = Engine(1).ready()
    for engine.now in range(60):
        engine.do(Tick())
        if engine.state.ranks[0].asked is not None:
            engine.do(CanaryBack(0, "failed", "connection refused"))
        if engine.of(Stall):
            break
    assert engine.of(Stall)[0][0] <= 40


@pytest.mark.parametrize("detail", ["HTTP 401", "HTTP 404", "HTTP 429"])
def test_a_refused_canary_never_restarts_but_is_no_proof(detail: str) -> None:
    engine = Engine(1).ready()
    for engine.now in range(3600):
        engine.do(Scraped({0: sample(0, 0)}))
        if engine.state.ranks[0].asked is not None:
            engine.do(CanaryBack(0, "refused", detail))
    assert engine.of(Stall) == []
    assert not liveness.fresh(engine.state, engine.now)
    assert engine.state.ranks[0].detail == detail


def test_a_canary_behind_a_burst_is_not_held_against_the_engine() -> None:
    """Asked while idle, then thousands of requests arrive: it times out, while tokens flow."""
    engine = Engine(1).ready()
    for engine.now in range(3600):
        busy = engine.now > 31
        engine.do(Scraped({0: sample(engine.now if busy else 0, 900 if busy else 0)}))
        rank = engine.state.ranks[0]
        if rank.asked is not None and engine.now - rank.asked >= 60:
            engine.do(CanaryBack(0, "failed", "no answer in 60 s"))
    assert engine.of(Stall) == []


def test_gauges_left_over_by_an_abandoned_request_do_not_restart() -> None:
    engine = Engine(1).ready()
    for engine.now in range(3600):
        engine.do(Scraped({0: sample(5, 1)}))
        if engine.state.ranks[0].asked is not None:
            engine.do(CanaryBack(0, "answered"))
    assert engine.of(Stall) == []


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3), st.booleans()), max_size=60))
def test_an_engine_that_answers_canaries_is_never_stalled(steps: list[tuple[float, int, bool]]) -> None:
    """Whatever the counters say, and whether they can be read or not."""
    engine = Engine(2).ready()
    for pause, in_flight, readable in steps:
        engine.now += pause
        engine.do(Scraped({rank: sample(0, in_flight) for rank in (0, 1)}) if readable else Tick())
        for number, rank in engine.state.ranks.items():
            if rank.asked is not None:
                engine.do(CanaryBack(number, "answered"))
    assert engine.of(Stall) == []


METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="kimi"} 3.0
vllm:num_requests_running{engine="1",model_name="kimi"} 0.0
vllm:num_requests_waiting{engine="0",model_name="kimi"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="kimi",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="kimi"} 0.25
vllm:generation_tokens_total{engine="0",model_name="kimi"} 1.5e+06
vllm:generation_tokens_total{engine="1",model_name="a,engine=\\"7\\""} 10.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="kimi"} 9.0
vllm:iteration_tokens_total_count{engine="0",model_name="kimi"} 900.0
vllm:prompt_tokens_total{engine="1",model_name="kimi"} not-a-number
vllm:prompt_tokens_total{engine="0"} NaN
vllm:prompt_tokens_total 5
"""


def test_without_pinned_canaries_a_hung_rank_is_found_by_its_counters() -> None:
    """Rank 0 answers all canaries but every third, which comes to rank 1 and hangs there."""
    engine, sent = Engine(pinned=False).ready(), 0
    came_to: dict[int, int] = {}
    for engine.now in range(900):
        answered = sum(rank == 0 for rank in came_to.values())
        engine.do(Scraped({0: sample(engine.now // 30 + answered, 0), 1: sample(0, 0)}))
        for number, rank in engine.state.ranks.items():
            if rank.asked == engine.now:
                sent += 1
                came_to[number] = 1 if sent % 3 == 0 else 0
            if rank.asked is not None and came_to[number] == 0:
                engine.do(CanaryBack(number, "answered"))
            elif rank.asked is not None and engine.now - rank.asked >= 60:
                engine.do(CanaryBack(number, "failed", "no answer in 60 s"))
        if engine.of(Stall):
            break
    ((at, stall),) = engine.of(Stall)
    assert at <= 420
    assert stall == Stall(1, "DP rank 1 made no progress for 120 s and did not answer a canary: no answer in 60 s")


def test_without_pinned_canaries_neither_a_stale_gauge_nor_an_idle_rank_restarts() -> None:
    """Every canary is answered, all by rank 0; rank 1 has a gauge left over by an abandoned request."""
    engine = Engine(pinned=False).ready()
    for engine.now in range(3600):
        engine.do(Scraped({0: sample(engine.now, 0), 1: sample(7, 1)}))
        for number, rank in engine.state.ranks.items():
            if rank.asked is not None:
                engine.do(CanaryBack(number, "answered"))
        assert liveness.fresh(engine.state, engine.now)
    assert engine.of(Stall) == []


def test_metrics_are_read_by_engine() -> None:
    assert liveness.parse(METRICS) == {
        0: Sample((900.0, 1.5e6, 0.0, 0.25, 3.0, 2.0), 5.0, 1.5e6),
        1: Sample((0.0, 10.0, 0.0, 0.0, 0.0, 0.0), 0.0, 10.0),
    }


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    liveness.parse(text)
    liveness.parse(f"vllm:num_requests_running{{{text}}} {text}")
