"""Programs over traces of varied packets: nanoseconds a packet, without what the harness costs.

A test run makes `PASSES` passes, each over the next packet of a trace (bench/trace.h). A sample
first goes over the trace once, so that the caches hold what a steady load leaves in them, and not
what the subject before left; then it times the program that does nothing, and the subject: what it
tells is the difference. A subject that is too slow for a whole trace gets as much of it as it can
judge in `BUDGET_NS`. Of the kernel's time slices and of its neighbours on the machine, only the
median over the rounds knows.

What this does not tell: packets come from memory that the processor reads ahead, no driver is in
it, and the lookups of one packet may overlap those of the next.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.facts import ROOT, compile_bpf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.compile import Image
    from xdpgw.kernel import BpfObject, Map, Program

__all__ = ["HEAD_BYTES", "PASSES", "SOURCE_AT", "Harness", "Trace", "memory_bytes"]

PASSES, HEAD_BYTES = 64, 80
"""As bench/trace.h has them."""

SOURCE_AT = {4: 26, 6: 22}
"""Where the source address of a frame without tags begins."""

BUDGET_NS = 25_000_000
_FRAME = bytes(HEAD_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Packets, one after the other, round and round.

    Args:
        heads: shape (n, HEAD_BYTES), uint8; n is a power of two, PASSES at least.
        random_at: offset of four bytes that are random in each packet, below 64; 0 for none.
        sources: source addresses that are written over those of the heads, shape (n, 4) or (n, 16),
            uint8; n is a power of two. None for none.
    """

    heads: NDArray[np.uint8]
    random_at: int = 0
    sources: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        for rows in (self.heads, self.heads if self.sources is None else self.sources):
            n = len(rows)
            if n < PASSES or n & (n - 1):
                raise ValueError(f"a trace of {n}: not a power of two from {PASSES} on")

    def __len__(self) -> int:
        return len(self.heads if self.sources is None else self.sources)

    @classmethod
    def of(cls, frames: Sequence[bytes], random_at: int = 0) -> Trace:
        """Frames of at most HEAD_BYTES; shorter ones are padded behind their IP packet."""
        heads = np.frombuffer(b"".join(x.ljust(HEAD_BYTES, b"\0") for x in frames), np.uint8)
        return cls(heads.reshape(len(frames), HEAD_BYTES), random_at)


@cache
def _compiled(name: str) -> bytes:
    return compile_bpf(ROOT / "bench" / f"{name}.bpf.c")


class Harness:
    """One trace at a time in the kernel, and the objects whose programs go over it."""

    def __init__(self, undo: ExitStack, packets: int, sources: int = PASSES) -> None:
        """Load what all objects share.

        Args:
            undo: closes all that is opened here.
            packets: of the longest trace.
            sources: of the longest list of them.
        """
        from xdpgw import config, loader, rules
        from xdpgw.compile import compile_rules

        self._undo = undo
        self._shown: Trace | None = None
        self._shared: dict[str, Map] = {}
        empty = compile_rules(rules.resolve(config.loads('[policy]\n[log]\nsources = "off"\n')))
        self._empty = undo.enter_context(loader.load(empty, [None]))
        room = {"trace": packets, "trace_sources": sources}
        first = self._open("harness", self._empty.maps, room, cfg=empty.config(None))
        self._shared = {name: first.map(name) for name in (*room, "trace_control")}
        self._nothing, self.parsed = first.program("rewrite"), first.program("parsed")
        self.no_rules = first.program("verdict")
        self._trace = undo.enter_context(first.map("trace").memory())
        self._sources = undo.enter_context(first.map("trace_sources").memory())

    def datapath(self, image: Image) -> tuple[BpfObject, Mapping[str, Map]]:
        """The datapath with an image, as an object with the programs of bench/harness.bpf.c.

        Returns:
            the object, and the image's maps by name.
        """
        from xdpgw import loader
        from xdpgw.pins import BOOKS

        books = {name: self._empty.maps[name] for name in BOOKS}
        loaded = self._undo.enter_context(loader.load(image, [None], books=books))
        obj = self._open("harness", loaded.maps, {}, cfg=image.config(None))
        return obj, {name: found for name, found in loaded.maps.items() if name not in BOOKS}

    def peers(
        self,
        entries: Mapping[str, int] | None = None,
        *,
        reuse: Mapping[str, Map] | None = None,
        **constants: bytes,
    ) -> BpfObject:
        """The programs of bench/peers.bpf.c.

        Args:
            entries: of its maps, by name.
            reuse: maps to take in the place of its own, by name.
            constants: its `const volatile` globals.
        """
        maps = {**self._empty.maps, **(reuse or {})}
        return self._open("peers", maps, entries or {}, **constants)

    def program(self, source: str, name: str, talker_sets: int = 0) -> Program:
        """A program of another object over the trace, which has the datapath's maps and no rules.

        Args:
            source: NAME of bench/NAME.bpf.c.
            name: the program.
            talker_sets: of the map `talkers`, on each CPU; 0 where sources are not counted.
        """
        from xdpgw import facts

        cfg = self._empty.image.config(None, talker_sets=talker_sets, tick_ns=facts.tick_ns())
        return self._open(source, self._empty.maps, {}, cfg=cfg).program(name)

    def _open(
        self, name: str, maps: Mapping[str, Map], entries: Mapping[str, int], **constants: bytes
    ) -> BpfObject:
        from xdpgw.kernel import BpfObject

        obj = self._undo.enter_context(BpfObject(_compiled(name), name=name))
        for symbol, value in constants.items():
            obj.set_rodata(symbol, value)
        obj.load(entries=entries, reuse={**maps, **self._shared})
        return obj

    def sampler(self, program: Program, trace: Trace, quick: bool = False) -> Callable[[], float]:
        """A function that gives ns a packet, net."""

        def sample() -> float:
            self._show(trace)
            runs = self._warm(program, len(trace) // PASSES, quick)
            idle = self._nothing.test_run(_FRAME, runs).duration_ns
            return (program.test_run(_FRAME, runs).duration_ns - idle) / PASSES

        return sample

    def _warm(self, program: Program, runs: int, quick: bool) -> int:
        """Go over the trace, or some of it; how many runs a sample can be."""
        first = program.test_run(_FRAME).duration_ns
        fit = (BUDGET_NS // 50 if quick else BUDGET_NS) // max(1, first)
        runs = max(1, min(runs, fit))
        if runs > 1:
            program.test_run(_FRAME, runs)
        return runs

    def drops(self, program: Program, trace: Trace, packets: int) -> int:
        """How many of a trace's first packets a program drops."""
        self._shown = None
        self._show(trace)
        return sum(program.test_run(_FRAME).retval for _ in range(packets // PASSES))

    def _show(self, trace: Trace) -> None:
        if self._shown is trace:
            return
        self._trace[: trace.heads.size] = trace.heads.reshape(-1)
        family = last = 0
        if trace.sources is not None:
            family, last = (4 if trace.sources.shape[1] == 4 else 6), len(trace.sources) - 1
            wide = np.zeros((len(trace.sources), 16), np.uint8)
            wide[:, : trace.sources.shape[1]] = trace.sources
            self._sources[: wide.size] = wide.reshape(-1)
        book = struct.pack("=6I", 0, len(trace.heads) - 1, trace.random_at, family, last, 0)
        self._shared["trace_control"].update(bytes(4), book)
        self._shown = trace


def memory_bytes(maps: Mapping[str, Any]) -> int:
    """What the kernel says that maps take (`memlock` in /proc/self/fdinfo; exact from 6.4 on)."""
    total = 0
    for found in maps.values():
        with open(f"/proc/self/fdinfo/{found.fileno()}") as told:
            total += sum(int(x.split()[1]) for x in told if x.startswith("memlock:"))
    return total
