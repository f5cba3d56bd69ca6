"""Root gives nothing away that is not muster's, and works only below directories that are root's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.on_host import place_files
from muster.spec import host_data
from tests import sample_plans
from tests.deploys.conftest import HOSTS, Testbed

TMPFILES = "/etc/tmpfiles.d/muster-kimi-k2-instruct.conf"


def lines(**given: object) -> list[list[str]]:
    """Return the fields of the planned tmpfiles lines."""
    plan = sample_plans.plan("kimi-k2-instruct", 2, "H200", **given)
    return [line.split() for line in plan.head.files[TMPFILES].text.splitlines() if not line.startswith("#")]


def test_every_directory_but_the_hub_s_own_is_root_s() -> None:
    owners = {fields[1]: fields[3] for fields in lines()}
    assert owners.pop("/var/lib/muster/hf") == "muster"
    assert {"/var/lib/muster", "/var/cache/muster", "/opt/muster", "/etc/muster"} <= owners.keys()
    assert set(owners.values()) == {"root"}


@pytest.mark.parametrize(
    "path", ["/", "/data/../etc", "/etc", "/var/lib", "/var/lib/muster", "/usr/lib", "/home", "hf"]
)
def test_the_system_s_directories_are_refused_as_hf_home(path: str) -> None:
    with pytest.raises(Refusal, match="hf_home"):
        host_data.settings_of({"hf_home": path})


def base(root: Path, text: str) -> None:
    """Bring one tmpfiles file to a directory that stands for a host, as a deploy does."""
    item = {"path": TMPFILES, "text": text, "sha256": "", "mode": "644", "owner": "root", "group": "root"}
    place_files.main({"do": "base", "files": [item], "root": str(root)})


@pytest.mark.skipif(os.geteuid() != 0, reason="files of two owners need root")
def test_a_directory_of_somebody_else_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/thesis.txt").write_text("mine")
    for owner in (0, 4242):
        os.chown(tmp_path / "data", owner, owner)
        with pytest.raises(OSError, match=f"/data belongs to uid {owner}; needed: .* nothing on this host was changed"):
            base(tmp_path, "d /data 0755 nobody nogroup -\n")
        assert (tmp_path / "data").stat().st_uid == owner
    assert not (tmp_path / "etc").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="files of two owners need root")
def test_neither_is_a_link_followed(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to("/etc")
    with pytest.raises(OSError, match="/data is no directory"):
        base(tmp_path, "d /data 0755 nobody nogroup -\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="files of two owners need root")
def test_a_path_where_nothing_is_and_the_user_s_own_are_taken(tmp_path: Path) -> None:
    base(tmp_path, "d /data 0755 nobody nogroup -\nd /opt/muster 0755 root root -\n")
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", 65534, 65534)
    base(tmp_path, "d /data 0755 nobody nogroup -\n")


@pytest.mark.sandbox
def test_a_deploy_leaves_a_foreign_directory_alone_and_its_parents_to_root(testbed: Testbed) -> None:
    testbed.sh("node0", "rm -rf /data; mkdir /data; echo mine >/data/thesis.txt; chown -R 4242:4242 /data")
    # What an earlier version left: parents that belong to the engine's user.
    testbed.sh("node1", "id muster 2>/dev/null && chown muster:muster /var/lib/muster /var/cache/muster; true")
    refused = testbed.refused(hf_home="/data")
    assert "/data belongs to uid 4242" in refused.text
    assert testbed.sh("node0", "stat -c %u /data /data/thesis.txt") == "4242\n4242"
    testbed.deploy(hf_home="/data/hf")
    assert testbed.answers()
    for name in HOSTS:
        owners = testbed.sh(name, "stat -c '%U %a' /var/lib/muster /var/cache/muster /var/lib/muster/kimi-k2-instruct")
        assert owners.splitlines()[:2] == ["root 755", "root 755"], owners
        assert owners.splitlines()[2].startswith("muster "), owners
        assert testbed.sh(name, "stat -c %U /data/hf") == "muster"
    assert testbed.sh("node0", "stat -c %u /data /data/thesis.txt") == "4242\n4242"
    testbed.sh("node0", "rm -rf /data")
