"""The table of packets: what each policy makes of each frame, written from the contract.

Every layer of tests and the benchmarks run these rows: the reference, the compiled object by test
run, a gateway with packets on its ports. The expected values are reasoned from the contract and
never taken from an implementation. Rows stand by theme in tests.rows; builders in tests.frames.
"""

from __future__ import annotations

from tests.rows import addresses, ethernet, fragments, ipv4, ipv6, l4, rules, settings, targets
from tests.rows.base import Row
from tests.rows.policies import POLICIES

__all__ = ["POLICIES", "ROWS", "Row", "rows_by_policy"]

ROWS: tuple[Row, ...] = (
    *ethernet.ROWS,
    *ipv4.ROWS,
    *ipv6.ROWS,
    *fragments.ROWS,
    *l4.ROWS,
    *addresses.ROWS,
    *rules.ROWS,
    *settings.ROWS,
    *targets.ROWS,
)


def rows_by_policy() -> dict[str, tuple[Row, ...]]:
    """The rows of each policy, policies and rows in the order of the table."""
    return {key: tuple(row for row in ROWS if row.policy == key) for key in POLICIES}
