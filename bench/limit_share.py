"""What a limit per source lets through, in percent of what it should: two cores at once, and under
a flood of spoofed sources, against a BPF_MAP_TYPE_LRU_HASH of as many entries.

Nothing here depends on how fast a subject is, as long as more comes in than may pass; all is
counted by `bench/limit.bpf.c` on the real clock. Cases:

    two cores           two cores ask for one source as fast as they can, in a window of two
                        seconds after its burst is spent; 100 is the rate
    flood, well-behaved what passes of 20 sources that send half of what they may, each, between
                        10,000,000 sources that send one packet, each; 100 is all
    flood, hot          what passes of 20 sources that send 20 times what they may, meanwhile; 100
                        is rate and burst of each

The last two are of one run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.limit import FRAME, PACKETS, subject_object
from bench.run import Plan, Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.kernel import BpfObject

__all__ = ["plan"]

SPOOFED, GOOD, HOT, CLASSES = range(4)  # enum class of bench/limit.bpf.c
SUBJECTS = ("xdpgw", "LRU_HASH")
CORE_RATES = (100_000, 1_000_000)
MANY = 10_000  # refused: the burst is spent
WINDOW_S, QUICK_WINDOW_S = 2.0, 0.5
FLOOD_RATES = (1000, 100)
FEW = 20
FLOOD, QUICK_FLOOD = 10_000_000, 500_000
ROUNDS, QUICK_ROUNDS = 3, 1


def _counts(obj: BpfObject) -> NDArray[np.uint64]:
    """Sent by class, then passed by class."""
    total: NDArray[np.uint64] = obj.map("counts").percpu()[0].sum(axis=0)
    return total[: 2 * CLASSES]


def _ask_until(stop: threading.Event, obj: BpfObject, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})  # of this thread
    while not stop.is_set():
        obj.program("alike").test_run(FRAME, 2000)


def two_cores(subject: str, rate: int, window_s: float) -> float:
    """Percent of the rate that passes when two CPUs ask for one source at once."""
    cpus = sorted(os.sched_getaffinity(0))[-2:]
    stop = threading.Event()
    with ExitStack() as undo:
        # A second's worth, so that a pause of the generator loses nothing.
        obj = subject_object(undo, subject, f"{rate}/s", sources_mask=0)
        threads = [threading.Thread(target=_ask_until, args=(stop, obj, cpu)) for cpu in cpus]
        for thread in threads:
            thread.start()
        try:
            while (counts := _counts(obj))[SPOOFED] - counts[CLASSES + SPOOFED] < MANY:
                time.sleep(0.01)
            begun, before = time.monotonic(), int(_counts(obj)[CLASSES + SPOOFED])
            time.sleep(window_s)
            after, ended = int(_counts(obj)[CLASSES + SPOOFED]), time.monotonic()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    return 100 * (after - before) / (ended - begun) / rate


def flood(subject: str, rate: int, spoofed: int) -> tuple[float, float]:
    """Percent that passes of the well-behaved, and of what the hot ones may."""
    before = os.sched_getaffinity(0)
    with ExitStack() as undo:
        undo.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, {max(before)})  # who is due is told on each CPU for itself
        constants = {"few": FEW, "good_pps": rate // 2, "hot_pps": 20 * rate}
        obj = subject_object(undo, subject, f"{rate}/s", **constants)
        begun = time.monotonic()
        while (counts := _counts(obj))[SPOOFED] < spoofed:
            obj.program("mixed").test_run(FRAME, 1 + 64_000 // PACKETS)
        seconds = time.monotonic() - begun
    allowed = FEW * rate * (seconds + 1)
    good = 100 * counts[CLASSES + GOOD] / counts[GOOD]
    return float(good), float(100 * counts[CLASSES + HOT] / allowed)


def _of_one_run(subject: str, rate: int, spoofed: int) -> tuple[Callable[[], float], ...]:
    """Samplers of the well-behaved and the hot, which are asked in this order."""
    last = [0.0, 0.0]

    def good() -> float:
        last[:] = flood(subject, rate, spoofed)
        return last[0]

    return good, lambda: last[1]


def _core_sampler(subject: str, rate: int, window_s: float) -> Callable[[], float]:
    return lambda: two_cores(subject, rate, window_s)


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """Experiments; each loads its program and lets it go."""
    subjects = [
        Subject(
            f"two cores, {rate:,}/s",
            name,
            _core_sampler(name, rate, QUICK_WINDOW_S if quick else WINDOW_S),
        )
        for rate in CORE_RATES
        for name in SUBJECTS
        if len(os.sched_getaffinity(0)) > 1
    ]
    for rate in FLOOD_RATES:
        runs = {name: _of_one_run(name, rate, QUICK_FLOOD if quick else FLOOD) for name in SUBJECTS}
        for at, case in enumerate(("flood, well-behaved", "flood, hot")):
            subjects += [Subject(f"{case}, {rate:,}/s", name, runs[name][at]) for name in SUBJECTS]
    rounds = QUICK_ROUNDS if quick else ROUNDS
    yield Plan("limit_share", "%", SUBJECTS[0], rounds, subjects)
