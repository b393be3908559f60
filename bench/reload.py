"""What a reload costs those who send: the longest time between two judged packets while 10,000
rules and a million prefixes take the place of others.

    load: live frames, one at a time --> left-peer ==veth== left: the filter, which passes them
                                                            tap: when did which one come?

All of it runs on one CPU, as fast as that can, and the next frame is made when the one before is
with the tap, the first thing behind the filter (tc ingress), in the same turn of the kernel: so the
tap sees each judged packet within a microsecond or two, and each microsecond in which none was
judged. The reload (`gateway.apply`: compile, load, switch, and let go of the old maps) runs on the
other CPU, between two policies of which no rule and no prefix is the same.

The window of a sample is from the start of the reload until half a second after its end, as the
kernel frees maps behind it. "no reload" is a window as long as the longest reload: what the machine
takes by itself (interrupts, neighbours, the hypervisor). Told of it are

    longest gap          us between two packets that came, while the later one was on its way
    with the sender's    the same with the time in which there was no packet to judge, as the sender
                         did not run
    lost                 packets that did not come
    took                 ms of the reload. A CPU that is busy in the kernel lets others wait for it
                         (RCU), so it takes longer than on an idle machine
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from bench.facts import ROOT, compile_bpf
from bench.live import GENERATOR_CPU, PORT, SUBJECT_CPU, needs_two_cpus
from bench.run import Plan, Subject, pinned

if TYPE_CHECKING:
    from xdpgw.config import Config
    from xdpgw.kernel import Map

__all__ = ["plan"]

RULES, QUICK_RULES = 10_000, 100
PREFIXES, QUICK_PREFIXES = 1_000_000, 1000
ROUNDS, QUICK_ROUNDS = 11, 1
AFTER_S, QUICK_AFTER_S = 0.5, 0.1
START_S = 20.0
LOAD_PACKETS = 1000
"""With fewer in a window there was no load."""

NO_RELOAD = "no reload"
ENDLESS = (1 << 31) - 1
WINDOWS = 256
"""As bench/tap.bpf.c has them."""


class _Tap:
    """What the port hands the filter's packets to."""

    def __init__(self, undo: ExitStack) -> None:
        """In the gateway's namespace."""
        from xdpgw.kernel import BpfObject, ensure_bpffs

        obj = undo.enter_context(BpfObject(compile_bpf(ROOT / "bench" / "tap.bpf.c"), name="tap"))
        obj.load()
        pin = ensure_bpffs() / f"bench-tap-{os.getpid()}"
        obj.program("tap").pin(pin)
        try:
            _tc("qdisc", "add", "dev", PORT, "clsact")
            _tc("filter", "add", "dev", PORT, "ingress", "bpf", "da", "object-pinned", str(pin))
        finally:
            pin.unlink()
        self._current: Map = obj.map("current")
        self._windows: Map = obj.map("windows")
        self._at = 0

    def open(self) -> None:
        """Begin a window."""
        self._at = (self._at + 1) % WINDOWS
        key = self._at.to_bytes(4, sys.byteorder)
        self._windows.update(key, bytes(32))
        self._current.update(bytes(4), key)

    def read(self) -> Window:
        """The window so far."""
        raw = self._windows.lookup(self._at.to_bytes(4, sys.byteorder))
        return Window(*struct.unpack("=4Q", raw))


@dataclass(frozen=True, slots=True)
class Window:
    """What came in it, as struct window of bench/tap.bpf.c."""

    packets: int
    lost: int
    longest_ns: int
    longest_wait_ns: int


def _tc(*words: str) -> None:
    subprocess.run(["tc", *words], check=True)


def _gap_us(window: Window) -> float:
    return window.longest_ns / 1e3


def _lost(window: Window) -> float:
    return float(window.lost)


class _Bench:
    """A bed under load, and the policies that it is switched between."""

    def __init__(self, undo: ExitStack, quick: bool) -> None:
        from xdpgw import gateway
        from xdpgw.pins import Instance
        from xdpgw.testbed import TestBed

        self._after_s = QUICK_AFTER_S if quick else AFTER_S
        self._bed = undo.enter_context(TestBed((PORT,)))
        with self._bed.gateway.entered():
            self._tap = _Tap(undo)
            self._instance = Instance()
        undo.callback(gateway.detach, self._instance)
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="bench-reload-")))
        pairs = _policies(folder, quick)
        self._next = {name: cycle(pair) for name, pair in pairs.items()}
        self._took_s = dict.fromkeys(pairs, 0.0)
        self._seen: dict[str, Window] = {}
        for name in pairs:
            self._reload(name)
        undo.enter_context(_loading(self._bed.peer.path))
        self._wait_for_packets()

    def subjects(self) -> Iterator[Subject]:
        """The gaps, and then what else is known of the same windows."""
        names = [NO_RELOAD, *self._took_s]
        for name in names:
            yield Subject("longest gap", name, self._sampler(name))
        for name in names:
            yield Subject("with the sender's", name, self._told(name, _gap_us))
        for name in names:
            yield Subject("lost", name, self._told(name, _lost), "packets")
        for name in self._took_s:
            yield Subject("took", name, self._took(name), "ms")

    def _reload(self, name: str) -> None:
        from xdpgw import gateway

        policy, start = next(self._next[name]), time.monotonic()
        with self._bed.gateway.entered():
            gateway.apply(policy, self._instance)
        self._took_s[name] = time.monotonic() - start

    def _sampler(self, name: str) -> Callable[[], float]:
        def sample() -> float:
            self._tap.open()
            if name == NO_RELOAD:
                time.sleep(max(self._took_s.values()))
            else:
                self._reload(name)
            time.sleep(self._after_s)
            window = self._seen[name] = self._tap.read()
            if window.packets < LOAD_PACKETS:
                raise RuntimeError(f"{window.packets} packets were judged: that is no load")
            return window.longest_wait_ns / 1e3

        return sample

    def _told(self, name: str, what: Callable[[Window], float]) -> Callable[[], float]:
        return lambda: what(self._seen[name])

    def _took(self, name: str) -> Callable[[], float]:
        return lambda: self._took_s[name] * 1e3

    def _wait_for_packets(self) -> None:
        deadline = time.monotonic() + START_S
        self._tap.open()
        while self._tap.read().packets < LOAD_PACKETS:
            if time.monotonic() > deadline:
                raise RuntimeError("no frame comes")
            time.sleep(0.01)


@contextmanager
def _loading(netns: str) -> Iterator[None]:
    """The load, by a process of its own: whatever this one does to its memory leaves it alone."""
    command = [sys.executable, "-m", "bench.reload", netns]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def load(netns: str) -> None:
    """Be the load, until stdin ends.

    One run of live frames, as there would be a pause between two. It ends with the process, also
    where that which started it is killed.
    """
    import socket

    from bench.afxdp_subjects import frame
    from xdpgw.kernel import BpfObject
    from xdpgw.netns import enter

    enter(netns)
    os.sched_setaffinity(0, {GENERATOR_CPU})
    with BpfObject(compile_bpf(ROOT / "bench" / "tap.bpf.c"), name="load") as obj:
        obj.load()
        program, ifindex = obj.program("load"), socket.if_nametoindex(f"{PORT}-peer")
        run = (frame(), ifindex, ENDLESS, 1)
        threading.Thread(target=program.live_frames, args=run, daemon=True).start()
        sys.stdin.read()
        os._exit(0)


def _policies(folder: Path, quick: bool) -> Mapping[str, tuple[Config, Config]]:
    """What is loaded, by what it is called: two of each kind, of which nothing is the same."""
    from tests import classbench
    from xdpgw import config
    from xdpgw.rules import MAX_RULES

    rules = min(QUICK_RULES if quick else RULES, MAX_RULES)
    size = QUICK_PREFIXES if quick else PREFIXES
    found: dict[str, list[Config]] = {}
    bad = "bad drop from @bad"
    for seed in (1, 2):
        members = classbench.prefix_text(classbench.prefixes("blocklist", size, seed))
        (folder / f"{seed}.netset").write_text("\n".join(members))
        written = classbench.policy("acl", rules - 2, seed).text.split('"""')[1].strip()
        for name, lines, sets in (
            (f"{rules:,} rules", written, ""),
            (f"{size:,} prefixes", bad, f"{seed}.netset"),
            (
                f"{rules:,} rules, {size:,} prefixes",
                f"bad drop from @bad\n{written}",
                f"{seed}.netset",
            ),
        ):
            path = folder / f"{seed}-{len(found)}.toml"
            path.write_text(_policy(lines, sets))
            found.setdefault(name, []).append(config.read(path))
    return {name: (first, second) for name, (first, second) in found.items()}


def _policy(lines: str, netset: str) -> str:
    """A policy whose first rule passes the load."""
    sets = f'[sets]\nbad = [{{ file = "{netset}" }}]\n' if netset else ""
    return f'''[policy]
rules = """
judged pass udp to port 9
{lines}
"""
{sets}
[ports.{PORT}]
mode = "native"
[log]
sources = "off"
'''


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """The bed, under load; it is gone at the end."""
    needs_two_cpus()
    with pinned(SUBJECT_CPU), ExitStack() as undo:
        bench = _Bench(undo, quick)
        rounds = QUICK_ROUNDS if quick else ROUNDS
        yield Plan("reload", "us", NO_RELOAD, rounds, list(bench.subjects()))


if __name__ == "__main__":
    load(sys.argv[1])
