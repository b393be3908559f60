"""Steps that all tables of a policy share: read a value, tell its place where it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from xdpgw.errors import Diagnostic
from xdpgw.literals import NAME, NAME_RULE, Wrong, choice, likely, number, one_of, size_bytes
from xdpgw.toml_positions import Path as KeyPath
from xdpgw.toml_positions import Place, Positions

__all__ = ["KeyPath", "Tables", "is_int"]

_T = TypeVar("_T")


def _named(value: object) -> str:
    """What kind of value this is, in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    kinds: tuple[tuple[type, str], ...] = (
        (str, "a string"),
        (int, "a number"),
        (float, "a fraction"),
        (list, "a list"),
        (dict, "a table"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "a date or time")


def is_int(value: object) -> bool:
    """Whether it is a number without a fraction; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


class Tables:
    """One document while it is read. What is wrong gathers in `wrong`; a default replaces it."""

    def __init__(self, data: dict[str, Any], at: Positions, file: str) -> None:
        self.data, self.at, self.file = data, at, file
        self.wrong: list[Diagnostic] = []

    # Telling what is wrong.

    def say(self, place: Place, message: str, hint: str | None) -> None:
        """Tell what is wrong, and where."""
        self.wrong.append(Diagnostic(self.file, *place, message, hint))

    def say_value(self, path: KeyPath, message: str, hint: str | None) -> None:
        """Tell what is wrong with a value."""
        self.say(self.at.value(path), message, hint)

    def say_type(self, path: KeyPath, value: object, wanted: str) -> None:
        """Tell that a value is of the wrong kind."""
        what = ".".join(map(str, (x for x in path if isinstance(x, str))))
        self.say_value(path, f"{what} is {_named(value)}", f"write {wanted}")

    def reading(self, path: KeyPath, read: Callable[[], _T], instead: _T) -> _T:
        """What `read` gives; the default after telling why it raised Wrong."""
        try:
            return read()
        except Wrong as wrong:
            self.say_value(path, wrong.message, wrong.hint)
            return instead

    # Reading values.

    def table(self, path: tuple[str, ...], keys: Iterable[str] | None = None) -> dict[str, Any]:
        """The table at a path, {} if there is none; only these keys may be in it."""
        value: Any = self.data
        for key in path:
            value = value.get(key, {})
        if not isinstance(value, dict):
            self.say_type(path, value, f"a table: [{'.'.join(map(str, path))}]")
            return {}
        if keys is not None:
            self.check_keys(path, value, tuple(keys))
        return value

    def check_keys(self, path: KeyPath, table: dict[str, Any], keys: tuple[str, ...]) -> None:
        """Tell about the keys of a table that are none of these."""
        where = f" in [{'.'.join(x for x in path if isinstance(x, str))}]" if path else ""
        for key, value in table.items():
            if key in keys:
                continue
            hint = likely(key, keys) or f"write {one_of(keys)}"
            if path[:1] == ("ports",) and isinstance(value, dict):
                hint = f'write [ports."{path[-1]}.{key}"]'
            self.say(self.at.key((*path, key)), f'unknown key "{key}"{where}', hint)

    def string(self, path: tuple[str, ...], instead: str, wanted: str = "a string") -> str:
        """The string at a path, or the default if it is missing or something else."""
        value = self.table(path[:-1]).get(path[-1], instead) if len(path) > 1 else instead
        if isinstance(value, str):
            return value
        self.say_type(path, value, wanted)
        return instead

    def choice(self, path: tuple[str, ...], choices: tuple[str, ...], instead: str) -> Any:
        """One of some strings."""
        quoted = one_of(f'"{x}"' for x in choices)
        value = self.string(path, instead, quoted)
        return self.reading(path, lambda: choice(value, choices, str(path[-1])), instead)

    def boolean(self, path: tuple[str, ...], instead: bool) -> bool:
        """True or false."""
        value = self.table(path[:-1]).get(path[-1], instead)
        if isinstance(value, bool):
            return value
        self.say_type(path, value, "true or false")
        return instead

    def names(self, path: tuple[str, ...], what: str) -> Iterable[str]:
        """Keys of a table that are names; tells about the others."""
        for name in self.table(path):
            if NAME.fullmatch(name):
                yield name
            else:
                message = f'"{name}" is not a name for a {what}'
                self.say(self.at.key((*path, name)), message, NAME_RULE)

    def integer(self, path: KeyPath, value: object, lo: int, hi: int) -> int:
        """A number from lo to hi; lo if it is wrong."""
        if not is_int(value):
            self.say_type(path, value, f"a number, {lo} to {hi}")
            return lo
        what = next(str(x) for x in reversed(path) if isinstance(x, str))
        return self.reading(path, lambda: number(str(value), lo, hi, what), lo)

    def size(self, path: KeyPath, value: object, lo: int = 4096, hi: int = 2**50) -> int:
        """Bytes, as a number or as text such as "100MiB"; lo if it is wrong."""
        if isinstance(value, str):
            value = self.reading(path, partial(size_bytes, value, str(path[-1])), lo)
        return self.integer(path, value, lo, hi)
