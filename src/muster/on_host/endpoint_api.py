"""The OpenAI-compatible API of a group, asked on its own host: served names, an answer by rank, tool calls."""

from __future__ import annotations

import json
from typing import Any

from muster.on_host import api_key
from muster.on_host.bounded_http import Answer, Client
from muster.on_host.http_bounds import HttpError

Json = dict[str, Any]

_LARGEST_ANSWER = 4 << 20
_TOOL = {
    "type": "function",
    "function": {"name": "clock", "description": "Tell the time.", "parameters": {"type": "object", "properties": {}}},
}


class Api:
    """One API, asked without a proxy."""

    def __init__(self, url: str, seconds: float, key_file: str | None) -> None:
        self.url, self.seconds = url, seconds
        self.client = Client(redirects=0)
        self.headers = {"Content-Type": "application/json"}
        self.credentials = "Bearer " + api_key.read(key_file) if key_file else None

    def ask(self, path: str, body: Json | None = None, headers: Json | None = None) -> tuple[Json, str]:
        """Return (answer, error): the JSON object of a 200, or the status with the start of the body."""
        data = json.dumps(body).encode() if body is not None else None
        try:
            reply = self._send(path, data, {**self.headers, **(headers or {})}, self.credentials)
            answer = json.loads(reply.body)
        except HttpError as error:
            return {}, str(error) if error.status else f"{error} (asked for at most {self.seconds} s)"
        except (ValueError, RecursionError):
            answer = None
        return (answer, "") if isinstance(answer, dict) else ({}, "an answer that is no JSON object")

    def without_key(self) -> str:
        """Return "" when requests without the key are refused, as they must be, else which one got what.

        vLLM itself guards /v1 alone; /metrics is among the paths that `require_api_key` guards.
        """
        for path in ("/v1/models", "/metrics"):
            try:
                return f"{path} without the API key got HTTP {self._send(path, None, {}, None).status}"
            except HttpError as error:
                if error.status != 401:
                    return f"{path} without the API key got {error}"
        return ""

    def _send(self, path: str, body: bytes | None, headers: Json, credentials: str | None) -> Answer:
        return self.client.get(
            self.url + path,
            limit=_LARGEST_ANSWER,
            seconds=self.seconds,
            headers=headers,
            credentials=credentials,
            method="GET" if body is None else "POST",
            body=body,
        )

    def models(self) -> list[str]:
        """Return the served model names."""
        rows = self.ask("/v1/models")[0].get("data")
        return [str(row.get("id")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def answer(self, question: Json, rank: int) -> str:
        """Return "" when a DP rank answers as a model of this kind does, else the error.

        Args:
            question: `path`, `body`, `rows` and `holds` of a good answer, and whether a header names the rank.
            rank: as this endpoint counts.
        """
        headers = {"X-data-parallel-rank": str(rank)} if question["by_rank"] else {}
        answer, error = self.ask(question["path"], question["body"], headers)
        rows = answer.get(question["rows"])
        if error or (isinstance(rows, list) and rows and isinstance(rows[0], dict) and question["holds"] in rows[0]):
            return error
        return "an answer without {}".format(question["rows"])

    def tool_call(self, model: str) -> str:
        """Return "" when a request with tool_choice=auto is accepted, else the error."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "What time is it?"}],
            "tools": [_TOOL],
            "tool_choice": "auto",
            "max_tokens": 1,
        }
        return self.ask("/v1/chat/completions", body)[1]
