"""An engine release is whole or is done again; one that runs is never touched."""

from __future__ import annotations

import base64
import fcntl
import json
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import engine_stamps, install_engine, mutex

RELEASE = "/opt/muster/engines/r1"
UV = "/opt/muster/uv/1/uv"

LOCK = """\
lock-version = "1.0"

[[packages]]
name = "vllm"
version = "1"
wheels = [{ url = "https://index.example/vllm-1-py3-none-any.whl", hashes = { sha256 = "SHA" } }]
""".replace("SHA", "1" * 64)

FAKE = """\
#!{python}
import os, pathlib, stat, sys
root = pathlib.Path({root!r})
with open(root / "calls", "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
words = sys.argv[1:]
if words[0] == "--version":
    print("uv 1")
elif words[0] == "venv":
    (pathlib.Path(words[-1]) / "bin").mkdir(parents=True)
    (pathlib.Path(words[-1]) / "bin" / "python").touch()
elif words[:2] == ["pip", "install"]:
    (root / "wanted").write_text(pathlib.Path(words[words.index("-r") + 1]).read_text())
    if (root / "fail").exists():
        sys.exit("error: no wheel for this platform")
    print("Resolved 2 packages\\n + torch==1\\n + vllm==1")
    print(os.environ["UV_CACHE_DIR"], os.environ.get("PIP_INDEX_URL"), os.environ["HOME"] == "/root")
    vllm = pathlib.Path(words[words.index("--python") + 1]).parent / "vllm"
    vllm.touch()
    vllm.chmod(vllm.stat().st_mode | stat.S_IXUSR)
"""


def payload(root: Path) -> str:
    text = FAKE.format(python=sys.executable, root=str(root))
    return base64.b64encode(zlib.compress(text.encode())).decode()


def install(root: Path, **more: Any) -> dict[str, Any]:
    request = {
        "root": str(root),
        "path": RELEASE,
        "spec": "s1",
        "python": "3.12",
        "lock": LOCK,
        "wheels": None,
        "forget": False,
        "install_args": ["--torch-backend", "cpu"],
        "env": {},
        "uv": UV,
        "uv_payload": payload(root),
        "python_dir": "/opt/muster/python",
        "cache_dir": "/var/cache/muster/uv",
    }
    return install_engine.main({**request, **more})


class FastClock:
    """The clock of a program whose waits are short, and noticed."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, waited: threading.Event) -> None:
        self.waited = waited

    def sleep(self, _seconds: float) -> None:
        self.waited.set()
        time.sleep(0.01)


def calls(root: Path) -> list[str]:
    return (root / "calls").read_text().splitlines()


def test_a_release_is_installed_and_noted_last(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert install(tmp_path) == {"changed": True, "packages": 1}
    note = json.loads((tmp_path / RELEASE[1:] / engine_stamps.COMPLETE).read_text())
    assert note["spec"] == "s1"
    assert note["packages"] == ["vllm==1"]
    made, installed = calls(tmp_path)[1:3]
    assert made == f"venv --no-project --python 3.12 {tmp_path}{RELEASE}"
    assert installed.startswith(f"pip install --python {tmp_path}{RELEASE}/bin/python --require-hashes")
    assert "--require-hashes --no-deps --torch-backend cpu --no-build -r " in installed
    assert (tmp_path / "wanted").read_text() == f"vllm==1 --hash=sha256:{'1' * 64}\n"
    assert (tmp_path / f"{RELEASE[1:]}.locked/pylock.toml").read_text() == LOCK
    said = capfd.readouterr().out
    assert "Resolved 2 packages" in said
    assert " + torch" not in said


def test_what_was_gathered_is_installed_without_an_index_and_then_forgotten(tmp_path: Path) -> None:
    wheels = tmp_path / "opt/muster/wheels/engine--r1" / ("a" * 40)
    wheels.mkdir(parents=True)
    install(tmp_path, wheels=f"/opt/muster/wheels/engine--r1/{'a' * 40}", forget=True)
    assert f"--no-index --find-links {wheels} --no-build -r " in calls(tmp_path)[2]
    assert "--torch-backend" not in calls(tmp_path)[2]
    assert not wheels.parent.exists()


def test_a_whole_release_is_left_alone(tmp_path: Path) -> None:
    install(tmp_path)
    before = calls(tmp_path)
    assert install(tmp_path, uv_payload=None) == {"changed": False, "packages": 0}
    assert calls(tmp_path) == before


def test_an_installation_that_was_killed_is_done_again_from_nothing(tmp_path: Path) -> None:
    left = tmp_path / RELEASE[1:] / "lib/half-a-package"
    left.mkdir(parents=True)
    assert install(tmp_path)["changed"]
    assert not left.exists()


def test_a_failed_installation_ends_with_uvs_own_words_and_no_note(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    with pytest.raises(OSError, match=r"`uv pip` ended with 1:\nerror: no wheel for this platform"):
        install(tmp_path)
    assert not (tmp_path / RELEASE[1:] / engine_stamps.COMPLETE).exists()
    (tmp_path / "fail").unlink()
    assert install(tmp_path)["changed"]


def test_a_release_that_runs_is_never_replaced(tmp_path: Path) -> None:
    install(tmp_path)
    sleeper = tmp_path / RELEASE[1:] / "bin/sleeper"
    sleeper.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(sleeper), "60"])
    for _ in range(500):
        if Path(f"/proc/{child.pid}/cmdline").read_bytes():
            break  # it has become the sleeper
        time.sleep(0.01)
    try:
        with pytest.raises(OSError, match=r"runs from it; stop it first"):
            install(tmp_path, spec="s2")
    finally:
        child.kill()
        child.wait()
    assert install(tmp_path, spec="s2")["changed"]


def test_two_installations_of_one_release_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path)
    waited = threading.Event()
    monkeypatch.setattr(mutex, "time", FastClock(waited))
    with open(tmp_path / (RELEASE[1:] + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=install, args=(tmp_path,))
        second.start()
        assert waited.wait(30)
        assert second.is_alive()
    second.join(30)
    assert not second.is_alive()


def test_without_uv_the_message_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no uv at .*/opt/muster/uv/1/uv"):
        install(tmp_path, uv_payload=None)


def test_the_callers_package_settings_do_not_leak_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://elsewhere.invalid")
    install(tmp_path)
    assert f"{tmp_path}/var/cache/muster/uv None False" in capfd.readouterr().out
