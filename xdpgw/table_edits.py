"""Other values for some addresses in a table that lookups go on reading.

What changes is built in lines that no lookup reaches yet; then numbers of 32 bits are written that
point there. So a lookup finds the old value of an address or the new one, and never a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xdpgw import _abi as abi
from xdpgw._abi import Ref
from xdpgw.accepts import Interval
from xdpgw.lines import GROUP_LINES, PAGE_LINES, PAGES, TURNS_END, Lines
from xdpgw.strides import Breaks, starts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Edit", "Flip", "Nodes"]

_BITS = abi.STRIDE_BITS
_LAST = (1 << _BITS) - 1
_LEAF_ENDS = slice(abi.LEAF_STEPS * 2, abi.LEAF_STEPS * 3)  # of a line of 16-bit numbers

Flip: TypeAlias = Callable[[int], int]
"""From the value of an address to the one that takes its place."""

Step: TypeAlias = tuple[int, int, int]
"""First and last number, value or node."""

Part: TypeAlias = tuple[int, int, list[Interval]]
"""First and last number of a node, and what of it changes: addresses, or with none all."""


class Nodes:
    """The nodes of tables in force, to be read, and written one number at a time."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self._undo: list[tuple[int, int, int]] = []  # (line, number in it, what stood there)

    @property
    def numbers(self) -> NDArray[np.uint32]:
        """All lines that were given out, as values and nodes."""
        return self.lines.words.view(np.uint32)

    @property
    def _ends(self) -> NDArray[np.uint16]:
        return self.lines.words.view(np.uint16)

    def write(self, line: int, place: int, ref: int) -> None:
        """Where a lookup may be: one number, whole."""
        numbers = self.numbers
        self._undo.append((line, place, int(numbers[line, place])))
        numbers[line, place] = ref

    def keep(self) -> None:
        """What was written so far is not to be taken back."""
        self._undo.clear()

    def take_back(self) -> None:
        """Write what stood there before."""
        numbers = self.numbers
        while self._undo:
            line, place, was = self._undo.pop()
            numbers[line, place] = was

    def path(self, ref: int) -> np.void:
        """The struct xg_path of a node that is one."""
        path: np.void = self.lines.words[ref & Ref.LINE].view(abi.path_dtype())[0]
        return path

    def slot(self, ref: int, x: int) -> tuple[int, int, int]:
        """(line, number in it, how many numbers share it) of a node's value for a number; not of
        one whose steps take turns, or of pages."""
        at, ends = ref & Ref.LINE, self._ends
        if ref & Ref.KIND == Ref.DIRECT:
            return at + x // abi.DIRECT_VALUES, x % abi.DIRECT_VALUES, 1
        before = -1
        for group in (GROUP_LINES, 1)[_DEPTHS[ref & Ref.KIND] :]:
            rank = int(ends[at].searchsorted(np.uint16(x)))
            before = int(ends[at, rank - 1]) if rank else before
            at += 1 + rank * group
        mine = ends[at, _LEAF_ENDS]
        rank = int(mine.searchsorted(np.uint16(x)))
        before = int(mine[rank - 1]) if rank else before
        return at, rank, int(mine[rank]) - before

    def own_slot(self, ref: int, x: int) -> tuple[int, int]:
        """(line, number in it) of a node of pages, of the value for a number: in a page that others
        do not share, which is made if they do."""
        table = self.numbers.reshape(-1)[(ref & Ref.LINE) * abi.DIRECT_VALUES :][:PAGES]
        number, place = divmod(x, abi.PAGE_VALUES)
        page = int(table[number])
        if np.count_nonzero(table == page) > 1:
            at = self.lines.reserve(PAGE_LINES)
            self.lines.words[at : at + PAGE_LINES] = self.lines.words[page : page + PAGE_LINES]
            line, inside = divmod(number, abi.DIRECT_VALUES)
            self.write((ref & Ref.LINE) + line, inside, at)
            page = at
        return page + place // abi.DIRECT_VALUES, place % abi.DIRECT_VALUES

    def steps(self, ref: int) -> list[Step]:
        """The steps of a node."""
        if ref & Ref.KIND in (Ref.DIRECT, Ref.PAGES):
            values = self._values(ref)
            starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
            last, value = np.append(starts[1:] - 1, _LAST), values[starts]
        elif ref & Ref.KIND in _TURNS:
            at = ref & Ref.LINE
            lines = slice(at, at + 1 + (ref & Ref.KIND == Ref.TURNS2))
            last = np.unique(self._ends[lines, TURNS_END:]).astype(np.int64)
            value = np.resize(self.numbers[at, :2], len(last))
            starts = np.append(0, last[:-1] + 1)
        else:
            leaves = self._leaves(ref)
            last = self._ends[leaves, _LEAF_ENDS].reshape(-1).astype(np.int64)
            used = np.append(True, last[1:] > last[:-1])
            last = last[used]
            value = self.numbers[leaves, : abi.LEAF_STEPS].reshape(-1)[used]
            starts = np.append(0, last[:-1] + 1)
        return list(zip(starts.tolist(), last.tolist(), value.tolist(), strict=True))

    def _values(self, ref: int) -> NDArray[np.uint32]:
        """Of a node that has one for each number: all."""
        numbers: NDArray[np.uint32] = self.numbers.reshape(-1)
        values = numbers[(ref & Ref.LINE) * abi.DIRECT_VALUES :][: _LAST + 1]
        if ref & Ref.KIND == Ref.DIRECT:
            return values
        pages = values[:PAGES, None] * np.uint32(abi.DIRECT_VALUES)
        paged: NDArray[np.uint32] = numbers[pages + np.arange(abi.PAGE_VALUES, dtype=np.uint32)]
        return paged.reshape(-1)

    def _leaves(self, ref: int) -> NDArray[np.int64]:
        """The lines of a node where its values are."""
        at = np.array([ref & Ref.LINE])
        for group in (GROUP_LINES, 1)[_DEPTHS[ref & Ref.KIND] :]:
            counts = (self._ends[at] < _LAST).sum(axis=1) + 1
            inside = np.arange(int(counts.sum())) - np.repeat(starts_of(counts), counts)
            at = np.repeat(at, counts) + 1 + inside * group
        return at


class Edit:
    """One way to change values, in the tables of one family."""

    def __init__(self, nodes: Nodes, strides: int, flip: Flip) -> None:
        self._nodes, self._lines = nodes, nodes.lines
        self._strides, self._flip = strides, flip

    def edited(self, ref: int, stride: int, group: int, ranges: Sequence[Interval]) -> int:
        """What takes the place of a reference once some addresses are flipped.

        Args:
            stride: that the reference is looked up by.
            group: the first address that it is for.
            ranges: addresses that it is for, in order and apart.

        Returns:
            The reference itself, if all was written in its node.
        """
        if not ref & Ref.LEAF or ref & Ref.KIND == Ref.PATH:
            return self._grown(ref, stride, group, ranges)
        parts = self._parts(stride, group, ranges)
        kind = ref & Ref.KIND
        whole = kind in (Ref.DIRECT, Ref.PAGES)
        if kind in _TURNS or (
            not whole and any(x != last or self._nodes.slot(ref, x)[2] != 1 for x, last, _ in parts)
        ):
            return self._with(ref, stride, group, parts)
        for first, last, inside in parts:
            for x in range(first, last + 1):
                if kind == Ref.PAGES:
                    line, place = self._nodes.own_slot(ref, x)
                else:
                    line, place, _ = self._nodes.slot(ref, x)
                was = int(self._nodes.numbers[line, place])
                now = self._below(was, stride, group, x, inside)
                if now != was:
                    self._nodes.write(line, place, now)
        return ref

    def _parts(self, stride: int, group: int, ranges: Sequence[Interval]) -> list[Part]:
        below = _BITS * (self._strides - stride - 1)
        parts: list[Part] = []
        for first, last in ranges:
            x, y = first - group >> below, last - group >> below
            if x < y and (first - group) & (1 << below) - 1:
                _add(parts, x, (first, group + (x + 1 << below) - 1))
                x += 1
                first = group + (x << below)
            if (last - group + 1) & (1 << below) - 1 or first != group + (x << below):
                start = max(first, group + (y << below))
                if x < y:
                    parts.append((x, y - 1, []))
                _add(parts, y, (start, last))
            else:
                parts.append((x, y, []))
        return parts

    def _below(self, ref: int, stride: int, group: int, x: int, inside: list[Interval]) -> int:
        """What takes the place of what one number of a node finds."""
        if not inside:
            return self._flipped(ref, stride + 1)
        start = group + (x << _BITS * (self._strides - stride - 1))
        return self.edited(ref, stride + 1, start, inside)

    def _flipped(self, ref: int, stride: int) -> int:
        """What takes the place of a reference if all below it is flipped."""
        if not ref & Ref.LEAF:
            return self._flip(ref)
        if ref & Ref.KIND != Ref.PATH:
            return self._with(ref, stride, 0, [(0, _LAST, [])])
        made = self._nodes.path(ref).copy()
        made["hit"] = self._flipped(int(made["hit"]), int(made["next"]))
        made["miss"] = self._flip(int(made["miss"]))
        at = self._lines.reserve(1)
        self._lines.words[at] = np.frombuffer(made.tobytes(), np.uint64)
        return Ref.PATH | at

    def _with(self, ref: int, stride: int, group: int, parts: Sequence[Part]) -> int:
        """A new node like this one, with other values in some parts."""
        starts: dict[int, int] = {}
        left = list(reversed(parts))
        for lo, hi, value in self._nodes.steps(ref):
            at = lo
            while left and left[-1][0] <= hi:
                first, last, inside = left[-1]
                begin, end = max(first, lo), min(last, hi)
                if at < begin:
                    starts[at] = value
                starts[begin] = self._below(value, stride, group, begin, inside)
                at = end + 1
                if last > hi:
                    break
                left.pop()
            if at <= hi:
                starts[at] = value
        return self._lines.function(_breaks(starts), 1, direct=False)

    def _grown(self, ref: int, stride: int, group: int, ranges: Sequence[Interval]) -> int:
        """A node in the place of what was one value, or one path."""
        starts: dict[int, int] = {}
        for lo, hi, value, below in self._pieces(ref, stride, group):
            inside = [(max(a, lo), min(b, hi)) for a, b in ranges if a <= hi and lo <= b]
            starts[lo] = value
            if inside == [(lo, hi)]:
                starts[lo] = self._flipped(value, below)
            elif value & Ref.LEAF and inside:
                starts[lo] = self.edited(value, below, lo, inside)
            else:
                for first, last in inside:
                    starts[first] = self._flip(value)
                    if last < hi:
                        starts[last + 1] = value
        return self._lines.below(_breaks(starts), self._strides, stride)

    def _pieces(self, ref: int, stride: int, group: int) -> Iterator[tuple[int, int, int, int]]:
        """(first, last, value, stride of the value) of what is no node of one stride."""
        end = group + (1 << _BITS * (self._strides - stride)) - 1
        if not ref & Ref.LEAF:
            yield group, end, ref, self._strides
            return
        path = self._nodes.path(ref)
        miss, hit, after = int(path["miss"]), int(path["hit"]), int(path["next"])
        wanted, mask = (int(x[0]) << 64 | int(x[1]) for x in (path["wanted"], path["mask"]))
        first = group | wanted & mask
        last = first + (1 << _BITS * (self._strides - after)) - 1
        if group < first:
            yield group, first - 1, miss, self._strides
        yield first, last, hit, after
        if last < end:
            yield last + 1, end, miss, self._strides


_TURNS = (Ref.TURNS, Ref.TURNS2)
_DEPTHS: dict[int, int] = {Ref.INDEX2: 0, Ref.INDEX: 1, Ref.LEAF: 2}
"""How many lines of ends a node has less than two."""


def _add(parts: list[Part], x: int, inside: Interval) -> None:
    """Some addresses of one number, which may be the number of the last part."""
    if not parts or parts[-1][0] != x:
        parts.append((x, x, []))
    parts[-1][2].append(inside)


def _breaks(starts: dict[int, int]) -> Breaks:
    order = sorted(starts)
    return Breaks(
        np.array([at >> 64 for at in order], np.uint64),
        np.array([at & (1 << 64) - 1 for at in order], np.uint64),
        np.array([starts[at] for at in order], np.uint32),
    ).joined()
