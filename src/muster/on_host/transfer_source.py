"""Where the seed gets its files: a hub, ModelScope, a directory that this host can read, or the control machine."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from muster.on_host import run_command, run_unprivileged, safe_paths, transfer_download
from muster.on_host import transfer_store as store
from muster.on_host.http_bounds import visible

_START = "import json, sys; r = json.load(sys.stdin); n = {'__name__': 'hub'}; exec(r['program'], n); n['main'](r)"
_FILES_AT_ONCE, _LINES, _LONGEST_LINE = 256, 1024, 65536
Entries = list[dict[str, Any]]


def fetch(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Fetch files as `<path>.muster-wan`, continuing what is there; yield each path when it has all its bytes.

    Args:
        source: `kind` (`hub`, `modelscope`, `directory`, `control`, `urls`) and what that kind needs.
        listing: of the revision.
        lacking: entries to fetch.
        directory: of the revision.

    Raises:
        OSError: the source's answer, and what to do.
    """
    for entry in lacking:
        place = store.inside(directory, entry["path"]) + store.WAN
        safe_paths.make_directory(os.path.dirname(place))
        if os.path.lexists(place):
            store.take_over(place)
    kinds = {"hub": _hub, "modelscope": _modelscope, "directory": _copied, "control": _sent, "urls": _addressed}
    if source["kind"] not in kinds:
        raise OSError(f"{len(lacking)} files are missing and there is no source; first {lacking[0]['path']}")
    yield from kinds[source["kind"]](source, listing, lacking, directory)


def arrived(directory: str, files: Entries) -> int:
    """Return the bytes that have arrived from outside of unfinished files."""
    total = 0
    for entry in files:
        try:
            total += os.path.getsize(os.path.join(directory, entry["path"]) + store.WAN)
        except OSError:
            continue
    return total


def _environment(source: dict[str, Any]) -> dict[str, str]:
    own = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    own["HF_HUB_DOWNLOAD_TIMEOUT"] = str(source.get("timeout", 30))
    if source.get("proxy"):
        own |= {"HTTPS_PROXY": source["proxy"], "HTTP_PROXY": source["proxy"]}
    if source.get("ssl_cert_file"):
        own |= {"SSL_CERT_FILE": source["ssl_cert_file"], "REQUESTS_CA_BUNDLE": source["ssl_cert_file"]}
    return {**run_command.environment(), **own}


def _hub(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Let huggingface_hub fetch, in the first Python that has it, some files at a time."""
    python = _python(source)
    for start in range(0, len(lacking), _FILES_AT_ONCE):
        yield from _fetched(python, source, listing, lacking[start : start + _FILES_AT_ONCE], directory)


def _fetched(
    python: str, source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str
) -> Iterator[str]:
    # It may write to these files and to nothing else of this host.
    places = [store.inside(directory, entry["path"]) + store.WAN for entry in lacking]
    handles = [store.open_own(place, os.O_RDWR | os.O_CREAT) for place in places]
    files = [{**entry, "handle": handle} for entry, handle in zip(lacking, handles)]
    request = {
        "program": source["program"],
        "endpoint": source.get("endpoint"),
        "token": transfer_download.token_of(source),
    }
    request |= {"model": listing["model"], "revision": listing["revision"], "files": files}
    try:
        child = subprocess.Popen(
            run_unprivileged.dropping([python, "-I", "-c", _START]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**_environment(source), "HOME": "/nonexistent"},
            cwd="/",
            pass_fds=handles,
        )
    finally:
        for handle in handles:
            os.close(handle)
    noise: collections.deque[str] = collections.deque(maxlen=20)
    lines: queue.Queue[str | None] = queue.Queue(_LINES)
    threading.Thread(target=_drain, args=(child.stderr, noise.append), daemon=True).start()
    threading.Thread(target=_drain, args=(child.stdout, lines.put, lambda: lines.put(None)), daemon=True).start()
    try:
        assert child.stdin
        child.stdin.write(json.dumps(request))
        child.stdin.close()
        left = {entry["path"] for entry in lacking}
        moved, since = arrived(directory, lacking), time.monotonic()
        while left:
            try:
                line = lines.get(timeout=1.0)
            except queue.Empty:
                _check_sizes(source, directory, lacking)
                now = arrived(directory, lacking)
                if now != moved:
                    moved, since = now, time.monotonic()
                if time.monotonic() - since > source.get("stall", transfer_download.STALL):
                    raise OSError(_stalled(source, time.monotonic() - since)) from None
                continue
            if line is None:
                tail = visible(" / ".join(list(noise)[-3:]))
                raise OSError("the download ended: " + (tail or f"status {child.wait()}"))
            path = _path_of(line)
            if path in left:
                left.remove(path)
                since = time.monotonic()
                yield path
    finally:
        child.kill()
        child.wait()


def _path_of(line: str) -> str:
    """Return the file that a line of the child calls fetched.

    Raises:
        OSError: the child's error, or a line that is none of its own.
    """
    try:
        answer = json.loads(line)
        if "error" not in answer:
            return str(answer["done"])
    except (ValueError, TypeError, LookupError, RecursionError):
        raise OSError(f"the download printed: {visible(line)[:200]}") from None
    raise OSError(visible(str(answer["error"]))[:2000])


def _check_sizes(source: dict[str, Any], directory: str, lacking: Entries) -> None:
    """End a download that brings more than a file's bytes, before it fills the disk.

    Raises:
        OSError: which file.
    """
    for entry in lacking:
        place = store.inside(directory, entry["path"]) + store.WAN
        if os.path.exists(place) and os.path.getsize(place) > entry["size"]:
            os.unlink(place)
            raise OSError(
                f"{source.get('endpoint') or 'the hub'} sent more than the {entry['size']} pinned bytes of"
                f" {entry['path']}; it was discarded; fix: use another source or endpoint"
            )


def _stalled(source: dict[str, Any], seconds: float) -> str:
    return (
        f"{source.get('endpoint') or 'the hub'} has sent nothing for {seconds:.0f} s; what has arrived is kept;"
        " fix: see whether the seed reaches it (hf_endpoint, proxy), and run again"
    )


def _drain(stream: Any, take: Callable[[str], Any], end: Callable[[], None] = lambda: None) -> None:
    with contextlib.suppress(OSError, ValueError):
        while line := stream.readline(_LONGEST_LINE):
            take(line)
    end()


def _python(source: dict[str, Any]) -> str:
    """Return a Python with huggingface_hub: an engine's, or that of a small environment that uv makes.

    Raises:
        OSError: neither an engine nor uv is here, or uv fails.
    """
    for path in source.get("pythons", ()):
        if os.access(path, os.X_OK) and _has_hub(str(path)):
            return str(path)
    venv, uv = source["venv"], source["uv"]
    if not os.access(uv, os.X_OK):
        raise OSError(f"no engine with huggingface_hub and no uv at {uv}; fix: provision the engine first")
    # A Python that uv has to bring must not come to /root, where only root could run it.
    pythons = {**run_command.environment(), "UV_PYTHON_INSTALL_DIR": os.path.join(os.path.dirname(venv), "python")}
    made = run_command.finish([uv, "venv", "--no-project", "--allow-existing", "--quiet", venv], 600, env=pythons)
    if made.status != 0:
        raise OSError("uv could not make an environment for huggingface_hub: " + made.errors.strip()[-500:])
    python = os.path.join(venv, "bin", "python")
    # Wheels only: building a source archive would run a package's code as root.
    arguments = [
        "--only-binary",
        ":all:",
        *source.get("install_args", ()),
        "huggingface_hub>=1.0,<3",
    ]
    env = {**_environment(source), **source.get("install_env", {})}
    done = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, *arguments], env=env, capture_output=True
    )
    if done.returncode:
        raise OSError("uv could not install huggingface_hub: " + done.stderr.decode(errors="replace").strip()[-500:])
    return python


def _has_hub(python: str) -> bool:
    try:
        return run_unprivileged.finish([python, "-I", "-c", "import huggingface_hub"], 120).status == 0
    except OSError:
        return False


def _modelscope(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Fetch from ModelScope, whose files are plain downloads with ranges."""
    base = (source.get("endpoint") or "https://modelscope.cn").rstrip("/")

    def address(path: str) -> str:
        query = urllib.parse.urlencode({"Revision": listing["revision"], "FilePath": path})
        return f"{base}/api/v1/models/{urllib.parse.quote(listing['model'])}/repo?{query}"

    yield from transfer_download.fetch_each(
        source, {entry["path"]: address(entry["path"]) for entry in lacking}, lacking, directory
    )


def _addressed(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Fetch every file from its own address, as package indexes list them; some may be files of this host."""
    yield from transfer_download.fetch_each(source, source["urls"], lacking, directory)


def _copied(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Copy from a directory of this host, such as a shared file system."""
    for entry in lacking:
        path = store.inside(directory, entry["path"]) + store.WAN
        try:
            with open(path, "ab") as copy:
                if copy.tell() > entry["size"]:
                    copy.truncate(0)
                    copy.seek(0)
                transfer_download.append_file(os.path.join(source["path"], entry["path"]), copy, entry["size"])
        except OSError as error:
            raise OSError(f"cannot copy {entry['path']} from {source['path']}: {error.strerror or error}") from None
        yield entry["path"]


def _sent(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Take what the control machine has already sent."""
    for entry in lacking:
        place = store.inside(directory, entry["path"]) + store.WAN
        here = os.path.getsize(place) if os.path.exists(place) else 0
        if here != entry["size"] and entry["size"]:
            raise OSError(f"the control machine sent {here} of {entry['size']} bytes of {entry['path']}; run again")
        if not entry["size"]:
            open(place, "ab").close()
        yield entry["path"]
