"""What each source sent, read from the table that the datapath keeps (bpf/talker.h).

Each CPU has a table of its own; a source that came to several is in several, and is added up here.
All works on columns, as a table holds sources by the hundred thousand: `Talker`s are made of those
only that somebody wants to see.

Who reads while packets come reads a source as it was at one moment or another. When none come,
the sources and what is gone of others are all packets that have a source, exactly.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from xdpgw import _abi as abi
from xdpgw._abi import Reason, Verdict
from xdpgw.errors import XdpgwError
from xdpgw.pins import Counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.config import SourceSettings
    from xdpgw.geo import Geo
    from xdpgw.kernel import Map
    from xdpgw.pins import Instance, Manifest
    from xdpgw.rule_types import Prefix

__all__ = [
    "ORDERS",
    "Asked",
    "Order",
    "Source",
    "Sum",
    "Talker",
    "Talkers",
    "counted",
    "merged",
    "read_talkers",
    "sets_for",
    "snapshot",
    "sources_of",
]

Source = (
    ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network
)

Order = Literal["packets", "bytes", "dropped", "last"]
ORDERS: tuple[Order, ...] = ("packets", "bytes", "dropped", "last")


def sets_for(settings: SourceSettings) -> int:
    """Sets of the table of each CPU, a power of two; 0 where sources are not counted."""
    return settings.slots // abi.TALKER_WAYS if settings.count else 0


def counted(
    settings: SourceSettings, before: Counted | None, entries: int | None
) -> Counted | None:
    """How a policy counts sources; as before where it asks for the same, so that counts go on.

    Args:
        entries: of the map `talkers` that is there; a process that died may have left another one.
    """
    from xdpgw.kernel import possible_cpus

    sets = sets_for(settings)
    if not sets:
        return None
    asked = (sets, settings.prefix4, settings.prefix6)
    kept = before and asked == (before.sets, before.prefix4, before.prefix6)
    if kept and entries == sets * possible_cpus():
        return before
    return Counted(*asked, secrets.randbits(63))  # who cannot guess it cannot aim at a set


@dataclass(frozen=True, slots=True)
class Talker:
    """A source and what it sent since it was first seen.

    Args:
        source: an address; a network where the policy counts prefixes.
        packets, bytes: frames on the wire, without FCS.
        first_ns, last_ns: CLOCK_REALTIME, by the kernel's ticks.
        verdict, reason: of its last packet.
        port: where that came in; None where the policy in force does not have that port.
        dropped: those of its packets that were dropped or rejected.
    """

    source: Source
    packets: int
    bytes: int
    first_ns: int
    last_ns: int
    verdict: Verdict
    reason: Reason
    port: str | None
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Sum:
    """What sources sent together."""

    packets: int = 0
    bytes: int = 0
    sources: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Talkers:
    """Sources by columns, each once.

    Args:
        rows: shape (n,) of `_abi.talker_dtype()`.
        ports: name of each slot.
        prefixes: bits of an address that were looked at, by family.
        offset_ns: what makes the table's times CLOCK_REALTIME.
        gone: of sources that gave way to others; one that did so twice counts twice.
        slots: places of the tables of all CPUs.
    """

    rows: NDArray[np.void]
    ports: Mapping[int, str]
    prefixes: Mapping[int, int]
    offset_ns: int
    gone: Sum
    slots: int

    def __len__(self) -> int:
        return len(self.rows)

    def only(
        self,
        *,
        within: Sequence[Prefix] = (),
        verdict: Verdict | None = None,
        port: str | None = None,
    ) -> Talkers:
        """Those in any of some prefixes, with this last verdict, last seen on this port.

        A prefix that is longer than what was looked at of an address finds the source it is in.
        """
        import numpy as np

        keep = np.ones(len(self.rows), bool)
        if within:
            keep &= np.logical_or.reduce([self._covered(prefix) for prefix in within])
        if verdict is not None:
            keep &= self.rows["verdict"] == verdict
        if port is not None:
            slots = [slot for slot, name in self.ports.items() if name == port]
            keep &= np.isin(self.rows["port"], slots)
        return Talkers(
            self.rows[keep], self.ports, self.prefixes, self.offset_ns, self.gone, self.slots
        )

    def top(self, count: int | None, by: Order = "packets") -> list[Talker]:
        """The first so many, 1 at least, all if None: by what they have most of, or the latest."""
        import numpy as np

        column = "last_ns" if by == "last" else by
        keys = self.rows[column]
        rows = self.rows
        if count is not None and count < len(rows):
            rows = rows[np.argpartition(keys, len(keys) - count)[len(keys) - count :]]
        # Of those that have the same, the one with more packets, then the lower address.
        address = rows["addr"].view(">u8").reshape(-1, 2)
        ties = (address[:, 1], address[:, 0], ~rows["packets"])
        order = np.lexsort((*ties, ~rows[column]))
        return [self._talker(row) for row in rows[order].tolist()]

    def _covered(self, prefix: Prefix) -> NDArray[np.bool_]:
        """Which of the sources are in a prefix."""
        import numpy as np

        family, base, bits = prefix
        width = 32 if family == 4 else 128
        mask = (1 << width) - (1 << width - min(bits, self.prefixes.get(family, width)))
        wanted, masks = (
            np.frombuffer(x.to_bytes(width // 8, "big").ljust(16, b"\0"), np.uint64)
            for x in (base & mask, mask)
        )
        address = np.ascontiguousarray(self.rows["addr"]).view(np.uint64).reshape(-1, 2)
        found: NDArray[np.bool_] = (address & masks == wanted).all(axis=1)
        found &= self.rows["family"] == family
        return found

    def total(self) -> Sum:
        """Of all of them."""
        return Sum(int(self.rows["packets"].sum()), int(self.rows["bytes"].sum()), len(self.rows))

    def _talker(self, row: tuple[Any, ...]) -> Talker:
        of = dict(zip(self.rows.dtype.names or (), row, strict=True))
        return Talker(
            _source(of["family"], bytes(of["addr"]), self.prefixes[of["family"]]),
            of["packets"],
            of["bytes"],
            of["first_ns"] + self.offset_ns,
            of["last_ns"] + self.offset_ns,
            Verdict(of["verdict"]),
            Reason(of["reason"]),
            self.ports.get(of["port"]),
            of["dropped"],
        )


def snapshot(talkers: Map, manifest: Manifest) -> Talkers:
    """What the table holds now; nothing where the policy does not count sources.

    Args:
        talkers: the map of this name.
        manifest: of the policy in force.
    """
    import numpy as np

    how = manifest.counted
    with talkers.memory() as raw:
        sets = (
            raw.copy().view(abi.talker_set_dtype()) if how else np.empty(0, abi.talker_set_dtype())
        )
    return Talkers(
        rows=merged(sets["talker"].reshape(-1)),
        ports={slot: name for name, slot in manifest.port_slots.items()},
        prefixes={4: how.prefix4, 6: how.prefix6} if how else {},
        offset_ns=_realtime_offset_ns(),
        gone=Sum(*(int(sets[f"gone_{x}"].sum()) for x in ("packets", "bytes", "sources"))),
        slots=len(sets) * abi.TALKER_WAYS,
    )


def read_talkers(
    instance: Instance, manifest: Manifest, count: int | None = None, by: Order = "packets"
) -> list[Talker]:
    """The sources of a filter in force: as `snapshot` and `Talkers.top`."""
    with instance.books() as books:
        return snapshot(books["talkers"], manifest).top(count, by)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which sources somebody wants to see.

    Args:
        within: prefixes, any of which holds them; all if ().
        count: so many at most, 1 at least.
        by: the order.
        port: name of the port where they came in last.
        verdict: the name of their last one.
    """

    within: tuple[Prefix, ...] = ()
    count: int | None = None
    by: Order = "packets"
    port: str | None = None
    verdict: str | None = None


def sources_of(
    instance: Instance, manifest: Manifest, asked: Asked, geo: Geo | None = None
) -> dict[str, Any]:
    """All that `xdpgw sources` tells of a filter in force.

    Returns:
        `sources`, a row each; `known`, `matching` and `gone`: sources, packets and bytes of all in
        the table, of those asked for, and of those that gave way to others; `slots`, places of
        the table; `at_ns`, CLOCK_REALTIME; `places`, whether countries and ASes are looked up.

    Raises:
        XdpgwError: the policy does not count sources, or has no port of that name.
    """
    if manifest.counted is None:
        raise XdpgwError(
            "the policy in force does not count sources", "write count = true in [sources]"
        )
    if asked.port is not None and asked.port not in manifest.port_slots:
        raise XdpgwError(
            f"the policy in force has no port {asked.port}",
            f"it has {', '.join(manifest.port_slots)}",
        )
    with instance.books() as books:
        every = snapshot(books["talkers"], manifest)
    verdict = None if asked.verdict is None else Verdict[asked.verdict.upper()]
    found = every.only(within=asked.within, verdict=verdict, port=asked.port)
    return {
        "at_ns": time.time_ns(),
        "slots": every.slots,
        "known": asdict(every.total()),
        "matching": asdict(found.total()),
        "gone": asdict(every.gone),
        "places": geo is not None,
        "sources": [_row(talker, geo) for talker in found.top(asked.count, asked.by)],
    }


def _row(talker: Talker, geo: Geo | None) -> dict[str, Any]:
    row = asdict(talker)
    row["source"] = str(talker.source)
    row["verdict"], row["reason"] = talker.verdict.text, talker.reason.text
    return row | (asdict(geo.place(talker.source)) if geo else {})


def merged(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Sources that may be there several times, as one each; places without one are left out."""
    import numpy as np

    parts = [_merged_family(rows[rows["family"] == family]) for family in (4, 6)]
    return np.concatenate(parts)


def _merged_family(rows: NDArray[np.void]) -> NDArray[np.void]:
    import numpy as np

    if not len(rows):
        return rows
    address = np.ascontiguousarray(rows["addr"]).view(np.uint64).reshape(-1, 2)
    order = np.lexsort((address[:, 0], address[:, 1])) if address[:, 1].any() else None
    order = np.argsort(address[:, 0]) if order is None else order
    address, rows = address[order], rows[order]
    starts = np.flatnonzero(np.r_[True, (address[1:] != address[:-1]).any(axis=1)])
    if len(starts) == len(rows):
        return rows
    # Of each source the row that saw it last, with the sums of all of its rows.
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(rows)]))
    latest = np.lexsort((rows["last_ns"], group))[np.r_[starts[1:], len(rows)] - 1]
    out: NDArray[np.void] = rows[latest]
    for name in ("packets", "bytes", "dropped"):
        out[name] = np.add.reduceat(rows[name], starts)
    out["first_ns"] = np.minimum.reduceat(rows["first_ns"], starts)
    return out


def _source(family: int, addr: bytes, bits: int) -> Source:
    packed = addr[: 4 if family == 4 else 16]
    if bits == 8 * len(packed):
        return ipaddress.ip_address(packed)
    return ipaddress.ip_network((packed, bits))


def _realtime_offset_ns() -> int:
    from xdpgw.events import realtime_offset_ns
    from xdpgw.limit_state import ticks_ns

    ticks = ticks_ns()
    # Without the ticks, the part of a second is missing that the system had run before its first.
    return realtime_offset_ns() if ticks is None else time.time_ns() - ticks
