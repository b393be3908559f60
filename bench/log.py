"""The log: events a second from the ring to a numpy array and to JSON lines on disk, against a
Python callback an event; and what a log under flood costs forwarding.

The events are the datapath's own: live frames enter it (BPF_F_TEST_XDP_LIVE_FRAMES) on one core,
under a policy that drops all and tells every packet; the reader runs on the other core. Cases:

    ring to numpy       `EventReader.drain`. "counting only" moves the consumer's position and
                        copies nothing: what the producer can do. bcc is that of the system's
                        Python (Debian: python3-bpfcc), its callback counts, or reads a field, or
                        keeps a copy; without it, libbpf's ring_buffer__poll through cffi
    ring to JSON lines  `Pump` into the sink jsonl, on disk, to the last line; bcc's callback with
                        json.dumps
    forwarding          native, by the rule `all tx`: millions of packets a second of the receiving
                        thread's CPU time, as in bench/live.py, with the log read into a file
                        meanwhile
    lost of a flood     the same at some 3,000,000 packets a second, all on the generator's core:
                        the percentage that did not come back. "sent" is what the generator did. Of
                        each run, written + lost + limited = due, or it fails

`every` is under the rate that a policy has if it names none (100,000/s).
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.live import GENERATOR_CPU, PORT, SUBJECT_CPU, LiveBed, in_force, needs_two_cpus
from bench.run import Plan, Subject, pinned

if TYPE_CHECKING:
    from xdpgw.events import EventReader
    from xdpgw.kernel import Map
    from xdpgw.testbed import TestBed

__all__ = ["plan"]

SECONDS, QUICK_SECONDS = 1.0, 0.2
ROUNDS, QUICK_ROUNDS = 7, 1
FLOOD_PPS = 3.2e6
"""What is asked for: the pauses between runs leave some 3,000,000 of it."""

RUN = 1_000_000
"""Frames of a run of the producer; the pause before the next one is some ms."""

NAP_S = 0.0005
OURS = "xdpgw"
SYSTEM_PYTHON = "/usr/bin/python3"
LOGS = {
    "log off": 'sources = "off"',
    "every": 'sources = "every"',
    "every, no rate": 'sources = "every"\nrate = "off"',
    "new": 'sources = "new"',
}


@contextmanager
def _beside(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Have a thread run, until the context ends and it is told to stop."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _hold_to_its_word(counters: Map) -> None:
    """The log's books add up.

    Raises:
        RuntimeError: they do not.
    """
    from xdpgw.stats import read_log

    log = read_log(counters)
    if log.due != log.written + log.lost + log.limited:
        raise RuntimeError(f"events are missing: {log}")


def _peer() -> tuple[str, str]:
    """Which peer there is, and the Python that has it."""
    found = subprocess.run([SYSTEM_PYTHON, "-c", "import bcc"], capture_output=True, check=False)
    if found.returncode == 0:
        return "bcc", SYSTEM_PYTHON
    print("bcc is not installed (python3-bpfcc): libbpf by cffi instead", file=sys.stderr)
    return "libbpf", sys.executable


class _Ring:
    """The datapath under load, and its ring."""

    def __init__(self, undo: ExitStack, bed: TestBed, seconds: float, folder: Path) -> None:
        from bench.afxdp_subjects import frame
        from xdpgw import config, loader, rules
        from xdpgw.compile import compile_rules

        log = LOGS["every, no rate"]
        text = f'[policy]\ndefault = "drop"\nguard = false\n[log]\n{log}\n'
        image = compile_rules(rules.resolve(config.loads(text)))
        loaded = undo.enter_context(loader.load(image, [None]))
        self._program, self._frame = loaded.programs[None], frame()
        self.map, self._counters = loaded.maps["events"], loaded.maps["log_counters"]
        self._bed, self._seconds, self._folder = bed, seconds, folder

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Events come, while the context lasts."""

        def run(stop: threading.Event) -> None:
            os.sched_setaffinity(0, {GENERATOR_CPU})
            with self._bed.gateway.entered():
                ifindex = self._bed.ifindex(PORT)
                while not stop.is_set():
                    self._program.live_frames(self._frame, ifindex, RUN)

        with _beside(run):
            yield
        _hold_to_its_word(self._counters)

    def _reader(self) -> EventReader:
        from xdpgw.events import EventReader

        return EventReader(self.map)

    def to_numpy(self) -> float:
        """Millions of events a second."""
        had = 0
        with self._reader() as reader, self.filling():
            reader.drain(timeout_ms=1000)
            begun = time.monotonic()
            while (took := time.monotonic() - begun) < self._seconds:
                had += len(reader.drain(timeout_ms=100))
        return had / took / 1e6

    def counting(self) -> float:
        """The same without a look at them."""
        from xdpgw import _abi as abi

        page, had, record = mmap.PAGESIZE, 0, 8 + abi.event_dtype().itemsize
        with (
            mmap.mmap(self.map.fileno(), page) as written,
            mmap.mmap(self.map.fileno(), page, prot=mmap.PROT_READ, offset=page) as read,
            memoryview(written).cast("Q") as consumer,
            memoryview(read).cast("Q") as producer,
            self.filling(),
        ):
            consumer[0] = producer[0]
            begun = time.monotonic()
            while (took := time.monotonic() - begun) < self._seconds:
                end = producer[0]
                had += (end - consumer[0]) // record
                consumer[0] = end
                time.sleep(NAP_S)  # who spins has the program wake him each time
        return had / took / 1e6

    def to_json(self) -> float:
        """Millions of lines on disk a second."""
        from xdpgw.config import SinkSettings
        from xdpgw.events import Names, Pump

        path, names, had = self._folder / "events.jsonl", Names([PORT]), 0
        begun = time.monotonic()
        with self._reader() as reader, self.filling():
            with Pump.of([SinkSettings("jsonl", path)], on_error=lambda text: None) as pump:
                while time.monotonic() - begun < self._seconds:
                    had += pump.feed(reader, names, timeout_ms=100)
            took = time.monotonic() - begun
        return (had - sum(pump.lost.values())) / took / 1e6

    def peer(self, peer: tuple[str, str], work: str) -> float:
        """The same by a callback an event."""
        name, python = peer
        fd = self.map.fileno()
        script = str(Path(__file__).with_name("log_peers.py"))
        command = [python, script, name, work, str(fd), str(self._seconds), str(SUBJECT_CPU)]
        with self.filling():
            done = subprocess.run(command, pass_fds=[fd], stdout=subprocess.PIPE, check=True)
        had, took = done.stdout.split()
        return int(had) / float(took) / 1e6

    def subjects(self) -> Iterator[Subject]:
        """Ours and the peer's."""
        peer, case = _peer(), "ring to numpy"
        yield Subject(case, OURS, self.to_numpy)
        yield Subject(case, "counting only", self.counting)
        for work in ("count", "field", "copy"):
            yield Subject(case, f"{peer[0]}, {work}", self._of_peer(peer, work))
        case = "ring to JSON lines"
        yield Subject(case, OURS, self.to_json)
        work = f"json {self._folder / 'peer.jsonl'}"
        yield Subject(case, f"{peer[0]}, json.dumps", self._of_peer(peer, work))

    def _of_peer(self, peer: tuple[str, str], work: str) -> Callable[[], float]:
        return lambda: self.peer(peer, work)


class _Forwarding:
    """A port that sends all back, with its log read into a file."""

    def __init__(self, undo: ExitStack, seconds: float, folder: Path) -> None:
        from bench.afxdp_subjects import frame
        from xdpgw.flows import Frames
        from xdpgw.testbed import TestBed

        self._seconds, self._folder = seconds, folder
        self._frames = Frames.of([frame()])
        self._live = LiveBed(undo, self._frames, seconds)  # receives on a thread of its own
        self._bed = undo.enter_context(TestBed((PORT,)))
        for bed in (self._live.bed, self._bed):
            _drop_what_comes_back(undo, bed)
        self._sent_mpps: dict[str, float] = {}

    def subjects(self) -> Iterator[Subject]:
        """Each log, judged and flooded."""
        off = next(iter(LOGS))
        for log in LOGS:
            yield Subject("forwarding", log, self._judging(log), "Mpps", off)
        for log in LOGS:
            yield Subject("lost of a flood", log, self._lost(log), "%", off)
        for log in LOGS:
            yield Subject("sent", log, self._sent(log), "Mpps", off)

    @contextmanager
    def _logging(self, bed: TestBed, log: str) -> Iterator[None]:
        """All is sent back, and told as `log` says, into a file."""
        from xdpgw.config import SinkSettings
        from xdpgw.events import EventReader, Names, Pump

        settings = [SinkSettings("jsonl", self._folder / "forwarding.jsonl")]
        with ExitStack() as undo:
            policy = f'[policy]\nrules = "all tx"\n[log]\n{LOGS[log]}\n'
            instance, manifest = in_force(undo, bed, policy, "native")
            books = undo.enter_context(instance.books())
            names = Names.of(ports=manifest.port_slots, rules=manifest.rule_slots)

            def read(stop: threading.Event) -> None:
                with (
                    EventReader(books["events"]) as reader,
                    Pump.of(settings, on_error=lambda text: None) as pump,
                ):
                    while not stop.is_set():
                        pump.feed(reader, names, timeout_ms=50)

            with _beside(read):
                yield
            _hold_to_its_word(books["log_counters"])

    def _judging(self, log: str) -> Callable[[], float]:
        def sample() -> float:
            with self._logging(self._live.bed, log):
                return self._live.judging()

        return sample

    def _lost(self, log: str) -> Callable[[], float]:
        def sample() -> float:
            with self._logging(self._bed, log):
                before = self._bed.peer_received(PORT)
                with ThreadPoolExecutor(1) as other:  # affinity is a thread's own
                    sent, self._sent_mpps[log] = other.submit(self._flood).result()
                back = self._bed.peer_received(PORT) - before
            return 100 * (sent - back) / sent

        return sample

    def _flood(self) -> tuple[int, float]:
        """Frames sent, and millions of them a second."""
        from xdpgw.generate_live import Live

        os.sched_setaffinity(0, {GENERATOR_CPU})
        how = {"count": 0, "rate_pps": FLOOD_PPS, "seconds": self._seconds, "into": False}
        with (
            self._bed.peer.entered(),
            Live(f"{PORT}-peer", self._bed.peer_ifindex(), self._frames, **how) as live,  # type: ignore[arg-type]
        ):
            live.send()
        return live.frames, live.frames / live.seconds / 1e6

    def _sent(self, log: str) -> Callable[[], float]:
        return lambda: self._sent_mpps[log]


def _drop_what_comes_back(undo: ExitStack, bed: TestBed) -> None:
    """In the driver: a stack that it went up would cost more than the forwarding."""
    from xdpgw import config, loader, rules
    from xdpgw.compile import compile_rules
    from xdpgw.kernel import Link

    text = '[policy]\ndefault = "drop"\nguard = false\n[log]\nsources = "off"\n'
    image = compile_rules(rules.resolve(config.loads(text)))
    loaded = undo.enter_context(loader.load(image, [None]))
    with bed.peer.entered():
        before = ["ip", "link", "set", "dev", f"{PORT}-peer", "xdpdrv", "off"]
        subprocess.run(before, check=True)
        undo.enter_context(Link.attach(loaded.programs[None], bed.peer_ifindex(), "native"))


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """The beds, and a folder on a disk; both are gone at the end."""
    from xdpgw.testbed import TestBed

    needs_two_cpus()
    seconds = QUICK_SECONDS if quick else SECONDS
    with pinned(SUBJECT_CPU), ExitStack() as undo:
        name = tempfile.TemporaryDirectory(prefix="bench-log-", dir="/var/tmp")
        folder = Path(undo.enter_context(name))
        ring = _Ring(undo, undo.enter_context(TestBed((PORT,))), seconds, folder)
        subjects = [*ring.subjects(), *_Forwarding(undo, seconds, folder).subjects()]
        yield Plan("log", "M/s", OURS, QUICK_ROUNDS if quick else ROUNDS, subjects)
