"""What muster made on this host and a removal would take: places and bytes. Nothing is changed.

Only places that `places` names count. What another owner put into one of them stays and is named, and so does a link
that an administrator made.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import stat
from typing import Any, NamedTuple

from muster.on_host import (
    change_record,
    disk_usage,
    host_before,
    kept_loaders,
    kept_rate,
    path_users,
    places,
    probe_group,
    safe_paths,
    weights_on_disk,
    whole_files,
)

Json = dict[str, Any]

_STAY = "weights stay; with --weights they go too"
_PARENTS = (places.ETC, places.STATE, places.CACHE)
_IN_PART = (*_PARENTS, places.FIREWALL_UNIT)
"""Places of the host of which only what is muster's goes."""


class Removable(NamedTuple):
    """What goes, and what stays.

    Args:
        groups: names of the groups that go.
        units: their unit files' names.
        paths: files and directories, with all that is in them; the units' files are among them.
        empty: directories that go after that if nothing else is in them.
        kept: path -> why it stays.
    """

    groups: list[str]
    units: list[str]
    paths: list[str]
    empty: list[str]
    kept: dict[str, str]


def main(request: Json) -> Json:
    """Return {groups {name: plan.json}, going, paths {path: bytes}, kept {path: [why, bytes]}, units, user, changes}.

    `changes` has what this host knows of changes of the groups that go; of every group whose lock is held if all go.

    Args:
        request: `groups` [name] or None for everything that muster made; `root`, `hf_home`, `weights_root`: the
            settings; `weights`: whether staged and downloaded weights go as well. `at` (tests): where the file system
            begins.
    """
    at, there = request.get("at", ""), find(request)
    sizes = disk_usage.bytes_of([at + path for path in (*there.paths, *there.kept)])
    return {
        "groups": probe_group.other_groups(at, ""),
        "going": there.groups,
        "paths": {path: sizes.get(at + path, 0) for path in there.paths},
        "kept": {path: [why, sizes.get(at + path, 0)] for path, why in there.kept.items()},
        "units": there.units,
        "user": request["groups"] is None and not at and user_is_ours() and not owned(there),
        "changes": _changes(request, there, at),
    }


def _changes(request: Json, there: Removable, at: str) -> Json:
    """Return group -> `change_record.state`; a first deploy holds a lock before anything of its group is here."""
    names = set(there.groups if request["groups"] is None else request["groups"])
    states = {name: change_record.state(name, at) for name in sorted(names)}
    others = set(change_record.groups(at)) - names if request["groups"] is None else set()
    held = {name: change_record.state(name, at) for name in sorted(others)}
    return states | {name: state for name, state in held.items() if state["locked"]}


def find(request: Json) -> Removable:
    """Return what a removal takes from this host; the request is that of `main`."""
    at = request.get("at", "")
    everything = request["groups"] is None
    groups = _groups(at) if everything else [name for name in request["groups"] if _has(at, name)]
    units = _all_units(at) if everything else [unit for name in groups for unit in _units(at, name)]
    paths = [places.unit(unit) for unit in units]
    empty: list[str] = []
    kept: dict[str, str] = {}
    links: set[str] = set()
    if everything:
        weights = _weights(request)
        kept |= weights.staying
        links = set(weights.links)
        paths += [places.tmpfiles(name) for name in groups]
        paths += [inner for place in _PARENTS for inner in _inside_of(at, place, list(weights.staying))]
        paths += [place for place in places.of_host(request["root"]) if place not in _IN_PART]
        paths += [*weights.going, *weights.links]
        empty += [*weights.directories, request["root"], *_PARENTS, *host_before.made_directories(at)]
        kept |= dict.fromkeys(_foreign_units(at), "muster did not write it")
    else:
        paths += [place for name in groups for place in places.of_group(name)]
        paths += _unused_guards(request, groups)
    owners = {0, os.geteuid(), user_id()}
    going = []
    for path in dict.fromkeys(paths):
        why = _foreign(at + path, owners, is_link=path in links)
        if why is None:
            continue
        if why:
            kept[path] = why
        else:
            going.append(path)
    going = [path for path in going if not any(_is_below(path, other) for other in going)]
    return Removable(groups, units, going, [path for path in dict.fromkeys(empty) if os.path.isdir(at + path)], kept)


def user_is_ours() -> bool:
    """Whether the engine's user is the one that muster makes, and not somebody's of that name."""
    try:
        return pwd.getpwnam(places.USER).pw_gecos == places.USER_COMMENT
    except KeyError:
        return False


def owned(there: Removable) -> list[str]:
    """Return what stays and belongs to the engine's user, who then stays too: its number must not be given again."""
    return [path for path in there.kept if os.path.lexists(path) and os.lstat(path).st_uid == user_id()]


def user_id() -> int | None:
    """Return the uid of the engine's user, None where there is none."""
    try:
        return pwd.getpwnam(places.USER).pw_uid
    except KeyError:
        return None


def _foreign(path: str, owners: set[int | None], *, is_link: bool) -> str | None:
    """Return why a path is not muster's, "" where it is, None where nothing is there."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(status.st_mode) and not is_link:
        return "is a link, which muster did not make"
    return "" if status.st_uid in owners else f"belongs to uid {status.st_uid}"


def _has(at: str, group: str) -> bool:
    return any(os.path.lexists(at + place) for place in places.of_group(group)) or bool(_units(at, group))


def _units(at: str, group: str) -> list[str]:
    own = [*probe_group.present_units(at, group), *probe_group.staged_units(at, group)]
    boot = places.boot_unit(group)
    return own + [boot] * os.path.lexists(at + places.unit(boot))


def _groups(at: str) -> list[str]:
    """Return every group that has left a trace here."""
    names = {os.path.basename(path) for path in glob.glob(glob.escape(at) + places.config("*")) if os.path.isdir(path)}
    rule = re.compile(re.escape(at) + places.tmpfiles("(.+)").replace(".conf", r"\.conf"))
    matches = (rule.fullmatch(path) for path in glob.glob(glob.escape(at) + places.tmpfiles("*")))
    return sorted(names | {match.group(1) for match in matches if match})


def _all_units(at: str) -> list[str]:
    """Return every unit that muster wrote, those that an interrupted run staged as well."""
    return [name for name in _named_like_ours(at) if _is_marked(f"{at}{places.unit(name)}")]


def _foreign_units(at: str) -> list[str]:
    return [places.unit(name) for name in _named_like_ours(at) if not _is_marked(f"{at}{places.unit(name)}")]


def _named_like_ours(at: str) -> list[str]:
    return [name for name in safe_paths.names_in(at + places.UNITS) if re.fullmatch(r"\.?muster-.+", name)]


def _is_marked(path: str) -> bool:
    return os.path.isfile(path) and (whole_files.read_start(path, 100) or "").startswith(places.MARK)


def _unused_guards(request: Json, groups: list[str]) -> list[str]:
    """Return the guard's programs that these groups use and no other does."""
    at, guards = request.get("at", ""), f"{request['root']}/{places.GUARD}"
    own = {places.config(name) + "/" for name in groups}
    own |= {places.unit(unit) for name in groups for unit in _units(at, name)}
    unused = []
    for path in sorted(glob.glob(glob.escape(at + guards) + "/*")):
        users = [user[len(at) :] for user in path_users.users_of(path[len(at) :], at + "/etc", at + "/proc")]
        files = [user for user in users if user.startswith("/")]
        if files and all(user.startswith(tuple(own)) for user in files):
            unused.append(path[len(at) :])
    return unused


class _Weights(NamedTuple):
    """Staged and downloaded weights: what goes, why the rest stays, links, directories that go once they are empty."""

    going: list[str]
    staying: dict[str, str]
    links: list[str]
    directories: list[str]


def _weights(request: Json) -> _Weights:
    at, root, hub = request.get("at", ""), request["weights_root"], request["hf_home"]
    there = _Weights([], {}, [], [])
    for model in _listed(at, root):
        revisions = [f"{model}/{name}" for name in weights_on_disk.revisions(at + model)]
        staged = [path for path in revisions if weights_on_disk.staged_here(at + path)]
        if not staged:
            there.staying[model] = "was not staged by muster"
        elif not request["weights"]:
            there.staying[model] = _STAY
        else:
            suffixes = (".lock", kept_rate.SUFFIX, kept_loaders.SUFFIX)
            beside = (f"{path}{suffix}" for path in staged for suffix in suffixes)
            there.going.extend([*staged, *beside])
            there.links.append(f"{model}/{weights_on_disk.LINK}")
            there.directories.append(model)
    if request["weights"] or not any(names for _, _, names in os.walk(at + hub)):
        there.going.append(hub)
    else:
        there.staying[hub] = _STAY
    there.directories.append(root)
    return there


def _inside_of(at: str, place: str, held: list[str]) -> list[str]:
    """Return what lies in a directory, without what is held and the directories on the way to it."""
    inner = []
    for path in _listed(at, place):
        if path not in held:
            on_the_way = any(_is_below(other, path) for other in held)
            inner += _inside_of(at, path, held) if on_the_way else [path]
    return inner


def _listed(at: str, place: str) -> list[str]:
    return [f"{place}/{name}" for name in safe_paths.names_in(at + place)]


def _is_below(path: str, place: str) -> bool:
    return path.startswith(place + "/")
