"""What AF_XDP carries: frames a second into user space, back, and across, against what a user would
pick instead.

Over a veth pair, whose far end sends by the kernel's live test runs from a core of its own; the
subject runs on the other core. A sample is what a subject handled in a second of wall time: for RX
its own count, for reflect and forward what the kernel counted at the far end of the cable. Frames
are of 64 bytes with FCS. Cases:

    rx native, rx generic       receive and recycle
    rx, NAPI thread             native; the port's receive work on a kernel thread, on the core of
                                the generator, or ("own core") of the subject. "XDP drop" is what
                                the driver's side alone carries there
    reflect, forward            native and generic; "tx only" is what the kernel's TX path carries

Peers from Debian are measured where they are installed: testpmd is in the package dpdk-dev, its
driver net_af_xdp, which takes native mode, in librte-net-af-xdp23 (Debian 12). Nothing is installed
by the measurement.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.live import GENERATOR_CPU, SUBJECT_CPU, napi_thread, needs_two_cpus
from bench.run import Plan, Subject

if TYPE_CHECKING:
    from xdpgw.testbed import TestBed

__all__ = ["plan"]

SECONDS, QUICK_SECONDS = 1.0, 0.3
ROUNDS, QUICK_ROUNDS = 5, 1
START_S = 20.0
BASELINE = "xdpgw C"
TESTPMD = "dpdk-testpmd"
TESTPMD_HINT = "apt-get install --no-install-recommends dpdk-dev librte-net-af-xdp23"


class Process:
    """A subject or the generator; see bench/afxdp_subjects.py for how it is talked to."""

    def __init__(self, kind: str, netns: str, cpu: int, mode: str) -> None:
        command = [sys.executable, "-m", "bench.afxdp_subjects", kind, netns, str(cpu), mode]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            self.close()
            raise RuntimeError(f"{kind} did not start")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, text: str = "count") -> int:
        """Say a line, and read the number it answers with."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        return int(self._line())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Testpmd:
    """dpdk-testpmd in a namespace: its forwarding core is the subject's, its other one idles."""

    def __init__(self, forward: str, ports: tuple[str, ...]) -> None:
        words = [TESTPMD, "-l", f"{GENERATOR_CPU},{SUBJECT_CPU}", "--main-lcore"]
        words += [str(GENERATOR_CPU), "--no-huge", "-m", "1024", "--no-pci", "--log-level=4"]
        words += ["--file-prefix", f"xdpgw{os.getpid()}"]
        for at, port in enumerate(ports):
            words += [f"--vdev=net_af_xdp{at},iface={port},start_queue=0,queue_count=1"]
        words += ["--", f"--forward-mode={forward}", "-i", "--auto-start"]
        words += ["--total-num-mbufs=16384"]
        self._terminal, end = pty.openpty()  # to a pipe it would not write before its end
        self._process = subprocess.Popen(words, stdin=end, stdout=end, stderr=end)
        os.close(end)
        self._said = ""
        threading.Thread(target=self._listen, daemon=True).start()
        self._wait_for(r"testpmd> ")

    def _listen(self) -> None:
        try:
            while data := os.read(self._terminal, 65536):
                self._said += data.decode(errors="replace")
        except OSError:
            return

    def _wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + START_S
        pause = threading.Event()
        while not (found := re.search(pattern, self._said)):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.close()
                raise RuntimeError(f"{TESTPMD} said:\n{self._said[-2000:]}")
            pause.wait(0.01)
        return found

    def ask(self, text: str = "count") -> int:
        """Frames that its first port received."""
        self._said = ""
        os.write(self._terminal, b"show port stats 0\n")
        return int(self._wait_for(r"RX-packets:\s*(\d+)[\s\S]*Tx-pps")[1])

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            os.write(self._terminal, b"quit\n")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._terminal)


class Bench:
    """A bed with its generator, and how a sample is taken on it."""

    def __init__(self, stack: ExitStack, seconds: float, *, threaded: bool = False) -> None:
        from xdpgw.testbed import TestBed

        self.bed: TestBed = stack.enter_context(TestBed(("left", "right")))
        self._seconds = seconds
        with self.bed.gateway.entered():
            # veth takes redirected frames with NAPI only: with a native program, or with GRO.
            for port in self.bed.ports:
                subprocess.run(["ethtool", "-K", port, "gro", "on"], check=True)
        self._napi = napi_thread(self.bed) if threaded else []
        self._generator = Process("generate", self.bed.peer.path, GENERATOR_CPU, "")
        stack.callback(self._generator.close)

    def sample(
        self, start: Callable[[], Process | Testpmd], far_end: str | None, napi_cpu: int
    ) -> float:
        """Millions of frames a second."""
        for pid in self._napi:
            os.sched_setaffinity(pid, {napi_cpu})
        subject = start()
        try:

            def count() -> int:
                return subject.ask() if far_end is None else self.bed.peer_received(far_end)

            self._generator.ask("go")
            before = count()
            deadline = time.monotonic() + START_S
            while count() < before + 1000:  # the first ones are there
                if time.monotonic() > deadline:
                    raise RuntimeError("no frame arrives")
                time.sleep(0.01)
            time.sleep(self._seconds / 4)
            begin, before = time.monotonic(), count()
            time.sleep(self._seconds)
            end, after = time.monotonic(), count()
            self._generator.ask("stop")
            return (after - before) / (end - begin) / 1e6
        finally:
            subject.close()

    def subject(
        self,
        case: str,
        name: str,
        kind: str,
        mode: str,
        far_end: str | None = None,
        napi_cpu: int = GENERATOR_CPU,
    ) -> Subject:
        """One of ours, or of Python's."""

        def start() -> Process:
            return Process(kind, self.bed.gateway.path, SUBJECT_CPU, mode)

        return Subject(case, name, lambda: self.sample(start, far_end, napi_cpu))

    def testpmd(
        self,
        case: str,
        forward: str,
        ports: tuple[str, ...] = ("left",),
        far_end: str | None = None,
        napi_cpu: int = GENERATOR_CPU,
        name: str = "testpmd",
    ) -> Iterator[Subject]:
        """The peer, if it is there."""
        if not shutil.which(TESTPMD):
            return

        def start() -> Testpmd:
            with self.bed.gateway.entered():
                return Testpmd(forward, ports)

        yield Subject(case, name, lambda: self.sample(start, far_end, napi_cpu))


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """All subjects, on two beds; they are gone at the end."""
    needs_two_cpus()
    if not shutil.which(TESTPMD):
        print(f"{TESTPMD} is not installed ({TESTPMD_HINT}): left out", file=sys.stderr)
    seconds = QUICK_SECONDS if quick else SECONDS
    own_core = SUBJECT_CPU
    with ExitStack() as stack:
        plain = Bench(stack, seconds)
        thread = Bench(stack, seconds, threaded=True)
        subjects: list[Subject] = []
        for mode in ("native", "generic"):
            case = f"rx {mode}"
            subjects.append(plain.subject(case, BASELINE, "count", mode))
            subjects.append(plain.subject(case, "xdpgw Python", "bursts", mode))
            if mode == "native":
                subjects += plain.testpmd(case, "rxonly")
                subjects.append(plain.subject(case, "AF_PACKET recv_into", "af_packet", ""))
                subjects.append(plain.subject(case, "scapy sniff", "scapy", ""))
        case = "rx, NAPI thread"
        subjects.append(thread.subject(case, BASELINE, "count", "native"))
        name = f"{BASELINE}, own core"
        subjects.append(thread.subject(case, name, "count", "native", napi_cpu=own_core))
        subjects.append(thread.subject(case, "XDP drop", "drop", "native"))
        name = "XDP drop, own core"
        subjects.append(thread.subject(case, name, "drop", "native", napi_cpu=own_core))
        subjects += thread.testpmd(case, "rxonly")
        subjects += thread.testpmd(case, "rxonly", napi_cpu=own_core, name="testpmd, own core")
        for mode in ("native", "generic"):
            case = f"reflect {mode}"
            subjects.append(plain.subject(case, BASELINE, "reflect", mode, "left"))
            subjects.append(plain.subject(case, "xdpgw Python", "reflect-bursts", mode, "left"))
            subjects.append(plain.subject(case, "tx only", "tx", mode, "left"))
            if mode == "native":
                subjects += plain.testpmd(case, "macswap", far_end="left")
            case = f"forward {mode}"
            subjects.append(plain.subject(case, BASELINE, "forward", mode, "right"))
            subjects.append(plain.subject(case, "tx only", "tx-other", mode, "right"))
            if mode == "native":
                subjects += plain.testpmd(case, "io", ("left", "right"), "right")
        yield Plan("afxdp", "Mpps", BASELINE, QUICK_ROUNDS if quick else ROUNDS, subjects)
