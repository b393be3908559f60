"""Ranges of addresses, many at once: numbers of up to 128 bits as two arrays of 64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Halves = tuple[NDArray[np.uint64], NDArray[np.uint64]]

__all__ = ["Ranges"]

_ZERO, _ONE, _ALL = np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
_MASKS = np.array([(1 << n) - 1 for n in range(65)], np.uint64)
"""n bits that are set."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """Ranges that neither overlap nor touch, in order, first and last included.

    The four arrays are uint64 and as long as there are ranges; the upper halves are 0 for IPv4.
    """

    first_hi: NDArray[np.uint64]
    first_lo: NDArray[np.uint64]
    last_hi: NDArray[np.uint64]
    last_lo: NDArray[np.uint64]

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> Ranges:
        """From (first, last) as numbers, in order and apart but for `holds` and `meets`."""
        ends = list(ranges)
        columns = (
            [first >> 64 for first, _ in ends], [first & int(_ALL) for first, _ in ends],
            [last >> 64 for _, last in ends], [last & int(_ALL) for _, last in ends],
        )  # fmt: skip
        return cls(*(np.array(column, np.uint64) for column in columns))

    @classmethod
    def of_prefixes(
        cls,
        hi: NDArray[np.uint64] | None,
        lo: NDArray[np.unsignedinteger],
        bits: NDArray[np.uint8],
    ) -> Ranges:
        """From prefixes sorted by address and then by length; hi is None for IPv4."""
        first_lo = lo.astype(np.uint64)
        first_hi = np.zeros_like(first_lo) if hi is None else hi
        free = (32 if hi is None else 128) - bits.astype(np.intp)
        last_hi = first_hi | _MASKS[np.clip(free - 64, 0, 64)]
        last_lo = first_lo | _MASKS[np.clip(free, 0, 64)]
        if not len(free):
            return cls(first_hi, first_lo, last_hi, last_lo)
        # A prefix inside an earlier one ends no later; so the furthest end so far is what counts.
        if hi is None:
            last_lo = np.maximum.accumulate(last_lo)
        elif not (free < 64).any():
            last_hi = np.maximum.accumulate(last_hi)
        else:  # of 128 bits there are no numbers, but ranks
            order = np.lexsort((last_lo, last_hi))
            rank = np.empty(len(order), np.intp)
            rank[order] = np.arange(len(order))
            furthest = order[np.maximum.accumulate(rank)]
            last_hi, last_lo = last_hi[furthest], last_lo[furthest]
        next_hi, next_lo = _after(last_hi[:-1], last_lo[:-1])
        endless = (next_hi == _ZERO) & (next_lo == _ZERO)
        apart = _less(next_hi, next_lo, first_hi[1:], first_lo[1:]) & ~endless
        begins, ends = np.append(True, apart), np.append(apart, True)
        return cls(first_hi[begins], first_lo[begins], last_hi[ends], last_lo[ends])

    def __len__(self) -> int:
        return len(self.first_lo)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(first, last), as numbers."""
        columns = (self.first_hi, self.first_lo, self.last_hi, self.last_lo)
        for hi, lo, last_hi, last_lo in zip(*(x.tolist() for x in columns), strict=True):
            yield hi << 64 | lo, last_hi << 64 | last_lo

    def inverted(self, width: int) -> Ranges:
        """All addresses of so many bits that are in none of the ranges."""
        top_hi, top_lo = _MASKS[max(width - 64, 0)], _MASKS[min(width, 64)]
        before_hi, before_lo = _before(self.first_hi, self.first_lo)
        next_hi, next_lo = _after(self.last_hi, self.last_lo)
        made = Ranges(
            np.append(_ZERO, next_hi), np.append(_ZERO, next_lo),
            np.append(before_hi, top_hi), np.append(before_lo, top_lo),
        )  # fmt: skip
        if not len(self):
            return made
        keep = np.ones(len(made), np.bool_)
        keep[0] = bool(self.first_hi[0] | self.first_lo[0])
        keep[-1] = (self.last_hi[-1], self.last_lo[-1]) != (top_hi, top_lo)
        return made._only(keep)

    def __and__(self, other: Ranges) -> Ranges:
        """The addresses that are in both."""
        hi, lo = (
            np.concatenate((getattr(self, f"first_{half}"), getattr(other, f"first_{half}"),
                            getattr(self, f"last_{half}"), getattr(other, f"last_{half}")))
            for half in ("hi", "lo")
        )  # fmt: skip
        ends = np.repeat(np.array([0, 1], np.int8), len(hi) // 2)
        order = np.lexsort(
            (ends, lo, hi)
        )  # where one ends and the other begins, they share a point
        deep = np.cumsum(1 - 2 * ends[order])
        begins = np.flatnonzero(deep == 2)
        opens, closes = order[begins], order[begins + 1]
        return Ranges(hi[opens], lo[opens], hi[closes], lo[closes])

    def holds(self, other: Ranges) -> NDArray[np.bool_]:
        """For each range of the other, which need not be in order: it lies inside one of these."""
        if not len(self):
            return np.zeros(len(other), np.bool_)
        at = _search(self.first_hi, self.first_lo, other.first_hi, other.first_lo) - 1
        into = np.maximum(at, 0)
        beyond = _less(self.last_hi[into], self.last_lo[into], other.last_hi, other.last_lo)
        return (at >= 0) & ~beyond

    def meets(self, other: Ranges) -> NDArray[np.bool_]:
        """For each range of the other, which need not be in order: an address of it is in these."""
        if not len(self):
            return np.zeros(len(other), np.bool_)
        at = _search(self.first_hi, self.first_lo, other.last_hi, other.last_lo) - 1
        into = np.maximum(at, 0)
        short = _less(self.last_hi[into], self.last_lo[into], other.first_hi, other.first_lo)
        return (at >= 0) & ~short

    def some(self, most: int) -> Ranges:
        """At most so many of the ranges, from all over."""
        return self._only(np.arange(0, len(self), max(1, -(-len(self) // most))))

    def _only(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Ranges:
        return Ranges(
            self.first_hi[keep], self.first_lo[keep], self.last_hi[keep], self.last_lo[keep]
        )


def _after(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> Halves:
    """One more; 0 behind the last."""
    lo = lo + _ONE
    return hi + (lo == _ZERO), lo


def _before(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> Halves:
    return hi - (lo == _ZERO), lo - _ONE


def _less(
    hi: NDArray[np.uint64], lo: NDArray[np.uint64], hi2: NDArray[np.uint64], lo2: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    return np.asarray((hi < hi2) | ((hi == hi2) & (lo < lo2)))


def _search(
    hi: NDArray[np.uint64],
    lo: NDArray[np.uint64],
    at_hi: NDArray[np.uint64],
    at_lo: NDArray[np.uint64],
) -> NDArray[np.intp]:
    """For each address how many of the sorted (hi, lo) are not beyond it."""
    begin = np.searchsorted(hi, at_hi, "left")
    end = np.searchsorted(hi, at_hi, "right")
    while (open_ := begin < end).any():  # halves what is left between the two
        middle = np.minimum((begin + end) // 2, len(hi) - 1)
        passed = open_ & (lo[middle] <= at_lo)
        begin = np.where(passed, middle + 1, begin)
        end = np.where(open_ & ~passed, middle, end)
    return begin
