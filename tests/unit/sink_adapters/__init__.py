"""How to read back what a sink wrote: a file a kind, found by the sink suite.

Each has `ADAPTERS`: by the name of a variant, what makes an `Adapter` in a folder of its own.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from xdpgw.config import SinkSettings

__all__ = ["Adapter", "Make", "Reader", "adapters", "kinds"]


class Adapter(Protocol):
    """The far end of one sink."""

    settings: SinkSettings

    def sources(self, count: int) -> list[str]:
        """The source of each event, in order, "" where it has none; once there are so many."""

    def close(self) -> None:
        """End what listens."""


class Breakable(Adapter, Protocol):
    """A far end that goes and comes back, and loses nothing that it was given."""

    def break_(self) -> None:
        """Be gone."""

    def mend(self) -> None:
        """Be there again."""


Reader = Callable[[], bytes]
"""What was written to standard output since it was asked last."""
Make = Callable[[Path, Reader], Adapter]


def kinds() -> list[str]:
    """All kinds that have adapters."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def adapters(kind: str) -> Mapping[str, Make]:
    """The adapters of a kind, by variant."""
    return cast(Mapping[str, Make], import_module(f"{__name__}.{kind}").ADAPTERS)
