"""Events on standard output, a line each, for people:

    12:00:01.123456 eth0 drop  rule bad        192.0.2.7:53 > 198.51.100.1:4242 udp 74

or, in the style `sourceip`, the source address alone.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

from xdpgw import _abi as abi
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.errors import XdpgwError
from xdpgw.sinks import SinkGoneError
from xdpgw.words import flags_text, protocol_text, time_text

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["STYLES", "StdoutSink", "make"]


class StdoutSink:
    """Writes lines to a stream."""

    name = "stdout"

    def __init__(self, style: str = "line", stream: BinaryIO | None = None) -> None:
        """Write to a stream.

        Args:
            style: a key of `STYLES`.
            stream: standard output if None; not closed with the sink.
        """
        if style not in STYLES:
            raise XdpgwError(f"no such style of stdout: {style}", f"there are {', '.join(STYLES)}")
        self._lines = STYLES[style]
        self._given = stream

    @property
    def _stream(self) -> BinaryIO:
        return self._given or sys.stdout.buffer

    def write(self, batch: EventBatch) -> None:
        """Write a line an event."""
        lines = list(self._lines(batch))
        if lines:
            self._guarded(lambda: self._stream.write("\n".join([*lines, ""]).encode()))

    def flush(self) -> None:
        """Show what was written."""
        self._guarded(self._stream.flush)

    def close(self) -> None:
        """Show what was written."""
        self._guarded(self._stream.flush)

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BrokenPipeError as error:
            if self._given is None:
                # Else the interpreter's own flush at exit complains of it.
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, sys.stdout.fileno())
                os.close(null)
            raise SinkGoneError("the reader of standard output has gone") from error


def _readable(batch: EventBatch) -> Iterator[str]:
    rows = [batch.events[name].tolist() for name in _FIELDS]
    for src, dst, *row in zip(*_addresses(batch), *rows, strict=True):
        event = dict(zip(_FIELDS, row, strict=True))
        yield " ".join(
            (
                time_text(event["ts_ns"] + batch.realtime_offset_ns),
                batch.names.port(event["port"]) or f"port#{event['port']}",
                f"{Verdict(event['verdict']).text:<5}",
                f"{_reason(event, batch):<15}",
                _packet(event, src, dst),
            )
        )


_FIELDS = (
    "ts_ns", "port", "verdict", "reason", "rule", "family", "proto", "sport", "dport", "tcp_flags",
    "icmp_type", "icmp_code", "ethertype", "vlan", "frag", "has", "len_bytes",
)  # fmt: skip


def _source_addresses(batch: EventBatch) -> Iterator[str]:
    return (src for src in _addresses(batch)[0] if src)


STYLES: dict[str, Callable[[EventBatch], Iterator[str]]] = {
    "line": _readable,
    "sourceip": _source_addresses,
}
"""How events look, by the name of the style."""


def _addresses(batch: EventBatch) -> tuple[list[str], list[str]]:
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


def make(settings: SinkSettings) -> StdoutSink:
    """The sink `"stdout"`; option style."""
    return StdoutSink(str(settings.options.get("style", "line")))
