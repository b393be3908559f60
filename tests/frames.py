"""Builders of frames, from the inside out: eth(vlan(10), ipv4(udp(b"x", dport=53))).

A layer 4 builder makes a Segment, whose checksum waits for the addresses; ipv4() and ipv6() fill it
in. Every builder makes a right header, and every field that a row wants wrong can be forced.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = [
    "A4",
    "A6",
    "ACK",
    "AH",
    "ARP",
    "B4",
    "B6",
    "CWR",
    "DSTOPTS",
    "DST_MAC",
    "EAPOL",
    "ECE",
    "ESP",
    "ETHERTYPE_ARP",
    "ETHERTYPE_IP4",
    "ETHERTYPE_IP6",
    "FIN",
    "FRAGMENT",
    "GRE",
    "HIP",
    "HOPOPTS",
    "ICMP",
    "ICMP6",
    "LLDP",
    "MOBILITY",
    "NO_NEXT",
    "PSH",
    "ROUTING",
    "RST",
    "SCTP",
    "SHIM6",
    "SLOW",
    "SRC_MAC",
    "SYN",
    "TCP",
    "TEST_TYPE",
    "UDP",
    "URG",
    "Extension",
    "Layer",
    "Segment",
    "Tag",
    "ah",
    "arp",
    "crc32c",
    "eth",
    "extension",
    "fragment",
    "icmp",
    "icmp6",
    "internet_checksum",
    "ipv4",
    "ipv6",
    "raw",
    "sctp",
    "tcp",
    "udp",
    "vlan",
]

DST_MAC: Final = "02:00:00:00:00:02"
SRC_MAC: Final = "02:00:00:00:00:01"
A4: Final = "10.1.0.1"
B4: Final = "10.2.0.2"
A6: Final = "2001:db8:a::1"
B6: Final = "2001:db8:b::2"

# IEEE 802 numbers (IANA); 0x88b5 is for local experiments.
ETHERTYPE_IP4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_IP6: Final = 0x86DD
ARP: Final = ETHERTYPE_ARP
SLOW: Final = 0x8809
EAPOL: Final = 0x888E
TEST_TYPE: Final = 0x88B5
LLDP: Final = 0x88CC

# Protocol numbers (IANA), one space for protocols and IPv6 extension headers.
HOPOPTS: Final = 0
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ROUTING: Final = 43
FRAGMENT: Final = 44
GRE: Final = 47
ESP: Final = 50
AH: Final = 51
ICMP6: Final = 58
NO_NEXT: Final = 59
DSTOPTS: Final = 60
SCTP: Final = 132
MOBILITY: Final = 135
HIP: Final = 139
SHIM6: Final = 140

# Bits of byte 13 of the TCP header (RFC 9293, section 3.1).
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80


@dataclass(frozen=True, slots=True)
class Segment:
    """What an IP header carries: protocol, bytes, and where a checksum with pseudo header goes."""

    protocol: int
    data: bytes
    checksum_at: int | None = None

    def finished(self, src: bytes, dst: bytes) -> bytes:
        """The bytes with the checksum for these packed addresses (RFC 768, 9293, 8200)."""
        at = self.checksum_at
        if at is None or len(self.data) < at + 2:
            return self.data
        if len(src) == 4:
            pseudo = src + dst + struct.pack("!BBH", 0, self.protocol, len(self.data) & 0xFFFF)
        else:
            pseudo = src + dst + struct.pack("!II", len(self.data), self.protocol)
        total = internet_checksum(pseudo + self.data)
        if self.protocol == UDP and total == 0:
            total = 0xFFFF
        return self.data[:at] + struct.pack("!H", total) + self.data[at + 2 :]


@dataclass(frozen=True, slots=True)
class Extension:
    """An IPv6 extension header: its number and all its bytes but the first, the next header."""

    number: int
    rest: bytes


@dataclass(frozen=True, slots=True)
class Tag:
    """A VLAN tag: its type and its tag control information."""

    ethertype: int
    control: int


@dataclass(frozen=True, slots=True)
class Layer:
    """What stands behind the Ethernet header and tags: its ethertype and its bytes."""

    ethertype: int
    data: bytes


def internet_checksum(data: bytes) -> int:
    """The 16-bit ones' complement checksum of data, 0..65535 (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def crc32c(data: bytes) -> int:
    """The CRC32c of data, 0..2**32-1 (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def eth(
    *parts: Tag | Layer,
    dst: str = DST_MAC,
    src: str = SRC_MAC,
    ethertype: int | None = None,
    pad: int = 0,
    fill: bytes = b"\0",
) -> bytes:
    """A frame of tags and at most one layer, filled up to pad bytes with fill.

    ethertype forces the innermost type; without it and without a layer it is TEST_TYPE.
    """
    out = _mac(dst) + _mac(src)
    kind, data = TEST_TYPE, b""
    for part in parts:
        if isinstance(part, Tag):
            out += struct.pack("!HH", part.ethertype, part.control)
        else:
            kind, data = part.ethertype, part.data
    out += struct.pack("!H", kind if ethertype is None else ethertype) + data
    return out + fill * max(0, pad - len(out))


def vlan(vid: int, *, ethertype: int = 0x8100, pcp: int = 0, dei: int = 0) -> Tag:
    """A VLAN tag: id 0..4095, priority 0..7, drop eligible 0..1 (IEEE 802.1Q)."""
    return Tag(ethertype, pcp << 13 | dei << 12 | vid)


def raw(ethertype: int, data: bytes = b"") -> Layer:
    """A layer of any ethertype."""
    return Layer(ethertype, data)


def arp(*, src: str = A4, dst: str = B4) -> Layer:
    """An ARP request who-has dst tell src (RFC 826)."""
    head = struct.pack("!HHBBH", 1, ETHERTYPE_IP4, 6, 4, 1)
    sender = _mac(SRC_MAC) + IPv4Address(src).packed
    return Layer(ETHERTYPE_ARP, head + sender + bytes(6) + IPv4Address(dst).packed)


def ipv4(
    segment: Segment,
    *,
    src: str = A4,
    dst: str = B4,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0x1234,
    reserved: bool = False,
    df: bool = False,
    mf: bool = False,
    offset: int = 0,
    options: bytes = b"",
    part: slice | None = None,
    version: int = 4,
    ihl: int | None = None,
    total_length: int | None = None,
    checksum: int | None = None,
    cut: int | None = None,
) -> Layer:
    """An IPv4 packet (RFC 791).

    offset is in units of 8 bytes. part is what of the finished segment this fragment carries, so
    its checksum is that of the whole. cut keeps only that many bytes of the packet, with a total
    length that stays what it was.
    """
    packed_src, packed_dst = IPv4Address(src).packed, IPv4Address(dst).packed
    body = segment.finished(packed_src, packed_dst)
    if part is not None:
        body = body[part]
    words = 5 + len(options) // 4 if ihl is None else ihl
    total = 20 + len(options) + len(body) if total_length is None else total_length
    bits = reserved << 15 | df << 14 | mf << 13 | offset
    fixed = (version << 4 | words, tos, total, ident, bits, ttl, segment.protocol)

    def header(value: int) -> bytes:
        start = struct.pack("!BBHHHBBH", *fixed, value)
        return start + packed_src + packed_dst + options

    right = internet_checksum(header(0))
    packet = header(right if checksum is None else checksum) + body
    return Layer(ETHERTYPE_IP4, packet if cut is None else packet[:cut])


def extension(number: int, *, units: int = 0, claim: int | None = None) -> Extension:
    """An extension header of 8 * (units + 1) bytes; claim forces its length field.

    A routing header has no segments left; the others are one PadN option, so that any of them
    can be walked over by whoever only reads lengths (RFC 8200, section 4).
    """
    length = units if claim is None else claim
    size = 8 * (units + 1) - 2
    if number == ROUTING:
        body = bytes([253, 0]) + bytes(size - 2)
    else:
        body = bytes([1, size - 2]) + bytes(size - 2)
    return Extension(number, bytes([length]) + body)


def ah(*, icv: int = 12, claim: int | None = None) -> Extension:
    """An authentication header of 12 + icv bytes; its length is in words less 2 (RFC 4302)."""
    length = (12 + icv) // 4 - 2 if claim is None else claim
    return Extension(AH, struct.pack("!BHII", length, 0, 0x100, 1) + bytes(icv))


def fragment(
    *, offset: int = 0, more: bool = False, ident: int = 0x1234, reserved: int = 0
) -> Extension:
    """A fragment header: offset in units of 8 bytes, reserved the two bits beside more."""
    bits = offset << 3 | reserved << 1 | more
    return Extension(FRAGMENT, struct.pack("!BHI", 0, bits, ident))


def ipv6(
    segment: Segment,
    *headers: Extension,
    src: str = A6,
    dst: str = B6,
    hop_limit: int = 64,
    traffic_class: int = 0,
    flow: int = 0,
    part: slice | None = None,
    version: int = 6,
    next_header: int | None = None,
    payload_length: int | None = None,
    cut: int | None = None,
) -> Layer:
    """An IPv6 packet with these extension headers in this order (RFC 8200).

    part is what of the finished segment a fragment carries. cut keeps only that many bytes of the
    packet, with a payload length that stays what it was.
    """
    packed_src, packed_dst = IPv6Address(src).packed, IPv6Address(dst).packed
    body = segment.finished(packed_src, packed_dst)
    if part is not None:
        body = body[part]
    following: Sequence[int] = [*(header.number for header in headers[1:]), segment.protocol]
    chain = b"".join(
        bytes([after]) + header.rest for header, after in zip(headers, following, strict=False)
    )
    first = headers[0].number if headers else segment.protocol
    start = struct.pack(
        "!IHBB",
        version << 28 | traffic_class << 20 | flow,
        len(chain) + len(body) if payload_length is None else payload_length,
        first if next_header is None else next_header,
        hop_limit,
    )
    packet = start + packed_src + packed_dst + chain + body
    return Layer(ETHERTYPE_IP6, packet if cut is None else packet[:cut])


def tcp(
    data: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 80,
    flags: int = SYN,
    options: bytes = b"",
    data_offset: int | None = None,
    reserved: int = 0,
) -> Segment:
    """A TCP segment; reserved are the 4 bits beside the data offset (RFC 9293)."""
    words = 5 + len(options) // 4 if data_offset is None else data_offset
    head = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, words << 4 | reserved, flags, 0xFFFF, 0, 0)
    return Segment(TCP, head + options + data, 16)


def udp(
    data: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 53,
    length: int | None = None,
) -> Segment:
    """A UDP datagram; length forces its length field (RFC 768)."""
    claim = 8 + len(data) if length is None else length
    return Segment(UDP, struct.pack("!HHHH", sport, dport, claim, 0) + data, 6)


def sctp(data: bytes = b"", *, sport: int = 40000, dport: int = 5060) -> Segment:
    """An SCTP packet: the common header and data as its chunks (RFC 9260)."""
    head = struct.pack("!HHI", sport, dport, 0x11223344)
    check = struct.pack("<I", crc32c(head + bytes(4) + data))
    return Segment(SCTP, head + check + data)


def icmp(kind: int = 8, code: int = 0, data: bytes = b"", *, rest: int = 0x00010001) -> Segment:
    """An ICMP message; rest is the second word of its header (RFC 792)."""
    tail = struct.pack("!I", rest) + data
    check = internet_checksum(struct.pack("!BBH", kind, code, 0) + tail)
    return Segment(ICMP, struct.pack("!BBH", kind, code, check) + tail)


def icmp6(kind: int = 128, code: int = 0, data: bytes = b"\0\1\0\1") -> Segment:
    """An ICMPv6 message; data is all behind the four bytes of its header (RFC 4443)."""
    return Segment(ICMP6, struct.pack("!BBH", kind, code, 0) + data, 2)
