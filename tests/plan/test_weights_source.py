"""Where weights come from, in one line: bytes, deadline, and the rate that this needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.plan.weights_source import source_of
from muster.spec import recipe
from muster.spec.listing import Entry, Listing
from muster.spec.settings import Settings

RECIPE = recipe.load("kimi-k2-instruct")
TERABYTE = 10**12
ESTIMATE = 1029 * 10**9
DOWNLOAD = (
    "931 GiB downloaded by each host for itself, 2 times, inside ready_timeout (3600 s): 2.2 Gbit/s at each;"
    " to bring them before: weights_source, muster stage"
)


def listing(model: str = RECIPE.model) -> Listing:
    return Listing(model, "a" * 40, "hub", (Entry("model-1.safetensors", TERABYTE, "0" * 64),))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {},
            DOWNLOAD,
        ),
        (
            {"weights_source": "hub"},
            "931 GiB from hub to one host, from there to the other 1, before ranks stop and without a deadline",
        ),
        (
            {"offline": True},
            "931 GiB from the hub's cache on every host (/var/lib/muster/hf); nothing is downloaded",
        ),
        ({"extra_args": ["--load-format", "dummy"]}, "none are loaded (--load-format dummy)"),
    ],
)
def test_the_line(settings: dict[str, Any], line: str) -> None:
    assert source_of(RECIPE, Settings(**settings), listing(), ESTIMATE).line(2) == line


def test_a_directory_is_no_download() -> None:
    source = source_of(RECIPE, Settings(model="/data/kimi"), listing(), ESTIMATE)
    assert source.line(2).endswith("from /data/kimi on every host; nothing is downloaded")


def test_a_bundle_brings_them_from_the_control_machine(tmp_path: Path) -> None:
    source = source_of(RECIPE, Settings(bundle=str(tmp_path)), listing(), ESTIMATE, bundled=True)
    assert (source.kind, source.origin) == ("staged", f"control:{tmp_path}")


def test_without_a_pin_the_bytes_are_worked_out_and_said_to_be() -> None:
    for pin in (None, listing("somebody/else")):
        source = source_of(RECIPE, Settings(), pin, ESTIMATE)
        assert (source.bytes, source.exact) == (ESTIMATE, False)
        assert source.line(1).startswith("about 958 GiB downloaded by each host for itself, 1 time, inside")


def test_a_shorter_deadline_needs_a_faster_way() -> None:
    half = source_of(RECIPE, Settings(ready_timeout=1800), listing(), ESTIMATE)
    assert half.gbit_per_s == pytest.approx(2 * source_of(RECIPE, Settings(), listing(), ESTIMATE).gbit_per_s)
