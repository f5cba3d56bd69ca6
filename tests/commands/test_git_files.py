"""Files of a commit from a repository on this machine: what comes, from which commit, within which bounds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from muster.commands import git_files
from muster.errors import Refusal
from muster.sandbox.shell import wait_for
from muster.spec import git_source
from tests.commands.repositories import Repository

MODEL = "models/org/Any-1T.yaml"


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Repository(tmp_path / "upstream.git")


def fetched(upstream: Repository, ref: str) -> git_files.Fetched:
    return git_files.fetched(git_source.parse(f"git {upstream.url}@{ref}"))


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def test_plain_files_of_the_wanted_places_come(upstream: Repository) -> None:
    wanted = {MODEL: "a: 1", "examples/tool.jinja": "{{ a }}", "plugin.py": "x", "examples/same.jinja": "{{ a }}"}
    other = {"README.md": "", "models/deep/er/X.yaml": "", "models/org/.hidden.yaml": "", "examples/a/b.jinja": ""}
    commit = upstream.commit({**wanted, **other, "models/org/big.yaml": "x" * (git_files.LARGEST_FILE + 1)})
    found = fetched(upstream, commit)
    assert found.commit == commit
    assert found.origin == {"repository": upstream.url, "commit": commit}
    assert {name: (found.directory / name).read_text() for name in names(found.directory)} == wanted


def test_links_and_hooks_do_not_come(upstream: Repository) -> None:
    upstream.link("models/org/link.yaml", "/etc/hostname")
    commit = upstream.commit({MODEL: "a: 1"})
    assert names(fetched(upstream, commit).directory) == {MODEL}


def test_an_older_commit_is_fetched_and_a_known_one_is_not_fetched_again(upstream: Repository) -> None:
    first = upstream.commit({MODEL: "a: 1"})
    second = upstream.commit({MODEL: "a: 2"})
    assert (fetched(upstream, first).directory / MODEL).read_text() == "a: 1"
    assert fetched(upstream, "main").commit == fetched(upstream, "HEAD").commit == second
    upstream.path.rename(upstream.path.with_name("gone.git"))
    assert (fetched(upstream, first).directory / MODEL).read_text() == "a: 1"
    with pytest.raises(Refusal, match="git fetch ended with status"):
        fetched(upstream, "main")


def test_a_tag_is_the_commit_that_it_names(upstream: Repository) -> None:
    commit = upstream.commit({"examples/tool.jinja": "x"})
    upstream.git("tag", "--annotate", "--message=release", "v1.0.0")
    assert fetched(upstream, "v1.0.0").commit == commit


def test_a_commit_that_is_not_there_is_refused_with_gits_words(upstream: Repository) -> None:
    upstream.commit({MODEL: "a: 1"})
    with pytest.raises(Refusal) as refusal:
        fetched(upstream, "0" * 40)
    assert "git fetch ended with status" in refusal.value.found
    assert "not our ref" in refusal.value.detail


def test_a_repository_without_such_files_is_refused(upstream: Repository) -> None:
    with pytest.raises(Refusal, match="has no such files"):
        fetched(upstream, upstream.commit({"README.md": "x"}))


def test_what_is_too_large_is_refused(upstream: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = upstream.commit({MODEL: "a: 1", "noise": os.urandom(1 << 18).hex()})
    monkeypatch.setattr(git_files, "LARGEST_FETCH", 1 << 16)
    with pytest.raises(Refusal, match="git fetch ended with status"):
        fetched(upstream, commit)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(git_files, "LARGEST_ALL", 2)
    with pytest.raises(Refusal, match="1 such files of 4 bytes"):
        fetched(upstream, commit)


def test_a_fetch_that_hangs_is_ended_with_all_that_it_started(
    upstream: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The user's own ssh command hangs, as one does that waits for a host; it is git's child."""
    pid = tmp_path / "pid"
    monkeypatch.setenv("GIT_SSH_COMMAND", f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 1000 #")
    communicate = subprocess.Popen.communicate

    def until_ssh_runs(process: subprocess.Popen[bytes], stdin: bytes, timeout: float) -> tuple[bytes, bytes]:
        if "fetch" not in process.args:  # type: ignore[operator]
            return communicate(process, stdin, timeout)
        wait_for("git's ssh", pid.exists, timeout=60)
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", until_ssh_runs)
    with pytest.raises(Refusal, match="git fetch had not ended after 600 s"):
        git_files.fetched(git_source.parse("git ssh://git@host.example/x@main"))
    command = Path("/proc", pid.read_text().strip(), "cmdline")
    wait_for("its end", lambda: not command.exists() or not command.read_bytes(), timeout=60)


def test_git_asks_nothing_and_is_not_led_to_another_repository(
    upstream: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = upstream.commit({MODEL: "a: 1"})
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", str(other)], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    assert fetched(upstream, commit).commit == commit
    assert not list((other / ".git" / "objects").glob("??"))


@pytest.mark.parametrize(
    "text",
    [
        "git https://host/x",
        "git host/x@main",
        "git ext::sh -c date@main",
        "git --upload-pack=date@main",
        "git https://-host/x@main",
        "git ssh://-oProxyCommand=date/x@main",
        "git ssh://git@-oProxyCommand=date/x@main",
        "git https://user:password@host/x@main",
        "git git@host:org/x@main",
        "git http://host/x@main",
        "git https://host/x y@main",
        "git https://host/x\n@main",
        "git https://host/x@",
        "git https://host/x@-main",
        "git https://host/x@main:refs/heads/other",
        "git https://host/x@a..b",
        "git https://host/x@main^",
        "git https://host/x@+main",
    ],
)
def test_only_an_address_and_a_reference_go_to_git(text: str) -> None:
    with pytest.raises(Refusal, match="names no files in git"):
        git_source.parse(text)


@pytest.mark.parametrize(
    ("text", "repository", "ref"),
    [
        ("git https://github.com/vllm-project/recipes@main", "https://github.com/vllm-project/recipes", "main"),
        ("git ssh://git@host.example:2222/~me/x.git@v0.33.0", "ssh://git@host.example:2222/~me/x.git", "v0.33.0"),
        ("git file:///srv/x.git@feature/y", "file:///srv/x.git", "feature/y"),
    ],
)
def test_addresses_and_references_are_read(text: str, repository: str, ref: str) -> None:
    assert git_source.parse(text) == git_source.GitSource(repository, ref)
