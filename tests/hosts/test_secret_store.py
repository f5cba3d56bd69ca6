"""Secrets: one for the whole group, kept on the control machine, never in a plan."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.hosts.secret_store import choose_secret, open_store
from muster.on_host.whole_files import text_sha256
from muster.plan.types import Plan
from tests import sample_observations, sample_plans


@pytest.fixture
def plan() -> Plan:
    return sample_plans.plain("kimi-k2-instruct", 2, "H800")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_new_secret_is_written_only_when_it_is_about_to_be_sent(plan: Plan, state: Path) -> None:
    store = open_store(plan, sample_observations.fresh(plan))
    token = plan.secrets[0].path
    assert store.sha256[token] == text_sha256(store.texts[token])
    assert len(store.texts[token].strip()) == 64
    assert not state.exists()
    store.keep()
    kept = state / "muster" / plan.group / "ray-token"
    assert kept.read_text() == store.texts[token]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_the_next_run_finds_it_again(plan: Plan) -> None:
    first = open_store(plan, sample_observations.fresh(plan))
    first.keep()
    assert open_store(plan, sample_observations.fresh(plan)).sha256 == first.sha256


def test_what_all_hosts_agree_on_stays_although_this_machine_does_not_know_it(plan: Plan) -> None:
    store = open_store(plan, sample_observations.as_planned(plan))
    assert set(store.sha256.values()) == {sample_observations.SECRET}
    assert store.texts == {}
    assert store.made == []


def test_what_all_hosts_agree_on_stays_although_this_machine_has_kept_another(plan: Plan, state: Path) -> None:
    open_store(plan, sample_observations.fresh(plan)).keep()
    kept = {path: path.read_text() for path in (state / "muster" / plan.group).iterdir()}
    store = open_store(plan, sample_observations.as_planned(plan))
    assert set(store.sha256.values()) == {sample_observations.SECRET}
    assert store.texts == {}
    assert {path: path.read_text() for path in kept} == kept


def test_a_host_that_lacks_it_gets_what_this_machine_has_kept(plan: Plan) -> None:
    first = open_store(plan, sample_observations.fresh(plan))
    first.keep()
    seen = sample_observations.as_planned(plan)
    seen["h800-1"]["secrets"] = {}
    assert open_store(plan, seen).sha256 == first.sha256


def test_a_host_without_it_means_a_new_one_for_all(plan: Plan) -> None:
    seen = sample_observations.as_planned(plan)
    seen["h800-1"]["secrets"] = {}
    store = open_store(plan, seen)
    assert sample_observations.SECRET not in store.sha256.values()


def test_a_users_own_secret_comes_from_its_file(tmp_path: Path) -> None:
    key = tmp_path / "key.env"
    key.write_text("VLLM_API_KEY=sesame\n")
    plan = sample_plans.plain("kimi-k2-thinking", 1, "H200", api_key_file=str(key))
    store = open_store(plan, sample_observations.as_planned(plan))
    assert store.texts == {plan.secrets[0].path: "VLLM_API_KEY=sesame\n"}
    assert "sesame" not in repr(store)
    key.unlink()
    with pytest.raises(Refusal, match=r"key\.env"):
        open_store(plan, sample_observations.as_planned(plan))


sha = st.one_of(st.none(), st.sampled_from(["a", "b"]))


@given(st.one_of(st.none(), st.just("a")), st.dictionaries(st.sampled_from(["h0", "h1", "h2"]), sha, min_size=1))
def test_a_secret_ends_equal_on_all_hosts(stored: str | None, found: dict[str, str | None]) -> None:
    choice = choose_secret(stored, found)
    shared = len(set(found.values())) == 1 and None not in found.values()
    if shared and stored not in found.values():
        assert choice == "hosts"
    else:
        assert choice == ("new" if stored is None else "stored")
    assert choose_secret("a", found, given=True) == "stored"
