"""Named sets of addresses or ports, and the files that they are read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xdpgw.errors import Diagnostic
from xdpgw.literals import Wrong, addresses
from xdpgw.rule_types import Prefix

__all__ = ["MAX_BAD_LINES", "NamedSet", "read_netset"]

MAX_BAD_LINES = 100
"""So many bad lines of one file are told one by one; the rest is counted."""


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


def read_netset(path: Path) -> tuple[list[Prefix], list[Diagnostic]]:
    """Read a file of addresses: one address, prefix or range a line; `#` begins a comment.

    Returns:
        What the good lines hold, and what is wrong with the others.

    Raises:
        OSError: the file cannot be read.
    """
    # A stray byte in a comment does no harm; in a line that counts it makes the line bad.
    text = path.read_bytes().decode("utf-8", "replace").removeprefix("\ufeff")
    out: list[Prefix] = []
    wrong: list[Diagnostic] = []
    unsaid = 0
    for number, line in enumerate(text.split("\n"), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        if "-" in word:
            word = "".join(word.split())
        try:
            out += addresses(word)
        except Wrong as error:
            if len(wrong) < MAX_BAD_LINES:
                column = len(line) - len(line.lstrip()) + 1
                wrong.append(Diagnostic(str(path), number, column, error.message, error.hint))
            else:
                unsaid += 1
    if unsaid:
        wrong.append(Diagnostic(str(path), 0, 0, f"{unsaid} more lines are wrong"))
    return out, wrong
