"""Events as records in a file that numpy maps, while it is written, too:

    from xdpgw.sinks import binary
    events = binary.read("events.bin")            # numpy.memmap, a record an event
    names = binary.read_header("events.bin").names
    drops = events[events["verdict"] == 1]

A segment is a head, then records and nothing else:

    offset  bytes
    0       8      b"XDPGWEVT"
    8       4      version, 1              little-endian
    12      4      n: bytes of the head, a multiple of 64
    16      n-16   JSON, filled up with spaces: see `Header`
    n              records; a half one at the end does not count

Records are `struct xg_event` of bpf/abi.h, but for ts_ns, which is CLOCK_REALTIME here. What their
slots are called stands in the head, so a policy with other names begins another segment.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from xdpgw import _abi as abi
from xdpgw.errors import XdpgwError
from xdpgw.rotation import OPTIONS, Limits, RotatingFile, real_path
from xdpgw.sink_options import File, Spec
from xdpgw.sinks import SinkError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["SPEC", "BinarySink", "Header", "make", "read", "read_header"]

SPEC = Spec({"path": File(), **OPTIONS}, main="path", needed=True, example='{ binary = "FILE" }')
MAGIC = b"XDPGWEVT"
VERSION = 1
_START = struct.Struct("<8sII")
_ALIGN = 64
_MAX_HEAD = 1 << 24


class Header(msgspec.Struct, frozen=True):
    """What a segment says of its records."""

    dtype: dict[str, Any]
    """What `numpy.dtype` takes: names, formats, offsets, itemsize."""
    ports: tuple[str | None, ...]
    """Names of ports by slot; None for a slot without a name."""
    rules: tuple[str | None, ...]
    realtime_offset_ns: int
    """CLOCK_REALTIME - CLOCK_MONOTONIC when the segment began; already added to ts_ns."""
    began_ns: int
    """CLOCK_REALTIME."""

    @property
    def itemsize(self) -> int:
        """Bytes of a record."""
        return int(self.dtype["itemsize"])

    def encode(self) -> bytes:
        """The head of a segment."""
        text = msgspec.json.encode(self)
        size = -(-(_START.size + len(text)) // _ALIGN) * _ALIGN
        return _START.pack(MAGIC, VERSION, size) + text.ljust(size - _START.size)


def read_header(path: Path | str) -> Header:
    """What a segment says of its records.

    Raises:
        XdpgwError: it cannot be read, or is no segment.
    """
    return _opened(path)[0]


def read(path: Path | str) -> NDArray[np.void]:
    """The records that a segment holds now.

    Returns:
        shape (n,), oldest first, read-only and mapped: what is not looked at is not read.

    Raises:
        XdpgwError: it cannot be read, or is no segment.
    """
    import numpy as np

    header, head_bytes, size = _opened(path)
    try:
        layout = {**header.dtype, "formats": [_format(x) for x in header.dtype["formats"]]}
        dtype = np.dtype(cast(Any, layout))
    except (KeyError, TypeError, ValueError) as error:
        raise _no_segment(path) from error
    count = (size - head_bytes) // dtype.itemsize
    if not count:  # nothing cannot be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r", head_bytes, (count,))


def _format(found: Any) -> Any:
    """A format of a member as numpy wants it: arrays are tuples, which JSON has not."""
    return found if isinstance(found, str) else (found[0], tuple(found[1]))


def _opened(path: Path | str) -> tuple[Header, int, int]:
    """Header, bytes of the head, bytes of all."""
    try:
        with open(path, "rb") as file:
            found = _read_head(file.fileno())
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise XdpgwError(f"cannot read {path}: {error.strerror}") from error
    if found is None:
        raise _no_segment(path)
    return *found, size


def _no_segment(path: Path | str) -> XdpgwError:
    return XdpgwError(
        f"{path} is no segment of events", "the sink binary of this version writes such"
    )


def _read_head(fd: int) -> tuple[Header, int] | None:
    start = os.pread(fd, _START.size, 0)
    if len(start) < _START.size:
        return None
    magic, version, size = _START.unpack(start)
    if magic != MAGIC or version != VERSION or not _START.size < size <= _MAX_HEAD:
        return None
    text = os.pread(fd, size - _START.size, _START.size)
    try:
        return msgspec.json.decode(text, type=Header), size
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class BinarySink:
    """Appends records to a segment."""

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        """Open a segment for appending, or begin one.

        Raises:
            XdpgwError: it cannot be opened.
        """
        self.name = f"binary {path}"
        self._units = _Records()
        self._file = RotatingFile(real_path(path), self._units, limits or Limits())

    def write(self, batch: EventBatch) -> None:
        """Append a record an event."""
        import numpy as np

        records = np.array(batch.events)
        records["ts_ns"] += np.int64(batch.realtime_offset_ns).astype(np.uint64)  # modulo 2**64
        self._units.expect(batch)
        data = memoryview(records.tobytes())
        done, error = self._file.append(data)
        if error is not None:
            left = (len(data) - done) // records.itemsize
            raise SinkError(f"{self._file.path}: {error.strerror}", left=left) from error

    def flush(self) -> None:
        """Rotate a segment whose time has come; the kernel has all that was written."""
        self._file.rotate_when_idle()

    def close(self) -> None:
        """Close the segment."""
        self._file.close()


class _Records:
    """The units of a segment."""

    def __init__(self) -> None:
        self._ports: tuple[str | None, ...] = ()
        self._rules: tuple[str | None, ...] = ()
        self._offset_ns = 0
        self._open: Header | None = None

    def expect(self, batch: EventBatch) -> None:
        """Of what batch come the records that are appended next."""
        self._ports, self._rules = batch.names.ports, batch.names.rules
        self._offset_ns = batch.realtime_offset_ns

    def head(self) -> bytes:
        self._open = Header(_dtype(), self._ports, self._rules, self._offset_ns, time.time_ns())
        return self._open.encode()

    def whole(self, data: memoryview) -> int:
        return len(data) - len(data) % _itemsize()

    def first(self, data: memoryview) -> int:
        return _itemsize()

    def mend(self, fd: int, size: int) -> tuple[int, int] | None:
        found = _read_head(fd)
        if found is None or found[0].dtype != _dtype():
            return None
        self._open, head_bytes = found
        whole = size - (size - head_bytes) % _itemsize()
        if whole < size:
            os.ftruncate(fd, whole)
        return whole, head_bytes

    def fits(self) -> bool:
        open_ = self._open
        return open_ is not None and (open_.ports, open_.rules) == (self._ports, self._rules)

    def began_ns(self, fd: int) -> int | None:
        return self._open.began_ns if self._open else None


def _itemsize() -> int:
    return int(abi.LAYOUTS["event"]["itemsize"])


def _dtype() -> dict[str, Any]:
    """The layout as it is after a turn through JSON, which has no tuples."""
    return cast(dict[str, Any], msgspec.json.decode(msgspec.json.encode(abi.LAYOUTS["event"])))


def make(settings: SinkSettings) -> BinarySink:
    """The sink `{ binary = "FILE" }`."""
    if settings.path is None:
        raise XdpgwError("the sink binary needs a file", SPEC.example)
    return BinarySink(settings.path, Limits.of(settings.options))
