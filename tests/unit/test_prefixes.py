"""Sets of prefixes against plain Python sets."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpgw.prefixes import EMPTY, SMALL, Prefixes
from xdpgw.ranges import Ranges
from xdpgw.rule_types import Prefix

WIDTHS = {4: 32, 6: 128}


@st.composite
def prefix(draw: st.DrawFn) -> Prefix:
    """Crowded at the ends of the address space and at the seam of its halves: many nest."""
    family = draw(st.sampled_from((4, 6)))
    width = WIDTHS[family]
    bits = draw(st.integers(0, width))
    near = draw(st.sampled_from((0, 1 << width // 2, (1 << width) - 1)))
    address = near ^ draw(st.integers(0, 15) | st.integers(0, (1 << width) - 1))
    return family, address >> width - bits << width - bits, bits


SETS = st.lists(prefix(), max_size=12)


def span(one: Prefix) -> tuple[int, int]:
    family, address, bits = one
    return address, address | (1 << WIDTHS[family] - bits) - 1


@given(SETS)
def test_set_is_what_went_in_once_and_in_order(some: list[Prefix]) -> None:
    made = Prefixes.of(some)
    assert list(made) == sorted(set(some))
    assert (len(made), bool(made)) == (len(set(some)), bool(some))
    assert [made.count(x) for x in (4, 6)] == [len({p for p in some if p[0] == x}) for x in (4, 6)]


@given(SETS, SETS)
def test_sets_are_equal_where_their_prefixes_are(one: list[Prefix], two: list[Prefix]) -> None:
    made, again = Prefixes.of(one), Prefixes.of(reversed(one))
    assert (made, hash(made), made.digest) == (again, hash(again), again.digest)
    assert (made == Prefixes.of(two)) == (set(one) == set(two))


@given(st.lists(SETS, max_size=4))
def test_union_holds_all_and_nothing_else(sets: list[list[Prefix]]) -> None:
    assert list(Prefixes.union(map(Prefixes.of, sets))) == sorted({x for s in sets for x in s})


@given(SETS, SETS, SETS)
def test_difference_is_added_and_removed(
    kept: list[Prefix], gone: list[Prefix], new: list[Prefix]
) -> None:
    before, after = Prefixes.of(kept + gone), Prefixes.of(kept + new)
    added, removed = before.difference(after)
    assert set(added) == set(after) - set(before)
    assert set(removed) == set(before) - set(after)


@given(SETS)
def test_ranges_hold_the_same_addresses_and_do_not_touch(some: list[Prefix]) -> None:
    for family in WIDTHS:
        merged: list[tuple[int, int]] = []
        for first, last in sorted(span(x) for x in some if x[0] == family):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        assert list(Prefixes.of(some).merged_ranges(family)) == merged


def test_set_cannot_be_changed() -> None:
    made = Prefixes.of([(4, 1, 32), *((6, n, 128) for n in range(SMALL))])
    for column in (made.v4_addr, made.v4_bits, made.v6_hi, made.v6_lo, made.v6_bits):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0
    assert [x.dtype for x in (made.v4_addr, made.v6_hi, made.v6_bits)] == ["u4", "u8", "u1"]


def test_union_of_one_set_is_that_set() -> None:
    made = Prefixes.of([(4, 1, 32)])
    assert Prefixes.union([made, EMPTY]) is made
    assert (made | EMPTY) is made
    assert Prefixes.union([]) is EMPTY


def test_arrays_in_order_are_kept_as_they_are() -> None:
    addr = np.arange(SMALL + 1, dtype=np.uint32)
    none = np.zeros(0, np.uint64)
    made = Prefixes.of_arrays(addr, np.full_like(addr, 32, np.uint8), none, none, none)
    assert made.v4_addr is addr


def test_large_set_that_shrinks_is_the_small_one() -> None:
    large = Prefixes.of((4, n, 32) for n in range(SMALL + 1))
    added, removed = large.difference(Prefixes.of([(4, 1, 32)]))
    assert (added, removed.few is None, len(removed)) == (EMPTY, False, SMALL)
    assert large.difference(removed)[1] == Prefixes.of([(4, 1, 32)])


def ranges(prefixes: list[Prefix], family: int) -> Ranges:
    return Prefixes.of(prefixes).merged_ranges(family)


@given(SETS, SETS)
def test_ranges_hold_and_meet_as_sets_of_addresses_do(one: list[Prefix], two: list[Prefix]) -> None:
    for family, width in WIDTHS.items():
        a, b = ranges(one, family), ranges(two, family)
        assert list(a & b) == [
            (max(x[0], y[0]), min(x[1], y[1]))
            for x in a
            for y in b
            if max(x[0], y[0]) <= min(x[1], y[1])
        ]
        assert a.holds(b).tolist() == [any(x[0] <= y[0] and y[1] <= x[1] for x in a) for y in b]
        out = a.inverted(width)
        assert (list(a & out), list(out.inverted(width))) == ([], list(a))
        both = sorted([*a, *out])
        assert (both[0][0], both[-1][1]) == (0, (1 << width) - 1)
        assert all(x[1] + 1 == y[0] for x, y in pairwise(both))
        assert list(Ranges.of(a)) == list(a)


PADDING = [(6, n << 64 | n, 128) for n in range(100, 101 + SMALL)]


@given(SETS, prefix(), st.sampled_from(([], PADDING)))
def test_prefixes_within_a_range_are_those_that_begin_there(
    some: list[Prefix], around: Prefix, more: list[Prefix]
) -> None:
    made = Prefixes.of(some + more)
    first, last = span(around)
    family = around[0]
    assert made.within(family, first, last) == sorted(
        x for x in {*some, *more} if x[0] == family and first <= x[1] <= last
    )


@given(SETS, prefix(), st.sampled_from(([], PADDING)))
def test_prefixes_covers_what_one_of_them_holds(
    some: list[Prefix], asked: Prefix, more: list[Prefix]
) -> None:
    def holds(outer: Prefix, inner: Prefix) -> bool:
        (first, last), (begin, end) = span(outer), span(inner)
        return outer[0] == inner[0] and first <= begin and end <= last

    made = Prefixes.of(some + more)
    assert made.covers(*asked) == any(holds(x, asked) for x in (*some, *more))
    assert all(made.covers(*x) for x in (*some, *more))
