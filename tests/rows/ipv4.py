"""Rows about IPv4: header, options, protocols, TTL, DSCP."""

from __future__ import annotations

from tests.frames import (
    AH,
    ESP,
    ETHERTYPE_IP4,
    GRE,
    ICMP,
    ICMP6,
    NO_NEXT,
    SCTP,
    TCP,
    UDP,
    Segment,
    arp,
    eth,
    icmp,
    icmp6,
    ipv4,
    ipv6,
    raw,
    sctp,
    tcp,
    udp,
    vlan,
)
from tests.rows.base import Row, four, not_ip, row

__all__ = ["ROWS"]

_HTTP = four(TCP, 40000, 80, 0x02)
_DNS = four(UDP, 40000, 53)
_LONG = bytes(range(64))
_GRE = Segment(GRE, b"\x00\x00\x08\x00" + ipv4(tcp()).data)
_AH = Segment(AH, b"\x06\x04" + bytes(22) + tcp().data)

_HEADER = [
    *(
        row(
            f"ipv4 with version {version} is malformed",
            "parse",
            eth(ipv4(tcp(), version=version)),
            "drop malformed",
        )
        for version in (0, 5, 6, 15)
    ),
    *(
        row(
            f"ipv4 with ihl {ihl} is malformed",
            "parse",
            eth(ipv4(Segment(253, bytes(20)), ihl=ihl)),
            "drop malformed",
        )
        for ihl in range(5)
    ),
    row("ipv4 with ihl 5 is read", "parse", eth(ipv4(tcp(b"xyz"), ihl=5)), "pass rule web", _HTTP),
    row(
        "an ipv6 packet behind type ipv4 is malformed",
        "parse",
        eth(raw(ETHERTYPE_IP4, ipv6(tcp()).data)),
        "drop malformed",
    ),
    row(
        "an ipv4 header of 1 byte is malformed", "parse", eth(ipv4(tcp(), cut=1)), "drop malformed"
    ),
    row(
        "an ipv4 header of 19 bytes is malformed",
        "parse",
        eth(ipv4(tcp(), cut=19)),
        "drop malformed",
    ),
    row(
        "an ipv4 header of 19 bytes that claims no more is malformed",
        "parse",
        eth(ipv4(tcp(), cut=19, total_length=19)),
        "drop malformed",
    ),
    row(
        "ipv4 with ihl 15 beyond the packet is malformed",
        "parse",
        eth(ipv4(udp(), ihl=15)),
        "drop malformed",
    ),
    row(
        "ipv4 with ihl 15 and total length 60 beyond the packet is malformed",
        "parse",
        eth(ipv4(udp(), ihl=15, total_length=60)),
        "drop malformed",
    ),
    row(
        "ipv4 options cut by one byte are malformed",
        "parse",
        eth(ipv4(udp(), options=bytes(40), cut=59)),
        "drop malformed",
    ),
    row(
        "ipv4 with total length 0 is malformed",
        "parse",
        eth(ipv4(tcp(), total_length=0)),
        "drop malformed",
    ),
    row(
        "ipv4 with total length 19 is malformed",
        "parse",
        eth(ipv4(tcp(), total_length=19)),
        "drop malformed",
    ),
    row(
        "ipv4 with a total length in its options is malformed",
        "parse",
        eth(ipv4(Segment(253, bytes(8)), options=b"\1\1\1\0", total_length=23)),
        "drop malformed",
    ),
    row(
        "ipv4 with a total length of its header is read",
        "parse",
        eth(ipv4(Segment(253, bytes(8)), total_length=20)),
        "tx rule all4",
        four(253),
    ),
    row(
        "ipv4 with a total length of its header and options is read",
        "parse",
        eth(ipv4(Segment(253, bytes(8)), options=b"\1\1\1\0", total_length=24)),
        "tx rule all4",
        four(253),
    ),
    row(
        "ipv4 tcp with a total length of its header is malformed",
        "parse",
        eth(ipv4(tcp(), total_length=20)),
        "drop malformed",
    ),
    row(
        "ipv4 with total length one above is malformed",
        "parse",
        eth(ipv4(tcp(), total_length=41)),
        "drop malformed",
    ),
    row(
        "ipv4 with total length 65535 is malformed",
        "parse",
        eth(ipv4(tcp(), total_length=65535)),
        "drop malformed",
    ),
    row(
        "ipv4 with a total length exactly there is read",
        "parse",
        eth(ipv4(tcp(b"xy"), total_length=42)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ipv4 with a total length one below what is there is read",
        "parse",
        eth(ipv4(tcp(b"xy"), total_length=41)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ipv4 with a total length one above behind a tag is malformed",
        "parse",
        eth(vlan(10), ipv4(tcp(), total_length=41)),
        "drop malformed",
        {"vlan": 10},
    ),
    row(
        "ipv4 with 4 bytes of options has its ports behind them",
        "parse",
        eth(ipv4(tcp(), options=b"\x94\x04\x00\x00")),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ipv4 with 40 bytes of options has its ports behind them",
        "parse",
        eth(ipv4(udp(b"x"), options=b"\x01" * 39 + b"\x00")),
        "pass rule dns",
        _DNS,
    ),
    row(
        "ipv4 options are not ports",
        "parse",
        eth(ipv4(udp(b"x", dport=54), options=bytes((0x9C, 0x40, 0, 53)) * 2)),
        "tx rule all4",
        four(UDP, 40000, 54),
    ),
    row(
        "ipv4 with a wrong checksum is read",
        "parse",
        eth(ipv4(tcp(), checksum=0xBAD)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ipv4 with don't fragment is no fragment",
        "parse",
        eth(ipv4(tcp(), df=True)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ipv4 with the reserved bit is no fragment",
        "parse",
        eth(ipv4(tcp(), reserved=True)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ipv4 in ipv4 is judged by the outer header",
        "parse",
        eth(ipv4(Segment(4, ipv4(tcp(), src="10.9.9.9").data))),
        "tx rule all4",
        four(4),
    ),
    row(
        "ipv6 in ipv4 is judged by the outer header",
        "parse",
        eth(ipv4(Segment(41, ipv6(tcp()).data))),
        "tx rule all4",
        four(41),
    ),
    row(
        "udp-lite has no ports",
        "parse",
        eth(ipv4(Segment(136, udp(b"x").data))),
        "tx rule all4",
        four(136),
    ),
]

_PROTOCOLS = [
    row("tcp meets tcp over ipv4", "protocols", eth(ipv4(tcp())), "pass rule a_tcp", _HTTP),
    row("udp meets udp over ipv4", "protocols", eth(ipv4(udp())), "pass rule a_udp", _DNS),
    row(
        "icmp meets icmp over ipv4", "protocols", eth(ipv4(icmp())), "pass rule a_icmp", four(ICMP)
    ),
    row(
        "icmp6 meets protocol 58 over ipv4",
        "protocols",
        eth(ipv4(icmp6())),
        "pass rule a_icmp6",
        four(ICMP6),
    ),
    row(
        "sctp meets sctp over ipv4",
        "protocols",
        eth(ipv4(sctp())),
        "pass rule a_sctp",
        four(SCTP, 40000, 5060),
    ),
    row("gre meets gre over ipv4", "protocols", eth(ipv4(_GRE)), "pass rule a_gre", four(GRE)),
    row(
        "gre without a payload is read",
        "protocols",
        eth(ipv4(Segment(GRE, b""))),
        "pass rule a_gre",
        four(GRE),
    ),
    row(
        "esp meets esp over ipv4",
        "protocols",
        eth(ipv4(Segment(ESP, bytes(32)))),
        "pass rule a_esp",
        four(ESP),
    ),
    row(
        "ah meets ah over ipv4, which is not stepped over",
        "protocols",
        eth(ipv4(_AH)),
        "pass rule a_ah",
        four(AH),
    ),
    row(
        "ah over ipv4 of 1 byte is read",
        "protocols",
        eth(ipv4(Segment(AH, b"\x06"))),
        "pass rule a_ah",
        four(AH),
    ),
    row(
        "proto 253 meets protocol 253 over ipv4",
        "protocols",
        eth(ipv4(Segment(253, b"x"))),
        "tx rule a_253",
        four(253),
    ),
    row(
        "proto 253 does not meet protocol 254",
        "protocols",
        eth(ipv4(Segment(254, b"x"))),
        "drop default",
        four(254),
    ),
    row(
        "proto 59 meets protocol 59 over ipv4",
        "protocols",
        eth(ipv4(Segment(NO_NEXT, b""))),
        "pass rule a_59",
        four(NO_NEXT),
    ),
    row(
        "proto 43 meets protocol 43 over ipv4, which is not stepped over",
        "protocols",
        eth(ipv4(Segment(43, b"\x06\x00" + bytes(6) + tcp().data))),
        "pass rule a_43",
        four(43),
    ),
    row(
        "proto 0 meets protocol 0 over ipv4",
        "protocols",
        eth(ipv4(Segment(0, bytes(8)))),
        "pass rule a_0",
        four(0),
    ),
    row(
        "protocol 44 over ipv4 is no fragment",
        "protocols",
        eth(ipv4(Segment(44, b"\x06\x00\x00\x01" + bytes(4) + tcp().data))),
        "drop default",
        four(44),
    ),
    row("arp meets no protocol", "protocols", eth(arp()), "drop default", not_ip()),
]

# All shorter than 100 bytes, where the rules about len of this policy begin.
_FIELDS = [
    row("ttl 1-5 does not meet ttl 0", "fields", eth(ipv4(tcp(), ttl=0)), "pass default", _HTTP),
    row("ttl 1-5 meets ttl 1", "fields", eth(ipv4(tcp(), ttl=1)), "drop rule t_low", _HTTP),
    row("ttl 1-5 meets ttl 5", "fields", eth(ipv4(tcp(), ttl=5)), "drop rule t_low", _HTTP),
    row("ttl 1-5 does not meet ttl 6", "fields", eth(ipv4(tcp(), ttl=6)), "pass default", _HTTP),
    row(
        "ttl 255 does not meet ttl 254", "fields", eth(ipv4(tcp(), ttl=254)), "pass default", _HTTP
    ),
    row("ttl 255 meets ttl 255", "fields", eth(ipv4(tcp(), ttl=255)), "tx rule t_max", _HTTP),
    row(
        "dscp 46 does not meet dscp 45",
        "fields",
        eth(ipv4(udp(), tos=45 << 2)),
        "pass default",
        _DNS,
    ),
    row("dscp 46 meets dscp 46", "fields", eth(ipv4(udp(), tos=46 << 2)), "drop rule d_ef", _DNS),
    row(
        "dscp 46 meets dscp 46 with both ecn bits",
        "fields",
        eth(ipv4(udp(), tos=46 << 2 | 3)),
        "drop rule d_ef",
        _DNS,
    ),
    row(
        "dscp 46 does not meet a tos byte of 46",
        "fields",
        eth(ipv4(udp(), tos=46)),
        "pass default",
        _DNS,
    ),
    row(
        "dscp 46 does not meet dscp 47",
        "fields",
        eth(ipv4(udp(), tos=47 << 2)),
        "pass default",
        _DNS,
    ),
    row(
        "dscp 63 meets a tos byte of 255",
        "fields",
        eth(ipv4(udp(), tos=255)),
        "tx rule d_top",
        _DNS,
    ),
    row(
        "ttl goes before dscp in the order written",
        "fields",
        eth(ipv4(udp(), ttl=3, tos=255)),
        "drop rule t_low",
        _DNS,
    ),
]

ROWS: tuple[Row, ...] = (*_HEADER, *_PROTOCOLS, *_FIELDS)
