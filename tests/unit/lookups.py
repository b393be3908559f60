"""Lookups in compiled tables as bpf/abi.h tells them, one step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

import numpy as np

from xdpgw import _abi as abi
from xdpgw._abi import Dim, Ref, Use

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.tables import Tables

__all__ = ["look", "rules_of"]

ALL = 2**64 - 1
_SECOND = {Dim.SRC6, Dim.DST6, Dim.ICMP6}
"""Second tables of dimensions: what they give counts for the first."""


def look(lines: NDArray[np.uint64], ref: int, value: int, strides: int) -> int:
    """What a table of 16 x `strides` bits says of a value."""
    ends, values, stride = lines.view(np.uint16), lines.view(np.uint32), 0
    while ref & Ref.LEAF:
        kind, at = ref & Ref.KIND, ref & Ref.LINE
        if kind == Ref.PATH:
            path = lines[at].view(abi.path_dtype())[0]
            wanted, mask = (int(x[0]) << 64 | int(x[1]) for x in (path["wanted"], path["mask"]))
            hit = (value ^ wanted) & mask == 0
            ref, stride = (int(path["hit"]), int(path["next"])) if hit else (int(path["miss"]), 8)
            continue
        x = value >> 16 * (strides - 1 - stride) & 0xFFFF
        stride += 1
        if kind == Ref.DIRECT:
            ref = int(values[at + x // abi.DIRECT_VALUES, x % abi.DIRECT_VALUES])
            continue
        if kind == Ref.PAGES:
            page = int(values[at:].reshape(-1)[x // abi.PAGE_VALUES])
            ref = int(values[page:].reshape(-1)[x % abi.PAGE_VALUES])
            continue
        if kind in (Ref.TURNS, Ref.TURNS2):
            turns = lines[at : at + (2 if kind == Ref.TURNS2 else 1)].view(abi.turns_dtype())
            rank = int((turns["end"] < x).sum())
            ref = int(turns["value"][rank // abi.TURNS_STEPS, 0, rank & 1])
            continue
        if kind == Ref.INDEX2:
            at += 1 + (1 + abi.INDEX_ENDS) * int((ends[at] < x).sum())
        if kind != Ref.LEAF:
            at += 1 + int((ends[at] < x).sum())
        rank = int((ends[at, abi.LEAF_STEPS * 2 :] < x).sum())
        assert rank < abi.LEAF_STEPS
        ref = int(values[at, rank])
    return ref


def rules_of(tables: Tables, found: Mapping[Dim, int]) -> int:
    """The rules that a packet satisfies, a bit each.

    Args:
        found: what lookups gave; of each dimension in use, but where there are few rules.
    """
    if tables.placement.narrow:
        return reduce(and_, found.values())
    assert {dim for dim in Dim if tables.use[dim]} - _SECOND <= set(found)
    metas = [value for dim, value in found.items() if tables.use[dim] == Use.META]
    rows = [value for dim, value in found.items() if tables.use[dim] == Use.ROW]
    if metas:
        table = tables.lines[tables.meta :].view(np.uint32).reshape(-1)
        rows.append(int(table[sum(metas)]))
    return reduce(and_, (rules_of_row(tables, row) for row in rows))


def rules_of_row(tables: Tables, at: int) -> int:
    """The rules of a row, a bit each."""
    row = tables.lines[at].view(abi.row_dtype())[0]
    some, full = (
        sum(int(word) << 64 * n for n, word in enumerate(row[name])) for name in ("some", "all")
    )
    words = tables.lines[at:].reshape(-1)[abi.ROW_HEAD :]
    out, taken = 0, 0
    for word in range(tables.placement.words):
        bits = 0
        if tables.placement.dense:
            bits = int(tables.lines[at, word])
        elif full >> word & 1:
            bits = ALL
        elif some >> word & 1:
            bits, taken = int(words[taken]), taken + 1
        for bit in range(64):
            rule = int(tables.placement.rule_at[word * 64 + bit])
            if bits >> bit & 1 and rule != abi.NO_RULE:
                out |= 1 << rule
    return out
