"""Operations by fixture: what each yields for what it is given, and that it says so when it yields nothing."""

from __future__ import annotations

from pathlib import Path

from pyinfra_testing.operations import make_operation_tests

CASES = Path(__file__).parent / "operations"

TestBase = make_operation_tests("muster.hosts", "operations.base_in_effect", CASES / "base_in_effect")
TestEngine = make_operation_tests("muster.hosts", "operations.engine_installed", CASES / "engine_installed")
TestAccepted = make_operation_tests(
    "muster.hosts", "operations.command_lines_accepted", CASES / "command_lines_accepted"
)
TestStaged = make_operation_tests("muster.hosts", "operations.files_staged", CASES / "files_staged")
TestCommitted = make_operation_tests("muster.hosts", "operations.files_committed", CASES / "files_committed")
TestCarriedOut = make_operation_tests("muster.hosts", "operations.carried_out", CASES / "carried_out")
TestHolds = make_operation_tests("muster.hosts", "operations.holds", CASES / "holds")


def test_every_operation_has_cases_and_every_case_is_run() -> None:
    from muster.hosts import operations

    defined = {name for name, value in vars(operations).items() if hasattr(value, "_inner")}
    assert {path.name for path in CASES.iterdir()} == defined
