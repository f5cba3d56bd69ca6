"""Commands over a group whose guards are not there: their answers are a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from muster.cli import main
from tests.status.test_group_status import PLAN, answers


class GivenGuards:
    """In the place of `Guards`: asks nobody, and returns the answers it was given."""

    plan = PLAN
    digests = ()

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[dict[str, Any]] = [answers()]

    def be_brief(self, seconds: float, pause: float) -> None:
        """There is nobody to wait for."""

    def journals(self, requests: dict[str, Any]) -> dict[str, Any]:
        return self.ask("journals", **requests)

    def ask(self, command: str, **more: Any) -> dict[str, Any]:
        self.asked.append((command, more))
        reply = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(reply, BaseException):
            raise reply
        return reply


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> GivenGuards:
    there = GivenGuards()

    @contextmanager
    def guards_of(*_: object) -> Iterator[GivenGuards]:
        yield there

    monkeypatch.setattr("muster.status.ask_guards.guards_of", guards_of)
    monkeypatch.setenv("COLUMNS", "80")
    return there


def muster(*words: str) -> Result:
    return CliRunner().invoke(main, words)
