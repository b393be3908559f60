"""The rules of a policy as the reference reads them: what each word asks of a packet's key.

Second half of tests.reference, written from docs/policy.md like the first, for valid policies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.reference_words import (
    ARP,
    FLAGS,
    PROTOCOLS,
    Ranges,
    Sets,
    Words,
    address_ranges,
    icmp_numbers,
    number_range,
)

__all__ = ["Key", "Limit", "Rule", "read_rules"]


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


def _match_address(words: Words, field: str) -> _Match:
    wanted = not words.skip("not")
    ranges = address_ranges(words.members())

    def match(key: Key) -> bool:
        return key.family is not None and (getattr(key, field) in ranges[key.family]) is wanted

    return match


def _match_l4_port(words: Words, field: str) -> _Match:
    wanted = not words.skip("not")
    ranges = Ranges.of(map(number_range, words.members()))

    def match(key: Key) -> bool:
        number = getattr(key, field)
        return number is not None and (number in ranges) is wanted

    return match


def _match_from(words: Words) -> _Match:
    return _match_end(words, "source", "sport")


def _match_to(words: Words) -> _Match:
    return _match_end(words, "destination", "dport")


def _match_end(words: Words, address: str, port: str) -> _Match:
    parts = [] if words.ahead("port") else [_match_address(words, address)]
    if words.skip("port"):
        parts.append(_match_l4_port(words, port))
    return lambda key: all(part(key) for part in parts)


def _match_on(words: Words) -> _Match:
    name = words.next()
    return lambda key: key.port == name


def _match_vlan(words: Words) -> _Match:
    if words.skip("any"):
        return lambda key: key.vlan is not None
    number = None if words.skip("none") else int(words.next())
    return lambda key: key.vlan == number


def _match_ether(words: Words) -> _Match:
    what, value = words.next(), words.next()
    if what == "type":
        return _equal("ethertype", int(value, 16))
    return _equal(f"ether_{what}", bytes.fromhex(re.sub("[:-]", "", value)))


def _match_flags(words: Words) -> _Match:
    mask = value = 0
    for flag in words.next().split(","):
        bit = 1 << FLAGS.index(flag.lstrip("!"))
        mask |= bit
        value |= 0 if flag.startswith("!") else bit
    return lambda key: key.tcp_flags is not None and key.tcp_flags & mask == value


def _match_icmp_type(words: Words) -> _Match:
    text = words.next()
    named = icmp_numbers(text)
    code = int(words.next()) if words.skip("code") else None

    def match(key: Key) -> bool:
        if key.proto is None or key.icmp_type is None:
            return False
        return named.get(key.proto) == key.icmp_type and code in (None, key.icmp_code)

    return match


def _match_range(field: str) -> Callable[[Words], _Match]:
    def read(words: Words) -> _Match:
        first, last = number_range(words.next())

        def match(key: Key) -> bool:
            number = getattr(key, field)
            return number is not None and first <= number <= last

        return match

    return read


def _match_frag(words: Words) -> _Match:
    state = words.next()
    states = ("first", "later") if state == "any" else (state,)
    return lambda key: key.frag in states


def _match_established(words: Words) -> _Match:
    raise NotImplementedError("established")


def _equal(field: str, value: object) -> _Match:
    return lambda key: getattr(key, field) == value


def _number(field: str) -> Callable[[Words], _Match]:
    return lambda words: _equal(field, int(words.next()))


def _constant(match: _Match) -> Callable[[Words], _Match]:
    return lambda words: match


_MATCHES: dict[str, Callable[[Words], _Match]] = {
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
class Limit:
    """What a rule lets go on: `burst` packets, as what comes back in a minute is no matter here."""

    burst: int
    lengths: tuple[int, int] | None  # of IPv4 and IPv6 sources that share a bucket; None: the rule

    def bucket(self, key: Key) -> tuple[int, int] | None:
        """Whose bucket the packet takes from; None for the one that all others share."""
        if self.lengths is None or key.family is None or key.source is None:
            return None
        width, length = (32, self.lengths[0]) if key.family == 4 else (128, self.lengths[1])
        return key.family, key.source >> width - length


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that holds for a key when all of its matches do."""

    name: str
    verdict: str
    target: str | None
    limit: Limit | None  # of the action `limit`, whose verdict is that of a packet over it
    matches: tuple[Any, ...]

    def holds(self, key: Key) -> bool:
        for match in self.matches:  # noqa: SIM110 - all() takes twice as long
            if not match(key):
                return False
        return True


def read_rules(
    text: str, sets: Sets, readers: Mapping[str, Callable[[Words], Any]] = _MATCHES
) -> Iterator[Rule]:
    """The rules of a policy in their order, given the members of its sets.

    A reader takes the words behind a match's first one and gives what stands for it in the rule.
    """
    for line in text.splitlines():
        name, *rest = line.partition("#")[0].split(maxsplit=1) or [""]
        if name:
            yield _read_rule(name, Words(" ".join(rest), sets), readers)


def _read_rule(name: str, words: Words, readers: Mapping[str, Callable[[Words], Any]]) -> Rule:
    verdict, target, limit = _read_action(words)
    matches = []
    while words:
        word = words.next()
        if word == "log":
            words.skip(r"\d+(/[sm]|[MG]bit/s)")
        elif word == "sample":
            words.next()
        elif word in readers:
            matches.append(readers[word](words))
        else:
            raise ValueError(f"rule {name}: {word!r} is no match and no option")
    return Rule(name, verdict, target, limit, tuple(matches))


def _read_action(words: Words) -> tuple[str, str | None, Limit | None]:
    """The verdict, its port or target, and the limit that it stands behind."""
    verdict = words.next()
    if verdict in ("pass", "drop", "reject", "tx", "forward"):
        return verdict, None, None
    if verdict == "redirect":
        return verdict, words.next(), None
    if verdict == "af_xdp":
        target = words.next()
        _, _ = words.next(), words.next()  # else pass, else drop: the socket is taken as listening
        return verdict, target, None
    if verdict == "limit":
        return "drop", None, _read_limit(words)
    raise ValueError(f"no action {verdict!r}")


def _read_limit(words: Words) -> Limit:
    rate, lengths = words.next(), None
    if rate != "1/m" or not words.skip("burst"):
        raise NotImplementedError("a limit that time has a part in: not 1/m, or without burst")
    burst = int(words.next())
    if words.skip("per"):
        what, _, bits = words.next().partition("/")
        if what == "source":
            first, _, last = (bits or "32,64").partition(",")
            lengths = int(first), int(last)
    return Limit(burst, lengths)
