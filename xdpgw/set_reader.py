"""The table [sets] of a policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from xdpgw.literals import addresses, duration_ns, port_range
from xdpgw.rule_types import Prefix
from xdpgw.sets import Feed, NamedSet, read_feed, unreadable
from xdpgw.toml_positions import Positions
from xdpgw.toml_tables import KeyPath, Tables, is_int

__all__ = ["SetTables"]


@dataclass(slots=True)
class _SetParts:
    """What the elements of one set give."""

    prefixes: list[Prefix] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)


class SetTables(Tables):
    """Tables with sets, whose files are relative to a directory."""

    def __init__(self, data: dict[str, Any], at: Positions, file: str, base: Path) -> None:
        super().__init__(data, at, file)
        self.base = base
        self.feeds: dict[Path, Feed] = {}

    def named_set(self, name: str) -> NamedSet:
        path = ("sets", name)
        value = self.data["sets"][name]
        if not isinstance(value, list):
            wanted = 'a list: ["192.0.2.0/24", { file = "feed.netset" }] or [80, "8000-8100"]'
            self.say_type(path, value, wanted)
            return _broken_set(name)
        from xdpgw.prefixes import Prefixes

        parts = _SetParts()
        kind: Any = None
        before = len(self.wrong)
        for index, item in enumerate(value):
            at = (*path, index)
            found = self.set_item(at, item, parts)
            if kind and found and found != kind:
                message = f'set "{name}" holds {kind}, and this is one of {found}'
                self.say_value(at, message, "make two sets of it")
            kind = kind or found
        if len(self.wrong) > before:
            return _broken_set(name)
        written = Prefixes.of(parts.prefixes)
        made = NamedSet(name, kind, written, tuple(parts.ranges), written)
        return made.with_feeds(parts.feeds)

    def set_item(self, path: KeyPath, item: object, parts: _SetParts) -> str | None:
        """Add one element of a set; gives the kind of it."""
        if isinstance(item, dict):
            return self.set_file(path, item, parts)
        if is_int(item):
            parts.ranges += [self.reading(path, lambda: port_range(str(item)), (0, 0))]
            return "ports"
        if not isinstance(item, str):
            self.say_type(path, item, 'an address, a port or { file = "feed.netset" }')
            return None
        word = "".join(item.split())
        if "." in word or ":" in word:
            parts.prefixes += self.reading(path, lambda: addresses(word), [])
            return "addresses"
        if word[:1].isdigit():
            parts.ranges += [self.reading(path, lambda: port_range(word), (0, 0))]
            return "ports"
        hint = 'write "192.0.2.0/24", "8000-8100" or { file = "feed.netset" }'
        self.say_value(path, f'"{item}" is neither an address nor a port', hint)
        return None

    def set_file(self, path: KeyPath, item: dict[str, Any], parts: _SetParts) -> str | None:
        self.check_keys(path, item, ("file", "refresh"))
        name, often = item.get("file"), item.get("refresh")
        refresh_ns = None
        if isinstance(often, str):
            read = partial(duration_ns, often, "1s", "1d", "refresh")
            refresh_ns = self.reading((*path, "refresh"), read, None)
        elif often is not None:
            self.say_type((*path, "refresh"), often, 'a time: "5m"')
        if not isinstance(name, str):
            if name is not None:
                self.say_type((*path, "file"), name, 'a file: "feed.netset"')
            elif often is not None:
                hint = 'write { file = "feed.netset", refresh = "5m" }'
                self.say(self.at.key((*path, "refresh")), "refresh goes with a file", hint)
            elif not item:
                self.say_value(path, "the table is empty", 'write { file = "feed.netset" }')
            return None
        file = self.base / name
        feed = self.feeds.get(file)  # of one file every set has the same content
        if feed is None:
            try:
                feed, wrong = read_feed(file)
            except (OSError, ValueError) as error:
                message, hint = unreadable(error)
                self.say_value((*path, "file"), f"{file} {message}", hint)
                return "addresses"
            self.wrong += wrong
            self.feeds[file] = feed
        parts.feeds.append(replace(feed, refresh_ns=refresh_ns))
        return "addresses"


def _broken_set(name: str) -> NamedSet:
    """Stands in for a set that is wrong: rules may use it as anything without another error."""
    from xdpgw.prefixes import Prefixes

    return NamedSet(name, None, Prefixes.of([(4, 0, 0)]), ((0, 65535),))
