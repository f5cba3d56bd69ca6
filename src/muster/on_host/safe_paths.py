"""Open, make and remove paths that pass through directories of other users, as root, without being led elsewhere.

A symbolic link counts only where nobody but root (or this process's own user) could have put it: in a directory that
is theirs and that no group and no other may write to. Everywhere else a link is refused, and so is whatever is not a
regular file or a directory of the kind asked for. Every step is taken from the directory reached so far, so that a
name that is exchanged meanwhile changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from muster.on_host import run_command

_LINKS = 40
"""Symbolic links followed on one path, as the kernel does."""
_REMOVE_SECONDS = 600.0
_FOREIGN_LINK = (
    "{path}: {name!r} on the way is a symbolic link in a directory that others than root may write to;"
    " fix: name the directory that it leads to, or remove it"
)


class Unsafe(OSError):
    """A path that leads through something another user may have put there."""


def open_directory(path: str) -> int:
    """Return a descriptor of a directory.

    Args:
        path: absolute, or relative to the working directory.

    Raises:
        Unsafe: a link in a foreign directory. OSError: missing, or no directory.
    """
    handle, name = _walk(path)
    try:
        return _directory(handle, name or ".", path)
    finally:
        os.close(handle)


def open_below(path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Return a descriptor of a regular file.

    Args:
        path: absolute, or relative to the working directory.
        flags: as of `os.open`. With O_TRUNC the file is checked first and then emptied.
        mode: of a file that is created.

    Raises:
        Unsafe: a link in a foreign directory, no regular file, or, to write to, a file with a second name.
        OSError: as `os.open`.
    """
    handle, name = _walk(path)
    try:
        wanted = (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(name or ".", wanted, mode, dir_fd=handle)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise Unsafe(f"{path} is {_kind(handle, name)}, not a regular file; fix: remove it") from None
            raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(handle)
    try:
        status = os.fstat(file)
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if not stat.S_ISREG(status.st_mode):
            raise Unsafe(f"{path} is {_words(status.st_mode)}, not a regular file; fix: remove it")
        if writes and status.st_nlink > 1:
            raise Unsafe(f"{path} has {status.st_nlink} names (hard links), and may be another's file; fix: remove it")
        if flags & os.O_TRUNC:
            os.ftruncate(file, 0)
        os.set_blocking(file, True)
    except BaseException:
        os.close(file)
        raise
    return file


def read_bounded(path: str, limit: int) -> bytes:
    """Return the whole of a regular file.

    Args:
        path: of the file.
        limit: bytes that it may have at most.

    Raises:
        Unsafe: see `open_below`. OSError: missing, or larger than the limit.
    """
    with os.fdopen(open_below(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"{path} is larger than {limit} bytes")
    return data


def names_in(path: str) -> list[str]:
    """Return the names in a directory, sorted; none where it cannot be read."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def make_directory(path: str, mode: int = 0o755, owner: int = -1, group: int = -1) -> None:
    """Make a directory and its missing parents; one that exists keeps its mode and owner.

    Args:
        path: of the directory.
        mode: of what is made.
        owner: uid of the last directory, when it is made; its parents are this process's own.
        group: its gid.

    Raises:
        Unsafe: a link in a foreign directory, or something else of that name.
    """
    missing = []
    path = os.path.abspath(path)
    while True:
        try:
            handle = open_directory(path)
            break
        except FileNotFoundError:
            path, name = os.path.split(path)
            missing.append(name)
    while missing:
        name = missing.pop()
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=handle)
                made = _directory(handle, name, name)
                try:
                    os.fchown(made, *((-1, -1) if missing else (owner, group)))
                    os.fchmod(made, mode)
                finally:
                    os.close(made)
            below = _directory(handle, name, os.path.join(path, name))
        finally:
            os.close(handle)
        handle, path = below, os.path.join(path, name)
    os.close(handle)


def remove_file(path: str) -> bool:
    """Remove a file, or the link that has its place; return whether there was one."""
    try:
        with parent(path) as (handle, name):
            os.unlink(name, dir_fd=handle)
    except FileNotFoundError:
        return False
    return True


def remove_below(path: str) -> None:
    """Remove a directory with all that is in it, or whatever else has its place; a missing one is no error.

    Raises:
        Unsafe: a link in a foreign directory on the way. OSError: something of it could not be removed.
    """
    try:
        with parent(path) as (handle, name):
            # rm never follows a link and needs no memory for depth; it stays in this file system.
            removal = ["rm", "-rf", "--one-file-system", "--", "./" + name]
            done = run_command.finish(removal, _REMOVE_SECONDS, cwd=f"/proc/self/fd/{handle}")
    except FileNotFoundError:
        return
    if done.status != 0:
        raise OSError(f"{path} could not be removed: {done.errors.strip()[-300:]}")


def rename(old: str, new: str) -> None:
    """Rename within a directory, or between two, of which neither is reached through a foreign link."""
    with parent(old) as (source, before), parent(new) as (target, after):
        os.rename(before, after, src_dir_fd=source, dst_dir_fd=target)


def private(path: str) -> bool:
    """Whether a directory is there, is root's or this process's own, and nobody else may write to it."""
    try:
        handle = open_directory(path)
    except OSError:
        return False
    try:
        return _trusted(os.fstat(handle))
    finally:
        os.close(handle)


def make_private(path: str, mode: int = 0o755) -> None:
    """Make a directory that nobody else may write to; whatever else has its place is removed with all that is in it.

    Raises:
        Unsafe: a link in a foreign directory on the way. OSError: it could not be removed.
    """
    if not private(path):
        remove_below(path)
        make_directory(path, mode)


@contextlib.contextmanager
def parent(path: str) -> Iterator[tuple[int, str]]:
    """Give a descriptor of a path's directory, and the last name, which is not looked at.

    Raises:
        Unsafe: a link in a foreign directory. OSError: the directory is missing.
    """
    directory, name = os.path.split(os.path.abspath(path))
    if not name:
        raise Unsafe(f"{path} has no parent")
    handle = open_directory(directory)
    try:
        yield handle, name
    finally:
        os.close(handle)


def _trusted(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid()) and not stat.S_IMODE(status.st_mode) & 0o022


def _walk(path: str) -> tuple[int, str]:
    """Return a descriptor of the directory of a path, links resolved as far as they count, and the last name."""
    names = [name for name in os.path.abspath(path).split("/") if name]
    handle, links = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), 0
    try:
        while names:
            name = names.pop(0)
            target = _link(handle, name)
            if target is None:
                if not names:
                    return handle, name
                below = _directory(handle, name, path, os.O_PATH)
                os.close(handle)
                handle = below
                continue
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if not _trusted(os.fstat(handle)):
                raise Unsafe(_FOREIGN_LINK.format(path=path, name=name))
            if target.startswith("/"):
                os.close(handle)
                handle = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            names = [part for part in target.split("/") if part not in ("", ".")] + names
        return handle, ""
    except BaseException:
        os.close(handle)
        raise


def _link(handle: int, name: str) -> str | None:
    """Return where a link leads, None for what is none or is missing."""
    try:
        return os.readlink(name, dir_fd=handle)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _directory(handle: int, name: str, path: str, access: int = os.O_RDONLY) -> int:
    try:
        return os.open(name, access | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and _kind(handle, name) == "a symbolic link":
            raise Unsafe(_FOREIGN_LINK.format(path=path, name=name)) from None
        raise OSError(error.errno, error.strerror, path) from None


def _kind(handle: int, name: str) -> str:
    try:
        return _words(os.stat(name or ".", dir_fd=handle, follow_symlinks=False).st_mode)
    except OSError:
        return "gone"


def _words(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO", stat.S_IFDIR: "a directory"}
    kinds |= {stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "no file")
