"""pcapng files, which C writes (`fastpath/pcapng.c`), a frame a block."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xdpgw._native import ffi, lib

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["PcapngFile", "Written"]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the frames so far."""

    frames: int
    """In the file."""
    bytes: int
    """Of all files of this name together."""
    lost: int
    """Frames that could not be written."""
    errno: int
    """Of the last write; 0: it went well."""


class PcapngFile:
    """A file with an interface a port. One that was there goes, or is rotated if some are kept."""

    def __init__(
        self,
        to: Path | int,
        ports: Mapping[str, int],
        *,
        snaplen: int,
        keep: int = 0,
        max_bytes: int = 0,
    ) -> None:
        """Open a file, and write its head.

        Args:
            to: the file, or a descriptor that becomes this object's own.
            ports: slots of the interfaces, by name.
            snaplen: bytes of a frame that are kept.
            keep: old files.
            max_bytes: a file that would be larger is rotated; 0 for never.

        Raises:
            OSError: it cannot be written.
        """
        self._handle: Any = None
        names = {slot: port for port, slot in ports.items()}
        texts = [ffi.new("char[]", names.get(at, "").encode()) for at in range(max(names) + 1)]
        listed = ffi.new("char *[]", texts)
        opts = ffi.new("struct xg_capture_opts *")
        path = ffi.NULL if isinstance(to, int) else ffi.new("char[]", os.fsencode(to))
        opts.path, opts.fd = path, to if isinstance(to, int) else -1
        opts.snaplen, opts.keep, opts.max_bytes = snaplen, keep, max_bytes
        opts.ports, opts.n_ports = ffi.cast("const char *const *", listed), len(texts)
        out = ffi.new("struct xg_capture **")
        err = lib.xg_capture_open(opts, out)
        if err < 0:
            raise OSError(-err, os.strerror(-err))
        self._handle = out[0]

    @property
    def handle(self) -> Any:
        """The `struct xg_capture *`, lent until `close`."""
        if self._handle is None:
            raise ValueError("PcapngFile is closed")
        return self._handle

    @property
    def written(self) -> Written:
        """What became of the frames so far; what waits to be written is in none of it."""
        raw = ffi.new("struct xg_capture_counters *")
        lib.xg_capture_counters(self.handle, raw)
        return Written(int(raw.frames), int(raw.bytes), int(raw.lost), -int(raw.error))

    def close(self) -> None:
        """Write what waits, and close; twice is fine. No thread may use it any more."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.xg_capture_close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
