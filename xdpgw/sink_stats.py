"""The books of the sinks, as the process that has them publishes them for any other to read.

They are in a pinned map next to the filter, `sinks`: one value that holds a checksum, a length and
JSON. The kernel copies it while others may read, so who reads a mix of two looks again.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from xdpgw.kernel import Map

if TYPE_CHECKING:
    from xdpgw.pins import Instance

__all__ = ["SinkBoard", "SinkStats", "read_sinks"]

PUBLISH_S = 0.2
"""Between two publications."""

_START = struct.Struct("<II")
_KEY = bytes(4)
_ROOM = 1 << 18
_MAX_TEXT = 1024
"""Letters of a name or a sentence: 16 sinks of two such texts always fit, however JSON quotes."""
_ATTEMPTS = 100


class SinkStats(msgspec.Struct, frozen=True):
    """What became of the events that were handed to a sink: written + lost + queued."""

    name: str
    written: int = 0
    lost: int = 0
    queued: int = 0
    """Waiting, with those that the sink is at."""
    failing: str | None = None
    """Why it takes nothing now; None where it does."""
    failing_since_ns: int | None = None
    """CLOCK_REALTIME."""


class SinkBoard:
    """Where the process in charge publishes; what it published last stays when it ends."""

    def __init__(self, instance: Instance) -> None:
        self._map = Map.create("array", "xdpgw_sinks", key=4, value=_ROOM, entries=1)
        self._last: list[SinkStats] | None = None
        self._published = 0.0
        try:
            instance.pin_map("sinks", self._map)
        except BaseException:
            self._map.close()
            raise

    def publish(self, sinks: Sequence[SinkStats], *, now: bool = False) -> None:
        """Publish books, if it is time and there is something new.

        Args:
            now: it is time.
        """
        if not now and time.monotonic() - self._published < PUBLISH_S:
            return
        self._published = time.monotonic()
        if (books := list(sinks)) != self._last:
            self._map.update(_KEY, _encode(books))
            self._last = books

    def close(self) -> None:
        """Leave what was published to who reads it."""
        self._map.close()


def read_sinks(instance: Instance) -> list[SinkStats]:
    """The books of the sinks as they stood at most a second ago, or when the process in charge
    ended; [] where there never was one."""
    board = instance.pinned_map("sinks")
    if board is None:
        return []
    with board:
        for _ in range(_ATTEMPTS):
            books = _decode(board.lookup(_KEY))
            if books is not None:
                return books
    return []


def _encode(books: Sequence[SinkStats]) -> bytes:
    short = [
        msgspec.structs.replace(
            x, name=x.name[-_MAX_TEXT:], failing=x.failing and x.failing[:_MAX_TEXT]
        )
        for x in books
    ]
    text = msgspec.json.encode(short)
    return (_START.pack(zlib.crc32(text), len(text)) + text).ljust(_ROOM, b"\0")


def _decode(raw: bytes) -> list[SinkStats] | None:
    """None where it is not one publication, whole."""
    checksum, length = _START.unpack_from(raw)
    text = raw[_START.size : _START.size + length]
    if not length or zlib.crc32(text) != checksum:
        return None
    return msgspec.json.decode(text, type=list[SinkStats])
