"""JSON lines in a file that rotates by size and age: NAME, NAME.1 (younger) to NAME.keep (oldest),
these with .gz where the policy says `gzip = true`."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from xdpgw.compression import Compressor
from xdpgw.errors import XdpgwError
from xdpgw.rotation import OPTIONS, Limits, RotatingFile, real_path
from xdpgw.sink_options import File, Flag, Spec
from xdpgw.sinks import SinkError

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["SPEC", "JsonlSink", "make"]

SPEC = Spec(
    {"path": File(), **OPTIONS, "gzip": Flag()},
    main="path",
    needed=True,
    example='{ jsonl = "FILE" }',
)


class JsonlSink:
    """Appends JSON lines to a file."""

    def __init__(self, path: Path, limits: Limits | None = None, *, gzip: bool = False) -> None:
        """Open a file for appending, or create it.

        Args:
            path: the file; its folder must exist.
            gzip: compress old files.

        Raises:
            XdpgwError: it cannot be opened.
        """
        self.name = f"jsonl {path}"
        path = real_path(path)
        limits = limits or Limits()
        self._compressor = Compressor(path, limits.keep) if gzip and limits.keep else None
        if self._compressor is None:
            self._file = RotatingFile(path, _Lines(), limits)
            return
        try:
            self._file = RotatingFile(
                path,
                _Lines(),
                limits,
                rotated=self._compressor.wake,
                make_room=self._compressor.make_room,
            )
        except BaseException:
            self._compressor.close()
            raise

    def write(self, batch: EventBatch) -> None:
        """Append a line an event, rotating as it goes."""
        data = memoryview(batch.json_lines())
        done, error = self._file.append(data)
        if error is not None:
            # Lines hold no newline of their own.
            left = bytes(data[done:]).count(b"\n")
            raise SinkError(f"{self._file.path}: {error.strerror}", left=left) from error

    def flush(self) -> None:
        """Rotate a file whose time has come; the kernel has all that was written."""
        self._file.rotate_when_idle()
        if self._compressor is not None and self._compressor.failing:
            raise SinkError(self._compressor.failing)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._compressor is not None:
            self._compressor.close()


class _Lines:
    """The units of the file."""

    def head(self) -> bytes:
        return b""

    def whole(self, data: memoryview) -> int:
        return bytes(data).rfind(b"\n") + 1

    def first(self, data: memoryview) -> int:
        return bytes(data).index(b"\n") + 1

    def mend(self, fd: int, size: int) -> tuple[int, int]:
        if size and os.pread(fd, 1, size - 1) != b"\n":
            size += os.write(fd, b"\n")
        return size, 0

    def fits(self) -> bool:
        return True

    def began_ns(self, fd: int) -> int | None:
        """The time of the first event."""
        found = _TIME.match(os.pread(fd, 64, 0))
        if found is None:
            return None
        began = datetime.fromisoformat(found[1].decode()).replace(tzinfo=UTC)
        return int(began.timestamp()) * 1_000_000_000


_TIME = re.compile(rb'\{"ts":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)')


def make(settings: SinkSettings) -> JsonlSink:
    """The sink `{ jsonl = "FILE" }`."""
    if settings.path is None:
        raise XdpgwError("the sink jsonl needs a file", SPEC.example)
    limits = Limits.of(settings.options)
    return JsonlSink(settings.path, limits, gzip=bool(settings.options.get("gzip")))
