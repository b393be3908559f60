"""JSON lines in a file that rotates: NAME, then NAME.1 (younger) to NAME.keep (oldest).

Every file holds whole lines only: what a full disk cut short is taken back, what a crash cut short
is ended with a newline. A file that another process has moved away (logrotate) is opened anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from xdpgw.errors import XdpgwError
from xdpgw.sinks import SinkError

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["KEEP", "MAX_BYTES", "JsonlSink", "make"]

MAX_BYTES = 100_000_000
"""A file's size, unless the policy says otherwise: about 300,000 events."""
KEEP = 5
"""Old files that stay, unless the policy says otherwise."""
MODE = 0o640
"""Events name peers; a log group may read them, others may not."""


class JsonlSink:
    """Appends JSON lines to a file."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        """Open a file for appending, or create it.

        Args:
            path: the file; its folder must exist.
            max_bytes: it rotates before it grows beyond; a longer line gets a file of its own.
            keep: old files that stay; 0 for none.

        Raises:
            XdpgwError: it cannot be opened.
        """
        self.name = f"jsonl {path}"
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd = -1
        try:
            self._open()
        except OSError as error:
            raise XdpgwError(
                f"cannot open the log {path}: {error.strerror}",
                "its folder must exist and be writable",
            ) from error

    def write(self, batch: EventBatch) -> None:
        """Append a line an event, rotating as it goes."""
        data = memoryview(batch.json_lines())
        try:
            self._follow()
            while data:
                data = data[self._append(data) :]
        except OSError as error:
            # Lines hold no newline of their own, so that those left are the events lost.
            lost = bytes(data).count(b"\n")
            raise SinkError(f"{self._path}: {error.strerror}", lost=lost) from error

    def flush(self) -> None:
        """Nothing waits here: the kernel has it."""

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append(self, data: memoryview) -> int:
        """Write as many whole lines as the file has room for; returns their bytes."""
        part = bytes(data[: max(0, self._max_bytes - self._size)])
        whole = part.rfind(b"\n") + 1
        if not whole:
            if self._size:
                self._rotate()
                return 0
            whole = bytes(data).index(b"\n") + 1
        self._write_all(data[:whole])
        self._size += whole
        return whole

    def _write_all(self, lines: memoryview) -> None:
        """All or nothing: after an error the file ends where it ended before."""
        try:
            while lines:
                lines = lines[os.write(self._fd, lines) :]
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        try:
            fd = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, MODE)
            os.fchmod(fd, MODE)  # whatever the umask
        except FileExistsError:
            fd = os.open(self._path, flags)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                size += os.write(fd, b"\n")
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd, self._size = fd, size

    def _follow(self) -> None:
        """Open the file anew where its name means another one by now, or none."""
        if self._fd < 0:
            self._open()
            return
        mine = os.fstat(self._fd)
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            self._open()
            return
        if (named.st_dev, named.st_ino) != (mine.st_dev, mine.st_ino):
            self._open()

    def _rotate(self) -> None:
        """Each file takes the name of the next older one, from the oldest to the youngest."""
        for age in range(self._keep - 1, 0, -1):
            if self._old(age).exists():
                os.replace(self._old(age), self._old(age + 1))
        if self._keep:
            os.replace(self._path, self._old(1))
        else:
            os.unlink(self._path)
        self._open()

    def _old(self, age: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{age}")


def make(settings: SinkSettings) -> JsonlSink:
    """The sink `{ jsonl = "FILE" }`; options max_bytes (bytes) and keep (files)."""
    if settings.path is None:
        raise XdpgwError("the sink jsonl needs a file", '{ jsonl = "events.jsonl" }')
    return JsonlSink(
        settings.path,
        max_bytes=int(settings.options.get("max_bytes", MAX_BYTES)),
        keep=int(settings.options.get("keep", KEEP)),
    )
