"""Which values a match accepts, dimension by dimension, as intervals.

Each function of `PAINTED` takes one match of a rule and gives the intervals of values that it
accepts in its dimension, or None where the match does not look at the dimension. The last class
of a dimension is "the packet does not have it" (bpf/abi.h); no interval here reaches it but that
of `vlan none`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from xdpgw import _abi as abi
from xdpgw import rules as r
from xdpgw._abi import Dim

__all__ = ["PAINTED", "Accepts", "Interval", "both", "inverted", "merged"]

Interval = tuple[int, int]
"""First and last accepted value, both included."""


def both(first: list[Interval], second: list[Interval]) -> list[Interval]:
    """The values in both of two sorted lists of disjoint intervals."""
    return [(max(a, c), min(b, d)) for a, b in first for c, d in second if max(a, c) <= min(b, d)]


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same values as sorted, disjoint intervals."""
    out: list[Interval] = []
    for lo, hi in sorted(intervals):
        if out and lo <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(hi, out[-1][1]))
        else:
            out.append((lo, hi))
    return out


def inverted(intervals: Iterable[Interval], last: int) -> list[Interval]:
    """All values from 0 to `last` that are in none of the intervals."""
    out, at = [], 0
    for lo, hi in merged(intervals):
        if at < lo:
            out.append((at, lo - 1))
        at = hi + 1
    return [*out, (at, last)] if at <= last else out


Accepts = Callable[[r.Predicate], list[Interval] | None]


def _vlan(p: r.Predicate) -> list[Interval] | None:
    match p:
        case r.Vlan(kind="any"):
            return [(0, 4095)]
        case r.Vlan(kind="none"):
            return [(4096, 4096)]
        case r.Vlan(vid=int(vid)):
            return [(vid, vid)]
    return None


def _ethertype(p: r.Predicate) -> list[Interval] | None:
    return [(p.value, p.value)] if isinstance(p, r.EtherType) else None


_KINDS = {"arp": abi.Kind.ARP, "ip": abi.Kind.IP, "ip6": abi.Kind.IP6}


def _proto(p: r.Predicate) -> list[Interval] | None:
    match p:
        case r.Kind(kind):
            return [(_KINDS[kind] * 256, _KINDS[kind] * 256 + 255)]
        case r.Proto(number):
            return [(kind * 256 + number,) * 2 for kind in (abi.Kind.IP, abi.Kind.IP6)]
    return None


def _ports(side: str) -> Accepts:
    def accepts(p: r.Predicate) -> list[Interval] | None:
        if not isinstance(p, r.Ports) or p.side != side:
            return None
        return inverted(p.ranges, 65535) if p.negate else merged(p.ranges)

    return accepts


def _tcp_flags(p: r.Predicate) -> list[Interval] | None:
    if not isinstance(p, r.Flags):
        return None
    return merged(
        (v, v) for v in range(256) if v & p.must_set == p.must_set and not v & p.must_clear
    )


def _icmp(p: r.Predicate) -> list[Interval] | None:
    if not isinstance(p, r.IcmpType):
        return None
    firsts = [(proto == 58) << 16 | kind << 8 for proto, kind in p.types]
    if p.code is None:
        return merged((first, first + 255) for first in firsts)
    return merged((first + p.code,) * 2 for first in firsts)


def _len(p: r.Predicate) -> list[Interval] | None:
    return [(min(p.lo, 65535), min(p.hi, 65535))] if isinstance(p, r.Length) else None


def _ttl(p: r.Predicate) -> list[Interval] | None:
    return [(p.lo, p.hi)] if isinstance(p, r.Ttl) else None


def _dscp(p: r.Predicate) -> list[Interval] | None:
    return [(p.value, p.value)] if isinstance(p, r.Dscp) else None


_FRAGS = {
    "no": [(abi.Frag.NO,) * 2],
    "first": [(abi.Frag.FIRST,) * 2],
    "later": [(abi.Frag.LATER,) * 2],
    "any": [(abi.Frag.FIRST, abi.Frag.LATER)],
}


def _frag(p: r.Predicate) -> list[Interval] | None:
    return [(int(lo), int(hi)) for lo, hi in _FRAGS[p.state]] if isinstance(p, r.Frag) else None


PAINTED: dict[Dim, Accepts] = {
    Dim.VLAN: _vlan,
    Dim.ETHERTYPE: _ethertype,
    Dim.PROTO: _proto,
    Dim.SPORT: _ports("src"),
    Dim.DPORT: _ports("dst"),
    Dim.TCP_FLAGS: _tcp_flags,
    Dim.ICMP: _icmp,
    Dim.LEN: _len,
    Dim.TTL: _ttl,
    Dim.DSCP: _dscp,
    Dim.FRAG: _frag,
}
