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
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from xdpgw._native import ffi, lib
from xdpgw.fast_async import AsyncBursts
from xdpgw.fast_burst import Burst, Source, burst_of
from xdpgw.fast_frames import in_one_piece
from xdpgw.fast_receive import SLICE_MS, bursts
from xdpgw.fast_socket import Levels, Statistics, Want, levels_of, open_socket, statistics_of
from xdpgw.fast_umem import Ledger, Umem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Burst", "FastPort", "Ledger", "Levels", "Statistics", "Umem", "burst_of", "bursts"]


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
        self._xsk = None
        self.port, self.queue = port, queue
        want = Want(port, queue, mode, ring, burst, busy_poll_us)
        with ExitStack() as undo:
            opened = open_socket(want, umem, attach, target, undo)
            self._undo = undo.pop_all()
        self.umem = opened.umem
        self._entry = opened.entry
        self._wanted = opened.wanted
        self._raw = opened.raw
        self._xsk = opened.xsk
        self._source = Source(opened.raw, opened.xsk, opened.umem)
        self.attached = None if opened.entry is None else opened.entry.attached
        self.zero_copy = bool(lib.xg_xsk_zero_copy(opened.xsk))
        self.mode = "zerocopy" if self.zero_copy else "copy"

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
        data, offsets, lengths = in_one_piece(frames)
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
