"""What an endpoint is asked, by the kind of its model: a path, a small request, and what a good answer holds. Pure.

The one judge of it: the guard's canary and, on the control machine, *verify*, `muster sandbox ask` and `muster bench`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COMPLETIONS = "completions"
"""What a model answers unless its recipe says otherwise."""

# Several tokens: a fresh CPU build's attention died of SIGILL at a prompt of one (0.32.0, AMX).
_TEXT = "1 2 3 4 5 6 7 8"


@dataclass(frozen=True)
class EndpointKind:
    """One kind.

    Args:
        path: of the API.
        request: a small request, without the model's name.
        text_key: key of `request` that takes a text of a person's choice.
        rows, holds: a good answer has a list `rows`, not empty, and its first row the key `holds`.
        by_rank: whether the engine sends a request to the DP rank that its header names; else it chooses one.
        bench: backend and path of `vllm bench serve`; None where that tool has none.
    """

    path: str
    request: Mapping[str, Any]
    text_key: str
    rows: str
    holds: str
    by_rank: bool = False
    bench: tuple[str, str] | None = None

    def body(self, model: str, text: str = "", **more: Any) -> dict[str, Any]:
        """Return the request to a model, about `text` where one is given."""
        return {"model": model, **self.request, **({self.text_key: text} if text else {}), **more}

    def question(self, model: str) -> dict[str, Any]:
        """Return all of it as data, for a program that travels to a host."""
        judged = {"rows": self.rows, "holds": self.holds, "by_rank": self.by_rank}
        return {"path": self.path, "body": self.body(model), **judged}

    def headers(self, rank: int) -> dict[str, str]:
        """Return the header that sends a request to a DP rank, as the endpoint counts them; none where it does not."""
        return {"X-data-parallel-rank": str(rank)} if self.by_rank else {}


_PAIR = {"query": _TEXT, "documents": [_TEXT]}

KINDS: Mapping[str, EndpointKind] = {
    # Several tokens out: the first comes from the prefill, and a rank that prefills and cannot decode must not pass.
    COMPLETIONS: EndpointKind(
        "/v1/completions",
        {"prompt": _TEXT, "max_tokens": 3, "ignore_eos": True, "temperature": 0},
        text_key="prompt",
        rows="choices",
        holds="text",
        by_rank=True,
        bench=("openai", "/v1/completions"),
    ),
    "embeddings": EndpointKind(
        "/v1/embeddings",
        {"input": _TEXT},
        text_key="input",
        rows="data",
        holds="embedding",
        bench=("openai-embeddings", "/v1/embeddings"),
    ),
    "pooling": EndpointKind(
        "/pooling", {"input": _TEXT}, text_key="input", rows="data", holds="data", bench=("vllm-pooling", "/pooling")
    ),
    "reranking": EndpointKind(
        "/v1/rerank",
        _PAIR,
        text_key="query",
        rows="results",
        holds="relevance_score",
        bench=("vllm-rerank", "/v1/rerank"),
    ),
    "scoring": EndpointKind(
        "/v1/score",
        {"text_1": _TEXT, "text_2": _TEXT},
        text_key="text_1",
        rows="data",
        holds="score",
        bench=("vllm-rerank", "/v1/rerank"),
    ),
    "classification": EndpointKind("/classify", {"input": _TEXT}, text_key="input", rows="data", holds="probs"),
}
