"""Eight real hosts get a pinned model of 200 files from one download; a second run costs next to nothing."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from muster.sandbox import Sandbox
from muster.spec import pins, recipe
from muster.weights import gather
from muster.weights import hub as hub_client
from tests.conftest import Boot
from tests.weights.hub_server import Hub, serving

pytestmark = pytest.mark.sandbox
REPOSITORY = Path(__file__).parent.parent.parent
SCRIPT = str(REPOSITORY / "deploys" / "stage_weights.py")
RECIPE = "kimi-k2-instruct"
FILES = 200
INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (_hosts({name!r}), {{"weights_source": "modelscope", "hf_endpoint": {url!r}, "weights_interval": 1}})
"""

BUNDLED = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (_hosts({name!r}), {{"bundle": {bundle!r}, "weights_interval": 1}})
"""


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def box(sandbox: Boot) -> Sandbox:
    return sandbox("weights", hosts=8)


def test_staging_on_real_hosts(box: Sandbox, tmp_path: Path) -> None:
    chance = random.Random(7)
    model = recipe.load(RECIPE).model
    files = {f"model-{n:05}.safetensors": chance.randbytes(100_000) for n in range(FILES - 1)}
    gateway = box.hosts[0].address.rsplit(".", 1)[0] + ".1"
    with (
        serving(Hub(model, {**files, "config.json": b"{}"}), address=gateway) as hub,
        pytest.MonkeyPatch.context() as at,
    ):
        at.chdir(tmp_path)
        pins.write(RECIPE, hub_client.from_modelscope(model, "master", endpoint=hub.url))
        (tmp_path / "hosts.py").write_text(INVENTORY.format(name=box.name, url=hub.url))
        deploy = ["pyinfra", "-y", "hosts.py", SCRIPT, "--data", f"_recipe={RECIPE}"]

        first = run(tmp_path, *deploy)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "8 of 8 hosts lack some of it; node0 is the seed" in first.stdout + first.stderr
        fetched = sum(hub.sent.values())
        assert fetched == sum(map(len, files.values())) + 2  # once over the outer link

        marks = {host.name: box.journal_cursor(host.name) for host in box.hosts}
        second = run(tmp_path, *deploy)
        assert second.returncode == 0, second.stdout + second.stderr
        assert "complete on all 8 hosts" in second.stdout + second.stderr
        assert sum(hub.sent.values()) == fetched
        sessions = {host.name: len(box.ssh_sessions(host.name, since=marks[host.name])) for host in box.hosts}
        assert max(sessions.values()) <= 3, sessions

        place = f"/var/lib/muster/weights/{model.replace('/', '--')}"
        victim = f"{place}/{'a' * 40}/model-00007.safetensors"
        box.exec("node5", ["truncate", "--size=5000", victim])
        seen = run(tmp_path, "muster", "weights", "status", "hosts.py", RECIPE)
        assert "model-00007.safetensors: has 5000 bytes, not 100000" in seen.stdout, seen.stderr
        third = run(tmp_path, *deploy)
        assert third.returncode == 0, third.stdout + third.stderr
        assert sum(hub.sent.values()) == fetched  # a peer had it
        verified = run(tmp_path, "muster", "weights", "verify", "hosts.py", RECIPE)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert verified.stdout.count("all right") == 8

        assert box.exec("node3", ["readlink", f"{place}/current"]).stdout.strip() == "a" * 40
        box.exec("node3", ["cp", "-r", f"{place}/{'a' * 40}", f"{place}/{'b' * 40}"])
        pruned = run(tmp_path, "muster", "weights", "prune", "hosts.py", RECIPE)
        assert pruned.returncode == 0, pruned.stdout + pruned.stderr
        assert f"node3: removed {'b' * 40}" in pruned.stdout
        assert box.exec("node3", ["ls", place]).stdout.split() == ["a" * 40, f"{'a' * 40}.lock", "current"]


def test_a_bundle_goes_from_the_control_machine_to_all(box: Sandbox, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "engine" / "wheels").mkdir(parents=True)
    (bundle / "engine" / "wheels" / "one-1-py3-none-any.whl").write_bytes(random.Random(8).randbytes(3_000_000))
    (bundle / "engine" / "pylock.toml").write_text("packages = []")
    sealed = gather.seal(bundle, RECIPE)
    (tmp_path / "hosts.py").write_text(BUNDLED.format(name=box.name, bundle=str(bundle)))
    (tmp_path / "deploy.py").write_text("from muster.deploys.stage_weights import stage_bundle\n\nstage_bundle()\n")
    place = f"/opt/muster/bundles/bundle--{RECIPE}/{sealed.revision}"
    wheel = f"{place}/wheels/one-1-py3-none-any.whl"
    # What an earlier run, cut in the middle, has left on the seed is not sent again.
    whole = (bundle / "engine" / "wheels" / "one-1-py3-none-any.whl").read_bytes()
    box.exec("node0", ["mkdir", "-p", f"{place}/wheels"])
    box.exec("node0", ["sh", "-c", f"head -c 1000000 /dev/zero > {wheel}.muster-wan"])
    first = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
    assert first.returncode != 0  # and it is not believed
    assert "arrived with SHA-256" in first.stdout + first.stderr
    second = run(tmp_path, "pyinfra", "-y", "hosts.py", "deploy.py")
    assert second.returncode == 0, second.stdout + second.stderr
    wanted = hashlib.sha256(whole).hexdigest()
    for host in box.hosts:
        assert box.exec(host.name, ["sha256sum", wheel]).stdout.split()[0] == wanted
