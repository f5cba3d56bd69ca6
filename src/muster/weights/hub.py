"""Ask a hub, ModelScope or a directory which files a revision has. Used by `muster pin`, on the control machine.

One documented request each, plus the small files whose SHA-256 a hub does not publish: the standard library is enough,
and the control machine needs none of huggingface_hub's dependencies. The downloads themselves use huggingface_hub.

Answers are models with bounds. What a listing may hold is judged where a pin is read: `spec.listing.parse`.
"""

from __future__ import annotations

import hashlib
import json
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from muster.errors import Refusal, literal
from muster.on_host import whole_files
from muster.on_host.bounded_http import Client
from muster.on_host.http_bounds import HttpError
from muster.on_host.transfer_store import is_commit
from muster.spec import listing as listings
from muster.spec.listing import Entry, Listing
from muster.weights import tokens

HUB, MODELSCOPE = "https://huggingface.co", "https://modelscope.cn"
METADATA_LIMIT, SMALL_FILE_LIMIT = 64 << 20, 64 << 20
"""Bytes of a revision's metadata, and of a file that is no large one; the hub takes 10 MB at most for such a file."""
_SECONDS = 30.0
_ALL_SECONDS = 1800.0
"""For one revision: a hub that answers every file slowly does not hold `muster pin` for ever."""

_Model = TypeVar("_Model", bound=BaseModel)


class _Lfs(BaseModel):
    sha256: str | None = None
    oid: str | None = None
    size: int | None = None


class _Sibling(BaseModel):
    rfilename: str
    size: int | None = None
    lfs: _Lfs | None = None


class _Revision(BaseModel):
    sha: str
    siblings: list[_Sibling]


class _ScopeCommitter(BaseModel):
    revision: str | None = Field(default=None, alias="Revision")


class _ScopeFile(BaseModel):
    path: str = Field(alias="Path")
    kind: str | None = Field(default=None, alias="Type")
    size: int = Field(default=-1, alias="Size")
    sha256: str = Field(default="", alias="Sha256")


class _ScopeData(BaseModel):
    files: list[_ScopeFile] = Field(alias="Files")
    committer: _ScopeCommitter | None = Field(default=None, alias="LatestCommitter")
    revision: str | None = Field(default=None, alias="Revision")


class _ScopeAnswer(BaseModel):
    data: _ScopeData = Field(alias="Data")


def from_hub(
    model: str, revision: str, *, endpoint: str | None = None, token: str | None = None, proxy: str | None = None
) -> Listing:
    """Return the files of a branch, tag or commit of a hub's model.

    Raises:
        Refusal: no such model or revision, no permission, no answer, or one that is no listing.
    """
    base = (endpoint or HUB).rstrip("/")
    asker = _Asker(base, token, proxy)
    where = f"{base}/api/models/{_quoted(model)}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true"
    answer = asker.model(where, _Revision)
    commit = answer.sha
    listings.check_commit(commit, where=asker.name)
    entries, config = [], None
    for file in answer.siblings:
        listings.check_path(file.rfilename, where=asker.name)
        sha256 = (file.lfs.sha256 or file.lfs.oid) if file.lfs else None
        if file.lfs and sha256:
            size = file.lfs.size if file.lfs.size is not None else file.size
            entries.append(Entry(file.rfilename, -1 if size is None else size, sha256))
        else:
            # The hub gives small files only git's name; reading them pins the code among them too.
            limit = SMALL_FILE_LIMIT if file.size is None else min(SMALL_FILE_LIMIT, max(0, file.size))
            body = asker.get(f"{base}/{_quoted(model)}/resolve/{commit}/{urllib.parse.quote(file.rfilename)}", limit)
            entries.append(Entry(file.rfilename, len(body), hashlib.sha256(body).hexdigest()))
            config = _config(body) if file.rfilename == listings.CONFIG else config
    return _checked(model, revision, commit, "hub", entries, asker.name, config)


def config_of(
    model: str, *, endpoint: str | None = None, token: str | None = None, proxy: str | None = None
) -> Mapping[str, Any]:
    """Return what the config.json of a hub's model holds on its main branch: to look, not to serve.

    Raises:
        Refusal: no such model or file, no permission, no answer, or one that is no config.json.
    """
    base = (endpoint or HUB).rstrip("/")
    asker = _Asker(base, token, proxy)
    commit = asker.model(f"{base}/api/models/{_quoted(model)}/revision/main", _Revision).sha
    listings.check_commit(commit, where=asker.name)
    config = _config(asker.get(f"{base}/{_quoted(model)}/resolve/{commit}/{listings.CONFIG}", listings.CONFIG_LIMIT))
    if config is None:
        raise Refusal(f"{asker.name} answered no config.json for {model}", needed="a JSON object", fix="give --config")
    return config


def from_modelscope(
    model: str, revision: str, *, endpoint: str | None = None, token: str | None = None, proxy: str | None = None
) -> Listing:
    """Return the files of a revision of a ModelScope model; raises as `from_hub`."""
    base = (endpoint or MODELSCOPE).rstrip("/")
    asker = _Asker(base, token, proxy)
    query = urllib.parse.urlencode({"Revision": revision, "Recursive": "true"})
    data = asker.model(f"{base}/api/v1/models/{_quoted(model)}/repo/files?{query}", _ScopeAnswer).data
    commit = (data.committer.revision if data.committer else None) or data.revision or revision
    entries = [Entry(file.path, file.size, file.sha256) for file in data.files if file.kind != "tree"]
    return _checked(model, revision, commit, "modelscope", entries, asker.name)


def from_directory(model: str, directory: Path, revision: str | None = None) -> Listing:
    """Return the files of a directory; without a commit the revision is a digest of the content.

    Raises:
        Refusal: it holds no file, or a file that cannot be read.
    """
    entries = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            try:
                entries.append(Entry(name, path.stat().st_size, whole_files.sha256(str(path))))
            except OSError as error:
                raise Refusal(f"{path} cannot be read: {error.strerror}", fix="make it readable") from None
    if not entries:
        raise Refusal(f"{directory} holds no file", needed="a model's directory", fix="name another directory")
    place = directory / listings.CONFIG
    small = place.is_file() and place.stat().st_size <= listings.CONFIG_LIMIT
    config = _config(place.read_bytes()) if small else None
    listing = Listing(model, revision or "0" * 40, str(directory), tuple(entries), config)
    return listing if revision else replace(listing, revision=listing.digest[:40])


def _config(body: bytes) -> Mapping[str, Any] | None:
    """Return what a config.json holds; None where it is larger than real ones, or none."""
    try:
        config = json.loads(body) if len(body) <= listings.CONFIG_LIMIT else None
    except (ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) and len(json.dumps(config)) <= listings.CONFIG_LIMIT else None


def _checked(
    model: str,
    asked: str,
    commit: str,
    origin: str,
    entries: list[Entry],
    name: str,
    config: Mapping[str, Any] | None = None,
) -> Listing:
    """Return a listing that the pin file's own reader accepts, of the commit that was asked for if it was one."""
    if is_commit(asked) and commit != asked:
        raise Refusal(
            f"{name} was asked for commit {asked} and answered {literal(commit)}",
            needed="the files of that commit",
            fix="find out who answers there, or use another endpoint",
        )
    listing = Listing(model, commit, origin, tuple(sorted(entries, key=lambda entry: entry.path)), config)
    return listings.parse(listing.as_data(), where=name)


def _quoted(model: str) -> str:
    return urllib.parse.quote(model, safe="/")


class _Asker:
    """Requests to one hub, with a token that goes there and nowhere else."""

    def __init__(self, base: str, token: str | None, proxy: str | None) -> None:
        self.name = urllib.parse.urlsplit(base).netloc.rpartition("@")[2] or literal(base)
        if token:
            tokens.check_goes_to(base, setting="--endpoint")
        self._credentials = f"Bearer {token}" if token else None
        self._client = Client(proxy=proxy, environment=True)
        self._until = time.monotonic() + _ALL_SECONDS

    def model(self, url: str, kind: type[_Model]) -> _Model:
        """Return an answer as a model.

        Raises:
            Refusal: no answer, or another one.
        """
        body = self.get(url, METADATA_LIMIT)
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            first: Any = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(each)[:40] for each in first["loc"][:6])
            raise Refusal(
                f"{self.name} answered something else than a revision's metadata: {place or 'all of it'}:"
                f" {first['msg'][:120]}",
                needed="the revision's metadata",
                fix="find out what answers there, or use another endpoint",
            ) from None

    def get(self, url: str, limit: int) -> bytes:
        """Return the body of an answer.

        Raises:
            Refusal: there is none, or a larger one.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise Refusal(
                f"{self.name} has taken {_ALL_SECONDS / 60:.0f} minutes for one revision",
                needed="the revision's metadata and its small files",
                fix="use another endpoint, or pin a directory with --from",
            )
        try:
            return self._client.get(url, limit=limit, seconds=min(_SECONDS, left), credentials=self._credentials).body
        except HttpError as error:
            path = urllib.parse.urlsplit(url).path
            if error.status is not None and error.status >= 400:
                raise Refusal(
                    f"{self.name} answered {error.status} for {path}",
                    needed="the revision's metadata",
                    fix=_FIXES.get(error.status, "try again, or set another endpoint"),
                ) from None
            raise Refusal(
                f"{self.name} does not answer for {path}: {error}",
                needed="the revision's metadata",
                fix="set --endpoint or --proxy, or pin on a machine that reaches the hub: the pin is a file",
            ) from None


_FIXES = {
    401: "give a token that may read it (--token-file), and accept the model's conditions at the hub",
    403: "accept the model's conditions at the hub with the account of this token",
    404: "correct model and revision; a private model answers so without a token",
    429: "wait, or give a token",
}
