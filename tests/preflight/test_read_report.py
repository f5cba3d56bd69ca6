"""Reports are read from answers; the clock is bounded by two readings."""

from __future__ import annotations

from muster.preflight.host_report import Clock, Unreadable

from . import sample


def test_two_readings_bound_the_offset_tighter_than_the_whole_probe() -> None:
    clock = Clock(started=100.1, ended=104.9, sent=100.0, received=105.0)
    low, high = clock.offset
    assert (round(low, 6), round(high, 6)) == (-0.1, 0.1)


def test_one_reading_is_enough() -> None:
    clock = sample.report(probe_gpus__started={"error": "no answer in time"}).clock
    assert isinstance(clock, Clock)
    assert [round(end, 3) for end in clock.offset] == [-0.2, 0.2]


def test_clock_that_is_no_number_is_unreadable() -> None:
    report = sample.report(probe_machine__clock={"value": {"wall": "noon"}})
    assert not isinstance(report.clock, Clock)


def test_units_that_cannot_be_read_are_not_none_running() -> None:
    assert sample.report(probe_machine__units={"error": "no /sys"}).units == Unreadable("no /sys")
    assert sample.report(probe_machine__units={"value": {"running": "all"}}).units == ()


def test_machine_s_kernel_and_memory() -> None:
    system = sample.report().system
    assert getattr(system, "kernel", None) == "6.1.0-40-amd64"
    assert getattr(system, "memory", None) == 2113456789 * 1024
