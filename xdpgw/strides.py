"""Step functions by strides of 16 bits: what becomes nodes, and what is left. See `xdpgw.lines`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from xdpgw import _abi as abi
from xdpgw._abi import Ref

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Breaks",
    "Groups",
    "Mask",
    "Numbers",
    "Steps",
    "Values",
    "Words",
    "ends_of",
    "groups_of",
    "starts_of",
    "steps_of",
    "together",
]

_LAST = (1 << abi.STRIDE_BITS) - 1

Words: TypeAlias = "NDArray[np.uint64]"
Values: TypeAlias = "NDArray[np.uint32]"
Mask: TypeAlias = "NDArray[np.bool_]"
Numbers: TypeAlias = "NDArray[np.int64]"


class Breaks(NamedTuple):
    """A step function: `values[n]` from (hi[n], lo[n]) on. The first begins at 0; they ascend.

    Args:
        hi: uint64, the upper half of an IPv6 address, else 0.
        lo: uint64.
        values: uint32, below 2^31.
    """

    hi: Words
    lo: Words
    values: Values

    def at(self, which: Mask | Numbers) -> Breaks:
        """Some of the breaks."""
        return Breaks(self.hi[which], self.lo[which], self.values[which])

    def joined(self) -> Breaks:
        """The same function, without breaks that begin what goes on anyway."""
        return self.at(np.append(True, self.values[1:] != self.values[:-1]))


@dataclass(slots=True)
class Steps:
    """The nodes of one stride: steps in order, and to which node each belongs.

    Args:
        first: 0 to 65,535, the first number of a step.
        value: value or node that it finds.
        node: 0 .. nodes - 1, ascending.
        place: of the step in its node.
        count: steps of each node.
    """

    first: Numbers
    value: Values
    node: Numbers
    place: Numbers
    count: Numbers

    @property
    def last(self) -> Numbers:
        """The last number of each step."""
        ends = np.append(self.first[1:] - 1, _LAST)
        ends[np.cumsum(self.count) - 1] = _LAST
        return ends

    @property
    def turning(self) -> Mask:
        """Nodes whose steps have two values in turn, none of which is a node."""
        starts = starts_of(self.count)
        second = np.minimum(starts + 1, len(self.value) - 1)
        wanted = np.where(
            self.place & 1, self.value[second][self.node], self.value[starts][self.node]
        )
        odd = (self.value != wanted) | (self.value >= Ref.LEAF)
        found: Mask = np.bincount(self.node[odd], minlength=len(self.count)) == 0
        return found


@dataclass(frozen=True, slots=True)
class Groups:
    """Breaks that become a node each, in order.

    Args:
        first: the first break of each.
        count: how many breaks it has.
    """

    first: Numbers
    count: Numbers

    @property
    def members(self) -> Numbers:
        """All of their breaks."""
        out: Numbers = np.arange(int(self.count.sum()))
        return out + np.repeat(self.first - starts_of(self.count), self.count)


def starts_of(sizes: Numbers) -> Numbers:
    """Where each begins, if they lie one behind the other."""
    out: Numbers = np.cumsum(sizes) - sizes
    return out


def groups_of(odd: Numbers, half: Words, shift: int, above: Words | None) -> Groups:
    """The breaks of each node: those that agree in what is above the stride.

    Most often few breaks are in any, so only those are looked at.

    Args:
        odd: the breaks that are not at the first number of the stride, in order. Each node has
            one, and may have one more break: before them, at the first number.
        above: the upper half where `half` is the lower one.
    """
    bits = shift + abi.STRIDE_BITS

    def alike(one: Numbers, other: Numbers) -> Mask:
        out = np.ones(len(one), np.bool_)
        if bits < 64:
            out = (half[one] ^ half[other]) >> np.uint64(bits) == 0
        return out if above is None else out & (above[one] == above[other])

    fresh = np.append(True, ~alike(odd[1:], odd[:-1]))[: len(odd)]
    first = odd[fresh]
    ends = np.append(odd[:-1][fresh[1:]], odd[-1:]) + 1
    first = first - alike(first - 1, first)  # the first break of all is at the first number
    return Groups(first, ends - first)


def steps_of(breaks: Breaks, digit: Words, nodes: Groups) -> Steps:
    """The steps of nodes: their breaks, and first what goes on from before the node."""
    mine = nodes.members
    led = digit[nodes.first] != 0
    count = nodes.count + led
    out = np.zeros(int(count.sum()), np.int64)
    starts = starts_of(count)
    node = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(out)) - starts[node]
    own = np.ones(len(out), np.bool_)
    own[starts[led]] = False
    first, value = out, np.empty(len(out), np.uint32)
    first[own], value[own] = digit[mine], breaks.values[mine]
    value[~own] = breaks.values[nodes.first[led] - 1]
    return Steps(first, value, node, place, count)


def ends_of(
    nodes: Breaks, ends: Values, upper: bool, bits: int, width: int
) -> tuple[Breaks, Breaks, Mask]:
    """(nodes at their first address, what goes on behind each, whether there is a behind).

    Args:
        ends: what the last step of each finds.
        upper: the stride is in the upper half.
        bits: of the half that are below a node.
        width: of an address.
    """
    keep = np.uint64(2**64 - (1 << bits)) if bits < 64 else np.uint64(0)
    unit = np.uint64(1 << bits) if bits < 64 else np.uint64(0)
    if upper:
        nodes = nodes._replace(hi=nodes.hi & keep, lo=np.zeros_like(nodes.lo))
        hi, lo = nodes.hi + unit, nodes.lo
        inside = hi > nodes.hi
    else:
        nodes = nodes._replace(lo=nodes.lo & keep)
        lo = nodes.lo + unit
        hi = nodes.hi + (lo == 0)
        inside = (lo > 0) | (hi > nodes.hi)
        if width < 64:
            inside = lo < np.uint64(1 << width)
    return nodes, Breaks(hi, lo, ends), inside


def together(breaks: Breaks, groups: Groups, nodes: Breaks, behind: Breaks, inside: Mask) -> Breaks:
    """The breaks of the stride before: in the place of each group its node, and what goes on."""
    at = groups.first - starts_of(groups.count) + 2 * np.arange(len(groups.first))
    size = len(breaks.hi) + 2 * len(at) - int(groups.count.sum())
    others, kept = np.ones(size, np.bool_), np.ones(len(breaks.hi), np.bool_)
    others[at] = others[at + 1] = kept[groups.members] = False
    out = Breaks(np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.uint32))
    parts: Any = zip(out, breaks, nodes, behind, strict=True)
    for column, old, node, after in parts:
        column[others], column[at], column[at + 1] = old[kept], node, after
    # What goes on gives way to what begins at the same place.
    following = np.minimum(at + 2, size - 1)
    same = (out.hi[following] == behind.hi) & (out.lo[following] == behind.lo)
    stay = np.ones(size, np.bool_)
    stay[at + 1] = inside & ~(same & (at + 2 < size))
    return out.at(stay)
