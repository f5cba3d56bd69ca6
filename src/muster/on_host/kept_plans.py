"""The last plans of a group that were verified on this host: kept whole, so that one of them can be put back.

They lie in /etc/muster/GROUP/kept, which root alone reads and writes: nobody else could have put a plan there. A plan
holds the text of its files and the SHA-256 of its secrets, never a secret itself: a key that was rotated away is gone.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from muster.on_host import places, safe_paths, whole_files

Json = dict[str, Any]

KEEP = 5
"""Plans kept of each group."""
FORM = 1
"""Of a kept plan, in its `version`: another muster may start and verify plans by other words than these."""
LIMIT = 8 << 20
"""Bytes of one kept plan."""
WHOLE = ("files", "verify", "settings")
"""What a list leaves out."""
_NAME = re.compile(r"([0-9a-f]{8,64})\.json")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def main(request: Json) -> Json:
    """Keep a plan, or return what is kept.

    Args:
        request: `do`: `keep` (the object `plan`, with `digest`, `number` and `files` {path: {sha256, mode, owner,
            group}}, whose text is read here), `renew` (the one of `digest`, with what `plan` says now), `list`, or
            `read` (the one of `digest`); `group`, its name; `root` (tests): where the file system begins.

    Returns:
        `keep`, `renew`: {kept: [digest], removed: [digest]}; `list`: {plans: [plan without files]}; `read`:
        {plan}, the guard's program without its text, which its directory is named for.

    Raises:
        OSError: a file is not as planned, the plan is too large, is not kept here, or cannot be written.
    """
    root, group = request.get("root", ""), request["group"]
    if request["do"] == "keep":
        return keep(root, group, request["plan"])
    if request["do"] == "renew":
        return write(root, group, {**read(root, group, request["digest"]), **request["plan"]})
    if request["do"] == "read":
        plan = read(root, group, request["digest"])
        return {"plan": {**plan, "files": {path: _shown(path, file) for path, file in plan["files"].items()}}}
    return {"plans": headers(root, group)}


def _shown(path: str, file: Json) -> Json:
    return {**file, "text": ""} if "/guard/" in path else file


def directory(root: str, group: str) -> str:
    """Return the directory of a group's kept plans.

    Raises:
        OSError: no name of a group.
    """
    if not _GROUP.fullmatch(group):
        raise OSError(f"{group!r} is no name of a group")
    return f"{root}{places.config(group)}/kept"


def keep(root: str, group: str, plan: Json) -> Json:
    """Keep a plan with the text of its files as they are on this host."""
    if not _NAME.fullmatch(f"{plan['digest']}.json"):
        raise OSError("{!r} is no digest of a plan".format(plan["digest"]))
    files = {path: {**file, "text": _text(root, path, file["sha256"])} for path, file in plan["files"].items()}
    return write(root, group, {**plan, "files": files})


def write(root: str, group: str, plan: Json) -> Json:
    """Write a plan, then remove those beyond the newest KEEP; one of the same digest is replaced."""
    place, data = directory(root, group), json.dumps(plan).encode()
    if len(data) > LIMIT:
        raise OSError(f"plan {plan['digest']} has {len(data)} bytes; kept are at most {LIMIT}")
    safe_paths.make_private(place, 0o700)
    whole_files.write_whole(f"{place}/{plan['digest']}.json", data, 0o600)
    newest = [header["digest"] for header in headers(root, group)]
    for digest in newest[KEEP:]:
        safe_paths.remove_file(f"{place}/{digest}.json")
    return {"kept": newest[:KEEP], "removed": newest[KEEP:]}


def _text(root: str, path: str, sha256: str) -> str:
    """Return the text of a planned file, as it is on this host."""
    text = safe_paths.read_bounded(root + path, LIMIT).decode()
    if whole_files.text_sha256(text) != sha256:
        raise OSError(f"{path} has changed since it was verified; the plan is not kept; run the deploy again")
    return text


def headers(root: str, group: str) -> list[Json]:
    """Return what is kept, newest first, each plan without its files."""
    plans = [
        {key: value for key, value in plan.items() if key not in WHOLE}
        for digest in _digests(root, group)
        if (plan := _plan(root, group, digest))
    ]
    return sorted(plans, key=lambda plan: plan["number"], reverse=True)


def read(root: str, group: str, digest: str) -> Json:
    """Return a kept plan.

    Raises:
        OSError: it is not kept here, or is broken.
    """
    plan = _plan(root, group, digest) if digest in _digests(root, group) else {}
    if not plan:
        raise OSError(f"plan {digest} of group {group} is not kept on this host, or its file is broken")
    return plan


def _digests(root: str, group: str) -> list[str]:
    place = directory(root, group)
    if not safe_paths.private(place):
        return []
    return [match.group(1) for name in sorted(os.listdir(place)) if (match := _NAME.fullmatch(name))]


def _plan(root: str, group: str, digest: str) -> Json:
    """Return a kept plan; an empty object where it is broken."""
    plan = whole_files.read_object(f"{directory(root, group)}/{digest}.json", LIMIT)
    sound = plan.get("digest") == digest and isinstance(plan.get("number"), int) and isinstance(plan.get("files"), dict)
    return plan if sound else {}
