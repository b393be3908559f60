"""Named sets of addresses or ports, and the files that they are read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xdpgw.rules import Prefix

__all__ = ["NamedSet"]


@dataclass(frozen=True, slots=True)
class NamedSet:
    """One line of [sets].

    Args:
        kind: None where the set is empty, so that it may be used as either.
        prefixes: of a set of addresses.
        ranges: of a set of ports, (first, last).
        files: what was read for it.
    """

    name: str
    kind: Literal["addresses", "ports"] | None
    prefixes: frozenset[Prefix] = frozenset()
    ranges: tuple[tuple[int, int], ...] = ()
    files: tuple[Path, ...] = ()
