"""Rows about the settings of a policy: default, malformed, fragments, guard."""

from __future__ import annotations

from tests.frames import (
    EAPOL,
    HOPOPTS,
    ICMP6,
    LLDP,
    SLOW,
    SYN,
    TCP,
    TEST_TYPE,
    UDP,
    arp,
    eth,
    extension,
    fragment,
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

_LONG = bytes(range(64))
_NS = icmp6(135, 0, bytes(20))
_LLDP = eth(raw(LLDP, bytes(46)), dst="01:80:c2:00:00:0e")
_SLOW = eth(raw(SLOW, b"\x01\x01" + bytes(108)), dst="01:80:c2:00:00:02")
_EAPOL = eth(raw(EAPOL, b"\x01\x01\x00\x00" + bytes(42)), dst="01:80:c2:00:00:03")
_OFFER = udp(bytes(240), sport=67, dport=68)
_ADVERTISE = udp(bytes(60), sport=547, dport=546)

_MALFORMED = [
    row("a frame of 13 bytes passes as malformed", "malformed_pass", _LLDP[:13], "pass malformed"),
    row(
        "a malformed ipv4 packet passes as malformed before a rule drops it",
        "malformed_pass",
        eth(ipv4(udp(), ihl=4)),
        "pass malformed",
    ),
    row(
        "a malformed ipv6 packet passes as malformed before a rule drops it",
        "malformed_pass",
        eth(ipv6(udp(), payload_length=9)),
        "pass malformed",
    ),
    row(
        "three tags pass as malformed before a rule drops them",
        "malformed_pass",
        eth(vlan(1), vlan(2), vlan(3), arp()),
        "pass malformed",
    ),
    row(
        "a cut tcp header passes as malformed",
        "malformed_pass",
        eth(ipv4(tcp(), part=slice(0, 19))),
        "pass malformed",
    ),
    row(
        "nine ipv6 headers pass as malformed",
        "malformed_pass",
        eth(ipv6(tcp(), *[extension(60)] * 9)),
        "pass malformed",
    ),
    row(
        "a tiny first fragment is malformed before it is a fragment",
        "malformed_pass",
        eth(ipv4(tcp(_LONG), part=slice(0, 16), mf=True)),
        "pass malformed",
    ),
    row(
        "an ipv6 tiny first fragment is malformed before it is a fragment",
        "malformed_pass",
        eth(ipv6(tcp(_LONG), fragment(more=True), part=slice(0, 16))),
        "pass malformed",
    ),
    row(
        "a cut neighbour solicitation is malformed before it is guarded",
        "malformed_pass",
        eth(ipv6(_NS, hop_limit=255, part=slice(0, 3))),
        "pass malformed",
    ),
    row(
        "a malformed dhcp answer is malformed before it is guarded",
        "guard",
        eth(ipv4(udp(bytes(240), sport=67, dport=68, length=7))),
        "drop malformed",
    ),
    row(
        "a malformed tcp packet is malformed before a rule passes it",
        "guard",
        eth(ipv4(tcp(data_offset=4))),
        "drop malformed",
    ),
    row(
        "a whole packet is dropped by its rule where malformed ones pass",
        "malformed_pass",
        eth(ipv4(tcp())),
        "drop rule all4",
        four(TCP, 40000, 80, SYN),
    ),
    row(
        "a whole ipv6 packet is dropped by its rule where malformed ones pass",
        "malformed_pass",
        eth(ipv6(tcp())),
        "drop rule all6",
        six(TCP, 40000, 80, SYN),
    ),
    row(
        "a tag is met where malformed ones pass",
        "malformed_pass",
        eth(vlan(1), raw(TEST_TYPE, bytes(46))),
        "drop rule tagged",
        not_ip(1),
    ),
    row(
        "arp is guarded where malformed ones pass",
        "malformed_pass",
        eth(arp()),
        "pass guard",
        not_ip(),
    ),
]

_FRAGMENTS = [
    row(
        "fragments drop drops a first fragment before a rule passes it",
        "fragments_drop",
        eth(ipv4(tcp(_LONG), part=slice(0, 24), mf=True)),
        "drop fragment",
        four(TCP, 40000, 80, SYN, frag="first"),
    ),
    row(
        "fragments drop drops a later fragment before a rule sends it back",
        "fragments_drop",
        eth(ipv4(tcp(_LONG), part=slice(24, None), offset=3)),
        "drop fragment",
        four(TCP, frag="later"),
    ),
    row(
        "fragments drop drops a middle fragment",
        "fragments_drop",
        eth(ipv4(udp(_LONG), part=slice(24, 48), offset=3, mf=True)),
        "drop fragment",
        four(UDP, frag="later"),
    ),
    row(
        "fragments drop drops an ipv6 first fragment",
        "fragments_drop",
        eth(ipv6(udp(_LONG), fragment(more=True), part=slice(0, 24))),
        "drop fragment",
        six(UDP, 40000, 53, frag="first"),
    ),
    row(
        "fragments drop drops an ipv6 later fragment",
        "fragments_drop",
        eth(ipv6(udp(_LONG), fragment(offset=3), part=slice(24, None))),
        "drop fragment",
        six(UDP, frag="later"),
    ),
    row(
        "fragments drop does not drop an atomic fragment",
        "fragments_drop",
        eth(ipv6(tcp(), fragment())),
        "pass rule web",
        six(TCP, 40000, 80, SYN),
    ),
    row(
        "fragments drop does not drop a whole ipv4 packet",
        "fragments_drop",
        eth(ipv4(udp(), df=True)),
        "tx rule all4",
        four(UDP, 40000, 53),
    ),
    row(
        "fragments drop does not drop a whole ipv6 packet",
        "fragments_drop",
        eth(ipv6(udp())),
        "tx rule all6",
        six(UDP, 40000, 53),
    ),
    row("fragments drop does not drop arp", "fragments_drop", eth(arp()), "pass default", not_ip()),
    row(
        "fragments drop leaves a malformed later fragment malformed",
        "fragments_drop",
        eth(ipv4(udp(_LONG), part=slice(24, None), offset=3, total_length=69)),
        "drop malformed",
    ),
    row(
        "fragments drop drops a fragment of a dhcp answer before guard passes it",
        "malformed_pass",
        eth(ipv4(_OFFER, part=slice(0, 64), mf=True)),
        "drop fragment",
        four(UDP, 67, 68, frag="first"),
    ),
]

_GUARD = [
    row("guard passes arp", "guard", eth(arp()), "pass guard", not_ip()),
    row("guard passes arp behind a tag", "guard", eth(vlan(9), arp()), "pass guard", not_ip(9)),
    row(
        "guard does not pass reverse arp",
        "guard",
        eth(raw(0x8035, bytes(46))),
        "drop default",
        not_ip(),
    ),
    row("guard passes slow protocols", "guard", _SLOW, "pass guard", not_ip()),
    row(
        "guard does not pass the type above slow protocols",
        "guard",
        eth(raw(0x880A, bytes(46))),
        "drop default",
        not_ip(),
    ),
    row("guard passes lldp", "guard", _LLDP, "pass guard", not_ip()),
    row(
        "guard does not pass the type above lldp",
        "guard",
        eth(raw(0x88CD, bytes(46))),
        "drop default",
        not_ip(),
    ),
    row("guard passes eapol", "guard", _EAPOL, "pass guard", not_ip()),
    row(
        "guard does not pass the type above eapol",
        "guard",
        eth(raw(0x888F, bytes(46))),
        "drop default",
        not_ip(),
    ),
    *(
        row(
            f"guard passes icmp6 type {kind}",
            "guard",
            eth(ipv6(icmp6(kind, 0, bytes(20)), hop_limit=255)),
            "pass guard",
            six(ICMP6),
        )
        for kind in range(133, 138)
    ),
    *(
        row(
            f"guard does not pass icmp6 type {kind}",
            "guard",
            eth(ipv6(icmp6(kind, 0, bytes(20)), hop_limit=255)),
            "drop default",
            six(ICMP6),
        )
        for kind in (128, 132, 138)
    ),
    row(
        "guard does not pass icmp6 type 135 with hop limit 254",
        "guard",
        eth(ipv6(_NS, hop_limit=254)),
        "drop default",
        six(ICMP6),
    ),
    row(
        "guard does not pass icmp6 type 135 with hop limit 64",
        "guard",
        eth(ipv6(_NS)),
        "drop default",
        six(ICMP6),
    ),
    row(
        "guard does not pass icmp6 type 135 over ipv4 with ttl 255",
        "guard",
        eth(ipv4(_NS, ttl=255)),
        "drop default",
        four(ICMP6),
    ),
    row(
        "guard passes icmp6 type 135 behind hop-by-hop",
        "guard",
        eth(ipv6(_NS, extension(HOPOPTS), hop_limit=255)),
        "pass guard",
        six(ICMP6),
    ),
    row(
        "guard passes icmp6 type 136 behind a tag",
        "guard",
        eth(vlan(9), ipv6(icmp6(136, 0, bytes(20)), hop_limit=255)),
        "pass guard",
        six(ICMP6, vlan=9),
    ),
    row(
        "guard does not pass a later fragment of icmp6",
        "guard",
        eth(ipv6(_NS, fragment(offset=1), hop_limit=255)),
        "drop default",
        six(ICMP6, frag="later"),
    ),
    row("guard passes udp 67 to 68", "guard", eth(ipv4(_OFFER)), "pass guard", four(UDP, 67, 68)),
    row(
        "guard does not pass udp 68 to 67",
        "guard",
        eth(ipv4(udp(bytes(240), sport=68, dport=67))),
        "drop default",
        four(UDP, 68, 67),
    ),
    row(
        "guard does not pass udp 67 to 69",
        "guard",
        eth(ipv4(udp(sport=67, dport=69))),
        "drop default",
        four(UDP, 67, 69),
    ),
    row(
        "guard does not pass udp 66 to 68",
        "guard",
        eth(ipv4(udp(sport=66, dport=68))),
        "drop default",
        four(UDP, 66, 68),
    ),
    row(
        "guard does not pass tcp 67 to 68",
        "guard",
        eth(ipv4(tcp(sport=67, dport=68))),
        "drop default",
        four(TCP, 67, 68, SYN),
    ),
    row(
        "guard passes a first fragment of udp 67 to 68",
        "guard",
        eth(ipv4(_OFFER, part=slice(0, 64), mf=True)),
        "pass guard",
        four(UDP, 67, 68, frag="first"),
    ),
    row(
        "guard does not pass a later fragment of udp 67 to 68",
        "guard",
        eth(ipv4(_OFFER, offset=8)),
        "drop default",
        four(UDP, frag="later"),
    ),
    row(
        "guard passes udp 547 to 546",
        "guard",
        eth(ipv6(_ADVERTISE)),
        "pass guard",
        six(UDP, 547, 546),
    ),
    row(
        "guard does not pass udp 546 to 547",
        "guard",
        eth(ipv6(udp(sport=546, dport=547))),
        "drop default",
        six(UDP, 546, 547),
    ),
    row(
        "guard does not pass udp 547 to 68",
        "guard",
        eth(ipv6(udp(sport=547, dport=68))),
        "drop default",
        six(UDP, 547, 68),
    ),
    row(
        "guard leaves what a rule passes to the rule",
        "guard",
        eth(ipv4(tcp())),
        "pass rule g_web",
        four(TCP, 40000, 80, SYN),
    ),
    row(
        "guard does not pass other tcp",
        "guard",
        eth(ipv4(tcp(dport=81))),
        "drop default",
        four(TCP, 40000, 81, SYN),
    ),
    row(
        "guard does not pass an unknown type",
        "guard",
        eth(raw(TEST_TYPE, bytes(46))),
        "drop default",
        not_ip(),
    ),
]

_OFF = [
    row("without guard the default drops arp", "guard_off", eth(arp()), "drop default", not_ip()),
    row(
        "without guard the default drops slow protocols",
        "guard_off",
        _SLOW,
        "drop default",
        not_ip(),
    ),
    row("without guard the default drops lldp", "guard_off", _LLDP, "drop default", not_ip()),
    row("without guard the default drops eapol", "guard_off", _EAPOL, "drop default", not_ip()),
    row(
        "without guard the default drops icmp6 type 135",
        "guard_off",
        eth(ipv6(_NS, hop_limit=255)),
        "drop default",
        six(ICMP6),
    ),
    row(
        "without guard the default drops udp 67 to 68",
        "guard_off",
        eth(ipv4(_OFFER)),
        "drop default",
        four(UDP, 67, 68),
    ),
    row(
        "without guard the default drops udp 547 to 546",
        "guard_off",
        eth(ipv6(_ADVERTISE)),
        "drop default",
        six(UDP, 547, 546),
    ),
    row(
        "without guard a rule passes",
        "guard_off",
        eth(ipv6(tcp())),
        "pass rule g_web",
        six(TCP, 40000, 80, SYN),
    ),
]

_AGAINST = [
    row(
        "a rule that drops arp wins against guard",
        "guard_rules",
        eth(arp()),
        "drop rule r_arp",
        not_ip(),
    ),
    row(
        "a rule that sends lldp back wins against guard",
        "guard_rules",
        _LLDP,
        "tx rule r_lldp",
        not_ip(),
    ),
    row(
        "a rule that drops icmp6 type 135 wins against guard",
        "guard_rules",
        eth(ipv6(_NS, hop_limit=255)),
        "drop rule r_ns",
        six(ICMP6),
    ),
    row(
        "guard passes icmp6 type 136 beside a rule about 135",
        "guard_rules",
        eth(ipv6(icmp6(136, 0, bytes(20)), hop_limit=255)),
        "pass guard",
        six(ICMP6),
    ),
    row(
        "a rule that drops udp from port 67 wins against guard",
        "guard_rules",
        eth(ipv4(_OFFER)),
        "drop rule r_dhcp",
        four(UDP, 67, 68),
    ),
    row(
        "guard passes udp 547 to 546 beside a rule about 67",
        "guard_rules",
        eth(ipv6(_ADVERTISE)),
        "pass guard",
        six(UDP, 547, 546),
    ),
    row(
        "a rule about tags wins against guard",
        "guard_rules",
        eth(vlan(9), raw(EAPOL, b"\x01\x01\x00\x00")),
        "drop rule r_lan",
        not_ip(9),
    ),
    row("guard passes eapol that no rule decides", "guard_rules", _EAPOL, "pass guard", not_ip()),
    row(
        "guard passes slow protocols that no rule decides",
        "guard_rules",
        _SLOW,
        "pass guard",
        not_ip(),
    ),
]

ROWS: tuple[Row, ...] = (*_MALFORMED, *_FRAGMENTS, *_GUARD, *_OFF, *_AGAINST)
