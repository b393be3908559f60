"""Which sets of a policy in force are to be put in the place of others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from xdpgw import config, rules
from xdpgw.live_sets import LiveSets, replacements
from xdpgw.prefixes import EMPTY, Prefixes
from xdpgw.rules import ResolvedRule
from xdpgw.set_edits import NeedsRebuild

RULES = """
one drop from @a port 53
two drop to {@a, 10.0.0.9}
six drop from not @b
"""


def resolved(a: Sequence[int], b: Sequence[int], text: str = RULES) -> tuple[ResolvedRule, ...]:
    """Rules, with the last bytes of the hosts of their sets."""
    sets = "".join(f"{name} = {[f'10.0.0.{x}' for x in of]}\n" for name, of in (("a", a), ("b", b)))
    return rules.resolve(config.loads(f'[policy]\nrules = """{text}"""\n[sets]\n{sets}')).rules


def hosts(*last: int) -> Prefixes:
    return Prefixes.of((4, 10 << 24 | x, 32) for x in last)


def test_set_is_replaced_wherever_it_stands() -> None:
    found = replacements(resolved([1], [2]), resolved([1, 3], [2]))
    assert found == [(hosts(1), hosts(1, 3)), (hosts(1, 9), hosts(1, 3, 9))]


def test_sets_that_did_not_change_are_left() -> None:
    assert replacements(resolved([1], [2]), resolved([1], [2])) == []


def test_set_may_be_emptied() -> None:
    found = replacements(resolved([1], [2]), resolved([], [2]))
    assert found == [(hosts(1), EMPTY), (hosts(1, 9), hosts(9))]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (resolved([1], [1]), resolved([1, 3], [1]), "alike"),
        (resolved([1], [2]), resolved([2], [3]), "what another one was"),
        (resolved([1], [2]), resolved([1], [2], RULES.replace("53", "54")), "are others"),
        (resolved([1], [2]), resolved([1], [2], RULES.replace(" port 53", "")), "are others"),
        (resolved([1], [2]), resolved([1], [2], f"{RULES}more drop"), "are others"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    before: tuple[ResolvedRule, ...], after: tuple[ResolvedRule, ...], why: str
) -> None:
    with pytest.raises(NeedsRebuild, match=why):
        replacements(before, after)


def test_tables_of_another_process_are_not_edited() -> None:
    live = LiveSets()
    live.let_go(7)
    assert live.generation == 7
    with pytest.raises(NeedsRebuild, match="another process"):
        live.replace(resolved([1], [2]))
