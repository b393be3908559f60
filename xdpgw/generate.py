"""The traffic generator: frames out of a port, counted exactly, at a rate or as fast as it goes.

Two engines:

    afxdp   an AF_XDP socket's TX ring (`fastpath/generate.c`). Any frames, of any lengths, in
            order; what is reported are completions: frames that the driver has sent.
    live    the kernel's live test runs (BPF_F_TEST_XDP_LIVE_FRAMES, kernel 5.18): frames enter a
            program as if the port had received them, which sends them out of it, or up the stack.
            Several times as fast on veth; frames of one length.

Nothing is sent but on the port that is named.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from xdpgw._native import ffi, lib
from xdpgw.errors import FastpathError, KernelError, UnsupportedError, XdpgwError
from xdpgw.facts import mtu_of
from xdpgw.fast_errors import Wanted, check_port, refuse_socket
from xdpgw.fast_umem import FRAME_OVERHEAD_BYTES, HEADROOM_BYTES
from xdpgw.flows import Frames, Template, frames_of_pcap
from xdpgw.kernel import BpfObject, Program
from xdpgw.loader import artifact

__all__ = ["Frames", "Report", "Template", "frames_of_pcap", "generate"]

RING = 2048
RETRY_MS = 1000
MODES = {"auto": lib.XG_XSK_AUTO, "copy": lib.XG_XSK_COPY, "zerocopy": lib.XG_XSK_ZERO_COPY}

HEAD_BYTES = 128
"""What may differ between the frames of a live run (bpf/generate.bpf.c)."""

CALL_FRAMES = 1 << 20
"""Frames of one live run: a run costs some ten milliseconds of setting up, and sees no Ctrl-C."""

PACED_CALL_S = 0.1
"""With a rate, a live run is as many frames as are due in so long."""

XDP_PASS, XDP_TX = 2, 3

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What was sent.

    Args:
        frames: that left: completed by the driver (afxdp), run by the kernel (live).
        bytes: of these, without FCS.
        seconds: from the first to the last.
        engine: afxdp or live.
    """

    frames: int
    bytes: int
    seconds: float
    engine: str

    @property
    def pps(self) -> float:
        """Frames a second; 0 where nothing was sent."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def bits_per_s(self) -> float:
        """Bits of frames a second, without FCS, preamble and gap."""
        return 8 * self.bytes / self.seconds if self.seconds else 0.0


def generate(
    port: str,
    frames: Frames | list[bytes],
    *,
    count: int = 0,
    rate_pps: float = 0.0,
    seconds: float = 0.0,
    engine: Literal["afxdp", "live"] = "afxdp",
    queue: int = 0,
    mode: str = "auto",
    into: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Send frames in order, again and again from the first one on.

    Ctrl-C ends it, with a report of what was sent until then; other threads may run meanwhile.

    Args:
        port: an interface of this network namespace. It has to be up.
        frames: what to send; without FCS.
        count: how many in all; 0 for no end.
        rate_pps: frames a second; 0 for as fast as it goes.
        seconds: end after so many; 0 for no end.
        engine: afxdp or live, see above.
        queue: TX queue of the port (afxdp).
        mode: auto, copy or zerocopy (afxdp).
        into: up the stack, as if the port had received them (live).
        progress: called several times a second with the number of frames sent so far.

    Raises:
        FastpathError: no such port or queue, the port is down, or a frame is too long for it.
        UnsupportedError: the kernel has no live frames, or the frames are none for it.
        PrivilegeError: CAP_NET_RAW (afxdp), or CAP_NET_ADMIN and CAP_BPF (live), are missing.
    """
    made = frames if isinstance(frames, Frames) else Frames.of(frames)
    if not len(made):
        raise XdpgwError("there is no frame to send")
    ifindex = check_port(port, queue)
    _check_up(port, queue)
    _check_lengths(port, queue, made)
    if engine == "live":
        return _live(ifindex, made, count, rate_pps, seconds, into, progress)
    if into:
        raise XdpgwError("frames go up the stack with the engine live only", "--engine live")
    return _afxdp(port, ifindex, made, count, rate_pps, seconds, queue, mode, progress)


def _check_up(port: str, queue: int) -> None:
    import fcntl

    siocgifflags, up = 0x8913, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, siocgifflags, struct.pack("16sH22x", port.encode(), 0))
    if not struct.unpack("16sH22x", answer)[1] & up:
        raise FastpathError(
            f"port {port} is down", f"ip link set dev {port} up", port=port, queue=queue
        )


def _check_lengths(port: str, queue: int, frames: Frames) -> None:
    longest, shortest = int(frames.lengths.max()), int(frames.lengths.min())
    limit = min(mtu_of(port) + FRAME_OVERHEAD_BYTES, os.sysconf("SC_PAGESIZE") - HEADROOM_BYTES)
    if longest > limit or shortest < 14:
        wrong = longest if longest > limit else shortest
        raise FastpathError(
            f"a frame of {wrong} bytes cannot be sent on port {port}",
            f"14 to {limit} bytes, without the FCS: its MTU is {mtu_of(port)}",
            port=port,
            queue=queue,
        )


@contextmanager
def _socket(
    port: str, ifindex: int, queue: int, mode: str, chunks: int, chunk_bytes: int
) -> Iterator[Any]:
    umem, xsk, call = ffi.new("struct xg_umem **"), ffi.new("struct xg_xsk **"), None
    err = lib.xg_umem_create(chunks, chunk_bytes, umem)
    if err < 0:
        raise FastpathError(
            f"no memory for {chunks} chunks of {chunk_bytes} bytes", "fewer flows take less", -err
        )
    try:
        opts = ffi.new("struct xg_xsk_opts *")
        opts.ifindex, opts.queue, opts.tx = ifindex, queue, RING
        # In zero-copy mode the queue's other traffic is received into these.
        opts.fill, opts.completion = RING, 2 * RING
        opts.mode, opts.retry_ms = MODES[mode], RETRY_MS
        call = ffi.new("const char **")
        err = lib.xg_xsk_open(umem[0], opts, ffi.NULL, call, xsk)
        if err < 0:
            wanted = Wanted(RING, chunk_bytes, chunks * chunk_bytes, mode)
            refuse_socket(err, ffi.string(call[0]).decode(), port=port, queue=queue, wanted=wanted)
        try:
            yield xsk[0]
        finally:
            lib.xg_xsk_close(xsk[0])
    finally:
        lib.xg_umem_free(umem[0])


def _afxdp(
    port: str,
    ifindex: int,
    frames: Frames,
    count: int,
    rate_pps: float,
    seconds: float,
    queue: int,
    mode: str,
    progress: Progress | None,
) -> Report:
    chunk_bytes = 2048 if int(frames.lengths.max()) <= 2048 - HEADROOM_BYTES else 4096
    laps = -(-2 * RING // len(frames))
    chunks = RING + laps * len(frames)
    stop, sent = ffi.new("uint32_t *"), ffi.new("uint64_t *")
    opts, result = ffi.new("struct xg_generate_opts *"), ffi.new("struct xg_generate_result *")
    opts.count, opts.stop, opts.progress = count, stop, sent
    opts.interval_ns_q16 = round((1_000_000_000 << 16) / rate_pps) if rate_pps else 0
    opts.stop_after_ns = round(seconds * 1e9)
    outcome: list[int] = []
    with _socket(port, ifindex, queue, mode, chunks, chunk_bytes) as xsk:

        def send() -> None:
            outcome.append(
                lib.xg_generate(
                    xsk,
                    ffi.from_buffer("uint8_t *", frames.data),
                    ffi.from_buffer("size_t *", frames.offsets),
                    ffi.from_buffer("uint32_t *", frames.lengths),
                    len(frames),
                    opts,
                    result,
                )
            )

        _watched(
            send, stop=lambda: stop.__setitem__(0, 1), sent=lambda: int(sent[0]), tell=progress
        )
    (err,) = outcome
    if err < 0:
        raise FastpathError(
            f"{result.frames} frames left queue {queue} of port {port}; of the rest the driver "
            f"does not say so: {os.strerror(-err)}",
            "is there something at the other end of the cable?",
            -err,
            port=port,
            queue=queue,
        )
    return Report(int(result.frames), int(result.bytes), result.duration_ns / 1e9, "afxdp")


def _live(
    ifindex: int,
    frames: Frames,
    count: int,
    rate_pps: float,
    seconds: float,
    into: bool,
    progress: Progress | None,
) -> Report:
    first = frames[0]
    heads = _heads(frames)
    with ExitStack() as stack:
        obj = stack.enter_context(BpfObject(artifact("generate.bpf.o"), name="generate"))
        verdict = XDP_PASS if into else XDP_TX
        obj.set_rodata("verdict", struct.pack("<I", verdict))
        obj.set_rodata("flows", struct.pack("<I", len(heads)))
        obj.load(entries={"heads": len(heads)})
        obj.map("heads").update_many(np.arange(len(heads), dtype=np.uint32), heads)
        program, start = obj.program("generate"), time.monotonic()
        run = _LiveRun(program, ifindex, first, count, rate_pps, seconds)
        _watched(run.send, stop=run.stop.set, sent=lambda: run.sent, tell=progress)
        if run.failed is not None:
            raise run.failed
        return Report(run.sent, run.sent * len(first), time.monotonic() - start, "live")


class _LiveRun:
    """The loop of live runs; on a thread, as a signal would end a run half-way, and uncounted."""

    def __init__(
        self,
        program: Program,
        ifindex: int,
        frame: bytes,
        count: int,
        rate_pps: float,
        seconds: float,
    ) -> None:
        self._run = partial(program.live_frames, frame, ifindex)
        self._count, self._rate_pps, self._seconds = count, rate_pps, seconds
        self.stop = threading.Event()
        self.sent = 0
        self.failed: Exception | None = None

    def send(self) -> None:
        """Send until all are out, time is up, or `stop` is set."""
        start = time.monotonic()
        batch = max(1, int(self._rate_pps * PACED_CALL_S)) if self._rate_pps else CALL_FRAMES
        while not self.stop.is_set() and not (self._count and self.sent >= self._count):
            elapsed = time.monotonic() - start
            if self._seconds and elapsed >= self._seconds:
                return
            if self._rate_pps and self.stop.wait(max(0.0, self.sent / self._rate_pps - elapsed)):
                return
            n = min(batch, self._count - self.sent) if self._count else batch
            try:
                self._run(n)
            except KernelError as error:
                self.failed = error
                return
            self.sent += n


def _watched(
    send: Callable[[], None],
    *,
    stop: Callable[[], object],
    sent: Callable[[], int],
    tell: Progress | None,
) -> None:
    """Run the sender on a thread that signals leave alone, and watch it on this one.

    The sender has ended when this does, whatever happens: what it works on is closed next.
    """
    # Not join(timeout): interrupted, it takes a thread that runs for one that has ended (3.11).
    done, failed = threading.Event(), []

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            send()
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    sender = threading.Thread(target=run, name="xdpgw-generate")
    with _interrupts_to(stop):
        sender.start()
        try:
            while not done.wait(0.1):
                if tell is not None:
                    tell(sent())
        finally:
            stop()
            done.wait()
            sender.join()
    if failed:
        raise failed[0]


@contextmanager
def _interrupts_to(stop: Callable[[], object]) -> Iterator[None]:
    """While it lasts, Ctrl-C calls `stop` and raises nothing, however often it is pressed."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _heads(frames: Frames) -> Any:
    length = int(frames.lengths[0])
    rows = frames.data.reshape(-1, length) if (frames.lengths == length).all() else None
    if rows is None or (rows[:, HEAD_BYTES:] != rows[0, HEAD_BYTES:]).any():
        raise UnsupportedError(
            f"the engine live sends frames of one length that differ in their first {HEAD_BYTES} "
            "bytes only",
            "--engine afxdp sends any frames",
            feature="frames of several lengths in live mode",
        )
    heads = np.zeros((len(rows), HEAD_BYTES), np.uint8)
    heads[:, : min(length, HEAD_BYTES)] = rows[:, :HEAD_BYTES]
    return heads
