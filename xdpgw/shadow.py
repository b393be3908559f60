"""Rules that can never match: their parts contradict, or one earlier rule covers them.

A rule is seen as a product of regions, one a dimension (a protocol, a port, an address, ...). Its
region in a dimension is what its predicates leave, and what they imply: who names a port wants TCP,
UDP or SCTP. Rule a covers rule b where each region of a holds that of b. So no warning is wrong; a
rule that only several others cover together gets none.

An earlier rule counts if it decides. `limit` does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache

from xdpgw.covers import LARGE, Region, Regions, first_covers
from xdpgw.errors import Diagnostic
from xdpgw.prefixes import Prefixes
from xdpgw.ranges import Ranges
from xdpgw.rule_types import (
    Addresses,
    Dscp,
    Established,
    EtherType,
    Flags,
    Frag,
    IcmpType,
    Kind,
    Length,
    Mac,
    On,
    Ports,
    Predicate,
    Proto,
    ResolvedRule,
    Ttl,
    Vlan,
)

__all__ = ["warnings"]

# The dimension "proto": 256 values for each kind of packet.
_KINDS = {"arp": (256, 511), "ip": (512, 767), "ip6": (768, 1023)}
_IP: Region = ((512, 1023),)
_FRAGS: dict[str, Region] = {
    "no": ((0, 0),), "first": ((1, 1),), "later": ((2, 2),), "any": ((1, 2),)
}  # fmt: skip
_NOT_LATER: Region = ((0, 1),)
_WIDTHS = {
    "on": 16, "vlan": 13, "ether type": 16, "src mac": 48, "dst mac": 48, "proto": 10,
    "src4": 32, "src6": 128, "dst4": 32, "dst6": 128, "src port": 16, "dst port": 16,
    "flags": 8, "icmp": 14, "code": 8, "len": 16, "ttl": 8, "dscp": 6, "frag": 2, "established": 1,
}  # fmt: skip
"""Bits of a value of each dimension."""

_DECIDES_NOT = "limit"


def warnings(rules: Sequence[ResolvedRule], file: str) -> Iterator[Diagnostic]:
    """What to tell about rules that can never match, in their order.

    Args:
        file: for diagnostics.
    """
    found = _Regions()
    regions = [found.of(rule) for rule in rules]
    decides = [rule.action.kind != _DECIDES_NOT for rule in rules]
    covers = first_covers(regions, decides, _WIDTHS)
    for rule, own, earlier in zip(rules, regions, covers, strict=True):
        if own is None:
            message = f"rule {rule.name} can never match: its parts contradict each other"
            hint = "take one of them out"
        elif earlier is not None:
            name = rules[earlier].name
            message = f"rule {rule.name} can never match: rule {name} before it covers it"
            hint = f"move it before {name}, or take it out"
        else:
            continue
        if not _has_empty_set(rule):
            yield Diagnostic(file, rule.line, rule.column, message, hint)


def _has_empty_set(rule: ResolvedRule) -> bool:
    """Such a rule matches nothing today; its set may be filled tomorrow."""
    return any(
        (isinstance(p, Addresses) and not p.prefixes) or (isinstance(p, Ports) and not p.ranges)
        for p in rule.predicates
    )


class _Regions:
    """Makes the regions of rules; remembers those of address sets, which may be large."""

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self._addresses: dict[tuple[Prefixes, bool], dict[int, Region]] = {}

    def of(self, rule: ResolvedRule) -> Regions | None:
        """The regions of a rule; None if it can never match."""
        out: dict[str, Region] = {}
        for predicate in rule.predicates:
            for dimension, region in self._parts(predicate):
                known = out.get(dimension)
                out[dimension] = region if known is None else _both(known, region)
        self._tighten(out)
        addresses = ("src4", "src6", "dst4", "dst6")
        return None if any(not x for d, x in out.items() if d not in addresses) else out

    def _tighten(self, out: dict[str, Region]) -> None:
        """Draw what one dimension says about another."""
        icmp = out.get("icmp")
        if icmp is not None:
            left = [p for p in (1, 58) if _both(out["proto"], _protocols(p))]
            out["icmp"] = _both(icmp, _merged((p << 8, p << 8 | 255) for p in left))
        for kind, family in (("ip", 4), ("ip6", 6)):
            sides = (f"src{family}", f"dst{family}")
            if any(side in out and not out[side] for side in sides):
                out["proto"] = _both(out["proto"], _inverted((_KINDS[kind],), 1023))
            if "proto" in out and not _both(out["proto"], (_KINDS[kind],)):
                out.update(dict.fromkeys(sides, ()))  # no packet of this family is left

    def _parts(self, predicate: Predicate) -> Iterator[tuple[str, Region]]:
        match predicate:
            case On(port):
                at = self._ports.setdefault(port, len(self._ports))
                yield "on", ((at, at),)
            case Vlan(kind, vid):
                one = 4096 if vid is None else vid
                yield "vlan", ((0, 4095),) if kind == "any" else ((one, one),)
            case EtherType(value):
                yield "ether type", ((value, value),)
            case Mac(side, mac):
                yield f"{side} mac", ((int.from_bytes(mac, "big"),) * 2,)
            case Kind(kind):
                yield "proto", (_KINDS[kind],)
            case Proto(value):
                yield "proto", _protocols(value)
            case Addresses(side, negate, prefixes):
                yield "proto", _IP
                for family, region in self._families(prefixes, negate).items():
                    yield f"{side}{family}", region
            case Ports(side, negate, ranges):
                yield "proto", _protocols(6, 17, 132)
                yield "frag", _NOT_LATER
                merged = _merged(ranges)
                yield f"{side} port", _inverted(merged, 65535) if negate else merged
            case Flags(must_set, must_clear):
                yield "proto", _protocols(6)
                yield "frag", _NOT_LATER
                fit = (x for x in range(256) if x & must_set == must_set and not x & must_clear)
                yield "flags", _merged((x, x) for x in fit)
            case IcmpType(types, code):
                yield "proto", _protocols(*{proto for proto, _ in types})
                yield "frag", _NOT_LATER
                yield "icmp", _merged((p << 8 | kind,) * 2 for p, kind in types)
                if code is not None:
                    yield "code", ((code, code),)
            case Length(lo, hi):
                yield "len", ((lo, hi),)
            case Ttl(lo, hi):
                yield "proto", _IP
                yield "ttl", ((lo, hi),)
            case Dscp(value):
                yield "proto", _IP
                yield "dscp", ((value, value),)
            case Frag(state):
                yield "proto", _IP
                yield "frag", _FRAGS[state]
            case Established():
                yield "established", ((1, 1),)

    def _families(self, prefixes: Prefixes, negate: bool) -> dict[int, Region]:
        known = self._addresses.get((prefixes, negate))
        if known is None:
            if prefixes.few is not None and len(prefixes.few) == 1 and not negate:
                ((family, first, bits),) = prefixes.few
                last = first | (1 << (32 if family == 4 else 128) - bits) - 1
                known = {4: (), 6: (), family: ((first, last),)}
            else:
                known = {family: _addresses(prefixes, family, negate) for family in (4, 6)}
            self._addresses[prefixes, negate] = known
        return known


def _addresses(prefixes: Prefixes, family: int, negate: bool) -> Region:
    width = 32 if family == 4 else 128
    if prefixes.few is None:
        ranges = prefixes.merged_ranges(family)
        return _small(ranges.inverted(width) if negate else ranges)
    merged = _merged(
        (first, first | (1 << width - bits) - 1) for f, first, bits in prefixes.few if f == family
    )
    return _inverted(merged, (1 << width) - 1) if negate else merged


def _small(region: Ranges) -> Region:
    return region if len(region) > LARGE else tuple(region)


@cache
def _protocols(*numbers: int) -> Region:
    return _merged((first + x,) * 2 for x in numbers for first in (512, 768))


def _merged(ranges: Iterable[tuple[int, int]]) -> Region:
    out: list[tuple[int, int]] = []
    for lo, hi in sorted(ranges):
        if out and lo <= out[-1][1] + 1:
            if hi > out[-1][1]:
                out[-1] = (out[-1][0], hi)
        else:
            out.append((lo, hi))
    return tuple(out) if len(out) <= LARGE else Ranges.of(out)


def _inverted(region: Region, last: int) -> Region:
    if isinstance(region, Ranges):
        return _small(region.inverted(last.bit_length()))
    out, at = [], 0
    for lo, hi in region:
        if at < lo:
            out.append((at, lo - 1))
        at = hi + 1
    return tuple([*out, (at, last)] if at <= last else out)


def _both(one: Region, two: Region) -> Region:
    if isinstance(one, tuple) and isinstance(two, tuple):
        return _both_small(one, two)
    return _small(_large(one) & _large(two))


def _large(region: Region) -> Ranges:
    return Ranges.of(region) if isinstance(region, tuple) else region


_Small = tuple[tuple[int, int], ...]


@lru_cache(4096)  # protocols: the same few again and again
def _both_small(one: _Small, two: _Small) -> Region:
    out, i, j = [], 0, 0
    while i < len(one) and j < len(two):
        lo, hi = max(one[i][0], two[j][0]), min(one[i][1], two[j][1])
        if lo <= hi:
            out.append((lo, hi))
        if one[i][1] < two[j][1]:
            i += 1
        else:
            j += 1
    return tuple(out) if len(out) <= LARGE else Ranges.of(out)
