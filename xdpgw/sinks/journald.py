"""Events in the systemd journal, by its native protocol: a datagram an event, with a field for each
member of the JSON lines.

    journalctl SYSLOG_IDENTIFIER=xdpgw XDPGW_VERDICT=drop -o verbose
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xdpgw.collector import Collector, unix_datagrams
from xdpgw.event_text import descriptions, members
from xdpgw.sink_options import File, Spec

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["SOCKET", "SPEC", "JournaldSink", "make"]

SOCKET = Path("/run/systemd/journal/socket")
SPEC = Spec({"path": File()}, main="path", example=f'{{ journald = "{SOCKET}" }}')

_PRIORITY_INFO = 6


class JournaldSink:
    """Sends events to a journal."""

    def __init__(self, path: Path = SOCKET) -> None:
        """Connect when the first event comes.

        Args:
            path: the socket of journald.
        """
        self.name = "journald" if path == SOCKET else f"journald {path}"
        self._collector = Collector(str(path), partial(unix_datagrams, str(path)))

    def write(self, batch: EventBatch) -> None:
        """Send a datagram an event."""
        pairs = zip(descriptions(batch), members(batch), strict=True)
        self._collector.send([_entry(text, event) for text, event in pairs])

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Close the socket."""
        self._collector.close()


def _entry(text: str, event: dict[str, str | int]) -> bytes:
    """One entry: FIELD=VALUE a line, which do for values without a newline (systemd,
    docs/JOURNAL_NATIVE_PROTOCOL.md)."""
    lines = [f"MESSAGE={text}", f"PRIORITY={_PRIORITY_INFO}", "SYSLOG_IDENTIFIER=xdpgw"]
    lines += [f"XDPGW_{name.upper()}={value}" for name, value in event.items()]
    return "\n".join([*lines, ""]).encode()


def make(settings: SinkSettings) -> JournaldSink:
    """The sink `"journald"`."""
    return JournaldSink(settings.path or SOCKET)
