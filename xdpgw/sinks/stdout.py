"""Events on standard output, a line each, for people:

    12:00:01.123456 eth0 drop  rule bad        192.0.2.7:53 > 198.51.100.1:4242 udp 74

or, in the style `sourceip`, the source address alone.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from xdpgw.errors import XdpgwError
from xdpgw.event_text import addresses, descriptions
from xdpgw.sink_options import Choice, Spec
from xdpgw.sinks import SinkError, SinkGoneError
from xdpgw.words import time_text

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["SPEC", "STYLES", "StdoutSink", "make"]

SPEC = Spec({"style": Choice(("line", "sourceip"))})

PATIENCE_S = 1.0
"""How long a reader that does not read is waited for before the sink says so."""


class StdoutSink:
    """Writes lines to standard output: to the descriptor, as a thread that is stuck in Python's own
    buffer would keep the interpreter from ending."""

    name = "stdout"

    def __init__(self, style: str = "line", fd: int = 1) -> None:
        """Write to a descriptor.

        Args:
            style: a key of `STYLES`.
            fd: not closed with the sink.
        """
        if style not in STYLES:
            raise XdpgwError(f"no such style of stdout: {style}", f"there are {', '.join(STYLES)}")
        self._lines = STYLES[style]
        self._fd = fd
        self._begun = 0
        """Bytes of the next line that are written already."""

    def write(self, batch: EventBatch) -> None:
        """Write a line an event."""
        lines = [f"{line}\n".encode() for line in self._lines(batch)]
        data = memoryview(b"".join(lines))
        done = self._begun
        try:
            while done < len(data):
                done += self._write_some(data[done:])
        except OSError as error:
            whole = bytes(data[:done]).count(b"\n")
            self._begun = done - sum(len(x) for x in lines[:whole])
            if isinstance(error, BrokenPipeError):
                raise SinkGoneError("the reader of standard output has gone") from error
            # The style sourceip leaves events out; each stands behind the line before it.
            left = len(batch) - (_events_of_lines(batch, whole, len(lines)) if whole else 0)
            raise SinkError(f"standard output: {error.strerror or error}", left=left) from error
        self._begun = 0

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is open here."""

    def _write_some(self, data: memoryview) -> int:
        """Write what the descriptor takes at once; whoever shares it may have made it blocking or
        not."""
        ready = select.poll()
        ready.register(self._fd, select.POLLOUT)
        if not ready.poll(PATIENCE_S * 1000):
            raise TimeoutError("its reader does not read")
        try:
            return os.write(self._fd, data[: select.PIPE_BUF])
        except BlockingIOError:
            return 0


def _events_of_lines(batch: EventBatch, whole: int, lines: int) -> int:
    """How many events the first `whole` of so many lines stand for."""
    if lines == len(batch):
        return whole
    told = [at for at, src in enumerate(addresses(batch)[0]) if src]
    return told[whole - 1] + 1


def _readable(batch: EventBatch) -> Iterator[str]:
    times = batch.events["ts_ns"].tolist()
    for ts_ns, text in zip(times, descriptions(batch), strict=True):
        yield f"{time_text(ts_ns + batch.realtime_offset_ns)} {text}"


def _source_addresses(batch: EventBatch) -> Iterator[str]:
    return (src for src in addresses(batch)[0] if src)


STYLES: dict[str, Callable[[EventBatch], Iterator[str]]] = {
    "line": _readable,
    "sourceip": _source_addresses,
}
"""How events look, by the name of the style."""


def make(settings: SinkSettings) -> StdoutSink:
    """The sink `"stdout"`."""
    return StdoutSink(str(settings.options.get("style", "line")))
