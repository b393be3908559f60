"""The generator's engine `live`: frames that the kernel makes (BPF_F_TEST_XDP_LIVE_FRAMES, 5.18).

A run enters a program (`bpf/generate.bpf.c`) so many times with a frame, as if a port had received
it. The program writes the head of the next flow over it, and has it leave by the port, or go up the
stack. The kernel tells when a run is over, and the program's books how many frames it made.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from xdpgw.errors import FastpathError, KernelError, UnsupportedError
from xdpgw.kernel import BpfObject
from xdpgw.loader import artifact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.flows import Frames

__all__ = ["HEAD_BYTES", "Live"]

HEAD_BYTES = 128
"""What may differ between the frames of a run (`struct head` of bpf/generate.bpf.c)."""

_XDP_PASS, _XDP_TX = 2, 3

_CALL_FIRST, _CALL_MOST = 8192, 1 << 20
"""Frames of a run: at first, when nobody knows how fast the port is, and at most."""

_CALL_S = 0.25
"""A run should take so long: its set-up takes some ten ms, and it sees no Ctrl-C."""

_TICK_S = 0.1
"""With a rate, from one run to the next."""

_COUNTER_LAG_S = 2.5
"""NICs' drivers that read their counters now and then do so every two seconds at least."""


class Live:
    """Runs one after the other, until all are out; context manager.

    Args:
        port: where frames enter, and leave unless `into`.
        ifindex: of the port.
        frames: of lengths that may differ; they differ in their first `HEAD_BYTES` only.
        count: frames in all; 0 for no end.
        rate_pps: frames a second; 0 for as fast as it goes.
        seconds: end after so many; 0 for no end.
        into: up the stack.

    Raises:
        UnsupportedError: frames differ behind their heads.
        PrivilegeError: CAP_BPF and CAP_NET_ADMIN are missing.
    """

    def __init__(
        self,
        port: str,
        ifindex: int,
        frames: Frames,
        *,
        count: int,
        rate_pps: float,
        seconds: float,
        into: bool,
    ) -> None:
        self._port, self._ifindex, self._into = port, ifindex, into
        self._count, self._rate_pps, self._seconds = count, rate_pps, seconds
        self._lengths = frames.lengths
        self._longest, heads = _heads(frames)
        self._most, self._pps = _CALL_FIRST, 0.0
        self._stop = threading.Event()
        self.frames = 0
        self.seconds = 0.0
        self._object = BpfObject(artifact("generate.bpf.o"), name="generate")
        try:
            self._load(heads)
        except BaseException:
            self._object.close()
            raise

    def _load(self, heads: NDArray[np.uint8]) -> None:
        several = bool((self._lengths != len(self._longest)).any())
        for symbol, value in (
            ("verdict", _XDP_PASS if self._into else _XDP_TX),
            ("flows", len(heads)),
            ("longest_bytes", len(self._longest) if several else 0),
        ):
            self._object.set_rodata(symbol, struct.pack("=I", value))
        self._object.load(entries={"heads": len(heads), "lengths": len(heads) if several else 1})
        numbers = np.arange(len(heads), dtype=np.uint32)
        self._object.map("heads").update_many(numbers, heads)
        if several:
            self._object.map("lengths").update_many(numbers, self._lengths)
        self._program, self._books = self._object.program("generate"), self._object.map("books")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._object.close()

    @property
    def bytes(self) -> int:
        """Of the frames made so far, without FCS: they are made in order."""
        rounds, rest = divmod(self.frames, len(self._lengths))
        return rounds * int(self._lengths.sum()) + int(self._lengths[:rest].sum())

    def stop(self) -> None:
        """From any thread: end after the run that is on."""
        self._stop.set()

    def send(self) -> None:
        """Send until all are out, time is up, or `stop()`.

        On a thread that signals leave alone: one would end a run half-way.

        Raises:
            UnsupportedError: the kernel makes no live frames, or none so long.
            FastpathError: they do not leave the port.
            KernelError: it refuses a run for another reason.
        """
        start = time.monotonic()
        try:
            self._send(start)
        finally:
            self.seconds = time.monotonic() - start

    def _send(self, start: float) -> None:
        ran = -_TICK_S
        while not self._stop.is_set() and not (self._count and self.frames >= self._count):
            now = time.monotonic() - start
            wait = self._wait_s(now, ran)
            if wait > 0:
                self._stop.wait(wait)
                continue
            n, most = self._due(now), self._most
            over = bool(self._seconds) and now >= self._seconds
            if n:
                self._run(n)
                ran = now if n < most else -_TICK_S  # more may be due already
            if over:
                return

    def _wait_s(self, now: float, ran: float) -> float:
        """How long until the next run is worth its set-up; 0 or less: it is."""
        if not self._rate_pps:
            return 0.0
        due = self.frames / self._rate_pps  # the next frame
        wake = max(due, ran + _TICK_S)
        if self._count:
            wake = min(wake, max(due, (self._count - 1) / self._rate_pps))
        if self._seconds:
            wake = min(wake, self._seconds)
        return min(wake - now, threading.TIMEOUT_MAX)

    def _due(self, now: float) -> int:
        """Frames of the next run; with a rate, never more than rate * time + 1 in all."""
        n = self._most
        if self._rate_pps:
            allowed = min(now, self._seconds) if self._seconds else now
            n = min(n, int(self._rate_pps * allowed) + 1 - self.frames)
        elif self._seconds:
            left = self._seconds - now
            n = min(n, int(self._pps * left) + 1 if self._pps else n) if left > 0 else 0
        if self._count:
            n = min(n, self._count - self.frames)
        return max(n, 0)

    def _run(self, n: int) -> None:
        first, before = self.frames == 0, self._transmitted()
        start = time.monotonic()
        try:
            self._program.live_frames(self._longest, self._ifindex, n)
        except KernelError as error:
            if error.errno == errno.EINTR:
                return  # stopped and continued, say: the rest is run next
            self._refuse(error)
        finally:
            had, self.frames = self.frames, self._made()
        if self.frames - had != n:
            raise KernelError(f"the kernel ran {n} live frames, and made {self.frames - had}")
        if n == self._most:
            self._pps = n / (time.monotonic() - start)
            self._most = min(max(_CALL_FIRST, int(self._pps * _CALL_S)), _CALL_MOST)
        if first and not self._into and before is not None:
            self._check_left(before)

    def _made(self) -> int:
        made: int = struct.unpack_from("=Q", self._books.lookup(bytes(4)))[0]
        return made

    def _refuse(self, error: KernelError) -> None:
        if error.errno != errno.EINVAL:
            raise error
        # A page less headroom, struct skb_shared_info and what the run itself keeps in it.
        most = os.sysconf("SC_PAGESIZE") - 256 - 320 - 128
        if len(self._longest) > most:
            raise UnsupportedError(
                f"the kernel makes no live frames of {len(self._longest)} bytes",
                f"up to {most} are safe; --engine afxdp sends longer ones",
                feature="long live frames",
            ) from error
        raise UnsupportedError(
            f"this kernel ({os.uname().release}) makes no live frames",
            "they take 5.18; --engine afxdp sends without them",
            feature="live frames (BPF_F_TEST_XDP_LIVE_FRAMES)",
        ) from error

    def _check_left(self, before: int) -> None:
        """A driver may refuse all frames, and the kernel does not tell the run."""
        deadline = time.monotonic() + _COUNTER_LAG_S
        while self._transmitted() == before:
            if time.monotonic() > deadline:
                raise FastpathError(
                    f"the kernel made {self.frames} frames, and none left port {self._port}",
                    "it takes a driver with ndo_xdp_xmit; a veth's far end takes such frames only "
                    "while it runs an XDP program or GRO is on (ethtool -K PEER gro on); --engine "
                    "afxdp sends by any driver",
                    port=self._port,
                )
            if self._stop.wait(0.01):
                return

    def _transmitted(self) -> int | None:
        """Frames that the port has sent, by the file that shows this thread's namespace."""
        try:
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        except OSError:
            return None
        for name, _, numbers in (line.partition(":") for line in lines):
            if name.strip() == self._port:
                return int(numbers.split()[9])
        return None


def _heads(frames: Frames) -> tuple[bytes, NDArray[np.uint8]]:
    """The longest frame, and the head of each, shape (n, HEAD_BYTES), zeros behind."""
    longest = frames[int(frames.lengths.argmax())]
    tail = np.frombuffer(longest, np.uint8)[HEAD_BYTES:]
    heads = np.zeros((len(frames), HEAD_BYTES), np.uint8)
    for length in np.unique(frames.lengths).tolist():
        at = np.flatnonzero(frames.lengths == length)
        rows = np.lib.stride_tricks.sliding_window_view(frames.data, length)[frames.offsets[at]]
        heads[at, :length] = rows[:, :HEAD_BYTES]
        if (rows[:, HEAD_BYTES:] != tail[: max(0, length - HEAD_BYTES)]).any():
            raise UnsupportedError(
                f"the engine live makes frames that differ in their first {HEAD_BYTES} bytes only",
                "--engine afxdp sends any frames",
                feature="frames that differ behind their heads in live mode",
            )
    return longest, heads
