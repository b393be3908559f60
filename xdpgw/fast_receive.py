"""The loop that receives: burst by burst from one port, or from several in turn."""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from xdpgw._native import lib
from xdpgw.fast_burst import Burst, Source
from xdpgw.fast_errors import Wanted, refuse_socket
from xdpgw.fast_umem import Umem, two_threads

__all__ = ["Receiver", "bursts"]

SLICE_MS = 100
"""How long C waits at a time: as late as a signal may be seen that another thread was woken for."""

P = TypeVar("P", bound="Receiver")


class Receiver:
    """The receiving half of a FastPort."""

    port: str
    queue: int
    umem: Umem
    _xsk: Any
    """None: closed."""
    _raw: Any
    """struct xg_burst *"""
    _source: Source
    _wanted: Wanted
    _burst: Burst | None = None
    """The one that has not ended."""
    _closing = False

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

    def _end_lease(self, *, at_once: bool = False) -> None:
        """End it on the side of Python; `at_once` in C, too, which the next receive does else."""
        burst, self._burst = self._burst, None
        if burst is None:
            return
        try:
            burst.invalidate()
        except BufferError:
            at_once = True
            raise
        finally:
            if at_once and self.umem.lock.acquire(False):
                try:
                    lib.xg_burst_end(self._raw)
                finally:
                    self.umem.lock.release()

    def _abandon_lease(self) -> None:
        """End the lease as the loop is left: too late to complain of what is still in use."""
        with suppress(BufferError):
            self._end_lease(at_once=True)

    def _before_sleep(self) -> bool:
        """Have what waits in the TX ring sent. Whether some is left."""
        with self.umem.alone():
            return bool(lib.xg_xsk_flush(self.xsk, 0) > 0)

    def _check_port(self) -> None:
        """Raise if the port is gone, which poll(2) does not tell; xg_xsk_next() asks by itself."""
        err = lib.xg_xsk_error(self.xsk)
        if err < 0:
            self._failed(err)

    def _failed(self, err: int) -> NoReturn:
        if err == -errno.ENETDOWN:  # so the kernel says "gone"; of "down" it says nothing
            err = -errno.ENODEV
        refuse_socket(err, "poll()", port=self.port, queue=self.queue, wanted=self._wanted)


def bursts(*ports: P, timeout_ms: int = -1) -> Iterator[tuple[P, Burst]]:
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
    lent: tuple[P, Burst] | None = None
    try:
        while not any(port.closed for port in ports):
            got = False
            for port in ports:
                burst = port._take()
                if burst is not None:
                    got = True
                    lent = port, burst
                    yield lent
                    if port._burst is burst:
                        port._end_lease(at_once=True)
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
        if lent is not None and lent[0]._burst is lent[1]:
            lent[0]._abandon_lease()
