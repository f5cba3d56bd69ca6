"""Fetch files of a hub's repository with huggingface_hub: run by a Python that has it, as a child process.

huggingface_hub handles addresses, tokens, redirects, back-off and errors. Its own download to a directory starts a file
over after being killed (2.x keeps no partial file), so its `http_get` is called with the offset where the file ended.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

_AT_ONCE = 4
"""Files that are fetched at once."""


def main(request: dict[str, Any]) -> None:
    """Fetch every file to its place; print one JSON line per file, or one with `error`.

    Args:
        request: `model`, `revision`, `endpoint` (or None), `token` (or None),
            `files` [{path, size, handle}], each open for writing already.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = {pool.submit(one, request, entry): entry["path"] for entry in request["files"]}
        for future in as_completed(waiting):
            try:
                future.result()
            except Exception as error:
                print(json.dumps({"error": explain(error, request, waiting[future])}), flush=True)
                os._exit(1)  # the other threads may be mid-download; their bytes stay for the next run
            print(json.dumps({"done": waiting[future]}), flush=True)


def one(request: dict[str, Any], entry: dict[str, Any]) -> None:
    """Fetch one file, continuing where it ends."""
    from huggingface_hub import hf_hub_url  # type: ignore[import-not-found]
    from huggingface_hub.file_download import http_get  # type: ignore[import-not-found]
    from huggingface_hub.utils import build_hf_headers  # type: ignore[import-not-found]

    url = hf_hub_url(request["model"], entry["path"], revision=request["revision"], endpoint=request["endpoint"])
    headers = {**build_hf_headers(token=request["token"] or False), "Accept-Encoding": "identity"}
    with os.fdopen(entry["handle"], "ab") as handle:
        handle.seek(0, os.SEEK_END)
        if handle.tell() > entry["size"]:
            handle.truncate(0)
            handle.seek(0)
        if handle.tell() < entry["size"]:
            http_get(url, handle, resume_size=handle.tell(), headers=headers, expected_size=entry["size"])


def explain(error: Exception, request: dict[str, Any], path: str) -> str:
    """Return what went wrong, where, and what to do."""
    where = request["endpoint"] or "the hub"
    repository = f"{request['model']} at {request['revision'][:12]}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        which = "the token given" if request["token"] else "no token"
        return (
            f"{where} refuses {path} of {repository} ({status}, with {which}); needed: a token that may read it;"
            " fix: accept the model's conditions at the hub and name a file with the token in weights_token_file"
        )
    if status == 404:
        return (
            f"{where} has no {path} of {repository} (404); needed: the pinned commit;"
            " fix: pin again (`muster pin`), for the history may have been rewritten, or set hf_endpoint"
        )
    if status == 429:
        return f"{where} limits the rate ({path}, 429) for longer than we waited; fix: run again later, or give a token"
    if status:
        return f"{where} answered {status} for {path} of {repository}; what has arrived is kept; fix: run again"
    text = str(error).strip().split("\n")[0]
    return (
        f"{where} does not deliver {path}: {type(error).__name__}: {text}; what has arrived is kept;"
        " fix: run again; see whether the seed reaches it (hf_endpoint, proxy)"
    )
