"""Where events go. A sink is a file in this folder: its name is the kind, its `make` opens one.

A sink knows batches, not rings, queues or threads: `xdpgw.events.Pump` calls it from one thread, a
batch at a time, offers again what it could not take, and counts what it loses. What a policy may
say of it is its `SPEC`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from xdpgw.errors import XdpgwError
from xdpgw.sink_options import COMMON, Spec

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["Sink", "SinkError", "SinkGoneError", "kinds", "make", "spec"]


class Sink(Protocol):
    """A consumer of events."""

    @property
    def name(self) -> str:
        """What a person calls it, such as `jsonl /var/log/events.jsonl`."""

    def write(self, batch: EventBatch) -> None:
        """Take a batch: all of it, or raise and keep no half of an event.

        Returns within seconds, whatever it writes to: who waits for longer raises.

        Raises:
            SinkError: some events were not taken; those it names as left are offered again.
            SinkGoneError: nobody reads it any more, and nobody need be told.
        """

    def flush(self) -> None:
        """Let readers see all that was written; called when there is nothing to write, then
        every second until there is.

        Raises:
            SinkError: something is wrong with what was written.
        """

    def close(self) -> None:
        """Flush and let go; twice is fine. Nothing is written afterwards."""


class SinkError(XdpgwError):
    """A sink could not take some events. Of the batch, the first are written, then come those lost,
    then those left.

    Args:
        lost: how many are lost for good.
        left: how many may well be taken later; they are the next that it is offered.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, lost: int = 0, left: int = 0
    ) -> None:
        super().__init__(message, hint)
        self.lost = lost
        self.left = left


class SinkGoneError(XdpgwError):
    """The reader of a sink has gone, as of a pipe into `head`."""


def kinds() -> list[str]:
    """All kinds of sinks: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def spec(kind: str) -> Spec:
    """What a policy may say of a kind of sink, with what it may say of any."""
    own: Spec = import_module(f"{__name__}.{kind}").SPEC
    return own.with_options(COMMON)


def make(settings: SinkSettings) -> Sink:
    """Open a sink. One that writes to a collector does not ask whether it is there.

    Raises:
        XdpgwError: no such kind, a bad option, or it cannot be opened.
    """
    if settings.kind not in kinds():
        raise XdpgwError(f"no such sink: {settings.kind}", f"there are {', '.join(kinds())}")
    return cast(Sink, import_module(f"{__name__}.{settings.kind}").make(settings))
