"""The traffic generator: frames out of a port, counted exactly, at a rate or as fast as it goes.

Two engines:

    afxdp   an AF_XDP socket's TX ring (`fastpath/generate.c`). Any frames, of any lengths, in
            order; what is reported are completions: frames that the driver has sent.
    live    the kernel's live test runs (BPF_F_TEST_XDP_LIVE_FRAMES, kernel 5.18): frames enter a
            program as if the port had received them, which sends them out of it, or up the stack
            (`generate_live.py`). Several times as fast on veth; frames that differ in their first
            128 bytes and in length.

Nothing is sent but on the port that is named.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, inf
from typing import Any, Literal, NoReturn

from xdpgw._native import ffi, lib
from xdpgw.errors import FastpathError, XdpgwError
from xdpgw.facts import mtu_of
from xdpgw.fast_errors import Wanted, check_port
from xdpgw.fast_open import MODES, open_xsk
from xdpgw.fast_umem import FRAME_OVERHEAD_BYTES, chunk_for, frame_room
from xdpgw.flows import Frames, Template, frames_of_pcap
from xdpgw.generate_live import Live

__all__ = ["Frames", "Report", "Template", "frames_of_pcap", "generate"]

RING = 2048
RETRY_MS = 1000
ENGINES = ("afxdp", "live")

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What was sent.

    Args:
        frames: completed by the driver (afxdp), or given their verdict by the program (live). The
            far end may have had no room for some of them: only it knows.
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

    Ctrl-C, pressed once or more often, ends it with a report of what was sent until then; other
    threads may run meanwhile.

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
        FastpathError: no such port or queue, the port is down, a frame is too long for it, or
            frames do not leave it.
        UnsupportedError: the kernel has no live frames, or the frames are none for it.
        KernelError: it refuses a live run for another reason.
        XdpgwError: no frame, an unknown engine or mode, a number below 0.
        PrivilegeError: CAP_NET_RAW (afxdp), or CAP_NET_ADMIN and CAP_BPF (live), are missing.
    """
    if engine not in ENGINES or mode not in MODES:
        raise XdpgwError(
            f"there is no engine {engine}" if engine not in ENGINES else f"there is no mode {mode}",
            f"{' or '.join(ENGINES)}" if engine not in ENGINES else f"{' or '.join(MODES)}",
        )
    if not (0 <= count < 1 << 63 and 0 <= rate_pps < inf and 0 <= seconds < 1 << 33):
        raise XdpgwError(f"count {count}, rate_pps {rate_pps} and seconds {seconds} are 0 or more")
    made = frames if isinstance(frames, Frames) else Frames.of(frames)
    if not len(made):
        raise XdpgwError("there is no frame to send")
    ifindex = check_port(port, queue)
    _check_lengths(port, queue, made)
    if engine == "live":
        with Live(
            port, ifindex, made, count=count, rate_pps=rate_pps, seconds=seconds, into=into
        ) as live:
            _watched(live.send, stop=live.stop, sent=lambda: live.frames, tell=progress)
        return Report(live.frames, live.bytes, live.seconds, "live")
    if into:
        raise XdpgwError("frames go up the stack with the engine live only", "--engine live")
    return _afxdp(port, ifindex, made, count, rate_pps, seconds, queue, mode, progress)


def _check_lengths(port: str, queue: int, frames: Frames) -> None:
    longest, shortest = int(frames.lengths.max()), int(frames.lengths.min())
    limit = min(mtu_of(port) + FRAME_OVERHEAD_BYTES, frame_room(os.sysconf("SC_PAGESIZE")))
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
    umem = ffi.new("struct xg_umem **")
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
        wanted = Wanted(RING, chunk_bytes, chunks * chunk_bytes, mode)
        xsk = open_xsk(umem[0], opts, port=port, wanted=wanted)
        try:
            yield xsk
        finally:
            lib.xg_xsk_close(xsk)
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
    chunk_bytes = chunk_for(int(frames.lengths.max()))
    laps = -(-2 * RING // len(frames))
    chunks = RING + laps * len(frames)
    stop, sent = ffi.new("uint32_t *"), ffi.new("uint64_t *")
    opts, result = ffi.new("struct xg_generate_opts *"), ffi.new("struct xg_generate_result *")
    opts.count, opts.stop, opts.progress = count, stop, sent
    # Rounded up, so that the rate is never exceeded; in 64 bits, which is a frame in 78 hours.
    opts.interval_ns_q16 = min(ceil((1e9 * 65_536) / rate_pps), (1 << 64) - 1) if rate_pps else 0
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
        _refuse_sending(err, int(result.frames), port, queue)
    return Report(int(result.frames), int(result.bytes), result.duration_ns / 1e9, "afxdp")


def _refuse_sending(err: int, sent: int, port: str, queue: int) -> NoReturn:
    if err == -errno.ETIMEDOUT:
        what = f"queue {queue} of port {port} stands still after {sent} frames: the driver has "
        what += "completed none of the others for 1 s"
        hint: str | None = f"is port {port} still up, and something at the other end of its cable?"
    else:
        what = f"nothing was sent from queue {queue} of port {port}: {os.strerror(-err)}"
        hint = "fewer flows take less memory" if err == -errno.ENOMEM else None
    raise FastpathError(what, hint, -err, port=port, queue=queue)


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
