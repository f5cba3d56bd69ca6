"""Holds an answer against the model of its program and against its request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from muster.hosts.answer_models import Json, model_of
from muster.hosts.printable import one_line

_ERROR_LIMIT = 8000
_FIX = "look at this host: its python3, its login shell, or somebody else answers in its place"


def checked(program: str, request: Json, answer: Any) -> dict[str, Any]:
    """Return an answer as far as it has the right form.

    Args:
        program: that answered.
        request: what it was given.
        answer: JSON data, printable.

    Returns:
        The answer; `{"error": text}` as the program sent it, or where the form is wrong.
    """
    if isinstance(answer, Mapping) and "error" in answer:
        if not isinstance(answer["error"], str):
            return {"error": f"{program} answered with an error that is no text; {_FIX}"}
        return {"error": answer["error"][:_ERROR_LIMIT].strip() or f"{program} failed without a word"}
    try:
        model = model_of(program, request).model_validate(answer)
        _agrees(program, request, answer)
    except (ValidationError, ValueError) as error:
        return {"error": f"{program} answered in a form that it does not have: {_words(error)}; {_FIX}"}
    return model.model_dump(exclude_unset=True)


def _agrees(program: str, request: Json, answer: Json) -> None:
    """Hold an answer against its request.

    Raises:
        ValueError: it does not fit.
    """
    if program == "probe_group" and len(answer["accepted"]) != len(request.get("argvs", ())):
        raise ValueError(f"accepted: {len(answer['accepted'])} command lines, not {len(request.get('argvs', ()))}")
    if program == "verify_group" and len(answer["ranks"]) > int(request.get("ranks", 0)):
        raise ValueError(f"ranks: {len(answer['ranks'])}, not {request.get('ranks', 0)}")
    if program == "read_journal" and len(answer["lines"]) > int(request["count"]):
        raise ValueError(f"lines: {len(answer['lines'])} lines, more than were asked for")


def _words(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(one_line(str(part), 60) for part in first["loc"]) or "the answer"
    return f"{place}: {one_line(first['msg'], 200)}"
