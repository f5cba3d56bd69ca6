"""Run a tool of this host: in English, with a deadline, with bounded output."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

# A plain SSH session lacks the directories of sysctl, ip and nvidia-smi on some distributions.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIMIT = 32 << 20
MISSING, LATE = 127, 124


class Finished(NamedTuple):
    """A tool that ended: its exit status (None: killed or stuck), output, errors, and what the limit cut."""

    status: int | None
    output: str
    errors: str
    truncated: bool
    lines: int


def environment() -> dict[str, str]:
    """Return the environment for tools: English messages, no colours, and the administrators' directories in PATH."""
    path = os.environ.get("PATH", "") + ":" + _PATH
    return {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "LANGUAGE": "", "SYSTEMD_COLORS": "0"}


def finish(
    argv: Sequence[str],
    seconds: float,
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    limit: int = LIMIT,
    keep: re.Pattern[bytes] | None = None,
) -> Finished:
    """Run a tool to its end, its deadline or its limit of output, whichever comes first.

    Args:
        argv: the command.
        seconds: its deadline. A tool stuck in the kernel is left behind, not waited for.
        stdin: text for its standard input.
        env: its environment; `environment()` when not given.
        cwd: its working directory.
        limit: bytes kept of output and of errors; a tool that prints more is killed.
        keep: keep only the lines that match; `lines` counts them all.

    Raises:
        OSError: the tool cannot be started. TimeoutError: it missed its deadline.
    """
    with _input(stdin) as given:
        try:
            child = subprocess.Popen(
                argv,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment() if env is None else env,
                cwd=cwd,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise FileNotFoundError(f"{argv[0]} is not installed") from None
    kept = {"out": bytearray(), "err": bytearray()}
    rest, count, truncated = b"", 0, False
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for name, stream in (("out", child.stdout), ("err", child.stderr)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, name)
        while selector.get_map() and not truncated and time.monotonic() < deadline:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                if keep and key.data == "out":
                    lines = (rest + chunk).split(b"\n")
                    rest = lines.pop()[-4096:] if chunk else b""
                    count += sum(map(bool, lines))
                    chunk = b"".join(line[:1024] + b"\n" for line in lines if keep.search(line))
                kept[key.data] += chunk
                truncated = truncated or len(kept[key.data]) > limit
        late = bool(selector.get_map()) and not truncated
    if late or truncated:
        kill(child)
    # A tool may close its pipes and live on.
    status = _status(child, max(2.0, deadline - time.monotonic()))
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()
    if late:
        raise TimeoutError(f"{argv[0]} did not answer in {seconds:g} s")
    out, err = (bytes(kept[name][:limit]).decode("utf-8", "replace") for name in ("out", "err"))
    return Finished(status, out, err, truncated, count)


@contextlib.contextmanager
def _input(text: str) -> Iterator[IO[bytes]]:
    """Open a file that holds a text for standard input."""
    if not text:
        with open(os.devnull, "rb") as nothing:
            yield nothing
        return
    # Takes longer to import than most tools take to run.
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file


def _status(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        kill(child)
        return None


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a tool with its children, without waiting: one that is stuck in the kernel stays behind."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except OSError:
        child.kill()


def run(argv: Sequence[str], seconds: float = 20) -> tuple[int, str]:
    """Run a tool and return (exit status, output followed by errors).

    A missing tool answers 127, one that missed its deadline 124, one that printed too much 124 as well.

    Args:
        argv: the command.
        seconds: its deadline.
    """
    try:
        done = finish(argv, seconds)
    except TimeoutError as error:
        return LATE, str(error)
    except OSError as error:
        return MISSING, f"{argv[0]}: {error.strerror or error}"
    if done.truncated or done.status is None:
        return LATE, f"{argv[0]} printed more than {LIMIT >> 20} MiB" if done.truncated else f"{argv[0]} did not end"
    return done.status, done.output + done.errors


def must(argv: Sequence[str], seconds: float = 60) -> str:
    """Run a tool that has to succeed and return its output.

    Raises:
        OSError: it failed; the message holds the command and its last lines.
    """
    status, output = run(argv, seconds)
    if status:
        tail = " / ".join(output.strip().splitlines()[-5:])
        raise OSError(f"`{' '.join(argv)}` ended with {status}: {tail}")
    return output
