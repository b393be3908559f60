"""Which regions hold which others, against a judge that asks each pair."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from xdpgw import covers
from xdpgw.covers import Region, Regions, first_covers
from xdpgw.ranges import Ranges

WIDTHS = {"src port": 16, "src6": 128, "len": 16}
SHIFTS = {"src port": 0, "src6": 62, "len": 0}
"""Where the values of a dimension lie: those of addresses in both halves of the number."""


FEW = 3
"""In the place of LARGE, so that a large region is still a small one to judge."""


def region(dimension: str, ends: Iterable[int]) -> Region:
    """Every second stretch between these ends, of which no two touch."""
    shift = SHIFTS[dimension]
    some = [(a << shift, b - 1 << shift) for a, b in list(pairwise(sorted(ends)))[::2]]
    return tuple(some) if len(some) <= FEW else Ranges.of(some)


ENDS = st.integers(0, 127).map(lambda mask: {x for x in range(7) if mask >> x & 1})
BEYOND = {dimension: 1 << 16 - (dimension == "src6") for dimension in SHIFTS}


@st.composite
def regions(draw: st.DrawFn, dimensions: Sequence[str]) -> Regions:
    out: dict[str, Region] = {}
    for dimension in dimensions:
        ends = draw(ENDS)
        kind = draw(st.sampled_from(("any", "few", "few", "many", "rest")))
        if kind == "any" or (kind in ("many", "rest") and dimension == "len"):
            continue
        if kind == "many":
            ends ^= set(range(5, 8 + 2 * FEW))
        elif kind == "rest":
            ends ^= {0, BEYOND[dimension]}
        out[dimension] = region(dimension, ends)
    return out


def holds(outer: Region, inner: Region) -> bool:
    return all(any(lo <= a and b <= hi for lo, hi in outer) for a, b in inner)


def judged(rules: Sequence[Regions | None], decides: Sequence[bool]) -> list[int | None]:
    def covered(own: Regions | None, by: Regions | None) -> bool:
        return (
            own is not None
            and by is not None
            and all(name in own and holds(outer, own[name]) for name, outer in by.items())
        )

    return [
        next((a for a in range(at) if decides[a] and covered(own, rules[a])), None)
        for at, own in enumerate(rules)
    ]


@st.composite
def policies(draw: st.DrawFn) -> list[tuple[Regions | None, bool]]:
    """Of few kinds, so that many rules are alike; some have more rules than a word has bits."""
    dimensions = draw(st.sampled_from([*((x,) for x in SHIFTS), ("len", "src6"), tuple(SHIFTS)]))
    kinds = draw(st.lists(regions(dimensions), min_size=4, max_size=8))
    rule = st.tuples(st.sampled_from([None, *kinds]), st.sampled_from((True, True, False)))
    rules = st.lists(rule, min_size=4, max_size=16)
    between = draw(st.sampled_from(([], [(kinds[0], False)] * 70)))
    return [*draw(rules), *between, *draw(rules)]


@settings(max_examples=600, deadline=None)
@given(policies(), st.sampled_from((1, 3, 8192)))
def test_first_cover_is_the_one_that_a_look_at_each_pair_finds(
    policy: list[tuple[Regions | None, bool]], block: int
) -> None:
    rules, decides = [x for x, _ in policy], [x for _, x in policy]
    with mock.patch.multiple(covers, _BLOCK=block, LARGE=FEW):
        assert first_covers(rules, decides, WIDTHS) == judged(rules, decides)
