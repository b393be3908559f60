"""What counting sources costs: ns a packet for one source, some, many and ever new ones, against
hashes of the kernel that forget the least recently used.

The datapath without rules over traces (`bench/harness.py`), in these subjects:

    off               sources are not counted
    on                they are, as a policy without [sources] asks for (bpf/talker.h)
    LRU_HASH          off, and behind it the same in a hash of as many entries, by atomic adds
    LRU_PERCPU_HASH   and in one of which each CPU has values of its own

In "flood" each packet is from a source that was never seen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.harness import PASSES, SOURCE_AT, Harness, Trace
from bench.run import Plan, Subject, pinned

__all__ = ["CASES", "plan"]

CASES = {"1 source": 1, "1,024 sources": 1 << 10, "65,536 sources": 1 << 16, "flood": None}
"""Sources that take turns; None: each packet has another one."""

TRACE_PACKETS = 1 << 16
ROUNDS, QUICK_ROUNDS = 15, 3


def _trace(sources: int | None) -> Trace:
    import numpy as np

    from tests.frames import eth, ipv4, udp

    frame = eth(ipv4(udp()), pad=60)
    if sources is None:
        return Trace.of([frame] * TRACE_PACKETS, random_at=SOURCE_AT[4])
    # An odd factor, so that no two neighbours follow each other.
    numbers = [0x0A000000 + n * 0x9E3779B1 % sources for n in range(TRACE_PACKETS)]
    addresses = np.frombuffer(b"".join(struct.pack(">I", x) for x in numbers), np.uint8)
    return Trace(Trace.of([frame] * PASSES).heads, sources=addresses.reshape(-1, 4))


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """The programs, loaded; they are gone at the end."""
    from xdpgw.config import SourceSettings
    from xdpgw.talkers import sets_for

    with pinned(), ExitStack() as undo:
        harness = Harness(undo, TRACE_PACKETS, 1 << 16)
        sets = sets_for(SourceSettings())
        programs = {
            "off": harness.program("talkers", "own"),
            "on": harness.program("talkers", "own", talker_sets=sets),
            "LRU_HASH": harness.program("talkers", "lru"),
            "LRU_PERCPU_HASH": harness.program("talkers", "lru_percpu"),
        }
        traces = {case: _trace(sources) for case, sources in CASES.items()}
        subjects = [
            Subject(case, name, harness.sampler(program, trace, quick))
            for case, trace in traces.items()
            for name, program in programs.items()
        ]
        rounds = QUICK_ROUNDS if quick else ROUNDS
        yield Plan("talkers", "ns/packet", "off", rounds, subjects)
