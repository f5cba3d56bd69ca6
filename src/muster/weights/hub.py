"""Ask a hub, ModelScope or a directory which files a revision has. Used by `muster pin`, on the control machine.

One documented request each, plus the small files whose SHA-256 a hub does not publish: the standard library is enough,
and the control machine needs none of huggingface_hub's dependencies. The downloads themselves use huggingface_hub.
"""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from muster.errors import Refusal
from muster.on_host import whole_files
from muster.spec.listing import Entry, Listing

HUB, MODELSCOPE = "https://huggingface.co", "https://modelscope.cn"
_SECONDS = 30


def from_hub(
    model: str, revision: str, *, endpoint: str | None = None, token: str | None = None, proxy: str | None = None
) -> Listing:
    """Return the files of a branch, tag or commit of a hub's model.

    Raises:
        Refusal: no such model or revision, no permission, or no answer.
    """
    base = (endpoint or HUB).rstrip("/")
    where = f"{base}/api/models/{_quoted(model)}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true"
    answer = json.loads(_get(where, token, proxy))
    commit = str(answer["sha"])
    entries = []
    for file in answer["siblings"]:
        name, large = str(file["rfilename"]), file.get("lfs") or {}
        if large.get("sha256") or large.get("oid"):
            sha256 = str(large.get("sha256") or large["oid"])
            entries.append(Entry(name, int(large.get("size") or file["size"]), sha256))
        else:
            # The hub gives small files only git's name; reading them pins the code among them too.
            body = _get(f"{base}/{_quoted(model)}/resolve/{commit}/{urllib.parse.quote(name)}", token, proxy)
            entries.append(Entry(name, len(body), hashlib.sha256(body).hexdigest()))
    return Listing(model, commit, "hub", tuple(sorted(entries, key=lambda entry: entry.path)))


def from_modelscope(
    model: str, revision: str, *, endpoint: str | None = None, token: str | None = None, proxy: str | None = None
) -> Listing:
    """Return the files of a revision of a ModelScope model; raises as `from_hub`."""
    base = f"{(endpoint or MODELSCOPE).rstrip('/')}/api/v1/models/{_quoted(model)}"
    query = urllib.parse.urlencode({"Revision": revision, "Recursive": "true"})
    data = json.loads(_get(f"{base}/repo/files?{query}", token, proxy))["Data"]
    commit = str(data.get("LatestCommitter", {}).get("Revision") or data.get("Revision") or revision)
    files = [file for file in data["Files"] if file.get("Type") != "tree"]
    entries = [Entry(str(file["Path"]), int(file["Size"]), str(file["Sha256"])) for file in files]
    return Listing(model, commit, "modelscope", tuple(sorted(entries, key=lambda entry: entry.path)))


def from_directory(model: str, directory: Path, revision: str | None = None) -> Listing:
    """Return the files of a directory; without a commit the revision is a digest of the content.

    Raises:
        Refusal: it holds no file.
    """
    entries = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            entries.append(Entry(name, path.stat().st_size, whole_files.sha256(str(path))))
    if not entries:
        raise Refusal(f"{directory} holds no file", needed="a model's directory", fix="name another directory")
    listing = Listing(model, revision or "0" * 40, str(directory), tuple(entries))
    return listing if revision else Listing(model, listing.digest[:40], str(directory), tuple(entries))


def _quoted(model: str) -> str:
    return urllib.parse.quote(model, safe="/")


class _Same(urllib.request.HTTPRedirectHandler):
    """A token goes to the host it was given for, and to no host that this one sends us to."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
            new.remove_header("Authorization")
        return new


def _get(url: str, token: str | None, proxy: str | None) -> bytes:
    handlers: list[urllib.request.BaseHandler] = [_Same()]
    if proxy:
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    place = urllib.parse.urlsplit(url)
    try:
        opener = urllib.request.build_opener(*handlers)
        with opener.open(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as reply:
            body: bytes = reply.read()
            return body
    except urllib.error.HTTPError as error:
        fixes = {
            401: "give a token that may read it (--token-file), and accept the model's conditions at the hub",
            403: "accept the model's conditions at the hub with the account of this token",
            404: "correct model and revision; a private model answers so without a token",
            429: "wait, or give a token",
        }
        raise Refusal(
            f"{place.netloc} answered {error.code} for {place.path}",
            needed="the revision's metadata",
            fix=fixes.get(error.code, "try again, or set another endpoint"),
        ) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Refusal(
            f"{place.netloc} does not answer: {reason}",
            needed="the revision's metadata",
            fix="set --endpoint or --proxy, or pin on a machine that reaches the hub: the pin is a file",
        ) from None
