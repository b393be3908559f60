"""Which rules hold which others: a matrix of bits, dimension by dimension.

A row is a rule that may be covered, a column one that may cover it. In each dimension the regions
of all rules are asked at once: a column turns on where one of its intervals begins and off where it
ends, and adding up these turns along the axis tells, for each end of an interval of the rows, who
is on there. Who is on at both ends of an interval holds it if no gap lies between; so each interval
of a region has a number, and each bit of that number turns on and off by itself, too.

What has more than `LARGE` intervals comes from a file and is rare. It is looked up instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xdpgw.ranges import Ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LARGE", "Region", "Regions", "first_covers"]

Region: TypeAlias = tuple[tuple[int, int], ...] | Ranges
"""Sorted intervals that do not touch, first and last included: a tuple of at most `LARGE`, else
`Ranges`."""

Regions: TypeAlias = Mapping[str, Region]
"""Dimension -> region; what is not in it may be anything, also missing in the packet."""

LARGE = 64
_BLOCK = 8192
"""So many intervals are asked at once; times a bit a rule, it bounds the memory."""


def first_covers(
    regions: Sequence[Regions | None], decides: Sequence[bool], widths: Mapping[str, int]
) -> list[int | None]:
    """For each rule the first earlier rule that covers it.

    Args:
        regions: of each rule; None: it matches nothing, covers nothing and is not asked about.
        decides: the rule can cover others.
        widths: bits of a value in each dimension.
    """
    can = np.array([d and r is not None for d, r in zip(decides, regions, strict=True)], np.bool_)
    candidates = _earlier(can)
    candidates[[r is None for r in regions]] = 0
    for name in sorted({name for own in regions if own for name in own}, key=_order):
        alive = np.flatnonzero(candidates.any(axis=1))
        if not len(alive):
            break
        columns = [own.get(name) if own is not None else None for own in regions]
        dimension = _Dimension(columns, can, widths[name])
        dimension.strike(candidates, alive)
    out: list[int | None] = [None] * len(regions)
    for at in np.flatnonzero(candidates.any(axis=1)):
        out[at] = _lowest(candidates[at])
    return out


def _order(name: str) -> tuple[bool, str]:
    """Addresses are the most to ask about: they come when most rows are empty."""
    return name.startswith(("src", "dst")), name


def _earlier(can: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """For each rule a bit for each earlier one that can cover."""
    rules = len(can)
    words = np.arange(-(-rules // 64))
    at = np.arange(rules)
    out = np.where(words[None, :] < (at // 64)[:, None], ~np.uint64(0), np.uint64(0))
    out[at, at // 64] = (np.uint64(1) << (at % 64).astype(np.uint64)) - np.uint64(1)
    return np.asarray(out & _mask(np.flatnonzero(can), len(words)))


def _mask(rules: NDArray[np.intp], words: int) -> NDArray[np.uint64]:
    out = np.zeros(words, np.uint64)
    np.bitwise_or.at(out, rules // 64, np.uint64(1) << (rules % 64).astype(np.uint64))
    return out


def _lowest(row: NDArray[np.uint64]) -> int:
    word = int(np.argmax(row != 0))
    value = int(row[word])
    return word * 64 + (value & -value).bit_length() - 1


class _Dimension:
    """The regions of all rules in one dimension."""

    def __init__(
        self, columns: Sequence[Region | None], can: NDArray[np.bool_], width: int
    ) -> None:
        self.width = width
        self.words = -(-len(columns) // 64)
        self.small: list[tuple[tuple[int, int], ...]] = []
        self.large: list[Ranges] = []
        self.of = np.full(len(columns), -1)  # rule -> index of its region; large ones from the top
        known: dict[object, int] = {}
        for rule, region in enumerate(columns):
            if isinstance(region, tuple):
                self.of[rule] = at = known.setdefault(region, len(self.small))
                if at == len(self.small):
                    self.small.append(region)
            elif region is not None:
                self.of[rule] = at = known.setdefault(id(region), -2 - len(self.large))
                if at == -2 - len(self.large):
                    self.large.append(region)
        self.can = can
        self.anything = _mask(np.flatnonzero(can & (self.of == -1)), self.words)
        self._rank_small()

    def _rank_small(self) -> None:
        counts = [len(region) for region in self.small]
        ends = [end for region in self.small for interval in region for end in interval]
        ranks = {value: rank for rank, value in enumerate(sorted(set(ends)))}
        ranked = np.array([ranks[end] for end in ends], np.int64).reshape(-1, 2)
        self.first, self.last = ranked[:, 0], ranked[:, 1]
        self.begin = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))  # region -> interval

    def strike(self, candidates: NDArray[np.uint64], alive: NDArray[np.intp]) -> None:
        """Take away from the rows of `alive` all columns that do not hold them here."""
        kind = self.of[alive]
        candidates[alive[kind == -1]] &= self.anything
        small = np.unique(kind[kind >= 0])
        self._strike_small(candidates, alive[kind >= 0], small, 1)  # leaves hardly a row
        alive = alive[candidates[alive].any(axis=1)]
        kind = self.of[alive]
        small = np.unique(kind[kind >= 0])
        small = small[np.diff(self.begin)[small] > 1]
        self._strike_small(candidates, alive[np.isin(kind, small)], small, LARGE)
        for at in np.unique(kind[kind < -1]):
            asked = alive[kind == at]
            wanted = np.bitwise_or.reduce(candidates[asked], axis=0)
            candidates[asked] &= self._held_large(-2 - int(at), wanted)

    def _strike_small(
        self,
        candidates: NDArray[np.uint64],
        asked: NDArray[np.intp],
        regions: NDArray[np.intp],
        most: int,
    ) -> None:
        """The same for rows with these regions, by their first intervals, so many at most."""
        if not len(regions):
            return
        of = np.searchsorted(regions, self.of[asked])
        sizes = np.cumsum(np.minimum(np.diff(self.begin)[regions], most))
        borders = [0, *(np.flatnonzero(np.diff(sizes // _BLOCK)) + 1).tolist(), len(regions)]
        for begin, end in pairwise(borders):
            held = self._held(regions[begin:end], most)
            here = (of >= begin) & (of < end)
            candidates[asked[here]] &= held[of[here] - begin]

    def _intervals(
        self, regions: NDArray[np.intp], most: int = LARGE
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The first intervals of the regions one behind the other, and how many each has."""
        counts = np.minimum(self.begin[regions + 1] - self.begin[regions], most)
        starts = np.cumsum(counts) - counts
        inside = np.arange(counts.sum()) - np.repeat(starts, counts)
        return np.repeat(self.begin[regions], counts) + inside, counts

    def _held(self, regions: NDArray[np.intp], most: int) -> NDArray[np.uint64]:
        """For each of these small regions the columns that hold its first intervals."""
        asked, counts = self._intervals(regions, most)
        first, last = self.first[asked], self.last[asked]
        points = np.unique(np.concatenate((first, last)))
        at_first, at_last = np.searchsorted(points, first), np.searchsorted(points, last)
        held = np.full((len(asked), self.words), ~np.uint64(0))
        for level, (at, columns) in enumerate(self._turns()):
            on = self._sums(at, columns, points)
            if level == 0:
                held &= on[at_first]
                held &= on[at_last]
            else:  # another interval
                held &= ~(on[at_first] ^ on[at_last])
        whole = np.full((len(regions), self.words), ~np.uint64(0))  # what is empty is in all
        full = counts > 0
        if full.any():
            starts = (np.cumsum(counts) - counts)[full]
            whole[full] = np.bitwise_and.reduceat(held, starts, axis=0)
        for outer, holders in self._large_holders():
            inside = outer.holds(self._ranges(regions, most))
            out = np.repeat(np.arange(len(regions)), counts)[~inside]
            fits = np.ones(len(regions), np.bool_)
            fits[out] = False
            whole[fits] |= holders
        return whole | self.anything

    def _turns(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.intp]]]:
        """(rank, column) of each turn: for the intervals, then for each bit of their numbers."""
        rules = np.flatnonzero(self.can & (self.of >= 0))
        intervals, counts = self._intervals(self.of[rules])
        columns = np.repeat(rules, counts)
        numbers = intervals - np.repeat(self.begin[self.of[rules]], counts)
        bits = int(numbers.max(initial=0)).bit_length()
        for on in (numbers >= 0, *((numbers >> bit & 1).astype(np.bool_) for bit in range(bits))):
            turns = (self.first[intervals[on]], self.last[intervals[on]] + 1)
            yield np.concatenate(turns), np.tile(columns[on], 2)

    def _sums(
        self, at: NDArray[np.int64], columns: NDArray[np.intp], points: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """For each point a bit for each column that is on there."""
        out = np.zeros((len(points) + 1) * self.words, np.uint64)
        where = np.searchsorted(points, at) * self.words + columns // 64
        np.bitwise_xor.at(out, where, np.uint64(1) << (columns % 64).astype(np.uint64))
        table = out.reshape(-1, self.words)
        return np.asarray(np.bitwise_xor.accumulate(table, axis=0, out=table))

    def _large_holders(self) -> Iterator[tuple[Ranges, NDArray[np.uint64]]]:
        for at, outer in enumerate(self.large):
            yield outer, _mask(np.flatnonzero(self.can & (self.of == -2 - at)), self.words)

    def _ranges(self, regions: NDArray[np.intp], most: int) -> Ranges:
        return Ranges.of(interval for at in regions for interval in self.small[at][:most])

    def _held_large(self, large: int, wanted: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The columns that hold a large region; of those not wanted it may say anything."""
        inner = self.large[large]
        out = self.anything.copy()
        for at, (outer, holders) in enumerate(self._large_holders()):
            if (holders & wanted).any() and (at == large or self._inside(inner, outer)):
                out |= holders
        # A small region holds it where none of its gaps meets it.
        gaps = [list(_gaps(region, self.width)) for region in self.small]
        met = inner.meets(Ranges.of(gap for some in gaps for gap in some))
        holding = np.ones(len(gaps), np.bool_)
        holding[np.repeat(np.arange(len(gaps)), [len(x) for x in gaps])[met]] = False
        small = np.flatnonzero(self.can & (self.of >= 0))
        return out | _mask(small[holding[self.of[small]]], self.words)

    def _inside(self, inner: Ranges, outer: Ranges) -> bool:
        """No address of the inner region is outside the outer one."""
        gaps = outer.inverted(self.width)
        some = gaps.some(LARGE)  # most pairs differ everywhere
        return not inner.meets(some).any() and not inner.meets(gaps).any()


def _gaps(region: tuple[tuple[int, int], ...], width: int) -> Iterator[tuple[int, int]]:
    at = 0
    for first, last in region:
        if at < first:
            yield at, first - 1
        at = last + 1
    if at < 1 << width:
        yield at, (1 << width) - 1
