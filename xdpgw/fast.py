"""AF_XDP for Python: frames of a port's queue as arrays, without the kernel's network stack.

    import numpy as np
    from xdpgw.fast import FastPort

    with FastPort("eth0", queue=0) as port:
        for burst in port.bursts():
            header = burst.header(64)                   # (n, 64) uint8, gathered in C
            burst.drop(header[:, 23] == 17)             # UDP goes
            burst.send()                                # the rest goes back
            # what nobody claims is recycled

It needs no policy: a FastPort brings a program of its own, which hands it all frames of its queue,
and takes it away at the end. With `target=` it serves an AF_XDP target of the policy in force.

    FastPort   one AF_XDP socket: receives from one queue of a port, and sends
    Burst      the frames that were received last; a lease, which the next step of the loop ends
    Umem       the memory of the frames; ports that share one forward without a copy
    bursts     the loop over several ports

Everything of one Umem is used by one thread at a time. Errors of opening are
`errors.FastpathError` and its relatives, with a hint; a wrong use is a ValueError or TypeError.
docs/python-guide.md is the guide.
"""

from __future__ import annotations

import errno
import select
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import numpy as np

from xdpgw._native import ffi, lib
from xdpgw.fast_async import AsyncBursts
from xdpgw.fast_burst import Burst, Source, burst_of
from xdpgw.fast_errors import Wanted, refuse_socket
from xdpgw.fast_socket import Levels, Statistics, Want, levels_of, open_socket, statistics_of
from xdpgw.fast_umem import Ledger, Umem, two_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.fast_program import Entry

__all__ = ["Burst", "FastPort", "Ledger", "Levels", "Statistics", "Umem", "burst_of", "bursts"]

_AF_XDP = 44  # which Python's socket does not name

SLICE_MS = 100
"""How long C waits at a time: as late as a signal may be seen that another thread was woken for."""


class FastPort(AsyncBursts):
    """One AF_XDP socket on one queue of a port. Context manager, and asynchronous iterator.

    Attributes:
        port: name of the port.
        queue: number of its queue.
        zero_copy: whether the driver writes into the UMEM itself.
        mode: "zerocopy" or "copy": what it got, not what was asked for.
        attached: mode of the port's XDP program, "native" or "generic"; None with attach=None.
        umem: where its frames lie.
    """

    def __init__(
        self,
        port: str,
        queue: int = 0,
        *,
        mode: Literal["auto", "zerocopy", "copy"] = "auto",
        ring: int = 2048,
        burst: int = 256,
        umem: Umem | None = None,
        busy_poll_us: int = 0,
        attach: Literal["auto", "native", "generic"] | None = "auto",
        target: str | None = None,
    ) -> None:
        """Open the socket, and have the port's program hand it the queue's frames.

        Args:
            port: name of an interface of this network namespace. It has to be up.
            queue: counted from 0. Frames of other queues go on to the kernel.
            mode: zerocopy, copy, or auto: the better one that the driver has.
            ring: descriptors of the RX and of the TX ring, a power of two; the fill ring has twice
                as many.
            burst: frames that are received at a time, 1 to 4096.
            umem: memory that is shared with other ports; None for one of its own, with chunks that
                hold a frame of the port's MTU.
            busy_poll_us: how long the kernel looks for frames itself, in microseconds; 0: not.
            attach: how to put a program on the port that hands all frames to AF_XDP: native,
                generic, or auto. FastPorts of this process share it, and the last one removes it.
                None: no program, for a port that only sends, or whose XSKMAP is yours.
            target: serve this AF_XDP target of the policy in force instead, on this queue.
                `attach` does not matter then.

        Raises:
            FastpathError: no such port or queue, the queue is held by another socket, a number is
                out of its range, the UMEM is over the limit of locked memory, the mode is not
                there. The hint says what to do.
            BusyError: another XDP program is on the port.
            PrivilegeError: CAP_NET_RAW, or for the program CAP_NET_ADMIN and CAP_BPF, are missing.
            XdpgwError: no policy is in force, or it has no such target.
        """
        self._xsk: Any = None
        self._closing = False
        self._burst: Burst | None = None
        self.port, self.queue = port, queue
        want = Want(port, queue, mode, ring, burst, busy_poll_us)
        with ExitStack() as undo:
            opened = open_socket(want, umem, attach, target, undo)
            self._undo = undo.pop_all()
        self.umem = opened.umem
        self._entry: Entry | None = opened.entry
        self._wanted: Wanted = opened.wanted
        self._raw = opened.raw
        self._xsk = opened.xsk
        self._source = Source(opened.raw, opened.xsk, opened.umem)
        self.attached = None if opened.entry is None else opened.entry.attached
        self.zero_copy = bool(lib.xg_xsk_zero_copy(opened.xsk))
        self.mode = "zerocopy" if self.zero_copy else "copy"

    # Receiving

    def bursts(self, timeout_ms: int = -1) -> Iterator[Burst]:
        """Receive, burst by burst. Each step ends the burst before it.

        Args:
            timeout_ms: the loop ends when no frame came for so long; -1: it never ends by itself;
                0: it takes what is there.

        Yields:
            a Burst with 1 to `burst` frames. It is never waited for more than the first.

        Raises:
            BufferError: an array or a slice of a frame of the last burst is still there.
            FastpathError: the port is gone (ENODEV). One that is only down is waited for.
        """
        self.xsk  # noqa: B018  raises at the call, and not at the first step
        return self._bursts(timeout_ms)

    def _bursts(self, timeout_ms: int) -> Iterator[Burst]:
        lock, raw, source, receive = self.umem.lock, self._raw, self._source, lib.xg_xsk_next
        patience = whole = SLICE_MS if timeout_ms < 0 else min(timeout_ms, SLICE_MS)
        until: float | None = None
        burst: Burst | None = None
        try:
            while True:
                if self._burst is not None:
                    self._end_lease()
                if self._closing:
                    return
                if not lock.acquire(False):
                    raise two_threads()
                try:
                    n = receive(self._xsk, raw, patience)
                finally:
                    lock.release()
                if self._closing:  # by a signal's handler, just now
                    return
                if n > 0:
                    self._burst = burst = Burst(source, n)
                    yield burst
                    until, patience = None, whole
                    continue
                if n not in (0, -errno.EINTR):
                    self._failed(n)
                if timeout_ms:
                    self._check_port()
                if timeout_ms >= 0:
                    now = time.monotonic()
                    if until is None:  # the first slice is over
                        until = now + (timeout_ms - whole) / 1000
                    if now >= until:
                        return
                    patience = min(SLICE_MS, 1 + int((until - now) * 1000))
        finally:
            if burst is not None and burst is self._burst:
                self._abandon_lease()

    def _take(self) -> Burst | None:
        """The next burst, if it is there now."""
        if self._burst is not None:
            self._end_lease()
        if self._closing:
            return None
        with self.umem.alone():
            n = lib.xg_xsk_next(self.xsk, self._raw, 0)
        if n < 0:
            self._failed(n)
        if n == 0:
            return None
        self._burst = Burst(self._source, n)
        return self._burst

    def _end_lease(self) -> None:
        burst, self._burst = self._burst, None
        if burst is None:
            return
        try:
            burst.invalidate()
        except BufferError:
            with self.umem.alone():
                lib.xg_burst_end(self._raw)
            raise

    def _abandon_lease(self) -> None:
        """End the lease when the loop is left: too late to complain of what is still in use."""
        try:
            self._end_lease()
        except BufferError:
            return
        if self.umem.lock.acquire(False):
            try:
                lib.xg_burst_end(self._raw)
            finally:
                self.umem.lock.release()

    def _before_sleep(self) -> bool:
        """Have what waits in the TX ring sent. Whether some is left."""
        with self.umem.alone():
            return bool(lib.xg_xsk_flush(self.xsk, 0) > 0)

    def _check_port(self) -> None:
        """Raise if the port is gone: poll(2) does not tell it of an AF_XDP socket."""
        probe = socket.socket(_AF_XDP, socket.SOCK_RAW, 0, fileno=self.fileno())
        try:
            err = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        finally:
            probe.detach()
        if err == errno.ENETDOWN:
            self._failed(-errno.ENODEV)

    def _failed(self, err: int) -> NoReturn:
        refuse_socket(err, "poll()", port=self.port, queue=self.queue, wanted=self._wanted)

    # Sending

    def send(self, frames: Sequence[bytes] | NDArray[np.uint8]) -> int:
        """Send frames of one's own: copies them into free chunks.

        Args:
            frames: bytes each, from the Ethernet header on, without the checksum at the end; or an
                array of frames of one length, shape (n, length), uint8.

        Returns:
            how many went into the TX ring, from the first on; fewer than were given where the ring
            stays full or the UMEM has no free chunk: the rest may be tried again.

        Raises:
            ValueError: a frame is shorter than 14 bytes, or too long for the chunks. Those before
                it are sent. Or the port is closed.
            TypeError: `frames` is something else.
        """
        data, offsets, lengths = _flat(frames)
        if not len(lengths):
            return 0
        done = ffi.new("uint32_t *")
        with self.umem.alone():
            err = lib.xg_xsk_send(
                self.xsk,
                ffi.from_buffer("uint8_t *", data),
                ffi.from_buffer("size_t *", offsets),
                ffi.from_buffer("uint32_t *", lengths),
                len(lengths),
                done,
            )
        if err == -errno.EMSGSIZE:
            raise ValueError(
                f"frame {done[0]} has {lengths[done[0]]} bytes; frames of this port have 14 to "
                f"{self.umem.frame_bytes}. The {done[0]} before it were sent"
            )
        if err < 0:
            self._failed(err)
        return int(done[0])

    def flush(self, timeout_ms: int = 1000) -> int:
        """Wait until the kernel has taken what is in the TX ring.

        Args:
            timeout_ms: how long at most.

        Returns:
            frames that are left in the ring, 0 where all is sent.
        """
        until = time.monotonic() + timeout_ms / 1000
        while True:
            left_ms = int((until - time.monotonic()) * 1000)
            with self.umem.alone():
                left: int = lib.xg_xsk_flush(self.xsk, max(0, min(left_ms, SLICE_MS)))
            if left == 0 or left_ms <= 0:
                return left

    # Asking

    @property
    def xsk(self) -> Any:
        """struct xg_xsk *, for the modules of xdpgw. Raises ValueError where it is closed."""
        if self._xsk is None:
            raise ValueError(f"the FastPort on queue {self.queue} of port {self.port} is closed")
        return self._xsk

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._xsk is None

    def fileno(self) -> int:
        """The socket's descriptor, for select and the like: readable when frames wait."""
        fd: int = lib.xg_xsk_fd(self.xsk)
        return fd

    def statistics(self) -> Statistics:
        """What this socket counted since it was opened. Any thread may ask."""
        return statistics_of(self.xsk)

    def levels(self) -> Levels:
        """How full its rings are now."""
        return levels_of(self.xsk)

    def ledger(self) -> Ledger:
        """Who owns how many chunks of its UMEM now."""
        return self.umem.ledger()

    # Closing

    def close(self) -> None:
        """Take the queue's frames off the socket, then close it, then remove the program if it is
        the last FastPort on it. Ends the burst. Twice is fine.

        A loop that waits in another thread ends within 100 ms. With asyncio: call it on the loop's
        thread.

        Raises:
            BufferError: an array or a slice of a frame is still there; it is closed all the same.
        """
        self._closing = True
        with self.umem.lock:
            if self._xsk is None:
                return
            if self._entry is not None:
                self._entry.remove()
            burst, self._burst = self._burst, None
            try:
                if burst is not None:
                    burst.invalidate()
            finally:
                lib.xg_burst_end(self._raw)
                self._wake()
                self._xsk = None
                self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except BufferError:
            if error is None:  # else the frames of the exception's traceback hold the views
                raise

    def __del__(self) -> None:
        if getattr(self, "_xsk", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._xsk is None else self.mode
        return f"<FastPort {self.port} queue {self.queue}, {state}>"


def bursts(*ports: FastPort, timeout_ms: int = -1) -> Iterator[tuple[FastPort, Burst]]:
    """Receive from several ports, a burst of each in turn. Each step ends the burst before it.

    Args:
        ports: open ones, used by this thread only.
        timeout_ms: as of `FastPort.bursts`.

    Yields:
        the port that received, and the burst.

    Raises:
        As `FastPort.bursts`.
    """
    poller = select.poll()
    for port in ports:
        poller.register(port, select.POLLIN)
    until: float | None = None
    try:
        while not any(port.closed for port in ports):
            got = False
            for port in ports:
                burst = port._take()
                if burst is not None:
                    got = True
                    yield port, burst
                    port._end_lease()
                    with port.umem.alone():
                        lib.xg_burst_end(port._raw)
            if got:
                until = None
                continue
            now = time.monotonic()
            if until is None:
                until = now + timeout_ms / 1000
            if timeout_ms >= 0 and now >= until:
                return
            patience = SLICE_MS if timeout_ms < 0 else min(SLICE_MS, (until - now) * 1000)
            if any([port._before_sleep() for port in ports]):
                patience = 1
            if not poller.poll(patience) and timeout_ms:
                for port in ports:
                    port._check_port()
    finally:
        for port in ports:
            if not port.closed:
                port._abandon_lease()


def _flat(
    frames: Sequence[bytes] | NDArray[np.uint8],
) -> tuple[bytes | NDArray[np.uint8], NDArray[np.uintp], NDArray[np.uint32]]:
    """Frames in one piece, where each begins, and how long it is."""
    if isinstance(frames, np.ndarray):
        if frames.dtype != np.uint8 or frames.ndim != 2:
            raise TypeError(
                f"an array of frames is of uint8 and has shape (n, length), not {frames.dtype} "
                f"and {frames.shape}"
            )
        n, length = frames.shape
        offsets = np.arange(n, dtype=np.uintp) * length
        return np.ascontiguousarray(frames), offsets, np.full(n, length, np.uint32)
    if isinstance(frames, (bytes, bytearray, memoryview)):
        raise TypeError("send() takes several frames: send([frame])")
    lengths = np.fromiter(map(len, frames), np.uint32, len(frames))
    offsets = np.zeros(len(lengths), np.uintp)
    np.cumsum(lengths[:-1], out=offsets[1:])
    return b"".join(frames), offsets, lengths
