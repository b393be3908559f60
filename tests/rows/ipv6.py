"""Rows about IPv6: header, extension headers, hop limit, traffic class."""

from __future__ import annotations

from tests.frames import (
    DSTOPTS,
    ESP,
    ETHERTYPE_IP6,
    FRAGMENT,
    GRE,
    HIP,
    HOPOPTS,
    ICMP,
    ICMP6,
    MOBILITY,
    NO_NEXT,
    ROUTING,
    SCTP,
    SHIM6,
    TCP,
    UDP,
    Extension,
    Segment,
    ah,
    eth,
    extension,
    fragment,
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
from tests.rows.base import Row, row, six

__all__ = ["ROWS"]

_HTTP = six(TCP, 40000, 80, 0x02)
_DNS = six(UDP, 40000, 53)
_LONG = bytes(range(64))
_HOP = extension(HOPOPTS)
_DST = extension(DSTOPTS)
_RT = extension(ROUTING)

_HEADER = [
    *(
        row(
            f"ipv6 with version {version} is malformed",
            "parse",
            eth(ipv6(tcp(), version=version)),
            "drop malformed",
        )
        for version in (0, 4, 5, 7, 15)
    ),
    row(
        "an ipv4 packet behind type ipv6 is malformed",
        "parse",
        eth(raw(ETHERTYPE_IP6, ipv4(tcp(_LONG)).data)),
        "drop malformed",
    ),
    row("ipv6 tcp is read", "parse", eth(ipv6(tcp(b"xyz"))), "pass rule web", _HTTP),
    row(
        "an ipv6 header of 1 byte is malformed", "parse", eth(ipv6(tcp(), cut=1)), "drop malformed"
    ),
    row(
        "an ipv6 header of 39 bytes is malformed",
        "parse",
        eth(ipv6(tcp(), cut=39)),
        "drop malformed",
    ),
    row(
        "an ipv6 header of 39 bytes without a payload is malformed",
        "parse",
        eth(ipv6(Segment(NO_NEXT, b""), cut=39)),
        "drop malformed",
    ),
    row(
        "an ipv6 header of 40 bytes and nothing more is read",
        "parse",
        eth(ipv6(Segment(NO_NEXT, b""))),
        "tx rule all6",
        six(NO_NEXT),
    ),
    row(
        "ipv6 with payload length one above is malformed",
        "parse",
        eth(ipv6(tcp(), payload_length=21)),
        "drop malformed",
    ),
    row(
        "ipv6 with payload length 65535 is malformed",
        "parse",
        eth(ipv6(tcp(), payload_length=65535)),
        "drop malformed",
    ),
    row(
        "ipv6 with payload length one above behind a tag is malformed",
        "parse",
        eth(vlan(10), ipv6(tcp(), payload_length=21)),
        "drop malformed",
        {"vlan": 10},
    ),
    row(
        "ipv6 with a payload length exactly there is read",
        "parse",
        eth(ipv6(tcp(b"xy"), payload_length=22)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ipv6 with a payload length one below what is there is read",
        "parse",
        eth(ipv6(tcp(b"xy"), payload_length=21)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ipv6 tcp with payload length 0 is malformed",
        "parse",
        eth(ipv6(tcp(), payload_length=0)),
        "drop malformed",
    ),
    row(
        "ipv6 of an unknown protocol with payload length 0 is read",
        "parse",
        eth(ipv6(Segment(253, b"x"), payload_length=0)),
        "tx rule all6",
        six(253),
    ),
    row(
        "ipv6 destination options with payload length 0 are malformed",
        "parse",
        eth(ipv6(tcp(), _DST, payload_length=0)),
        "drop malformed",
    ),
    row(
        "a jumbogram is malformed",
        "parse",
        eth(
            ipv6(
                tcp(),
                Extension(HOPOPTS, b"\x00\xc2\x04\x00\x01\x00\x00"),
                payload_length=0,
            )
        ),
        "drop malformed",
    ),
    row(
        "payload length 0 and type hop-by-hop and nothing more is malformed",
        "parse",
        eth(ipv6(Segment(HOPOPTS, b""))),
        "drop malformed",
    ),
    row(
        "a flow label is no traffic class",
        "fields",
        eth(ipv6(udp(), flow=0xBBBBB)),
        "pass default",
        _DNS,
    ),
    row(
        "ipv4 in ipv6 is judged by the outer header",
        "parse",
        eth(ipv6(Segment(4, ipv4(tcp()).data))),
        "tx rule all6",
        six(4),
    ),
    row(
        "ipv6 in ipv6 is judged by the outer header",
        "parse",
        eth(ipv6(Segment(41, ipv6(tcp(), src="2001:db8:9::9").data))),
        "tx rule all6",
        six(41),
    ),
]

_PROTOCOLS = [
    row("tcp meets tcp over ipv6", "protocols", eth(ipv6(tcp())), "pass rule a_tcp", _HTTP),
    row("udp meets udp over ipv6", "protocols", eth(ipv6(udp())), "pass rule a_udp", _DNS),
    row(
        "icmp6 meets icmp6 over ipv6",
        "protocols",
        eth(ipv6(icmp6())),
        "pass rule a_icmp6",
        six(ICMP6),
    ),
    row(
        "icmp meets protocol 1 over ipv6",
        "protocols",
        eth(ipv6(icmp())),
        "pass rule a_icmp",
        six(ICMP),
    ),
    row(
        "sctp meets sctp over ipv6",
        "protocols",
        eth(ipv6(sctp())),
        "pass rule a_sctp",
        six(SCTP, 40000, 5060),
    ),
    row(
        "gre meets gre over ipv6",
        "protocols",
        eth(ipv6(Segment(GRE, bytes(4)))),
        "pass rule a_gre",
        six(GRE),
    ),
    row(
        "proto 253 meets protocol 253 over ipv6",
        "protocols",
        eth(ipv6(Segment(253, b"x"))),
        "tx rule a_253",
        six(253),
    ),
    row(
        "proto 253 does not meet protocol 254 over ipv6",
        "protocols",
        eth(ipv6(Segment(254, b"x"))),
        "drop default",
        six(254),
    ),
    row(
        "esp ends the walk",
        "protocols",
        eth(ipv6(Segment(ESP, b"\xff" * 20))),
        "pass rule a_esp",
        six(ESP),
    ),
    row(
        "esp of 0 bytes ends the walk",
        "protocols",
        eth(ipv6(Segment(ESP, b""), _DST)),
        "pass rule a_esp",
        six(ESP),
    ),
    row(
        "no next header ends the walk",
        "protocols",
        eth(ipv6(Segment(NO_NEXT, tcp().data))),
        "pass rule a_59",
        six(NO_NEXT),
    ),
    row(
        "no next header behind destination options ends the walk",
        "protocols",
        eth(ipv6(Segment(NO_NEXT, b""), _DST)),
        "pass rule a_59",
        six(NO_NEXT),
    ),
    row(
        "ah over ipv6 is stepped over and is not the protocol",
        "protocols",
        eth(ipv6(tcp(), ah())),
        "pass rule a_tcp",
        _HTTP,
    ),
    row(
        "routing over ipv6 is stepped over and is not the protocol",
        "protocols",
        eth(ipv6(Segment(254, b"x"), _RT)),
        "drop default",
        six(254),
    ),
    row(
        "hop-by-hop over ipv6 is stepped over and is not the protocol",
        "protocols",
        eth(ipv6(Segment(254, b"x"), _HOP)),
        "drop default",
        six(254),
    ),
]

_WALKED = {
    "hop-by-hop": HOPOPTS,
    "routing": ROUTING,
    "destination options": DSTOPTS,
    "mobility": MOBILITY,
    "hip": HIP,
    "shim6": SHIM6,
}
_EIGHT = (
    _HOP,
    _DST,
    _RT,
    fragment(),
    ah(),
    extension(MOBILITY),
    extension(HIP),
    extension(SHIM6),
)
_EXTENSIONS = [
    *(
        row(
            f"{text} is stepped over",
            "parse",
            eth(ipv6(tcp(), extension(number))),
            "pass rule web",
            _HTTP,
        )
        for text, number in _WALKED.items()
    ),
    *(
        row(
            f"{text} of 24 bytes is stepped over",
            "parse",
            eth(ipv6(udp(b"x"), extension(number, units=2))),
            "pass rule dns",
            _DNS,
        )
        for text, number in _WALKED.items()
    ),
    *(
        row(
            f"{text} with a length beyond the packet is malformed",
            "parse",
            eth(ipv6(tcp(), extension(number, claim=255))),
            "drop malformed",
        )
        for text, number in _WALKED.items()
    ),
    row(
        "destination options of 2048 bytes are stepped over",
        "parse",
        eth(ipv6(udp(b"x"), Extension(DSTOPTS, b"\xff" + bytes(2046)))),
        "pass rule dns",
        _DNS,
    ),
    row(
        "destination options of 1 byte are malformed",
        "parse",
        eth(ipv6(Segment(DSTOPTS, b"\x06"))),
        "drop malformed",
    ),
    row(
        "destination options of 7 bytes are malformed",
        "parse",
        eth(ipv6(Segment(DSTOPTS, b"\x3b\x00\x01\x04\x00\x00\x00"))),
        "drop malformed",
    ),
    row(
        "destination options beyond the payload are malformed though bytes are there",
        "parse",
        eth(ipv6(Segment(NO_NEXT, bytes(8)), _DST, payload_length=7)),
        "drop malformed",
    ),
    row(
        "destination options that reach into tcp are malformed",
        "parse",
        eth(ipv6(tcp(), extension(DSTOPTS, claim=2))),
        "drop malformed",
    ),
    row(
        "destination options that end with the payload before nothing are read",
        "parse",
        eth(ipv6(Segment(NO_NEXT, bytes(8)), extension(DSTOPTS, claim=1))),
        "tx rule all6",
        six(NO_NEXT),
    ),
    row("ah of 24 bytes is stepped over", "parse", eth(ipv6(tcp(), ah())), "pass rule web", _HTTP),
    row(
        "ah of 12 bytes is stepped over",
        "parse",
        eth(ipv6(tcp(), ah(icv=0))),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ah of 20 bytes is stepped over",
        "parse",
        eth(ipv6(tcp(), ah(icv=8))),
        "pass rule web",
        _HTTP,
    ),
    row(
        "ah with a length beyond the packet is malformed",
        "parse",
        eth(ipv6(tcp(), ah(claim=255))),
        "drop malformed",
    ),
    row(
        "ah with a length one word beyond the packet is malformed",
        "parse",
        eth(ipv6(Segment(NO_NEXT, b""), ah(claim=5))),
        "drop malformed",
    ),
    row(
        "an atomic fragment is stepped over",
        "parse",
        eth(ipv6(tcp(), fragment())),
        "pass rule web",
        _HTTP,
    ),
    row(
        "a fragment header with its reserved bits is atomic",
        "parse",
        eth(ipv6(tcp(), fragment(reserved=3))),
        "pass rule web",
        _HTTP,
    ),
    row(
        "a reserved byte of a fragment header is no length",
        "parse",
        eth(ipv6(tcp(), Extension(FRAGMENT, b"\xff" + bytes(6)))),
        "pass rule web",
        _HTTP,
    ),
    row(
        "a fragment header of 7 bytes is malformed",
        "parse",
        eth(ipv6(Segment(FRAGMENT, b"\x3b" + bytes(6)))),
        "drop malformed",
    ),
    row(
        "a fragment header beyond the payload is malformed though bytes are there",
        "parse",
        eth(ipv6(Segment(NO_NEXT, b""), fragment(), payload_length=7)),
        "drop malformed",
    ),
    row(
        "the headers of rfc 8200 in its order are stepped over",
        "parse",
        eth(ipv6(udp(b"x"), _HOP, _DST, _RT, fragment(), ah(), _DST)),
        "pass rule dns",
        _DNS,
    ),
    row(
        "routing before destination options is stepped over",
        "parse",
        eth(ipv6(tcp(), _RT, _DST)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "hop-by-hop before icmp6 is stepped over",
        "parse",
        eth(ipv6(icmp6(), _HOP)),
        "pass rule ping6",
        six(ICMP6),
    ),
    row("hop-by-hop second is malformed", "parse", eth(ipv6(tcp(), _DST, _HOP)), "drop malformed"),
    row("hop-by-hop twice is malformed", "parse", eth(ipv6(tcp(), _HOP, _HOP)), "drop malformed"),
    row(
        "hop-by-hop behind an atomic fragment is malformed",
        "parse",
        eth(ipv6(tcp(), fragment(), _HOP)),
        "drop malformed",
    ),
    row(
        "hop-by-hop behind a first fragment is malformed",
        "parse",
        eth(ipv6(tcp(), fragment(more=True), _HOP)),
        "drop malformed",
    ),
    row(
        "seven headers are stepped over",
        "parse",
        eth(ipv6(tcp(), *[_DST] * 7)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "eight headers are stepped over",
        "parse",
        eth(ipv6(tcp(), *[_DST] * 8)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "eight headers of eight kinds are stepped over",
        "parse",
        eth(ipv6(tcp(), *_EIGHT)),
        "pass rule web",
        _HTTP,
    ),
    row(
        "eight headers before no next header are stepped over",
        "parse",
        eth(ipv6(Segment(NO_NEXT, b""), *_EIGHT)),
        "tx rule all6",
        six(NO_NEXT),
    ),
    row("nine headers are malformed", "parse", eth(ipv6(tcp(), *[_DST] * 9)), "drop malformed"),
    row(
        "nine headers of eight kinds are malformed",
        "parse",
        eth(ipv6(tcp(), *_EIGHT, _DST)),
        "drop malformed",
    ),
    row(
        "nine headers of which one is an atomic fragment are malformed",
        "parse",
        eth(ipv6(tcp(), *[_DST] * 8, fragment())),
        "drop malformed",
    ),
    row(
        "a later fragment as the ninth header is malformed",
        "parse",
        eth(ipv6(tcp(), *[_DST] * 8, fragment(offset=1))),
        "drop malformed",
    ),
    row(
        "a later fragment as the eighth header is read",
        "parse",
        eth(ipv6(tcp(), *[_DST] * 7, fragment(offset=1))),
        "tx rule all6",
        six(TCP, frag="later"),
    ),
    row(
        "a first fragment as the eighth header is read",
        "parse",
        eth(ipv6(tcp(), *[_DST] * 7, fragment(more=True))),
        "pass rule web",
        six(TCP, 40000, 80, 0x02, frag="first"),
    ),
    row("twelve headers are malformed", "parse", eth(ipv6(tcp(), *[_DST] * 12)), "drop malformed"),
]

_FIELDS = [
    row(
        "ttl 1-5 does not meet hop limit 0",
        "fields",
        eth(ipv6(tcp(), hop_limit=0)),
        "pass default",
        _HTTP,
    ),
    row(
        "ttl 1-5 meets hop limit 1",
        "fields",
        eth(ipv6(tcp(), hop_limit=1)),
        "drop rule t_low",
        _HTTP,
    ),
    row(
        "ttl 1-5 meets hop limit 5",
        "fields",
        eth(ipv6(tcp(), hop_limit=5)),
        "drop rule t_low",
        _HTTP,
    ),
    row(
        "ttl 1-5 does not meet hop limit 6",
        "fields",
        eth(ipv6(tcp(), hop_limit=6)),
        "pass default",
        _HTTP,
    ),
    row(
        "ttl 255 meets hop limit 255",
        "fields",
        eth(ipv6(icmp6(), hop_limit=255)),
        "tx rule t_max",
        six(ICMP6),
    ),
    row(
        "ttl 255 does not meet hop limit 254",
        "fields",
        eth(ipv6(icmp6(), hop_limit=254)),
        "pass default",
        six(ICMP6),
    ),
    row(
        "dscp 46 meets traffic class 0xb8",
        "fields",
        eth(ipv6(udp(), traffic_class=0xB8)),
        "drop rule d_ef",
        _DNS,
    ),
    row(
        "dscp 46 meets traffic class 0xbb, which has both ecn bits",
        "fields",
        eth(ipv6(udp(), traffic_class=0xBB, flow=0xFFFFF)),
        "drop rule d_ef",
        _DNS,
    ),
    row(
        "dscp 46 does not meet traffic class 0xb4",
        "fields",
        eth(ipv6(udp(), traffic_class=0xB4)),
        "pass default",
        _DNS,
    ),
    row(
        "dscp 46 does not meet traffic class 0xbc",
        "fields",
        eth(ipv6(udp(), traffic_class=0xBC)),
        "pass default",
        _DNS,
    ),
    row(
        "dscp 46 does not meet traffic class 0x8b",
        "fields",
        eth(ipv6(udp(), traffic_class=0x8B)),
        "pass default",
        _DNS,
    ),
    row(
        "dscp 63 meets traffic class 0xff",
        "fields",
        eth(ipv6(udp(), traffic_class=0xFF)),
        "tx rule d_top",
        _DNS,
    ),
]

ROWS: tuple[Row, ...] = (*_HEADER, *_PROTOCOLS, *_EXTENSIONS, *_FIELDS)
