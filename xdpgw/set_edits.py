"""Changes of sets in the tables that a program looks up now, without building them anew.

What changes is built in lines that no lookup reaches yet; then one number of 32 bits is written
that points there. So a packet finds the old or the new, and never a part. Lines that are no longer
reached are not used again: a lookup may still be in them. When the spare lines are used up, the
image is built anew, as it is where a change needs a row that no value had before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xdpgw import _abi as abi
from xdpgw._abi import Dim, Ref
from xdpgw.accepts import Interval, both, inverted, merged
from xdpgw.lines import STRIDES, Breaks, Full, Lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.prefixes import Prefixes
    from xdpgw.rule_types import Prefix
    from xdpgw.tables import LiveTests, Tables

__all__ = ["NeedsRebuild", "SetEditor"]

MOST = 1000
"""So many prefixes are changed one by one; building anew is quicker for more."""

_NEAR = 4096  # prefixes of the set inside one that changes
_WIDTHS = {4: 32, 6: 128}
_STRIDES = {4: 2, 6: STRIDES}
_LAST = (1 << abi.STRIDE_BITS) - 1

Change: TypeAlias = tuple[int, int, int]
"""Family, first and last address."""

Flip: TypeAlias = Callable[[int], int]
"""From the value of an address to the one that it has once the set holds it, or no longer does."""


class NeedsRebuild(Exception):
    """The change cannot be made in place; str() says why."""


class SetEditor:
    """Edits the tables of one image in the kernel."""

    def __init__(self, tables: Tables, words: NDArray[np.uint64]) -> None:
        """Take charge of them.

        Args:
            tables: as they were compiled.
            words: the map `lines`, shape (lines, 8); what is behind `tables.lines` is spare.
        """
        self._root = tuple(tables.root)
        self._lines = Lines(words, len(tables.lines))
        self._numbers = words.view(np.uint32)
        self._ends = words.view(np.uint16)
        self._sides = [_Side(live) for live in tables.live]
        self._undo: list[tuple[int, int, int]] = []  # (line, number in it, what stood there)

    @property
    def spare(self) -> int:
        """Lines that are left."""
        return self._lines.room

    def replace(self, old: Prefixes, new: Prefixes) -> int:
        """As `change`, of one pair."""
        return self.change([(old, new)])

    def change(self, pairs: Iterable[tuple[Prefixes, Prefixes]]) -> int:
        """Put sets in the place of others, wherever rules name them.

        Args:
            pairs: (old, new); no new one is the old one of another pair.

        Returns:
            how many prefixes were changed.

        Raises:
            NeedsRebuild: lookups find what they found before; the editor is of no more use.
        """
        count = 0
        self._undo.clear()
        try:
            for old, new in pairs:
                added, removed = old.difference(new)
                count += len(added) + len(removed)
                if count > MOST:
                    raise NeedsRebuild(f"{count} prefixes differ")
                self._replace(old, new, list(_changed(old, new, (*added, *removed))))
        except BaseException as error:
            for line, place, was in reversed(self._undo):
                self._numbers[line, place] = was
            if isinstance(error, Full):
                raise NeedsRebuild(str(error)) from error
            raise
        return count

    def _replace(self, old: Prefixes, new: Prefixes, ranges: Sequence[Change]) -> None:
        for side in self._sides:
            flip = side.replaced(old, new)
            if flip is not None:
                for family, first, last in ranges:
                    self._change(side.dims[family], family, first, last, flip)

    def _write(self, line: int, place: int, ref: int) -> None:
        """Where a lookup may be: one number, whole."""
        self._undo.append((line, place, int(self._numbers[line, place])))
        self._numbers[line, place] = ref

    def _change(self, dim: Dim, family: int, first: int, last: int, flip: Flip) -> None:
        root = self._root[dim]
        for address, bits in _prefixes_of(first, last, _WIDTHS[family]):
            if self._edited(root, 0, _STRIDES[family], address, bits, flip) != root:
                raise NeedsRebuild("the table's root is small")

    def _edited(
        self, ref: int, stride: int, strides: int, address: int, bits: int, flip: Flip
    ) -> int:
        """What takes the place of a reference once a prefix is flipped; itself if it can stay."""
        below = abi.STRIDE_BITS * (strides - stride - 1)  # bits below this stride
        if not ref & Ref.LEAF or ref & Ref.KIND == Ref.PATH:
            return self._grown(ref, stride, strides, address, bits, flip)
        x = address >> below & _LAST
        if abi.STRIDE_BITS * (stride + 1) < bits:
            line, place, width = self._slot(ref, x)
            child = int(self._numbers[line, place])
            new = self._edited(child, stride + 1, strides, address, bits, flip)
            if new == child:
                return ref
            if width == 1:
                self._write(line, place, new)
                return ref
            return self._with(ref, x, x, lambda _: new)
        last = x | (1 << abi.STRIDE_BITS * (stride + 1) - bits) - 1

        def flipped(value: int) -> int:
            return self._flipped(value, stride + 1, strides, flip)

        if ref & Ref.KIND != Ref.DIRECT:
            return self._with(ref, x, last, flipped)
        for number in range(x, last + 1):
            line, place, _ = self._slot(ref, number)
            self._write(line, place, flipped(int(self._numbers[line, place])))
        return ref

    def _flipped(self, ref: int, stride: int, strides: int, flip: Flip) -> int:
        """What takes the place of a reference if all below it is flipped."""
        if not ref & Ref.LEAF:
            return flip(ref)
        if ref & Ref.KIND == Ref.PATH:
            path = self._path(ref)
            hit = self._flipped(int(path["hit"]), int(path["next"]), strides, flip)
            at = self._lines.reserve(1)
            made = path.copy()
            made["hit"], made["miss"] = hit, flip(int(path["miss"]))
            self._lines.words[at] = np.frombuffer(made.tobytes(), np.uint64)
            return Ref.PATH | at
        return self._with(
            ref, 0, _LAST, lambda value: self._flipped(value, stride + 1, strides, flip)
        )

    def _with(self, ref: int, first: int, last: int, change: Callable[[int], int]) -> int:
        """A new node like this one, with other values from first to last."""
        starts: dict[int, int] = {}
        for lo, hi, value in self._steps(ref):
            if lo < first:
                starts[lo] = value
            if lo <= last and hi >= first:
                starts[max(lo, first)] = change(value)
            if hi > last:
                starts[max(lo, last + 1)] = value
        return self._lines.function(_breaks(starts), 1)

    def _grown(
        self, ref: int, stride: int, strides: int, address: int, bits: int, flip: Flip
    ) -> int:
        """A node in the place of what was one value, or one path."""
        size = abi.STRIDE_BITS * (strides - stride)
        group = address >> size << size
        last = address | (1 << abi.STRIDE_BITS * strides - bits) - 1
        starts: dict[int, int] = {}
        for lo, hi, value, below in self._pieces(ref, group, size, strides):
            if hi < address or last < lo:
                starts[lo] = value
            elif not value & Ref.LEAF:
                starts[lo] = value
                starts[max(lo, address)] = flip(value)
                if hi > last:
                    starts[last + 1] = value
            elif address <= lo and hi <= last:
                starts[lo] = self._flipped(value, below, strides, flip)
            else:
                starts[lo] = self._edited(value, below, strides, address, bits, flip)
        return self._lines.below(_breaks(starts), strides, stride)

    def _pieces(
        self, ref: int, group: int, size: int, strides: int
    ) -> Iterator[tuple[int, int, int, int]]:
        """(first, last, value, stride of the value) of what is no node of one stride."""
        end = group + (1 << size) - 1
        if not ref & Ref.LEAF:
            yield group, end, ref, strides
            return
        path = self._path(ref)
        miss, hit, after = int(path["miss"]), int(path["hit"]), int(path["next"])
        wanted, mask = (int(x[0]) << 64 | int(x[1]) for x in (path["wanted"], path["mask"]))
        first = group | wanted & mask
        last = first + (1 << abi.STRIDE_BITS * (strides - after)) - 1
        if group < first:
            yield group, first - 1, miss, strides
        yield first, last, hit, after
        if last < end:
            yield last + 1, end, miss, strides

    def _path(self, ref: int) -> np.void:
        path: np.void = self._lines.words[ref & Ref.LINE].view(abi.path_dtype())[0]
        return path

    def _slot(self, ref: int, x: int) -> tuple[int, int, int]:
        """(line, number in it, how many numbers share it) of a node's value for a number."""
        at = ref & Ref.LINE
        if ref & Ref.KIND == Ref.DIRECT:
            return at + x // abi.DIRECT_VALUES, x % abi.DIRECT_VALUES, 1
        before = -1
        for group in (1 + abi.INDEX_ENDS, 1)[_DEPTHS[ref & Ref.KIND] :]:
            rank = int(np.searchsorted(self._ends[at], x))
            before = int(self._ends[at, rank - 1]) if rank else before
            at += 1 + rank * group
        ends = self._ends[at, abi.LEAF_STEPS * 2 :]
        rank = int(np.searchsorted(ends, x))
        before = int(ends[rank - 1]) if rank else before
        return at, rank, int(ends[rank]) - before

    def _steps(self, ref: int) -> Iterator[tuple[int, int, int]]:
        """(first, last, value) of each step of a node."""
        if ref & Ref.KIND == Ref.DIRECT:
            at = (ref & Ref.LINE) * abi.DIRECT_VALUES
            values = self._numbers.reshape(-1)[at : at + _LAST + 1]
            starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
            lasts = np.append(starts[1:] - 1, _LAST)
            columns = (starts.tolist(), lasts.tolist(), values[starts].tolist())
            yield from zip(*columns, strict=True)
            return
        x = 0
        while x <= _LAST:
            line, place, _ = self._slot(ref, x)
            last = int(self._ends[line, abi.LEAF_STEPS * 2 + place])
            yield x, last, int(self._numbers[line, place])
            x = last + 1


class _Side:
    """The tests of one side, and the values of addresses by what these satisfy."""

    def __init__(self, live: LiveTests) -> None:
        self.dims = live.dims
        self._tests = list(live.tests)
        self._bits = live.bits
        self._tokens = _numbers_of(live.test_tokens)
        known = list(zip(_numbers_of(live.tokens), live.values.tolist(), strict=True))
        self._value_of = dict(known)
        self._token_of = {value: token for token, value in known}

    def replaced(self, old: Prefixes, new: Prefixes) -> Flip | None:
        """Put a set in the place of another: how values change; None where no rule names it."""
        token, bits, named = 0, 0, False
        for number, sets in enumerate(self._tests):
            if all(prefixes != old for prefixes, _ in sets):
                continue
            if len(sets) > 1:
                raise NeedsRebuild("a rule names the set and another one for the same address")
            named = True
            token ^= self._tokens[number]
            bits |= self._bits[number] if self._bits else 0
            self._tests[number] = ((new, sets[0][1]),)

        def flip(value: int) -> int:
            if self._bits:
                return value ^ bits
            try:
                return int(self._value_of[self._token_of[value] ^ token])
            except KeyError:
                raise NeedsRebuild("no address had these rules before") from None

        return flip if named else None


_DEPTHS: dict[int, int] = {Ref.INDEX2: 0, Ref.INDEX: 1, Ref.LEAF: 2}
"""How many lines of ends a node has less than two."""


def _breaks(starts: dict[int, int]) -> Breaks:
    order = sorted(starts)
    kept = [at for n, at in enumerate(order) if not n or starts[at] != starts[order[n - 1]]]
    return Breaks(
        np.array([at >> 64 for at in kept], np.uint64),
        np.array([at & (1 << 64) - 1 for at in kept], np.uint64),
        np.array([starts[at] for at in kept], np.uint32),
    )


def _numbers_of(tokens: NDArray[np.uint64]) -> list[int]:
    return [hi << 64 | lo for hi, lo in tokens.tolist()]


def _changed(old: Prefixes, new: Prefixes, prefixes: Iterable[Prefix]) -> Iterator[Change]:
    """The ranges of addresses that one of two sets holds: within these prefixes."""
    done = dict.fromkeys(_WIDTHS, -1)
    for family, address, bits in sorted(prefixes):
        last = address | (1 << _WIDTHS[family] - bits) - 1
        if last <= done[family]:
            continue  # inside the one before
        done[family] = last
        was, now = (_held(x, family, address, last, bits) for x in (old, new))
        gone = both(was, inverted(now, last))
        come = both(now, inverted(was, last))
        for lo, hi in merged((*gone, *come)):
            yield family, lo, hi


def _held(prefixes: Prefixes, family: int, address: int, last: int, bits: int) -> list[Interval]:
    """The addresses from `address` to `last`, which are a prefix, that a set holds."""
    width = _WIDTHS[family]
    if prefixes.covers(family, address, bits):
        return [(address, last)]
    inside = prefixes.within(family, address, last)
    if len(inside) > _NEAR:
        raise NeedsRebuild(f"{len(inside)} prefixes of the set are inside one that changes")
    return merged((first, first | (1 << width - n) - 1) for _, first, n in inside)


def _prefixes_of(first: int, last: int, width: int) -> Iterator[tuple[int, int]]:
    """(address, bits) of the prefixes that a range is made of."""
    while first <= last:
        host = (first & -first).bit_length() - 1 if first else width
        while first + (1 << host) - 1 > last:
            host -= 1
        yield first, width - host
        first += 1 << host
