"""Where events go. A sink is a file in this folder: its name is the kind, its `make` opens one.

A sink knows batches, not rings, queues or threads: `xdpgw.events.Pump` calls it from one thread, a
batch at a time, and counts what it loses.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["Sink", "SinkError", "SinkGoneError", "kinds", "make"]


class Sink(Protocol):
    """A consumer of events."""

    @property
    def name(self) -> str:
        """What a person calls it, such as `jsonl /var/log/events.jsonl`."""

    def write(self, batch: EventBatch) -> None:
        """Take a batch: all of it, or raise and keep no half of an event.

        Raises:
            SinkError: some events are lost; the next write may do better.
            SinkGoneError: nobody reads it any more, and nobody need be told.
        """

    def flush(self) -> None:
        """Let readers see all that was written; called when there is nothing to write."""

    def close(self) -> None:
        """Flush and let go; twice is fine. Nothing is written afterwards."""


class SinkError(XdpgwError):
    """A sink could not take some events.

    Args:
        lost: how many.
    """

    def __init__(self, message: str, hint: str | None = None, *, lost: int) -> None:
        super().__init__(message, hint)
        self.lost = lost


class SinkGoneError(XdpgwError):
    """The reader of a sink has gone, as of a pipe into `head`."""


def kinds() -> list[str]:
    """All kinds of sinks: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def make(settings: SinkSettings) -> Sink:
    """Open a sink.

    Raises:
        XdpgwError: no such kind, a bad option, or it cannot be opened.
    """
    if settings.kind not in kinds():
        raise XdpgwError(f"no such sink: {settings.kind}", f"there are {', '.join(kinds())}")
    return cast(Sink, import_module(f"{__name__}.{settings.kind}").make(settings))
