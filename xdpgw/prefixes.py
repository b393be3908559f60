"""Sets of address prefixes: sorted arrays, a million of them in 22 MB, compared by their bytes.

The module imports numpy; who needs it only now and then imports it late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from xdpgw.ranges import Ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.rule_types import Prefix

    Rows: TypeAlias = tuple[NDArray[np.unsignedinteger], ...]

__all__ = ["EMPTY", "SMALL", "WIDTHS", "Columns", "Prefixes"]

WIDTHS = {4: 32, 6: 128}
"""Bits of an address, by family."""

SMALL = 64
"""Up to so many prefixes are cheaper as tuples than as five arrays."""

_KINDS = (np.uint32, np.uint8, np.uint64, np.uint64, np.uint8)
_CHUNK = 1 << 14  # rows that are compared at once: they stay in the processor's cache
_LOW_HALF = (1 << 64) - 1


class Columns(NamedTuple):
    """The prefixes of a set, each family sorted by address and then by length; read-only."""

    v4_addr: NDArray[np.uint32]
    v4_bits: NDArray[np.uint8]
    v6_hi: NDArray[np.uint64]
    v6_lo: NDArray[np.uint64]
    v6_bits: NDArray[np.uint8]

    def families(self) -> tuple[Rows, Rows]:
        """The columns of IPv4 and those of IPv6."""
        return self[:2], self[2:]

    def rows(self) -> Iterator[Prefix]:
        """(family, address, bits) in order."""
        yield from zip(repeat(4), self.v4_addr.tolist(), self.v4_bits.tolist(), strict=False)
        for hi, lo, bits in zip(*(x.tolist() for x in self[2:]), strict=True):
            yield 6, hi << 64 | lo, bits


class Prefixes:
    """An immutable set of prefixes; `of`, `of_arrays` and `union` make one.

    Each family is sorted by address and then by length, and each prefix is there once. Whether host
    bits are clear is the maker's care.

    Policies have thousands of sets of one or two prefixes: up to `SMALL` are kept as tuples, and
    their arrays are made anew for whoever asks.
    """

    __slots__ = ("_columns", "_digest", "_few")

    def __init__(self, few: tuple[Prefix, ...] | None, columns: Columns | None) -> None:
        """For this module: exactly one of the two, sorted and unique; few if SMALL or less."""
        self._few = few
        self._columns = columns
        self._digest = b""

    @classmethod
    def of(cls, prefixes: Iterable[Prefix]) -> Prefixes:
        """From (family, address, bits), in any order, some of them twice."""
        given = list(prefixes)
        if len(given) <= SMALL:
            return cls(tuple(sorted(set(given))) if len(given) > 1 else tuple(given), None)
        v4, v6 = _columns_of(given)
        return cls.of_arrays(*v4, *v6)

    @classmethod
    def of_arrays(
        cls,
        v4_addr: NDArray[np.uint32],
        v4_bits: NDArray[np.uint8],
        v6_hi: NDArray[np.uint64],
        v6_lo: NDArray[np.uint64],
        v6_bits: NDArray[np.uint8],
    ) -> Prefixes:
        """From columns as the properties give them, in any order, some prefixes twice.

        Arrays that are in order already may be kept, and become read-only.
        """
        v4 = _unique((v4_addr, v4_bits))
        v6 = _unique((v6_hi, v6_lo, v6_bits))
        columns = _frozen(v4, v6)
        if len(columns.v4_bits) + len(columns.v6_bits) <= SMALL:
            return cls(tuple(columns.rows()), None)
        return cls(None, columns)

    @classmethod
    def union(cls, sets: Iterable[Prefixes]) -> Prefixes:
        """All prefixes of the sets; the set itself where there is one."""
        parts = [x for x in sets if x]
        if len(parts) <= 1:
            return parts[0] if parts else EMPTY
        if sum(map(len, parts)) <= SMALL:
            return cls.of(prefix for part in parts for prefix in part)
        families = zip(*(x.columns.families() for x in parts), strict=True)
        return cls._joined(tuple(np.concatenate(x) for x in zip(*f, strict=True)) for f in families)

    def __or__(self, other: Prefixes) -> Prefixes:
        return Prefixes.union((self, other))

    def difference(self, other: Prefixes) -> tuple[Prefixes, Prefixes]:
        """(what only `other` has, what only this one has): added and removed if it comes next."""
        both = zip(self.columns.families(), other.columns.families(), strict=True)
        pairs = [_only(mine, theirs) for mine, theirs in both]
        removed, added = (Prefixes._joined(side) for side in zip(*pairs, strict=True))
        return added, removed

    @classmethod
    def _joined(cls, families: Iterable[Rows]) -> Prefixes:
        return cls.of_arrays(*(column for family in families for column in family))

    @property
    def columns(self) -> Columns:
        """All arrays at once."""
        if self._columns is not None:
            return self._columns
        return _frozen(*_columns_of(self._few or ()))

    @property
    def v4_addr(self) -> NDArray[np.uint32]:
        """IPv4 addresses."""
        return self.columns.v4_addr

    @property
    def v4_bits(self) -> NDArray[np.uint8]:
        """Their lengths, 0 to 32."""
        return self.columns.v4_bits

    @property
    def v6_hi(self) -> NDArray[np.uint64]:
        """Upper halves of IPv6 addresses."""
        return self.columns.v6_hi

    @property
    def v6_lo(self) -> NDArray[np.uint64]:
        """Their lower halves."""
        return self.columns.v6_lo

    @property
    def v6_bits(self) -> NDArray[np.uint8]:
        """Their lengths, 0 to 128."""
        return self.columns.v6_bits

    @property
    def few(self) -> tuple[Prefix, ...] | None:
        """The prefixes in order where there are at most `SMALL`; None where there are more."""
        return self._few

    def count(self, family: int) -> int:
        """Prefixes of family 4 or 6."""
        if self._few is not None:
            return sum(1 for prefix in self._few if prefix[0] == family)
        return len(self.v4_bits if family == 4 else self.v6_bits)

    def within(self, family: int, first: int, last: int) -> list[Prefix]:
        """The prefixes that begin from `first` to `last`, in order."""
        if self._few is not None:
            return [x for x in self._few if x[0] == family and first <= x[1] <= last]
        mine = slice(self._place(family, first), self._place(family, last + 1))
        if family == 4:
            pairs = zip(self.v4_addr[mine].tolist(), self.v4_bits[mine].tolist(), strict=True)
            return [(4, address, bits) for address, bits in pairs]
        columns = (self.v6_hi[mine], self.v6_lo[mine], self.v6_bits[mine])
        rows = zip(*(x.tolist() for x in columns), strict=True)
        return [(6, hi << 64 | lo, bits) for hi, lo, bits in rows]

    def covers(self, family: int, address: int, bits: int) -> bool:
        """Whether one prefix of the set holds all of this one."""
        width = WIDTHS[family]
        while True:
            before = self._last(family, address, bits)
            if before is None:
                return False
            _, start, length = before
            if (address ^ start) >> width - length == 0:
                return True
            # What holds both begins no later than that one, and is no longer than what they share.
            bits = width - (address ^ start).bit_length()
            address = address >> width - bits << width - bits

    def _last(self, family: int, address: int, bits: int) -> Prefix | None:
        """The last prefix in order up to this one."""
        if self._few is not None:
            upto = [x for x in self._few if x[0] == family and x[1:] <= (address, bits)]
            return upto[-1] if upto else None
        hi, lo, lengths = self.columns[2:] if family == 6 else (None, *self.columns[:2])
        at = self._place(family, address + 1) - 1
        while at >= 0:
            found = int(lo[at]) if hi is None else int(hi[at]) << 64 | int(lo[at])
            if found < address or lengths[at] <= bits:
                return family, found, int(lengths[at])
            at -= 1
        return None

    def _place(self, family: int, address: int) -> int:
        """How many prefixes of a family begin before an address."""
        columns = self.columns
        if family == 4:
            if address >> 32:
                return len(columns.v4_addr)
            return int(columns.v4_addr.searchsorted(np.uint32(address)))
        if address >> 128:
            return len(columns.v6_hi)
        hi, lo = np.uint64(address >> 64), np.uint64(address & _LOW_HALF)
        first = int(columns.v6_hi.searchsorted(hi))
        last = int(columns.v6_hi.searchsorted(hi, "right"))
        return first + int(columns.v6_lo[first:last].searchsorted(lo))

    def __len__(self) -> int:
        return len(self.v4_bits) + len(self.v6_bits) if self._few is None else len(self._few)

    def __iter__(self) -> Iterator[Prefix]:
        return self.columns.rows() if self._few is None else iter(self._few)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prefixes):
            return NotImplemented
        if self._few is not None or other._few is not None:
            return self._few == other._few
        return self is other or (len(self) == len(other) and self.digest == other.digest)

    def __hash__(self) -> int:
        if self._few is not None:
            return hash(self._few)
        return int.from_bytes(self.digest[:8], "little")

    @property
    def digest(self) -> bytes:
        """32 bytes that are the same for the same prefixes, and for no others."""
        if not self._digest:
            columns = self.columns
            made = blake2b(len(columns.v4_bits).to_bytes(8, "little"), digest_size=32)
            for column in columns:
                made.update(column.data)
            self._digest = made.digest()
        return self._digest

    def __repr__(self) -> str:
        if len(self) <= 8:
            return f"Prefixes.of({list(self)})"
        return f"<Prefixes: {self.count(4)} of IPv4, {self.count(6)} of IPv6>"

    def merged_ranges(self, family: int) -> Ranges:
        """The addresses of a family as ranges that neither overlap nor touch, in order."""
        if family == 4:
            return Ranges.of_prefixes(None, self.v4_addr, self.v4_bits)
        return Ranges.of_prefixes(self.v6_hi, self.v6_lo, self.v6_bits)


def _columns_of(prefixes: Iterable[Prefix]) -> tuple[Rows, Rows]:
    """The same rows in the same order, as columns, each family by itself."""
    v4: list[tuple[int, int]] = []
    v6: list[tuple[int, int, int]] = []
    for family, address, bits in prefixes:
        if family == 4:
            v4.append((address, bits))
        else:
            v6.append((address >> 64, address & _LOW_HALF, bits))
    addr, bits4 = zip(*v4, strict=True) if v4 else ((), ())
    hi, lo, bits6 = zip(*v6, strict=True) if v6 else ((), (), ())
    return (
        (np.array(addr, np.uint32), np.array(bits4, np.uint8)),
        (np.array(hi, np.uint64), np.array(lo, np.uint64), np.array(bits6, np.uint8)),
    )


def _frozen(v4: Iterable[NDArray[Any]], v6: Iterable[NDArray[Any]]) -> Columns:
    columns = Columns(*map(np.ascontiguousarray, (*v4, *v6), _KINDS))
    for column in columns:
        column.flags.writeable = False
    return columns


def _follows(columns: Rows) -> NDArray[np.bool_]:
    """For each row but the first: it stands behind the one before it, and is not the same."""
    *more, last = columns
    out = last[1:] > last[:-1]
    for column in reversed(more):
        out = (column[1:] > column[:-1]) | ((column[1:] == column[:-1]) & out)
    return np.asarray(out)


def _sorted(columns: Rows) -> Rows:
    if len(columns) == 2:  # IPv4 fits into one number, and numbers sort many times faster
        key = np.sort(columns[0].astype(np.uint64) << np.uint64(8) | columns[1])
        return (key >> np.uint64(8)).astype(np.uint32), key.astype(np.uint8)
    order = np.lexsort(columns[::-1])
    return tuple(x[order] for x in columns)


def _unique(columns: Rows) -> Rows:
    """The rows in order, each once; the very arrays where they are so."""
    if _follows(columns).all():
        return columns
    columns = _sorted(columns)
    fresh = np.append(True, _follows(columns))
    return columns if fresh.all() else tuple(x[fresh] for x in columns)


def _only(mine: Rows, theirs: Rows) -> tuple[Rows, Rows]:
    """Rows that only the one has, and those that only the other has."""
    head = _alike(mine, theirs)
    mine, theirs = (tuple(x[head:] for x in rows) for rows in (mine, theirs))
    tail = _alike(mine, theirs, last=True)
    mine, theirs = (tuple(x[: len(x) - tail] for x in rows) for rows in (mine, theirs))
    owner = np.repeat(np.array([0, 1], np.uint8), (len(mine[0]), len(theirs[0])))
    both = [np.concatenate(pair) for pair in zip(mine, theirs, strict=True)]
    order = np.lexsort(both[::-1])
    both, owner = [x[order] for x in both], owner[order]
    fresh = _follows(tuple(both))
    alone = np.append(True, fresh) & np.append(fresh, True) if len(owner) else np.ones(0, np.bool_)
    one, two = (alone & (owner == side) for side in (0, 1))
    return tuple(x[one] for x in both), tuple(x[two] for x in both)


def _alike(mine: Rows, theirs: Rows, last: bool = False) -> int:
    """With how many equal rows both begin, or end."""
    size = min(len(mine[0]), len(theirs[0]))
    for one, other in zip(mine, theirs, strict=True):
        skip = (len(one) - size, len(other) - size) if last else (0, 0)
        for at in range(0, size, _CHUNK):
            begin, end = (max(0, size - at - _CHUNK), size - at) if last else (at, at + _CHUNK)
            end = min(end, size)
            differ = one[skip[0] :][begin:end] != other[skip[1] :][begin:end]
            if differ.any():
                size = at + int(np.argmax(differ[::-1] if last else differ))
                break
    return size


EMPTY = Prefixes.of(())
"""No prefix at all."""
