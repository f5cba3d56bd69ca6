"""A bundle holds one resolution, every wheel checked; what is missing or changed is named."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.plan.prepare import from_bundle, plan_for
from muster.plan.release import release_of
from muster.plan.types import Release
from muster.plan.weights_path import bundle_path
from muster.spec import bundles
from muster.spec.host import HostSpec
from muster.spec.inventory import Fleet
from muster.spec.listing import Entry, Listing
from muster.spec.settings import Settings
from muster.weights import gather

NAME = "muster_test_wheel_of_no_index"


def wheel(place: Path, version: str = "1.0") -> Path:
    """Write the smallest wheel there is."""
    info = f"{NAME}-{version}.dist-info"
    files = {
        f"{NAME}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    def row(name: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        return f"{name},sha256={digest},{len(text)}\n"

    place.mkdir(exist_ok=True)
    path = place / f"{NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(row(n, t) for n, t in files.items()) + f"{info}/RECORD,,\n")
    return path


def release(place: Path, *more: str) -> Release:
    arguments = ("--no-index", "--find-links", str(place), *more)
    return Release("r", "/opt/r", True, "3.12", (f"{NAME}==1.0",), install_args=arguments)


def test_a_resolution_names_the_wheel_and_its_hash_and_the_wheel_is_gathered(tmp_path: Path) -> None:
    made = wheel(tmp_path / "index")
    locked = gather.lock(release(tmp_path / "index"), tmp_path / "out")
    assert hashlib.sha256(made.read_bytes()).hexdigest() in locked.read_text()
    (found,) = gather.wheels(locked, tmp_path / "out" / "wheels")
    assert found.read_bytes() == made.read_bytes()
    before = found.stat().st_ino
    (again,) = gather.wheels(locked, tmp_path / "out" / "wheels")
    assert again.stat().st_ino == before


def test_a_wheel_that_is_not_what_was_resolved_is_refused(tmp_path: Path) -> None:
    made = wheel(tmp_path / "index")
    locked = gather.lock(release(tmp_path / "index"), tmp_path / "out")
    made.write_bytes(made.read_bytes() + b"x")
    with pytest.raises(Refusal, match="has SHA-256"):
        gather.wheels(locked, tmp_path / "out" / "wheels")
    assert list((tmp_path / "out" / "wheels").iterdir()) == []


def test_a_package_that_is_nowhere_is_refused_with_what_uv_says(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    with pytest.raises(Refusal, match="uv pip compile"):
        gather.lock(release(tmp_path / "index"), tmp_path / "out")


def test_a_package_with_wheels_for_newer_platforms_only_says_what_to_give(tmp_path: Path) -> None:
    made = wheel(tmp_path / "index")
    made.rename(made.with_name(made.name.replace("py3-none-any", "py3-none-manylinux_2_34_x86_64")))
    with pytest.raises(Refusal, match="--platform with the glibc of the hosts"):
        gather.lock(release(tmp_path / "index"), tmp_path / "out")
    newer = gather.lock(release(tmp_path / "index"), tmp_path / "out", platform="x86_64-manylinux_2_34")
    assert "manylinux_2_34" in newer.read_text()


def test_a_backend_that_asks_this_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="torch_backend is 'auto'"):
        gather.lock(release(tmp_path, "--torch-backend", "auto"), tmp_path / "out")


def test_a_package_without_a_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pylock.toml").write_text(
        'lock-version = "1.0"\n[[packages]]\nname = "old"\nversion = "1"\n'
        f'sdist = {{ url = "https://index.example/old-1.tar.gz", hashes = {{ sha256 = "{"0" * 64}" }} }}\n'
    )
    with pytest.raises(Refusal, match="old 1 has no wheel"):
        gather.wheels(tmp_path / "pylock.toml", tmp_path / "wheels")


def test_a_sealed_bundle_has_a_place_named_by_its_content(tmp_path: Path) -> None:
    wheel(tmp_path / "engine")
    sealed = gather.seal(tmp_path, "some")
    assert bundles.read(tmp_path) == sealed
    settings = Settings(bundle=str(tmp_path), index_url="https://index.example", torch_backend="auto")
    where = f"/opt/muster/bundles/bundle--some/{sealed.revision}"
    assert bundle_path(settings) == where
    applied = from_bundle(settings)
    assert (applied.index_url, applied.find_links, applied.torch_backend) == (None, [f"{where}/wheels"], None)
    assert applied.weights == settings.weights
    env = release_of(applied, ray=False).env
    assert env["UV_NO_INDEX"] == env["UV_OFFLINE"] == "1"
    assert env["UV_PYTHON_INSTALL_MIRROR"] == f"file://{where}/python"
    wheel(tmp_path / "engine", "2.0")
    assert gather.seal(tmp_path, "some").revision != sealed.revision


def test_weights_of_a_bundle_are_served_from_where_they_are_staged(tmp_path: Path) -> None:
    wheel(tmp_path / "engine")
    gather.seal(tmp_path, "kimi-k2-instruct")
    (tmp_path / "weights").mkdir()
    files = (Entry("model.safetensors", 1 << 20, "a" * 64),)
    pin = Listing("moonshotai/Kimi-K2-Instruct", "b" * 40, "hub", files)
    (tmp_path / "pin.json").write_text(json.dumps(pin.as_data()))
    hosts = tuple(HostSpec(f"gpu-{n}", f"198.51.100.{n + 1}", "eth1", "H800", 8) for n in range(2))
    plan = plan_for("kimi-k2-instruct", Fleet("two", hosts, Settings(bundle=str(tmp_path))))
    place = f"/var/lib/muster/weights/moonshotai--Kimi-K2-Instruct/{'b' * 40}"
    assert plan.head.processes[-1].argv[2] == place
    assert (plan.weights.kind, plan.weights.origin) == ("staged", f"control:{tmp_path}")


def test_without_a_bundle_settings_stay() -> None:
    assert from_bundle(Settings()) == Settings()
    assert "UV_NO_INDEX" not in release_of(Settings(), ray=False).env


def test_a_directory_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="is not a bundle"):
        bundles.read(tmp_path)
