"""Bring a model's revision onto this host together with its peers: the seed fetches, all verify, all pass it on.

Lines on stdout are progress. A verified file with a valid stamp is not read again; a damaged one is repaired chunk by
chunk; a killed run continues from what is on the disk.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from muster.on_host import mutex, safe_paths, transfer_chunks, transfer_room, transfer_source, whole_files
from muster.on_host import transfer_store as store
from muster.on_host.in_words import size
from muster.on_host.progress_lines import say
from muster.on_host.transfer_files import Files
from muster.on_host.transfer_pieces import PieceMap
from muster.on_host.transfer_progress import Meter
from muster.on_host.transfer_swarm import BAD_LIMIT, Swarm, distrust


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Take part in a run until this host is complete and no peer needs it; return what was done.

    Args:
        request: `directory`; `listing` {model, revision, files [{path, size, sha256}]}, the same on all hosts; `me`,
            `seed`, `address`, `port`, `peers` {name: {address, port, key: {text}}}; `source` (the seed's, see
            transfer_source); `interval` seconds between lines, `patience` seconds for a silent peer.

    Raises:
        OSError: why this host is not complete; what has arrived is kept for the next run.
    """
    os.umask(0o022)  # the ranks run as another user and must read all of it
    directory = request["directory"]
    transfer_room.make_own(directory)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    with mutex.held(directory + ".lock", "writes here", minutes=5):
        transfer_room.check_room(directory, request["listing"]["files"])
        return Stage(request).run()


class Stage:
    """One host's part in one run; see `main`."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request, self.directory = request, request["directory"].rstrip("/")
        self.listing = request["listing"]
        files = sorted((dict(entry) for entry in self.listing["files"]), key=lambda entry: str(entry["path"]))
        for entry in files:
            store.inside(self.directory, entry["path"])
        self.me, self.seed = request["me"], request["seed"]
        self.pieces = PieceMap(files, sorted(request["peers"]))
        self.stamps = store.Stamps(self.directory)
        self.chunks = transfer_chunks.known_chunks(self.directory, self.pieces.chunk, files)
        self.files = Files(self.pieces, self.directory)
        self.swarm = Swarm(
            self.pieces,
            self.files,
            self.me,
            self.seed,
            request["peers"],
            (request["address"], request["port"]),
            say,
            lambda at: self._later(self._verify, at),
            lambda at: self._later(self._scan, at),
            lambda at: self.stamps.drop(files[at]["path"]),
            request.get("patience", 60.0),
        )
        self.workers = ThreadPoolExecutor((os.cpu_count() or 1) + 2)
        self.began = time.monotonic()
        self.meter = Meter(self._total())

    def run(self) -> dict[str, Any]:
        """Take part in the run; see `main`."""
        before = store.state_of(self.directory)
        self.swarm.start()
        try:
            if self.me == self.seed:
                threading.Thread(target=self._guarded, args=(self._seed,), daemon=True).start()
            self._wait(lambda: self.pieces.done)
            removed = self._finish(before)
            say(f"all files are here and verified; {len(self.swarm.needed())} peers still need this host")
            self._wait(lambda: not self.swarm.needed())
        except OSError as error:
            self.pieces.fail(str(error))
            time.sleep(1.0)  # so that the peers learn why
            raise
        finally:
            self.swarm.stop()
            self.workers.shutdown(wait=False)
        seconds = time.monotonic() - self.began
        served = {name: peer.served for name, peer in self.pieces.peers.items() if peer.served}
        bad = {name: peer.bad_chunks for name, peer in self.pieces.peers.items() if peer.bad_chunks}
        say(f"complete: {len(self.pieces.files)} files, {size(self._total())} verified in {seconds:.0f} s")
        return {"seconds": seconds, "removed": removed, "chunks_from": served, "bad_from": bad}

    def _total(self) -> int:
        return sum(int(entry["size"]) for entry in self.pieces.files)

    def _later(self, work: Any, at: int) -> None:
        self.workers.submit(self._guarded, work, at)

    def _guarded(self, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self.pieces.fail(str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}")

    # --- the seed -----------------------------------------------------------------------------------------------------

    def _seed(self) -> None:
        """Offer what is here, fetch what is not, and offer each file as soon as it is verified."""
        results = list(self.workers.map(self._offer_own, range(len(self.pieces.files))))
        lacking = [self.pieces.files[at] for at, here in enumerate(results) if not here]
        numbers = {entry["path"]: at for at, entry in enumerate(self.pieces.files)}
        if lacking:
            say(f"fetching {len(lacking)} files, {size(sum(e['size'] for e in lacking))}, {self._source()}")
            for path in transfer_source.fetch(self.request["source"], self.listing, lacking, self.directory):
                self._later(self._offer_fetched, numbers[path])

    def _source(self) -> str:
        return str((self.request.get("source") or {}).get("from", "from nowhere"))

    def _offer_own(self, at: int) -> bool:
        """Offer a file if it is here and right; keep the good start of a damaged one as the start of a download."""
        entry = self.pieces.files[at]
        path, name = store.inside(self.directory, entry["path"]), entry["path"]
        if self.stamps.trusts(name, entry["sha256"]) and len(self.chunks.get(name, ())) == self.pieces.counts[at]:
            self._offer(at, self.chunks[name])
            return True
        if not os.path.lexists(path):
            return False
        store.take_over(path)
        sha256, hashes = transfer_chunks.digests(path, self.pieces.chunk)
        if self._right(at, path, sha256):
            self.stamps.add(name, sha256)
            self._offer(at, hashes)
            return True
        self.stamps.drop(name)
        good = transfer_chunks.keep_good_start(path, hashes, self.chunks.get(name, []), self.pieces.chunk)
        say(f"{name} is damaged after its first {size(good)}" if good else f"{name} is damaged")
        return False

    def _offer_fetched(self, at: int) -> None:
        entry = self.pieces.files[at]
        path = store.inside(self.directory, entry["path"])
        sha256, hashes = transfer_chunks.digests(path + store.WAN, self.pieces.chunk)
        if not self._right(at, path + store.WAN, sha256):
            os.unlink(path + store.WAN)
            raise OSError(
                f"{entry['path']} arrived with SHA-256 {sha256}, but {entry['sha256']} is pinned; it was discarded;"
                f" fix: run again; if it happens again, use another source or endpoint"
            )
        self._in_place(path, path + store.WAN)
        self.stamps.add(entry["path"], sha256)
        self._offer(at, hashes)

    def _right(self, at: int, path: str, sha256: str) -> bool:
        entry = self.pieces.files[at]
        return bool(os.path.getsize(path) == entry["size"] and sha256 == entry["sha256"])

    def _offer(self, at: int, hashes: list[str]) -> None:
        self.pieces.learn_hashes(at, hashes)
        self.pieces.open_file(at, list(range(len(hashes))))
        self.pieces.note_verified(at)

    # --- every host ---------------------------------------------------------------------------------------------------

    def _scan(self, at: int) -> None:
        """Find out which chunks of a file are already here."""
        entry, hashes = self.pieces.files[at], self.pieces.hashes[at]
        name, path = entry["path"], store.inside(self.directory, entry["path"])
        if self.stamps.trusts(name, entry["sha256"]):
            self.pieces.open_file(at, list(range(len(hashes))))
            self.pieces.note_verified(at)
            return
        safe_paths.remove_file(path + store.WAN)
        if os.path.lexists(path):
            self.stamps.drop(name)
            os.rename(path, path + store.PART)
        here: list[int] = []
        if os.path.lexists(path + store.PART):
            store.take_over(path + store.PART)
            os.truncate(path + store.PART, entry["size"])
            here = transfer_chunks.good_chunks(path + store.PART, hashes, self.pieces.chunk)
        self.files.open(at)
        self.pieces.open_file(at, here)
        if len(here) == len(hashes):
            self._verify(at)

    def _verify(self, at: int) -> None:
        """Read a file again once all its chunks are here, and give it its final name if it is right."""
        entry, path = self.pieces.files[at], store.inside(self.directory, self.pieces.files[at]["path"])
        sha256 = whole_files.sha256(path + store.PART)
        if not self._right(at, path + store.PART, sha256):
            safe_paths.remove_file(path + store.PART)
            raise OSError(
                f"{entry['path']} has SHA-256 {sha256}, but {entry['sha256']} is pinned, though every chunk has the"
                f" digest that {self.seed} announced: {self.seed} announces false digests, or this disk corrupts data;"
                f" nothing of it was kept; {distrust(self.seed)}"
            )
        os.fsync(self.files.open(at))
        self._in_place(path, path + store.PART)
        self.stamps.add(entry["path"], sha256)
        self.pieces.note_verified(at)

    def _in_place(self, path: str, temporary: str) -> None:
        store.take_over(temporary)
        os.rename(temporary, path)
        whole_files.sync_directory(os.path.dirname(path))

    def _finish(self, before: dict[str, Any]) -> list[str]:
        files = {entry["path"]: {"size": entry["size"], "sha256": entry["sha256"]} for entry in self.pieces.files}
        kept = {key: self.listing[key] for key in ("model", "revision")}
        manifest = {"format": 1, **kept, "files": files}
        hashes = {self.pieces.files[at]["path"]: list_ for at, list_ in self.pieces.hashes.items()}
        removed = store.finish(self.directory, manifest, hashes, self.pieces.chunk)
        for path in removed:
            if path in before["extra"] and not store.unfinished(path):
                say(f"{path} is not in the manifest; removed")
        return removed

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _wait(self, reached: Any) -> None:
        """Wait, print progress, and fail when the run cannot go on."""
        pieces, interval = self.pieces, self.request.get("interval", 10.0)
        printed = time.monotonic()
        while True:
            with pieces.changed:
                if reached():
                    return
                if pieces.error:
                    raise OSError(pieces.error)
                pieces.changed.wait(0.5)
            if time.monotonic() - printed > interval:
                printed = time.monotonic()
                say(self._progress())
            if not pieces.done:
                self._fail_if_hopeless()

    def _fail_if_hopeless(self) -> None:
        pieces = self.pieces
        if self.me == self.seed:
            return
        if not self.swarm.gone(self.seed):
            if pieces.peers[self.seed].bad_chunks < BAD_LIMIT or not self._only_at_seed():
                return
            raise OSError(f"{self.seed}, the seed, serves bad data that no other host has; fix: run again to repair it")
        unknown = len(pieces.files) - len(pieces.opened)
        if unknown or self._only_at_seed() or not [n for n in pieces.peers if not self.swarm.gone(n)]:
            raise OSError(
                f"{self.seed}, the seed, has been silent for {pieces.peers[self.seed].silent:.0f} s and no other host"
                f" has all of the rest; what is here is kept; fix: find out why {self.seed} stopped, and run again"
            )

    def _only_at_seed(self) -> bool:
        pieces = self.pieces
        have = [peer for name, peer in pieces.peers.items() if name != self.seed and not self.swarm.gone(name)]
        return any(not pieces.state[c] and not any(p.has[c] for p in have) for c in range(pieces.chunks))

    def _progress(self) -> str:
        coming = 0
        if self.me == self.seed and not self.pieces.done:
            coming = transfer_source.arrived(self.directory, self.pieces.files)
        return self.meter.line(self.pieces, coming, self.me == self.seed)
