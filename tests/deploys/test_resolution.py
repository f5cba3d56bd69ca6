"""Three real hosts install one release: resolved once, every package out of the index once, the same on each."""

from __future__ import annotations

import http.server
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from muster.sandbox import Sandbox, serving_settings
from tests.conftest import Boot
from tests.deploys.conftest import page, wheel
from tests.weights.test_gather import wheel as plain_wheel
from tests.weights.test_staging_run import run

pytestmark = pytest.mark.sandbox
DEPLOY = """\
from muster.deploys.base_system import base
from muster.deploys.check import check
from muster.deploys.install_engine import engine

_run, _ = check("kimi-k2-instruct")
base(_run)
engine(_run)
"""
INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (_hosts({name!r}), {given!r})
"""
NAME = "muster-test-wheel-of-no-index"


@contextmanager
def index(place: Path, address: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a directory as a package index; yield its address and the wheels that were asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(place))

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.endswith(".whl"):
                asked.append(self.path.rsplit("/", 1)[1])
            super().do_GET()

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{server.server_address[1]}/simple", asked
    finally:
        server.shutdown()
        server.server_close()


def offer(place: Path, version: str) -> None:
    """Put a version of a wheel onto the index, with its metadata, so that resolving does not fetch it."""
    made = plain_wheel(place, version)
    made.with_name(made.name + ".metadata").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n")
    (place / "index.html").write_text(page(place))


@pytest.fixture(scope="module")
def box(sandbox: Boot) -> Sandbox:
    return sandbox("locked", hosts=3)


def test_a_release_is_resolved_and_fetched_once_for_three_hosts(box: Sandbox, tmp_path: Path) -> None:
    simple = tmp_path / "simple"
    wheel(simple / "vllm", "0.33.0")
    (simple / NAME).mkdir()
    offer(simple / NAME, "1.0")
    (tmp_path / "deploy.py").write_text(DEPLOY)
    gateway = box.hosts[0].address.rsplit(".", 1)[0] + ".1"
    names = [host.name for host in box.hosts]
    with index(tmp_path, gateway) as (url, asked):
        given = {
            "strategy": "dp-ep",
            "allow_oversubscription": True,
            "allow_unpinned_code": True,
            "preflight_waive": ["host.disk"],  # the weights of the recipe are not what is looked at here
            "index_url": url,
            "torch_backend": None,
            "vllm_version": "0.33.0",
            "engine_requirements": [f"{NAME}>=1"],
            "python_version": serving_settings.host_python(box.tree("node0")),
        }
        (tmp_path / "hosts.py").write_text(INVENTORY.format(name=box.name, given=given))
        first = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
        assert first.returncode == 0, first.stdout + first.stderr
        assert sorted(asked) == ["muster_test_wheel_of_no_index-1.0-py3-none-any.whl", "vllm-0.33.0-py3-none-any.whl"]
        assert len({packages(box, name) for name in names}) == 1
        assert len({locked(box, name) for name in names}) == 1

        # A host that comes later gets what the others have, though the index offers something newer by now.
        offer(simple / NAME, "2.0")
        box.exec("node1", ["sh", "-c", "rm -rf /opt/muster/engines /var/cache/muster/uv"])
        again = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
        assert again.returncode == 0, again.stdout + again.stderr
        assert not [name for name in asked if "-2.0-" in name]
        assert f"{NAME}==1.0" in packages(box, "node1")
        assert len({locked(box, name) for name in names}) == 1
        third = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
        assert third.returncode == 0, third.stdout + third.stderr
        assert "the release is" not in third.stdout + third.stderr

        # The resolution is on the control machine; what a host says of it counts no more.
        (kept,) = (tmp_path / "resolutions").glob("*.toml")
        assert kept.read_text() == locked(box, "node0")
        evil = (
            "sed -i 's|url = \"http://[^/]*/|url = \"http://198.51.100.66/|' /opt/muster/engines/*.locked/pylock.toml"
        )
        box.exec("node0", ["sh", "-c", evil])
        box.exec("node1", ["sh", "-c", "rm -rf /opt/muster/engines /var/cache/muster/uv"])
        despite = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
        assert despite.returncode == 0, despite.stdout + despite.stderr
        assert locked(box, "node1") == kept.read_text()

        # Where nothing is kept, a host's word is taken for configured addresses only.
        text = kept.read_text()
        kept.unlink()
        box.exec("node1", ["sh", "-c", "rm -rf /opt/muster/engines /var/cache/muster/uv"])
        foreign = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
        assert foreign.returncode != 0
        assert "node0 resolves the engine to files from elsewhere" in foreign.stderr, foreign.stderr[-3000:]
        assert "198.51.100.66" in foreign.stderr
        assert not kept.exists()
        kept.write_text(text)
        third = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
        assert third.returncode == 0, third.stdout + third.stderr

        # What came changed out of the index is installed nowhere.
        box.exec("node1", ["sh", "-c", "rm -rf /opt/muster/engines/vllm-*py*[0-9a-f] /var/cache/muster/uv"])
        offered = simple / NAME / "muster_test_wheel_of_no_index-1.0-py3-none-any.whl"
        with zipfile.ZipFile(offered, "a") as archive:
            archive.writestr("tampered.py", "")
        tampered = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
        assert tampered.returncode != 0
        assert "Hash mismatch for `muster-test-wheel-of-no-index==1.0`" in tampered.stderr, tampered.stderr[-3000:]


def packages(box: Sandbox, name: str) -> str:
    """Return what uv says is installed on a host."""
    show = "cat /opt/muster/engines/*/.muster-complete"
    return str(box.exec(name, ["sh", "-c", show]).stdout)


def locked(box: Sandbox, name: str) -> str:
    """Return the resolution on a host."""
    return str(box.exec(name, ["sh", "-c", "cat /opt/muster/engines/*.locked/pylock.toml"]).stdout)
