"""What `xdpgw top` shows, as tables of plain values: from two snapshots, without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xdpgw._abi import LogCounter, Reason, Verdict
from xdpgw.snapshot import PerSecond
from xdpgw.stats import Counter

if TYPE_CHECKING:
    from xdpgw.snapshot import Change, Ring, Snapshot

__all__ = ["Column", "Row", "Table", "cell_text", "compact", "document", "headline", "plain",
           "policy_line", "tables"]  # fmt: skip

Cell = str | int | float | None

SOURCES = 200
"""Sources that are shown, of those that send most now, and of those that have in all."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Args:
        key: its name in JSON.
        heading: its name on a screen.
        kind: text, rate (a second), count, share (0 to 1) or ago (seconds).
    """

    key: str
    heading: str
    kind: str = "text"

    @property
    def is_number(self) -> bool:
        """Whether the largest is the most interesting."""
        return self.kind != "text"


@dataclass(frozen=True, slots=True)
class Row:
    """A row; its key stays the same from one moment to the next."""

    key: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        title: what it is about.
        empty: what to say where it has no rows.
        order: key of the column to sort by, the largest first; None: as the rows come.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    empty: str
    order: str | None = None

    def arranged(self, order: str | None, *, reverse: bool, needle: str = "") -> list[Row]:
        """Rows that have this text in some cell, sorted by a column.

        Args:
            order: its key; None for as they come.
            reverse: the smallest number first, or text from z to a.
            needle: upper and lower case are the same.
        """
        rows = [row for row in self.rows if not needle or _has(row, self.columns, needle.lower())]
        if order is None:
            return rows
        at = next(n for n, column in enumerate(self.columns) if column.key == order)
        descending = self.columns[at].is_number != reverse
        known = [row for row in rows if row.cells[at] is not None]
        known.sort(key=lambda row: row.cells[at], reverse=descending)  # type: ignore[arg-type,return-value]
        return known + [row for row in rows if row.cells[at] is None]


def _has(row: Row, columns: Sequence[Column], needle: str) -> bool:
    texts = (
        str(cell).lower()
        for cell, column in zip(row.cells, columns, strict=True)
        if column.kind == "text" and cell is not None
    )
    return any(needle in text for text in texts)


def compact(value: float) -> str:
    """A number in at most five characters: 0.5, 12, 1.23k, 12.3M."""
    if value < 999.5:
        return f"{value:.1f}".removesuffix(".0") if value < 9.95 else f"{value:.0f}"
    for unit in "kMGT":
        value /= 1000
        if value < 999.5 or unit == "T":
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f}{unit}"
    raise AssertionError


def cell_text(cell: Cell, column: Column) -> str:
    """As people read it."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if column.kind == "rate":
        return compact(cell)
    if column.kind == "share":
        return f"{100 * cell:.0f} %"
    if column.kind == "ago":
        return f"{cell:.0f} s" if cell < 120 else f"{cell / 60:.0f} m"
    return f"{cell}"


_RATES = (
    Column("packets_per_s", "pkt/s", "rate"),
    Column("bits_per_s", "bit/s", "rate"),
    Column("packets", "packets", "count"),
)


def _rates(rate: PerSecond, count: Counter) -> tuple[Cell, ...]:
    return rate.packets, 8 * rate.bytes, count.packets


def tables(change: Change) -> dict[str, Table]:
    """All tables by name, in the order in which they are shown."""
    return {
        "ports": _ports(change),
        "sources": _sources(change),
        "rules": _rules(change),
        "reasons": _reasons(change),
        "rings": _rings(change),
        "log": _log(change),
    }


def _ports(change: Change) -> Table:
    rows = []
    for port in change.after.ports:
        rates, counts = change.port(port), port.stats.by
        mode = port.mode if port.attached else "gone"
        whole = sum(rates.values(), PerSecond()), port.stats.received
        rows.append(Row(f"{port.port} received", (port.port, mode, "received", *_rates(*whole))))
        for verdict in sorted({verdict for verdict, _ in counts}):
            keys = [key for key in counts if key[0] == verdict]
            part = (
                sum((rates[key] for key in keys), PerSecond()),
                sum((counts[key] for key in keys), Counter()),
            )
            cells = (port.port, mode, verdict.text, *_rates(*part))
            rows.append(Row(f"{port.port} {verdict.text}", cells))
    columns = (Column("port", "port"), Column("mode", "mode"), Column("verdict", "verdict"))
    return Table("ports", (*columns, *_RATES), tuple(rows), "the policy names no port")


def _reasons(change: Change) -> Table:
    found: dict[tuple[Verdict, Reason], tuple[PerSecond, Counter]] = {}
    for port in change.after.ports:
        for key, rate in change.port(port).items():
            was = found.get(key, (PerSecond(), Counter()))
            found[key] = was[0] + rate, was[1] + port.stats.by[key]
    rows = tuple(
        Row(f"{verdict.text} {reason.text}", (verdict.text, reason.text, *_rates(*told)))
        for (verdict, reason), told in sorted(found.items())
    )
    columns = (Column("verdict", "verdict"), Column("reason", "reason"), *_RATES)
    return Table("verdicts and reasons", columns, rows, "no packet yet", "packets_per_s")


def _sources(change: Change) -> Table:
    now = time.time_ns()
    rows = tuple(
        Row(
            str(talker.source),
            (
                str(talker.source),
                *_rates(rate, Counter(talker.packets, talker.bytes)),
                talker.verdict.text,
                talker.reason.text,
                talker.port,
                max(0, now - talker.last_ns) / 1e9,
            ),
        )
        for talker, rate in change.sources(SOURCES)
    )
    columns = (
        Column("source", "source"),
        *_RATES,
        Column("verdict", "last"),
        Column("reason", "reason"),
        Column("port", "port"),
        Column("last_s", "ago", "ago"),
    )
    counted = change.after.manifest.counted
    empty = "no source yet" if counted else "the policy says count = false in [sources]"
    return Table("top sources", columns, rows, empty, "packets_per_s")


def _rules(change: Change) -> Table:
    rows = tuple(
        Row(name, (name, rule.action, *_rates(change.rule(name), rule.count)))
        for name, rule in change.after.rules.items()
    )
    columns = (Column("rule", "rule"), Column("action", "action"), *_RATES)
    return Table("top rules", columns, rows, "the policy has no rules", "packets_per_s")


_LOST = (
    ("counters", "tx_full"),
    ("statistics", "rx_dropped"),
    ("statistics", "rx_ring_full"),
)


def _rings(change: Change) -> Table:
    rows = []
    for at in change.after.sockets:
        rows.append(
            Row(
                f"{at['target']} {at['port']} {at['queue']}",
                (
                    at["target"] or "sends only",
                    at["port"],
                    at["queue"],
                    at["mode"] if at["alive"] else "gave up",
                    change.socket(at, "counters", "rx_packets"),
                    change.socket(at, "counters", "tx_packets"),
                    sum(change.socket(at, *where) for where in _LOST),
                    *(_share(at["rings"][ring]) for ring in ("fill", "rx", "tx")),
                ),
            )
        )
    for name in change.after.unserved:
        rows.append(Row(name, (name, None, None, "no socket", *[None] * 6)))
    columns = (
        Column("target", "target"),
        Column("port", "port"),
        Column("queue", "queue", "count"),
        Column("mode", "mode"),
        Column("rx_per_s", "rx/s", "rate"),
        Column("tx_per_s", "tx/s", "rate"),
        Column("lost_per_s", "lost/s", "rate"),
        Column("fill", "fill", "share"),
        Column("rx", "rx", "share"),
        Column("tx", "tx", "share"),
    )
    return Table("AF_XDP rings", columns, tuple(rows), "the policy has no AF_XDP target")


def _share(ring: Mapping[str, int]) -> float | None:
    return ring["level"] / ring["size"] if ring["size"] else None


def _log(change: Change) -> Table:
    log, ring = change.after.log, change.after.ring
    rows = [
        Row(x.text, (f"{x.text}: {x.meaning}", change.log(x.text), getattr(log, x.text), None))
        for x in LogCounter
    ]
    rows.append(
        Row("ring", ("ring: bytes that nobody drained yet", None, ring.used, _share_of(ring)))
    )
    for sink in change.after.sinks:
        name, failing = sink.name, f", fails: {sink.failing}" if sink.failing else ""
        for state in ("written", "lost"):
            cells = (f"{name}: {state}{failing}", change.sink(name, state), getattr(sink, state))
            rows.append(Row(f"{name} {state}", (*cells, None)))
        rows.append(Row(f"{name} queued", (f"{name}: waiting", None, sink.queued, None)))
    columns = (
        Column("what", "what"),
        Column("events_per_s", "events/s", "rate"),
        Column("events", "events", "count"),
        Column("full", "full", "share"),
    )
    return Table("log", columns, tuple(rows), "")


def _share_of(ring: Ring) -> float:
    return ring.used / ring.size


def headline(change: Change) -> str:
    """Packets a second by verdict, and what is not as it should be."""
    by: dict[str, float] = {}
    for port in change.after.ports:
        for (verdict, _), rate in change.port(port).items():
            by[verdict.text] = by.get(verdict.text, 0.0) + rate.packets
    shown = ", ".join(f"{name} {compact(rate)}/s" for name, rate in by.items()) or "no packet yet"
    if not change.after.in_charge:
        shown += "; orphaned: nobody drains the log"
    gone = [port.port for port in change.after.ports if not port.attached]
    return shown + (f"; gone: {', '.join(gone)}" if gone else "")


def policy_line(found: Snapshot) -> str:
    """Which policy is in force, since when, and how many sources are blocked."""
    manifest = found.manifest
    since = time.strftime("%H:%M:%S", time.localtime(manifest.loaded_at_ns / 1e9))
    name = manifest.policy_file.rpartition("/")[2]
    return f"{name} in force since {since}, {found.blocks} blocked"


def plain(change: Change, found: Mapping[str, Table], rows: int) -> str:
    """All tables as text, with so many rows at most of those that are sorted."""
    parts = [f"{policy_line(change.after)}\n{headline(change)}"]
    for table in found.values():
        listed = table.arranged(table.order, reverse=False)
        shown = [
            [cell_text(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)]
            for row in (listed[:rows] if table.order else listed)
        ]
        parts.append("\n".join(_lines(table, shown, len(listed) - len(shown))))
    return "\n\n".join(parts)


def _lines(table: Table, rows: Sequence[Sequence[str]], more: int) -> Iterable[str]:
    yield table.title
    if not rows:
        yield f"  {table.empty}"
        return
    every = [[column.heading for column in table.columns], *rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    for row in every:
        cells = (
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        )
        yield "  " + "  ".join(cells).rstrip()
    if more:
        yield f"  and {more} more"


def document(change: Change, found: Mapping[str, Table]) -> dict[str, Any]:
    """The same as `xdpgw top --json` prints it."""
    after = change.after
    return {
        "seconds": change.seconds,
        "policy_file": after.manifest.policy_file,
        "loaded_at_ns": after.manifest.loaded_at_ns,
        "in_charge": after.in_charge,
        "blocks": after.blocks,
        **{
            name: [
                {column.key: cell for column, cell in zip(table.columns, row.cells, strict=True)}
                for row in table.arranged(table.order, reverse=False)
            ]
            for name, table in found.items()
        },
    }
