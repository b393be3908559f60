"""Events in words, for people:

eth0 drop  rule bad        192.0.2.7:53 > 198.51.100.1:4242 udp 74
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from xdpgw import _abi as abi
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.words import flags_text, protocol_text

if TYPE_CHECKING:
    from xdpgw.events import EventBatch

__all__ = ["addresses", "descriptions", "members"]


def members(batch: EventBatch) -> Iterator[dict[str, str | int]]:
    """Of each event what is known of it, by the names of the JSON lines."""
    for line in batch.json_lines().splitlines():
        yield {name: x for name, x in msgspec.json.decode(line).items() if x is not None}


def descriptions(batch: EventBatch) -> Iterator[str]:
    """Of each event: port, verdict, reason and packet, without its time."""
    rows = [batch.events[name].tolist() for name in _FIELDS]
    for src, dst, *row in zip(*addresses(batch), *rows, strict=True):
        event = dict(zip(_FIELDS, row, strict=True))
        yield " ".join(
            (
                batch.names.port(event["port"]) or f"port#{event['port']}",
                f"{Verdict(event['verdict']).text:<5}",
                f"{_reason(event, batch):<15}",
                _packet(event, src, dst),
            )
        )


_FIELDS = (
    "port", "verdict", "reason", "rule", "family", "proto", "sport", "dport", "tcp_flags",
    "icmp_type", "icmp_code", "ethertype", "vlan", "frag", "has", "len_bytes",
)  # fmt: skip


def addresses(batch: EventBatch) -> tuple[list[str], list[str]]:
    """Sources and destinations of all events; "" where there is none."""
    events = batch.events
    families = events["family"].tolist()
    src, dst = (
        [_address(family, raw) for family, raw in zip(families, column, strict=True)]
        for column in (_raw(events["src"]), _raw(events["dst"]))
    )
    return src, dst


def _raw(column: Any) -> list[bytes]:
    joined = column.tobytes()
    return [joined[at : at + 16] for at in range(0, len(joined), 16)]


@lru_cache(maxsize=65536)
def _address(family: int, raw: bytes) -> str:
    if family == 4:
        return str(ipaddress.IPv4Address(raw[:4]))
    return str(ipaddress.IPv6Address(raw)) if family == 6 else ""


def _reason(event: dict[str, int], batch: EventBatch) -> str:
    reason: str = Reason(event["reason"]).text
    if event["rule"] == abi.NO_RULE:
        return reason
    return f"{reason} {batch.names.rule(event['rule']) or '#' + str(event['rule'])}"


def _packet(event: dict[str, int], src: str, dst: str) -> str:
    has = event["has"]
    words = []
    if event["vlan"] != abi.VLAN_NONE:
        words.append(f"vlan {event['vlan']}")
    if src:
        ends = (src, dst)
        if has & Has.PORTS:
            ends = (_end(src, event["sport"]), _end(dst, event["dport"]))
        words.append(f"{ends[0]} > {ends[1]}")
        if has & Has.PROTO:
            words.append(protocol_text(event["proto"]))
    elif has & Has.ETHERTYPE:
        words.append(f"ether 0x{event['ethertype']:04x}")
    if has & Has.TCP_FLAGS:
        words.append(flags_text(event["tcp_flags"]))
    if has & Has.ICMP:
        words.append(f"type {event['icmp_type']} code {event['icmp_code']}")
    if event["frag"] in (Frag.FIRST, Frag.LATER):
        words.append(f"frag {Frag(event['frag']).name.lower()}")
    words.append(str(event["len_bytes"]))
    return " ".join(words)


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
