"""From the syntax of a rule to its meaning: words become numbers, sets and names are looked up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from xdpgw.errors import Diagnostic
from xdpgw.literals import Wrong, addresses, choice, likely, number, one_of, port_range, span
from xdpgw.rule_format import format_rule
from xdpgw.rule_types import (
    Addresses,
    Dscp,
    Endpoint,
    Established,
    EtherType,
    Flags,
    Frag,
    Icmp,
    IcmpType,
    Kind,
    Length,
    Mac,
    Match,
    On,
    Operand,
    Ports,
    Predicate,
    Proto,
    ResolvedRule,
    Rule,
    Side,
    Ttl,
    Vlan,
    Word,
)
from xdpgw.sets import NamedSet
from xdpgw.words import FLAGS, PROTOCOLS

if TYPE_CHECKING:
    from xdpgw.prefixes import Prefixes

__all__ = ["ICMP_TYPES", "Names", "known_port", "resolve_rules"]

_V4, _V6 = 1, 58
ICMP_TYPES: dict[str, tuple[tuple[int, int], ...]] = {
    "echo-reply": ((_V4, 0), (_V6, 129)),
    "destination-unreachable": ((_V4, 3), (_V6, 1)),
    "unreachable": ((_V4, 3), (_V6, 1)),
    "source-quench": ((_V4, 4),),
    "redirect": ((_V4, 5), (_V6, 137)),
    "echo-request": ((_V4, 8), (_V6, 128)),
    "router-advertisement": ((_V4, 9), (_V6, 134)),
    "router-solicitation": ((_V4, 10), (_V6, 133)),
    "time-exceeded": ((_V4, 11), (_V6, 3)),
    "parameter-problem": ((_V4, 12), (_V6, 4)),
    "timestamp-request": ((_V4, 13),),
    "timestamp-reply": ((_V4, 14),),
    "information-request": ((_V4, 15),),
    "information-reply": ((_V4, 16),),
    "address-mask-request": ((_V4, 17),),
    "address-mask-reply": ((_V4, 18),),
    "packet-too-big": ((_V6, 2),),
    "multicast-listener-query": ((_V6, 130),),
    "multicast-listener-report": ((_V6, 131),),
    "multicast-listener-done": ((_V6, 132),),
    "multicast-listener-report-v2": ((_V6, 143),),
    "neighbour-solicitation": ((_V6, 135),),
    "neighbor-solicitation": ((_V6, 135),),
    "neighbour-advertisement": ((_V6, 136),),
    "neighbor-advertisement": ((_V6, 136),),
    "router-renumbering": ((_V6, 138),),
}
"""Names of ICMP and ICMPv6 types, as (protocol, type); after the registries of IANA."""

_ETHER_TYPE = re.compile(r"0[xX][0-9A-Fa-f]{1,4}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_SIDES: dict[str, Side] = {"from": "src", "to": "dst"}


@dataclass(frozen=True, slots=True)
class Names:
    """What rules may name."""

    sets: Mapping[str, NamedSet]
    ports: Iterable[str]
    targets: Iterable[str]


class _Wrongs:
    """Collects what is wrong, with its place."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Diagnostic] = []

    def say(self, line: int, column: int, wrong: Wrong) -> None:
        self.found.append(Diagnostic(self.file, line, column, wrong.message, wrong.hint))

    def reading(self, word: Word, read: Callable[[str], Any]) -> Any:
        """What the word stands for, or None after telling what is wrong with it."""
        try:
            return read(word.text)
        except Wrong as wrong:
            self.say(word.line, word.column, wrong)
            return None


def resolve_rules(
    rules: Iterable[Rule], names: Names, file: str
) -> tuple[tuple[ResolvedRule, ...], tuple[Diagnostic, ...]]:
    """The meaning of each rule, and what is wrong with those that are left out.

    Args:
        file: for diagnostics.
    """
    wrongs = _Wrongs(file)
    out = []
    for index, rule in enumerate(rules):
        before = len(wrongs.found)
        _check_target(rule, names, wrongs)
        predicates = tuple(x for m in rule.matches for x in _predicates(m, names, wrongs))
        if len(wrongs.found) == before:
            out.append(
                ResolvedRule(
                    index, rule.name, rule.action, predicates, rule.log, rule.sample,
                    format_rule(rule), rule.line, rule.column,
                )
            )  # fmt: skip
    return tuple(out), tuple(wrongs.found)


def _check_target(rule: Rule, names: Names, wrongs: _Wrongs) -> None:
    action = rule.action
    if action.target is None:
        return
    word = Word(action.target, action.line, action.column)
    if action.kind == "redirect":
        wrongs.reading(word, lambda x: known_port(x, names.ports))
    else:
        wrongs.reading(word, lambda x: known_target(x, names.targets))


def known_port(name: str, ports: Iterable[str]) -> str:
    """The name, if the policy has that port."""
    return _known(name, ports, "port", f"add [ports.{_key(name)}]")


def known_target(name: str, targets: Iterable[str]) -> str:
    """The name, if the policy has that target."""
    return _known(name, targets, "target", f"add [af_xdp.{_key(name)}]")


def _known(name: str, names: Iterable[str], what: str, hint: str) -> str:
    names = list(names)
    if name not in names:
        raise Wrong(f'unknown {what} "{name}"', likely(name, names) or hint)
    return name


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def _predicates(match: Match, names: Names, wrongs: _Wrongs) -> Iterator[Predicate]:
    if isinstance(match, Endpoint):
        side = _SIDES[match.keyword]
        if match.addresses is not None:
            yield Addresses(
                side, match.addresses.negate, _addresses(match.addresses, names, wrongs)
            )
        if match.ports is not None:
            yield Ports(side, match.ports.negate, _ports(match.ports, names, wrongs))
    elif isinstance(match, Icmp):
        types = wrongs.reading(match.type, _icmp_types) or ()
        code = None
        if match.code is not None:
            code = wrongs.reading(match.code, lambda x: number(x, 0, 255, "ICMP code"))
        yield IcmpType(types, code)
    elif match.value is None:
        yield _BARE[match.keyword]
    elif match.keyword == "on":
        port = wrongs.reading(match.value, lambda x: known_port(x, names.ports))
        yield On(port)
    else:
        predicate = wrongs.reading(match.value, _VALUED[match.keyword])
        if predicate is not None:
            yield cast(Predicate, predicate)


def _ether_type(word: str) -> EtherType:
    if not _ETHER_TYPE.fullmatch(word):
        raise Wrong(f'"{word}" is not an Ethernet type', "write four hex digits such as 0x0800")
    return EtherType(int(word, 16))


def _mac(side: Side) -> Callable[[str], Mac]:
    def read(word: str) -> Mac:
        if _MAC.fullmatch(word):
            return Mac(side, bytes.fromhex(word.replace(":", "")))
        colons = word.replace("-", ":")
        hint = colons if _MAC.fullmatch(colons) else "aa:bb:cc:dd:ee:ff"
        raise Wrong(f'"{word}" is not a MAC address', f"write {hint}")

    return read


def _vlan(word: str) -> Vlan:
    if word == "any" or word == "none":
        return Vlan("any" if word == "any" else "none")
    if not word.lstrip("-").isdigit():
        hint = likely(word, ("any", "none")) or "write 0 to 4095, any or none"
        raise Wrong(f'"{word}" is not a VLAN', hint)
    return Vlan("id", number(word, 0, 4095, "VLAN"))


def _proto(word: str) -> Proto:
    if word in PROTOCOLS:
        raise Wrong(f'protocol "{word}" is not a number', f"write {word} without proto")
    if word[:1].isalpha():
        hint = likely(word, PROTOCOLS) or "write 0 to 255"
        raise Wrong(f'protocol "{word}" is not a number', hint)
    return Proto(number(word, 0, 255, "protocol"))


def _flags(text: str) -> Flags:
    masks = {"": 0, "!": 0}
    for word in text.split(","):
        mark = "!" if word.startswith("!") else ""
        flag = word.removeprefix("!")
        if flag not in FLAGS:
            hint = likely(flag, FLAGS) or f"write {one_of(FLAGS)}"
            raise Wrong(f'unknown TCP flag "{flag}"', hint)
        masks[mark] |= FLAGS[flag]
        if masks[""] & masks["!"]:
            raise Wrong(f"flag {flag} must be both set and clear", f"write {flag} or !{flag}")
    return Flags(masks[""], masks["!"])


def _icmp_types(word: str) -> tuple[tuple[int, int], ...]:
    if word in ICMP_TYPES:
        return ICMP_TYPES[word]
    if word[:1].isalpha():
        hint = likely(word, ICMP_TYPES) or "write a name such as echo-request, or 0 to 255"
        raise Wrong(f'unknown ICMP type "{word}"', hint)
    value = number(word, 0, 255, "ICMP type")
    return ((_V4, value), (_V6, value))


def _length(word: str) -> Length:
    return Length(*span(word, 0, 65535, "length"))


def _ttl(word: str) -> Ttl:
    return Ttl(*span(word, 0, 255, "TTL"))


def _dscp(word: str) -> Dscp:
    return Dscp(number(word, 0, 63, "DSCP"))


def _frag(word: str) -> Frag:
    return Frag(cast(Any, choice(word, ("no", "first", "later", "any"), "fragment state")))


_BARE: dict[str, Predicate] = {
    "arp": Kind("arp"),
    "ip": Kind("ip"),
    "ip6": Kind("ip6"),
    "established": Established(),
    **{name: Proto(value) for name, value in PROTOCOLS.items()},
}

_VALUED: dict[str, Callable[[str], Predicate]] = {
    "vlan": _vlan,
    "ether type": _ether_type,
    "ether from": _mac("src"),
    "ether to": _mac("dst"),
    "proto": _proto,
    "flags": _flags,
    "len": _length,
    "ttl": _ttl,
    "dscp": _dscp,
    "frag": _frag,
}


def _set(word: str, names: Names, wanted: str, negate: bool) -> NamedSet:
    name = word.removeprefix("@")
    found = names.sets.get(name)
    if found is None:
        hint = likely(name, names.sets) or f"add {_key(name)} = [...] to [sets]"
        raise Wrong(f'unknown set "{name}"', hint)
    if negate and not found.prefixes and not found.ranges:
        raise Wrong(f'set "{name}" is empty, and "not" of it matches everything', "leave it out")
    if found.kind not in (None, wanted):
        raise Wrong(f'set "{name}" holds {found.kind}, not {wanted}', _KIND_HINTS[wanted])
    return found


_KIND_HINTS = {
    "ports": "leave the word port out, or name a set of ports",
    "addresses": "write port before it, or name a set of addresses",
}


def _addresses(operand: Operand, names: Names, wrongs: _Wrongs) -> Prefixes:
    from xdpgw.prefixes import EMPTY, Prefixes

    parts: list[Prefixes] = []
    for word in operand.items:
        if word.text.startswith("@"):
            found = wrongs.reading(word, lambda x: _set(x, names, "addresses", operand.negate))
            parts.append(found.prefixes if found else EMPTY)
        else:
            parts.append(wrongs.reading(word, _address) or EMPTY)
    return Prefixes.union(parts)


@lru_cache(1 << 16)  # a policy is resolved where it is checked, and again where it is used
def _address(word: str) -> Prefixes:
    from xdpgw.prefixes import Prefixes

    if word.isascii() and word.isdigit():
        raise Wrong(f'"{word}" is not an address', f"for a port write port {word}")
    return Prefixes.of(addresses(word))


def _ports(operand: Operand, names: Names, wrongs: _Wrongs) -> tuple[tuple[int, int], ...]:
    out: list[tuple[int, int]] = []
    for word in operand.items:
        if word.text.startswith("@"):
            found = wrongs.reading(word, lambda x: _set(x, names, "ports", operand.negate))
            out += found.ranges if found else ()
        else:
            read = wrongs.reading(word, port_range)
            out += [read] if read else ()
    return tuple(out)
