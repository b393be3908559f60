"""Files of the sinks `jsonl` and `binary` as the tables of the sink `sqlite`, for as long as a
question takes.
"""

from __future__ import annotations

import gzip
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from xdpgw._abi import Frag, Reason, Verdict
from xdpgw.errors import XdpgwError
from xdpgw.event_store import COLUMNS, INSERT, NAMED, SCHEMA, Numbers, rows_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["imported", "is_database"]

_PIECE = 65536


def is_database(path: Path) -> bool:
    """Whether it is an SQLite file.

    Raises:
        XdpgwError: it cannot be read.
    """
    return _head(path).startswith(b"SQLite format 3\0")


def imported(paths: Sequence[Path]) -> tuple[sqlite3.Connection, list[str]]:
    """A database with the events of some files, gone when it is closed.

    Returns:
        the connection, and sentences about what is missing.

    Raises:
        XdpgwError: one cannot be read, or is the file of no sink.
    """
    db = sqlite3.connect("", isolation_level=None)
    notes: list[str] = []
    try:
        for statement in SCHEMA:
            db.execute(statement)
        numbers = Numbers(db)
        db.execute("BEGIN")
        for path in paths:
            db.executemany(INSERT, _rows(path, numbers, notes))
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db, notes


def _rows(path: Path, numbers: Numbers, notes: list[str]) -> Iterator[tuple[Any, ...]]:
    from xdpgw.events import EventBatch, Names
    from xdpgw.sinks import binary

    wrong = 0

    if not _head(path).startswith(binary.MAGIC):
        yield from _of_lines(path, numbers, notes)
        return
    header, events = binary.read_header(path), binary.read(path)
    names = Names(header.ports, header.rules)
    for at in range(0, len(events), _PIECE):
        some = events[at : at + _PIECE]
        right = some[_are_events(some)]
        wrong += len(some) - len(right)
        if len(right):
            yield from rows_of(EventBatch(right, names, 0), numbers)
    if wrong:
        notes.append(f"{path}: {wrong} of {len(events)} records are no events")


def _are_events(records: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which records could be events: what a power cut left behind the last one need not be."""
    import numpy as np

    right = np.asarray(records["ts_ns"] < 1 << 63)
    for member, values in (("verdict", Verdict), ("reason", Reason), ("frag", Frag)):
        right &= np.isin(records[member], [x.value for x in values])
    return right & np.isin(records["family"], (0, 4, 6))


def _of_lines(path: Path, numbers: Numbers, notes: list[str]) -> Iterator[tuple[Any, ...]]:
    decode = msgspec.json.Decoder(_Line).decode
    count = wrong = 0
    try:
        with _opened(path) as file:
            for line in file:
                count += 1
                try:
                    yield _row(decode(line), numbers)
                except (msgspec.DecodeError, ValueError, OSError):
                    wrong += 1
    except (OSError, EOFError) as error:
        raise XdpgwError(f"cannot read {path}: {error}") from error
    if wrong and wrong == count:
        raise XdpgwError(
            f"{path} is no log of xdpgw", "there are those of the sinks sqlite, jsonl and binary"
        )
    if wrong:
        notes.append(f"{path}: {wrong} of {count} lines are no events")


_U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
_U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]


class _Line(msgspec.Struct):
    """A line of the sink `jsonl`, with what struct xg_event has room for."""

    ts: str | None
    port: str | None
    queue: _U32
    src: str | None
    dst: str | None
    proto: _U8 | None
    sport: _U16 | None
    dport: _U16 | None
    tcp_flags: _U8 | None
    icmp_type: _U8 | None
    icmp_code: _U8 | None
    frag: Literal["no", "first", "later"] | None
    ttl: _U8 | None
    dscp: _U8 | None
    vlan: _U16 | None
    ethertype: _U16 | None
    len: _U32
    verdict: str
    reason: str
    rule: str | None


def _row(line: _Line, numbers: Numbers) -> tuple[Any, ...]:
    row: dict[str, Any] = msgspec.structs.asdict(line)
    row["ts_ns"] = None if line.ts is None else _ns(line.ts)
    for name in ("src", "dst"):
        row[name] = _key(row[name])
    for name, table in NAMED.items():
        if row[name] is not None:
            row[name] = numbers(table, row[name])
    return tuple(row[name] for name in COLUMNS)


def _ns(text: str) -> int:
    """A time as the JSON lines have it, as CLOCK_REALTIME."""
    ns = _second(text[:19]) * 10**9 + int(text[20:29])
    if not 0 <= ns < 1 << 63:
        raise ValueError(f"{text} is no time of an event")
    return ns


@lru_cache(maxsize=16)
def _second(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@lru_cache(maxsize=65536)
def _key(address: str | None) -> int | bytes | None:
    """An address in words, as rows have it."""
    if address is None:
        return None
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if _head(path).startswith(b"\x1f\x8b") else path.open("rb")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise XdpgwError(f"cannot read {path}: {error.strerror}") from error
