"""Rows about Ethernet: types, addresses, lengths, padding, VLAN tags."""

from __future__ import annotations

from tests.frames import (
    ARP,
    EAPOL,
    ETHERTYPE_IP4,
    ETHERTYPE_IP6,
    ICMP,
    ICMP6,
    LLDP,
    SLOW,
    TCP,
    TEST_TYPE,
    UDP,
    arp,
    eth,
    icmp,
    icmp6,
    ipv4,
    ipv6,
    raw,
    tcp,
    udp,
    vlan,
)
from tests.rows.base import Row, four, not_ip, row, six

__all__ = ["ROWS"]

_OTHER = 0x88B6
_QINQ = 0x88A8
_OLD_QINQ = 0x9100
_BD, _BE = "02:00:00:00:00:bd", "02:00:00:00:00:be"
_C1, _C2 = "02:00:00:00:00:c1", "02:00:00:00:00:c2"
_SLOW_MAC = "01:80:c2:00:00:02"
_LLDP_MAC = "01:80:c2:00:00:0e"
_PLAIN = eth(raw(TEST_TYPE, bytes(46)))
_WEB = ipv4(tcp())
_DNS = ipv4(udp(b"x"))
_HTTP4 = four(TCP, 40000, 80, 0x02)
_DNS4 = four(UDP, 40000, 53)


def _sized(size: int, vid: int | None = None) -> bytes:
    tags = () if vid is None else (vlan(vid),)
    return eth(*tags, raw(_OTHER), pad=size, fill=b"\xa5")


_HEADER = [
    row("a frame of 1 byte is malformed", "ethernet", _PLAIN[:1], "drop malformed"),
    row("a frame of 6 bytes is malformed", "ethernet", _PLAIN[:6], "drop malformed"),
    row("a frame of 13 bytes is malformed", "ethernet", _PLAIN[:13], "drop malformed"),
    row("a frame of 14 bytes is whole", "ethernet", _PLAIN[:14], "tx rule e_test", not_ip()),
    row(
        "a frame of 14 bytes that claims ipv4 is malformed",
        "ethernet",
        eth(raw(ETHERTYPE_IP4)),
        "drop malformed",
    ),
    row(
        "a frame of 14 bytes that claims ipv6 is malformed",
        "ethernet",
        eth(raw(ETHERTYPE_IP6)),
        "drop malformed",
    ),
    row("ether type meets its type", "ethernet", _PLAIN, "tx rule e_test", not_ip()),
    row(
        "ether type does not meet the type one above",
        "ethernet",
        eth(raw(_OTHER, bytes(46))),
        "pass default",
        not_ip(),
    ),
    row(
        "an ipv4 packet behind an unknown type is not ip",
        "ethernet",
        eth(raw(_OTHER, _WEB.data)),
        "pass default",
        not_ip(),
    ),
    row(
        "mpls is not ip",
        "ethernet",
        eth(raw(0x8847, b"\x00\x01\x01\x40" + _WEB.data)),
        "pass default",
        not_ip(),
    ),
    row(
        "an 802.3 length field is a type that is not ip",
        "ethernet",
        eth(raw(38, b"\x42\x42\x03" + bytes(35)), dst="01:80:c2:00:00:00", pad=60),
        "pass default",
        not_ip(),
    ),
    row("arp meets arp", "ethernet", eth(arp(), pad=60), "drop rule e_arp", not_ip()),
    row("arp without its payload is arp", "ethernet", eth(raw(ARP)), "drop rule e_arp", not_ip()),
    row(
        "reverse arp does not meet arp",
        "ethernet",
        eth(raw(0x8035, arp().data), pad=60),
        "pass default",
        not_ip(),
    ),
    row(
        "lldp of 1000 bytes meets ether type and len",
        "ethernet",
        eth(raw(LLDP), dst=_LLDP_MAC, pad=1000),
        "drop rule e_lldp",
        not_ip(),
    ),
    row(
        "lldp of 999 bytes does not meet ether type and len",
        "ethernet",
        eth(raw(LLDP), dst=_LLDP_MAC, pad=999),
        "pass default",
        not_ip(),
    ),
    row(
        "a slow protocol meets ether type and to",
        "ethernet",
        eth(raw(SLOW, b"\x01\x01" + bytes(108)), dst=_SLOW_MAC),
        "tx rule e_slow",
        not_ip(),
    ),
    row(
        "a slow protocol to another address does not meet ether to",
        "ethernet",
        eth(raw(SLOW, b"\x01\x01" + bytes(108)), dst=_LLDP_MAC),
        "pass default",
        not_ip(),
    ),
    row(
        "guard is not the reason where the default is pass",
        "ethernet",
        eth(raw(EAPOL, b"\x01\x01\x00\x00"), pad=60),
        "pass default",
        not_ip(),
    ),
    row(
        "a dhcp answer gets reason default where the default is pass",
        "ethernet",
        eth(ipv4(udp(bytes(240), sport=67, dport=68))),
        "pass default",
        four(UDP, 67, 68),
    ),
    row("ether from meets the source", "ethernet", eth(_WEB, src=_BD), "drop rule e_from", _HTTP4),
    row(
        "ether from meets the source of a packet that is not ip",
        "ethernet",
        eth(raw(_OTHER), src=_BD, pad=60),
        "drop rule e_from",
        not_ip(),
    ),
    row(
        "ether from does not meet the destination",
        "ethernet",
        eth(_WEB, dst=_BD),
        "pass default",
        _HTTP4,
    ),
    row(
        "ether from does not meet a source one bit away",
        "ethernet",
        eth(_WEB, src="02:00:00:00:00:bc"),
        "pass default",
        _HTTP4,
    ),
    row(
        "ether from does not meet a source that differs in its first byte",
        "ethernet",
        eth(_WEB, src="06:00:00:00:00:bd"),
        "pass default",
        _HTTP4,
    ),
    row("ether to meets the destination", "ethernet", eth(_DNS, dst=_BE), "drop rule e_to", _DNS4),
    row(
        "ether to does not meet the source",
        "ethernet",
        eth(_DNS, src=_BE),
        "pass default",
        _DNS4,
    ),
    row(
        "ether from and ether to both hold",
        "ethernet",
        eth(_DNS, src=_C1, dst=_C2),
        "tx rule e_pair",
        _DNS4,
    ),
    row(
        "ether from holds and ether to does not",
        "ethernet",
        eth(_DNS, src=_C1, dst=_C1),
        "pass default",
        _DNS4,
    ),
    row(
        "ether type 0x86dd meets an ipv6 packet",
        "ethernet",
        eth(ipv6(udp(), dst="2001:db8::eeee")),
        "tx rule e_six",
        six(UDP, 40000, 53, dst="2001:db8::eeee"),
    ),
    row(
        "ether type looks behind a tag",
        "ethernet",
        eth(vlan(7), raw(TEST_TYPE, bytes(46))),
        "tx rule e_test",
        not_ip(vlan=7),
    ),
    row(
        "ether type looks behind two tags",
        "ethernet",
        eth(vlan(7, ethertype=_QINQ), vlan(8), raw(TEST_TYPE, bytes(46))),
        "tx rule e_test",
        not_ip(vlan=7),
    ),
    row("arp looks behind a tag", "ethernet", eth(vlan(7), arp()), "drop rule e_arp", not_ip(7)),
]

_LENGTH = [
    row("len 100-200 does not meet 99 bytes", "fields", _sized(99), "pass default", not_ip()),
    row("len 100-200 meets 100 bytes", "fields", _sized(100), "tx rule l_low", not_ip()),
    row("len 100-200 meets 200 bytes", "fields", _sized(200), "tx rule l_low", not_ip()),
    row("len 100-200 does not meet 201 bytes", "fields", _sized(201), "pass default", not_ip()),
    row(
        "len counts the tag",
        "fields",
        _sized(100, vid=5),
        "tx rule l_low",
        not_ip(vlan=5),
    ),
    row("len 1500-1518 does not meet 1499", "fields", _sized(1499), "pass default", not_ip()),
    row("len 1500-1518 meets 1500 bytes", "fields", _sized(1500), "drop rule l_edge", not_ip()),
    row("len 1500-1518 meets 1514 bytes", "fields", _sized(1514), "drop rule l_edge", not_ip()),
    row(
        "len 1500-1518 meets 1518 bytes with a tag",
        "fields",
        _sized(1518, vid=5),
        "drop rule l_edge",
        not_ip(vlan=5),
    ),
    row("len 1500-1518 does not meet 1519", "fields", _sized(1519), "pass default", not_ip()),
    row("len 9000-9014 does not meet 8999", "fields", _sized(8999), "pass default", not_ip()),
    row("len 9000-9014 meets 9014 bytes", "fields", _sized(9014), "tx rule l_jumbo", not_ip()),
    row("len 9000-9014 does not meet 9015", "fields", _sized(9015), "pass default", not_ip()),
    row(
        "ip len 300 meets an ipv4 packet of 300 bytes",
        "fields",
        eth(ipv4(udp(bytes(258)))),
        "drop rule l_ip",
        _DNS4,
    ),
    row(
        "ip len 300 does not meet 299 bytes",
        "fields",
        eth(ipv4(udp(bytes(257)))),
        "pass default",
        _DNS4,
    ),
    row(
        "ip len 300 does not meet an ipv6 packet of 300 bytes",
        "fields",
        eth(ipv6(udp(bytes(238)))),
        "pass default",
        six(UDP, 40000, 53),
    ),
    row(
        "ip len 300 does not meet arp of 300 bytes",
        "fields",
        eth(arp(), pad=300),
        "pass default",
        not_ip(),
    ),
    row("len counts the padding", "fields", eth(_DNS, pad=100), "tx rule l_low", _DNS4),
]

_PADDING = [
    row(
        "padding behind an ipv4 packet is nothing",
        "parse",
        eth(_DNS, pad=60),
        "pass rule dns",
        _DNS4,
    ),
    row(
        "padding of 1 bits behind an ipv4 packet is nothing",
        "parse",
        eth(_DNS, pad=60, fill=b"\xff"),
        "pass rule dns",
        _DNS4,
    ),
    row(
        "padding behind an ipv6 packet is nothing",
        "parse",
        eth(ipv6(udp(b"x")), pad=80, fill=b"\xff"),
        "pass rule dns",
        six(UDP, 40000, 53),
    ),
    row(
        "padding does not make a udp header of 4 bytes whole",
        "parse",
        eth(ipv4(udp(), part=slice(0, 4)), pad=60),
        "drop malformed",
    ),
    row(
        "padding does not make a udp length right",
        "parse",
        eth(ipv4(udp(b"x", length=10)), pad=60),
        "drop malformed",
    ),
    row(
        "padding does not make a tcp header of 12 bytes whole",
        "parse",
        eth(ipv4(tcp(), part=slice(0, 12)), pad=60, fill=b"\x50"),
        "drop malformed",
    ),
    row(
        "padding does not make a tcp data offset of 6 right",
        "parse",
        eth(ipv4(tcp(data_offset=6)), pad=60),
        "drop malformed",
    ),
    row(
        "padding does not make an icmp header of 7 bytes whole",
        "parse",
        eth(ipv4(icmp(), part=slice(0, 7)), pad=60),
        "drop malformed",
    ),
    row(
        "padding does not make ipv4 options whole",
        "parse",
        eth(ipv4(udp(), ihl=9), pad=80),
        "drop malformed",
    ),
    row(
        "bytes behind the ipv6 payload do not make a udp header whole",
        "parse",
        eth(ipv6(udp(b"xyz"), payload_length=7)),
        "drop malformed",
    ),
    row(
        "bytes behind the ipv6 payload do not make an icmp6 header whole",
        "parse",
        eth(ipv6(icmp6(), payload_length=3)),
        "drop malformed",
    ),
    row(
        "bytes behind the ipv4 total length do not make an icmp echo longer",
        "parse",
        eth(ipv4(icmp()), pad=60, fill=b"\xee"),
        "pass rule ping",
        four(ICMP),
    ),
]

_TAG = eth(vlan(10), raw(TEST_TYPE, bytes(46)))
_TAGS = [
    row(
        "vlan 10 arp meets arp with id 10",
        "vlan",
        eth(vlan(10), arp()),
        "drop rule v_arp",
        not_ip(10),
    ),
    row(
        "vlan 10 arp does not meet arp without a tag", "vlan", eth(arp()), "pass default", not_ip()
    ),
    row(
        "vlan 10 arp does not meet arp with id 11",
        "vlan",
        eth(vlan(11), arp()),
        "pass default",
        not_ip(11),
    ),
    row(
        "vlan any ether type meets the type with a tag",
        "vlan",
        eth(vlan(20), raw(TEST_TYPE), pad=64),
        "tx rule v_test",
        not_ip(20),
    ),
    row(
        "vlan any ether type does not meet the type without a tag",
        "vlan",
        _PLAIN,
        "pass default",
        not_ip(),
    ),
    row(
        "vlan 10 meets a tag 0x8100 with id 10",
        "vlan",
        eth(vlan(10), _WEB),
        "drop rule v_ten",
        {**_HTTP4, "vlan": 10},
    ),
    row(
        "vlan 10 meets a tag 0x88a8 with id 10",
        "vlan",
        eth(vlan(10, ethertype=_QINQ), _WEB),
        "drop rule v_ten",
        {**_HTTP4, "vlan": 10},
    ),
    row(
        "vlan 10 meets a tag 0x9100 with id 10",
        "vlan",
        eth(vlan(10, ethertype=_OLD_QINQ), _WEB),
        "drop rule v_ten",
        {**_HTTP4, "vlan": 10},
    ),
    row(
        "0x9200 is not a tag",
        "vlan",
        eth(raw(0x9200, b"\x00\x0a\x08\x00" + _WEB.data)),
        "pass default",
        not_ip(),
    ),
    row(
        "vlan 10 meets id 10 with priority 7 and drop eligible",
        "vlan",
        eth(vlan(10, pcp=7, dei=1), _WEB),
        "drop rule v_ten",
        {**_HTTP4, "vlan": 10},
    ),
    row(
        "vlan 10 does not meet id 11",
        "vlan",
        eth(vlan(11), _WEB),
        "pass default",
        {**_HTTP4, "vlan": 11},
    ),
    row(
        "vlan 10 does not meet id 266, which ends in the same byte",
        "vlan",
        eth(vlan(266), _WEB),
        "pass default",
        {**_HTTP4, "vlan": 266},
    ),
    row(
        "vlan 10 meets the outer of two ids",
        "vlan",
        eth(vlan(10, ethertype=_QINQ), vlan(20), _WEB),
        "drop rule v_ten",
        {**_HTTP4, "vlan": 10},
    ),
    row(
        "vlan 10 does not meet the inner of two ids",
        "vlan",
        eth(vlan(20, ethertype=_QINQ), vlan(10), _WEB),
        "pass default",
        {**_HTTP4, "vlan": 20},
    ),
    row(
        "vlan 10 does not meet the id behind a priority tag",
        "vlan",
        eth(vlan(0, pcp=5), vlan(10), _WEB),
        "pass default",
        {**_HTTP4, "vlan": 0},
    ),
    row(
        "vlan any meets a priority tag",
        "vlan",
        eth(vlan(0, pcp=5), _DNS),
        "drop rule v_any",
        {**_DNS4, "vlan": 0},
    ),
    row(
        "vlan any meets a priority tag of priority 0",
        "vlan",
        eth(vlan(0), _DNS),
        "drop rule v_any",
        {**_DNS4, "vlan": 0},
    ),
    row(
        "vlan none does not meet a priority tag",
        "vlan",
        eth(vlan(0), _WEB),
        "pass default",
        {**_HTTP4, "vlan": 0},
    ),
    row("vlan none meets a packet without a tag", "vlan", eth(_WEB), "drop rule v_none", _HTTP4),
    row("vlan any does not meet a packet without a tag", "vlan", eth(_DNS), "pass default", _DNS4),
    row(
        "vlan any meets an ipv6 packet behind two tags",
        "vlan",
        eth(vlan(4095), vlan(1), ipv6(udp())),
        "drop rule v_any",
        six(UDP, 40000, 53, vlan=4095),
    ),
    row(
        "vlan 4094 meets id 4094",
        "vlan",
        eth(vlan(4094), _DNS),
        "tx rule v_top",
        {**_DNS4, "vlan": 4094},
    ),
    row(
        "vlan 4094 does not meet id 4095",
        "vlan",
        eth(vlan(4095), _WEB),
        "pass default",
        {**_HTTP4, "vlan": 4095},
    ),
    row(
        "an 802.3 length behind a tag is not ip",
        "vlan",
        eth(vlan(10), raw(38, b"\x42\x42\x03" + bytes(35))),
        "drop rule v_ten",
        not_ip(10),
    ),
    row("a tag of 0 bytes is malformed", "vlan", _TAG[:14], "drop malformed"),
    row("a tag of 1 byte is malformed", "vlan", _TAG[:15], "drop malformed"),
    row("a tag without a type behind it is malformed", "vlan", _TAG[:16], "drop malformed"),
    row("a tag with half a type behind it is malformed", "vlan", _TAG[:17], "drop malformed"),
    row(
        "a tag and an unknown type and nothing more is whole",
        "vlan",
        eth(vlan(10)),
        "tx rule v_test",
        not_ip(10),
    ),
    row(
        "a tag and type ipv4 and nothing more is malformed",
        "vlan",
        eth(vlan(10), raw(ETHERTYPE_IP4)),
        "drop malformed",
        {"vlan": 10},
    ),
    row(
        "a tag and type ipv6 and nothing more is malformed",
        "vlan",
        eth(vlan(10), raw(ETHERTYPE_IP6)),
        "drop malformed",
        {"vlan": 10},
    ),
    row(
        "a second tag cut after its id is malformed",
        "vlan",
        eth(vlan(10, ethertype=_QINQ), vlan(20))[:20],
        "drop malformed",
    ),
    row(
        "two tags and an unknown type and nothing more is whole",
        "vlan",
        eth(vlan(10, ethertype=_QINQ), vlan(20)),
        "tx rule v_test",
        not_ip(10),
    ),
    row(
        "three tags are malformed",
        "vlan",
        eth(vlan(10), vlan(20), vlan(30), _WEB),
        "drop malformed",
    ),
    row(
        "three tags of three types are malformed",
        "vlan",
        eth(vlan(10, ethertype=_OLD_QINQ), vlan(20, ethertype=_QINQ), vlan(30), _WEB),
        "drop malformed",
    ),
    row(
        "three priority tags are malformed",
        "vlan",
        eth(vlan(0), vlan(0), vlan(0), arp()),
        "drop malformed",
    ),
    row(
        "two tags and the type of a third and nothing more is malformed",
        "vlan",
        eth(vlan(10), vlan(20), raw(_QINQ)),
        "drop malformed",
    ),
    row(
        "a malformed ipv4 packet behind two tags is malformed",
        "vlan",
        eth(vlan(10, ethertype=_QINQ), vlan(20), ipv4(udp(), ihl=4)),
        "drop malformed",
        {"vlan": 10},
    ),
    row(
        "icmp6 behind two tags is read",
        "parse",
        eth(vlan(10, ethertype=_QINQ), vlan(20), ipv6(icmp6())),
        "pass rule ping6",
        six(ICMP6, vlan=10),
    ),
]

ROWS: tuple[Row, ...] = (*_HEADER, *_LENGTH, *_PADDING, *_TAGS)
