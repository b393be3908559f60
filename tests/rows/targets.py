"""Rows about rules that hand packets to AF_XDP targets."""

from __future__ import annotations

from tests.frames import ACK, TCP, UDP, arp, eth, fragment, ipv4, ipv6, tcp, udp, vlan
from tests.rows.base import Row, four, not_ip, row, six, tcp4, udp4, udp6

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (
    udp4(
        "a packet goes to the target of its rule, else it passes",
        "af_xdp rule t_over else pass",
        policy="targets",
        dport=4789,
    ),
    udp6(
        "an ipv6 packet goes to the target of its rule, else it is dropped",
        "af_xdp rule t_echo else drop",
        policy="targets",
        dport=7,
    ),
    udp4(
        "a rule before the one with a target wins",
        "pass rule t_keep",
        policy="targets",
        src="10.1.0.99",
        dport=4789,
    ),
    tcp4(
        "two rules share a target and each has its own else",
        "af_xdp rule t_syn else drop",
        policy="targets",
    ),
    tcp4(
        "a target has another else on another port",
        "af_xdp rule t_right else pass",
        policy="targets",
        port="right",
    ),
    row(
        "a packet that is not ip goes to a target, tag and all",
        "targets",
        eth(vlan(10), arp()),
        "af_xdp rule t_arp else pass",
        not_ip(10),
    ),
    row(
        "a later fragment goes to a target",
        "targets",
        eth(ipv6(udp(bytes(120)), fragment(offset=8), part=slice(64, None))),
        "af_xdp rule t_later else drop",
        six(UDP, frag="later"),
    ),
    row(
        "a packet that no rule decides goes to no target",
        "targets",
        eth(ipv4(tcp(flags=ACK))),
        "drop default",
        four(TCP, 40000, 80, ACK),
    ),
)
