"""Rules that can never match: their parts contradict, or one earlier rule covers them.

A rule is seen as a product of regions, one a dimension (a protocol, a port, an address, ...). Its
region in a dimension is what its predicates leave, and what they imply: who names a port wants TCP,
UDP or SCTP. Rule a covers rule b where each region of a holds that of b. So no warning is wrong; a
rule that only several others cover together gets none.

An earlier rule counts if it decides. `limit` does not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from xdpgw.errors import Diagnostic
from xdpgw.prefixes import Prefixes
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

Region: TypeAlias = tuple[tuple[int, int], ...]
"""Sorted intervals that do not touch, first and last included."""

Regions: TypeAlias = dict[str, Region]
"""Dimension -> region; what is not in it may be anything, also missing in the packet."""

# The dimension "proto": 256 values for each kind of packet.
_KINDS = {"arp": (256, 511), "ip": (512, 767), "ip6": (768, 1023)}
_IP: Region = ((512, 1023),)
_FRAGS: dict[str, Region] = {
    "no": ((0, 0),), "first": ((1, 1),), "later": ((2, 2),), "any": ((1, 2),)
}  # fmt: skip
_NOT_LATER: Region = ((0, 1),)
_WIDTHS = {4: 32, 6: 128}
_DECIDES_NOT = "limit"
_LARGE = 64  # intervals: from here on a region is a feed, of which a policy has a few
_BEYOND = 1 << 129  # behind every value


def warnings(rules: Sequence[ResolvedRule], file: str) -> Iterator[Diagnostic]:
    """What to tell about rules that can never match, in their order.

    Args:
        file: for diagnostics.
    """
    found = _Regions()
    regions = [found.of(rule) for rule in rules]
    covers = _covers(rules, regions)
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


def _covers(rules: Sequence[ResolvedRule], regions: Sequence[Regions | None]) -> list[int | None]:
    """For each rule the index of the first earlier rule that covers it. A mask has a bit a rule."""
    decides = sum(
        1 << at
        for at, (rule, own) in enumerate(zip(rules, regions, strict=True))
        if own is not None and rule.action.kind != _DECIDES_NOT
    )
    candidates = [0 if own is None else decides & ((1 << at) - 1) for at, own in enumerate(regions)]
    for dimension in sorted({name for own in regions if own is not None for name in own}):
        found = _Values()
        for at, own in enumerate(regions):
            if own is not None:
                found.add(at, own.get(dimension))
        covering = found.covering()
        for at, own in enumerate(regions):
            if candidates[at] and own is not None:
                candidates[at] &= covering[_key(own.get(dimension))]
    return [(mask & -mask).bit_length() - 1 if mask else None for mask in candidates]


def _key(region: Region | None) -> Region | int | None:
    """What stands for a region in a dict: a large one stands for itself only, and is not hashed."""
    return region if region is None or len(region) <= _LARGE else id(region)


class _Values:
    """The regions of all rules in one dimension."""

    def __init__(self) -> None:
        self.regions: list[Region] = []  # in the order of the first rule that has it
        self.holders: dict[Region | int | None, int] = {
            None: 0
        }  # -> mask of the rules that have it

    def add(self, rule: int, region: Region | None) -> None:
        key = _key(region)
        if key not in self.holders and region is not None:
            self.regions.append(region)
        self.holders[key] = self.holders.get(key, 0) | 1 << rule

    def covering(self) -> dict[Region | int | None, int]:
        """For each region the rules whose region holds it; among them may be later rules."""
        out = dict(self.holders)
        firsts = []
        for region in self.regions:
            mask = self.holders[_key(region)]
            firsts.append((mask & -mask).bit_length() - 1)
        for index, candidates in self._at_first_point():
            inner = self.regions[index]
            key = _key(inner)
            out[key] |= self.holders[None]
            last = self.holders[key].bit_length() - 1
            for i in _bits(candidates & (1 << bisect_left(firsts, last)) - 1):
                outer = self.regions[i]
                if i != index and _holds(outer, inner):
                    out[key] |= self.holders[_key(outer)]
        return out

    def _at_first_point(self) -> Iterator[tuple[int, int]]:
        """Each region, and a mask of those that may hold it: a sweep finds who has its first point.

        Of a large region the sweep knows the ends only.
        """
        toggles: dict[int, int] = {}
        for index, region in enumerate(self.regions):
            large = len(region) > _LARGE
            for lo, hi in ((region[0][0], region[-1][1]),) if large else region:
                toggles[lo] = toggles.get(lo, 0) ^ 1 << index
                toggles[hi + 1] = toggles.get(hi + 1, 0) ^ 1 << index
        borders = sorted(toggles)
        active = passed = 0
        for first, index in sorted((x[0][0] if x else -1, i) for i, x in enumerate(self.regions)):
            while passed < len(borders) and borders[passed] <= first:
                active ^= toggles[borders[passed]]
                passed += 1
            empty = not self.regions[index]
            yield index, (1 << len(self.regions)) - 1 if empty else active


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _holds(outer: Region, inner: Region) -> bool:
    if not inner:
        return True
    if not outer or outer[-1][1] < inner[-1][1]:
        return False
    for interval in inner:
        at = bisect_right(outer, (interval[0], _BEYOND)) - 1
        if at < 0 or outer[at][1] < interval[1]:
            return False
    return True


class _Regions:
    """Makes the regions of rules; remembers those of address sets, which may be large."""

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self._addresses: dict[tuple[Prefixes, bool], dict[int, Region]] = {}

    def of(self, rule: ResolvedRule) -> Regions | None:
        """The regions of a rule; None if it can never match."""
        out: Regions = {}
        for predicate in rule.predicates:
            for dimension, region in self._parts(predicate):
                known = out.get(dimension)
                out[dimension] = region if known is None else _both(known, region)
        self._tighten(out)
        addresses = ("src4", "src6", "dst4", "dst6")
        return None if any(not x for d, x in out.items() if d not in addresses) else out

    def _tighten(self, out: Regions) -> None:
        """Draw what one dimension says about another."""
        icmp = out.get("icmp")
        if icmp is not None:
            left = [p for p in (1, 58) if _both(out["proto"], _protocols(p))]
            out["icmp"] = _both(icmp, _merged((p << 8, p << 8 | 255) for p in left))
        for kind, family in (("ip", 4), ("ip6", 6)):
            sides = (f"src{family}", f"dst{family}")
            if any(out.get(side) == () for side in sides):
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
        if known is None and negate:
            inside = self._families(prefixes, False)
            known = {f: _inverted(x, (1 << _WIDTHS[f]) - 1) for f, x in inside.items()}
            self._addresses[prefixes, True] = known
        elif known is None:
            split: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
            for family, first, bits in prefixes:
                split[family].append((first, first | (1 << _WIDTHS[family] - bits) - 1))
            known = {family: _merged(ranges) for family, ranges in split.items()}
            self._addresses[prefixes, False] = known
        return known


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
    return tuple(out)


def _inverted(region: Region, last: int) -> Region:
    out, at = [], 0
    for lo, hi in region:
        if at < lo:
            out.append((at, lo - 1))
        at = hi + 1
    return tuple([*out, (at, last)] if at <= last else out)


def _both(one: Region, two: Region) -> Region:
    out, i, j = [], 0, 0
    while i < len(one) and j < len(two):
        lo, hi = max(one[i][0], two[j][0]), min(one[i][1], two[j][1])
        if lo <= hi:
            out.append((lo, hi))
        if one[i][1] < two[j][1]:
            i += 1
        else:
            j += 1
    return tuple(out)
