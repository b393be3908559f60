"""The values that rules are made of: the words that were typed, the predicates that they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from xdpgw._abi import MAX_RULES

if TYPE_CHECKING:
    from xdpgw.prefixes import Prefixes

__all__ = [
    "MAX_RULES",
    "Action",
    "ActionKind",
    "Addresses",
    "Dscp",
    "Endpoint",
    "Established",
    "EtherType",
    "Flags",
    "Frag",
    "Icmp",
    "IcmpType",
    "Kind",
    "Length",
    "Limit",
    "LogOption",
    "Mac",
    "Match",
    "On",
    "Operand",
    "Ports",
    "Predicate",
    "Prefix",
    "Proto",
    "Rate",
    "RateUnit",
    "ResolvedRule",
    "Rule",
    "Side",
    "Simple",
    "Ttl",
    "Verdict",
    "Vlan",
    "Word",
]

Verdict: TypeAlias = Literal["pass", "drop"]
Side: TypeAlias = Literal["src", "dst"]
ActionKind: TypeAlias = Literal[
    "pass", "drop", "reject", "tx", "forward", "redirect", "af_xdp", "limit"
]
RateUnit: TypeAlias = Literal["/s", "/m", "Mbit/s", "Gbit/s"]


# What was typed. Positions count from 1, point into the file and do not make two values different.


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a rule, without white space."""

    text: str
    line: int = field(default=0, compare=False, repr=False)
    column: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Simple:
    """A match of a keyword and at most one value: `tcp`, `vlan 7`, `ether from 02:00:00:00:00:01`.

    Args:
        keyword: one word, or two for `ether type`, `ether from` and `ether to`.
        value: None where the keyword takes none; the flags of `flags`, joined by commas.
    """

    keyword: str
    value: Word | None = None
    line: int = field(default=0, compare=False, repr=False)
    column: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Operand:
    """Addresses or ports of an endpoint.

    Args:
        items: one word, or any number in braces.
        negate: `not` stands before it.
        braces: the words stand in braces.
    """

    items: tuple[Word, ...]
    negate: bool = False
    braces: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`from` or `to`, with addresses, ports or both."""

    keyword: Literal["from", "to"]
    addresses: Operand | None = None
    ports: Operand | None = None


@dataclass(frozen=True, slots=True)
class Icmp:
    """`type ICMPTYPE [code N]`."""

    type: Word
    code: Word | None = None


Match: TypeAlias = Simple | Endpoint | Icmp


@dataclass(frozen=True, slots=True)
class Rate:
    """So many packets or bits in a unit of time.

    Args:
        amount: at least 1.
        unit: packets a second or a minute, or bits a second.
    """

    amount: int
    unit: RateUnit

    def __str__(self) -> str:
        return f"{self.amount}{self.unit}"


@dataclass(frozen=True, slots=True)
class Limit:
    """What the action `limit` lets through.

    Args:
        burst: packets at once, bytes where the rate is of bits; None if it was not said.
        per: one bucket a source prefix, or one for the rule.
        prefix4: bits of an IPv4 source that share a bucket.
        prefix6: the same for IPv6.
    """

    rate: Rate
    burst: int | None = None
    per: Literal["source", "rule"] = "rule"
    prefix4: int = 32
    prefix6: int = 64


@dataclass(frozen=True, slots=True)
class Action:
    """What a rule asks for.

    Args:
        target: the port of `redirect`, the target of `af_xdp`.
        otherwise: the verdict of `af_xdp` where no socket listens.
        limit: of `limit`.
    """

    kind: ActionKind
    target: str | None = None
    otherwise: Verdict | None = None
    limit: Limit | None = None
    line: int = field(default=0, compare=False, repr=False)
    column: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LogOption:
    """The option `log`; rate is None if it was not said."""

    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it was typed.

    Args:
        sample: log one packet of so many; None if it was not said.
        line: of the file, from 1.
        column: where the name begins, from 1.
    """

    name: str
    action: Action
    matches: tuple[Match, ...] = ()
    log: LogOption | None = None
    sample: int | None = None
    line: int = field(default=0, compare=False, repr=False)
    column: int = field(default=0, compare=False, repr=False)


# What it means. A rule holds where all of its predicates do.

Prefix: TypeAlias = tuple[int, int, int]
"""Family (4 or 6), address as a number, prefix length in bits."""


@dataclass(frozen=True, slots=True)
class On:
    """The packet came in on this port."""

    port: str


@dataclass(frozen=True, slots=True)
class Vlan:
    """The outer VLAN tag; vid is None unless kind is `id`."""

    kind: Literal["id", "any", "none"]
    vid: int | None = None


@dataclass(frozen=True, slots=True)
class EtherType:
    """The type behind the VLAN tags."""

    value: int


@dataclass(frozen=True, slots=True)
class Mac:
    """An Ethernet address of six bytes."""

    side: Side
    mac: bytes


@dataclass(frozen=True, slots=True)
class Kind:
    """ARP, IPv4 or IPv6."""

    kind: Literal["arp", "ip", "ip6"]


@dataclass(frozen=True, slots=True)
class Proto:
    """The IP protocol, 0 to 255."""

    number: int


@dataclass(frozen=True, slots=True)
class Addresses:
    """The address is in one of the prefixes; with negate, in none of them."""

    side: Side
    negate: bool
    prefixes: Prefixes


@dataclass(frozen=True, slots=True)
class Ports:
    """The port is in one of the ranges (first and last); with negate, it is in none of them."""

    side: Side
    negate: bool
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Flags:
    """TCP flags: fin 1, syn 2, rst 4, psh 8, ack 16, urg 32, ece 64, cwr 128."""

    must_set: int
    must_clear: int


@dataclass(frozen=True, slots=True)
class IcmpType:
    """Pairs of (protocol 1 or 58, type), and the code; None is any code."""

    types: tuple[tuple[int, int], ...]
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Length:
    """Bytes of the frame without FCS, first and last."""

    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class Ttl:
    """TTL or hop limit, first and last."""

    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class Dscp:
    """The upper six bits of the traffic class."""

    value: int


@dataclass(frozen=True, slots=True)
class Frag:
    """`any` is `first` or `later`."""

    state: Literal["no", "first", "later", "any"]


@dataclass(frozen=True, slots=True)
class Established:
    """The packet belongs to a connection that the state table knows."""


Predicate: TypeAlias = (
    On
    | Vlan
    | EtherType
    | Mac
    | Kind
    | Proto
    | Addresses
    | Ports
    | Flags
    | IcmpType
    | Length
    | Ttl
    | Dscp
    | Frag
    | Established
)


@dataclass(frozen=True, slots=True)
class ResolvedRule:
    """One rule with its names looked up.

    Args:
        index: its place, from 0.
        text: the rule in canonical spacing.
        line: of the file, from 1.
        column: where the name begins, from 1.
    """

    index: int
    name: str
    action: Action
    predicates: tuple[Predicate, ...]
    log: LogOption | None = None
    sample: int | None = None
    text: str = ""
    line: int = 0
    column: int = 0
