"""What a limit per source costs: ns a packet for a few, many and ever new sources, against a
BPF_MAP_TYPE_LRU_HASH of as many entries.

`bench/limit.bpf.c` asks for 64 packets in each test run, each from another source than the one
before, so that neither the test run's own cost nor one hot source is what is measured. Subjects:

    harness     choosing the source and counting; it is in all others, too
    xdpgw       the limit as the datapath asks it (bpf/limit.h)
    LRU_HASH    the same bucket and arithmetic in a hash of the kernel

Cases are the numbers of sources that take turns; in "flood" each packet is from a source that was
never seen. What of the table a case touches is touched before the first sample. The process stays
on one CPU.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.facts import ROOT, compile_bpf
from bench.run import Plan, Subject

if TYPE_CHECKING:
    from xdpgw.kernel import BpfObject

__all__ = ["FRAME", "PACKETS", "SUBJECTS", "plan", "subject_object"]

PACKETS = 64
"""Of one test run, as in bench/limit.bpf.c."""
FRAME = bytes(64)
SUBJECTS = {"harness": 0, "xdpgw": 1, "LRU_HASH": 2}
"""enum subject."""

CASES = {
    "1,024 sources": 1 << 10,
    "65,536 sources": 1 << 16,
    "524,288 sources": 1 << 19,
    "flood": 1 << 32,
}
LIMIT = "1000/s"
REPEAT, QUICK_REPEAT = 4_000, 1_000
WARM_PACKETS = 2 << 20
ROUNDS, QUICK_ROUNDS = 31, 5


def subject_object(undo: ExitStack, subject: str, limit: str, **constants: int) -> BpfObject:
    """bench/limit.bpf.c, loaded.

    Args:
        undo: closes it.
        subject: of `SUBJECTS`.
        limit: rate and burst, as in a policy.
        constants: its 32-bit read-only globals.
    """
    from xdpgw import config, facts, rules
    from xdpgw.compile import compile_rules
    from xdpgw.kernel import BpfObject

    text = f'[policy]\nrules = "one limit {limit} per source ip"\n'
    image = compile_rules(rules.resolve(config.loads(text)))
    obj = undo.enter_context(BpfObject(compile_bpf(ROOT / "bench" / "limit.bpf.c"), name="limit"))
    for name, value in {"subject": SUBJECTS[subject], **constants}.items():
        obj.set_rodata(name, struct.pack("=I", value))
    obj.load(rodata=image.config(None, tick_ns=facts.tick_ns()))
    obj.map("limits").update(bytes(4), image.limits)
    return obj


def _sampler(obj: BpfObject, repeat: int) -> Callable[[], float]:
    program = obj.program("alike")
    program.test_run(FRAME, WARM_PACKETS // PACKETS)
    return lambda: program.test_run(FRAME, repeat).duration_ns / PACKETS


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """The programs, loaded and warm; they are gone at the end."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        with ExitStack() as undo:
            subjects = []
            for case, sources in CASES.items():
                for name in SUBJECTS:
                    obj = subject_object(undo, name, LIMIT, sources_mask=sources - 1)
                    sample = _sampler(obj, QUICK_REPEAT if quick else REPEAT)
                    subjects.append(Subject(case, name, sample))
            rounds = QUICK_ROUNDS if quick else ROUNDS
            yield Plan("limit", "ns/packet", "harness", rounds, subjects)
    finally:
        os.sched_setaffinity(0, before)
