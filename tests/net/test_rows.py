"""Every row of the table of packets, over a cable: counted, and seen, where its verdict says.

No socket serves a target here: the rows about targets meet the verdict after `else`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.net.live import live, with_mode
from tests.packets import POLICIES, Row, rows_by_policy
from xdpgw.testbed import TestBed

SHORT_FOR_THE_STACK = {"a tag and an unknown type and nothing more is whole"}
"""Passed, but skb_vlan_untag of the kernel's stack drops a tag with nothing behind it."""


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left", "right")) as made:
        yield made


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_live_each_row_is_judged_as_written(policy: str, mode: str, bed: TestBed) -> None:
    rows = [row for row in rows_by_policy()[policy] if row.live]
    wrong: list[tuple[Row, object]] = []
    with (
        live(with_mode(POLICIES[policy], mode), bed) as gate,
        bed.wire("left") as left_wire,
        bed.wire("right") as right_wire,
        bed.host("left") as left_host,
        bed.host("right") as right_host,
    ):
        ends = {"left": (left_wire, left_host), "right": (right_wire, right_host)}
        assert {x.mode for x in gate.manifest.ports.values()} == {mode}
        start = gate.books()
        for row in rows:
            wire, host = ends[row.port]
            before = gate.books()
            wire.send([row.frame])
            got = gate.wait_for(before, 1).only_new(before)
            if got != row.unserved:
                wrong.append((row, got))
            seen = {
                "pass": lambda host=host: host.receive(1),
                "tx": lambda wire=wire: wire.receive(1),
                "drop": lambda: [],
            }[got[0]]()
            expected = [] if got[0] == "drop" or row.name in SHORT_FOR_THE_STACK else [row.frame]
            if seen != expected:
                wrong.append((row, seen))
        stray = [frame for end in ends.values() for socket in end for frame in socket.waiting()]
        assert not stray
        assert gate.books().received - start.received == len(rows)
    assert not wrong
