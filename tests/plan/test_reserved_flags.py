"""What the plan decides is refused in every spelling that vLLM's parser takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.plan.reserved_flags import RESERVED, reserved_by
from tests import standin
from tests.sample_plans import plan

FLAGS = Path(standin.__file__).parent / "package" / "vllm" / "flags.txt"


def every_flag() -> list[list[str]]:
    """Return the names of every flag of `vllm serve` 0.32.0, as its own parser lists them."""
    lines = [line for line in FLAGS.read_text().splitlines() if line and not line.startswith("#")]
    return [line.split()[0].split(",") for line in lines]


def test_every_name_of_a_decided_flag_is_known_and_no_other_is() -> None:
    decided = {one.flag for one in RESERVED}
    for names in every_flag():
        for name in names:
            found = reserved_by(name)
            if names[0] in decided:
                assert found is not None, name
                assert found.flag == names[0], name
            else:
                assert found is None, f"{name} is taken for {found}"


@pytest.mark.parametrize(
    "words",
    [
        ["--tensor-parallel-size", "4"],
        ["--tensor_parallel_size=4"],
        ["--tensor-par", "4"],
        ["-tp", "4"],
        ["-tp4"],
        ["-tp=4"],
        ["--api-server-count", "1"],
        ["-asc", "1"],
        ["--data-parallel-hybrid-lb"],
        ["--no-data-parallel-hybrid-lb"],
        ["--data_parallel_external_lb"],
        ["-dpe"],
        ["--data-parallel-rank=0"],
        ["--host", "127.0.0.1"],
        ["--uds", "/run/x"],
        ["--ssl-certfile", "/etc/x.pem"],
        ["--served_model_name", "other"],
        ["--config", "/etc/x.yaml"],
        ["--headless"],
        ["--max-num-seqs", "8", "--nnodes=3"],
    ],
)
def test_it_is_refused_with_what_to_change_instead(words: list[str]) -> None:
    with pytest.raises(Refusal, match=r"(?s)extra_args holds -.*needed: .*fix: +change "):
        plan("kimi-k2-instruct", 2, "H200", extra_args=words)


@pytest.mark.parametrize("words", [["--config-format", "hf"], ["--seed", "-1"], ["-O3"], ["-q", "fp8"], ["-cc.mode=3"]])
def test_other_flags_pass(words: list[str]) -> None:
    plan("kimi-k2-instruct", 2, "H200", extra_args=words)
