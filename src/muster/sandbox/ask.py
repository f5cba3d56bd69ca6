"""One chat completion through each data parallel rank of the group that a sandbox serves."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from muster.errors import Refusal
from muster.sandbox.state_file import Host

PORT = 8000
_SECONDS = 120.0


@dataclass(frozen=True)
class RankAnswer:
    """The answer of one rank."""

    rank: int
    text: str


def endpoint(hosts: Iterable[Host], port: int = PORT) -> str:
    """Return the address of the group's head, which is the first host."""
    return f"http://{next(iter(hosts)).address}:{port}"


def served_model(base: str) -> str:
    """Return the served model name.

    Raises:
        Refusal: nothing answers there.
    """
    models = _request(f"{base}/v1/models")
    return str(models["data"][0]["id"])


def ask(base: str, model: str, rank: int, prompt: str, *, max_tokens: int = 24) -> RankAnswer:
    """Send one chat completion that this rank must answer.

    Raises:
        Refusal: it did not within 2 minutes, or with an error.
    """
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
    answer = _request(f"{base}/v1/chat/completions", body, {"X-data-parallel-rank": str(rank)})
    message = answer["choices"][0]["message"]
    # With a reasoning parser, an answer cut short may be all reasoning.
    return RankAnswer(rank, str(message.get("content") or message.get("reasoning") or "").strip())


def curl_line(base: str, model: str, rank: int = 0) -> str:
    """Return a command that asks the same from a shell."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24})
    return (
        f"curl {base}/v1/chat/completions -H 'Content-Type: application/json' "
        f"-H 'X-data-parallel-rank: {rank}' -d '{body}'"
    )


def _request(url: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    # The hosts are on this machine: no proxy leads to them.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")[:500]
        raise Refusal(f"{url} answered {error.code}", detail=text) from None
    except (OSError, ValueError) as error:
        raise Refusal(
            f"{url} does not answer ({error})",
            needed="a deployed group on the sandbox",
            fix="pyinfra -y inventories/sandbox.py deploys/kimi_k2_instruct.py",
        ) from None
