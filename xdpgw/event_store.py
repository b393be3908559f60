"""Events in an SQLite file: what the sink `sqlite` writes and `xdpgw log query` reads.

    events      a row an event: what the packet lacks is NULL; times are CLOCK_REALTIME in ns
    ports rules verdicts reasons frags      the names behind the numbers in it, in this file only
    log         a view of all that in words, named as in the JSON lines

An IPv4 address is an INTEGER and an IPv6 address a BLOB of 16 bytes. SQLite orders numbers before
bytes, so that a prefix of either family is one range of the index, and neither is ever taken for
the other.
"""

from __future__ import annotations

import ipaddress
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from xdpgw import _abi as abi
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.events import EventBatch, Names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpgw.rule_types import Prefix

__all__ = [
    "APPLICATION_ID",
    "COLUMNS",
    "INSERT",
    "NAMED",
    "SCHEMA",
    "VERSION",
    "Numbers",
    "address_text",
    "batches_of",
    "key_range",
    "log_view",
    "rows_of",
]

VERSION = 1
"""PRAGMA user_version: another one means other tables."""
APPLICATION_ID = 0x78646777
"""PRAGMA application_id: tells our files from other SQLite files."""

COLUMNS = (
    "ts_ns", "port", "queue", "src", "dst", "proto", "sport", "dport", "tcp_flags", "icmp_type",
    "icmp_code", "frag", "ttl", "dscp", "vlan", "ethertype", "len", "verdict", "reason", "rule",
)  # fmt: skip
"""Of the table `events`, behind its `id`."""
NAMED = {
    "port": "ports",
    "rule": "rules",
    "verdict": "verdicts",
    "reason": "reasons",
    "frag": "frags",
}
"""Columns that hold numbers of names, and the tables of these."""

INSERT = f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

Address: TypeAlias = int | bytes
Ids = Callable[[str, str], int]
"""The number of a name in a table."""

_ABSENT = {
    "proto": Has.PROTO,
    "sport": Has.PORTS,
    "dport": Has.PORTS,
    "tcp_flags": Has.TCP_FLAGS,
    "icmp_type": Has.ICMP,
    "icmp_code": Has.ICMP,
    "ethertype": Has.ETHERTYPE,
}
"""Columns that a packet may lack, and the bit that says that it has them."""


def _address_sql(column: str) -> str:
    """An address in words by SQL alone: IPv6 in full, as there is no shorter way."""
    ipv4 = " || '.' || ".join(f"({column} >> {shift} & 255)" for shift in (24, 16, 8, 0))
    ipv6 = " || ':' || ".join(f"substr(hex({column}), {at}, 4)" for at in range(1, 33, 4))
    return f"CASE typeof({column}) WHEN 'integer' THEN {ipv4} WHEN 'blob' THEN lower({ipv6}) END"


def log_view(address_sql: Callable[[str], str] = _address_sql, *, kind: str = "VIEW") -> str:
    """The statement that makes the view `log`.

    Args:
        address_sql: from the name of a column to an expression for the address in words.
        kind: VIEW or TEMP VIEW.
    """
    seconds = "e.ts_ns / 1000000000"
    words = {
        "ts": f"strftime('%Y-%m-%dT%H:%M:%S', {seconds}, 'unixepoch') "
        "|| printf('.%09dZ', e.ts_ns % 1000000000)",
        "family": "CASE typeof(e.src) WHEN 'integer' THEN 4 WHEN 'blob' THEN 6 END",
        "src": address_sql("e.src"),
        "dst": address_sql("e.dst"),
        **{column: f"{table}.name" for column, table in NAMED.items()},
    }
    order = ("id", "ts", "ts_ns", "port", "queue", "family", *COLUMNS[3:])
    shown = ",\n  ".join(f"{words.get(name, f'e.{name}')} AS {name}" for name in order)
    joins = "".join(
        f"\n  LEFT JOIN {table} ON {table}.id = e.{column}" for column, table in NAMED.items()
    )
    return f"CREATE {kind} log AS SELECT\n  {shown}\n  FROM events AS e{joins}"


SCHEMA = (
    *(
        f"CREATE TABLE {x} (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)"
        for x in NAMED.values()
    ),
    # No types: they would turn what is written into something else, and NULL is always allowed.
    f"CREATE TABLE events (id INTEGER PRIMARY KEY, {', '.join(COLUMNS)})",
    "CREATE INDEX events_ts_ns ON events (ts_ns)",
    # In ranges of 65,536 events: what a batch of any sources touches stays a few hundred pages,
    # however large the file is.
    "CREATE INDEX events_src ON events (id >> 16, src)",
    log_view(),
    # What makes SQLite look into one range after the other, instead of at all events: a table of
    # ten million in ranges of 65,536, in which a source has 30.
    "ANALYZE sqlite_master",
    "INSERT INTO sqlite_stat1 VALUES ('events', 'events_src', '10000000 65536 30')",
    "INSERT INTO sqlite_stat1 VALUES ('events', 'events_ts_ns', '10000000 1')",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
"""The statements that make an empty file one of ours."""


# From events to rows


class Numbers:
    """Numbers of names in a file, new ones if need be; to be asked within a transaction, and
    forgotten with one that fails."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self._known: dict[tuple[str, str], int] = {}

    def __call__(self, table: str, name: str) -> int:
        """The number of a name in a table."""
        found = self._known.get((table, name))
        if found is None:
            self.db.execute(f"INSERT OR IGNORE INTO {table} (name) VALUES (?)", (name,))
            query = f"SELECT id FROM {table} WHERE name = ?"
            (found,) = self.db.execute(query, (name,)).fetchone()
            self._known[table, name] = int(found)
        return int(found)


def rows_of(batch: EventBatch, ids: Ids) -> Iterator[tuple[object, ...]]:
    """The rows of a batch, as `COLUMNS` orders them. About a microsecond each."""
    events = batch.events
    present = {name: events["has"] & bit != 0 for name, bit in _ABSENT.items()}
    is_ip = events["family"] != 0
    present |= {"ttl": is_ip, "dscp": is_ip, "vlan": events["vlan"] != abi.VLAN_NONE}
    columns: dict[str, list[Any]] = {
        "ts_ns": _or_none(
            events["ts_ns"].astype(np.int64) + batch.realtime_offset_ns, events["ts_ns"] != 0
        ),
        "queue": events["queue"].tolist(),
        "len": events["len_bytes"].tolist(),
        "src": _addresses(events["family"], events["src"]),
        "dst": _addresses(events["family"], events["dst"]),
        **{name: _or_none(events[name], there) for name, there in present.items()},
    }
    for column, name_of in _namers(batch.names).items():
        slots, at = np.unique(events[column], return_inverse=True)
        names = (name_of(int(slot)) for slot in slots)
        known = [None if name is None else ids(NAMED[column], name) for name in names]
        columns[column] = np.array(known, object)[at].tolist()
    return zip(*(columns[name] for name in COLUMNS), strict=True)


def _or_none(column: NDArray[Any], there: NDArray[np.bool_]) -> list[Any]:
    if there.all():
        listed: list[Any] = column.tolist()
        return listed
    if not there.any():
        return [None] * len(column)
    out = column.astype(object)
    out[~there] = None
    return list(out.tolist())


def _addresses(family: NDArray[Any], raw: NDArray[np.uint8]) -> list[Address | None]:
    raw = np.ascontiguousarray(raw)
    ipv4 = raw[:, :4].copy().view(">u4").ravel()
    if (family == 4).all():
        return list(ipv4.tolist())
    out = np.full(len(raw), None, object)
    out[family == 4] = ipv4[family == 4].astype(object)
    whole = raw.view("V16").ravel()
    for at in np.flatnonzero(family == 6).tolist():
        out[at] = whole[at].tobytes()
    return list(out.tolist())


def _namers(names: Names) -> Mapping[str, Callable[[int], str | None]]:
    """What the numbers of an event mean, by its column."""
    return {
        "port": names.port,
        "rule": names.rule,
        "verdict": _text_of(Verdict),
        "reason": _text_of(Reason),
        "frag": {x.value: x.name.lower() for x in _FRAGMENT_STATES}.get,
    }


def _text_of(kind: type[Verdict] | type[Reason]) -> Callable[[int], str | None]:
    return {x.value: x.text for x in kind}.get


_FRAGMENT_STATES = (Frag.NO, Frag.FIRST, Frag.LATER)


# From rows to events


def batches_of(
    rows: Sequence[Sequence[Any]], names: Mapping[str, Mapping[int, str]]
) -> Iterator[EventBatch]:
    """Rows as batches again; their times need no offset.

    Args:
        rows: as `COLUMNS` orders them, at least one.
        names: by table and number.
    """
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    slots = {name: sorted({x for x in columns[name] if x is not None}) for name in ("port", "rule")}
    if len(slots["port"]) > 0xFF or len(slots["rule"]) > abi.NO_RULE:
        # More names than an event has numbers for.
        half = len(rows) // 2
        yield from batches_of(rows[:half], names)
        yield from batches_of(rows[half:], names)
        return
    events = np.zeros(len(rows), abi.event_dtype())
    for name in ("queue", "ttl", "dscp", *_ABSENT):
        events[name] = [x or 0 for x in columns[name]]
    events["ts_ns"] = [x or 0 for x in columns["ts_ns"]]
    events["len_bytes"] = columns["len"]
    events["vlan"] = [abi.VLAN_NONE if x is None else x for x in columns["vlan"]]
    for name, bit in _ABSENT.items():
        events["has"] |= np.array([0 if x is None else bit for x in columns[name]], np.uint8)
    events["family"] = [_FAMILY[type(x)] for x in columns["src"]]
    for name in ("src", "dst"):
        packed = b"".join(map(_packed, columns[name]))
        events[name] = np.frombuffer(packed, np.uint8).reshape(-1, 16)
    for name, default in (("port", 0xFF), ("rule", abi.NO_RULE)):
        slot_of = {number: slot for slot, number in enumerate(slots[name])}
        events[name] = [slot_of.get(x, default) for x in columns[name]]
    for name, values in _ENUMS.items():
        events[name] = [values[names[NAMED[name]].get(x)] for x in columns[name]]
    yield EventBatch(
        events,
        Names(*([names[NAMED[name]].get(x) for x in slots[name]] for name in ("port", "rule"))),
        0,
    )


_FAMILY: dict[type, int] = {int: 4, bytes: 6, type(None): 0}


_ENUMS: Mapping[str, Mapping[str | None, int]] = {
    "verdict": {x.text: x.value for x in Verdict},
    "reason": {x.text: x.value for x in Reason},
    "frag": {None: Frag.NOT_IP.value, **{x.name.lower(): x.value for x in _FRAGMENT_STATES}},
}


def _packed(address: Address | None) -> bytes:
    """16 bytes, as in struct xg_event."""
    if isinstance(address, int):
        return address.to_bytes(4, "big").ljust(16, b"\0")
    return address or bytes(16)


# Addresses


def address_text(address: Address | None) -> str | None:
    """An address of a row in words; NULL stays NULL."""
    if isinstance(address, int):
        return str(ipaddress.IPv4Address(address))
    return None if address is None else str(ipaddress.IPv6Address(address))


def key_range(prefix: Prefix) -> tuple[Address, Address]:
    """The first and the last address of a prefix, as rows have them."""
    family, first, bits = prefix
    width = 32 if family == 4 else 128
    last = first | (1 << width - bits) - 1
    if family == 4:
        return first, last
    return first.to_bytes(16, "big"), last.to_bytes(16, "big")
