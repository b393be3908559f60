"""Events as syslog messages of RFC 5424, with the members of the JSON lines as structured data:

    <134>1 2026-03-01T10:04:12.123456Z gw xdpgw 812 event [xdpgw@32473 port="eth0" ...] eth0 ...

to a UNIX socket (a datagram each), by UDP (RFC 5426) or by TCP with octet counting (RFC 6587,
3.4.1).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from xdpgw.collector import PATIENCE_S, Collector, host_and_port, udp_datagrams, unix_datagrams
from xdpgw.event_text import descriptions, members
from xdpgw.literals import Wrong
from xdpgw.sink_options import Choice, Spec, Text

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["FACILITIES", "SPEC", "SyslogSink", "make"]

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", *(f"local{n}" for n in range(8)),
)  # fmt: skip
"""By number: RFC 5424, 6.2.1."""
SOCKET = "/dev/log"

_SEVERITY_INFO = 6
_ELEMENT = "xdpgw@32473"
"""Who has no enterprise number takes that for examples: RFC 5612."""


def _way(to: str) -> tuple[Callable[[], socket.socket], bool]:
    """How to connect, and whether messages go by a stream.

    Raises:
        Wrong: it says none of the ways.
    """
    if to.startswith("/"):
        return partial(unix_datagrams, to), False
    kind, _, place = to.partition(":")
    if kind == "udp":
        return partial(udp_datagrams, *host_and_port(place)), False
    if kind == "tcp":
        return partial(_tcp, *host_and_port(place)), True
    raise Wrong(
        f'"{to}" is no way to a syslog', 'write "/dev/log", "udp:HOST:PORT" or "tcp:HOST:PORT"'
    )


SPEC = Spec(
    {"to": Text('"udp:HOST:PORT"', _way), "facility": Choice(FACILITIES)},
    main="to",
    example='{ syslog = "udp:HOST:PORT" }',
)


class SyslogSink:
    """Sends messages to a syslog."""

    def __init__(self, to: str = SOCKET, facility: str = "local0") -> None:
        """Connect when the first event comes.

        Args:
            to: a path, udp:HOST:PORT or tcp:HOST:PORT.
            facility: one of `FACILITIES`.
        """
        self.name = f"syslog {to}"
        connect, self._counted = _way(to)
        self._collector = Collector(to, connect)
        priority = FACILITIES.index(facility) * 8 + _SEVERITY_INFO
        self._begin = f"<{priority}>1"
        self._sender = f"{socket.gethostname() or '-'} xdpgw {os.getpid()} event"

    def write(self, batch: EventBatch) -> None:
        """Send a message an event."""
        pairs = zip(descriptions(batch), members(batch), strict=True)
        self._collector.send([self._message(text, event) for text, event in pairs])

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Close the connection."""
        self._collector.close()

    def _message(self, text: str, event: dict[str, str | int]) -> bytes:
        when = f"{str(event.pop('ts'))[:26]}Z"  # microseconds at most
        data = " ".join(f'{name}="{_quoted(value)}"' for name, value in event.items())
        message = f"{self._begin} {when} {self._sender} [{_ELEMENT} {data}] {text}".encode()
        return b"%d %s" % (len(message), message) if self._counted else message


def _quoted(value: str | int) -> str:
    """As RFC 5424, 6.3.3 wants a value."""
    text = str(value)
    for mark in ("\\", '"', "]"):
        text = text.replace(mark, "\\" + mark)
    return text


def _tcp(host: str, port: int) -> socket.socket:
    made = socket.create_connection((host, port), PATIENCE_S)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made


def make(settings: SinkSettings) -> SyslogSink:
    """The sink `{ syslog = "udp:HOST:PORT" }`, or `"syslog"` for the machine's own."""
    options = settings.options
    return SyslogSink(str(options.get("to", SOCKET)), str(options.get("facility", "local0")))
