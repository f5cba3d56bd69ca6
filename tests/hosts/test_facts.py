"""The probe as a fact: its command holds nothing of the request, and an answer that is none is said to be none."""

from __future__ import annotations

from pathlib import Path

import pytest
from muster.hosts.facts import HostState, Program
from pyinfra.api.exceptions import FactProcessError
from pyinfra_testing.facts import make_fact_tests

TestHostState = make_fact_tests("muster.hosts", "facts.HostState", Path(__file__).parent / "facts" / "HostState")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (["bash: fork: no memory"], "no answer; its last line was: bash: fork"),
        (['{"no_python": "Python 3.6.8"}'], r"found Python 3\.6\.8"),
        (['{"probe_group": {"error": "disk on fire"}}'], "disk on fire"),
    ],
)
def test_no_answer_fails_for_this_host_alone(output: list[str], message: str) -> None:
    # pyinfra contains this error in its host; any other one would end the run for all.
    with pytest.raises(FactProcessError, match=message):
        HostState().process(output)


def test_a_program_is_printed_by_its_name() -> None:
    program = Program("print('sesame')", "the probe")
    assert f"{program} {program!s} {program!r}" == "<the probe> <the probe> <the probe>"
    assert list(program) == ["print('sesame')"]
