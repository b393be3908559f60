"""Sets of address prefixes as sorted arrays: a million of them in 22 MB, compared by their bytes.

The module imports numpy; who needs it only now and then imports it late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from xdpgw.rule_types import Prefix

    Columns: TypeAlias = tuple[NDArray[np.unsignedinteger], ...]

__all__ = ["EMPTY", "Prefixes", "Ranges"]

_ALL_64 = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prefixes:
    """A set of prefixes; `of`, `of_arrays` and `union` make one.

    Each family is sorted by address and then by length, each prefix is there once, and the arrays
    are read-only. An IPv6 address is two halves. Whether host bits are clear is the maker's care.

    Args:
        v4_addr: uint32.
        v4_bits: uint8, 0 to 32.
        v6_hi: uint64, the upper half.
        v6_lo: uint64.
        v6_bits: uint8, 0 to 128.
    """

    v4_addr: NDArray[np.uint32]
    v4_bits: NDArray[np.uint8]
    v6_hi: NDArray[np.uint64]
    v6_lo: NDArray[np.uint64]
    v6_bits: NDArray[np.uint8]
    _digest: bytes = field(default=b"", init=False)

    @classmethod
    def of(cls, prefixes: Iterable[Prefix]) -> Prefixes:
        """From (family, address, bits), in any order, some of them twice."""
        v4: list[tuple[int, int]] = []
        v6: list[tuple[int, int, int]] = []
        for family, address, bits in prefixes:
            if family == 4:
                v4.append((address, bits))
            else:
                v6.append((address >> 64, address & 2**64 - 1, bits))
        addr, bits4 = zip(*v4, strict=True) if v4 else ((), ())
        hi, lo, bits6 = zip(*v6, strict=True) if v6 else ((), (), ())
        return cls.of_arrays(addr, bits4, hi, lo, bits6)

    @classmethod
    def of_arrays(
        cls,
        v4_addr: ArrayLike,
        v4_bits: ArrayLike,
        v6_hi: ArrayLike,
        v6_lo: ArrayLike,
        v6_bits: ArrayLike,
    ) -> Prefixes:
        """From columns as the value has them, in any order, some prefixes twice.

        Arrays of the right type that are in order already are kept, and become read-only.
        """
        v4 = _unique((_column(v4_addr, np.uint32), _column(v4_bits, np.uint8)))
        halves = (_column(v6_hi, np.uint64), _column(v6_lo, np.uint64))
        v6 = _unique((*halves, _column(v6_bits, np.uint8)))
        for column in (*v4, *v6):
            column.flags.writeable = False
        return cls(*v4, *v6)

    @classmethod
    def union(cls, sets: Iterable[Prefixes]) -> Prefixes:
        """All prefixes of the sets; the set itself where there is one."""
        parts = [x for x in sets if x]
        if len(parts) <= 1:
            return parts[0] if parts else EMPTY
        families = zip(*(x._families() for x in parts), strict=True)
        return cls._joined(tuple(np.concatenate(x) for x in zip(*f, strict=True)) for f in families)

    def __or__(self, other: Prefixes) -> Prefixes:
        return Prefixes.union((self, other))

    def difference(self, other: Prefixes) -> tuple[Prefixes, Prefixes]:
        """(what only `other` has, what only this one has): added and removed if it comes next."""
        pairs = [
            _only(mine, theirs)
            for mine, theirs in zip(self._families(), other._families(), strict=True)
        ]
        removed, added = (
            [x for family in side for x in family] for side in zip(*pairs, strict=True)
        )
        return Prefixes.of_arrays(*added), Prefixes.of_arrays(*removed)

    @classmethod
    def _joined(cls, families: Iterable[Columns]) -> Prefixes:
        return cls.of_arrays(*(column for family in families for column in family))

    def _families(self) -> tuple[Columns, Columns]:
        return (self.v4_addr, self.v4_bits), (self.v6_hi, self.v6_lo, self.v6_bits)

    def count(self, family: int) -> int:
        """Prefixes of family 4 or 6."""
        return len(self.v4_bits if family == 4 else self.v6_bits)

    def within(self, family: int, first: int, last: int) -> list[Prefix]:
        """The prefixes that begin from `first` to `last`, in order."""
        mine = slice(self._place(family, first), self._place(family, last + 1))
        if family == 4:
            pairs = zip(self.v4_addr[mine].tolist(), self.v4_bits[mine].tolist(), strict=True)
            return [(4, address, bits) for address, bits in pairs]
        columns = (self.v6_hi[mine], self.v6_lo[mine], self.v6_bits[mine])
        rows = zip(*(x.tolist() for x in columns), strict=True)
        return [(6, hi << 64 | lo, bits) for hi, lo, bits in rows]

    def holds(self, family: int, address: int, bits: int) -> bool:
        """Whether this very prefix is one of the set."""
        return (family, address, bits) in self.within(family, address, address)

    def _place(self, family: int, address: int) -> int:
        """How many prefixes of a family begin before an address."""
        if family == 4:
            if address >> 32:
                return len(self.v4_addr)
            return int(np.searchsorted(self.v4_addr, np.uint32(address)))
        hi, lo = address >> 64, np.uint64(address & 2**64 - 1)
        if hi >> 64:
            return len(self.v6_hi)
        first, last = (
            int(np.searchsorted(self.v6_hi, np.uint64(hi), side)) for side in ("left", "right")
        )
        return first + int(np.searchsorted(self.v6_lo[first:last], lo))

    def __len__(self) -> int:
        return len(self.v4_bits) + len(self.v6_bits)

    def __iter__(self) -> Iterator[Prefix]:
        yield from zip(repeat(4), self.v4_addr.tolist(), self.v4_bits.tolist(), strict=False)
        halves = zip(self.v6_hi.tolist(), self.v6_lo.tolist(), self.v6_bits.tolist(), strict=True)
        for hi, lo, bits in halves:
            yield 6, hi << 64 | lo, bits

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prefixes):
            return NotImplemented
        return self is other or (
            (self.count(4), self.count(6)) == (other.count(4), other.count(6))
            and self.digest == other.digest
        )

    def __hash__(self) -> int:
        return int.from_bytes(self.digest[:8], "little")

    @property
    def digest(self) -> bytes:
        """32 bytes that are the same for the same prefixes, and for no others."""
        if not self._digest:
            made = blake2b(len(self.v4_bits).to_bytes(8, "little"), digest_size=32)
            for family in self._families():
                for column in family:
                    made.update(column.data)
            object.__setattr__(self, "_digest", made.digest())
        return self._digest

    def __repr__(self) -> str:
        if len(self) <= 8:
            return f"Prefixes.of({list(self)})"
        return f"<Prefixes: {self.count(4)} of IPv4, {self.count(6)} of IPv6>"

    def merged_ranges(self, family: int) -> Ranges:
        """The addresses of a family as ranges that neither overlap nor touch, in order."""
        return _ranges4(self) if family == 4 else _ranges6(self)


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """First and last addresses of ranges, included; `first_hi` and `last_hi` are 0 for IPv4.

    All arrays are uint64 and as long as there are ranges.
    """

    first_hi: NDArray[np.uint64]
    first_lo: NDArray[np.uint64]
    last_hi: NDArray[np.uint64]
    last_lo: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.first_lo)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(first, last), as numbers."""
        columns = (self.first_hi, self.first_lo, self.last_hi, self.last_lo)
        for hi, lo, last_hi, last_lo in zip(*(x.tolist() for x in columns), strict=True):
            yield hi << 64 | lo, last_hi << 64 | last_lo


def _column(values: ArrayLike, kind: type[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    return np.ascontiguousarray(values, kind)


def _follows(columns: Columns) -> NDArray[np.bool_]:
    """For each row but the first: it stands behind the one before it, and is not the same."""
    *more, last = columns
    out = last[1:] > last[:-1]
    for column in reversed(more):
        out = (column[1:] > column[:-1]) | ((column[1:] == column[:-1]) & out)
    return np.asarray(out)


def _sorted(columns: Columns) -> Columns:
    if len(columns) == 2:  # IPv4 fits into one number, and numbers sort many times faster
        key = np.sort(columns[0].astype(np.uint64) << np.uint64(8) | columns[1])
        return (key >> np.uint64(8)).astype(np.uint32), key.astype(np.uint8)
    order = np.lexsort(columns[::-1])
    return tuple(x[order] for x in columns)


def _unique(columns: Columns) -> Columns:
    """The rows in order, each once; the very arrays where they are so."""
    if _follows(columns).all():
        return columns
    columns = _sorted(columns)
    fresh = np.append(True, _follows(columns))
    return columns if fresh.all() else tuple(x[fresh] for x in columns)


def _only(mine: Columns, theirs: Columns) -> tuple[Columns, Columns]:
    """Rows that only the one has, and those that only the other has."""
    head = _alike(mine, theirs)
    mine, theirs = (tuple(x[head:] for x in rows) for rows in (mine, theirs))
    tail = _alike(*(tuple(x[::-1] for x in rows) for rows in (mine, theirs)))
    mine, theirs = (tuple(x[: len(x) - tail] for x in rows) for rows in (mine, theirs))
    owner = np.repeat(np.array([0, 1], np.uint8), (len(mine[0]), len(theirs[0])))
    both = [np.concatenate(pair) for pair in zip(mine, theirs, strict=True)]
    order = np.lexsort(both[::-1])
    both, owner = [x[order] for x in both], owner[order]
    fresh = _follows(tuple(both))
    alone = np.append(True, fresh) & np.append(fresh, True) if len(owner) else np.ones(0, np.bool_)
    one, two = (alone & (owner == side) for side in (0, 1))
    return tuple(x[one] for x in both), tuple(x[two] for x in both)


def _alike(mine: Columns, theirs: Columns) -> int:
    """With how many equal rows both begin."""
    size = min(len(mine[0]), len(theirs[0]))
    differ = np.zeros(size, np.bool_)
    for one, other in zip(mine, theirs, strict=True):
        differ |= one[:size] != other[:size]
    return int(np.argmax(differ)) if differ.any() else size


def _ranges4(prefixes: Prefixes) -> Ranges:
    first = prefixes.v4_addr.astype(np.uint64)
    hosts = np.uint64(32) - prefixes.v4_bits
    last = first | ((np.uint64(1) << hosts) - np.uint64(1))
    reach = np.maximum.accumulate(last) if len(last) else last
    starts = np.append(True, first[1:] > reach[:-1] + np.uint64(1))[: len(first)]
    ends = np.append(starts[1:], True)[: len(first)]
    zeros = np.zeros(int(starts.sum()), np.uint64)
    return Ranges(zeros, first[starts], zeros, reach[ends])


def _ranges6(prefixes: Prefixes) -> Ranges:
    hi, lo, bits = prefixes.v6_hi, prefixes.v6_lo, prefixes.v6_bits
    last_hi = hi | _host_bits(bits, 64)
    last_lo = lo | _host_bits(np.maximum(bits, 64), 128)
    if not len(hi):
        return Ranges(hi, lo, last_hi, last_lo)
    if (bits > 64).any():  # ranks stand for numbers of 128 bits
        order = np.lexsort((last_lo, last_hi))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        reach = order[np.maximum.accumulate(rank)]
        last_hi, last_lo = last_hi[reach], last_lo[reach]
    else:
        last_hi = np.maximum.accumulate(last_hi)
    after_lo = last_lo[:-1] + np.uint64(1)  # the first address behind, which may be beyond all
    after_hi = last_hi[:-1] + (after_lo == 0)
    beyond = (after_lo == 0) & (last_hi[:-1] == _ALL_64)
    starts = (hi[1:] > after_hi) | ((hi[1:] == after_hi) & (lo[1:] > after_lo))
    starts = np.append(True, starts & ~beyond)
    ends = np.append(starts[1:], True)
    return Ranges(hi[starts], lo[starts], last_hi[ends], last_lo[ends])


def _host_bits(bits: NDArray[np.uint8], width: int) -> NDArray[np.uint64]:
    """The mask of what lies behind the prefix in the half that ends at bit `width`."""
    free = np.maximum(width - bits.astype(np.int64), 0).astype(np.uint64)
    masks = np.array([(1 << n) - 1 for n in range(65)], np.uint64)
    return masks[np.minimum(free, 64).astype(np.uint8)]


EMPTY = Prefixes.of(())
"""No prefix at all."""
