"""Old pieces of a file made smaller: NAME.2 becomes NAME.2.gz, by a thread that holds up nobody.

Whatever is killed at whatever moment, each piece is there, whole, in one of its two forms or in
both: the compressed one is written beside, put on the disk and given its name, and only then the
plain one goes. Of a piece in both forms the plain one goes at the next start.
"""

from __future__ import annotations

import os
import threading
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path

from xdpgw.block_journal import sync_folder
from xdpgw.rotation import MODE, old, shift

__all__ = ["Compressor"]

ENDINGS = ("", ".gz")
AGAIN_S = 60.0
"""Between two attempts where one fails, as on a full disk."""
_PIECE_BYTES = 1 << 18
_NICE = 10
"""It shares the processor with who drains the ring."""


class Compressor:
    """Compresses the old pieces of one file."""

    def __init__(self, path: Path, keep: int) -> None:
        """Take up what an earlier process left.

        Args:
            path: NAME.
            keep: old pieces that there may be.
        """
        self._path = path
        self._keep = keep
        self._naming = threading.Lock()
        """Held while pieces change their names: moments."""
        self._changed = threading.Condition()
        self._due = self._stopping = False
        self._thread: threading.Thread | None = None
        self.failing: str | None = None
        """Why the last attempt failed; None where it did not."""
        with suppress(OSError):
            self._fresh.unlink(missing_ok=True)
            for age in range(1, keep + 1):
                if self._named(age, ".gz").exists():
                    self._named(age, "").unlink(missing_ok=True)
        if self._next() is not None:
            self.wake()

    def wake(self) -> None:
        """There is a piece to compress."""
        with self._changed:
            self._due = True
            self._changed.notify()
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="compressor", daemon=True)
                self._thread.start()

    def make_room(self, path: Path, keep: int) -> None:
        """As `rotation.shift`, with both forms of each piece."""
        with self._naming:
            shift(path, keep, ENDINGS)

    def close(self) -> None:
        """Stop at once; a piece that is half done stays as it was. Twice is fine."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while self._wait():
            try:
                while not self._stopping and (age := self._next()) is not None:
                    self._compress(age)
                self.failing = None
            except OSError as error:
                self.failing = f"cannot compress {self._path}: {error.strerror}"

    def _wait(self) -> bool:
        """Until there is something to do; False when it is time to stop."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._due or self._stopping, AGAIN_S if self.failing else None
            )
            self._due = False
            return not self._stopping

    def _next(self) -> int | None:
        """The age of the oldest piece that is plain."""
        plain = [age for age in range(1, self._keep + 1) if self._named(age, "").exists()]
        return max(plain, default=None)

    def _compress(self, age: int) -> None:
        with suppress(FileNotFoundError):  # it was renamed, and is found again
            with self._named(age, "").open("rb") as piece:
                self._write_all(piece.fileno())
                if not self._stopping:
                    self._replace(os.fstat(piece.fileno()))
            with suppress(FileNotFoundError):
                self._fresh.unlink()

    def _write_all(self, source: int) -> None:
        """Put the compressed form of a piece on the disk, under a name of its own."""
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)  # with the head and foot of gzip
        opener = partial(os.open, mode=MODE)
        try:
            with open(self._fresh, "wb", opener=opener) as fresh:
                os.fchmod(fresh.fileno(), MODE)
                while not self._stopping and (part := os.read(source, _PIECE_BYTES)):
                    fresh.write(packer.compress(part))
                fresh.write(packer.flush())
                fresh.flush()
                os.fsync(fresh.fileno())
        except OSError:
            with suppress(OSError):
                self._fresh.unlink()  # it takes room that others need
            raise

    def _replace(self, source: os.stat_result) -> None:
        """Give the compressed form the name of the plain one, whatever that is by now."""
        os.utime(self._fresh, ns=(source.st_atime_ns, source.st_mtime_ns))
        with self._naming:
            for age in range(1, self._keep + 1):
                plain = self._named(age, "")
                if plain.exists() and os.path.samestat(plain.stat(), source):
                    os.replace(self._fresh, self._named(age, ".gz"))
                    sync_folder(self._path.parent)
                    plain.unlink()
                    return

    def _named(self, age: int, ending: str) -> Path:
        return Path(f"{old(self._path, age)}{ending}")

    @property
    def _fresh(self) -> Path:
        return self._path.with_name(f".{self._path.name}.gz.new")
