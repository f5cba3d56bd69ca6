"""Files on a host's disk, verified."""

from __future__ import annotations

import hashlib
from pathlib import Path

from muster.on_host import transfer_store
from tests.on_host.transfer_runs import model


def test_verification_names_what_is_wrong(tmp_path: Path) -> None:
    model(tmp_path, {"good": 1000, "flipped": 1000})
    expected = {
        path: {"size": 1000, "sha256": hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()}
        for path in ("good", "flipped")
    }
    (tmp_path / "flipped").write_bytes(b"\0" * 1000)
    expected["gone"] = expected["good"]
    found = transfer_store.verify(str(tmp_path), expected)
    assert set(found) == {"flipped", "gone"}
    assert found["gone"] == "missing"
