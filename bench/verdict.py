"""What a verdict costs: ns a packet by BPF_PROG_TEST_RUN, without a driver and its memory.

Subjects are an empty program (`return XDP_PASS`, which tells what the test run itself costs), the
datapath without rules (parse and default), the same with sources counted, which no other does here,
and with 1 to 1,000 rules of a realistic mix (`bench/policies.py`), of which the last matches and
no other ("last"), or none. Frames are of 64
bytes without FCS.

A sample is what the kernel says of one call: the mean of `repeat` runs, in whole nanoseconds,
rounded down. The frame and the maps stay in the caches, so a packet from a wire costs more than
this; what is compared is programs. The process stays on one CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.facts import ROOT, compile_bpf
from bench.policies import PORT, SOURCE4, SOURCE6, policy
from bench.run import Plan, Subject, pinned

if TYPE_CHECKING:
    from xdpgw.kernel import Program

__all__ = ["EMPTY", "FRAME_BYTES", "RULES", "datapath", "empty_program", "frames", "plan"]

EMPTY = "empty"
RULES = (1, 10, 100, 1000)
FRAME_BYTES = 64
REPEAT, QUICK_REPEAT = 1_000_000, 200_000
ROUNDS, QUICK_ROUNDS = 21, 5
XDP_DROP, XDP_PASS = 1, 2


def frames() -> dict[str, bytes]:
    """The cases: one frame each, from `SOURCE4` or `SOURCE6` to `PORT`."""
    from tests.frames import eth, ipv4, ipv6, tcp, udp

    return {
        "udp4": eth(ipv4(udp(dport=PORT), src=SOURCE4), pad=FRAME_BYTES),
        "udp6": eth(ipv6(udp(dport=PORT), src=SOURCE6), pad=FRAME_BYTES),
        "syn4": eth(ipv4(tcp(dport=PORT), src=SOURCE4), pad=FRAME_BYTES),
    }


def empty_program(undo: ExitStack) -> Program:
    """The program of bench/empty.bpf.c."""
    from xdpgw.kernel import BpfObject

    elf = compile_bpf(ROOT / "bench" / "empty.bpf.c")
    obj = undo.enter_context(BpfObject(elf, name=EMPTY))
    obj.load()
    return obj.program(EMPTY)


def datapath(undo: ExitStack, text: str) -> Program:
    """The datapath of a policy, without a port."""
    from xdpgw import config, loader, rules
    from xdpgw.compile import compile_rules

    image = compile_rules(rules.resolve(config.loads(text)))
    return undo.enter_context(loader.load(image, [None])).programs[None]


def _programs(undo: ExitStack) -> Iterator[tuple[str, Program, int]]:
    """Name, program, and what it must return for each frame."""
    yield EMPTY, empty_program(undo), XDP_PASS
    yield "no rules", datapath(undo, policy(0)), XDP_PASS
    counting = policy(0, counts_sources=True)
    yield "no rules, sources counted", datapath(undo, counting), XDP_PASS
    for count in RULES:
        text = f"{count} rule{'s' if count > 1 else ''}"
        yield f"{text}, last", datapath(undo, policy(count)), XDP_DROP
        unmatched = policy(count, last_matches=False)
        yield f"{text}, none", datapath(undo, unmatched), XDP_PASS


def _sampler(program: Program, frame: bytes, repeat: int) -> Callable[[], float]:
    return lambda: float(program.test_run(frame, repeat).duration_ns)


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """The programs, loaded; they are gone at the end."""
    with pinned(), ExitStack() as undo:
        programs = list(_programs(undo))
        subjects = []
        for case, frame in frames().items():
            for name, program, wanted in programs:
                got = program.test_run(frame).retval
                if got != wanted:
                    raise RuntimeError(f"{name}: {case} got XDP action {got}, not {wanted}")
                sample = _sampler(program, frame, QUICK_REPEAT if quick else REPEAT)
                subjects.append(Subject(case, name, sample))
        rounds = QUICK_ROUNDS if quick else ROUNDS
        yield Plan("verdict", "ns/packet", EMPTY, rounds, subjects)
