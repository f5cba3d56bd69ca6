"""One request through each data parallel rank of the group that a sandbox serves: what its model answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from muster.errors import Refusal
from muster.guard.endpoint_kinds import COMPLETIONS, KINDS
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


def kind_of(manifests: str, model: str) -> str:
    """Return what a served model answers, by its name in the guard's `endpoint_kinds`.

    Args:
        manifests: the plan.json of every group on the head, one after the other.
        model: served name.
    """
    for manifest in _each_json(manifests):
        if isinstance(manifest, dict) and manifest.get("served_model_name") == model:
            kind = manifest.get("endpoint_kind", COMPLETIONS)
            return kind if kind in KINDS else COMPLETIONS
    return COMPLETIONS


def _each_json(text: str) -> Iterator[Any]:
    decoder, text = json.JSONDecoder(), text.lstrip()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            return
        yield value
        text = text[end:].lstrip()


def ask(base: str, model: str, rank: int, prompt: str, *, kind: str = COMPLETIONS) -> RankAnswer:
    """Send one request that this rank must answer, where requests of this kind are sent to ranks.

    Raises:
        Refusal: it did not within 2 minutes, or with an error.
    """
    path, body = _question(model, prompt, kind)
    answer = _request(f"{base}{path}", body, KINDS[kind].headers(rank))
    if kind != COMPLETIONS:
        return RankAnswer(rank, _in_words(KINDS[kind].holds, answer[KINDS[kind].rows][0][KINDS[kind].holds]))
    message = answer["choices"][0]["message"]
    # With a reasoning parser, an answer cut short may be all reasoning.
    return RankAnswer(rank, str(message.get("content") or message.get("reasoning") or "").strip())


def _question(model: str, prompt: str, kind: str) -> tuple[str, dict[str, Any]]:
    if kind != COMPLETIONS:
        return KINDS[kind].path, KINDS[kind].body(model, prompt)
    chat = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 24}
    return "/v1/chat/completions", chat


def _in_words(what: str, value: object) -> str:
    if isinstance(value, list):
        return f"{what} of {len(value)} numbers: {', '.join(str(each)[:8] for each in value[:4])}, ..."
    return f"{what} {value}"


def curl_line(base: str, model: str, rank: int = 0, *, kind: str = COMPLETIONS) -> str:
    """Return a command that asks the same from a shell."""
    path, body = _question(model, "Hello", kind)
    pinned = f"-H 'X-data-parallel-rank: {rank}' " if KINDS[kind].by_rank else ""
    return f"curl {base}{path} -H 'Content-Type: application/json' {pinned}-d '{json.dumps(body)}'"


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
