"""Repositories of git on this machine, as a catalogue's author has one elsewhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

OWN = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


class Repository:
    """A bare repository, and a clone that fills it.

    Args:
        path: of the bare one; the clone is beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._clone = path, path.with_suffix(".clone")
        self._clone.mkdir()
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], env=_env(), check=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", str(path))

    @property
    def url(self) -> str:
        """Address of the bare one."""
        return f"file://{self.path}"

    def git(self, *words: str) -> str:
        """Run git in the clone, push branch and tags where there is one, and return what it printed."""
        done = self._run(*words)
        if (self._clone / ".git" / "refs" / "heads" / "main").exists():
            self._run("push", "--quiet", "--tags", "origin", "main")
        return done

    def link(self, name: str, target: str) -> None:
        """Make a link of the next commit."""
        place = self._clone / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def commit(self, files: Mapping[str, str]) -> str:
        """Write files, commit and push them; return the commit."""
        for name, text in files.items():
            place = self._clone / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        self._run("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=x")
        return self._run("rev-parse", "HEAD").strip()

    def _run(self, *words: str) -> str:
        words = ("-c", "user.name=a", "-c", "user.email=a@b.example", *words)
        argv = ["git", "-C", str(self._clone), *words]
        return subprocess.run(argv, env=_env(), check=True, capture_output=True, text=True).stdout


def _env() -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")}, **OWN}
