"""Keys of packets as columns, and the matches of rules as questions to all of them at once.

First half of tests.reference_bulk. The words of a policy are read as tests.reference reads them;
what a match asks of a key is said anew from docs/policy.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference import Malformed
from tests.reference_rules import Key
from tests.reference_words import ARP, FLAGS, PROTOCOLS, Words, icmp_numbers

__all__ = ["FRAGS", "AddressRanges", "Batch", "Keys", "Mask", "Reader", "all_of", "between"]

FRAGS = ("no", "first", "later")
_NUMBERS = (
    *("family", "proto", "sport", "dport", "vlan", "len", "tcp_flags", "ethertype"),
    *("ttl", "dscp", "icmp_type", "icmp_code"),
)

Mask = NDArray[np.bool_]
_Addresses = NDArray[np.bytes_]
_ADDRESS = "S17"
"""An address of either family as bytes that sort: the family, then the address; none for neither.
(numpy takes zero bytes at the end as none, which changes no order.)"""

# --- Keys as columns ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keys:
    """Many keys as columns of one length; -1: does not have it; a frag is its place in FRAGS."""

    columns: dict[str, NDArray[np.int64]]
    addresses: dict[str, _Addresses]
    malformed: Mask
    datagrams: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.malformed)

    @classmethod
    def of(cls, parsed: Iterable[Key | Malformed]) -> Keys:
        """From what tests.reference.parse gave."""
        found = list(parsed)
        keys = [x.key if isinstance(x, Malformed) else x for x in found]

        def column(values: Iterable[int]) -> NDArray[np.int64]:
            return np.fromiter(values, np.int64, len(keys))

        columns = {
            name: column(-1 if (x := getattr(key, name)) is None else x for key in keys)
            for name in _NUMBERS
        }
        columns["frag"] = column(-1 if x.frag is None else FRAGS.index(x.frag) for x in keys)
        for name in ("ether_from", "ether_to"):
            macs = (getattr(key, name) for key in keys)
            columns[name] = column(
                -1 if mac is None else int.from_bytes(mac, "big") for mac in macs
            )
        addresses = {
            name: np.array([_packed(key.family, getattr(key, name)) for key in keys], _ADDRESS)
            for name in ("source", "destination")
        }
        datagrams = np.empty(len(keys), object)
        datagrams[:] = [key.datagram for key in keys]
        malformed = np.array([isinstance(x, Malformed) for x in found], bool)
        return cls(columns, addresses, malformed, datagrams)

    def take(self, which: Any) -> Keys:
        """Some of them: indices or a mask."""
        return Keys(
            {name: column[which] for name, column in self.columns.items()},
            {name: column[which] for name, column in self.addresses.items()},
            self.malformed[which],
            self.datagrams[which],
        )


def _packed(family: int | None, address: int | None) -> bytes:
    if family is None or address is None:
        return b""
    return bytes([family]) + address.to_bytes(4 if family == 4 else 16, "big")


# --- What a rule asks of all keys of a batch ------------------------------------------------------


class Batch:
    """Keys under judgement, with what has been asked of them already."""

    def __init__(self, keys: Keys, port: str | None) -> None:
        self.columns, self.port, self.size = keys.columns, port, len(keys)
        self._known: dict[_Ask, Mask] = {}
        self._ordered = {
            name: np.unique(column, return_inverse=True) for name, column in keys.addresses.items()
        }

    def holds(self, ask: _Ask) -> Mask:
        """For which keys the answer is yes."""
        mask = self._known.get(ask)
        if mask is None:
            mask = self._known[ask] = ask.of(self)
        return mask

    def within(self, side: str, ranges: AddressRanges) -> Mask:
        """Which addresses lie in one of the ranges."""
        ordered, places = self._ordered[side]
        begin = np.searchsorted(ordered, ranges.firsts, "left")
        end = np.searchsorted(ordered, ranges.lasts, "right")
        room = len(ordered) + 1
        depth = np.cumsum(np.bincount(begin, minlength=room) - np.bincount(end, minlength=room))
        return (depth > 0)[places]


@dataclass(frozen=True, slots=True)
class AddressRanges:
    """Ranges of addresses in any order, first and last ones as _ADDRESS."""

    firsts: _Addresses
    lasts: _Addresses

    @classmethod
    def of(cls, members: Iterable[str]) -> AddressRanges:
        ends = [_address_ends(member) for member in members]
        firsts, lasts = ([end[n] for end in ends] for n in (0, 1))
        return cls(np.array(firsts, _ADDRESS), np.array(lasts, _ADDRESS))


def _address_ends(text: str) -> tuple[bytes, bytes]:
    """First and last of an address, a prefix or FIRST-LAST."""
    first_text, dash, last_text = text.partition("-")
    start, _, bits = first_text.partition("/")
    first = ip_address(start)
    if dash:
        return _packed(first.version, int(first)), _packed(
            first.version, int(ip_address(last_text))
        )
    hosts = (1 << first.max_prefixlen - int(bits or first.max_prefixlen)) - 1
    return _packed(first.version, int(first)), _packed(first.version, int(first) | hosts)


@dataclass(frozen=True, slots=True)
class _Ask:
    """A match as its words and how to answer it; the same words are the same match."""

    words: tuple[object, ...]
    of: Callable[[Batch], Mask] = field(compare=False)


def _column(name: str, first: int, last: int) -> _Ask:
    return _Ask((name, first, last), lambda batch: between(batch.columns[name], ((first, last),)))


def between(column: NDArray[np.int64], pairs: Iterable[tuple[int, int]]) -> Mask:
    mask = np.zeros(len(column), bool)
    for first, last in pairs:
        mask |= (column >= first) & (column <= last)
    return mask


class Reader:
    """Makes matches of words; a set of addresses is read once for all rules."""

    def __init__(self, sets: dict[str, list[str]]) -> None:
        self._sets = sets
        self._ranges: dict[str, AddressRanges] = {}

    def readers(self) -> dict[str, Callable[[Words], _Ask]]:
        """What reads the words behind each match's first one."""
        return {
            "on": self._on,
            "vlan": self._vlan,
            "ether": self._ether,
            "arp": lambda _: _column("ethertype", ARP, ARP),
            "ip": lambda _: _column("family", 4, 4),
            "ip6": lambda _: _column("family", 6, 6),
            **{name: _always(_column("proto", n, n)) for name, n in PROTOCOLS.items()},
            "proto": lambda words: _column("proto", *2 * (int(words.next()),)),
            "from": lambda words: self._end(words, "source", "sport"),
            "to": lambda words: self._end(words, "destination", "dport"),
            "flags": self._flags,
            "type": self._icmp,
            "len": lambda words: _column("len", *_pair(words.next())),
            "ttl": lambda words: _column("ttl", *_pair(words.next())),
            "dscp": lambda words: _column("dscp", *2 * (int(words.next()),)),
            "frag": self._frag,
        }

    def _on(self, words: Words) -> _Ask:
        name = words.next()
        return _Ask(("on", name), lambda batch: np.full(batch.size, batch.port == name))

    def _vlan(self, words: Words) -> _Ask:
        what = words.next()
        if what in ("any", "none"):
            return _column("vlan", 0, 4095) if what == "any" else _column("vlan", -1, -1)
        return _column("vlan", int(what), int(what))

    def _ether(self, words: Words) -> _Ask:
        what, value = words.next(), int(words.next().replace(":", "").replace("-", ""), 16)
        return _column("ethertype" if what == "type" else f"ether_{what}", value, value)

    def _flags(self, words: Words) -> _Ask:
        asked = words.next().split(",")
        bits = {name: 1 << FLAGS.index(name.lstrip("!")) for name in asked}
        mask = sum(bits.values())
        value = sum(bit for name, bit in bits.items() if name[0] != "!")

        def of(batch: Batch) -> Mask:
            flags = batch.columns["tcp_flags"]
            return np.logical_and(flags >= 0, flags & mask == value)

        return _Ask(("flags", mask, value), of)

    def _icmp(self, words: Words) -> _Ask:
        text = words.next()
        code = int(words.next()) if words.skip("code") else None

        def of(batch: Batch) -> Mask:
            columns, mask = batch.columns, np.zeros(batch.size, bool)
            for proto, number in icmp_numbers(text).items():
                mask |= (columns["proto"] == proto) & (columns["icmp_type"] == number)
            return mask if code is None else mask & (columns["icmp_code"] == code)

        return _Ask(("icmp", text, code), of)

    def _frag(self, words: Words) -> _Ask:
        state = words.next()
        if state == "any":
            return _column("frag", 1, 2)
        return _column("frag", *2 * (FRAGS.index(state),))

    def _end(self, words: Words, address: str, port: str) -> _Ask:
        parts = [] if words.ahead("port") else [self._addresses(words, address)]
        if words.skip("port"):
            parts.append(self._ports(words, port))

        def of(batch: Batch) -> Mask:
            return all_of(batch.size, (batch.holds(part) for part in parts))

        return _Ask(tuple(part.words for part in parts), of)

    def _addresses(self, words: Words, side: str) -> _Ask:
        wanted, items = not words.skip("not"), words.items()
        parts = [self._named(item[1:]) for item in items if item[0] == "@"]
        parts.append(AddressRanges.of(item for item in items if item[0] != "@"))

        def of(batch: Batch) -> Mask:
            inside = np.zeros(batch.size, bool)
            for ranges in parts:
                inside |= batch.within(side, ranges)
            return np.logical_and(batch.columns["family"] >= 0, inside == wanted)

        return _Ask((side, wanted, *items), of)

    def _named(self, name: str) -> AddressRanges:
        if name not in self._ranges:
            self._ranges[name] = AddressRanges.of(self._sets[name])
        return self._ranges[name]

    def _ports(self, words: Words, name: str) -> _Ask:
        wanted = not words.skip("not")
        pairs = tuple(map(_pair, words.members()))

        def of(batch: Batch) -> Mask:
            column = batch.columns[name]
            return np.logical_and(column >= 0, between(column, pairs) == wanted)

        return _Ask((name, wanted, *pairs), of)


def _always(ask: _Ask) -> Callable[[Words], _Ask]:
    return lambda _: ask


def _pair(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def all_of(size: int, masks: Iterable[Mask]) -> Mask:
    out = np.ones(size, bool)
    for mask in masks:
        out &= mask
    return out
