"""Step functions in cache lines: what is looked up is what was put in."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.lookups import look
from xdpgw import _abi as abi
from xdpgw._abi import Ref
from xdpgw.lines import STRIDES, Lines
from xdpgw.strides import Breaks


def breaks(steps: dict[int, int]) -> Breaks:
    """A step function from {where a value begins: the value}."""
    wanted, last = [], None
    for start in sorted(steps):
        if steps[start] != last:
            wanted.append((start >> 64, start & 2**64 - 1, last := steps[start]))
    hi, lo, values = zip(*wanted, strict=True)
    return Breaks(np.array(hi, np.uint64), np.array(lo, np.uint64), np.array(values, np.uint32))


def check(steps: dict[int, int], strides: int) -> tuple[Lines, int]:
    """Build, and look up both sides of each border."""
    lines = Lines()
    ref = lines.function(breaks(steps), strides)
    starts = sorted(steps)
    for start in starts:
        for value in {max(0, start - 1), start, min(start + 1, (1 << 16 * strides) - 1)}:
            wanted = steps[starts[bisect_right(starts, value) - 1]]
            assert look(lines.words, ref, value, strides) == wanted, hex(value)
    return lines, ref


@st.composite
def functions(draw: st.DrawFn) -> tuple[dict[int, int], int]:
    """Steps that lie close together here and there, as prefixes do, and the strides."""
    strides = draw(st.sampled_from([1, 2, STRIDES]))
    width = 16 * strides
    bases = draw(st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=4))
    near = st.tuples(st.sampled_from(bases), st.integers(0, width), st.integers(0, 2**width - 1))
    places = {
        (base >> bits << bits) | (noise & (1 << bits) - 1 if noise & 1 else 0)
        for base, bits, noise in draw(st.lists(near, max_size=40))
    }
    run = range(draw(st.integers(0, 400)))
    places |= {min(bases[0] + n, 2**width - 1) for n in run} if draw(st.booleans()) else set()
    values = st.integers(0, draw(st.sampled_from([1, 2, 2**31 - 1])))
    return {0: draw(values)} | {place: draw(values) for place in sorted(places)}, strides


@settings(deadline=None, max_examples=300)
@given(functions())
def test_lines_find_what_was_put_in(function: tuple[dict[int, int], int]) -> None:
    check(*function)


@pytest.mark.parametrize(
    ("steps", "kind", "lines"),
    [
        (2, Ref.PAGES, 64 + 4 * 2),  # equal pages are there once
        (57, Ref.PAGES, 64 + 4 * 7),
    ],
)
def test_lines_a_root_is_as_small_as_its_steps_allow(steps: int, kind: Ref, lines: int) -> None:
    built, ref = check({n * 6: n for n in range(steps)}, 1)
    assert ref & Ref.KIND == kind
    assert built.used == 1 + lines


@pytest.mark.parametrize(
    ("pages", "kind", "lines"),
    [
        (239, Ref.PAGES, 64 + 4 * 240),
        (240, Ref.INDEX, 1 + 25),
        (317, Ref.INDEX, 1 + 32),
        (321, Ref.DIRECT, 65536 // abi.DIRECT_VALUES),
    ],
)
def test_lines_a_root_of_many_pages_is_none_of_pages(pages: int, kind: Ref, lines: int) -> None:
    steps = {n * abi.PAGE_VALUES + 1 + n % 63: n + 1 for n in range(pages)}
    built, ref = check({0: 0} | steps, 1)
    assert ref & Ref.KIND == kind
    assert built.used == 1 + lines


@pytest.mark.parametrize(
    ("steps", "kind", "lines"),
    [
        (10, Ref.LEAF, 1),
        (11, Ref.TURNS, 1),
        (28, Ref.TURNS, 1),
        (29, Ref.TURNS2, 2),
        (56, Ref.TURNS2, 2),
        (57, Ref.INDEX, 7),
        (320, Ref.INDEX, 33),
        (321, Ref.INDEX2, 1 + 33 + 2),
        (10_240, Ref.INDEX2, 1 + 33 * 32),
        (10_241, Ref.DIRECT, 65536 // abi.DIRECT_VALUES),
    ],
)
def test_lines_a_node_below_the_root_is_as_small_as_its_steps_allow(
    steps: int, kind: Ref, lines: int
) -> None:
    built, root = check({7 << 16: 2} | {n * 6: n % 2 for n in range(steps)}, 2)
    assert below(built, root) & Ref.KIND == kind
    assert built.used == 1 + lines + 64 + 4 * 2


def test_lines_three_values_take_no_turns() -> None:
    built, root = check({7 << 16: 2} | {n * 6: n % 3 for n in range(11)}, 2)
    assert below(built, root) & Ref.KIND == Ref.INDEX


def below(built: Lines, root: int) -> int:
    """What a root of pages finds for 0."""
    assert root & Ref.KIND == Ref.PAGES
    values = built.words.view(np.uint32)
    return int(values[values[root & Ref.LINE, 0], 0])


def test_lines_a_function_of_one_value_takes_none() -> None:
    built, ref = check({0: 7}, STRIDES)
    assert (built.used, ref) == (1, 7)


def test_lines_a_lone_address_takes_one() -> None:
    address = 0x20010DB8_00000000_00000000_00000001
    built, ref = check({0: 1, address: 2, address + 1: 1}, STRIDES)
    assert ref & Ref.KIND == Ref.PATH
    assert built.used == 2


def test_lines_direct_has_a_value_for_each_number() -> None:
    lines = Lines()
    ref = lines.direct(breaks({0: 5, 17: 6, 256: 7}), 257)
    assert ref & Ref.KIND == Ref.DIRECT
    assert [look(lines.words, ref, n, 1) for n in (0, 16, 17, 255, 256)] == [5, 5, 6, 6, 7]
