"""Looking on at ports of a filter: a program of our own that theirs call, and what it put down.

The filter goes on as it did: a packet is judged first, shown then, and gets the same verdict. A
reload puts other programs on the ports, which `Tap.check` notices and follows.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from xdpgw import _abi as abi
from xdpgw._abi import CaptureCounter, Reason, Verdict
from xdpgw._native import ffi
from xdpgw.capture_match import compile_match, uses_sets
from xdpgw.compile import rate_words
from xdpgw.errors import ConfigError, KernelError, UnsupportedError, VerifierError, XdpgwError
from xdpgw.events import Names
from xdpgw.handles import possible_cpus
from xdpgw.kernel import XDP_HAS_FRAGS, BpfObject, Map
from xdpgw.loader import CAPTURE, artifact, entries_of, fill
from xdpgw.seat import Seat

if TYPE_CHECKING:
    from types import TracebackType

    from xdpgw.pins import Instance, Manifest
    from xdpgw.rule_types import Rate

__all__ = ["Tap", "TapBooks", "Wanted", "wanted_bytes"]

_SHARED = ("captured", "capture_counters", "capture_tally", "records")
"""What our programs on several ports have together, and those after a reload with those before."""

_NO_SUCH_CALL = re.compile(r"(invalid|unknown) func |cannot use helper")
"""What verifiers say of calls that their kernel has not, or not for XDP."""

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which packets, and how much of them."""

    match: str = ""
    """The words behind the action of a rule; "" for any packet, malformed ones, too."""
    verdicts: frozenset[Verdict] = frozenset(Verdict)
    reasons: frozenset[Reason] = frozenset(Reason)
    rule: str | None = None
    """The rule that decided."""
    snaplen: int = 0
    """Bytes of a frame."""
    count: int = 0
    """No more than so many frames; 0 for no end."""
    rate: Rate | None = None
    """Frames a second or minute, on all ports together; None for no bound."""


@dataclass(frozen=True, slots=True)
class TapBooks:
    """What the kernel counted, in frames."""

    seen: int
    captured: int
    lost: int
    limited: int

    @property
    def add_up(self) -> bool:
        """Whether seen = captured + lost + limited: no packet is on its way."""
        return self.seen == self.captured + self.lost + self.limited


class Tap:
    """Looks on as long as it is open; context manager.

    Args:
        instance: the filter.
        manifest: what is in force.
        ports: of the filter.
        wanted: which packets.
        ring_bytes: of the ring buffer; a power of two, a page at least.
        note: takes what a person should know.

    Raises:
        BusyError: somebody else looks on at one of the ports.
        ConfigError: the match is wrong.
        UnsupportedError: the kernel cannot, or another version of xdpgw loaded the filter.
        XdpgwError: there is no such rule.
    """

    def __init__(
        self,
        instance: Instance,
        manifest: Manifest,
        ports: Sequence[str],
        wanted: Wanted,
        *,
        ring_bytes: int,
        note: Note,
    ) -> None:
        if wanted.rule is not None and wanted.rule not in manifest.rule_slots:
            raise XdpgwError(f"no rule {wanted.rule} is in force", "xdpgw rules shows them")
        if not manifest.shows:
            raise UnsupportedError(
                "the filter in force does not show packets to others",
                "another version of xdpgw loaded it: xdpgw reload; else the kernel lacks a JIT for "
                "programs that call functions and others (x86 has it from 5.10, arm64 from 6.0)",
                feature="tail calls from programs with functions",
                kernel=os.uname().release,
            )
        self._instance, self._wanted, self._note = instance, wanted, note
        self._ring_bytes = ring_bytes
        self._several_buffers = True
        self._image = compile_match(wanted.match, manifest)
        self._rule_slots: dict[str, int] = {}
        self._take_names(manifest)
        self._shared: dict[str, Map] = {}
        self._kept = ExitStack()
        self._seats: dict[str, Seat] = {}
        try:
            with self._held():
                for port in ports:
                    self._sit_down(port)
        except BaseException:
            self.close()
            raise

    @property
    def ports(self) -> tuple[str, ...]:
        """Where it looks on."""
        return tuple(self._seats)

    @property
    def ring(self) -> Map:
        """The ring buffer of records: struct xg_event, and behind it bytes of the frame."""
        return self._shared["captured"]

    @property
    def books(self) -> TapBooks:
        """What the kernel has counted so far."""
        rows = self._shared["capture_counters"].percpu().sum(axis=(1, 2))
        return TapBooks(*(int(rows[which]) for which in CaptureCounter))

    def check(self) -> str | None:
        """Follow the filter; call it several times a second.

        Returns:
            a port that the filter has left, if it did: then the tap is of no more use.
        """
        if (gone := self._left()) is not None:
            return gone
        changed = self._instance.generation != self._generation
        if self._moved() or (changed and uses_sets(self._wanted.match)):
            return self._follow()
        for seat in self._seats.values():
            seat.keep()
        return None

    def withdraw(self) -> None:
        """Look on no longer; ring and books can still be read."""
        for seat in self._seats.values():
            seat.close()
        self._seats = {}

    def close(self) -> None:
        """Look on no longer, and give all back; twice is fine."""
        self.withdraw()
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep others from changing the filter meanwhile. Of one that is gone nothing is left."""
        with self._instance.changing():
            try:
                yield
            finally:
                if not self._instance.exists and not self._instance.in_charge:
                    self._instance.remove()

    def _running(self, port: str) -> int | None:
        """The program on a port; None: it has no filter any more.

        The link is not kept open, as it would keep the filter on the port.
        """
        link = self._instance.link(port)
        if link is None:
            return None
        with link:
            info = link.info()
        return info.prog_id if info.ifindex else None

    def _left(self) -> str | None:
        """A port without the filter."""
        return next((port for port in self._seats if self._running(port) is None), None)

    def _moved(self) -> list[str]:
        """Ports that run another program than the one we are at."""
        return [x for x, seat in self._seats.items() if self._running(x) != seat.prog_id]

    def _take_names(self, manifest: Manifest) -> None:
        self._manifest, self._generation = manifest, self._instance.generation
        # A slot goes to another rule only two reloads later: records of before still find theirs.
        new, taken = manifest.rule_slots, set(manifest.rule_slots.values())
        old = {name: slot for name, slot in self._rule_slots.items() if slot not in taken}
        self._rule_slots = {**old, **new}
        self.names = Names.of(ports=manifest.port_slots, rules=self._rule_slots)
        """What slots in records are called."""

    def _follow(self) -> str | None:
        """Go where the filter went, with what the match means now. Returns as `check`."""
        with self._held():
            manifest, gone = self._instance.manifest(), self._left()
            if manifest is None or gone is not None:
                return gone or next(iter(self._seats))
            moved = self._moved()
            self._take_names(manifest)
            try:
                self._image = compile_match(self._wanted.match, manifest)
            except ConfigError as error:
                self._note(f"{error}\nthe capture goes on with the match as it was")
            for port in list(self._seats):
                if port in moved:
                    self._seats.pop(port).close()
                    self._sit_down(port)
                else:
                    self._take(self._seats[port])
        if moved:
            self._note(
                "the policy was replaced: packets of "
                f"{', '.join(moved)} between that and now were not looked at"
            )
        return None

    def _sit_down(self, port: str) -> None:
        prog_id = self._running(port)
        if prog_id is None:
            raise XdpgwError(f"port {port} has no filter any more", "xdpgw status tells more")
        seat = Seat(port, prog_id)
        try:
            seat.require_free()
            self._take(seat)
        except BaseException:
            seat.close()
            raise
        self._seats[port] = seat

    def _take(self, seat: Seat) -> None:
        try:
            self._take_with(seat, None)
        except KernelError as error:
            if error.errno != errno.EINVAL:
                raise
            # The port's frames may lie in several buffers.
            self._take_with(seat, {"capture": XDP_HAS_FRAGS})

    def _take_with(self, seat: Seat, flags: Mapping[str, int] | None) -> None:
        obj = self._load(seat, flags)
        try:
            seat.take(obj)
        except BaseException:
            obj.close()
            raise

    def _load(self, seat: Seat, flags: Mapping[str, int] | None) -> BpfObject:
        """Our program for a port, loaded.

        Before kernel 5.18 there are no frames of several buffers, nor calls that read them.
        """
        if self._several_buffers:
            try:
                return self._load_as(seat, flags)
            except VerifierError as error:
                if not _NO_SUCH_CALL.search(error.log):
                    raise
                self._several_buffers = False
        return self._load_as(seat, flags)

    def _load_as(self, seat: Seat, flags: Mapping[str, int] | None) -> BpfObject:
        obj = BpfObject(artifact(CAPTURE), name="capture")
        try:
            obj.set_rodata("wanted", wanted_bytes(self._wanted, self._manifest.rule_slots))
            obj.load(
                rodata=self._image.config(seat.port, multi_buffer=self._several_buffers),
                entries=self._entries(obj),
                reuse={**self._shared, "judgements": seat.judgements},
                prog_flags=flags,
            )
            fill(self._image, obj)
            for name in _SHARED:
                if name not in self._shared:
                    kept = Map(os.dup(obj.map(name).fileno()))
                    self._shared[name] = self._kept.enter_context(kept)
        except BaseException:
            obj.close()
            raise
        return obj

    def _entries(self, obj: BpfObject) -> dict[str, int]:
        """How large each map is; the datapath's books have no use here."""
        return {
            **dict.fromkeys(obj.map_names(), 1),
            **entries_of(self._image),
            "events": os.sysconf("SC_PAGESIZE"),
            "captured": self._ring_bytes,
            "capture_counters": abi.CAPTURE_COUNT,
            "records": possible_cpus(),
        }


def wanted_bytes(wanted: Wanted, rule_slots: Mapping[str, int]) -> bytes:
    """The struct xg_wanted; of a rule that is gone, no packet has the slot."""
    out = ffi.new("struct xg_wanted *")
    out.rate.interval_ns, out.rate.burst_ns = rate_words(wanted.rate)
    out.count, out.snaplen = wanted.count, wanted.snaplen
    out.verdicts = sum(1 << which for which in wanted.verdicts)
    out.reasons = sum(1 << which for which in wanted.reasons)
    out.rule = abi.NO_RULE
    if wanted.rule is not None:
        out.rule = rule_slots.get(wanted.rule, abi.NO_RULE + 1)
    return bytes(ffi.buffer(out))
