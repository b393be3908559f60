"""Sets that change in place: lookups find what tables that were built anew find."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.lookups import look, rules_of
from xdpgw import config, rules
from xdpgw._abi import Dim
from xdpgw.prefixes import Prefixes
from xdpgw.rule_types import Addresses, Prefix, ResolvedRule
from xdpgw.set_edits import MOST, NeedsRebuild, SetEditor
from xdpgw.tables import Tables, tables_of

WIDTHS = {4: 32, 6: 128}
LENGTHS = {
    4: (8, 12, 16, 17, 20, 24, 28, 31, 32),
    6: (16, 20, 29, 32, 40, 48, 56, 64, 65, 80, 112, 127, 128),
}
SPARE = 20_000
DIMS = {("src", 4): Dim.SRC4, ("src", 6): Dim.SRC6, ("dst", 4): Dim.DST4, ("dst", 6): Dim.DST6}


class World:
    """Rules that name a set, and addresses near which its prefixes lie."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.near = {f: [self.rng.getrandbits(w) for _ in range(3)] for f, w in WIDTHS.items()}
        scattered = [(4, self.rng.getrandbits(32), 32) for _ in range(3000)] * (seed % 2)
        count = self.rng.choice([0, 1, 3, 20, 200])
        self.set = Prefixes.of([*scattered, *(self.prefix() for _ in range(count))])
        apart = (4, 0xE0000000, 4)  # what is never in the set, as sets that are alike are one
        other = Prefixes.of([apart, *(self.prefix() for _ in range(self.rng.choice([0, 5, 50])))])
        asked: list[tuple[Addresses, ...]] = [
            (Addresses("src", self.rng.random() < 0.3, self.set),),
            (Addresses("src", False, other),),
            (Addresses("dst", False, self.set),),
        ]
        if seed % 3 == 0:  # so many rules that a lookup finds rows
            asked += [(Addresses("src", False, self.set),)] * 40
        policy = "\n".join(f"r{n} drop" for n in range(len(asked)))
        found = rules.resolve(config.loads(f'[policy]\nrules = """\n{policy}\n"""')).rules
        self.rules = [replace(x, predicates=y) for x, y in zip(found, asked, strict=True)]

    def prefix(self) -> Prefix:
        """One that has much in common with others."""
        family = self.rng.choice([4, 6])
        width, bits = WIDTHS[family], self.rng.choice(LENGTHS[family])
        address = self.rng.choice(self.near[family]) ^ self.rng.getrandbits(
            self.rng.randrange(1, width)
        )
        return family, address >> width - bits << width - bits, bits

    def naming(self, prefixes: Prefixes) -> list[ResolvedRule]:
        """The rules, with this set in the place of the first."""

        def renamed(rule: ResolvedRule) -> ResolvedRule:
            (p,) = rule.predicates
            assert isinstance(p, Addresses)
            return replace(rule, predicates=(replace(p, prefixes=prefixes),))

        return [x if x.name == "r1" else renamed(x) for x in self.rules]

    def borders(self, prefixes: Iterable[Prefix]) -> list[tuple[int, int]]:
        """(family, address) on both sides of where they begin and end, and anywhere near."""
        found = []
        for family, address, bits in prefixes:
            end = address + (1 << WIDTHS[family] - bits)
            found += [(family, x) for x in (address - 1, address, end - 1, end)]
        for family, near in self.near.items():
            found += [(family, x ^ self.rng.getrandbits(20)) for x in near]
        return [(family, x) for family, x in found if 0 <= x < 1 << WIDTHS[family]]


def matched(tables: Tables, family: int, src: int, dst: int) -> int:
    """The rules that a packet satisfies, a bit each."""
    refs = {
        DIMS[side, 4]: look(
            tables.lines, tables.root[DIMS[side, family]], address, WIDTHS[family] // 16
        )
        for side, address in (("src", src), ("dst", dst))
        if tables.use[DIMS[side, 4]]
    }
    return rules_of(tables, refs)


# In 502, a value over a path of an earlier edit becomes the first path of another one.
@pytest.mark.parametrize("seed", [*range(60), 502])
def test_edits_find_what_new_tables_find(seed: int) -> None:
    world = World(seed)
    tables = tables_of(world.rules, [], ("src", "dst") if seed % 2 else ())
    memory = np.zeros((len(tables.lines) + SPARE, 8), np.uint64)
    memory[: len(tables.lines)] = tables.lines
    editor = SetEditor(tables, memory)
    edited, current = replace(tables, lines=memory), world.set
    for _ in range(12):
        every = list(current)
        gone = world.rng.sample(every, min(len(every), world.rng.randrange(3)))
        come = [world.prefix() for _ in range(world.rng.randrange(3))]
        changed = Prefixes.of([x for x in every if x not in gone] + come)
        try:
            editor.replace(current, changed)
        except NeedsRebuild:
            given_up = True
        else:
            given_up, current = False, changed
        anew = tables_of(world.naming(current), [])
        for family, address in world.borders([*gone, *come]):
            for pair in ((address, world.near[family][0]), (world.near[family][0], address)):
                assert matched(edited, family, *pair) == matched(anew, family, *pair)
        if given_up:
            return


def few(*texts: str) -> Prefixes:
    """IPv4 hosts."""
    return Prefixes.of((4, int.from_bytes(map(int, x.split("."))), 32) for x in texts)


def editor_of(prefixes: Prefixes, spare: int = SPARE) -> tuple[SetEditor, Tables]:
    """An editor of the tables of one rule that drops what a set holds."""
    (rule,) = rules.resolve(config.loads('policy.rules = "bad drop"')).rules
    tables = tables_of([replace(rule, predicates=(Addresses("src", False, prefixes),))], [])
    memory = np.zeros((len(tables.lines) + spare, 8), np.uint64)
    memory[: len(tables.lines)] = tables.lines
    return SetEditor(tables, memory), replace(tables, lines=memory)


MANY = Prefixes.of((4, n << 16 | n * 7 % 65536, 32) for n in range(0, 65536, 40))


LONE = Prefixes.of([(6, 1 << 64, 128)])
"""Of IPv4 nothing, so that there is no table."""


def test_edits_of_a_small_set_make_pages_of_their_own() -> None:
    before, after = few("9.9.9.9"), few("9.9.9.9", "8.8.8.8", "72.8.8.8")
    editor, tables = editor_of(before)
    editor.replace(before, after)
    assert SPARE - editor.spare == 2 * (4 + 1)  # a page and a leaf each
    there = [
        int.from_bytes(bytes(map(int, x.split(".")))) for x in ("9.9.9.9", "8.8.8.8", "72.8.8.8")
    ]
    for address in there:
        assert matched(tables, 4, address, 0) == 1
        for other in (address - 1, address + 1, address ^ 0x00010000, address ^ 0x80000000):
            assert matched(tables, 4, other, 0) == 0
    editor.replace(after, before)
    assert [matched(tables, 4, address, 0) for address in there] == [1, 0, 0]


def test_edits_one_change_of_many_takes_few_lines() -> None:
    editor, tables = editor_of(MANY)
    assert editor.replace(MANY, MANY | few("9.9.9.9")) == 1
    assert SPARE - editor.spare <= 2
    assert matched(tables, 4, 0x09090909, 0) == 1
    assert matched(tables, 4, 0x09090908, 0) == 0


@pytest.mark.parametrize(
    ("before", "after", "spare", "why"),
    [
        (MANY, few("9.9.9.9"), SPARE, "prefixes differ"),
        (LONE, LONE | few("8.8.8.8"), SPARE, "root is small"),
        (MANY, MANY | few("9.9.9.9"), 0, "0 are left"),
    ],
)
def test_edits_say_why_they_cannot(before: Prefixes, after: Prefixes, spare: int, why: str) -> None:
    assert len(MANY) > MOST
    editor, _ = editor_of(before, spare)
    with pytest.raises(NeedsRebuild, match=why):
        editor.replace(before, after)


def test_edits_that_fail_after_some_were_made_take_them_back() -> None:
    editor, tables = editor_of(MANY, 1)
    pairs = [(MANY, MANY | few("9.9.9.9")), (MANY | few("9.9.9.9"), few("9.9.9.9"))]
    with pytest.raises(NeedsRebuild, match="prefixes differ"):
        editor.change(pairs)
    assert editor.spare == 0  # the first was made
    assert matched(tables, 4, 0x09090909, 0) == 0


def test_edits_of_a_set_that_no_rule_names_change_nothing() -> None:
    editor, tables = editor_of(MANY)
    before = tables.lines.copy()
    editor.replace(few("1.1.1.1"), few("2.2.2.2"))
    assert (tables.lines == before).all()
