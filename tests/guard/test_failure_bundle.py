"""Names of failure bundles."""

from __future__ import annotations

from muster.guard import failure_bundle


def test_bundle_names_sort_by_age() -> None:
    assert failure_bundle.file_name("abc")[:2] == "20"
    assert failure_bundle.file_name("")[-5:] == "-none"
