"""Events as syslog messages of RFC 5424, with the members of the JSON lines as structured data:

    <134>1 2026-03-01T10:04:12.123456Z gw xdpgw 812 event [xdpgw@32473 port="eth0" ...] eth0 ...

by UDP (RFC 5426) or by TCP with octet counting (RFC 6587, 3.4.1). To a UNIX socket go the words
alone, as the C library writes them, unless the policy says otherwise: rsyslog and journald take
nothing else for granted there.

    <134>Mar  1 10:04:12 xdpgw[812]: eth0 drop  rule bad  192.0.2.7:53 > 198.51.100.1:4242 udp 74
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
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

FORMATS = ("rfc5424", "local")

_SEVERITY_INFO = 6
_ELEMENT = "xdpgw@32473"
"""Who has no enterprise number takes that for examples: RFC 5612."""


def _way(to: str) -> Callable[[], socket.socket]:
    """How to connect.

    Raises:
        Wrong: it says none of the ways.
    """
    if to.startswith("/"):
        return partial(unix_datagrams, to)
    kind, _, place = to.partition(":")
    if kind == "udp":
        return partial(udp_datagrams, *host_and_port(place))
    if kind == "tcp":
        return partial(_tcp, *host_and_port(place))
    raise Wrong(
        f'"{to}" is no way to a syslog', 'write "/dev/log", "udp:HOST:PORT" or "tcp:HOST:PORT"'
    )


SPEC = Spec(
    {
        "to": Text('"udp:HOST:PORT"', _way),
        "facility": Choice(FACILITIES),
        "format": Choice(FORMATS),
    },
    main="to",
    example='{ syslog = "udp:HOST:PORT" }',
)


class SyslogSink:
    """Sends messages to a syslog."""

    def __init__(
        self, to: str = SOCKET, facility: str = "local0", format_: str | None = None
    ) -> None:
        """Connect when the first event comes.

        Args:
            to: a path, udp:HOST:PORT or tcp:HOST:PORT.
            facility: one of `FACILITIES`.
            format_: one of `FORMATS`; the usual one of the way if None.
        """
        self.name = f"syslog {to}"
        self._collector = Collector(to, _way(to))
        self._counted = to.startswith("tcp:")
        self._format = format_ or ("local" if to.startswith("/") else "rfc5424")
        self._priority = f"<{FACILITIES.index(facility) * 8 + _SEVERITY_INFO}>"
        self._sender = f"{socket.gethostname() or '-'} xdpgw {os.getpid()} event"

    def write(self, batch: EventBatch) -> None:
        """Send a message an event."""
        if self._format == "local":
            texts = self._local(batch)
        else:
            pairs = zip(descriptions(batch), members(batch), strict=True)
            texts = (self._rfc5424(text, event) for text, event in pairs)
        messages = [text.encode() for text in texts]
        if self._counted:
            messages = [b"%d %s" % (len(x), x) for x in messages]
        self._collector.send(messages)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Close the connection."""
        self._collector.close()

    def _rfc5424(self, text: str, event: dict[str, str | int]) -> str:
        when = f"{str(event.pop('ts'))[:26]}Z"  # microseconds at most
        data = " ".join(f'{name}="{_quoted(value)}"' for name, value in event.items())
        return f"{self._priority}1 {when} {self._sender} [{_ELEMENT} {data}] {text}"

    def _local(self, batch: EventBatch) -> Iterator[str]:
        times = batch.events["ts_ns"].tolist()
        for ts_ns, text in zip(times, descriptions(batch), strict=True):
            second = time.localtime((ts_ns + batch.realtime_offset_ns) // 10**9)
            when = f"{_MONTHS[second.tm_mon - 1]} {time.strftime('%e %H:%M:%S', second)}"
            yield f"{self._priority}{when} xdpgw[{os.getpid()}]: {text}"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


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
    return SyslogSink(
        options.get("to", SOCKET), options.get("facility", "local0"), options.get("format")
    )
