"""The open files of a transfer: one descriptor each, whichever name the file has now."""

from __future__ import annotations

import os
import threading

from muster.on_host import safe_paths
from muster.on_host import transfer_store as store
from muster.on_host.transfer_pieces import PieceMap


class Files:
    """Descriptors of a revision's files, opened on first use and never closed: the program ends with the run.

    A descriptor number reused while a thread still writes to it would put bytes into the wrong file.

    Args:
        pieces: names the files, and takes the failure when the disk refuses a write.
        directory: of the revision.
    """

    def __init__(self, pieces: PieceMap, directory: str) -> None:
        self.pieces, self.directory = pieces, directory
        self._handles: dict[int, int] = {}
        self._lock = threading.Lock()

    def open(self, at: int) -> int:
        """Return a descriptor of a whole file or of its part, which is created if missing.

        It stays valid when the part is renamed to the whole file.
        """
        with self._lock:
            if at not in self._handles:
                path = store.inside(self.directory, self.pieces.files[at]["path"])
                if os.path.lexists(path):
                    self._handles[at] = store.open_own(path)
                else:
                    safe_paths.make_directory(os.path.dirname(path))
                    self._handles[at] = store.open_own(path + store.PART, os.O_RDWR | os.O_CREAT)
                    os.ftruncate(self._handles[at], self.pieces.files[at]["size"])
            return self._handles[at]

    def write(self, at: int, data: memoryview, offset: int) -> None:
        """Write into a file's part.

        Raises:
            OSError: a full or broken disk, which ends the transfer on this host.
        """
        try:
            while data:
                written = os.pwrite(self.open(at), data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            self.pieces.fail(f"cannot write {self.pieces.files[at]['path']}: {error.strerror}")
            raise
