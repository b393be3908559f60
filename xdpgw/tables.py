"""From rules to what the datapath looks up: lines, MAC tables, and where a lookup begins.

Forms, as `bpf/rows.h` tells them: up to 31 rules, a value found is the rules themselves;
else it is the line of a row, or a summand of the packet's meta class. Which dimensions are folded
into the meta class is decided here: those with the fewest classes, as long as their product is
small.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np

from xdpgw import _abi as abi
from xdpgw import rules as r
from xdpgw._abi import Dim, Use
from xdpgw.accepts import PAINTED, Interval, both, inverted, merged
from xdpgw.classes import Classes, Matrix, Tests, Toggles
from xdpgw.lines import STRIDES, Lines
from xdpgw.placement import Placement, place
from xdpgw.prefixes import SMALL, WIDTHS, Prefixes
from xdpgw.strides import Breaks, starts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tables", "tables_of"]

ALL = np.uint64(2**64 - 1)
_DIRECT = 4096  # tables up to this size have one value per number

Sets: TypeAlias = tuple[tuple[Prefixes, bool], ...]
"""Addresses of which each set holds the value, or with True does not."""

Macs: TypeAlias = tuple[tuple[bytes, int], ...]
"""(struct xg_mac, value) by address."""


@dataclass(slots=True)
class Tables:
    """What a policy's rules are to the datapath. See struct xg_config for the names.

    Args:
        placement: where each rule stands in the rows.
        lines: shape (lines, 8).
        on: `none` of the dimension ON, by port; "" stands for no port.
    """

    placement: Placement
    lines: Matrix = field(default_factory=lambda: np.zeros((1, abi.LINE_WORDS), np.uint64))
    root: list[int] = field(default_factory=lambda: [0] * abi.DIM_COUNT)
    miss: list[int] = field(default_factory=lambda: [0] * abi.DIM_COUNT)
    none: list[int] = field(default_factory=lambda: [0] * abi.DIM_COUNT)
    use: list[int] = field(default_factory=lambda: [0] * abi.DIM_COUNT)
    on: Mapping[str, int] = field(default_factory=dict)
    macs: dict[Dim, Macs] = field(default_factory=dict)
    meta: int = 0
    order: int = 0
    live: list[LiveTests] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether the program keeps what combinations of rows find."""
        first = self.use[: Dim.DST4 + 1]  # behind them, second tables of these
        rows = bool(self.meta) + first.count(Use.ROW)
        summed = not self.placement.narrow and not self.placement.dense
        return summed and 1 < rows <= abi.KNOWN_ROWS


@dataclass(slots=True)
class LiveTests:
    """What it takes to change a set in place: the tests of one side, and the values that it has.

    Args:
        dims: by family.
        tests: what each asks; `SetEditor` keeps it up to date.
        test_tokens: for each test what tells it, shape (tests, 2).
        tokens: the XOR of the tokens of the tests that some address satisfies, shape (n, 2).
        values: what a lookup of such an address finds.
        bits: where a value is the rules themselves, those that ask each test; else nothing.
    """

    dims: Mapping[int, Dim]
    tests: list[Sets]
    test_tokens: Matrix
    tokens: Matrix
    values: NDArray[np.uint32]
    bits: Sequence[int] = ()


def tables_of(
    rules: Sequence[r.ResolvedRule], ports: Iterable[str], changing: Collection[str] = ()
) -> Tables:
    """Compile rules.

    Args:
        rules: in order.
        ports: the names that `on` may have.
        changing: sides whose addresses are to change in place: their roots stay where they are.

    Raises:
        UnsupportedError: they need more room than there is.
    """
    placement = place(rules)
    build = _Builder(placement, changing)
    for at, rule in enumerate(rules):
        build.add(placement.position_of[at], rule.predicates)
    return build.tables(ports)


T = TypeVar("T")
V = TypeVar("V", str, bytes)


@dataclass(slots=True)
class _Asked(Generic[T]):
    """The tests of one dimension, while rules are read."""

    tests: dict[T, list[int]] = field(default_factory=dict)  # -> positions that ask it

    def ask(self, test: T, position: int) -> None:
        self.tests.setdefault(test, []).append(position)

    @property
    def positions(self) -> list[int]:
        return [at for asked in self.tests.values() for at in asked]


@dataclass(slots=True)
class _Axis:
    """A dimension with its classes, before it is known how they are written."""

    dim: Dim
    rows: Matrix
    none: int = 0
    tables: Sequence[tuple[Dim, Breaks]] = ()
    named: Mapping[Any, int] = field(default_factory=dict)  # of a MAC or a port
    miss: int = 0
    live: LiveTests | None = None  # its `values` are classes
    direct: bool | None = None  # as for `Lines.function`

    def compact(self) -> _Axis:
        """Classes of the same row are one."""
        rows, new = _unique(self.rows)
        tables = [
            (dim, breaks._replace(values=new[breaks.values]).joined())
            for dim, breaks in self.tables
        ]
        named = {key: int(new[at]) for key, at in self.named.items()}
        live = self.live and replace(self.live, values=new[self.live.values])
        none, miss = int(new[self.none]), int(new[self.miss])
        return _Axis(self.dim, rows, none, tables, named, miss, live, self.direct)


class _Builder:
    """Collects what rules ask, dimension by dimension, and writes it down."""

    def __init__(self, placement: Placement, changing: Collection[str]) -> None:
        self.placement = placement
        self.changing = changing
        self.painted: dict[Dim, _Asked[tuple[Interval, ...]]] = {}
        self.addresses: dict[str, _Asked[Sets]] = {}
        self.macs: dict[str, _Asked[frozenset[bytes]]] = {}
        self.on: _Asked[frozenset[str]] = _Asked()
        self._accepted: dict[r.Predicate, list[tuple[Dim, list[Interval]]]] = {}

    def add(self, position: int, predicates: Iterable[r.Predicate]) -> None:
        """What one rule asks."""
        intervals: dict[Dim, list[Interval]] = {}
        addresses: dict[str, list[tuple[Prefixes, bool]]] = {}
        macs: dict[str, set[bytes]] = {}
        ports: set[str] = set()
        for p in predicates:
            match p:
                case r.Addresses():
                    addresses.setdefault(p.side, []).append((p.prefixes, p.negate))
                case r.Mac():
                    macs.setdefault(p.side, set()).add(p.mac)
                case r.On():
                    ports.add(p.port)
                case _:
                    for dim, accepted in self._painted(p):
                        known = intervals.get(dim)
                        intervals[dim] = accepted if known is None else both(known, accepted)
        for dim, accepted in intervals.items():
            self.painted.setdefault(dim, _Asked()).ask(tuple(accepted), position)
        for side, sets in addresses.items():
            self.addresses.setdefault(side, _Asked()).ask(tuple(sets), position)
        for side, wanted in macs.items():
            self.macs.setdefault(side, _Asked()).ask(frozenset(wanted), position)
        if ports:
            self.on.ask(frozenset(ports), position)

    def _painted(self, p: r.Predicate) -> list[tuple[Dim, list[Interval]]]:
        known = self._accepted.get(p)
        if known is None:
            asked = ((dim, accepts(p)) for dim, accepts in PAINTED.items())
            known = [(dim, merged(found)) for dim, found in asked if found is not None]
            self._accepted[p] = known
        return known

    def tables(self, ports: Iterable[str]) -> Tables:
        """Everything that was collected, written down."""
        axes = [axis.compact() for axis in self._axes(ports)]
        out = Tables(self.placement)
        lines = Lines()
        if self.placement.narrow:
            for axis in axes:
                _write(out, lines, axis, Use.ROW, axis.rows[:, 0].astype(np.uint32))
        else:
            if axes:
                _write_rows(out, lines, axes)
            if not self.placement.in_order:
                out.order = lines.values(self.placement.rule_at)
        out.lines = lines.words
        return out

    def _axes(self, ports: Iterable[str]) -> Iterator[_Axis]:
        if self.on.tests:
            yield self._on(ports)
        for dim, asked in sorted(self.painted.items()):
            yield self._paint(dim, asked)
        for side, dim in (("src", Dim.MAC_SRC), ("dst", Dim.MAC_DST)):
            if side in self.macs:
                yield self._hash(dim, self.macs[side])
        for side, dims in (("src", (Dim.SRC4, Dim.SRC6)), ("dst", (Dim.DST4, Dim.DST6))):
            if side in self.addresses:
                axis = self._nest(dims, self.addresses[side])
                axis.direct = True if side in self.changing else None
                yield axis

    def _open_row(self, asked: _Asked[Any]) -> Matrix:
        """The positions that ask nothing; those without a rule where a whole word asks nothing."""
        bits = np.ones(len(self.placement.rule_at), np.bool_)
        bits[asked.positions] = False
        empty = self.placement.rule_at == abi.NO_RULE
        words = bits.reshape(-1, 64)
        words[empty.reshape(-1, 64) & ~words.all(axis=1, keepdims=True)] = False
        return np.packbits(words, axis=1, bitorder="little").view(np.uint64).reshape(-1)

    def _on(self, ports: Iterable[str]) -> _Axis:
        return self._few(Dim.ON, self.on, ["", *ports])

    def _hash(self, dim: Dim, asked: _Asked[frozenset[bytes]]) -> _Axis:
        every = {mac for wanted in asked.tests for mac in wanted}
        return self._few(dim, asked, sorted(every))

    def _few(self, dim: Dim, asked: _Asked[frozenset[V]], values: Sequence[V]) -> _Axis:
        """Of values that are equal or not: no packet has two of them at once."""
        rows = np.tile(self._open_row(asked), (len(values) + 1, 1))
        number = {value: at for at, value in enumerate(values)}
        for wanted, positions in asked.tests.items():
            if len(wanted) == 1:
                (value,) = wanted
                for at in positions:
                    rows[number[value], at >> 6] |= np.uint64(1 << (at & 63))
        return _Axis(dim, rows, named=number, miss=len(values), none=len(values))

    def _paint(self, dim: Dim, asked: _Asked[tuple[Interval, ...]]) -> _Axis:
        dims = (dim, Dim.ICMP6) if dim == Dim.ICMP else (dim,)
        size = abi.VALUES[dim]
        toggles = [Toggles(size.bit_length()) for _ in dims]
        for test, intervals in enumerate(asked.tests):
            for first, last in intervals:
                for at, table in enumerate(toggles):  # ICMP6 begins behind ICMP
                    low, high = max(first - at * size, 0), min(last - at * size, size)
                    if low <= high:
                        table.add(test, low, high)
        tests = Tests(toggles, list(asked.tests.values()))
        found = Classes.of(tests, self._open_row(asked))
        axis = _Axis(dim, found.rows, found.none, list(zip(dims, found.tables, strict=True)))
        if dim == Dim.VLAN:  # "no tag" is a value: the one behind the last
            ((_, breaks),) = axis.tables
            axis.none = int(breaks.values[breaks.lo <= size][-1])
        axis.tables = [(x, breaks.at(breaks.lo < size)) for x, breaks in axis.tables]
        return axis

    def _nest(self, dims: Sequence[Dim], asked: _Asked[Sets]) -> _Axis:
        toggles = {family: Toggles(width) for family, width in WIDTHS.items()}
        negated = []
        for test, sets in enumerate(asked.tests):
            if len(sets) > 1:
                for family, table in toggles.items():
                    for first, last in _all_of(sets, family):
                        table.add(test, first, last)
                continue
            ((prefixes, negate),) = sets
            if negate:
                negated.append(test)
            if len(prefixes) > SMALL:
                for family, table in toggles.items():
                    table.add_ranges(test, prefixes.merged_ranges(family))
            else:
                for family, first, last in _small(prefixes):
                    toggles[family].add(test, first, last)
        found = Classes.of(
            Tests(list(toggles.values()), list(asked.tests.values()), negated),
            self._open_row(asked),
        )
        live = LiveTests(
            dict(zip(WIDTHS, dims, strict=True)),
            list(asked.tests),
            found.token_of,
            found.tokens,
            np.arange(len(found.tokens), dtype=np.uint32),
        )
        if self.placement.narrow:
            live.bits = [sum(1 << at for at in positions) for positions in asked.tests.values()]
        tables = list(zip(dims, found.tables, strict=True))
        return _Axis(dims[0], found.rows, found.none, tables, live=live)


def _small(prefixes: Prefixes) -> Iterator[tuple[int, int, int]]:
    """(family, first, last) of the addresses of a small set."""
    ranges: dict[int, list[Interval]] = {}
    for family, address, bits in prefixes:
        last = address | (1 << WIDTHS[family] - bits) - 1
        ranges.setdefault(family, []).append((address, last))
    for family, found in ranges.items():
        for first, last in found if len(found) == 1 else merged(found):
            yield family, first, last


def _all_of(sets: Sets, family: int) -> list[Interval]:
    """The addresses that several sets of one rule leave."""
    top = (1 << WIDTHS[family]) - 1
    parts = (
        inverted(prefixes.merged_ranges(family), top)
        if negate
        else list(prefixes.merged_ranges(family))
        for prefixes, negate in sets
    )
    return reduce(both, parts)


def _unique(rows: Matrix) -> tuple[Matrix, NDArray[np.uint32]]:
    """(each row once, as they come first; the number of each row among those)."""
    seen: dict[bytes, int] = {}  # by digests, as a row may be a kilobyte

    def number(row: Matrix) -> int:
        return seen.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), len(seen))

    numbers = np.array([number(row) for row in rows], np.uint32)
    unique = np.empty((len(seen), rows.shape[1]), np.uint64)
    unique[numbers] = rows
    return unique, numbers


def _write(out: Tables, lines: Lines, axis: _Axis, use: Use, values: NDArray[np.uint32]) -> None:
    """Writes an axis whose classes have these values."""
    out.use[axis.dim] = use
    out.none[axis.dim] = int(values[axis.none])
    out.miss[axis.dim] = int(values[axis.miss])
    for dim, breaks in axis.tables:
        out.use[dim] = use
        found = breaks._replace(values=values[breaks.values])
        if dim in (Dim.SRC6, Dim.DST6):
            out.root[dim] = lines.function(found, STRIDES, axis.direct)
        elif dim in (Dim.SRC4, Dim.DST4):
            out.root[dim] = lines.function(found, 2, axis.direct)
        elif abi.VALUES[dim] <= _DIRECT:
            out.root[dim] = lines.direct(found, abi.VALUES[dim])
        else:
            out.root[dim] = lines.function(found, 1)
    if axis.live is not None:
        out.live.append(replace(axis.live, values=values[axis.live.values]))
    if axis.dim == Dim.ON:
        out.on = {port: int(values[at]) for port, at in axis.named.items()}
    elif axis.named:
        macs = tuple((mac + bytes(2), int(values[at])) for mac, at in axis.named.items())
        out.macs[axis.dim] = macs


def _write_rows(out: Tables, lines: Lines, axes: Sequence[_Axis]) -> None:
    """Folds what can be folded; the others get a row of their own."""
    write = _dense_rows if out.placement.dense else _rows
    by_size = sorted(axes, key=lambda axis: len(axis.rows))
    folded: list[_Axis] = []
    classes = 1
    for axis in by_size:
        if classes * len(axis.rows) > abi.META_CLASSES:
            break
        folded.append(axis)
        classes *= len(axis.rows)
    if len(folded) < 2:
        folded = []
    else:
        together = np.full((1, axes[0].rows.shape[1]), ALL)
        for axis in folded:
            values = np.arange(len(axis.rows), dtype=np.uint32) * np.uint32(len(together))
            _write(out, lines, axis, Use.META, values)
            together = (axis.rows[:, None, :] & together[None, :, :]).reshape(-1, together.shape[1])
        unique, number = _unique(together)
        out.meta = lines.values(write(lines, unique)[number])
    for axis in axes:
        if not any(axis is x for x in folded):
            _write(out, lines, axis, Use.ROW, write(lines, axis.rows))


def _dense_rows(lines: Lines, rows: Matrix) -> NDArray[np.uint32]:
    """Writes rows that are a line each; returns the line of each."""
    at = lines.reserve(len(rows)) + np.arange(len(rows), dtype=np.uint32)
    lines.words[at, : rows.shape[1]] = rows
    return at


def _rows(lines: Lines, rows: Matrix) -> NDArray[np.uint32]:
    """Writes rows with summaries; returns the line of each."""
    some, full = rows != 0, rows == ALL
    standing = some & ~full
    count = standing.sum(axis=1)
    behind = np.maximum(count - (abi.LINE_WORDS - abi.ROW_HEAD), 0)
    sizes = 1 + -(-behind // abi.LINE_WORDS)
    at = lines.reserve(int(sizes.sum())) + starts_of(sizes)
    words = lines.words
    words[at, : abi.SUMMARIES] = _summary(some)
    words[at, abi.SUMMARIES : abi.ROW_HEAD] = _summary(full)
    row, word = np.nonzero(standing)
    place = abi.ROW_HEAD + np.arange(len(row)) - starts_of(count)[row]
    words[at[row] + place // abi.LINE_WORDS, place % abi.LINE_WORDS] = rows[row, word]
    heads: NDArray[np.uint32] = at.astype(np.uint32)
    return heads


def _summary(bits: NDArray[np.bool_]) -> Matrix:
    padded = np.zeros((len(bits), abi.SUMMARIES * 64), np.bool_)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)
