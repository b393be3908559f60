"""Named sets of addresses or ports, and the files that they are read from."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from xdpgw.errors import Diagnostic
from xdpgw.literals import Wrong, addresses, likely

if TYPE_CHECKING:
    from xdpgw.prefixes import Prefixes
    from xdpgw.rule_types import Prefix

__all__ = [
    "MAX_ALLOWED",
    "MAX_BAD_LINES",
    "Feed",
    "NamedSet",
    "Stamp",
    "allowed",
    "read_feed",
    "read_line",
    "stamp_of",
    "unreadable",
]

MAX_ALLOWED = 10_000
"""Addresses and prefixes of `allow`: they go into a trie and into the manifest."""

MAX_BAD_LINES = 100
"""So many bad lines of one file are told one by one; the rest is counted."""


class Stamp(NamedTuple):
    """What tells one state of a file from another; size in bytes."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def _no_prefixes() -> Prefixes:
    from xdpgw.prefixes import EMPTY

    return EMPTY


@dataclass(frozen=True, slots=True)
class Feed:
    """A file of a set, as it was read.

    Args:
        refresh_ns: how often `xdpgw run` looks whether it changed; None for never.
        stamp: of the file that was read, as `stamp_of` gives it.
    """

    path: Path
    refresh_ns: int | None = None
    prefixes: Prefixes = field(default_factory=_no_prefixes)
    stamp: Stamp | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NamedSet:
    """One line of [sets].

    Args:
        kind: None where the set is empty, so that it may be used as either.
        prefixes: of a set of addresses: all of them, those of its files, too.
        ranges: of a set of ports, (first, last).
        written: the prefixes that stand in the policy itself.
        feeds: its files.
    """

    name: str
    kind: Literal["addresses", "ports"] | None
    prefixes: Prefixes = field(default_factory=_no_prefixes)
    ranges: tuple[tuple[int, int], ...] = ()
    written: Prefixes = field(default_factory=_no_prefixes)
    feeds: tuple[Feed, ...] = ()

    def with_feeds(self, feeds: Iterable[Feed]) -> NamedSet:
        """The same set after its files were read anew."""
        from xdpgw.prefixes import Prefixes

        feeds = tuple(feeds)
        prefixes = Prefixes.union([self.written, *(x.prefixes for x in feeds)])
        return replace(self, prefixes=prefixes, feeds=feeds)


def stamp_of(stat: os.stat_result) -> Stamp:
    """What changes with a file's content, as far as a look at its inode can tell."""
    return Stamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def read_feed(path: Path, refresh_ns: int | None = None) -> tuple[Feed, list[Diagnostic]]:
    """Read a file of addresses: one address, prefix or range a line; `#` begins a comment.

    Returns:
        The file with what its good lines hold, and what is wrong with the others.

    Raises:
        OSError: the file cannot be read.
    """
    from xdpgw.netset import scan
    from xdpgw.prefixes import Prefixes

    with path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))  # before the content: what comes later shows
        text = file.read().removeprefix(codecs.BOM_UTF8)
    prefixes, odd = scan(text)
    unusual: list[Prefix] = []
    wrong: list[Diagnostic] = []
    unsaid = 0
    for number, begin in odd:
        # A stray byte in a comment does no harm; in a line that counts it makes the line bad.
        end = text.find(b"\n", begin)
        line = text[begin : end if end >= 0 else None].decode("utf-8", "replace")
        try:
            unusual += read_line(line)
        except Wrong as error:
            if len(wrong) < MAX_BAD_LINES:
                column = len(line) - len(line.lstrip()) + 1
                wrong.append(Diagnostic(str(path), number, column, error.message, error.hint))
            else:
                unsaid += 1
    if unsaid:
        wrong.append(Diagnostic(str(path), 0, 0, f"{unsaid} more lines are wrong"))
    return Feed(path, refresh_ns, prefixes | Prefixes.of(unusual), stamp), wrong


def unreadable(error: OSError | ValueError) -> tuple[str, str]:
    """Message and hint about a file where `read_feed` raised."""
    reason = getattr(error, "strerror", None) or str(error)
    return f"cannot be read: {reason}", "create it, or correct the path"


def read_line(line: str) -> list[Prefix]:
    """What one line of a file of addresses holds: nothing, or what its one word stands for.

    Raises:
        Wrong: it holds anything else.
    """
    word = line.partition("#")[0].strip()
    if "-" in word:
        word = "".join(word.split())
    return addresses(word) if word else []


def allowed(word: str, sets: Mapping[str, NamedSet]) -> Iterable[Prefix]:
    """What a word of `allow` stands for.

    Raises:
        Wrong: it stands for nothing.
    """
    if not word.startswith("@"):
        return addresses(word)
    named = sets.get(word[1:])
    if named is None:
        hint = likely(word[1:], sets) or f"add it to [sets]: {word[1:]} = [...]"
        raise Wrong(f'there is no set "{word[1:]}"', hint)
    if named.kind == "ports":
        raise Wrong(f'set "{word[1:]}" holds ports', "write a set of addresses")
    return named.prefixes
