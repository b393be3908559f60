"""Every row of the table of packets, judged by the compiled object in the kernel."""

from __future__ import annotations

import pytest

from tests.judges import kernel_judge, outcomes
from tests.packets import POLICIES, rows_by_policy

PORTS = ("left", "right")


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_kernel_each_row_judged_as_written(policy: str) -> None:
    wrong = []
    for port in PORTS:
        rows = [row for row in rows_by_policy()[policy] if row.port == port]
        if not rows:
            continue
        with kernel_judge(POLICIES[policy], port) as judge:
            for row, got in zip(rows, outcomes(judge, [x.frame for x in rows]), strict=True):
                wanted = (row.verdict, row.reason, row.rule)
                if (got["verdict"], got["reason"], got["rule"]) != wanted:
                    wrong.append((row.name, wanted, got))
                keys = {name: got["key"][name] for name in row.key}
                if keys != row.key:
                    wrong.append((row.name, row.key, keys))
    assert not wrong
