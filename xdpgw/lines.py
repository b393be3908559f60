"""Step functions as the datapath looks them up: nodes in cache lines (bpf/lookup.h, bpf/abi.h).

A step function is told by its breaks: where a new value begins, and which. Nodes are made from the
last stride of 16 bits to the first. At each stride the breaks of one node are those that agree in
all bits above it; the node takes their place, as one value of the stride before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdpgw import _abi as abi
from xdpgw._abi import Ref
from xdpgw.strides import Breaks, Groups, Steps, ends_of, groups_of, starts_of, steps_of, together

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.strides import Mask, Numbers, Values, Words

__all__ = ["GROUP_LINES", "PAGES", "PAGE_LINES", "STRIDES", "TURNS_END", "Full", "Lines"]

LINE_BYTES = abi.LINE_WORDS * 8
STRIDES = 8
"""Of an IPv6 address."""

GROUP_LINES = 1 + abi.INDEX_ENDS
"""Of a group of a node with many steps."""

TURNS_END = 4
"""Of a struct xg_turns: its first end, in u16."""

_LEAF_VALUE = 0  # of a leaf: its first value, in u32, and its first end, in u16
_LEAF_END = abi.LEAF_STEPS * 2
_LEAVES = abi.INDEX_ENDS * abi.LEAF_STEPS  # steps of a node with one line of ends
_INDEX2_STEPS = abi.INDEX_ENDS * _LEAVES
_ROOT_STEPS = _LEAVES  # a root of more steps is direct, as each packet comes by
_LAST = (1 << abi.STRIDE_BITS) - 1
_TURNS2_STEPS = 2 * abi.TURNS_STEPS
_INDEX, _INDEX2, _DIRECT, _TURNS, _TURNS2 = 1, 2, 3, 4, 5  # kinds of nodes; 0: leaves
PAGES = (_LAST + 1) // abi.PAGE_VALUES
PAGE_LINES = abi.PAGE_VALUES // abi.DIRECT_VALUES
_MOST_PAGES = 240  # with the table of pages 64 KiB, a quarter of what a value per number takes


class Full(Exception):
    """There are no lines left."""


class Lines:
    """Cache lines, given out one behind the other. The first is never given out."""

    def __init__(self, memory: Words | None = None, used: int = 1) -> None:
        """Start with lines of one's own, or go on in memory that is there.

        Args:
            memory: shape (lines, 8); all that there will ever be.
            used: how many of them are given out.
        """
        self._fixed = memory is not None
        self._words = np.zeros((1024, abi.LINE_WORDS), np.uint64) if memory is None else memory
        self.used = used

    @property
    def room(self) -> int:
        """Lines that are left where they cannot grow."""
        return len(self._words) - self.used

    def reserve(self, count: int) -> int:
        """Zeroed lines; returns the number of the first.

        Raises:
            Full: there are not so many.
        """
        at = self.used
        if at + count > len(self._words):
            if self._fixed:
                raise Full(f"{count} lines were wanted, and {self.room} are left")
            grown = np.zeros((max(at + count, 2 * len(self._words)), abi.LINE_WORDS), np.uint64)
            grown[:at] = self._words[:at]
            self._words = grown
        self.used = at + count
        return at

    @property
    def words(self) -> Words:
        """All lines that were given out, shape (lines, 8); the very memory, until more are."""
        return self._words[: self.used]

    def values(self, values: NDArray[Any]) -> int:
        """Some numbers, packed as they are; returns the line where they begin."""
        size = values.nbytes
        at = self.reserve(max(1, -(-size // LINE_BYTES)))
        self._words.view(np.uint8).reshape(-1)[at * LINE_BYTES :][:size] = values.view(np.uint8)
        return at

    def direct(self, breaks: Breaks, size: int) -> int:
        """A function of the numbers below `size` as one value per number."""
        if len(breaks.values) == 1:
            return int(breaks.values[0])
        widths: Numbers = np.diff(np.append(breaks.lo.astype(np.int64), size))
        return Ref.DIRECT | self.values(np.repeat(breaks.values, widths).astype(np.uint32))

    def function(self, breaks: Breaks, strides: int, direct: bool | None = None) -> int:
        """A function of 16 x `strides` bits: 1, 2 or 8; what a lookup begins with.

        Args:
            direct: whether the root has one value per number; None: if its pages are too many,
                and its steps, too.
        """
        paths = _Paths(self) if strides == STRIDES else None
        for stride in reversed(range(strides)):
            breaks = self._stride(breaks, stride, strides, paths, None if stride else direct)
        if paths is not None:
            paths.write()
        return int(breaks.values[0])

    def below(self, breaks: Breaks, strides: int, stride: int) -> int:
        """As `function`, of what one number of the stride before finds.

        Args:
            breaks: of that part only; the first one is where it begins. Values may be nodes, if
                these take all that agrees in the strides before theirs.
        """
        hi, lo = breaks.hi[:1], breaks.lo[:1]
        outside = np.full(1, Ref.LEAF - 1, np.uint32)
        zero = np.zeros(int(bool(hi[0] | lo[0])), np.uint64)
        breaks = Breaks(
            np.concatenate((zero, breaks.hi)),
            np.concatenate((zero, breaks.lo)),
            np.concatenate((outside[: len(zero)], breaks.values)),
        )
        paths = _Paths(self) if strides == STRIDES else None
        for at in reversed(range(stride, strides)):
            breaks = self._stride(breaks, at, strides, paths)
        if paths is not None:
            paths.write()
        return int(breaks.values[(breaks.hi == hi) & (breaks.lo == lo)][0])

    def _stride(
        self,
        breaks: Breaks,
        stride: int,
        strides: int,
        paths: _Paths | None,
        direct: bool | None = None,
    ) -> Breaks:
        """Puts nodes in the place of what differs in this stride only; direct: one in any case."""
        upper = strides == STRIDES and stride < STRIDES // 2
        half = breaks.hi if upper else breaks.lo
        shift = abi.STRIDE_BITS * ((min(strides, STRIDES // 2) - 1 - stride) % 4)
        digit = (half >> np.uint64(shift)) & np.uint64(_LAST)
        above = None if upper or strides < STRIDES else breaks.hi
        nodes = groups_of(np.flatnonzero(digit), half, shift, above)
        if not len(nodes.first):
            if not direct:
                return breaks
            nodes = Groups(np.zeros(1, np.int64), np.ones(1, np.int64))
        steps = steps_of(breaks, digit, nodes)
        refs = self._nodes(steps, stride, None if direct else paths, direct)
        if stride == 0:
            return Breaks(breaks.hi[:1], breaks.lo[:1], refs)
        at = breaks.at(nodes.first)._replace(values=refs)
        ends = steps.value[np.cumsum(steps.count) - 1]
        bits = shift + abi.STRIDE_BITS
        at, behind, inside = ends_of(at, ends, upper, bits, abi.STRIDE_BITS * strides)
        return together(breaks, nodes, at, behind, inside)

    def _nodes(
        self, steps: Steps, stride: int, paths: _Paths | None, direct: bool | None
    ) -> Values:
        """Writes nodes; returns what finds them."""
        refs = np.zeros(len(steps.count), np.uint32)
        left = np.ones(len(refs), np.bool_)
        if paths is not None:
            left = paths.take(steps, stride, refs)
        kinds = np.searchsorted(
            [abi.LEAF_STEPS, _LEAVES, _INDEX2_STEPS], steps.count, side="left"
        ).astype(np.int64)
        turning = steps.turning & (steps.count > abi.LEAF_STEPS)
        kinds[turning & (steps.count <= abi.TURNS_STEPS)] = _TURNS
        kinds[turning & (steps.count > abi.TURNS_STEPS) & (steps.count <= _TURNS2_STEPS)] = _TURNS2
        last = steps.last
        root = direct is None and stride == 0
        if direct or (root and len(steps.first) > _ROOT_STEPS):
            kinds[:] = _DIRECT
        kinds[~left] = -1
        if root and left[0]:
            paged = self._pages(np.repeat(steps.value, last - steps.first + 1))
            if paged is not None:
                refs[0], kinds[0] = paged, -1
        writers = (self._leaves, self._indexes, self._indexes2, None, self._turns, self._turns2)
        for kind, write in enumerate(writers):
            chosen = kinds == kind
            if write is not None and chosen.any():
                mine = chosen[steps.node]
                node = (np.cumsum(chosen) - 1)[steps.node[mine]]
                refs[chosen] = write(
                    steps.count[chosen], node, steps.place[mine], last[mine], steps.value[mine]
                )
        for node in np.flatnonzero(kinds == _DIRECT):
            mine = steps.node == node
            widths = last[mine] - steps.first[mine] + 1
            refs[node] = Ref.DIRECT | self.values(np.repeat(steps.value[mine], widths))
        return refs

    def _pages(self, values: Values) -> int | None:
        """A root of pages of these values, 65,536 of them; None where they are too many."""
        pages, number = np.unique(values.reshape(PAGES, -1), axis=0, return_inverse=True)
        if len(pages) > _MOST_PAGES:
            return None
        first = self.values(pages.reshape(-1))
        return Ref.PAGES | self.values((first + PAGE_LINES * number).astype(np.uint32))

    def _leaves(
        self, count: Numbers, node: Numbers, place: Numbers, last: Numbers, value: Values
    ) -> NDArray[np.int64]:
        at = self.reserve(len(count)) + np.arange(len(count))
        self._blank(at, _LEAF_END)
        self._put(at[node], place, last, value)
        return Ref.LEAF | at

    def _turns(
        self, count: Numbers, node: Numbers, place: Numbers, last: Numbers, value: Values
    ) -> NDArray[np.int64]:
        at = self.reserve(len(count)) + np.arange(len(count))
        self._put_turns(at, at[node], place, last, value)
        return Ref.TURNS | at

    def _turns2(
        self, count: Numbers, node: Numbers, place: Numbers, last: Numbers, value: Values
    ) -> NDArray[np.int64]:
        at = self.reserve(2 * len(count)) + 2 * np.arange(len(count))
        line, slot = np.divmod(place, abi.TURNS_STEPS)
        self._put_turns(np.concatenate((at, at + 1)), at[node] + line, slot, last, value)
        return Ref.TURNS2 | at

    def _put_turns(
        self, lines: Numbers, at: Numbers, slot: Numbers, last: Numbers, value: Values
    ) -> None:
        self._blank(lines, TURNS_END)
        self._ends[at, TURNS_END + slot] = last
        both = slot < 2
        self._words.view(np.uint32)[at[both], slot[both]] = value[both]

    def _indexes(
        self, count: Numbers, node: Numbers, place: Numbers, last: Numbers, value: Values
    ) -> NDArray[np.int64]:
        sizes = 1 + -(-count // abi.LEAF_STEPS)
        at = self.reserve(int(sizes.sum())) + starts_of(sizes)
        leaf, slot = np.divmod(place, abi.LEAF_STEPS)
        self._blank(at, 0)
        every = np.arange(at[0], at[-1] + sizes[-1])
        self._blank(np.setdiff1d(every, at, assume_unique=True), _LEAF_END)
        self._put(at[node] + 1 + leaf, slot, last, value)
        closing = (slot == abi.LEAF_STEPS - 1) | (place == count[node] - 1)
        self._ends[at[node[closing]], leaf[closing]] = last[closing]
        return Ref.INDEX | at

    def _indexes2(
        self, count: Numbers, node: Numbers, place: Numbers, last: Numbers, value: Values
    ) -> NDArray[np.int64]:
        full, rest = np.divmod(count - 1, _LEAVES)
        sizes = 1 + full * GROUP_LINES + 1 + rest // abi.LEAF_STEPS + 1
        at = self.reserve(int(sizes.sum())) + starts_of(sizes)
        group, inside = np.divmod(place, _LEAVES)
        leaf, slot = np.divmod(inside, abi.LEAF_STEPS)
        head = at[node] + 1 + group * GROUP_LINES
        heads = np.unique(head)
        every = np.arange(at[0], at[-1] + sizes[-1])
        self._blank(np.concatenate((at, heads)), 0)
        self._blank(np.setdiff1d(every, np.concatenate((at, heads))), _LEAF_END)
        self._put(head + 1 + leaf, slot, last, value)
        final = place == count[node] - 1
        closing = (slot == abi.LEAF_STEPS - 1) | final
        self._ends[head[closing], leaf[closing]] = last[closing]
        closing = (inside == _LEAVES - 1) | final
        self._ends[at[node[closing]], group[closing]] = last[closing]
        return Ref.INDEX2 | at

    @property
    def _ends(self) -> NDArray[np.uint16]:
        return self._words.view(np.uint16)

    def _blank(self, at: Numbers, first: int) -> None:
        """Unused ends, from the first of a line on."""
        self._ends[at, first:] = _LAST

    def _put(self, at: Numbers, slot: Numbers, last: Numbers, value: Values) -> None:
        """Steps of leaves."""
        self._words.view(np.uint32)[at, _LEAF_VALUE + slot] = value
        self._ends[at, _LEAF_END + slot] = last


class _Paths:
    """struct xg_path: nodes of IPv6 where one number alone leads on; a chain of them is a line."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.dtype = abi.path_dtype()
        self.paths = np.zeros(0, self.dtype)
        self.at = np.zeros(0, np.int64)  # the line of each; ascending

    def take(self, steps: Steps, stride: int, refs: Values) -> Mask:
        """Makes paths of nodes that are such; returns which are left."""
        starts = starts_of(steps.count)
        wide = steps.last != steps.first
        value = steps.value
        two, three = steps.count == 2, steps.count == 3
        last = starts + steps.count - 1
        lone_first = two & ~wide[starts]
        lone_last = two & ~wide[last] & ~lone_first
        lone_middle = three & ~wide[np.minimum(starts + 1, len(wide) - 1)]
        lone_middle &= value[starts] == value[last]
        one = lone_first | lone_last | lone_middle
        lone = np.where(lone_first, starts, np.where(lone_last, last, starts + 1))[one]
        left: Mask
        if not len(lone):
            left = ~one
            return left
        miss = np.where(lone_first, value[last], value[starts])[one]
        one[one] = fit = miss < Ref.LEAF  # never a node, as a node has one number
        lone, miss = lone[fit], miss[fit]
        hit = value[lone]
        known = np.searchsorted(self.at, (hit & np.uint32(Ref.LINE)).astype(np.int64))
        known = np.minimum(known, max(0, len(self.at) - 1))
        extends = ((hit & np.uint32(Ref.KIND)) == Ref.PATH) & bool(len(self.at))
        if len(self.at):
            extends &= self.paths["miss"][known] == miss
            extends &= self.at[known] == hit & np.uint32(Ref.LINE)  # not one that was there before
        fresh = np.zeros(int((~extends).sum()), self.dtype)
        fresh["hit"], fresh["miss"], fresh["next"] = hit[~extends], miss[~extends], stride + 1
        made = self.lines.reserve(len(fresh)) + np.arange(len(fresh))
        which = np.empty(len(lone), np.int64)
        which[extends], which[~extends] = known[extends], len(self.at) + np.arange(len(fresh))
        self.paths = np.concatenate((self.paths, fresh))
        self.at = np.concatenate((self.at, made))
        half, shift = divmod(stride, 4)
        shift = abi.STRIDE_BITS * (3 - shift)
        self.paths["wanted"][which, half] |= steps.first[lone].astype(np.uint64) << np.uint64(shift)
        self.paths["mask"][which, half] |= np.uint64(_LAST << shift)
        refs[one] = Ref.PATH | self.at[which]
        left = ~one
        return left

    def write(self) -> None:
        """Writes the lines; before that, paths grow."""
        if len(self.at):
            self.lines.words[self.at] = self.paths.view(np.uint64).reshape(-1, abi.LINE_WORDS)
