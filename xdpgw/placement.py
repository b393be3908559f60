"""Where each rule stands in a row: which 64 share a word, and in which order the words are.

A packet looks at a word only where every dimension's row has a bit in it. So rules are put
together that leave the same dimensions open and ask for like ports, and among them neighbouring
addresses: then most words are empty in most rows, and those that a dimension leaves open are full
in all of its rows. In a word the rules are in their order, so that the lowest bit is the first of
them, and words are in the order of their first rule.

Rules with the action limit do not decide by matching. They are in words of their own, behind the
others and in their order, so that they are found apart from the first rule that decides.

Where a row fits into a line, all words are looked at, and the rules that decide are in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xdpgw import _abi as abi
from xdpgw import rules as r

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Placement", "place"]

_SIDES = ("src", "dst")

Likeness: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Rules by position, and positions by rule.

    Args:
        rule_at: uint16, a whole number of words; abi.NO_RULE where there is none.
        position_of: of each rule.
        first: the lowest rule of each word, ascending.
        narrow: the rules fit into a value.
        dense: a row fits into a line, and rules are in their order.
        deciding: how many words are of rules that are no limits; the others are of limits. Where
            it is narrow, there is one word of both.
        narrow_limits: where it is narrow, the positions of limits, a bit each.
    """

    rule_at: NDArray[np.uint16]
    position_of: list[int]
    first: tuple[int, ...]
    narrow: bool
    deciding: int
    dense: bool = False
    narrow_limits: int = 0

    @property
    def in_order(self) -> bool:
        """Whether the position of each rule is its number."""
        return self.position_of == list(range(len(self.position_of)))

    @property
    def words(self) -> int:
        """Words of a row."""
        return len(self.rule_at) // 64


def place(rules: Sequence[r.ResolvedRule]) -> Placement:
    """Find a place for each rule."""
    narrow = len(rules) <= abi.NARROW_RULES
    limits = [at for at, rule in enumerate(rules) if rule.action.limit is not None]
    limit_words = [limits[at : at + 64] for at in range(0, len(limits), 64)]
    narrow_limits = 0
    others = [at for at, rule in enumerate(rules) if rule.action.limit is None]
    in_order = [others[at : at + 64] for at in range(0, len(others), 64)]
    dense = not narrow and len(in_order) + len(limit_words) <= abi.DENSE_WORDS
    if narrow:
        words = [list(range(len(rules)))] if rules else []
        deciding, narrow_limits = len(words), sum(1 << at for at in limits)
    else:
        words = in_order if dense else _words(rules, others, abi.ROW_WORDS - len(limit_words))
        deciding = len(words)
        words = words + limit_words
    rule_at = np.full(len(words) * 64, abi.NO_RULE, np.uint16)
    position_of = [0] * len(rules)
    for number, word in enumerate(words):
        rule_at[number * 64 :][: len(word)] = word
        for place, at in enumerate(word):
            position_of[at] = number * 64 + place
    first = tuple(word[0] for word in words)
    return Placement(rule_at, position_of, first, narrow, deciding, dense, narrow_limits)


def _words(rules: Sequence[r.ResolvedRule], deciding: Sequence[int], room: int) -> list[list[int]]:
    """The rules of each word, of those that decide. Kinds share words only where there is no room
    for each alone."""
    likeness = {at: _likeness(rules[at]) for at in deciding}
    order = sorted(deciding, key=lambda at: (likeness[at], at))
    words: list[list[int]] = []
    for parts in (2, 1, 0):
        kinds = [list(kind) for _, kind in groupby(order, key=lambda at: likeness[at][:parts])]
        words = [kind[at : at + 64] for kind in kinds for at in range(0, len(kind), 64)]
        if len(words) <= room:
            break
    return sorted(sorted(word) for word in words)


def _likeness(rule: r.ResolvedRule) -> Likeness:
    """What neighbours have in common, what matters most first."""
    wide: dict[str, tuple[int, ...]] = {}
    where: dict[str, tuple[int, ...]] = {}
    ports: dict[str, tuple[int, ...]] = {}
    for p in rule.predicates:
        match p:
            case r.Addresses(side=side):
                wide[side], where[side] = _extent(p)
            case r.Ports(side=side):
                ports[side] = _port_kind(p)
    open_to = tuple(int(side not in found) for found in (wide, ports) for side in _SIDES)
    kinds = tuple(ports[side][0] for side in _SIDES if side in ports)
    spans = tuple(x for side in _SIDES for x in ports.get(side, ())[1:])
    lengths = tuple(x for side in _SIDES for x in wide.get(side, ()))
    return (open_to, kinds, spans, lengths, *(where.get(x, ()) for x in reversed(_SIDES)))


def _port_kind(p: r.Ports) -> tuple[int, ...]:
    """One port, whichever it is; else a range, which neighbours best have in common."""
    if p.negate or len(p.ranges) != 1:
        return (2,)
    ((lo, hi),) = p.ranges
    return (0,) if lo == hi else (1, lo, hi)


def _extent(p: r.Addresses) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(how wide, where) a set of addresses is."""
    if p.negate or len(p.prefixes) != 1:
        return (0, 0), (0,)
    ((family, address, bits),) = p.prefixes
    return (family, bits // (8 if family == 4 else 16)), (address,)
