"""Where the seed gets its files: a hub, ModelScope, a directory that this host can read, or the control machine."""

from __future__ import annotations

import base64
import contextlib
import json
import netrc
import os
import queue
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from muster.on_host import run_command
from muster.on_host import transfer_store as store

_START = "import json, sys; r = json.load(sys.stdin); n = {'__name__': 'hub'}; exec(r['program'], n); n['main'](r)"
_STALL = 180.0
_ATTEMPTS = 5
_PIECE = 4 << 20
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
        os.makedirs(os.path.dirname(store.inside(directory, entry["path"])), 0o755, exist_ok=True)
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


def _token(source: dict[str, Any]) -> str | None:
    return (source.get("token") or {}).get("text")


def _environment(source: dict[str, Any]) -> dict[str, str]:
    own = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    own["HF_HUB_DOWNLOAD_TIMEOUT"] = str(source.get("timeout", 30))
    if source.get("proxy"):
        own |= {"HTTPS_PROXY": source["proxy"], "HTTP_PROXY": source["proxy"]}
    if source.get("ssl_cert_file"):
        own |= {"SSL_CERT_FILE": source["ssl_cert_file"], "REQUESTS_CA_BUNDLE": source["ssl_cert_file"]}
    return {**run_command.environment(), **own}


def _hub(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Let huggingface_hub fetch, in the first Python that has it."""
    python = _python(source)
    files = [{**entry, "to": store.inside(directory, entry["path"]) + store.WAN} for entry in lacking]
    request = {"program": source["program"], "endpoint": source.get("endpoint"), "token": _token(source)}
    request |= {"model": listing["model"], "revision": listing["revision"], "files": files}
    child = subprocess.Popen(
        [python, "-I", "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(source),
    )
    noise: list[str] = []
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_drain, args=(child.stderr, noise.append, None), daemon=True).start()
    threading.Thread(target=_drain, args=(child.stdout, lines.put, lines), daemon=True).start()
    try:
        assert child.stdin
        child.stdin.write(json.dumps(request))
        child.stdin.close()
        left = len(lacking)
        moved, since = arrived(directory, lacking), time.monotonic()
        while left:
            try:
                line = lines.get(timeout=1.0)
            except queue.Empty:
                now = arrived(directory, lacking)
                if now != moved:
                    moved, since = now, time.monotonic()
                if time.monotonic() - since > source.get("stall", _STALL):
                    raise OSError(_stalled(source, time.monotonic() - since)) from None
                continue
            if line is None:
                raise OSError("the download ended: " + (" / ".join(noise[-3:]).strip() or f"status {child.wait()}"))
            answer = json.loads(line)
            if "error" in answer:
                raise OSError(answer["error"])
            left -= 1
            since = time.monotonic()
            yield answer["done"]
    finally:
        child.kill()
        child.wait()


def _stalled(source: dict[str, Any], seconds: float) -> str:
    return (
        f"{source.get('endpoint') or 'the hub'} has sent nothing for {seconds:.0f} s; what has arrived is kept;"
        " fix: see whether the seed reaches it (hf_endpoint, proxy), and run again"
    )


def _drain(stream: Any, take: Callable[[str], Any], end: queue.Queue[str | None] | None) -> None:
    for line in stream:
        take(line)
    if end:
        end.put(None)


def _python(source: dict[str, Any]) -> str:
    """Return a Python with huggingface_hub: an engine's, or that of a small environment that uv makes.

    Raises:
        OSError: neither an engine nor uv is here, or uv fails.
    """
    for path in source.get("pythons", ()):
        if os.access(path, os.X_OK) and not run_command.run([path, "-I", "-c", "import huggingface_hub"], 120)[0]:
            return str(path)
    venv, uv = source["venv"], source["uv"]
    if not os.access(uv, os.X_OK):
        raise OSError(f"no engine with huggingface_hub and no uv at {uv}; fix: provision the engine first")
    run_command.must([uv, "venv", "--no-project", "--allow-existing", "--quiet", venv], 300)
    python = os.path.join(venv, "bin", "python")
    arguments = [*source.get("install_args", ()), source.get("requirement", "huggingface_hub>=1.0,<3")]
    env = {**_environment(source), **source.get("install_env", {})}
    done = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, *arguments], env=env, capture_output=True
    )
    if done.returncode:
        raise OSError("uv could not install huggingface_hub: " + done.stderr.decode(errors="replace").strip()[-500:])
    return python


def _modelscope(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Fetch from ModelScope, whose files are plain downloads with ranges."""
    base = (source.get("endpoint") or "https://modelscope.cn").rstrip("/")

    def address(path: str) -> str:
        query = urllib.parse.urlencode({"Revision": listing["revision"], "FilePath": path})
        return f"{base}/api/v1/models/{urllib.parse.quote(listing['model'])}/repo?{query}"

    yield from _plain(source, {entry["path"]: address(entry["path"]) for entry in lacking}, lacking, directory)


def _addressed(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Fetch every file from its own address, as package indexes list them; some may be files of this host."""
    yield from _plain(source, source["urls"], lacking, directory)


def _plain(source: dict[str, Any], urls: dict[str, str], lacking: Entries, directory: str) -> Iterator[str]:
    """Fetch files from addresses that support ranges; retry where that can help."""
    opening = opener(source)

    def one(entry: dict[str, Any]) -> str:
        url = urls[entry["path"]]
        where = urllib.parse.urlsplit(url).netloc or "this host"
        place = store.inside(directory, entry["path"]) + store.WAN
        for attempt in range(_ATTEMPTS):
            try:
                return _ranged(opening, url, place, entry, source)
            except urllib.error.HTTPError as error:
                if error.code not in (408, 429, 500, 502, 503, 504) or attempt == _ATTEMPTS - 1:
                    raise OSError(
                        f"{where} answered {error.code} for {entry['path']}; see the pinned revision"
                    ) from None
                time.sleep(min(60.0, float(error.headers.get("Retry-After") or 2**attempt)))
            except OSError as error:
                if attempt == _ATTEMPTS - 1:
                    raise OSError(f"{where} does not deliver {entry['path']}: {error}") from None
                time.sleep(2**attempt)
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(one, lacking)


def opener(source: dict[str, Any]) -> urllib.request.OpenerDirector:
    """Return an opener that uses the source's proxy and certificate authorities."""
    proxies = {"http": source["proxy"], "https": source["proxy"]} if source.get("proxy") else {}
    context = ssl.create_default_context(cafile=source.get("ssl_cert_file") or None)
    return urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )


def asking(url: str, source: dict[str, Any], start: int = 0) -> urllib.request.Request:
    """Return a request for an address from some offset, with the token or root's netrc entry for that host."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    known = None
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        known = netrc.netrc(os.path.expanduser("~/.netrc")).hosts.get(urllib.parse.urlsplit(url).hostname or "")
    # Unredirected: credentials are for this host only, not for one that it redirects to.
    if _token(source):
        request.add_unredirected_header("Authorization", f"Bearer {_token(source)}")
    elif known:
        pair = base64.b64encode(f"{known[0]}:{known[2]}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {pair}")
    return request


def _ranged(opening: Any, url: str, place: str, entry: dict[str, Any], source: dict[str, Any]) -> str:
    with open(place, "ab") as handle:
        if handle.tell() > entry["size"]:
            handle.truncate(0)
            handle.seek(0)
        start = handle.tell()
        if start < entry["size"]:
            with opening.open(asking(url, source, start), timeout=source.get("timeout", 30)) as reply:
                if start and reply.status != 206:  # a file of this host has neither status nor ranges
                    handle.truncate(0)
                    handle.seek(0)
                for piece in iter(lambda: reply.read(1 << 20), b""):
                    handle.write(piece)
        if handle.tell() != entry["size"]:
            raise OSError(f"{handle.tell()} of {entry['size']} bytes arrived")
    return str(entry["path"])


def _copied(source: dict[str, Any], listing: dict[str, Any], lacking: Entries, directory: str) -> Iterator[str]:
    """Copy from a directory of this host, such as a shared file system."""
    for entry in lacking:
        path = store.inside(directory, entry["path"]) + store.WAN
        try:
            with (
                open(os.path.join(source["path"], entry["path"]), "rb", buffering=0) as origin,
                open(path, "ab") as copy,
            ):
                origin.seek(copy.tell())
                for piece in iter(lambda: origin.read(_PIECE), b""):
                    copy.write(piece)
        except OSError as error:
            raise OSError(f"cannot copy {entry['path']} from {source['path']}: {error.strerror}") from None
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
