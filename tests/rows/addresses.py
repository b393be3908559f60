"""Rows about addresses and ports: prefixes, ranges, sets, lists, both ends at once."""

from __future__ import annotations

from tests.frames import (
    A4,
    B4,
    ICMP,
    SCTP,
    SYN,
    TCP,
    arp,
    eth,
    icmp,
    ipv4,
    ipv6,
    sctp,
    tcp,
    vlan,
)
from tests.rows.base import Row, four, not_ip, row, six, tcp4, udp4, udp6

__all__ = ["ROWS"]

_ADDRESSES = [
    udp4("an ipv4 address meets itself", "drop rule h4", src="192.0.2.32"),
    udp4("an ipv4 address does not meet the one below", "pass default", src="192.0.2.31"),
    udp4("an ipv4 address does not meet the one above", "pass default", src="192.0.2.33"),
    udp4("an ipv4 from does not meet the destination", "pass default", dst="192.0.2.32"),
    udp4("an ipv4 /32 meets itself", "tx rule p32", dst="192.0.2.100"),
    udp4("an ipv4 /32 does not meet the one above", "pass default", dst="192.0.2.101"),
    udp4("an ipv4 to does not meet the source", "pass default", src="192.0.2.100"),
    udp4("an ipv4 /31 does not meet the one below", "pass default", src="192.0.2.63"),
    udp4("an ipv4 /31 meets its first", "drop rule p31", src="192.0.2.64"),
    udp4("an ipv4 /31 meets its last", "drop rule p31", src="192.0.2.65"),
    udp4("an ipv4 /31 does not meet the one above", "pass default", src="192.0.2.66"),
    udp4("an ipv4 /25 does not meet the one below", "pass default", src="192.0.2.127"),
    udp4("an ipv4 /25 meets its first", "drop rule p25", src="192.0.2.128"),
    udp4("an ipv4 /25 meets its last", "drop rule p25", src="192.0.2.255"),
    udp4("an ipv4 /25 does not meet the one above", "pass default", src="192.0.3.0"),
    udp4("an ipv4 /10 does not meet the one below", "pass default", src="100.63.255.255"),
    udp4("an ipv4 /10 meets its first", "tx rule p10", src="100.64.0.0"),
    udp4("an ipv4 /10 meets its last", "tx rule p10", src="100.127.255.255"),
    udp4("an ipv4 /10 does not meet the one above", "pass default", src="100.128.0.0"),
    udp4("an ipv4 range does not meet the one below", "pass default", src="10.9.0.249"),
    udp4("an ipv4 range meets its first", "drop rule r4", src="10.9.0.250"),
    udp4("an ipv4 range meets across its third byte", "drop rule r4", src="10.9.1.0"),
    udp4("an ipv4 range meets its last", "drop rule r4", src="10.9.1.5"),
    udp4("an ipv4 range does not meet the one above", "pass default", src="10.9.1.6"),
    udp4("an ipv4 range does not meet its last byte elsewhere", "pass default", src="10.9.1.251"),
    udp4("an ipv4 /1 meets its first", "tx rule p1", src="203.0.113.1", dst="128.0.0.0"),
    udp4("an ipv4 /1 meets its last", "tx rule p1", src="203.0.113.1", dst="255.255.255.255"),
    udp4(
        "an ipv4 /1 does not meet the one below",
        "pass default",
        src="203.0.113.1",
        dst="127.255.255.255",
    ),
    udp4("to holds and from does not", "pass default", src="203.0.113.2", dst="128.0.0.0"),
    udp4("an ipv4 /0 meets 0.0.0.0", "drop rule any4", dport=7, src="0.0.0.0"),
    udp4("an ipv4 /0 meets 255.255.255.255", "drop rule any4", dport=7, src="255.255.255.255"),
    udp6("an ipv4 /0 does not meet ipv6, and an ipv6 /0 does", "tx rule any6", dport=7),
    udp6("an ipv6 /0 meets ::", "tx rule any6", dport=7, src="::"),
    row(
        "an ipv4 /0 and a port do not meet another protocol",
        "addresses",
        eth(ipv4(tcp(dport=7))),
        "pass default",
        four(TCP, 40000, 7, SYN),
    ),
    udp6("an ipv6 /128 meets itself", "drop rule h6", src="2001:db8:0:1::1"),
    udp6("an ipv6 /128 does not meet the one below", "pass default", src="2001:db8:0:1::"),
    udp6("an ipv6 /128 does not meet the one above", "pass default", src="2001:db8:0:1::2"),
    udp6(
        "an ipv6 /128 does not meet another in its first bit", "pass default", src="a001:db8:0:1::1"
    ),
    udp6("an ipv6 /127 does not meet the one below", "pass default", src="2001:db8:0:2::1"),
    udp6("an ipv6 /127 meets its first", "drop rule p127", src="2001:db8:0:2::2"),
    udp6("an ipv6 /127 meets its last", "drop rule p127", src="2001:db8:0:2::3"),
    udp6("an ipv6 /127 does not meet the one above", "pass default", src="2001:db8:0:2::4"),
    udp6(
        "an ipv6 /64 does not meet the one below",
        "pass default",
        dst="2001:db8:0:2:ffff:ffff:ffff:ffff",
    ),
    udp6("an ipv6 /64 meets its first", "tx rule p64", dst="2001:db8:0:3::"),
    udp6("an ipv6 /64 meets its last", "tx rule p64", dst="2001:db8:0:3:ffff:ffff:ffff:ffff"),
    udp6("an ipv6 /64 does not meet the one above", "pass default", dst="2001:db8:0:4::"),
    udp6(
        "an ipv6 /33 does not meet the one below",
        "pass default",
        dst="2001:db8:7fff:ffff:ffff:ffff:ffff:ffff",
    ),
    udp6("an ipv6 /33 meets its first", "drop rule p33", dst="2001:db8:8000::"),
    udp6(
        "an ipv6 /33 meets its last", "drop rule p33", dst="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
    ),
    udp6("an ipv6 /33 does not meet the one above", "pass default", dst="2001:db9::"),
    udp6("an ipv6 range does not meet the one below", "pass default", src="2001:db8:0:9::f"),
    udp6("an ipv6 range meets its first", "drop rule r6", src="2001:db8:0:9::10"),
    udp6("an ipv6 range meets its last", "drop rule r6", src="2001:db8:0:9::20"),
    udp6("an ipv6 range does not meet the one above", "pass default", src="2001:db8:0:9::21"),
    udp6("an ipv6 /1 meets its first", "tx rule p1six", src="2001:db8:0:7::1", dst="8000::"),
    udp6(
        "an ipv6 /1 meets its last",
        "tx rule p1six",
        src="2001:db8:0:7::1",
        dst="ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ),
    udp6(
        "an ipv6 /1 does not meet the one below",
        "pass default",
        src="2001:db8:0:7::1",
        dst="7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ),
    udp6(
        "an ipv4 address does not meet the ipv6 address that holds it",
        "pass default",
        src="::ffff:192.0.2.32",
    ),
    udp6(
        "an ipv4 address does not meet an ipv6 address of its bytes",
        "pass default",
        src="c000:220::",
    ),
    row(
        "addresses do not meet arp",
        "addresses",
        eth(arp(src="192.0.2.32")),
        "pass default",
        not_ip(),
    ),
    row(
        "an address meets a packet behind a tag",
        "addresses",
        eth(vlan(3), ipv4(icmp(), src="192.0.2.32")),
        "drop rule h4",
        four(ICMP, src="192.0.2.32", vlan=3),
    ),
    udp4("a set meets the first of its ipv4 prefix", "drop rule s_from", src="198.18.0.0"),
    udp4("a set meets the last of its ipv4 prefix", "drop rule s_from", src="198.19.255.255"),
    udp4("a set does not meet above its ipv4 prefix", "pass default", src="198.20.0.0"),
    udp4("a set meets its address", "drop rule s_from", src="203.0.113.7"),
    udp4("a set does not meet beside its address", "pass default", src="203.0.113.6"),
    udp6("a set meets its ipv6 prefix", "drop rule s_from", src="2001:db8:bad:ffff::1"),
    udp6("a set does not meet above its ipv6 prefix", "pass default", src="2001:db8:bae::1"),
    udp4("a set meets a destination over ipv4", "tx rule s_to", dst="198.18.3.4"),
    udp6("a set meets a destination over ipv6", "tx rule s_to", dst="2001:db8:bad::"),
    udp4(
        "from a set goes before to the set", "drop rule s_from", src="203.0.113.7", dst="198.18.3.4"
    ),
    tcp4("a set of ports meets its first", "drop rule s_web", dport=80),
    tcp4("a set of ports does not meet between", "pass default", dport=81),
    tcp4("a set of ports meets its second", "drop rule s_web", dport=443),
    tcp4("a set of ports does not meet below its range", "pass default", dport=7999),
    tcp4("a set of ports meets the first of its range", "drop rule s_web", dport=8000),
    tcp4("a set of ports meets the last of its range", "drop rule s_web", dport=8100),
    tcp4("a set of ports does not meet above its range", "pass default", dport=8101),
    udp4("a set of tcp ports does not meet udp", "pass default", dport=80),
    udp4("a list meets its address", "drop rule s_list", src="198.51.100.10"),
    udp4("a list does not meet beside its address", "pass default", src="198.51.100.11"),
    udp4("a list meets the last of its prefix", "drop rule s_list", src="198.51.100.127"),
    udp4("a list does not meet above its prefix", "pass default", src="198.51.100.128"),
    udp6("a list meets its ipv6 prefix", "drop rule s_list", src="2001:db8:c::9"),
    udp6("a list does not meet beside its ipv6 prefix", "pass default", src="2001:db8:c:1::9"),
    udp4("a list of ports meets its first", "tx rule s_ports", dport=53),
    udp6("a list of ports meets its second", "tx rule s_ports", dport=123),
    udp4("a list of ports meets the first of its range", "tx rule s_ports", dport=5000),
    udp4("a list of ports meets the last of its range", "tx rule s_ports", dport=5010),
    udp4("a list of ports does not meet above its range", "pass default", dport=5011),
    udp4("a list of ports does not meet the source port", "pass default", sport=53),
    row(
        "a list of ports does not meet icmp",
        "addresses",
        eth(ipv4(icmp())),
        "pass default",
        four(ICMP),
    ),
]


def _all_of(
    name: str, outcome: str, *, sport: int = 443, dport: int = 5060, src: str = A4, dst: str = B4
) -> Row:
    """A row of SCTP for the rule of both addresses and both ports."""
    packet = ipv4(sctp(sport=sport, dport=dport), src=src, dst=dst)
    return row(name, "addresses", eth(packet), outcome, four(SCTP, sport, dport, src=src, dst=dst))


_BOTH_ENDS = [
    _all_of("from and to with ports all hold", "drop rule s_all"),
    _all_of("from and to with ports all but the source hold", "pass default", src="10.1.1.1"),
    _all_of("from and to with ports all but the source port hold", "pass default", sport=444),
    _all_of("from and to with ports all but the destination hold", "pass default", dst="10.3.0.2"),
    _all_of("from and to with ports all but the destination port hold", "pass default", dport=5061),
    row(
        "a set of both families and an ipv4 destination do not meet ipv6",
        "addresses",
        eth(ipv6(sctp(sport=443))),
        "pass default",
        six(SCTP, 443, 5060),
    ),
]


ROWS: tuple[Row, ...] = (*_ADDRESSES, *_BOTH_ENDS)
