"""The words of the policy language for numbers of headers, and back; and the time of day."""

from __future__ import annotations

import time
from functools import lru_cache

__all__ = ["FLAGS", "PROTOCOLS", "flags_text", "protocol_text", "time_text"]

PROTOCOLS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmp6": 58,
    "sctp": 132,
}
"""IP protocol numbers (IANA) by their word."""

FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
"""Bits of byte 13 of a TCP header (RFC 9293) by their word."""

_WORD_OF = {number: word for word, number in PROTOCOLS.items()}


def protocol_text(number: int) -> str:
    """A protocol as a match of the language: `udp`, or `proto 253`."""
    return _WORD_OF.get(number) or f"proto {number}"


def flags_text(flags: int) -> str:
    """The TCP flags that are set, as in `syn,ack`; `no flags` for 0."""
    return ",".join(word for word, bit in FLAGS.items() if flags & bit) or "no flags"


@lru_cache(maxsize=2)
def _second_text(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


def time_text(realtime_ns: int) -> str:
    """The local time of day, to the microsecond; CLOCK_REALTIME in ns."""
    second, ns = divmod(realtime_ns, 1_000_000_000)
    return f"{_second_text(second)}.{ns // 1000:06}"
