"""The plain-Python judge of packets: docs/policy.md said again, slowly and without tricks.

It is the second, independent reading of the contract that the datapath is compared with, so it
shares no code with the package and reads policies by itself. It takes them as valid. It has no
clock, and forgets nothing: fragments are followed without bounds, a limit gives its burst and no
more, a block does not end. The match `established` is not judged here.

How a packet is read, and who decides; what a rule asks is in tests.reference_rules.
"""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from tests.reference_rules import Key, Rule, read_rules
from tests.reference_words import ARP, ICMP, ICMP6, Ranges, address_ranges, expanded, read_set

__all__ = ["Judgement", "Key", "Malformed", "Reference", "parse"]

IPV4, IPV6 = 0x0800, 0x86DD
SLOW, LLDP, EAPOL = 0x8809, 0x88CC, 0x888E
VLAN_TYPES = frozenset({0x8100, 0x88A8, 0x9100})
VLAN_TAGS_MOST = 2

TCP, UDP, AH, SCTP = 6, 17, 51, 132
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, MOBILITY, HIP, SHIM6 = 0, 43, 44, 60, 135, 139, 140
EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, MOBILITY, HIP, SHIM6, AH})
EXTENSIONS_MOST = 8
LEN_MOST = 65535

# --- How a packet is read -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Malformed:
    """A packet that breaks a rule of its own format: what was read before that, and which rule."""

    key: Key
    why: str


class _Fault(Exception):
    """The packet is malformed; str() is the reason."""


@dataclass(slots=True)
class _Reader:
    """A place in a packet that ends at `end`; nothing is read behind it."""

    data: bytes
    at: int
    end: int

    @property
    def left(self) -> int:
        return self.end - self.at

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes."""
        _must(size <= self.left, f"{what} is cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def shorten(self, left: int) -> None:
        """What is behind the next `left` bytes belongs to nothing."""
        self.end = self.at + left


_Facts = dict[str, Any]  # the fields of a Key so far


def parse(frame: bytes, port: str | None = None) -> Key | Malformed:
    """The key of a frame that came in on `port`."""
    facts: _Facts = {"len": min(len(frame), LEN_MOST), "port": port}
    try:
        _read_ethernet(_Reader(frame, 0, len(frame)), facts)
    except _Fault as fault:
        return Malformed(Key(**facts), str(fault))
    return Key(**facts)


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Fault(otherwise)


def _read_ethernet(reader: _Reader, facts: _Facts) -> None:
    ether_to, ether_from, kind = struct.unpack("!6s6sH", reader.take(14, "Ethernet header"))
    facts.update(ether_to=ether_to, ether_from=ether_from)
    for _ in range(VLAN_TAGS_MOST):
        if kind in VLAN_TYPES:
            tag, kind = struct.unpack("!HH", reader.take(4, "VLAN tag"))
            facts.setdefault("vlan", tag & 0x0FFF)
    _must(kind not in VLAN_TYPES, "more than two VLAN tags")
    facts["ethertype"] = kind
    if kind == IPV4:
        _read_ipv4(reader, facts)
    elif kind == IPV6:
        _read_ipv6(reader, facts)


def _read_ipv4(reader: _Reader, facts: _Facts) -> None:
    there = reader.left
    first, tos, total, ident, place, ttl, proto, _, src, dst = struct.unpack(
        "!BBHHHBBH4s4s", reader.take(20, "IPv4 header")
    )
    version, header = first >> 4, (first & 15) * 4
    _must(version == 4, "version is not 4")
    _must(header >= 20, "IHL is below 5")
    _must(header <= total <= there, "total length is below the header or above what is there")
    reader.shorten(total - 20)
    reader.take(header - 20, "IPv4 options")
    _tell_ip(facts, 4, src, dst, ttl, tos)
    facts["datagram"] = (src, dst, ident, proto)
    frag = _fragment_state(offset=place & 0x1FFF, more=bool(place & 0x2000))
    _read_transport(reader, facts, proto, frag)


def _read_ipv6(reader: _Reader, facts: _Facts) -> None:
    word, length, following, hops, src, dst = struct.unpack(
        "!IHBB16s16s", reader.take(40, "IPv6 header")
    )
    _must(word >> 28 == 6, "version is not 6")
    _must(length <= reader.left, "payload length is above what is there")
    _must(length > 0 or following != HOP_BY_HOP, "jumbogram")
    reader.shorten(length)
    _tell_ip(facts, 6, src, dst, hops, word >> 20 & 0xFF)
    proto, frag, fragmented = _walk_extensions(reader, following)
    facts["datagram"] = (src, dst, *fragmented)
    _read_transport(reader, facts, proto, frag)


def _tell_ip(facts: _Facts, family: int, src: bytes, dst: bytes, ttl: int, tos: int) -> None:
    address = IPv4Address if family == 4 else IPv6Address
    source, destination = address(src), address(dst)
    facts.update(family=family, src=str(source), dst=str(destination), ttl=ttl, dscp=tos >> 2)
    facts.update(source=int(source), destination=int(destination))


def _fragment_state(offset: int, more: bool) -> str:
    if offset:
        return "later"
    return "first" if more else "no"


def _walk_extensions(reader: _Reader, kind: int) -> tuple[int, str, tuple[int, int]]:
    """The first header that is no extension, the fragment state, and id and next header of the
    fragment header that makes it a fragment; a later fragment ends it."""
    frag, count, fragmented = "no", 0, (0, 0)
    while kind in EXTENSIONS:
        _must(count < EXTENSIONS_MOST, "more than eight extension headers")
        _must(kind != HOP_BY_HOP or count == 0, "hop-by-hop header is not the first")
        if kind == FRAGMENT:
            kind, _, place, ident = struct.unpack("!BBHI", reader.take(8, "fragment header"))
            state = _fragment_state(offset=place >> 3, more=bool(place & 1))
            if state == "later":
                return kind, state, (ident, kind)
            # Atomic behind a first fragment's header: still a first fragment.
            if state == "first":
                frag, fragmented = state, (ident, kind)
        else:
            following, length = reader.take(2, "extension header")
            size = (length + 2) * 4 if kind == AH else (length + 1) * 8
            reader.take(size - 2, "extension header")
            kind = following
        count += 1
    return kind, frag, fragmented


def _read_transport(reader: _Reader, facts: _Facts, proto: int, frag: str) -> None:
    facts.update(proto=proto, frag=frag)
    read = _TRANSPORTS.get(proto)
    if read and frag != "later":
        read(reader, facts)


def _read_tcp(reader: _Reader, facts: _Facts) -> None:
    there = reader.left
    header = reader.take(20, "TCP header")
    size = (header[12] >> 4) * 4
    _must(20 <= size <= there, "data offset is below 5 or above what is there")
    _tell_ports(facts, header)
    facts["tcp_flags"] = header[13]


def _read_udp(reader: _Reader, facts: _Facts) -> None:
    there = reader.left
    header = reader.take(8, "UDP header")
    length = int.from_bytes(header[4:6], "big")
    _must(length >= 8, "UDP length is below 8")
    _must(length <= there or facts["frag"] == "first", "UDP length is above what is there")
    _tell_ports(facts, header)


def _read_sctp(reader: _Reader, facts: _Facts) -> None:
    _tell_ports(facts, reader.take(12, "SCTP header"))


def _read_icmp(reader: _Reader, facts: _Facts) -> None:
    facts["icmp_type"], facts["icmp_code"] = reader.take(8, "ICMP header")[:2]


def _read_icmp6(reader: _Reader, facts: _Facts) -> None:
    facts["icmp_type"], facts["icmp_code"] = reader.take(4, "ICMPv6 header")[:2]


def _tell_ports(facts: _Facts, header: bytes) -> None:
    facts["sport"], facts["dport"] = struct.unpack_from("!HH", header)


_TRANSPORTS: dict[int, Callable[[_Reader, _Facts], None]] = {
    TCP: _read_tcp,
    UDP: _read_udp,
    SCTP: _read_sctp,
    ICMP: _read_icmp,
    ICMP6: _read_icmp6,
}

# --- Who decides ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a packet gets and why, in the words of `xdpgw explain`."""

    verdict: str
    reason: str
    rule: str | None
    target: str | None
    key: Key


@dataclass(frozen=True, slots=True)
class Reference:
    """A policy that judges frames one by one, in the order in which they come."""

    default: str
    malformed: str
    fragments: str
    guard: bool
    rules: tuple[Rule, ...]
    ssh: tuple[str, int, str, int] | None
    blocks: dict[int, Ranges]  # by family, as the next
    allow: dict[int, Ranges]
    buckets: dict[tuple[object, ...], int] = field(default_factory=dict)  # packets left
    firsts: dict[tuple[object, ...], Judgement] = field(default_factory=dict)

    @classmethod
    def from_text(
        cls,
        toml_text: str,
        base: Path = Path("."),
        ssh: tuple[str, int, str, int] | None = None,
        blocks: Iterable[str] = (),
    ) -> Reference:
        """The judge of a policy.

        Args:
            base: the folder of its files.
            ssh: the session to guard: client, port, server, port.
            blocks: addresses and prefixes that are blocked.
        """
        document = tomllib.loads(toml_text)
        policy = document.get("policy", {})
        sets = {
            name: list(read_set(members, base))
            for name, members in document.get("sets", {}).items()
        }
        return cls(
            default=policy.get("default", "pass"),
            malformed=policy.get("malformed", "drop"),
            fragments=policy.get("fragments", "rules"),
            guard=policy.get("guard", True),
            rules=tuple(read_rules(policy.get("rules", ""), sets)),
            ssh=ssh and (str(ip_address(ssh[0])), ssh[1], str(ip_address(ssh[2])), ssh[3]),
            blocks=address_ranges(blocks),
            allow=address_ranges(expanded(policy.get("allow", ()), sets)),
        )

    def judge(self, frame: bytes, port: str | None = None) -> Judgement:
        """What the frame gets when it comes in on `port`."""
        key = parse(frame, port)
        if isinstance(key, Malformed):
            return Judgement(self.malformed, "malformed", None, None, key.key)
        if self._is_blocked(key):
            return Judgement("drop", "block", None, None, key)
        if self.fragments == "drop" and key.frag in ("first", "later"):
            return Judgement("drop", "fragment", None, None, key)
        if self.fragments != "follow" or key.frag == "no" or key.datagram is None:
            return self._judge_by_rules(key)
        if key.frag == "first":
            self.firsts[key.datagram] = self._judge_by_rules(key)
        first = self.firsts.get(key.datagram)
        if first is None:
            return Judgement("drop", "fragment", None, None, key)
        return replace(first, key=key)

    def _judge_by_rules(self, key: Key) -> Judgement:
        for rule in self.rules:
            if not rule.holds(key):
                continue
            if rule.limit is None:
                return Judgement(rule.verdict, "rule", rule.name, rule.target, key)
            bucket = rule.name, rule.limit.bucket(key)
            left = self.buckets.get(bucket, rule.limit.burst)
            if not left:
                return Judgement(rule.verdict, "limit", rule.name, None, key)
            self.buckets[bucket] = left - 1
        if self.guard and self.default == "drop" and self._is_guarded(key):
            return Judgement("pass", "guard", None, None, key)
        return Judgement(self.default, "default", None, None, key)

    def _is_blocked(self, key: Key) -> bool:
        if key.family is None or key.source is None:
            return False
        if key.source in self.allow[key.family] or self._is_session(key):
            return False
        return key.source in self.blocks[key.family]

    def _is_guarded(self, key: Key) -> bool:
        if key.ethertype in (ARP, SLOW, LLDP, EAPOL):
            return True
        if key.proto == ICMP6 and key.family == 6 and key.ttl == 255:
            return key.icmp_type is not None and 133 <= key.icmp_type <= 137
        if key.proto == UDP:
            return (key.sport, key.dport) in ((67, 68), (547, 546))
        return self._is_session(key)

    def _is_session(self, key: Key) -> bool:
        session = (key.src, key.sport, key.dst, key.dport)
        return key.proto == TCP and session == self.ssh
