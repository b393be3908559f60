"""A burst: frames that were received together, lent to Python until the burst ends."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xdpgw._native import ffi, lib
from xdpgw.fast_umem import two_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.fast_umem import Umem

__all__ = ["Burst", "Sender", "Source", "burst_of"]

HEADER_MAX = 1 << 16
"""Bytes of each frame that `Burst.header` gathers at most."""

_NULL = ffi.NULL
_from_buffer = ffi.from_buffer
_headers = lib.xg_burst_headers
_drop = lib.xg_burst_drop
_send = lib.xg_burst_send


class Sender(Protocol):
    """Whatever frames can be sent out of: a `FastPort`."""

    @property
    def umem(self) -> Umem:
        """Where its chunks are."""

    @property
    def xsk(self) -> Any:
        """struct xg_xsk *. Raises ValueError where it is closed."""


class _Lent:
    """An array over memory of C that stays alive as long as the array, or a part of it, does."""

    def __init__(self, owner: object, pointer: Any, n: int, typestr: str) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "data": (int(ffi.cast("uintptr_t", pointer)), True),  # True: read-only
            "shape": (n,),
            "typestr": typestr,
            "version": 3,
        }


class Source:
    """What the bursts of one socket have in common."""

    __slots__ = ("addr", "area", "length", "raw", "umem", "xsk")

    def __init__(self, raw: Any, xsk: Any, umem: Umem | None) -> None:
        """Look into a struct xg_burst.

        Args:
            raw: struct xg_burst *; with a UMEM, one that frees it when it goes (`ffi.gc`).
            xsk: the socket that it receives from.
            umem: None: the memory is somebody else's, and may go while arrays are kept. So arrays
                are copies.
        """
        self.raw, self.xsk, self.umem = raw, xsk, umem
        self.addr: NDArray[np.uint64] | None = None
        self.length: NDArray[np.uint32] | None = None
        self.area = raw.area if umem is None else umem.area
        if umem is not None:
            room = raw.room
            self.addr = np.asarray(_Lent(raw, raw.addr, room, "=u8"))
            self.length = np.asarray(_Lent(raw, raw.length, room, "=u4"))


class Burst:
    """Frames that were received together, numbered from 0 in the order of their arrival.

    A lease. It ends at the next step of the loop that gave it, or when its port is closed, or when
    the handler returns that it was given to. From then on its methods raise ValueError, the views
    of `frame` are released, and frames that nobody claimed are recycled. What is to be kept has to
    be copied.

    A frame is claimed once, by the first `send`, `drop` or `forward` that names it.
    """

    __slots__ = ("_n", "_source", "_views")

    def __init__(self, source: Source, n: int) -> None:
        self._source: Source | None = source
        self._n = n
        self._views: list[tuple[int, memoryview, weakref.ref[Any]]] | None = None

    @property
    def n(self) -> int:
        """How many frames, 1 at least."""
        if self._source is None:
            raise _ended()
        return self._n

    def __len__(self) -> int:
        return self.n

    @property
    def addr(self) -> NDArray[np.uint64]:
        """Where each frame begins, shape (n,), uint64, in bytes from the start of the UMEM.

        Read-only and without a copy: it is of the next burst once this one has ended. (In a handler
        of the gateway: a copy.) A frame over several chunks begins in the first of them.
        """
        source = self._source
        if source is None:
            raise _ended()
        if source.addr is None:
            return np.frombuffer(ffi.buffer(source.raw.addr, 8 * self._n), np.uint64).copy()
        return source.addr[: self._n]

    @property
    def length(self) -> NDArray[np.uint32]:
        """How long each frame is, shape (n,), uint32, in bytes, without the Ethernet checksum.

        Read-only and without a copy, as `addr`.
        """
        source = self._source
        if source is None:
            raise _ended()
        if source.length is None:
            return np.frombuffer(ffi.buffer(source.raw.length, 4 * self._n), np.uint32).copy()
        return source.length[: self._n]

    def header(self, nbytes: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The first bytes of all frames, gathered in C. A copy: yours to keep.

        Args:
            nbytes: of each frame, 1 to 65,536; a shorter frame has zeros behind its end.
            out: where to write, uint8, C order, shape (n or more, nbytes); None for a new array.

        Returns:
            shape (n, nbytes), uint8.

        Raises:
            ValueError: the burst has ended, or `out` has another shape.
        """
        source = self._source
        if source is None:
            raise _ended()
        if not 0 < nbytes <= HEADER_MAX:
            raise ValueError(
                f"header() gathers 1 to {HEADER_MAX} bytes of each frame, not {nbytes}"
            )
        n = self._n
        if out is None:
            out = np.empty((n, nbytes), np.uint8)
            _headers(source.raw, nbytes, _from_buffer("uint8_t *", out, True))
            return out
        _check_out(out, n, nbytes)
        _headers(source.raw, nbytes, _from_buffer("uint8_t *", out, True))
        return out[:n]

    def frame(self, i: int) -> memoryview:
        """A frame's bytes, where they lie: writable, so that it can be changed before it is sent.

        The view is released when the burst ends or when the frame is sent. Copy what is to be kept:
        `bytes(burst.frame(i))`. Arrays and slices made of the view must be gone (`del`) by the end
        of the burst.

        Args:
            i: 0 to n - 1.

        Returns:
            uint8, `length[i]` bytes. A frame over several chunks comes as a read-only copy, which
            is yours to keep.

        Raises:
            ValueError: the burst has ended, or the frame was sent.
            IndexError: there is no such frame.
        """
        source = self._source
        if source is None:
            raise _ended()
        if not 0 <= i < self._n:
            raise IndexError(f"a burst of {self._n} frames has no frame {i}")
        raw = source.raw
        if raw.fate[i] == lib.XG_SENT:
            raise ValueError(f"frame {i} was sent: it is the kernel's now")
        if raw.multi_buffer and raw.first[i + 1] - raw.first[i] > 1:
            whole = bytearray(raw.length[i])
            lib.xg_burst_copy(raw, i, _from_buffer("uint8_t *", whole))
            return memoryview(bytes(whole))
        lent = ffi.buffer(source.area + raw.addr[i], raw.length[i])
        view = memoryview(lent)
        if self._views is None:
            self._views = []
        self._views.append((i, view, weakref.ref(lent)))
        return view

    def send(self, mask: NDArray[np.bool_] | None = None) -> int:
        """Send frames back out of the queue that they came from, without a copy.

        Args:
            mask: shape (n,), bool: which ones. Those that are claimed already are left alone. None:
                all that are not.

        Returns:
            how many were sent, 0 to n. Frames that the TX ring has no room for are dropped, and
            counted as `tx_full`.

        Raises:
            ValueError: the burst has ended, or the mask has another shape.
            TypeError: the mask is no array of bool.
        """
        source = self._source
        if source is None:
            raise _ended()
        return self._send(source, mask, source.xsk, source.umem)

    def forward(self, mask: NDArray[np.bool_] | None, other: Sender) -> int:
        """Send frames out of another port: without a copy where both share a `Umem`.

        Args:
            mask: as of `send`.
            other: an open FastPort, used by this thread only.

        Returns:
            how many were sent, 0 to n. Frames that the other's TX ring has no room for, or that are
            too long for its chunks, are dropped, and counted as its `tx_full`.

        Raises:
            ValueError: the burst has ended, `other` is closed, or the mask has another shape.
            TypeError: the mask is no array of bool.
        """
        source = self._source
        if source is None:
            raise _ended()
        umem = other.umem
        if umem is source.umem or source.umem is None:
            return self._send(source, mask, other.xsk, umem)
        with umem.alone():
            return self._send(source, mask, other.xsk, source.umem)

    def drop(self, mask: NDArray[np.bool_] | None = None) -> int:
        """Recycle frames at the end of the burst, so that no later `send` takes them.

        Args:
            mask: as of `send`.

        Returns:
            how many were claimed by this, 0 to n.

        Raises:
            ValueError: the burst has ended, or the mask has another shape.
            TypeError: the mask is no array of bool.
        """
        source = self._source
        if source is None:
            raise _ended()
        n: int = _drop(source.raw, _NULL if mask is None else _pointer_of(mask, self._n))
        if n < 0:  # a signal's handler closed the port just now
            raise _ended()
        return n

    def _send(
        self, source: Source, mask: NDArray[np.bool_] | None, to: Any, umem: Umem | None
    ) -> int:
        pointer = _NULL if mask is None else _pointer_of(mask, self._n)
        if umem is None:
            n: int = _send(source.raw, pointer, to)
        else:
            if not umem.lock.acquire(False):
                raise two_threads()
            try:
                n = _send(source.raw, pointer, to)
            finally:
                umem.lock.release()
        if n < 0:
            raise _ended()
        if self._views:
            self._release_sent(source)
        return n

    def _release_sent(self, source: Source) -> None:
        # What an array or a slice looks into is told at the end of the burst.
        for i, view, _ in self._views or ():
            if source.raw.fate[i] == lib.XG_SENT:
                with suppress(BufferError):
                    view.release()

    @property
    def ended(self) -> bool:
        """Whether the lease is over."""
        return self._source is None

    def invalidate(self) -> None:
        """End the lease on the side of Python only; what C does with the frames is C's business.

        For those who made the burst, by `burst_of`. Twice is fine.

        Raises:
            BufferError: an array or a slice of a frame's view is still there; the lease has ended
                all the same.
        """
        source, self._source = self._source, None
        if self._views and source is not None:
            self._release(source)

    def _release(self, source: Source) -> None:
        lent = []
        for i, view, ref in self._views or ():
            with suppress(BufferError):
                view.release()
            lent.append((i, ref))
        self._views = view = None  # type: ignore[assignment]
        astray = [(i, buffer) for i, ref in lent if (buffer := ref()) is not None]
        if not astray:
            return
        if source.umem is not None:
            for _, buffer in astray:
                source.umem.outlive(buffer)
        names = ", ".join(str(i) for i, _ in astray)
        raise BufferError(
            f"the burst has ended, and an array or a slice still looks into the memory of frame "
            f"{names}: copy what you keep (bytes(view), array.copy()), and del the rest before "
            "the burst ends"
        )

    def __repr__(self) -> str:
        return "<Burst, ended>" if self._source is None else f"<Burst of {self._n} frames>"


def burst_of(raw: Any) -> Burst:
    """The burst of a struct xg_burst that somebody else ends, such as the gateway's worker.

    Whoever calls this calls `Burst.invalidate` before the struct changes.

    Args:
        raw: struct xg_burst *, received and not ended.
    """
    return Burst(Source(raw, getattr(raw, "from"), None), raw.n)


def _ended() -> ValueError:
    return ValueError(
        "the burst has ended, and its frames are the kernel's again: copy what is to be kept, "
        "such as bytes(burst.frame(i)), while it lasts"
    )


def _pointer_of(mask: Any, n: int) -> Any:
    if not isinstance(mask, np.ndarray) or mask.dtype != bool:
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(
            f"the mask is an array of bool with one element a frame, or None for all, not {kind}"
        )
    if mask.shape != (n,):
        raise ValueError(
            f"the mask has shape {mask.shape}, and the burst {n} frames: it has to be ({n},)"
        )
    return _from_buffer("uint8_t *", np.ascontiguousarray(mask))


def _check_out(out: Any, n: int, nbytes: int) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8:
        raise TypeError("out is an array of uint8")
    if out.ndim != 2 or out.shape[1] != nbytes or len(out) < n:
        raise ValueError(f"out has shape {out.shape}, and has to be ({n} or more, {nbytes})")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out has to be writable and in C order")
