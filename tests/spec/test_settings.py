"""Settings: documented all, equal on all hosts, unknown ones refused with the nearest name."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.spec.host_data import same_on_all, settings_of
from muster.spec.settings import NAMES, Settings

ALL = Path(__file__).parents[2] / "group_data" / "all.py"


def documented() -> dict[str, object]:
    return {key: value for key, value in runpy.run_path(str(ALL)).items() if not key.startswith("__")}


def test_group_data_documents_every_setting_with_its_default() -> None:
    assert documented() == Settings().flat()


def test_every_setting_has_a_comment_above_it_or_its_neighbour() -> None:
    lines = ALL.read_text().splitlines()
    for key in NAMES:
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{key} = ")]
        above = at - 1
        while lines[above] and not lines[above].startswith("#"):
            above -= 1  # settings written under one comment
        assert lines[above].startswith("# "), f"{key} has no comment"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"max_modell_len": 1}, "did you mean 'max_model_len'"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization is 1.5"),
        ({"group": "A b"}, "units are named after it"),
        ({"revision": "main"}, "a branch or tag can move"),
        ({"vllm_version": ">=0.30"}, "one exact version"),
        ({"port": 70000}, "port is 70000"),
        ({"engine_path": "venv"}, "an absolute path"),
        ({"executor": "mpi"}, "'ray' or 'mp'"),
        ({"weights_port": 0}, "settings: weights_port is 0"),
        ({"weights_prot": 1}, "did you mean 'weights_port'"),
        ({"rdma": "on"}, "settings: rdma is 'on'"),
        ({"weights": {"port": 1}}, "unknown setting 'weights'"),
        ({"extra_args": ["--x", 1]}, "set 'extra_args'"),
    ],
)
def test_bad_values_are_refused_in_words(data: dict[str, object], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        settings_of(data)


def test_pyinfras_and_the_users_own_data_pass() -> None:
    data = {"ssh_user": "root", "_sudo": True, "x_rack": 3, "gpu": "H800", "gpus": 8, "fabric_address": "::1"}
    assert settings_of(data) == Settings()


def test_a_setting_that_differs_between_hosts_names_both() -> None:
    with pytest.raises(Refusal, match=r"'port' is 8000 on a\s+but 8001 on b"):
        same_on_all({"a": {"port": 8000}, "b": {"port": 8001}}, where="x")


def test_groups_are_read_by_name_and_written_flat() -> None:
    settings = settings_of({"weights_port": 1, "preflight_nccl": True, "rdma": "off", "gsm8k_path": "/q"})
    assert (settings.weights.port, settings.preflight.nccl, settings.preflight.rdma) == (1, True, "off")
    assert settings.evaluation.gsm8k_path == "/q"
    assert Settings(**settings.flat()) == settings
    assert settings.having(weights_port=2).weights.port == 2
    assert set(settings.flat()) == set(NAMES)
