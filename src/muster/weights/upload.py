"""Send files from the control machine to one host over the open SSH connection, continuing where it was cut."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.util import make_unix_command_for_host

from muster.hosts.run_programs import run_program
from muster.hosts.say import fail, say
from muster.on_host.in_words import size
from muster.spec.listing import Listing

_PIECE, _BEAT = 1 << 20, 10.0
_STALLED = 600.0
"""Seconds that a host may take no byte before the upload ends."""
_BECOME = ("_sudo", "_sudo_user", "_sudo_password", "_use_sudo_login", "_su_user", "_use_su_login", "_doas")


def send(state: State, host: Host, listing: Listing, directory: str, origin: str) -> bool:
    """Append the missing bytes to `<path>.muster-wan` on the host; return whether all were sent.

    Args:
        state, host: pyinfra's, while an operation is executed; its sudo is used.
        listing: files to send.
        directory: of the revision, on the host.
        origin: directory on this machine.
    """
    request = {"do": "missing", "directory": directory, "files": listing.as_data()["files"]}
    answer = run_program(state, host, "weights_on_disk", request)
    if "error" in answer:
        fail(host, answer["error"])
        return False
    missing: dict[str, int] = answer["missing"]
    # By our own listing: a host that asks for another file of this machine does not get it.
    starts = {entry.path: min(missing[entry.path], entry.size) for entry in listing.files if entry.path in missing}
    total = sum(entry.size - starts[entry.path] for entry in listing.files if entry.path in starts)
    sent, began, printed = 0, time.monotonic(), time.monotonic()
    for path, start in starts.items():
        place = Path(origin, path)
        try:
            with place.open("rb") as handle:
                handle.seek(start)
                channel = _append(state, host, f"{directory}/{path}.muster-wan")
                while piece := handle.read(_PIECE):
                    channel.sendall(piece)
                    sent += len(piece)
                    if time.monotonic() - printed > _BEAT:
                        printed = time.monotonic()
                        say(host, f"sent {size(sent)} of {size(total)}, {sent / (printed - began) / 1e6:.0f} MB/s")
                channel.shutdown_write()
                if not channel.status_event.wait(_STALLED):
                    raise TimeoutError(f"the host has not confirmed it within {_STALLED:.0f} s")
                if channel.recv_exit_status():
                    fail(host, f"could not append to {path}: {channel.recv_stderr(1000).decode(errors='replace')}")
                    return False
        except OSError as error:
            fail(host, f"{place} could not be sent: {error}; what has arrived is kept; fix: run again")
            return False
    return True


def _append(state: State, host: Host, path: str) -> Any:
    """Open a channel whose input is appended to a file on the host."""
    given: Mapping[str, Any] = host.current_op_global_arguments or {}
    become = {key: given[key] for key in _BECOME if key in given}
    command = make_unix_command_for_host(state, host, StringCommand(f"cat >> {shlex.quote(path)}"), **become)
    channel = host.connector.client.get_transport().open_session(timeout=_STALLED)  # type: ignore[attr-defined]
    channel.settimeout(_STALLED)
    channel.exec_command(command.get_raw_value())
    return channel
