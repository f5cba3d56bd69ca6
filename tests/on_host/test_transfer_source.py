"""The seed fetches: it continues where a download was cut, and explains every answer that is not a file."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.hosts import programs
from muster.spec.listing import Listing
from muster.weights import hub as hub_client
from tests.free_port import free_port
from tests.on_host.transfer_runs import MIB, Run
from tests.weights.hub_server import FILES, FIRST, Hub, pin, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub("org/model", dict(FILES))) as one:
        yield one


@pytest.fixture(scope="session")
def hub_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with huggingface_hub, as the seed gets it where no engine has brought one."""
    place = tmp_path_factory.mktemp("hub")
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--no-project", str(place / "venv")], check=True)
    python = str(place / "venv" / "bin" / "python")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "huggingface_hub>=1.0,<3"], check=True)
    return python


def stage(hub: Hub, python: str, home: Path, listing: Listing | None = None, **source: Any) -> tuple[int, str, str]:
    """Run a seed without peers."""
    listing = listing or pin(hub, token=(source.get("token") or {}).get("text"))
    request = {
        "directory": str(home),
        "listing": listing.as_data(),
        "me": "h0",
        "seed": "h0",
        "address": "127.0.0.11",
        "port": free_port(),
        "peers": {},
        "source": {
            "kind": "hub",
            "from": "from the hub",
            "endpoint": hub.url,
            "token": None,
            "program": programs.source("transfer_hub"),
            "pythons": [python],
            "timeout": 3,
            **source,
        },
    }
    return Run(request).end()


def whole(home: Path) -> bool:
    return all((home / name).read_bytes() == body for name, body in FILES.items())


def test_the_seed_fetches_every_file(hub: Hub, hub_python: str, tmp_path: Path) -> None:
    hub.token = "secret-token"
    status, out, error = stage(hub, hub_python, tmp_path / "m", token={"text": "secret-token"})
    assert status == 0, error
    assert whole(tmp_path / "m")
    assert "secret-token" not in out + error


@pytest.mark.parametrize("cut", [1, 3 * MIB, 13 * MIB + 17, 24 * MIB - 1])
def test_a_cut_download_goes_on_where_it_was(hub: Hub, hub_python: str, tmp_path: Path, cut: int) -> None:
    hub.cuts[FIRST] = [cut]
    status, _, error = stage(hub, hub_python, tmp_path / "m")
    assert status == 0, error
    assert whole(tmp_path / "m")
    # huggingface_hub writes pieces of 10 MiB; what it had of the next one comes twice.
    assert hub.sent[FIRST] <= len(FILES[FIRST]) + 10 * MIB


def test_a_killed_download_goes_on_in_the_next_run(hub: Hub, hub_python: str, tmp_path: Path) -> None:
    home = tmp_path / "m"
    home.mkdir()
    (home / f"{FIRST}.muster-wan").write_bytes(FILES[FIRST][: 2 * MIB + 5])
    status, _, error = stage(hub, hub_python, home)
    assert status == 0, error
    assert whole(home)
    assert hub.sent[FIRST] == len(FILES[FIRST]) - 2 * MIB - 5


def test_a_wait_that_is_asked_for_is_kept(hub: Hub, hub_python: str, tmp_path: Path) -> None:
    listing = pin(hub)
    hub.refusals[FIRST] = [(429, {"Retry-After": "2"})]
    began = time.monotonic()
    status, _, error = stage(hub, hub_python, tmp_path / "m", listing)
    assert status == 0, error
    asked = [command for command, path, _ in hub.log if path.endswith(FIRST) and command == "GET"]
    assert len(asked) >= 2
    assert time.monotonic() - began >= 2  # a lower bound: it waited


@pytest.mark.parametrize(
    ("status", "says"), [(401, "needed: a token that may read it"), (404, "muster pin"), (500, "answered 500")]
)
def test_an_answer_that_is_none_is_explained(hub: Hub, hub_python: str, tmp_path: Path, status: int, says: str) -> None:
    listing = pin(hub)
    hub.refusals[FIRST] = [(status, {})] * 20
    ended, _, error = stage(hub, hub_python, tmp_path / "m", listing)
    assert ended != 0
    assert says in error
    assert FIRST in error
    hub.refusals.clear()
    assert stage(hub, hub_python, tmp_path / "m", listing)[0] == 0
    assert whole(tmp_path / "m")


def test_wrong_bytes_are_thrown_away_and_never_get_a_name(hub: Hub, hub_python: str, tmp_path: Path) -> None:
    listing = pin(hub)
    hub.wrong.add(FIRST)
    status, _, error = stage(hub, hub_python, tmp_path / "m", listing)
    assert status != 0
    assert f"{FIRST} arrived with SHA-256" in error
    assert not (tmp_path / "m" / FIRST).exists()
    hub.wrong.clear()
    assert stage(hub, hub_python, tmp_path / "m", listing)[0] == 0


def test_a_revision_that_moved_is_not_followed(hub: Hub, hub_python: str, tmp_path: Path) -> None:
    listing = pin(hub)
    hub.commit = "b" * 40  # the branch was rewritten, and the old commit is gone
    status, _, error = stage(hub, hub_python, tmp_path / "m", listing)
    assert status != 0
    assert "the history may have been rewritten" in error


def test_an_endpoint_that_hangs_is_not_waited_for_for_ever(hub: Hub, hub_python: str, tmp_path: Path) -> None:
    listing = pin(hub)
    hub.hangs.add(FIRST)
    status, _, error = stage(hub, hub_python, tmp_path / "m", listing, timeout=1, stall=4)
    assert status != 0
    assert "has sent nothing for" in error or "does not deliver" in error


def test_modelscope_is_fetched_in_ranges(hub: Hub, tmp_path: Path) -> None:
    listing = hub_client.from_modelscope("org/model", "master", endpoint=hub.url)
    hub.cuts[FIRST] = [MIB]
    status, _, error = stage(hub, "/nowhere", tmp_path / "m", listing, kind="modelscope")
    assert status == 0, error
    assert whole(tmp_path / "m")
    assert hub.sent[FIRST] == len(FILES[FIRST])
