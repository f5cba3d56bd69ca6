"""What the real `openai` package gets through an edge: run by a Python that has it, in no process of the tests.

    python openai_client.py NAME ADDRESS CERTIFICATE KEY MODEL

NAME is the edge's in its certificate, and ADDRESS where it is. Prints what came of each kind of request, as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import openai  # type: ignore[import-not-found]

MESSAGES: Any = [{"role": "user", "content": "Hello"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "toggle",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": False,
        },
    },
}
CHOICE: Any = {"type": "function", "function": {"name": "toggle"}}


def refusal(ask: Callable[[], Any]) -> str:
    """Return the exception that a request ends with, its status and code."""
    try:
        ask()
    except openai.APIStatusError as error:
        return f"{type(error).__name__} {error.status_code} {error.code}"
    return "none"


def main(name: str, address: str, certificate: str, key: str, model: str) -> dict[str, Any]:
    resolve = socket.getaddrinfo

    def to_the_edge(host: Any, *more: Any, **others: Any) -> Any:
        return resolve(address if host in (name, name.encode()) else host, *more, **others)

    socket.getaddrinfo = to_the_edge
    http = openai.DefaultHttpxClient(verify=certificate, timeout=300)
    url = f"https://{name}/v1"
    client = openai.OpenAI(base_url=url, api_key=key, http_client=http, max_retries=0)
    stranger = openai.OpenAI(base_url=url, api_key="sk-wrong", http_client=http, max_retries=0)
    chat = client.chat.completions
    whole = chat.create(model=model, messages=MESSAGES, max_tokens=4, extra_body={"ignore_eos": True})
    chunks = list(
        chat.create(
            model=model,
            messages=MESSAGES,
            max_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
    )
    called = chat.create(model=model, messages=MESSAGES, max_tokens=200, tools=[TOOL], tool_choice=CHOICE)
    (call,) = called.choices[0].message.tool_calls
    return {
        "version": openai.__version__,
        "models": [each.id for each in client.models.list()],
        "whole": [whole.model, whole.choices[0].finish_reason, whole.usage.completion_tokens],
        "streamed": [[each.usage.completion_tokens for each in chunks if each.usage], len(chunks) > 1],
        "called": [call.function.name, len(call.function.arguments) > 0],
        "wrong key": refusal(lambda: stranger.models.list()),
        "wrong key to a model": refusal(lambda: stranger.chat.completions.create(model=model, messages=MESSAGES)),
        "no such model": refusal(lambda: chat.create(model="other", messages=MESSAGES)),
        "no such path": refusal(lambda: client.images.generate(model=model, prompt="a cat")),
        "what the engine refuses": refusal(lambda: chat.create(model=model, messages=MESSAGES, max_tokens=10**6)),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
