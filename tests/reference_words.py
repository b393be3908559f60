"""The words of a policy as the reference reads them: numbers, addresses, sets, what names mean."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

__all__ = [
    "ARP",
    "FLAGS",
    "ICMP",
    "ICMP6",
    "PROTOCOLS",
    "Ranges",
    "Sets",
    "Words",
    "address_ranges",
    "expanded",
    "icmp_numbers",
    "number_range",
    "read_set",
]

ARP = 0x0806
ICMP, ICMP6 = 1, 58
PROTOCOLS = {
    "tcp": 6,
    "udp": 17,
    "icmp": ICMP,
    "icmp6": ICMP6,
    "sctp": 132,
    "gre": 47,
    "esp": 50,
    "ah": 51,
}


FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")  # bit 0 to bit 7
# RFC 792, 1256, 950; RFC 4443, 2710, 4861, 3810.
_TYPES4 = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
    "address-mask-request": 17,
    "address-mask-reply": 18,
}
_TYPES6 = {
    "destination-unreachable": 1,
    "unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "router-solicitation": 133,
    "router-advertisement": 134,
    "neighbour-solicitation": 135,
    "neighbour-advertisement": 136,
    "neighbor-solicitation": 135,
    "neighbor-advertisement": 136,
    "redirect": 137,
}
_ICMP_TYPES = {ICMP: _TYPES4, ICMP6: _TYPES6}


Sets = Mapping[str, list[str]]  # the members of each set, as text


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of numbers as sorted ranges that do not meet."""

    firsts: tuple[int, ...]
    lasts: tuple[int, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> Ranges:
        """From pairs of first and last, in any order."""
        merged: list[list[int]] = []
        for first, last in sorted(pairs):
            if merged and first <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], last)
            else:
                merged.append([first, last])
        return cls(tuple(pair[0] for pair in merged), tuple(pair[1] for pair in merged))

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.firsts, number) - 1
        return at >= 0 and number <= self.lasts[at]


class Words:
    """The words of a rule behind its name; a list in braces is one word."""

    def __init__(self, text: str, sets: Sets) -> None:
        text = re.sub(r"\s*([-/])\s*", r"\1", text)  # a range may be written with spaces
        self._words: list[str] = re.findall(r"\{[^}]*\}|[^\s{]+", text)
        self._sets = sets

    def __bool__(self) -> bool:
        return bool(self._words)

    def next(self) -> str:
        return self._words.pop(0)

    def skip(self, pattern: str) -> bool:
        """Whether the next word was of this kind; it is gone then."""
        if self._words and re.fullmatch(pattern, self._words[0]):
            del self._words[0]
            return True
        return False

    def ahead(self, word: str) -> bool:
        return self._words[:1] == [word]

    def items(self) -> list[str]:
        """What the list that comes next is made of, or the single value; a set as its @NAME."""
        return [item for item in re.split(r"[\s,]+", self.next().strip("{}")) if item]

    def members(self) -> Iterator[str]:
        """The same with the members of sets in their place."""
        return expanded(self.items(), self._sets)


def number_range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _address_range(text: str) -> tuple[int, int, int]:
    """Family, first and last address of an address, a prefix or FIRST-LAST."""
    if "-" in text:
        first, last = map(ip_address, text.split("-"))
        return first.version, int(first), int(last)
    network = ip_network(text)
    return network.version, int(network[0]), int(network[-1])


def address_ranges(members: Iterable[str]) -> dict[int, Ranges]:
    """Addresses, prefixes and FIRST-LAST, by family."""
    pairs: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for member in members:
        family, first, last = _address_range(member)
        pairs[family].append((first, last))
    return {family: Ranges.of(pairs[family]) for family in pairs}


def icmp_numbers(text: str) -> dict[int, int]:
    """The type that a number or a name stands for, by protocol."""
    if text.isdigit():
        return dict.fromkeys(_ICMP_TYPES, int(text))
    named = {proto: types[text] for proto, types in _ICMP_TYPES.items() if text in types}
    if not named:
        raise ValueError(f"no ICMP type {text!r}")
    return named


def expanded(members: Iterable[str], sets: Sets) -> Iterator[str]:
    """The members with those of a set in place of its @NAME."""
    for item in members:
        if item.startswith("@"):
            yield from sets[item[1:]]
        else:
            yield item


def read_set(members: Iterable[object], base: Path) -> Iterator[str]:
    """Addresses, prefixes, ranges and ports as text; a file has one a line."""
    for member in members:
        if isinstance(member, dict):
            for line in (base / member["file"]).read_text().splitlines():
                if item := "".join(line.partition("#")[0].split()):
                    yield item
        else:
            yield "".join(str(member).split())
