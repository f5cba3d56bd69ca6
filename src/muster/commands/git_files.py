"""Files of a commit, fetched by the user's own git into a cache, within bounds.

The repository is a stranger's: nothing of it is checked out or run. One commit is fetched without history, submodules
and hooks; plain files of the wanted places are copied out of it, and their names are held to those of a catalogue.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from muster import resources
from muster.errors import Refusal, shown
from muster.on_host import run_command
from muster.on_host.whole_files import text_sha256
from muster.spec.git_source import GitSource

SECONDS = 600.0
"""Until a fetch is ended."""
LARGEST_FETCH = 512 << 20
"""Bytes of any file that git writes, the fetched pack among them; vLLM's tree takes 60 MiB."""
LARGEST_FILE, LARGEST_ALL, MOST_FILES = 1 << 20, 64 << 20, 4096
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}"
_WANTED = re.compile(rf"models/{_SEGMENT}/{_SEGMENT}\.yaml|(examples/)?{_SEGMENT}\.(jinja|py)")
"""A catalogue's models; chat templates and plugins at the top or among vLLM's examples."""
_PLACES = ("models/", "examples/")
_COMMIT = "refs/muster/wanted"
_CONFIG = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "submodule.recurse=false"),
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),
    # One pack, whose size the file limit bounds, however few objects come.
    *("-c", "fetch.unpackLimit=1", "-c", "transfer.unpackLimit=1"),
)
_OTHER_REPOSITORY = re.compile(
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|COMMON_DIR|NAMESPACE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|TRACE.*)"
)
"""Variables that would lead git elsewhere, as inside a hook."""
_NO_QUESTIONS = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_ALLOW_PROTOCOL": "file:https:ssh",
    "LC_ALL": "C",
}


@dataclass(frozen=True)
class Fetched:
    """Files on this machine, and where they are from.

    Args:
        directory: with the files at the repository's own paths.
        repository: address of the repository; "" for a directory of the user's.
        commit: that they are of.
    """

    directory: Path
    repository: str = ""
    commit: str = ""

    @property
    def origin(self) -> dict[str, str]:
        """What a recipe keeps of it."""
        return {"repository": self.repository, "commit": self.commit} if self.repository else {}


def fetched(source: GitSource) -> Fetched:
    """Return a commit's files, from the cache where they are there already.

    Args:
        source: repository and commit, tag or branch; the latter are looked up every time.

    Raises:
        Refusal: git's own words; or it took too long, or is too large.
    """
    if shutil.which("git") is None:
        raise Refusal(
            "this machine has no git", needed="git, to fetch the files", fix="install it, or name a directory"
        )
    cache = resources.cache() / "git" / text_sha256(source.repository)[:16]
    if source.commit and (cache / source.commit).is_dir():
        return Fetched(cache / source.commit, source.repository, source.commit)
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as work:
        git = _Git(Path(work), source.repository)
        commit = git.fetch(source.ref)
        if source.commit not in (None, commit):
            raise Refusal(f"{source.repository} gave commit {commit}", needed=str(source.commit))
        place = cache / commit
        if not place.is_dir():
            files = Path(work, "files")
            for path, content in git.files():
                (files / path).parent.mkdir(parents=True, exist_ok=True)
                (files / path).write_bytes(content)
            if not files.is_dir():
                raise Refusal(
                    f"{source.repository} at {commit} has no such files",
                    needed="models/ORG/MODEL.yaml, or templates and plugins at the top or in examples/",
                )
            try:
                files.rename(place)
            except OSError:
                if not place.is_dir():  # another run was first
                    raise
    return Fetched(place, source.repository, commit)


class _Git:
    """A bare repository that holds one commit of another.

    Args:
        work: an empty directory.
        repository: address of the other.
    """

    def __init__(self, work: Path, repository: str) -> None:
        self._work, self._repository = work, repository
        self._run("init", "--quiet", "--bare", "--template=")

    def fetch(self, ref: str) -> str:
        """Fetch one commit without history, and return it."""
        quiet = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        self._run("fetch", *quiet, "--", self._repository, f"{ref}:{_COMMIT}")
        return self._run("rev-parse", "--verify", "--quiet", f"{_COMMIT}^{{commit}}").decode().strip()

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of each wanted plain file.

        Raises:
            Refusal: there are too many, or together they are too large.
        """
        wanted = self._wanted()
        sizes = self._run("cat-file", "--batch-check=%(objectsize)", stdin="\n".join(wanted.values()).encode()).split()
        kept = {path: size for path, size in zip(wanted, map(int, sizes), strict=True) if size <= LARGEST_FILE}
        if len(kept) > MOST_FILES or sum(kept.values()) > LARGEST_ALL:
            raise Refusal(
                f"{self._repository} has {len(kept):,} such files of {sum(kept.values()):,} bytes",
                needed=f"at most {MOST_FILES:,} of {LARGEST_ALL:,} bytes: a catalogue, or vLLM's source",
            )
        contents = self._run("cat-file", "--batch", stdin="\n".join(wanted[path] for path in kept).encode())
        position = 0
        for path, size in kept.items():
            start = contents.index(b"\n", position) + 1
            yield path, contents[start : start + size]
            position = start + size + 1

    def _wanted(self) -> Mapping[str, str]:
        """Return path -> object of each; links and submodules are no plain files."""
        trees = [self._run("ls-tree", "-z", _COMMIT), self._run("ls-tree", "-r", "-z", _COMMIT, "--", *_PLACES)]
        wanted = {}
        for entry in b"".join(trees).split(b"\0"):
            about, _, name = entry.partition(b"\t")
            path = name.decode("utf-8", "replace")
            if about.startswith(b"100") and _WANTED.fullmatch(path):
                wanted[path] = about.split()[2].decode()
        return wanted

    def _run(self, *words: str, stdin: bytes = b"") -> bytes:
        # Output goes to a file, for the limit on files bounds it too; POSIX counts in blocks of 512 bytes.
        limited = f'ulimit -f {LARGEST_FETCH // 512} && exec git "$@"'
        argv = ["/bin/sh", "-c", limited, "git", *_CONFIG, f"--git-dir={self._work / 'git'}", *words]
        own = {name: value for name, value in os.environ.items() if not _OTHER_REPOSITORY.fullmatch(name)}
        with tempfile.TemporaryFile(dir=self._work) as out, tempfile.TemporaryFile(dir=self._work) as errors:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
                env={**own, **_NO_QUESTIONS},
                start_new_session=True,  # no terminal to ask on, and helpers of git end with it
            )
            try:
                process.communicate(stdin, timeout=SECONDS)
                ended = f"ended with status {process.returncode}"
            except subprocess.TimeoutExpired:
                ended = f"had not ended after {SECONDS:g} s"
            finally:
                if process.poll() is None:
                    run_command.kill(process)
                    process.wait()
            out.seek(0)
            errors.seek(0)
            if process.returncode != 0:
                said = errors.read(64 << 10).decode("utf-8", "replace").strip().splitlines()
                raise Refusal(
                    f"{self._repository}: git {words[0]} {ended}",
                    needed=f"a commit of at most {LARGEST_FETCH >> 20} MiB within {SECONDS:g} s",
                    fix="look whether `git ls-remote` of it answers without a question; a commit has 40 digits",
                    detail="\n".join(shown(line) for line in said[-10:]),
                )
            return out.read()
