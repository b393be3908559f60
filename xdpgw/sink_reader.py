"""The sinks of a policy: `[log] sinks`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from xdpgw import sinks
from xdpgw.config import SinkSettings
from xdpgw.literals import choice, duration_ns, likely, one_of
from xdpgw.sink_options import Choice, Count, File, Flag, Option, Size, Spec, Text, Time
from xdpgw.toml_tables import KeyPath, Tables

__all__ = ["MAX_SINKS", "SinkTables"]

MAX_SINKS = 16
"""Sinks of one policy: each has a thread and a queue."""


class SinkTables(Tables):
    """Tables with sinks, whose files are relative to the directory `base`."""

    base: Path

    def sinks(self, path: KeyPath, items: list[Any]) -> tuple[SinkSettings, ...]:
        """The sinks of a list, each of them once."""
        found: list[SinkSettings] = []
        if len(items) > MAX_SINKS:
            self.say_value((*path, MAX_SINKS), f"more than {MAX_SINKS} sinks", "take some out")
        for index, item in enumerate(items):
            made = self.sink((*path, index), item)
            if made is None:
                continue
            if any(made.place == other.place for other in found):
                self.say_value((*path, index), "two sinks write to the same place", "take one out")
            found.append(made)
        return tuple(found)

    def sink(self, path: KeyPath, item: object) -> SinkSettings | None:
        """One sink; None after telling why it is none."""
        kind: str
        value: object
        at: KeyPath
        if isinstance(item, str):
            kind, value, at, place = item, {}, path, self.at.value(path)
        elif isinstance(item, dict) and len(item) == 1:
            ((kind, value),) = item.items()
            at = (*path, kind)
            place = self.at.key(at)
        else:
            self.say_type(path, item, '"stdout" or { jsonl = "FILE" }')
            return None
        if kind not in sinks.kinds():
            hint = likely(kind, sinks.kinds()) or f"there are {', '.join(sinks.kinds())}"
            self.say(place, f'unknown sink "{kind}"', hint)
            return None
        spec = sinks.spec(kind)
        if isinstance(item, str) and spec.needed:
            self.say(place, f"the sink {kind} has no {spec.main}", f"write {spec.example}")
            return None
        read = self._sink_options(at, kind, value, spec)
        return None if read is None else SinkSettings(kind, *read)

    def _sink_options(
        self, path: KeyPath, kind: str, value: object, spec: Spec
    ) -> tuple[Path | None, dict[str, Any]] | None:
        """The path and the options of one sink; None after telling why there are none."""
        if spec.main is not None and not isinstance(value, dict):
            if not isinstance(value, str):
                self.say_type(path, value, spec.example)
                return None
            value, at = {spec.main: value}, dict.fromkeys([spec.main], path)
        elif not isinstance(value, dict):
            self.say_type(path, value, f'"{kind}", or a table of {one_of(spec.options)}')
            return None
        else:
            self.check_keys(path, value, tuple(spec.options))
            at = {name: (*path, name) for name in value}
        if spec.needed and spec.main not in value:
            self.say_value(path, f"the sink {kind} has no {spec.main}", f"write {spec.example}")
            return None
        read = {
            name: self._option(at[name], name, word, spec.options[name])
            for name, word in value.items()
            if name in spec.options
        }
        options = {name: x for name, x in read.items() if not isinstance(x, Path)}
        return next((x for x in read.values() if isinstance(x, Path)), None), options

    def _option(self, path: KeyPath, name: str, value: Any, option: Option) -> Any:
        """What an option says; something harmless after telling that it says nothing."""
        match option:
            case Count(lo, hi):
                return self.integer(path, value, lo, hi)
            case Size(lo, hi):
                return self.size(path, value, lo, hi)
            case Flag():
                return self._typed(path, value, bool, "true or false", False)
            case File():
                return self.base / self._typed(path, value, str, "a file", "")
            case Choice(words):
                word = self._typed(path, value, str, one_of(f'"{x}"' for x in words), words[0])
                return self.reading(path, partial(choice, word, words, name), word)
            case Time(lo, hi):
                word = self._typed(path, value, str, 'a time: "60s"', lo)
                return self.reading(path, partial(duration_ns, word, lo, hi, name), 0)
            case Text(wanted, check):
                if isinstance(value, str):
                    self.reading(path, partial(check, value), None)
                    return value
                self.say_type(path, value, wanted)
                return ""

    def _typed(self, path: KeyPath, value: Any, kind: type, wanted: str, instead: Any) -> Any:
        if isinstance(value, kind):
            return value
        self.say_type(path, value, wanted)
        return instead
