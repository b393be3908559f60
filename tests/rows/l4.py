"""Rows about TCP, UDP, SCTP, ICMP and ICMPv6: headers, flags, types."""

from __future__ import annotations

from collections.abc import Callable

from tests.frames import (
    ACK,
    CWR,
    ECE,
    FIN,
    ICMP,
    ICMP6,
    PSH,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    URG,
    Layer,
    Segment,
    eth,
    icmp,
    icmp6,
    ipv4,
    ipv6,
    sctp,
    tcp,
    udp,
)
from tests.rows.base import Key, Row, four, row, six

__all__ = ["ROWS"]

_BOTH: tuple[tuple[str, Callable[..., Layer], Callable[..., Key]], ...] = (
    ("ipv4", ipv4, four),
    ("ipv6", ipv6, six),
)


def _headers(over: str, ip: Callable[..., Layer], key: Callable[..., Key]) -> list[Row]:
    """The rows about one layer 4 header, over either family."""

    def bad(name: str, segment: Segment, **fields: object) -> Row:
        return row(
            f"{name} over {over} is malformed",
            "parse",
            eth(ip(segment, **fields)),
            "drop malformed",
        )

    def good(name: str, segment: Segment, outcome: str, want: Key, **fields: object) -> Row:
        return row(
            f"{name} over {over} is read", "parse", eth(ip(segment, **fields)), outcome, want
        )

    rest = "tx rule all4" if over == "ipv4" else "tx rule all6"
    http = key(TCP, 40000, 80, SYN)
    dns = key(UDP, 40000, 53)
    sip = key(SCTP, 40000, 5060)
    return [
        bad("a tcp header of 0 bytes", tcp(), part=slice(0, 0)),
        bad("a tcp header of 4 bytes", tcp(), part=slice(0, 4)),
        bad("a tcp header of 19 bytes", tcp(), part=slice(0, 19)),
        good("a tcp header of 20 bytes", tcp(), "pass rule web", http),
        bad("tcp with data offset 0", tcp(data_offset=0)),
        bad("tcp with data offset 4", tcp(data_offset=4)),
        bad("tcp with data offset 6 beyond the packet", tcp(data_offset=6)),
        bad("tcp with data offset 15 one byte beyond", tcp(bytes(39), data_offset=15)),
        good(
            "tcp with data offset 15 all there",
            tcp(bytes(40), data_offset=15),
            "pass rule web",
            http,
        ),
        good("tcp with 12 bytes of options", tcp(options=bytes(12)), "pass rule web", http),
        good("tcp with its reserved bits", tcp(reserved=15), "pass rule web", http),
        good("tcp to another port", tcp(dport=81), rest, key(TCP, 40000, 81, SYN)),
        bad("a udp header of 0 bytes", udp(), part=slice(0, 0)),
        bad("a udp header of 7 bytes", udp(), part=slice(0, 7)),
        good("a udp header of 8 bytes", udp(), "pass rule dns", dns),
        bad("udp with length 0", udp(b"xy", length=0)),
        bad("udp with length 7", udp(b"xy", length=7)),
        good("udp with length 8 before more bytes", udp(b"xy", length=8), "pass rule dns", dns),
        good("udp with length one below", udp(b"xy", length=9), "pass rule dns", dns),
        good("udp with length exactly there", udp(b"xy", length=10), "pass rule dns", dns),
        bad("udp with length one above", udp(b"xy", length=11)),
        bad("udp with length 65535", udp(b"xy", length=65535)),
        bad("an sctp header of 11 bytes", sctp(), part=slice(0, 11)),
        good("an sctp header of 12 bytes", sctp(), "pass rule sig", sip),
        good("sctp to another port", sctp(dport=5061), rest, key(SCTP, 40000, 5061)),
        bad("an icmp header of 0 bytes", icmp(), part=slice(0, 0)),
        bad("an icmp header of 7 bytes", icmp(), part=slice(0, 7)),
        good("an icmp header of 8 bytes", icmp(), "pass rule ping", key(ICMP)),
        bad("an icmp6 header of 0 bytes", icmp6(), part=slice(0, 0)),
        bad("an icmp6 header of 3 bytes", icmp6(), part=slice(0, 3)),
        good("an icmp6 header of 4 bytes", icmp6(128, 0, b""), "pass rule ping6", key(ICMP6)),
        good("an icmp echo answer", icmp(0), rest, key(ICMP)),
        good("an icmp6 echo answer", icmp6(129), rest, key(ICMP6)),
    ]


_FLAGS: tuple[tuple[str, int, str], ...] = (
    ("all eight flags meet the rule of all", 0xFF, "drop rule f_all"),
    ("no flag meets the rule of none", 0, "drop rule f_null"),
    ("syn and fin meet syn,fin", SYN | FIN, "drop rule f_synfin"),
    ("syn and fin and ack meet syn,fin", SYN | FIN | ACK, "drop rule f_synfin"),
    ("syn meets syn,!ack", SYN, "tx rule f_open"),
    ("syn with ece and cwr meets syn,!ack", SYN | ECE | CWR, "tx rule f_open"),
    ("syn and ack do not meet syn,!ack", SYN | ACK, "pass default"),
    ("ack alone does not meet syn,!ack", ACK, "pass default"),
    ("rst meets rst", RST, "drop rule f_rst"),
    ("rst and ack meet rst", RST | ACK, "drop rule f_rst"),
    ("urg and ack meet urg", URG | ACK, "drop rule f_urg"),
    ("ece and ack meet ece,!cwr", ECE | ACK, "drop rule f_ece"),
    ("ece and cwr and ack do not meet ece,!cwr", ECE | CWR | ACK, "tx rule f_cwr"),
    ("cwr and ack meet cwr", CWR | ACK, "tx rule f_cwr"),
    ("psh meets psh,!ack", PSH, "drop rule f_psh"),
    ("psh and ack do not meet psh,!ack", PSH | ACK, "pass default"),
    ("fin meets fin,!ack", FIN, "drop rule f_fin"),
    ("fin and ack do not meet fin,!ack", FIN | ACK, "pass default"),
    ("all flags but fin do not meet the rule of all", 0xFE, "drop rule f_rst"),
    ("all flags but syn do not meet the rule of all", 0xFD, "drop rule f_rst"),
    ("all flags but rst do not meet the rule of all", 0xFB, "drop rule f_synfin"),
    ("all flags but psh do not meet the rule of all", 0xF7, "drop rule f_synfin"),
    ("all flags but ack do not meet the rule of all", 0xEF, "drop rule f_synfin"),
    ("all flags but urg do not meet the rule of all", 0xDF, "drop rule f_synfin"),
    ("all flags but ece do not meet the rule of all", 0xBF, "drop rule f_synfin"),
    ("all flags but cwr do not meet the rule of all", 0x7F, "drop rule f_synfin"),
)
_FLAG_ROWS = [
    *(
        row(
            f"{name} over {over}",
            "l4",
            eth(ip(tcp(flags=flags))),
            outcome,
            key(TCP, 40000, 80, flags),
        )
        for over, ip, key in _BOTH
        for name, flags, outcome in _FLAGS
        # The eight near misses of all flags differ in no header but that of TCP.
        if over == "ipv4" or not name.startswith("all flags but")
    ),
    row(
        "the reserved bits of tcp are no flags",
        "l4",
        eth(ipv4(tcp(flags=0, reserved=15))),
        "drop rule f_null",
        four(TCP, 40000, 80, 0),
    ),
    row(
        "ack and port 8080 both hold",
        "l4",
        eth(ipv4(tcp(dport=8080, flags=ACK))),
        "tx rule f_ack",
        four(TCP, 40000, 8080, ACK),
    ),
    row(
        "syn and ack to port 8080 meet ack",
        "l4",
        eth(ipv6(tcp(dport=8080, flags=SYN | ACK))),
        "tx rule f_ack",
        six(TCP, 40000, 8080, SYN | ACK),
    ),
    row(
        "udp whose bytes look like all flags has none",
        "l4",
        eth(ipv4(udp(b"\xff" * 12))),
        "pass default",
        four(UDP, 40000, 53),
    ),
    row(
        "udp whose bytes look like no flag does not meet the rule of none",
        "l4",
        eth(ipv6(udp(bytes(12)))),
        "pass default",
        six(UDP, 40000, 53),
    ),
    row(
        "sctp whose bytes look like syn has no flags",
        "l4",
        eth(ipv4(sctp(b"\x02" * 8))),
        "pass default",
        four(SCTP, 40000, 5060),
    ),
    row(
        "a later fragment whose bytes look like syn has no flags",
        "l4",
        eth(ipv4(tcp(), offset=1)),
        "pass default",
        four(TCP, frag="later"),
    ),
    row(
        "a first fragment of tcp has flags",
        "l4",
        eth(ipv4(tcp(bytes(4)), mf=True)),
        "tx rule f_open",
        four(TCP, 40000, 80, SYN, frag="first"),
    ),
]

_TYPES = [
    row("icmp type 8 meets an echo", "l4", eth(ipv4(icmp(8))), "drop rule t_ping", four(ICMP)),
    row(
        "icmp type 8 meets any code", "l4", eth(ipv4(icmp(8, 255))), "drop rule t_ping", four(ICMP)
    ),
    row(
        "icmp type 8 meets protocol 1 over ipv6",
        "l4",
        eth(ipv6(icmp(8))),
        "drop rule t_ping",
        six(ICMP),
    ),
    row("icmp type 8 does not meet type 7", "l4", eth(ipv4(icmp(7))), "pass default", four(ICMP)),
    row("icmp type 8 does not meet type 9", "l4", eth(ipv4(icmp(9))), "pass default", four(ICMP)),
    row(
        "icmp type 8 does not meet icmp6 type 8",
        "l4",
        eth(ipv6(icmp6(8))),
        "pass default",
        six(ICMP6),
    ),
    row(
        "icmp6 type 128 meets an echo", "l4", eth(ipv6(icmp6(128))), "drop rule t_ping6", six(ICMP6)
    ),
    row(
        "icmp6 type 128 does not meet type 129",
        "l4",
        eth(ipv6(icmp6(129))),
        "pass default",
        six(ICMP6),
    ),
    row(
        "icmp6 type 128 does not meet icmp type 128",
        "l4",
        eth(ipv4(icmp(128))),
        "pass default",
        four(ICMP),
    ),
    row(
        "icmp6 type 128 meets protocol 58 over ipv4",
        "l4",
        eth(ipv4(icmp6(128))),
        "drop rule t_ping6",
        four(ICMP6),
    ),
    row("icmp type 3 code 4 meets both", "l4", eth(ipv4(icmp(3, 4))), "drop rule t_df", four(ICMP)),
    row(
        "icmp type 3 code 4 does not meet code 3",
        "l4",
        eth(ipv4(icmp(3, 3))),
        "pass default",
        four(ICMP),
    ),
    row(
        "icmp type 3 code 4 does not meet code 0",
        "l4",
        eth(ipv4(icmp(3, 0))),
        "pass default",
        four(ICMP),
    ),
    row(
        "icmp type 3 code 4 does not meet type 4 code 3",
        "l4",
        eth(ipv4(icmp(4, 3))),
        "pass default",
        four(ICMP),
    ),
    row(
        "icmp6 type 2 meets packet too big",
        "l4",
        eth(ipv6(icmp6(2))),
        "drop rule t_big",
        six(ICMP6),
    ),
    row(
        "icmp6 type 1 code 1 meets both",
        "l4",
        eth(ipv6(icmp6(1, 1))),
        "drop rule t_adm",
        six(ICMP6),
    ),
    row(
        "icmp6 type 1 code 1 does not meet code 0",
        "l4",
        eth(ipv6(icmp6(1, 0))),
        "pass default",
        six(ICMP6),
    ),
    row("type 13 meets icmp", "l4", eth(ipv4(icmp(13, 0, bytes(12)))), "tx rule t_any", four(ICMP)),
    row("type 13 meets icmp6", "l4", eth(ipv6(icmp6(13))), "tx rule t_any", six(ICMP6)),
    row(
        "type 13 does not meet udp from port 3328, whose first byte is 13",
        "l4",
        eth(ipv4(udp(sport=3328))),
        "pass default",
        four(UDP, 3328, 53),
    ),
    row(
        "type 255 code 255 meets icmp", "l4", eth(ipv4(icmp(255, 255))), "tx rule t_end", four(ICMP)
    ),
    row(
        "type 255 code 255 meets icmp6",
        "l4",
        eth(ipv6(icmp6(255, 255))),
        "tx rule t_end",
        six(ICMP6),
    ),
    row(
        "type 255 code 255 does not meet code 254",
        "l4",
        eth(ipv6(icmp6(255, 254))),
        "pass default",
        six(ICMP6),
    ),
    row(
        "a type does not meet a later fragment",
        "l4",
        eth(ipv4(icmp(8), offset=5)),
        "pass default",
        four(ICMP, frag="later"),
    ),
]

ROWS: tuple[Row, ...] = (
    *(found for family in _BOTH for found in _headers(*family)),
    *_FLAG_ROWS,
    *_TYPES,
)
