"""Where the keys and values of a TOML file stand, which `tomllib` does not tell.

The scanner takes for granted that `tomllib` has accepted the text; it finds where things begin.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Path", "Place", "Positions", "places"]

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes from the root of the document."""

Place: TypeAlias = tuple[int, int]
"""Line and column, in characters, both from 1."""

_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^"\\]+|\\.|""?(?!"))*"""(?:"(?!")|""(?!"))?|' + r"'''.*?'''(?:'(?!')|''(?!'))?|"
    r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_BLANK = re.compile(r"[ \t]*")
_PLAIN_VALUE = re.compile(r"[^,\]}\n#]*")
_ESCAPE = re.compile(
    r"\\(?:u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|[ \t]*\n[ \t\n]*|.)", re.DOTALL
)


def places(text: str) -> Callable[[int], Place]:
    """A function from an offset in the text to its line and column."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(offset: int) -> Place:
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    return place


class Positions:
    """Answers for one document.

    Args:
        text: valid TOML with line ends as tomllib sees them: a bare newline each.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = places(text)
        self._keys: dict[Path, int] = {}
        self._values: dict[Path, int] = {}
        self._elements: dict[Path, int] = {}  # array of tables -> index of its last one
        self._document()

    def key(self, path: Path) -> Place:
        """Where the key is first written; of a list's element, where that begins."""
        return self.place(self._find(path, self._keys))

    def value(self, path: Path) -> Place:
        """Where the value begins; of a table with a header, where its key stands."""
        return self.place(self._find(path, self._values))

    def inside(self, path: Path) -> Callable[[int], Place]:
        """For a string: a function from an index in the value to its place in the file."""
        at = self._values[path]
        match = _STRING.match(self.text, at)
        if match is None:
            raise ValueError(f"{path} is not a string")
        raw = match[0]
        long = raw.startswith(('"""', "'''"))
        at += 3 if long else 1
        if long and self.text.startswith("\n", at):
            at += 1
        ends_in_value, ends_in_text = [0], [at]  # behind each escape
        if raw.startswith('"'):
            value_end, text_end = 0, at
            for escape in _ESCAPE.finditer(self.text, at, match.end()):
                made = 0 if escape[0][1:].isspace() else 1  # a line end makes nothing
                value_end += escape.start() - text_end + made
                text_end = escape.end()
                ends_in_value.append(value_end)
                ends_in_text.append(text_end)

        def place(index: int) -> Place:
            piece = bisect_right(ends_in_value, index) - 1
            return self.place(ends_in_text[piece] + index - ends_in_value[piece])

        return place

    def _find(self, path: Path, first: dict[Path, int]) -> int:
        while path:
            for known in (first, self._keys, self._values):
                if path in known:
                    return known[path]
            path = path[:-1]
        return 0

    def _document(self) -> None:
        table: Path = ()
        at = self._skip(_SPACE, 0)
        while at < len(self.text):
            if self.text.startswith("[[", at):
                table, at = self._key(self._skip(_BLANK, at + 2), ())
                count = self._elements[table] = self._elements.get(table, -1) + 1
                table = (*table, count)
                at = self._skip(_BLANK, at) + 2
            elif self.text.startswith("[", at):
                table, at = self._key(self._skip(_BLANK, at + 1), ())
                at = self._skip(_BLANK, at) + 1
            else:
                at = self._pair(at, table)
            at = self._skip(_SPACE, at)

    def _skip(self, what: re.Pattern[str], at: int) -> int:
        match = what.match(self.text, at)
        return at if match is None else match.end()

    def _key(self, at: int, table: Path) -> tuple[Path, int]:
        """Read a dotted key; each part of it is known from here on."""
        path = table
        while True:
            if path in self._elements:
                path = (*path, self._elements[path])
            start = at
            if self.text[at] in "\"'":
                at = self._skip(_STRING, at)
                part = tomllib.loads(f"key = {self.text[start:at]}")["key"]
            else:
                at = self._skip(_BARE_KEY, at)
                part = self.text[start:at]
            if at == start:
                raise ValueError(f"no key at offset {at}: not the text that tomllib accepted")
            path = (*path, part)
            self._keys.setdefault(path, start)
            dot = _DOT.match(self.text, at)
            if dot is None:
                return path, at
            at = dot.end()

    def _pair(self, at: int, table: Path) -> int:
        path, at = self._key(at, table)
        return self._value(self._skip(_BLANK, self._skip(_BLANK, at) + 1), path)

    def _value(self, at: int, path: Path) -> int:
        """Read a value; gives the offset behind it."""
        self._values[path] = at
        first = self.text[at]
        if first in "\"'":
            return self._skip(_STRING, at)
        if first not in "[{":
            return self._skip(_PLAIN_VALUE, at)
        closing, index = "]" if first == "[" else "}", 0
        at = self._skip(_SPACE, at + 1)
        while self.text[at] != closing:
            at = self._pair(at, path) if first == "{" else self._value(at, (*path, index))
            index += 1
            at = self._skip(_SPACE, at)
            if self.text[at] == ",":
                at = self._skip(_SPACE, at + 1)
        return at + 1
