"""Rows about rules: order, AND, negation, ports, fields of value 0."""

from __future__ import annotations

from collections.abc import Callable

from tests.frames import (
    ACK,
    GRE,
    ICMP,
    ICMP6,
    LLDP,
    SCTP,
    SYN,
    TCP,
    UDP,
    Layer,
    Segment,
    arp,
    eth,
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
from tests.rows.base import Key, Row, four, not_ip, row, six, tcp4, udp4, udp6

__all__ = ["ROWS"]


def _not4(name: str, outcome: str, **at: object) -> Row:
    return udp4(name, outcome, policy="negation", **at)  # type: ignore[arg-type]


def _not6(name: str, outcome: str, **at: object) -> Row:
    return udp6(name, outcome, policy="negation", **at)  # type: ignore[arg-type]


def _not_tcp(name: str, outcome: str, **at: object) -> Row:
    return tcp4(name, outcome, policy="negation", **at)  # type: ignore[arg-type]


_NEGATION = [
    _not4("from not a prefix meets outside", "drop rule n_from", dport=1001, src="11.0.0.0"),
    _not4("from not a prefix does not meet inside", "pass default", dport=1001),
    _not4(
        "from not a prefix does not meet its last", "pass default", dport=1001, src="10.255.255.255"
    ),
    _not4(
        "from not a prefix and another port do not meet", "pass default", dport=1000, src="11.0.0.0"
    ),
    _not6("from not an ipv4 prefix meets ipv6", "drop rule n_from", dport=1001),
    _not6(
        "from not a set meets outside over ipv6", "drop rule n_set", dport=1002, src="2001:db9::1"
    ),
    _not6("from not a set does not meet inside over ipv6", "pass default", dport=1002),
    _not4(
        "from not a set meets outside over ipv4", "drop rule n_set", dport=1002, src="9.255.255.255"
    ),
    _not4("from not a set does not meet inside over ipv4", "pass default", dport=1002),
    _not4("to not a prefix meets outside", "drop rule n_to", sport=1003, dst="11.0.0.0"),
    _not4("to not a prefix does not meet inside", "pass default", sport=1003),
    _not6("to not an ipv4 prefix meets ipv6", "drop rule n_to", sport=1003),
    _not4("from not an ipv6 prefix meets ipv4", "drop rule n_six", dport=1004),
    _not6("from not an ipv6 prefix does not meet inside", "pass default", dport=1004),
    _not6(
        "from not an ipv6 prefix meets outside",
        "drop rule n_six",
        dport=1004,
        src="2001:db7:ffff::1",
    ),
    _not4("port not a range meets below", "drop rule n_range", dport=1999, src="10.1.0.7"),
    _not4("port not a range does not meet its first", "pass default", dport=2000, src="10.1.0.7"),
    _not4("port not a range does not meet its last", "pass default", dport=2999, src="10.1.0.7"),
    _not4("port not a range meets above", "drop rule n_range", dport=3000, src="10.1.0.7"),
    _not4(
        "port not a range and another source do not meet",
        "pass default",
        dport=3000,
        src="10.1.0.6",
    ),
    _not_tcp("port not a set meets outside", "tx rule n_ports", dport=81, dst="10.2.0.8"),
    _not_tcp("port not a set does not meet its number", "pass default", dport=443, dst="10.2.0.8"),
    _not_tcp(
        "port not a set does not meet in its range", "pass default", dport=8050, dst="10.2.0.8"
    ),
    _not_tcp("port not a set meets above its range", "tx rule n_ports", dport=8101, dst="10.2.0.8"),
    _not4("port not a set and tcp do not meet udp", "pass default", dport=22, dst="10.2.0.8"),
    _not_tcp("port not 22 meets tcp port 23", "tx rule n_any", dport=23, dst="10.2.0.9"),
    _not_tcp("port not 22 does not meet tcp port 22", "pass default", dport=22, dst="10.2.0.9"),
    _not4("port not 22 meets udp port 21", "tx rule n_any", dport=21, dst="10.2.0.9"),
    _not4("port not 22 does not meet udp port 22", "pass default", dport=22, dst="10.2.0.9"),
    row(
        "port not 22 meets sctp",
        "negation",
        eth(ipv4(sctp(), dst="10.2.0.9")),
        "tx rule n_any",
        four(SCTP, 40000, 5060, dst="10.2.0.9"),
    ),
    row(
        "port not 22 does not meet icmp",
        "negation",
        eth(ipv4(icmp(), dst="10.2.0.9")),
        "pass default",
        four(ICMP, dst="10.2.0.9"),
    ),
    row(
        "port not 22 does not meet gre",
        "negation",
        eth(ipv4(Segment(GRE, bytes(8)), dst="10.2.0.9")),
        "pass default",
        four(GRE, dst="10.2.0.9"),
    ),
    row(
        "port not 22 does not meet a later fragment",
        "negation",
        eth(ipv4(tcp(), dst="10.2.0.9", offset=3)),
        "pass default",
        four(TCP, dst="10.2.0.9", frag="later"),
    ),
    row(
        "port not 22 meets a first fragment",
        "negation",
        eth(ipv4(tcp(bytes(4)), dst="10.2.0.9", mf=True)),
        "tx rule n_any",
        four(TCP, 40000, 80, SYN, dst="10.2.0.9", frag="first"),
    ),
    _not_tcp("from not and port not both hold", "drop rule n_both", sport=1023, src="10.3.0.1"),
    _not_tcp("from not holds and port not does not", "pass default", sport=1024, src="10.3.0.1"),
    _not_tcp("port not holds and from not does not", "pass default", sport=1023),
    row(
        "from not and port not both hold over ipv6",
        "negation",
        eth(ipv6(tcp(sport=1))),
        "drop rule n_both",
        six(TCP, 1, 80, SYN),
    ),
    row(
        "from not a list meets outside over ipv4",
        "negation",
        eth(ipv4(sctp(dport=1006), src="10.1.0.2")),
        "drop rule n_list",
        four(SCTP, 40000, 1006, src="10.1.0.2"),
    ),
    row(
        "from not a list does not meet its ipv4 address",
        "negation",
        eth(ipv4(sctp(dport=1006))),
        "pass default",
        four(SCTP, 40000, 1006),
    ),
    row(
        "from not a list does not meet its ipv6 address",
        "negation",
        eth(ipv6(sctp(dport=1006))),
        "pass default",
        six(SCTP, 40000, 1006),
    ),
    row(
        "from not all of ipv4 meets ipv6",
        "negation",
        eth(ipv6(icmp6(), dst="2001:db8:b::6")),
        "drop rule n_ip",
        six(ICMP6, dst="2001:db8:b::6"),
    ),
    row(
        "from not a prefix does not meet arp",
        "zeros",
        eth(arp(src="192.0.2.9")),
        "pass default",
        not_ip(),
    ),
    row(
        "from not a prefix meets an ipv4 packet of any protocol",
        "zeros",
        eth(ipv4(Segment(GRE, bytes(4)), src="192.0.2.9", tos=4)),
        "drop rule z_not",
        four(GRE, src="192.0.2.9"),
    ),
    row(
        "from not an ipv4 prefix meets a later fragment over ipv6",
        "zeros",
        eth(ipv6(udp(), fragment(offset=1), traffic_class=4)),
        "drop rule z_not",
        six(UDP, frag="later"),
    ),
]


def _order4(name: str, outcome: str, **at: object) -> Row:
    return udp4(name, outcome, policy="order", **at)  # type: ignore[arg-type]


def _order6(name: str, outcome: str, **at: object) -> Row:
    return udp6(name, outcome, policy="order", **at)  # type: ignore[arg-type]


def _and(
    name: str,
    outcome: str = "drop default",
    *,
    packet: dict[str, object] | None = None,
    flags: int = SYN,
    sport: int = 1024,
    dport: int = 8443,
    pad: int = 0,
    tag: bool = False,
    data: bytes = b"",
    **key: object,
) -> Row:
    """A row for the rule of many parts: one packet that meets them all but what is given."""
    build: Callable[..., Layer] = ipv4
    want: Callable[..., Key] = four
    segment = tcp(data, sport=sport, dport=dport, flags=flags)
    layer = build(segment, **(packet or {}))
    frame = eth(vlan(1), layer) if tag else eth(layer, pad=pad)
    return row(name, "order", frame, outcome, want(TCP, sport, dport, flags, **key))


_ORDER = [
    tcp4("the first of two rules that meet decides", "pass rule o_first", policy="order", dport=22),
    tcp4(
        "the second rule decides where the first does not meet",
        "drop rule o_deny",
        policy="order",
        dport=22,
        src="10.9.0.1",
    ),
    row(
        "the second rule decides over ipv6 where the first has only ipv4",
        "order",
        eth(ipv6(tcp(dport=22))),
        "drop rule o_deny",
        six(TCP, 40000, 22, SYN),
    ),
    _order4("udp to port 22 meets no rule of tcp", "pass rule o_low", dport=22),
    _order4("on left meets the port left", "tx rule o_left", dport=500),
    _order4("on right meets the port right", "pass rule o_right", dport=500, port="right"),
    _order6(
        "on right meets the port right over ipv6", "pass rule o_right", dport=500, port="right"
    ),
    _order6("a rule without on meets the port right", "pass rule o_low", dport=501, port="right"),
    row("on right arp meets arp", "order", eth(arp()), "tx rule o_arp", not_ip(), port="right"),
    row("on right arp does not meet the port left", "order", eth(arp()), "drop default", not_ip()),
    row(
        "on right arp does not meet lldp",
        "order",
        eth(raw(LLDP, bytes(46))),
        "drop default",
        not_ip(),
        port="right",
    ),
    _order4("a range of ports meets 0", "pass rule o_low", dport=0),
    _order4("a range of ports meets its last", "pass rule o_low", dport=1023),
    _order4("a range of ports does not meet above", "drop default", dport=1024),
    _order4("port 65535 meets udp", "tx rule o_top", dport=65535),
    _order4("port 65535 does not meet 65534", "drop default", dport=65534),
    _order6("port 65535 meets udp over ipv6", "tx rule o_top", dport=65535),
    tcp4("port 65535 meets tcp", "tx rule o_top", policy="order", dport=65535),
    row(
        "port 65535 meets sctp",
        "order",
        eth(ipv6(sctp(dport=65535))),
        "tx rule o_top",
        six(SCTP, 40000, 65535),
    ),
    _order4("from port meets the source port", "tx rule o_src", sport=5353),
    _order4("from port does not meet the destination port", "drop default", dport=5353),
    _order4(
        "from port does not meet the port with its bytes swapped", "drop default", sport=0xE914
    ),
    _order4("from port and to port both hold", "pass rule o_pair", sport=4000, dport=4001),
    _order4(
        "from port and to port are not met the other way", "drop default", sport=4001, dport=4000
    ),
    _order4("a rule without addresses meets ipv4", "pass rule o_both", dport=4500),
    _order6("a rule without addresses meets ipv6", "pass rule o_both", dport=4500),
    row(
        "ip sctp meets ipv4",
        "order",
        eth(ipv4(sctp())),
        "pass rule o_four",
        four(SCTP, 40000, 5060),
    ),
    row(
        "ip sctp does not meet ipv6",
        "order",
        eth(ipv6(sctp())),
        "drop default",
        six(SCTP, 40000, 5060),
    ),
    row(
        "ip6 gre meets ipv6", "order", eth(ipv6(Segment(GRE, bytes(4)))), "tx rule o_six", six(GRE)
    ),
    row(
        "ip6 gre does not meet ipv4",
        "order",
        eth(ipv4(Segment(GRE, bytes(4)))),
        "drop default",
        four(GRE),
    ),
    _and("all parts of a rule hold", "pass rule o_and"),
    _and("all parts hold with the highest source port", "pass rule o_and", sport=65535),
    _and("all parts hold in 100 bytes", "pass rule o_and", pad=100),
    _and("all parts but the source hold", packet={"src": "10.3.0.1"}, src="10.3.0.1"),
    _and("all parts but the source port hold", sport=1023),
    _and("all parts but the destination hold", packet={"dst": "10.3.0.1"}, dst="10.3.0.1"),
    _and("all parts but the destination port hold", dport=8444),
    _and("all parts but the set flag hold", flags=0),
    _and("all parts but the clear flag hold", flags=SYN | ACK),
    _and("all parts but the ttl hold", packet={"ttl": 63}),
    _and("all parts but the dscp hold", packet={"tos": 4}),
    _and("all parts but the vlan hold", tag=True, vlan=1),
    _and("all parts but the length hold", pad=101),
    _and("all parts but the fragment state hold", packet={"mf": True}, frag="first", data=bytes(8)),
    row(
        "all parts but the protocol hold",
        "order",
        eth(ipv4(udp(bytes(12), sport=1024, dport=8443))),
        "drop default",
        four(UDP, 1024, 8443),
    ),
]

# Everything here has DSCP 1 unless the rule about DSCP 0 is meant.
_ZEROS = [
    row("arp has no field of value 0", "zeros", eth(arp(src="0.0.0.0")), "pass default", not_ip()),
    row(
        "lldp has no field of value 0", "zeros", eth(raw(LLDP, bytes(46))), "pass default", not_ip()
    ),
    row(
        "arp of zeros has no field of value 0",
        "zeros",
        eth(raw(0x0806, bytes(46))),
        "pass default",
        not_ip(),
    ),
    row(
        "udp has no type and no flags of value 0",
        "zeros",
        eth(ipv4(udp(bytes(20)), tos=4)),
        "pass default",
        four(UDP, 40000, 53),
    ),
    row(
        "icmp has no ports and no flags of value 0",
        "zeros",
        eth(ipv4(icmp(8, 0, bytes(20)), tos=4)),
        "pass default",
        four(ICMP),
    ),
    row(
        "gre has no ports, type or flags of value 0",
        "zeros",
        eth(ipv4(Segment(GRE, bytes(20)), tos=4)),
        "pass default",
        four(GRE),
    ),
    row(
        "tcp has no type of value 0",
        "zeros",
        eth(ipv4(tcp(sport=255), tos=4)),
        "pass default",
        four(TCP, 255, 80, SYN),
    ),
    row(
        "a later fragment of tcp has no ports and no flags of value 0",
        "zeros",
        eth(ipv4(Segment(TCP, bytes(24)), offset=1, tos=4)),
        "pass default",
        four(TCP, frag="later"),
    ),
    row(
        "a later fragment of icmp has no type of value 0",
        "zeros",
        eth(ipv4(Segment(ICMP, bytes(24)), offset=1, tos=4)),
        "pass default",
        four(ICMP, frag="later"),
    ),
    row(
        "proto 0 meets protocol 0",
        "zeros",
        eth(ipv4(Segment(0, bytes(4)), tos=4)),
        "tx rule z_proto",
        four(0),
    ),
    row(
        "from port 0 meets port 0",
        "zeros",
        eth(ipv4(udp(sport=0), tos=4)),
        "tx rule z_sport",
        four(UDP, 0, 53),
    ),
    row(
        "to port 0 meets port 0",
        "zeros",
        eth(ipv4(udp(dport=0), tos=4)),
        "tx rule z_dport",
        four(UDP, 40000, 0),
    ),
    row(
        "type 0 meets an icmp echo answer",
        "zeros",
        eth(ipv4(icmp(0), tos=4)),
        "tx rule z_type",
        four(ICMP),
    ),
    row(
        "type 0 meets icmp6 type 0",
        "zeros",
        eth(ipv6(icmp6(0), traffic_class=4)),
        "tx rule z_type",
        six(ICMP6),
    ),
    row(
        "from 0.0.0.0 meets it",
        "zeros",
        eth(ipv4(udp(), src="0.0.0.0", tos=4)),
        "tx rule z_src4",
        four(UDP, 40000, 53, src="0.0.0.0"),
    ),
    row(
        "from 0.0.0.0 does not meet ::, and from :: does",
        "zeros",
        eth(ipv6(udp(), src="::", traffic_class=4)),
        "tx rule z_src6",
        six(UDP, 40000, 53, src="::"),
    ),
    row(
        "from :: does not meet 10.0.0.0, which ends in zeros",
        "zeros",
        eth(ipv4(udp(), src="10.0.0.0", tos=4)),
        "pass default",
        four(UDP, 40000, 53, src="10.0.0.0"),
    ),
    row(
        "no flag is met by tcp without flags",
        "zeros",
        eth(ipv4(tcp(flags=0), tos=4)),
        "tx rule z_flags",
        four(TCP, 40000, 80, 0),
    ),
    row(
        "ttl 0 meets ttl 0",
        "zeros",
        eth(ipv4(udp(), ttl=0, tos=4)),
        "tx rule z_ttl",
        four(UDP, 40000, 53),
    ),
    row(
        "dscp 0 meets dscp 0",
        "zeros",
        eth(ipv4(udp(), tos=3)),
        "tx rule z_dscp",
        four(UDP, 40000, 53),
    ),
    row(
        "dscp 0 meets traffic class 3",
        "zeros",
        eth(ipv6(udp(), traffic_class=3)),
        "tx rule z_dscp",
        six(UDP, 40000, 53),
    ),
    row(
        "frag no and ttl 0-32 meet ttl 32",
        "zeros",
        eth(ipv4(udp(), ttl=32, tos=4)),
        "drop rule z_frag",
        four(UDP, 40000, 53),
    ),
    row(
        "frag no and ttl 0-32 do not meet ttl 33",
        "zeros",
        eth(ipv4(udp(), ttl=33, tos=4)),
        "pass default",
        four(UDP, 40000, 53),
    ),
    row(
        "frag no and ttl 0-32 do not meet a first fragment",
        "zeros",
        eth(ipv4(udp(b"12345678"), ttl=32, tos=4, mf=True)),
        "pass default",
        four(UDP, 40000, 53, frag="first"),
    ),
]

ROWS: tuple[Row, ...] = (*_NEGATION, *_ORDER, *_ZEROS)
