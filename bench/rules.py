"""What rules cost: ns a packet at 1 to 10,000 of them, in lists as people write them and in lists
made to hurt, against a linear scan, xdp-filter, nft and iptables.

Lists and traffic are those of `tests/classbench`: `acl`, `fw` and `ipc` follow the ClassBench
seeds; in `ports`, `hosts`, `ranges`, `negated` and `stripes` each rule has a port of its own, a
source of its own, ranges everywhere, `not` everywhere, or looks at what its neighbours leave out.
Traces:

    match     each packet is a new flow that hits a rule drawn at random: the worst for caches. It
              comes again after 65,536 others, so a cache of so many flows would be flattered
    random    any addresses and ports: a flood that hardly any rule matches. Sources never come
              again
    flows     256 flows of `match`, over and over

A case is a list and a trace. In it, "parse" is the datapath's parser alone, "N rules" the whole
datapath, parse and books included, and "linear, N rules" the same parser and then a bpf_loop() over
the rules as ranges, told relative to the datapath with as many rules. bench/harness.py says how all
are measured: by test runs, without what the harness costs. Before that, harness and linear scan
must drop as many packets of each trace as the datapath itself.

"1 rule, one frame" repeats one UDP frame, as xdp-filter's program cannot be led over a trace. There
ns are raw, the test run's own included; "empty" says what that is.

"live" cases are millions of packets that are judged, all of them dropped, in a second of CPU time,
over veth; see bench/live.py. nft has a netdev ingress chain, iptables its table raw. Peers that are
not installed, or whose rules the kernel refuses, are told and left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.run import Plan, Subject, pinned

if TYPE_CHECKING:
    from bench.harness import Harness, Trace
    from bench.live import LiveBed
    from tests.classbench import Policy
    from xdpgw.flows import Frames
    from xdpgw.kernel import Program

__all__ = ["FAMILIES", "TRACES", "plan", "sizes"]

SIZES = (1, 10, 100, 1000, 10_000)
FAMILIES = ("acl", "fw", "ipc", "ports", "hosts", "ranges", "negated", "stripes", "acl6")
QUICK_FAMILIES = ("acl", "negated", "acl6")
TRACES = ("match", "random", "flows")
PACKETS, QUICK_PACKETS = 65_536, 1024
ROUNDS, QUICK_ROUNDS = 11, 1
CHECKED = 512
"""Packets of each trace on which subjects must agree."""

RANDOM_AT = 26
"""An IPv4 source address, or the second 32 bits of an IPv6 one."""

BASE = 10
LIVE_FAMILY, LIVE_FLOWS = "acl", 4096
LIVE_S, QUICK_LIVE_S = 0.5, 0.1
NATIVE = "xdpgw native"
NOT_COUNTED = "[sources]\ncount = false\n"  # as peers count none
XDP_DROP = 1

Install = Callable[["LiveBed", ExitStack], None]
"""Puts a filter on a bed's port."""


def sizes(quick: bool) -> tuple[int, ...]:
    """How many rules, as far as this version takes them."""
    from xdpgw.rules import MAX_RULES

    wanted = (1, BASE, 100) if quick else SIZES
    return tuple(size for size in wanted if size <= MAX_RULES)


def _named(size: int) -> str:
    return f"{size:,} rule{'s' if size > 1 else ''}"


# --- Over traces ----------------------------------------------------------------------------------


class _Bench:
    """Policies in the kernel, and the subjects that they make."""

    def __init__(self, undo: ExitStack, quick: bool) -> None:
        from bench.harness import Harness

        self._packets = QUICK_PACKETS if quick else PACKETS
        self._quick = quick
        self._harness: Harness = Harness(undo, self._packets)

    def family(self, family: str) -> Iterator[Subject]:
        """The cases of one list."""
        from tests import classbench

        by_size = {}
        for size in sizes(self._quick):
            policy = classbench.policy(family, size)
            by_size[size] = policy, self._subjects(policy)
        for trace in TRACES:
            yield from self._case(family, trace, by_size)

    def _subjects(self, policy: Policy) -> dict[str, Program]:
        """Programs by what stands before the number of rules."""
        from xdpgw import config, rules
        from xdpgw.compile import compile_rules

        image = compile_rules(rules.resolve(config.loads(policy.text)))
        obj, _ = self._harness.datapath(image)
        found = {"": obj.program("verdict"), "xdpgw": obj.program("xdpgw")}
        if (policy.rules["version"] == 4).all():
            found["linear, "] = self._linear(policy)
        return found

    def _linear(self, policy: Policy) -> Program:
        import numpy as np

        from bench.rules_peers import linear_table

        table = linear_table(policy)
        count = len(table).to_bytes(4, sys.byteorder)
        obj = self._harness.peers({"linear_table": len(table)}, linear_rules=count)
        obj.map("linear_table").update_many(np.arange(len(table), dtype=np.uint32), table)
        return obj.program("linear")

    def _case(
        self, family: str, kind: str, by_size: dict[int, tuple[Policy, dict[str, Program]]]
    ) -> Iterator[Subject]:
        from bench.harness import Trace
        from tests import classbench

        case, first = f"{family}, {kind}", min(by_size)
        for size, (policy, programs) in by_size.items():
            frames = classbench.frames(classbench.headers(policy, kind, self._packets))
            self._must_agree(f"{case}, {_named(size)}", programs, frames[:CHECKED])
            trace = Trace.of(frames, RANDOM_AT if kind == "random" else 0)
            if size == first:
                yield Subject(case, "parse", self._sampler(self._harness.parsed, trace))
            for prefix in ("", "linear, "):
                if prefix in programs:
                    sample = self._sampler(programs[prefix], trace)
                    against = _named(size) if prefix else ""
                    yield Subject(case, f"{prefix}{_named(size)}", sample, against=against)

    def _sampler(self, program: Program, trace: Trace) -> Callable[[], float]:
        return self._harness.sampler(program, trace, self._quick)

    def _must_agree(self, what: str, programs: dict[str, Program], frames: list[bytes]) -> None:
        """A subject that judges otherwise would be measured for nothing."""
        from bench.harness import Trace

        verdicts, _ = programs["xdpgw"].test_many(frames)
        wanted = int((verdicts == XDP_DROP).sum())
        for name in ("", "linear, "):
            if name in programs:
                got = self._harness.drops(programs[name], Trace.of(frames), len(frames))
                if got != wanted:
                    raise RuntimeError(f"{what}: {name or 'the harness '}drops {got}, not {wanted}")


def _one_frame(undo: ExitStack, quick: bool) -> Iterator[Subject]:
    """The datapath with one rule and xdp-filter, on one frame."""
    from bench.policies import SOURCE4
    from bench.rules_peers import has, xdp_filter
    from bench.verdict import QUICK_REPEAT, REPEAT, datapath, empty_program, frames

    case, frame, repeat = "1 rule, one frame", frames()["udp4"], QUICK_REPEAT if quick else REPEAT

    def subject(name: str, program: Program, against: str) -> Subject:
        if name != "empty" and program.test_run(frame).retval != XDP_DROP:
            raise RuntimeError(f"{name} does not drop the frame")
        return Subject(
            case,
            name,
            lambda: float(program.test_run(frame, repeat).duration_ns),
            against=against,
        )

    yield subject("empty", empty_program(undo), "empty")
    rule = f'[policy]\nrules = "one drop from {SOURCE4}"\n[log]\nsources = "off"\n'
    yield subject("xdpgw", datapath(undo, rule + NOT_COUNTED), "empty")
    if not has("xdp-filter"):
        return
    for name, features in (("xdp-filter", None), ("xdp-filter, IPv4 only", "ipv4")):
        yield subject(name, undo.enter_context(xdp_filter(SOURCE4, features)), "xdpgw")


# --- Live -----------------------------------------------------------------------------------------


def _live(undo: ExitStack, quick: bool) -> Iterator[Subject]:
    """All filters with as many rules, under the same traffic."""
    from bench.live import flows_of
    from tests import classbench

    for size in (BASE,) if quick else sizes(quick):
        policy = classbench.policy(LIVE_FAMILY, size)
        packets = classbench.headers(policy, "match", LIVE_FLOWS)
        frames = flows_of(classbench.frames(packets))
        case = f"live, {LIVE_FAMILY}, {_named(size)}"
        for name, install in _filters(policy):
            sample = _live_sampler(undo, frames, install, name, quick)
            if sample is not None:
                yield Subject(case, name, sample, "Mpps", NATIVE)


def _live_sampler(
    undo: ExitStack, frames: Frames, install: Install, name: str, quick: bool
) -> Callable[[], float] | None:
    """None: the kernel refuses the rules."""
    from bench.live import LiveBed

    with ExitStack() as stack:
        bed = LiveBed(stack, frames, QUICK_LIVE_S if quick else LIVE_S)
        try:
            install(bed, stack)
        except RuntimeError as error:
            print(f"{name}: {error}: left out", file=sys.stderr)
            return None
        undo.push(stack.pop_all())
        return bed.judging


def _filters(policy: Policy) -> Iterator[tuple[str, Install]]:
    """The filters by name; each drops what a rule matches, and all else."""
    from bench.rules_peers import has, install_iptables, install_nft, iptables_rules, nft_rules

    text = re.sub(r"^(r\d+) pass ", r"\1 drop ", policy.text, flags=re.MULTILINE)
    text = text.replace('default = "pass"', 'default = "drop"\nguard = false') + NOT_COUNTED
    yield NATIVE, lambda bed, stack: bed.apply(stack, text, "native")
    yield "xdpgw generic", lambda bed, stack: bed.apply(stack, text, "generic")
    if has("nft"):
        yield "nft", lambda bed, stack: bed.install(install_nft, nft_rules(policy, "left"))
    if has("iptables-restore"):
        yield "iptables", lambda bed, stack: bed.install(install_iptables, iptables_rules(policy))


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """All lists, loaded, and the beds; they are gone at the end."""
    with pinned(), ExitStack() as undo:
        bench = _Bench(undo, quick)
        families = QUICK_FAMILIES if quick else FAMILIES
        subjects = [subject for family in families for subject in bench.family(family)]
        subjects += _one_frame(undo, quick)
        subjects += _live(undo, quick)
        rounds = QUICK_ROUNDS if quick else ROUNDS
        yield Plan("rules", "ns/packet", _named(BASE), rounds, subjects)
