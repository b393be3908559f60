"""The memory of the frames: a UMEM as Python holds it, and how large it wants to be.

Who owns a chunk when: fastpath/xg_xsk.h.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from xdpgw._native import ffi, lib
from xdpgw.errors import FastpathError
from xdpgw.facts import single_buffer_mtu
from xdpgw.fast_errors import check_power_of_two, wrong

__all__ = ["Ledger", "Umem", "UmemPlan", "chunk_for", "chunks_of", "frame_room", "plan_umem"]

HEADROOM_BYTES: int = lib.XG_CHUNK_HEADROOM_BYTES
FRAME_OVERHEAD_BYTES = 14 + 2 * 4
"""What a frame may have over the MTU: the Ethernet header, with two VLAN tags."""


def frame_room(chunk_bytes: int) -> int:
    """Bytes of the longest frame that a chunk holds: the kernel keeps 256 free before it."""
    return chunk_bytes - HEADROOM_BYTES


def chunk_for(frame_bytes: int) -> int:
    """Bytes of the smallest chunk that holds a frame, or of the largest where none does.

    Aligned chunks are powers of two from 2,048 bytes to a page, and no page is smaller than 4,096.
    """
    return 2048 if frame_bytes <= frame_room(2048) else 4096


@dataclass(frozen=True, slots=True)
class UmemPlan:
    """What frames a UMEM can hold.

    Args:
        chunk_bytes: a chunk.
        multi_buffer: a frame may take several chunks.
    """

    chunk_bytes: int
    multi_buffer: bool


def plan_umem(mtu: int) -> UmemPlan:
    """The smallest chunk that holds a frame of this MTU, or several where none does, or where
    drivers may hand a frame over in several buffers."""
    room = mtu + FRAME_OVERHEAD_BYTES
    chunk_bytes = chunk_for(room)
    return UmemPlan(chunk_bytes, room > frame_room(chunk_bytes) or mtu > single_buffer_mtu())


def chunks_of(ring: int, burst: int) -> int:
    """What a socket takes when all of its rings are full: fill (2 x ring), RX, TX, and a burst."""
    return 4 * ring + burst


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who owns how many chunks of a UMEM; the last four add up to the first."""

    chunks: int
    free: int
    receiving: int
    """In fill rings, with the kernel, and in RX rings."""
    held: int
    """In bursts that have not ended."""
    sending: int
    """In TX rings, with the kernel, and sent but not yet taken back."""


class Umem:
    """Memory for frames, cut into chunks. Context manager.

    Ports that share one forward to each other without a copy. They are used by one thread at a
    time, and closed before it.
    """

    def __init__(self, chunks: int, chunk_bytes: int = 2048, *, multi_buffer: bool = False) -> None:
        """Map the memory, from huge pages where there are any free.

        Args:
            chunks: how many; `Umem.chunks_for` tells what ports take.
            chunk_bytes: 2048 (holds frames of 1,792 bytes, an MTU of 1,770) or 4096 (3,840 and
                3,818); a power of two up to the page's size.
            multi_buffer: let a frame take several chunks, up to 17 (kernel 6.6).

        Raises:
            FastpathError: a number is out of its range, or there is no memory (ENOMEM).
        """
        self._handle: Any = None
        page = os.sysconf("SC_PAGESIZE")
        check_power_of_two("chunk_bytes", chunk_bytes, lib.XG_CHUNK_BYTES_MIN, page)
        if not 0 < chunks <= lib.XG_CHUNKS_MAX:
            raise wrong(f"a UMEM has 1 to {lib.XG_CHUNKS_MAX:,} chunks, not {chunks}")
        out = ffi.new("struct xg_umem **")
        err = lib.xg_umem_create(chunks, chunk_bytes, out)
        if err < 0:
            raise FastpathError(
                f"no memory for a UMEM of {chunks * chunk_bytes:,} bytes: {os.strerror(-err)}",
                "fewer chunks take less",
                -err,
            )
        self._handle = ffi.gc(out[0], lib.xg_umem_free)
        self.chunks = chunks
        self.chunk_bytes = chunk_bytes
        self.multi_buffer = multi_buffer
        self.area = lib.xg_umem_area(out[0])
        # C has no lock: a second thread is refused, not awaited. Re-entrant for signal handlers.
        self.lock = threading.RLock()
        self._sockets: dict[tuple[int, int, int], list[Any]] = {}
        self._astray = False

    @staticmethod
    def chunks_for(sockets: int, ring: int = 2048, burst: int = 256) -> int:
        """The chunks that so many ports take of one UMEM.

        Args:
            sockets: FastPorts that will share it.
            ring: of each, descriptors.
            burst: of each, frames.
        """
        return sockets * chunks_of(ring, burst)

    @property
    def frame_bytes(self) -> int:
        """The longest frame, bytes."""
        return frame_room(self.chunk_bytes) * (17 if self.multi_buffer else 1)

    @property
    def hugepages(self) -> bool:
        """Whether the memory is of huge pages."""
        return bool(lib.xg_umem_hugepages(self.handle))

    @property
    def closed(self) -> bool:
        """Whether the memory was given back."""
        return self._handle is None

    @property
    def handle(self) -> Any:
        """struct xg_umem *, for the modules of xdpgw.

        Raises:
            ValueError: it is closed.
        """
        if self._handle is None:
            raise ValueError("Umem is closed")
        return self._handle

    def ledger(self) -> Ledger:
        """Who owns how many chunks now. Any thread may ask."""
        raw = ffi.new("struct xg_ledger *")
        lib.xg_umem_ledger(self.handle, raw)
        return Ledger(raw.chunks, raw.free, raw.receiving, raw.held, raw.sending)

    def close(self) -> None:
        """Give the memory back; twice is fine.

        Raises:
            FastpathError: a port still uses it.
        """
        if self._handle is None:
            return
        if self._sockets:
            raise FastpathError(
                f"{len(self._sockets)} ports still use this UMEM", "close them before it"
            )
        handle, self._handle = self._handle, None
        if not self._astray:
            ffi.release(handle)

    # For the ports and bursts

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads out while C works with the UMEM."""
        if not self.lock.acquire(False):
            raise two_threads()
        try:
            yield
        finally:
            self.lock.release()

    def first_socket(self, key: tuple[int, int, int]) -> Any:
        """The socket of a queue (namespace, ifindex, queue) that has its rings; NULL for none."""
        there = self._sockets.get(key)
        return there[0] if there else ffi.NULL

    def socket_count(self, key: tuple[int, int, int]) -> int:
        """Sockets on a queue."""
        return len(self._sockets.get(key, ()))

    def add_socket(self, key: tuple[int, int, int], xsk: Any) -> None:
        """A socket uses it from here on."""
        self._sockets.setdefault(key, []).append(xsk)

    def drop_socket(self, key: tuple[int, int, int], xsk: Any) -> None:
        """A socket was closed."""
        self._sockets[key].remove(xsk)
        if not self._sockets[key]:
            del self._sockets[key]

    def outlive(self, view: Any) -> None:
        """Keep the memory mapped as long as an object that looks into it lives."""
        self._astray = True
        weakref.finalize(view, _keep, self._handle).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.chunks} chunks of {self.chunk_bytes} bytes"
        return f"<Umem {state}>"


def _keep(handle: object) -> None:
    """Holds the handle, by being an argument, until the view is gone."""


def two_threads() -> RuntimeError:
    """The error for a second thread that uses a UMEM."""
    return RuntimeError(
        "two threads use ports of one UMEM at the same time: give each thread its own queues, "
        "and the ports of a thread a Umem of their own"
    )
