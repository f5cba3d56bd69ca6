"""What is kept between two lives of a guard: the restart record, how the last guard ended, and the failure bundles.

A write that fails (full disk, missing directory) is ignored: nothing here is worth a restart. A hold by an operator is
the exception: what could not be kept is answered as not done.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from . import restart_policy
from .bounded_file import list_folder, read_json
from .messages import cut_to_encoded
from .restart_policy import RestartRecord

BUNDLES = 10
BUNDLE_LIMIT = 512 * 1024
"""Bytes of one failure bundle."""


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class StateStore:
    """Files below the unit's RuntimeDirectory (tmpfs, kept over restarts) and StateDirectory (disk)."""

    def __init__(self, runtime: str, state: str) -> None:
        self._record_path = os.path.join(runtime, "memory.json")
        self._held = os.path.join(state, "held.json")
        self._ended = os.path.join(runtime, "ended.json")
        self._start = os.path.join(state, "start.json")
        self._xids = os.path.join(runtime, "xids.json")
        self._cached = os.path.join(runtime, "cached.json")
        self._failures = os.path.join(state, "failures")

    def load_record(self) -> RestartRecord:
        """The record of this boot; after a reboot the hold; empty when neither can be read."""
        for path in (self._record_path, self._held):
            with contextlib.suppress(OSError, ValueError):
                return restart_policy.from_wire(read_json(path))
        return RestartRecord()

    def save_record(self, record: RestartRecord) -> None:
        if _write(self._record_path, restart_policy.to_wire(record)):
            # An older record would undo a hold, or a resume; without one, the hold on disk decides.
            with contextlib.suppress(OSError):
                os.unlink(self._record_path)
        self.keep_hold(record)

    def keep_hold(self, record: RestartRecord) -> str:
        """Bring the hold on disk to what the record says, through a power cut too; why that failed, or empty."""
        if record.held:
            return _write(self._held, restart_policy.to_wire(record), synced=True)
        try:
            # Removed, not rewritten: that works on a full disk too.
            os.unlink(self._held)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self._held}: {error.strerror or error}"
        return ""

    def is_held(self) -> bool:
        """Whether a hold is on disk."""
        with contextlib.suppress(OSError, ValueError):
            return bool(restart_policy.from_wire(read_json(self._held)).held)
        return False

    def lift_hold(self) -> None:
        """Remove the record and the hold of a stopped unit."""
        for path in (self._record_path, self._held):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(path)

    def save_ended(self, result: str) -> None:
        """Keep how the guard ended, as systemd reports it (ExecStopPost)."""
        _write(self._ended, {"result": result[:200]})

    def take_ended(self) -> str:
        """Return what `save_ended` kept, and remove it."""
        text = ""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            text = str(read_json(self._ended)["result"])[:200]
        with contextlib.suppress(OSError):
            os.unlink(self._ended)
        return text

    def load_start(self) -> float | None:
        """Seconds that the last start took until the group was ready."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            seconds = read_json(self._start)["seconds"]
            return float(seconds) if type(seconds) in (int, float) and 0 <= seconds < 1e9 else None
        return None

    def save_start(self, seconds: float) -> None:
        _write(self._start, {"seconds": round(seconds, 1)})

    def load_cached(self) -> float:
        """The share of the weights that the page cache held when it was looked at last; 0 where nobody has."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            share = read_json(self._cached)["share"]
            return float(share) if type(share) in (int, float) and 0 <= share <= 1 else 0.0
        return 0.0

    def save_cached(self, share: float) -> None:
        _write(self._cached, {"share": round(share, 3)})

    def load_resumed(self) -> float | None:
        """When an operator last resumed, in seconds of the kernel's clock."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
            resumed = float(read_json(self._xids)["resumed"])
            return resumed if 0.0 <= resumed <= time.monotonic() else None
        return None

    def save_resumed(self, seconds: float) -> None:
        _write(self._xids, {"resumed": seconds})

    def save_bundle(self, name: str, bundle: dict[str, Any]) -> None:
        """Keep a failure bundle, and only the newest BUNDLES of all. `name` sorts by age."""
        text = json.dumps(bundle)
        for size in (64 * 1024, 16 * 1024, 4 * 1024, 1024):
            if len(text) <= BUNDLE_LIMIT:
                break
            text = json.dumps(_with_short_texts(bundle, size))
        with contextlib.suppress(OSError):
            os.makedirs(self._failures, mode=0o700, exist_ok=True)
            for old in sorted(os.listdir(self._failures))[: -(BUNDLES - 1)]:
                os.unlink(os.path.join(self._failures, old))
        if len(text) <= BUNDLE_LIMIT:
            _write(os.path.join(self._failures, f"{name}.json"), text)

    def bundles(self, count: int) -> list[dict[str, Any]]:
        """The newest bundles, newest first."""
        newest: list[dict[str, Any]] = []
        with contextlib.suppress(OSError):
            folder, names = list_folder(self._failures)
            try:
                for name in sorted(names, reverse=True)[: min(count, BUNDLES)]:
                    with contextlib.suppress(OSError, ValueError):
                        newest.append(read_json(name, BUNDLE_LIMIT, folder))
            finally:
                os.close(folder)
        return newest


def _with_short_texts(data: Any, size: int) -> Any:
    """The same data with every text cut to its last `size` bytes as JSON."""
    if isinstance(data, str):
        return cut_to_encoded(data, size, keep_end=True)
    if isinstance(data, dict):
        return {name: _with_short_texts(value, size) for name, value in data.items()}
    if isinstance(data, list):
        return [_with_short_texts(value, size) for value in data]
    return data


def _write(path: str, data: Any, *, synced: bool = False) -> str:
    """Write all of it or nothing. A failure leaves no partial file; why it failed, or empty.

    `synced`: a power cut right after the return leaves the new file too.
    """
    text = data if isinstance(data, str) else json.dumps(data)
    draft = f"{path}.new"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
        if synced:
            folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        return f"{path}: {error.strerror or error}"
    return ""
