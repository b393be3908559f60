"""Which rules a value satisfies, for all values of a dimension at once.

A test is what some rules ask of a dimension: a set of values as ranges. Where a range begins or
ends, its test toggles. Between two toggles all values satisfy the same tests; values that do are
one class, wherever they are. A class is told by the XOR of random numbers of its tests, 128 bits,
so that classes are found by sorting, and rows are computed for one value of each only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from xdpgw.errors import UnsupportedError
from xdpgw.strides import Breaks, starts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.ranges import Ranges

__all__ = ["Classes", "Tests", "Toggles"]

MAX_ROW_BYTES = 1 << 28
"""So much may the rows of one dimension take while they are computed."""

_SEED = 0x7864_7067  # any; the same policy is to give the same bytes
_MANY = 1024  # toggles of a test from which on it is looked up instead of counted
_LOW = (1 << 64) - 1

Matrix: TypeAlias = "NDArray[np.uint64]"
"""Rows of bits, shape (rows, words)."""


@dataclass(slots=True)
class Toggles:
    """Where tests begin and end to hold, in one table of a dimension; in any order.

    Args:
        width: bits of a value.
    """

    width: int
    _places: list[int] = field(default_factory=list)
    _tests: list[int] = field(default_factory=list)
    _arrays: list[tuple[Any, Any, Any]] = field(default_factory=list)

    def add(self, test: int, first: int, last: int) -> None:
        """A range of values that satisfy a test; both ends are in it."""
        self._places.append(first)
        self._tests.append(test)
        if last + 1 < 1 << self.width:
            self._places.append(last + 1)
            self._tests.append(test)

    def add_ranges(self, test: int, ranges: Ranges) -> None:
        """Many ranges of a test."""
        hi, lo = ranges.last_hi, ranges.last_lo + np.uint64(1)
        if self.width > 64:
            hi = hi + (lo == 0)
            inside = (hi != 0) | (lo != 0)
        else:
            inside = lo < np.uint64(1 << self.width)
        hi = np.concatenate((ranges.first_hi, hi[inside]))
        lo = np.concatenate((ranges.first_lo, lo[inside]))
        self._arrays.append((hi, lo, np.full(len(hi), test)))

    def sorted(self) -> tuple[Matrix, Matrix, NDArray[np.int64]]:
        """(upper halves, lower halves, tests) by place; an upper half is 0 up to 64 bits."""
        his = np.array([x >> 64 for x in self._places], np.uint64)
        los = np.array([x & _LOW for x in self._places], np.uint64)
        parts = [*self._arrays, (his, los, np.array(self._tests, np.int64))]
        hi, lo, test = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not hi.any():
            order = np.argsort(lo, kind="stable")
        elif not lo.any():
            order = np.argsort(hi, kind="stable")
        else:
            order = np.lexsort((lo, hi))
        return hi[order], lo[order], test[order]


@dataclass(frozen=True, slots=True)
class Tests:
    """The tests of a dimension, and who asks them.

    Args:
        toggles: of each table of the dimension (a table per family, say).
        asked: for each test the positions of the rules that ask it; each position has one test.
        negated: tests that hold where no range is.
    """

    toggles: Sequence[Toggles]
    asked: Sequence[Sequence[int]]
    negated: Sequence[int] = ()


@dataclass(slots=True)
class Classes:
    """The classes of a dimension.

    Args:
        rows: a row a class, bit n of a row is position n.
        tables: for each table where another class begins; `values` of breaks are classes.
        none: the class of a packet without the field.
        tokens: for each class what tells it: the XOR of the tokens of its tests.
        token_of: for each test its token.
    """

    rows: Matrix
    tables: list[Breaks]
    none: int
    tokens: Matrix
    token_of: Matrix

    @classmethod
    def of(cls, tests: Tests, open_row: Matrix) -> Classes:
        """Find them.

        Args:
            open_row: the row of a packet that satisfies no test, shape (words,).

        Raises:
            UnsupportedError: there are too many, for so many rules.
        """
        token_of = np.random.default_rng(_SEED).integers(0, 2**64, (len(tests.asked), 2), np.uint64)
        found = [_Table(toggles, token_of) for toggles in tests.toggles]
        tokens = np.concatenate([table.tokens for table in found])
        first, number = _unique(tokens)
        room = MAX_ROW_BYTES // max(1, open_row.nbytes)
        if len(first) > room:
            raise UnsupportedError(
                f"the sets of {len(open_row)} words of rules overlap in {len(first)} ways; "
                f"there is room for {room}",
                "name fewer large sets in one policy",
                feature="overlapping sets",
            )
        masks = _Masks(tests.asked, len(open_row))
        start = open_row.copy()
        for test in tests.negated:
            masks.toggle(start, test)
        rows = np.empty((len(first) + 1, len(open_row)), np.uint64)
        at = 0
        for table in found:
            mine = np.flatnonzero((first >= at) & (first < at + len(table.tokens)))
            rows[mine] = table.rows(first[mine] - at, masks, start)
            at += len(table.tokens)
        rows[-1] = open_row
        borders = np.cumsum([len(table.tokens) for table in found])[:-1]
        tables = [
            Breaks(table.hi, table.lo, numbers.astype(np.uint32)).joined()
            for table, numbers in zip(found, np.split(number, borders), strict=True)
        ]
        return cls(rows, tables, len(first), tokens[first], token_of)


class _Table:
    """The toggles of one table in order, and the token behind each place."""

    def __init__(self, toggles: Toggles, token_of: Matrix) -> None:
        hi, lo, self.test = toggles.sorted()
        sums = np.bitwise_xor.accumulate(token_of[self.test], axis=0)
        final = np.append((hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1]), True)[: len(hi)]
        led = int(not len(hi) or bool(hi[0] | lo[0]))  # nothing begins at 0: put a place there
        self.upto = np.concatenate((np.full(led, -1), np.flatnonzero(final)))
        self.hi = np.concatenate((np.zeros(led, np.uint64), hi[final]))
        self.lo = np.concatenate((np.zeros(led, np.uint64), lo[final]))
        self.tokens = np.concatenate((np.zeros((led, 2), np.uint64), sums[final]))

    def rows(self, places: NDArray[np.int64], masks: _Masks, start: Matrix) -> Matrix:
        """The rows of some places, which ascend."""
        upto = self.upto[places]
        many = np.flatnonzero(np.bincount(self.test, minlength=1) > _MANY)
        few = ~np.isin(self.test, many)
        index = np.flatnonzero(few)
        out = masks.toggled(self.test[few], np.searchsorted(upto, index), len(places))
        np.bitwise_xor.accumulate(out, axis=0, out=out)
        out ^= start
        for test in many.tolist():
            passed = np.searchsorted(np.flatnonzero(self.test == test), upto, side="right")
            masks.toggle(out, test, (passed & 1).astype(np.bool_))
        return out


class _Masks:
    """For each test the bits of those who ask it, as (word, bits)."""

    def __init__(self, asked: Sequence[Sequence[int]], words: int) -> None:
        self.words = words
        sizes = np.array([len(x) for x in asked], np.int64)
        position = np.fromiter(chain.from_iterable(asked), np.int64, int(sizes.sum()))
        test = np.repeat(np.arange(len(asked)), sizes)
        key = test * words + (position >> 6)
        order = np.argsort(key, kind="stable")
        key = key[order]
        bits = np.uint64(1) << (position[order] & 63).astype(np.uint64)
        fresh = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
        self.bits = np.bitwise_or.reduceat(bits, fresh) if len(fresh) else bits
        self.word = key[fresh] % words
        self.begin = np.searchsorted(key[fresh] // words, np.arange(len(asked) + 1))

    def toggle(self, rows: Matrix, test: int, which: Any = ...) -> None:
        """Toggle a test in some rows."""
        mine = slice(self.begin[test], self.begin[test + 1])
        mask = np.zeros(self.words, np.uint64)
        mask[self.word[mine]] = self.bits[mine]
        rows[which] ^= mask

    def toggled(self, tests: NDArray[np.int64], rows: NDArray[np.int64], count: int) -> Matrix:
        """`count` empty rows, with each test toggled in its row; those behind the last are left."""
        out = np.zeros((count, self.words), np.uint64)
        inside = rows < count
        tests, rows = tests[inside], rows[inside]
        sizes = self.begin[tests + 1] - self.begin[tests]
        place = np.arange(int(sizes.sum())) - np.repeat(starts_of(sizes), sizes)
        at = np.repeat(self.begin[tests], sizes) + place
        np.bitwise_xor.at(out, (np.repeat(rows, sizes), self.word[at]), self.bits[at])
        return out


def _unique(tokens: Matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(where each token is first, the number of each token), numbered as they come."""
    _, first, number = np.unique(tokens[:, 0], return_index=True, return_inverse=True)
    if not (tokens[first, 1][number.reshape(-1)] == tokens[:, 1]).all():  # half is not enough
        whole = np.ascontiguousarray(tokens).view("V16").reshape(-1)
        _, first, number = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[number.reshape(-1)]
