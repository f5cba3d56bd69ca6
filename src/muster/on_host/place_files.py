"""Put planned files onto this host: stage all of them beside their places, then rename them all."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from typing import Any

from muster.on_host import change_record, host_before, places, run_command, safe_paths, systemd_units, whole_files

Json = dict[str, Any]

# The tool that makes a file in each of these directories take effect without a reboot.
_ACTIVATE = (
    ("/etc/sysusers.d/", ["systemd-sysusers"]),
    ("/etc/tmpfiles.d/", ["systemd-tmpfiles", "--create"]),
    ("/etc/sysctl.d/", ["/usr/lib/systemd/systemd-sysctl"]),
)


def main(request: Json) -> Json:
    """Do one step of placing files and return {changed: [path], notes: [text]}.

    Args:
        request: `do`: `base` (write and apply: users, directories, limits), `stage` (write beside the final
            places; nothing is active yet) or `commit` (rename, remove, reload, enable).
            `files` [{path, text, sha256, mode, owner, group}]; `commit` needs no text. `remove` [path],
            `reload` (whether systemd is behind the units' files), `enable` [unit], `fence` (the change this is a step
            of), `root` (tests; then no systemd tool is run).

    Raises:
        OSError: nothing was renamed yet unless the message says so.
    """
    parts = {"base": base, "stage": stage, "commit": commit}
    return parts[request["do"]](request, request.get("root", ""))


def base(request: Json, root: str) -> Json:
    """Write and apply the files that define users, directories and kernel settings; a refused sysctl is only a note."""
    notes = []
    for item in request["files"]:
        if item["path"].startswith("/etc/tmpfiles.d/"):
            refuse_foreign(item["text"], root)
    for item in request["files"]:
        host_before.keep(item, root)
        safe_paths.make_directory(os.path.dirname(root + item["path"]))
        try:
            whole_files.write_whole(root + item["path"], item["text"].encode(), int(item["mode"], 8), *_owners(item))
        except OSError as error:
            raise OSError("could not write {}: {}".format(item["path"], error)) from None
        for directory, tool in _ACTIVATE:
            if item["path"].startswith(directory) and not root:
                status, output = run_command.run([*tool, item["path"]], 60)
                if status and "sysctl" not in tool[0]:
                    raise OSError(f"`{tool[0]} {item['path']}` ended with {status}: {output.strip()}")
                notes += [line for line in output.splitlines() if status and line.strip()]
    if not root:
        apply_firewall([item["path"] for item in request["files"]])
    return {"changed": [item["path"] for item in request["files"]], "notes": notes}


def apply_firewall(paths: list[str]) -> None:
    """Let a changed firewall take effect where a group runs behind it; where none does, its ranks will start it.

    Raises:
        OSError: the kernel does not take the ruleset.
    """
    if any(path.startswith(places.UNITS + "/") for path in paths):
        systemd_units.daemon_reload()
    for path in paths:
        if path.endswith("/firewall.nft"):
            group = os.path.basename(os.path.dirname(path))
            run_command.must(["nft", "--check", "--file", path], 60)
            run_command.must(["systemctl", "try-reload-or-restart", f"muster-firewall@{group}.service"], 60)


def refuse_foreign(text: str, root: str) -> None:
    """Refuse directories that tmpfiles would take from their owner.

    A user's directory is one that is not there yet, or that belongs to this user already: root gives nothing away that
    holds the files of others.

    Raises:
        OSError: the first such directory, with its owner.
    """
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5 or fields[0] != "d" or fields[3] == "root":
            continue
        path, user = fields[1], fields[3]
        try:
            entry = os.lstat(root + path)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(entry.st_mode) or entry.st_uid != _uid(user):
            kind = f"belongs to uid {entry.st_uid}" if stat.S_ISDIR(entry.st_mode) else "is no directory"
            raise OSError(
                f"{path} {kind}; needed: a directory that belongs to {user}, or a path where nothing is; fix: name "
                f"another hf_home, or give the directory to {user} yourself (chown {user}: {path}); nothing on this "
                "host was changed"
            )


def _uid(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return -1


def stage(request: Json, root: str) -> Json:
    """Write every file beside its place; on any failure remove them all."""
    written, place = [], ""
    try:
        for item in request["files"]:
            place = item["path"]
            safe_paths.make_directory(os.path.dirname(root + item["path"]))
            written.append(staged(root, item))
            whole_files.write_synced(written[-1], item["text"].encode(), int(item["mode"], 8), *_owners(item))
    except BaseException as error:
        for path in written:
            with contextlib.suppress(OSError):
                safe_paths.remove_file(path)
        if not isinstance(error, OSError):
            raise
        raise OSError(f"could not write {place}: {error}; nothing on this host was changed") from None
    return {"changed": [item["path"] for item in request["files"]], "notes": []}


def commit(request: Json, root: str) -> Json:
    """Rename the staged files, remove those no plan names any more, then reload systemd once."""
    change_record.require(request.get("fence"), root)
    files = request["files"]
    for item in files:
        if not _waits(root, item):
            raise OSError(
                "{} is not staged as planned; nothing on this host was changed; run again".format(item["path"])
            )
    change_record.exchange(request.get("fence"), root)
    gone = [path for path in request.get("remove", ()) if os.path.lexists(root + path)]
    old_units = [os.path.basename(path) for path in gone if path.startswith(places.UNITS + "/")]
    if old_units and not root:
        run_command.run(["systemctl", "disable", "--now", "--quiet", "--", *old_units], 120)
    for item in files:
        safe_paths.rename(staged(root, item), root + item["path"])
    for path in gone:
        safe_paths.remove_file(root + path)
    for directory in sorted({os.path.dirname(root + item["path"]) for item in files}):
        whole_files.sync_directory(directory)
    if not root and (files or gone or request.get("reload")):
        systemd_units.daemon_reload()
    if request.get("enable") and not root:
        run_command.must(["systemctl", "enable", "--quiet", "--", *request["enable"]], 120)
    return {"changed": [item["path"] for item in files] + gone, "notes": []}


def complete(request: Json, root: str) -> Json:
    """Put in place what an earlier `commit` of the same request has left staged.

    Raises:
        OSError: a file is neither staged nor in place as planned; nothing was changed.
    """
    left = [item for item in request["files"] if _waits(root, item) or not _is(root + item["path"], item)]
    return commit({**request, "files": left, "reload": True}, root)


def _waits(root: str, item: Json) -> bool:
    return _is(staged(root, item), item)


def _is(path: str, item: Json) -> bool:
    return os.path.exists(path) and whole_files.sha256(path) == item["sha256"]


def staged(root: str, item: Json) -> str:
    """Return where a planned file waits for its rename."""
    return root + places.staged(str(item["path"]))


def _owners(item: Json) -> tuple[int, int]:
    """Return numeric owner and group of a planned file."""
    try:
        return pwd.getpwnam(item["owner"]).pw_uid, grp.getgrnam(item["group"]).gr_gid
    except KeyError as error:
        raise OSError("{}: {}".format(item["path"], error.args[0])) from None
