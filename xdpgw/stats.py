"""The books of the datapath, read out of their per-CPU maps and added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpgw import _abi as abi
from xdpgw._abi import LogCounter, Reason, Verdict

if TYPE_CHECKING:
    from xdpgw.kernel import Map

__all__ = ["Counter", "LogStats", "PortStats", "read_log", "read_ports", "read_rules"]


@dataclass(frozen=True, slots=True)
class Counter:
    """Packets and bytes (frames on the wire, without FCS)."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Counter) -> Counter:
        return Counter(self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, other: Counter) -> Counter:
        return Counter(self.packets - other.packets, self.bytes - other.bytes)


@dataclass(frozen=True, slots=True)
class PortStats:
    """What became of a port's packets: one counter for each (verdict, reason) that occurred."""

    port: str
    by: Mapping[tuple[Verdict, Reason], Counter]

    @property
    def received(self) -> Counter:
        """All packets of the port: the sum over its counters, as each packet is counted once."""
        return sum(self.by.values(), Counter())


@dataclass(frozen=True, slots=True)
class LogStats:
    """The log's books, in events. due = written + lost + limited."""

    due: int
    written: int
    lost: int
    limited: int


def read_ports(counters: Map, ports: Mapping[str, int]) -> list[PortStats]:
    """Read the counters of all ports.

    Args:
        counters: the map `counters`.
        ports: slot of each port.
    """
    slots = max(ports.values(), default=-1) + 1
    table = counters.percpu(slots * abi.VERDICT_COUNT * abi.REASON_COUNT).sum(axis=1)
    out = []
    for name, slot in ports.items():
        by = {}
        for verdict in Verdict:
            for reason in Reason:
                at = (slot * abi.VERDICT_COUNT + verdict) * abi.REASON_COUNT + reason
                packets, size = (int(x) for x in table[at])
                if packets:
                    by[verdict, reason] = Counter(packets, size)
        out.append(PortStats(name, by))
    return out


def read_rules(rule_counters: Map, rules: Mapping[str, int]) -> dict[str, Counter]:
    """Read what each rule decided, by its name.

    Args:
        rule_counters: the map `rule_counters`.
        rules: slot of each rule.
    """
    totals = rule_counters.percpu(max(rules.values(), default=-1) + 1).sum(axis=1).tolist()
    return {name: Counter(*totals[slot]) for name, slot in rules.items()}


def read_log(log_counters: Map) -> LogStats:
    """Read the log's books from the map `log_counters`."""
    totals = log_counters.percpu().sum(axis=1)
    return LogStats(**{which.text: int(totals[which][0]) for which in LogCounter})
