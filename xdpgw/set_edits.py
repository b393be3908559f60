"""Changes of sets in the tables that a program looks up now, without building them anew.

A lookup finds the old or the new of each address (`xdpgw.table_edits`). Lines that are no longer
reached are not used again: a lookup may still be in them. When the spare lines are used up, the
image is built anew, as it is where a change needs a row that no value had before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xdpgw.accepts import Interval, both, inverted, merged
from xdpgw.lines import STRIDES, Full, Lines
from xdpgw.prefixes import WIDTHS
from xdpgw.table_edits import Edit, Flip, Nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.prefixes import Prefixes
    from xdpgw.rule_types import Prefix
    from xdpgw.tables import LiveTests, Tables

__all__ = ["NeedsRebuild", "SetEditor"]

MOST = 1000
"""So many prefixes are changed one by one; building anew is quicker for more."""

_NEAR = 4096  # prefixes of the set inside one that changes
_STRIDES = {4: 2, 6: STRIDES}


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
        self._nodes = Nodes(Lines(words, len(tables.lines)))
        self._sides = [_Side(live) for live in tables.live]

    @property
    def spare(self) -> int:
        """Lines that are left."""
        return self._nodes.lines.room

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
        self._nodes.keep()
        try:
            for old, new in pairs:
                added, removed = old.difference(new)
                count += len(added) + len(removed)
                if count > MOST:
                    raise NeedsRebuild(f"{count} prefixes differ")
                self._replace(old, new, _changed(old, new, (*added, *removed)))
        except BaseException as error:
            self._nodes.take_back()
            if isinstance(error, Full):
                raise NeedsRebuild(str(error)) from error
            raise
        return count

    def _replace(
        self, old: Prefixes, new: Prefixes, changed: Mapping[int, Sequence[Interval]]
    ) -> None:
        for side in self._sides:
            flip = side.replaced(old, new)
            if flip is None:
                continue
            for family, ranges in changed.items():
                root = self._root[side.dims[family]]
                edit = Edit(self._nodes, _STRIDES[family], flip)
                if ranges and edit.edited(root, 0, 0, ranges) != root:
                    raise NeedsRebuild("the table's root is small")


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


def _numbers_of(tokens: NDArray[np.uint64]) -> list[int]:
    return [hi << 64 | lo for hi, lo in tokens.tolist()]


def _changed(old: Prefixes, new: Prefixes, prefixes: Iterable[Prefix]) -> dict[int, list[Interval]]:
    """By family the ranges of addresses that one of two sets holds: within these prefixes."""
    done = dict.fromkeys(WIDTHS, -1)
    found: dict[int, list[Interval]] = {family: [] for family in WIDTHS}
    for family, address, bits in sorted(prefixes):
        last = address | (1 << WIDTHS[family] - bits) - 1
        if last <= done[family]:
            continue  # inside the one before
        done[family] = last
        was, now = (_held(x, family, address, last, bits) for x in (old, new))
        gone = both(was, inverted(now, last))
        come = both(now, inverted(was, last))
        found[family] += (*gone, *come)
    return {family: merged(ranges) for family, ranges in found.items()}


def _held(prefixes: Prefixes, family: int, address: int, last: int, bits: int) -> list[Interval]:
    """The addresses from `address` to `last`, which are a prefix, that a set holds."""
    width = WIDTHS[family]
    if prefixes.covers(family, address, bits):
        return [(address, last)]
    inside = prefixes.within(family, address, last)
    if len(inside) > _NEAR:
        raise NeedsRebuild(f"{len(inside)} prefixes of the set are inside one that changes")
    return merged((first, first | (1 << width - n) - 1) for _, first, n in inside)
