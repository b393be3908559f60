"""What the seeds of ClassBench say (Taylor and Turner, INFOCOM 2005), rounded: lengths of
prefixes, kinds of port ranges and protocols, as (weight, value) each."""

from __future__ import annotations

from typing import Any

from tests.frames import ESP, GRE, ICMP, TCP, UDP

__all__ = ["LENGTHS", "LENGTHS6", "PORT_KINDS", "PROTOCOLS", "SERVICES"]

_Table = tuple[tuple[int, Any], ...]

# A length of 0 is "any".
LENGTHS: dict[str, dict[str, _Table]] = {
    "acl": {
        "src": ((30, 0), (5, 16), (10, 24), (5, 26), (10, 28), (40, 32)),
        "dst": ((5, 0), (5, 16), (20, 24), (10, 27), (10, 30), (50, 32)),
    },
    "fw": {
        "src": ((50, 0), (5, 8), (10, 16), (15, 24), (20, 32)),
        "dst": ((35, 0), (5, 16), (20, 24), (5, 28), (35, 32)),
    },
    "ipc": {
        "src": ((20, 0), (5, 13), (10, 16), (5, 20), (25, 24), (5, 28), (30, 32)),
        "dst": ((20, 0), (5, 12), (10, 16), (5, 21), (25, 24), (5, 29), (30, 32)),
    },
}
# wc: any, hi: 1024-65535, lo: 0-1023, ar: another range, em: one port.
PORT_KINDS: dict[str, dict[str, _Table]] = {
    "acl": {
        "sport": ((98, "wc"), (2, "hi")),
        "dport": ((20, "wc"), (8, "hi"), (12, "ar"), (60, "em")),
    },
    "fw": {
        "sport": ((70, "wc"), (20, "hi"), (10, "em")),
        "dport": ((30, "wc"), (10, "hi"), (3, "lo"), (12, "ar"), (45, "em")),
    },
    "ipc": {
        "sport": ((60, "wc"), (15, "hi"), (5, "ar"), (20, "em")),
        "dport": ((35, "wc"), (10, "hi"), (10, "ar"), (45, "em")),
    },
}
PROTOCOLS: dict[str, _Table] = {
    "acl": ((75, TCP), (15, UDP), (3, ICMP), (7, None)),
    "fw": ((60, TCP), (25, UDP), (5, ICMP), (2, GRE), (2, ESP), (6, None)),
    "ipc": ((45, TCP), (35, UDP), (8, ICMP), (12, None)),
}
SERVICES = (
    *(20, 21, 22, 23, 25, 53, 67, 80, 88, 110, 111, 119, 123, 135, 137, 139, 143, 161, 179, 389),
    *(443, 445, 514, 587, 636, 993, 1433, 1521, 1723, 2049, 3128, 3306, 3389, 5060, 8080),
)
# A prefix length of IPv4 and the one that networks have in its place in IPv6.
LENGTHS6 = {8: 29, 12: 32, 13: 32, 16: 36, 20: 40, 21: 44, 24: 48, 26: 52, 27: 56, 28: 60, 29: 62}
LENGTHS6 |= {30: 64, 32: 128, 0: 0}
