"""Bring a model's revision onto this host, together with its peers: the seed fetches, all verify, all pass it on.

Lines on stdout are progress. What is verified and remembered is not read again; what is broken is mended chunk by
chunk; a run that was killed goes on from what lies on the disk.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from muster.on_host import mutex, progress_lines, transfer_room, transfer_source, whole_files
from muster.on_host import transfer_store as store
from muster.on_host.transfer_files import Files
from muster.on_host.transfer_pieces import Board
from muster.on_host.transfer_progress import Meter, size
from muster.on_host.transfer_swarm import Swarm


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Take part in a run until this host is complete and no peer needs it, and return what was done.

    Args:
        request: `directory`; `listing` {model, revision, files [{path, size, sha256, git}]}, equal on all hosts;
            `me`, `seed`, `address`, `port`, `peers` {name: {address, port, key: {text}}}; `source` (the seed's, see
            weights_source); `interval` seconds between lines, `patience` seconds for a silent peer.

    Raises:
        OSError: why this host is not complete; what has arrived stays for the next run.
    """
    os.umask(0o022)  # the ranks run as another user and must read all of it
    directory = request["directory"]
    os.makedirs(directory, 0o755, exist_ok=True)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    with open(directory + ".lock", "w") as lock:
        mutex.take(lock, "writes here", minutes=5)
        transfer_room.check_room(directory, sum(int(entry["size"]) for entry in request["listing"]["files"]))
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
        self.board = Board(files, sorted(request["peers"]))
        self.stamps = store.Stamps(self.directory)
        self.chunks = store.known_chunks(self.directory, self.board.chunk)
        self.files = Files(self.board, self.directory)
        self.swarm = Swarm(
            self.board,
            self.files,
            self.me,
            self.seed,
            request["peers"],
            (request["address"], request["port"]),
            progress_lines.say,
            lambda at: self._later(self._verify, at),
            lambda at: self._later(self._scan, at),
            lambda at: self.stamps.drop(files[at]["path"]),
            request.get("patience", 60.0),
        )
        self.pool = ThreadPoolExecutor((os.cpu_count() or 1) + 2)
        self.began = time.monotonic()
        self.meter = Meter(self._total())

    def run(self) -> dict[str, Any]:
        """Do it; see `main`."""
        before = store.look(self.directory)
        self.swarm.start()
        try:
            if self.me == self.seed:
                threading.Thread(target=self._guarded, args=(self._seed,), daemon=True).start()
            self._wait(lambda: self.board.done)
            removed = self._finish(before)
            progress_lines.say(
                f"all files are here and verified; {len(self.swarm.needed())} peers still need this host"
            )
            self._wait(lambda: not self.swarm.needed())
        except OSError as error:
            self.board.fail(str(error))
            time.sleep(1.0)  # the peers hear why
            raise
        finally:
            self.swarm.stop()
            self.pool.shutdown(wait=False)
        seconds = time.monotonic() - self.began
        gave = {name: peer.gave for name, peer in self.board.peers.items() if peer.gave}
        progress_lines.say(
            f"complete: {len(self.board.files)} files, {size(self._total())} verified in {seconds:.0f} s"
        )
        return {"seconds": seconds, "removed": removed, "chunks_from": gave, "wrong_from": self.swarm.accused}

    def _total(self) -> int:
        return sum(int(entry["size"]) for entry in self.board.files)

    def _later(self, work: Any, at: int) -> None:
        self.pool.submit(self._guarded, work, at)

    def _guarded(self, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self.board.fail(str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}")

    # --- the seed -----------------------------------------------------------------------------------------------------

    def _seed(self) -> None:
        """Offer what is here, fetch what is not, each file as soon as it is verified."""
        results = list(self.pool.map(self._offer_own, range(len(self.board.files))))
        lacking = [self.board.files[at] for at, here in enumerate(results) if not here]
        numbers = {entry["path"]: at for at, entry in enumerate(self.board.files)}
        if lacking:
            progress_lines.say(
                f"fetching {len(lacking)} files, {size(sum(e['size'] for e in lacking))}, {self._source()}"
            )
            for path in transfer_source.fetch(self.request["source"], self.listing, lacking, self.directory):
                self._later(self._offer_fetched, numbers[path])

    def _source(self) -> str:
        return str((self.request.get("source") or {}).get("from", "from nowhere"))

    def _offer_own(self, at: int) -> bool:
        """Offer a file if it is here and right; put what is wrong aside as the beginning of a download."""
        entry = self.board.files[at]
        path, name = store.inside(self.directory, entry["path"]), entry["path"]
        if self.stamps.trusts(name, entry.get("sha256")) and len(self.chunks.get(name, ())) == self.board.counts[at]:
            self._offer(at, entry["sha256"], self.chunks[name])
            return True
        if not os.path.exists(path):
            return False
        sha256, hashes = store.digests(path, self.board.chunk)
        if self._right(at, path, sha256):
            self.stamps.add(name, sha256)
            self._offer(at, sha256, hashes)
            return True
        known = self.chunks.get(name, [])
        good = next((n for n, (a, b) in enumerate(zip(hashes, known)) if a != b), min(len(hashes), len(known)))
        progress_lines.say(
            f"{name} is damaged; its first {size(good * self.board.chunk)} are right" if good else f"{name} is damaged"
        )
        self.stamps.drop(name)
        os.rename(path, path + store.WAN)
        os.truncate(path + store.WAN, min(good * self.board.chunk, entry["size"], os.path.getsize(path + store.WAN)))
        return False

    def _offer_fetched(self, at: int) -> None:
        entry = self.board.files[at]
        path = store.inside(self.directory, entry["path"])
        sha256, hashes = store.digests(path + store.WAN, self.board.chunk)
        if not self._right(at, path + store.WAN, sha256):
            os.unlink(path + store.WAN)
            raise OSError(
                f"{entry['path']} came with SHA-256 {sha256}, not {entry.get('sha256') or 'what git names it by'};"
                f" it was thrown away; fix: run again, and if it stays so, take another source or endpoint"
            )
        self._in_place(path, path + store.WAN)
        self.stamps.add(entry["path"], sha256)
        self._offer(at, sha256, hashes)

    def _right(self, at: int, path: str, sha256: str) -> bool:
        entry = self.board.files[at]
        if os.path.getsize(path) != entry["size"]:
            return False
        if entry.get("sha256"):
            return bool(sha256 == entry["sha256"])
        return not entry.get("git") or store.git_digest(path) == entry["git"]

    def _offer(self, at: int, sha256: str, hashes: list[str]) -> None:
        self.board.know(at, sha256, hashes)
        self.board.open_file(at, list(range(len(hashes))))
        self.board.verify(at)

    # --- every host ---------------------------------------------------------------------------------------------------

    def _scan(self, at: int) -> None:
        """Find out which chunks of a file are here already."""
        entry, hashes = self.board.files[at], self.board.hashes[at]
        name, path = entry["path"], store.inside(self.directory, entry["path"])
        if self.stamps.trusts(name, entry["sha256"]):
            self.board.open_file(at, list(range(len(hashes))))
            self.board.verify(at)
            return
        whole_files.remove(path + store.WAN)
        if os.path.exists(path):
            self.stamps.drop(name)
            os.rename(path, path + store.PART)
        here: list[int] = []
        if os.path.exists(path + store.PART):
            os.truncate(path + store.PART, entry["size"])
            here = store.good_chunks(path + store.PART, hashes, self.board.chunk)
        self.files.open(at)
        self.board.open_file(at, here)
        if len(here) == len(hashes):
            self._verify(at)

    def _verify(self, at: int) -> None:
        """Read a file whose chunks are all here once more, whole, and give it its name."""
        entry, path = self.board.files[at], store.inside(self.directory, self.board.files[at]["path"])
        sha256 = whole_files.sha256(path + store.PART)
        if not self._right(at, path + store.PART, sha256) or sha256 != entry["sha256"]:
            raise OSError(
                f"{entry['path']} has SHA-256 {sha256}, not {entry['sha256']}, though every chunk is as {self.seed}"
                f" said: {self.seed} does not tell the truth, or this disk does not keep it"
            )
        os.fsync(self.files.open(at))
        self._in_place(path, path + store.PART)
        self.stamps.add(entry["path"], sha256)
        self.board.verify(at)

    def _in_place(self, path: str, temporary: str) -> None:
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
        whole_files.sync_directory(os.path.dirname(path))

    def _finish(self, before: dict[str, Any]) -> list[str]:
        files = {entry["path"]: {"size": entry["size"], "sha256": entry["sha256"]} for entry in self.board.files}
        kept = {key: self.listing[key] for key in ("model", "revision")}
        manifest = {"format": 1, **kept, "files": files}
        hashes = {self.board.files[at]["path"]: list_ for at, list_ in self.board.hashes.items()}
        removed = store.finish(self.directory, manifest, hashes, self.board.chunk)
        for path in removed:
            if path in before["extra"] and not store.unfinished(path):
                progress_lines.say(f"{path} belongs to no manifest; removed")
        return removed

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _wait(self, reached: Any) -> None:
        """Wait, say how far it is, and find out when it cannot go on."""
        board, interval = self.board, self.request.get("interval", 10.0)
        told = time.monotonic()
        while True:
            with board.changed:
                if reached():
                    return
                if board.error:
                    raise OSError(board.error)
                board.changed.wait(0.5)
            if time.monotonic() - told > interval:
                told = time.monotonic()
                progress_lines.say(self._progress())
            if not board.done:
                self._hopeless()

    def _hopeless(self) -> None:
        board = self.board
        if self.me == self.seed or not self.swarm.gone(self.seed):
            wrong = self.swarm.accused.get(self.seed, 0)
            if wrong < 3 or not self._only_there():
                return
            raise OSError(f"{self.seed}, the seed, serves wrong bytes, and nobody else has them; run again to mend it")
        unknown = len(board.files) - len(board.opened)
        if unknown or self._only_there() or not [n for n in board.peers if not self.swarm.gone(n)]:
            raise OSError(
                f"{self.seed}, the seed, has been silent for {board.peers[self.seed].silent:.0f} s and nobody else has"
                f" all of the rest; what is here is kept; fix: see why {self.seed} stopped, and run again"
            )

    def _only_there(self) -> bool:
        board = self.board
        have = [peer for name, peer in board.peers.items() if name != self.seed and not self.swarm.gone(name)]
        return any(not board.state[c] and not any(p.has[c] for p in have) for c in range(board.chunks))

    def _progress(self) -> str:
        coming = 0
        if self.me == self.seed and not self.board.done:
            coming = transfer_source.arrived(self.directory, self.board.files)
        return self.meter.line(self.board, coming, self.me == self.seed)
