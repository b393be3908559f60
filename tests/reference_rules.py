"""The rules of a policy as the reference reads them: what each word asks of a packet's key.

Second half of tests.reference, written from docs/policy.md like the first, for valid policies.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

__all__ = ["ARP", "ICMP", "ICMP6", "Key", "Rule", "read_rules", "read_set"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What rules look at; a field that the packet does not have is None."""

    family: int | None = None
    src: str | None = None
    dst: str | None = None
    proto: int | None = None
    sport: int | None = None
    dport: int | None = None
    vlan: int | None = None
    frag: str | None = None  # "no", "first" or "later"
    len: int
    tcp_flags: int | None = None  # the byte from CWR 0x80 to FIN 0x01
    port: str | None = None  # that the frame came in on
    ethertype: int | None = None  # behind the VLAN tags
    ether_from: bytes | None = None
    ether_to: bytes | None = None
    source: int | None = None  # src and dst as numbers
    destination: int | None = None
    ttl: int | None = None
    dscp: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    # What all fragments of a packet have in common.
    datagram: tuple[object, ...] | None = field(default=None, compare=False)


# --- What a rule matches --------------------------------------------------------------------------

_Match = Callable[[Key], bool]
_Sets = Mapping[str, list[str]]  # the members of each set, as text

FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")  # bit 0 to bit 7
# RFC 792, 1256, 950; RFC 4443, 2710, 4861, 3810.
_ICMP_TYPES = {
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
_ICMP6_TYPES = {
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


@dataclass(frozen=True, slots=True)
class _Ranges:
    """A set of numbers as sorted ranges that do not meet."""

    firsts: tuple[int, ...]
    lasts: tuple[int, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> _Ranges:
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


class _Words:
    """The words of a rule behind its name; a list in braces is one word."""

    def __init__(self, text: str, sets: _Sets) -> None:
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

    def members(self) -> Iterator[str]:
        """The members of the list, set or single value that comes next."""
        for item in re.split(r"[\s,]+", self.next().strip("{}").strip(", \t")):
            if item.startswith("@"):
                yield from self._sets[item[1:]]
            elif item:
                yield item


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _address_range(text: str) -> tuple[int, int, int]:
    """Family, first and last address of an address, a prefix or FIRST-LAST."""
    if "-" in text:
        first, last = map(ip_address, text.split("-"))
        return first.version, int(first), int(last)
    network = ip_network(text)
    return network.version, int(network[0]), int(network[-1])


def _match_address(words: _Words, field: str) -> _Match:
    wanted = not words.skip("not")
    pairs: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for member in words.members():
        family, first, last = _address_range(member)
        pairs[family].append((first, last))
    ranges = {family: _Ranges.of(pairs[family]) for family in pairs}

    def match(key: Key) -> bool:
        return key.family is not None and (getattr(key, field) in ranges[key.family]) is wanted

    return match


def _match_l4_port(words: _Words, field: str) -> _Match:
    wanted = not words.skip("not")
    ranges = _Ranges.of(map(_range, words.members()))

    def match(key: Key) -> bool:
        number = getattr(key, field)
        return number is not None and (number in ranges) is wanted

    return match


def _match_from(words: _Words) -> _Match:
    return _match_end(words, "source", "sport")


def _match_to(words: _Words) -> _Match:
    return _match_end(words, "destination", "dport")


def _match_end(words: _Words, address: str, port: str) -> _Match:
    parts = [] if words.ahead("port") else [_match_address(words, address)]
    if words.skip("port"):
        parts.append(_match_l4_port(words, port))
    return lambda key: all(part(key) for part in parts)


def _match_on(words: _Words) -> _Match:
    name = words.next()
    return lambda key: key.port == name


def _match_vlan(words: _Words) -> _Match:
    if words.skip("any"):
        return lambda key: key.vlan is not None
    number = None if words.skip("none") else int(words.next())
    return lambda key: key.vlan == number


def _match_ether(words: _Words) -> _Match:
    what, value = words.next(), words.next()
    if what == "type":
        return _equal("ethertype", int(value, 16))
    return _equal(f"ether_{what}", bytes.fromhex(re.sub("[:-]", "", value)))


def _match_flags(words: _Words) -> _Match:
    mask = value = 0
    for flag in words.next().split(","):
        bit = 1 << FLAGS.index(flag.lstrip("!"))
        mask |= bit
        value |= 0 if flag.startswith("!") else bit
    return lambda key: key.tcp_flags is not None and key.tcp_flags & mask == value


def _match_icmp_type(words: _Words) -> _Match:
    text = words.next()
    named = {ICMP: _ICMP_TYPES.get(text), ICMP6: _ICMP6_TYPES.get(text)}
    if text.isdigit():
        named = {ICMP: int(text), ICMP6: int(text)}
    elif named == {ICMP: None, ICMP6: None}:
        raise ValueError(f"no ICMP type {text!r}")
    code = int(words.next()) if words.skip("code") else None

    def match(key: Key) -> bool:
        if key.proto is None or key.icmp_type is None:
            return False
        return named[key.proto] == key.icmp_type and code in (None, key.icmp_code)

    return match


def _match_range(field: str) -> Callable[[_Words], _Match]:
    def read(words: _Words) -> _Match:
        first, last = _range(words.next())

        def match(key: Key) -> bool:
            number = getattr(key, field)
            return number is not None and first <= number <= last

        return match

    return read


def _match_frag(words: _Words) -> _Match:
    state = words.next()
    states = ("first", "later") if state == "any" else (state,)
    return lambda key: key.frag in states


def _match_established(words: _Words) -> _Match:
    raise NotImplementedError("established")


def _equal(field: str, value: object) -> _Match:
    return lambda key: getattr(key, field) == value


def _number(field: str) -> Callable[[_Words], _Match]:
    return lambda words: _equal(field, int(words.next()))


def _constant(match: _Match) -> Callable[[_Words], _Match]:
    return lambda words: match


_MATCHES: dict[str, Callable[[_Words], _Match]] = {
    "on": _match_on,
    "vlan": _match_vlan,
    "ether": _match_ether,
    "arp": _constant(_equal("ethertype", ARP)),
    "ip": _constant(_equal("family", 4)),
    "ip6": _constant(_equal("family", 6)),
    **{name: _constant(_equal("proto", number)) for name, number in PROTOCOLS.items()},
    "proto": _number("proto"),
    "from": _match_from,
    "to": _match_to,
    "flags": _match_flags,
    "type": _match_icmp_type,
    "len": _match_range("len"),
    "ttl": _match_range("ttl"),
    "dscp": _number("dscp"),
    "frag": _match_frag,
    "established": _match_established,
}

# --- How a policy is read -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that holds for a key when all of its matches do."""

    name: str
    verdict: str
    target: str | None
    matches: tuple[_Match, ...]

    def holds(self, key: Key) -> bool:
        for match in self.matches:  # noqa: SIM110 - all() takes twice as long
            if not match(key):
                return False
        return True


def read_rules(text: str, sets: _Sets) -> Iterator[Rule]:
    """The rules of a policy in their order, given the members of its sets."""
    for line in text.splitlines():
        name, *rest = line.partition("#")[0].split(maxsplit=1) or [""]
        if name:
            yield _read_rule(name, _Words(" ".join(rest), sets))


def _read_rule(name: str, words: _Words) -> Rule:
    verdict, target = _read_action(words)
    matches = []
    while words:
        word = words.next()
        if word == "log":
            words.skip(r"\d+(/[sm]|[MG]bit/s)")
        elif word == "sample":
            words.next()
        elif word in _MATCHES:
            matches.append(_MATCHES[word](words))
        else:
            raise ValueError(f"rule {name}: {word!r} is no match and no option")
    return Rule(name, verdict, target, tuple(matches))


def _read_action(words: _Words) -> tuple[str, str | None]:
    """The verdict and its port or target."""
    verdict = words.next()
    if verdict in ("pass", "drop", "reject", "tx", "forward"):
        return verdict, None
    if verdict == "redirect":
        return verdict, words.next()
    if verdict == "af_xdp":
        target = words.next()
        _, _ = words.next(), words.next()  # else pass, else drop: the socket is taken as listening
        return verdict, target
    if verdict == "limit":
        raise NotImplementedError(verdict)
    raise ValueError(f"no action {verdict!r}")


def read_set(members: Iterable[object], base: Path) -> Iterator[str]:
    """Addresses, prefixes, ranges and ports as text; a file has one a line."""
    for member in members:
        if isinstance(member, dict):
            for line in (base / member["file"]).read_text().splitlines():
                if item := "".join(line.partition("#")[0].split()):
                    yield item
        else:
            yield "".join(str(member).split())
