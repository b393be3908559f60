"""Filters on a veth pair under live traffic: how many packets each judges in a second of CPU time.

    generator, on its CPU --live frames--> left-peer ==veth== left: NAPI thread on the other CPU,
                                                              and in it the filter

The kernel's live test runs send as many frames as they can, of many flows; the port takes what the
filter leaves it time for, and drops the rest in front of it. So what the port is said to have
received was judged, one by one, whichever filter is there. The time is what the NAPI thread got of
its CPU (/proc/PID/schedstat), so that neighbours do not count, nor a generator that is too slow for
a light filter. veth's own work, and for nft, iptables and generic mode the making of a socket
buffer, is in it.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpgw.flows import Frames
    from xdpgw.generate_live import Live
    from xdpgw.pins import Instance, Manifest
    from xdpgw.testbed import TestBed

__all__ = [
    "GENERATOR_CPU",
    "PORT",
    "SUBJECT_CPU",
    "LiveBed",
    "in_force",
    "napi_thread",
    "needs_two_cpus",
    "sending",
]

GENERATOR_CPU, SUBJECT_CPU = 0, 1
PORT = "left"
SENDERS = 2
"""Setting a run up sleeps for some 20 ms, in which the other one sends."""

START_S = 20.0


def needs_two_cpus() -> None:
    """Refuse a machine with one."""
    if (os.cpu_count() or 1) < 2:
        raise RuntimeError("it takes two CPUs: one sends, one receives")


def napi_thread(bed: TestBed) -> list[int]:
    """Give the port left's receive work a kernel thread. Returns its process id."""
    show = f"mount -t sysfs none /sys && echo 1 > /sys/class/net/{PORT}/threaded"
    before = set(_napi_threads())
    with bed.gateway.entered():
        subprocess.run(["unshare", "-m", "sh", "-c", show], check=True)
    return [pid for pid in _napi_threads() if pid not in before]


def _napi_threads() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/comm") as comm:
                    if comm.read().startswith(f"napi/{PORT}-"):
                        yield int(name)
            except OSError:
                continue


@contextmanager
def sending(bed: TestBed, frames: Frames) -> Iterator[None]:
    """Frames arrive at the port left, as fast as one CPU sends them, while the context lasts.

    Raises:
        KernelError: the kernel makes no live frames; on leaving.
    """
    from xdpgw.generate_live import Live

    failed: list[BaseException] = []

    def run(sender: Live) -> None:
        try:
            os.sched_setaffinity(0, {GENERATOR_CPU})
            with bed.peer.entered():
                sender.send()
        except BaseException as error:
            failed.append(error)

    with ExitStack() as stack:
        wanted = {"count": 0, "rate_pps": 0.0, "seconds": 0.0, "into": False}
        for _ in range(SENDERS):
            sender = Live(f"{PORT}-peer", bed.peer_ifindex(), frames, **wanted)  # type: ignore[arg-type]
            stack.enter_context(sender)
            thread = threading.Thread(target=run, args=(sender,))
            stack.callback(thread.join)
            stack.callback(sender.stop)
            thread.start()
        yield
    if failed:
        raise failed[0]


class LiveBed:
    """A bed with a filter on its port, and how fast that judges."""

    def __init__(self, stack: ExitStack, frames: Frames, seconds: float) -> None:
        """Make the bed, without a filter.

        Args:
            frames: what is sent.
            seconds: of a sample.
        """
        from xdpgw.testbed import TestBed

        needs_two_cpus()
        self._frames, self._seconds = frames, seconds
        self.bed: TestBed = stack.enter_context(TestBed((PORT,)))
        with self.bed.gateway.entered():
            # Without a native program, veth takes live frames with GRO only.
            subprocess.run(["ethtool", "-K", PORT, "gro", "on"], check=True)
        (self._thread,) = napi_thread(self.bed)
        os.sched_setaffinity(self._thread, {SUBJECT_CPU})

    def judging(self) -> float:
        """Millions of packets a second of CPU time.

        Raises:
            RuntimeError: no packet arrives, or the kernel does not tell the thread's time.
        """
        with sending(self.bed, self._frames):
            _wait_for(self.bed.received, self.bed.received() + 100)
            before = self.bed.received(), self._cpu_ns()
            time.sleep(self._seconds)
            after = self.bed.received(), self._cpu_ns()
        if after[1] == before[1]:
            raise RuntimeError("the kernel does not tell how long a thread ran (CONFIG_SCHED_INFO)")
        return (after[0] - before[0]) / (after[1] - before[1]) * 1e3

    def _cpu_ns(self) -> int:
        with open(f"/proc/{self._thread}/schedstat") as told:
            return int(told.read().split()[0])

    def install(self, install: Callable[[str], None], text: str) -> None:
        """Run a command in the gateway's namespace."""
        with self.bed.gateway.entered():
            install(text)

    def apply(self, stack: ExitStack, policy: str, mode: str) -> None:
        """Put a policy in force on the port, until the stack ends."""
        in_force(stack, self.bed, policy, mode)


def in_force(stack: ExitStack, bed: TestBed, policy: str, mode: str) -> tuple[Instance, Manifest]:
    """Put a policy in force on the port left of a bed, until the stack ends."""
    from xdpgw import config, gateway
    from xdpgw.pins import Instance

    with bed.gateway.entered():
        instance = Instance()
        stack.callback(gateway.detach, instance)
        read = config.loads(f'{policy}\n[ports.{PORT}]\nmode = "{mode}"\n')
        return instance, gateway.apply(read, instance).manifest


def _wait_for(count: Callable[[], int], wanted: int) -> None:
    deadline = time.monotonic() + START_S
    while count() < wanted:
        if time.monotonic() > deadline:
            raise RuntimeError("no frame arrives")
        time.sleep(0.01)


def flows_of(frames: Sequence[bytes]) -> Frames:
    """Frames of one length, as the generator wants them: padded behind their IP packet."""
    from xdpgw.flows import Frames

    most = max(map(len, frames))
    return Frames.of([frame.ljust(most, b"\0") for frame in frames])
