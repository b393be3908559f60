"""All that a filter tells at one moment, in one reading of its pins.

`status`, the metrics and `top` show what stands here and read no book themselves. What grows is
told as it stands; a rate is what two snapshots differ by, over the time between them (`Change`).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xdpgw import blocks, stats, talkers
from xdpgw.errors import KernelError, XdpgwError
from xdpgw.pins import notes
from xdpgw.sink_stats import read_sinks
from xdpgw.stats import Counter, LogStats, PortStats
from xdpgw.target_stats import read_sockets, unserved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.kernel import Map
    from xdpgw.pins import Instance, Manifest
    from xdpgw.sink_stats import SinkStats
    from xdpgw.talkers import Talker, Talkers

__all__ = ["Change", "PerSecond", "PortState", "Reader", "Ring", "RuleState", "Snapshot"]

TRIES = 5
"""Readings of which each is spoilt by another policy that comes into force meanwhile."""


@dataclass(frozen=True, slots=True)
class PortState:
    """A port of the policy in force, and what became of its packets."""

    stats: PortStats
    ifindex: int
    mode: str
    """native or generic."""
    attached: bool
    """Whether the interface that was attached is still there."""
    notes: tuple[str, ...]
    """What a person should know about it."""

    @property
    def port(self) -> str:
        """Its name."""
        return self.stats.port


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule in force, and what it decided; of a limit: what it dropped."""

    text: str
    """The rule in canonical spacing."""
    count: Counter

    @property
    def action(self) -> str:
        """The word behind the rule's name."""
        return self.text.split(maxsplit=2)[1]


@dataclass(frozen=True, slots=True)
class Ring:
    """The ring buffer of events, in bytes."""

    used: int
    size: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A filter in force at one moment. Counters are packets, bytes and events."""

    at_ns: int
    """CLOCK_MONOTONIC."""
    manifest: Manifest
    pins: str
    """The folder."""
    epoch: int
    """Another one means books that began anew."""
    in_charge: bool
    """Whether a process feeds its log and serves its targets."""
    ports: tuple[PortState, ...]
    rules: Mapping[str, RuleState]
    """By name, in order."""
    log: LogStats
    ring: Ring
    sinks: Sequence[SinkStats] = ()
    sockets: Sequence[Mapping[str, Any]] = ()
    """As `target_stats.targets_of` has them, without rates."""
    unserved: tuple[str, ...] = ()
    """Targets that no socket serves."""
    blocks: int = 0
    """Sources that are blocked."""
    sources: Talkers | None = None
    """None where nobody asked for them."""

    @property
    def limits(self) -> dict[str, RuleState]:
        """The rules with the action limit."""
        return {name: rule for name, rule in self.rules.items() if rule.action == "limit"}


class Reader:
    """Reads the filter of one network namespace, as often as asked."""

    def __init__(self, instance: Instance, *, sources: bool = False) -> None:
        """Read nothing yet.

        Args:
            sources: whether to read what each source sent, too: a table of megabytes.
        """
        self._instance = instance
        self._sources = sources
        self._known: tuple[int, Manifest] | None = None

    def read(self) -> Snapshot | None:
        """What the filter tells now; None where there is none.

        Raises:
            AbiMismatch: another version of xdpgw put it in force.
            XdpgwError: the kernel refuses, or policies follow each other too fast.
        """
        for _ in range(TRIES):
            generation = self._instance.generation
            if generation is None:
                return None
            try:
                found = self._read(generation)
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue  # it was detached under our hands
            if self._instance.generation == generation:
                return found
        raise XdpgwError("the policy was replaced each time it was looked at", "try again")

    def _read(self, generation: int) -> Snapshot | None:
        instance, manifest = self._instance, self._manifest(generation)
        if manifest is None:
            return None
        with instance.books() as books:
            if not books:
                return None
            in_charge = instance.in_charge
            sockets = read_sockets(instance, manifest) if in_charge else []
            return Snapshot(
                at_ns=time.monotonic_ns(),
                manifest=manifest,
                pins=str(instance.path),
                epoch=books["counters"].info().id,
                in_charge=in_charge,
                ports=_ports(instance, manifest, books["counters"]),
                rules=_rules(manifest, books["rule_counters"]),
                log=stats.read_log(books["log_counters"]),
                ring=_ring(books["events"]),
                sinks=read_sinks(instance),
                sockets=sockets,
                unserved=tuple(unserved(sockets, manifest)),
                blocks=blocks.count(books),
                sources=talkers.snapshot(books["talkers"], manifest) if self._sources else None,
            )

    def _manifest(self, generation: int) -> Manifest | None:
        """As `Instance.manifest`, which decodes a whole policy, but read once."""
        if self._known is not None and self._known[0] == generation:
            return self._known[1]
        manifest = self._instance.manifest()
        # In the middle of a swap it may be the next one, which may yet be withdrawn.
        settled = not (self._instance.path / "manifest-next").exists()
        self._known = (generation, manifest) if manifest is not None and settled else None
        return manifest


def _ports(instance: Instance, manifest: Manifest, counters: Map) -> tuple[PortState, ...]:
    found = []
    slots = {port: manifest.port_slots[port] for port in manifest.ports}
    for each in stats.read_ports(counters, slots):
        at, link, attached = manifest.ports[each.port], instance.link(each.port), False
        if link is not None:
            with link:
                attached = link.info().ifindex == at.ifindex
        told = tuple(notes(manifest, each.port))
        found.append(PortState(each, at.ifindex, at.mode, attached, told))
    return tuple(found)


def _rules(manifest: Manifest, rule_counters: Map) -> dict[str, RuleState]:
    counts = stats.read_rules(rule_counters, manifest.rule_slots)
    lines = ((line.split(maxsplit=1)[0], line) for line in manifest.rules_text.splitlines())
    return {name: RuleState(line, counts[name]) for name, line in lines}


def _ring(events: Map) -> Ring:
    from xdpgw.events import EventReader

    with EventReader(events, capacity=1) as reader:
        return Ring(reader.used_bytes, reader.size_bytes)


@dataclass(frozen=True, slots=True)
class PerSecond:
    """A rate."""

    packets: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: PerSecond) -> PerSecond:
        return PerSecond(self.packets + other.packets, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened from one snapshot to a later one.

    What was not there before began at 0, as did what is less than before: its slot was given to
    another, or the filter was detached and put in force anew.
    """

    before: Snapshot
    after: Snapshot

    @property
    def same_books(self) -> bool:
        """Whether the filter was there all the time."""
        return self.before.epoch == self.after.epoch

    @property
    def seconds(self) -> float:
        """Between the two."""
        return (self.after.at_ns - self.before.at_ns) / 1e9

    def port(self, port: PortState) -> dict[Any, PerSecond]:
        """The rate of each (verdict, reason) of a port of the later one."""
        was: Mapping[Any, Counter] = {}
        if self.same_books:
            was = next((x.stats.by for x in self.before.ports if x.port == port.port), was)
        return {
            key: self._rate(was.get(key, Counter()), count) for key, count in port.stats.by.items()
        }

    def rule(self, name: str) -> PerSecond:
        """The rate at which a rule decides."""
        was = self.before.rules.get(name) if self.same_books else None
        return self._rate(was.count if was else Counter(), self.after.rules[name].count)

    def log(self, which: str) -> float:
        """Events a second, by the name of a member of LogStats."""
        was = getattr(self.before.log, which) if self.same_books else 0
        return _grown(was, getattr(self.after.log, which), self.seconds)

    def sink(self, name: str, which: str) -> float:
        """Events a second, by the name of a sink and of a member of SinkStats."""
        old, new = (
            sum(getattr(x, which) for x in found.sinks if x.name == name)
            for found in (self.before, self.after)
        )
        return _grown(old, new, self.seconds)

    def socket(self, row: Mapping[str, Any], kind: str, name: str) -> float:
        """A second, what a socket of the later one counts under `counters` or `statistics`."""
        key = _socket_key(row)
        was = next((x for x in self.before.sockets if _socket_key(x) == key), None)
        if was is None:
            return 0.0
        # They are of when they were published, not of when they were read.
        return _grown(was[kind][name], row[kind][name], (row["ts_ns"] - was["ts_ns"]) / 1e9)

    def sources(self, count: int) -> list[tuple[Talker, PerSecond]]:
        """Sources of the later one that send most now, and those that have sent most in all: so
        many of each, at most."""
        import numpy as np

        after, before = self.after.sources, self.before.sources
        if after is None or before is None or not len(after) or self.seconds <= 0:
            return []
        rows = after.rows
        grown = _grown_rows(before.rows if self.same_books else before.rows[:0], rows)
        most = max(0, len(rows) - count)
        chosen = np.union1d(
            np.argpartition(grown[:, 0], most - 1)[most:] if most else np.arange(len(rows)),
            np.argpartition(rows["packets"], most - 1)[most:] if most else [],
        ).astype(np.intp)
        return [
            (
                replace(after, rows=rows[at : at + 1]).top(1)[0],
                PerSecond(*(grown[at] / self.seconds).tolist()),
            )
            for at in chosen.tolist()
        ]

    def _rate(self, old: Counter, new: Counter) -> PerSecond:
        return PerSecond(
            _grown(old.packets, new.packets, self.seconds),
            _grown(old.bytes, new.bytes, self.seconds),
        )


def _grown(old: int, new: int, seconds: float) -> float:
    if seconds <= 0:
        return 0.0
    return (new - old if new >= old else new) / seconds


def _grown_rows(old: NDArray[np.void], new: NDArray[np.void]) -> NDArray[np.int64]:
    """Packets and bytes by which each row of new has grown; shape (n, 2)."""
    import numpy as np

    rows = np.concatenate([old, new])
    address = np.ascontiguousarray(rows["addr"]).view(np.uint64).reshape(-1, 2)
    is_new = np.arange(len(rows)) >= len(old)
    order = np.lexsort((is_new, address[:, 0], address[:, 1], rows["family"]))
    ordered, address = rows[order], address[order]
    same = (address[1:] == address[:-1]).all(axis=1)
    same &= ordered["family"][1:] == ordered["family"][:-1]
    pairs = np.flatnonzero(same)
    out = np.empty((len(new), 2), np.int64)
    for column, name in enumerate(("packets", "bytes")):
        counts = rows[name].astype(np.int64)
        was = np.zeros(len(rows), np.int64)
        was[order[pairs + 1]] = counts[order[pairs]]
        now, was = counts[len(old) :], was[len(old) :]
        out[:, column] = np.where(now >= was, now - was, now)
    return out


def _socket_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["target"], row["port"], row["queue"]
