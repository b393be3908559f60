"""Questions to the SQLite file of the sink `sqlite`: filters as SQL with bound parameters, answers
in pieces.

Nothing here can write: the connection is read-only, and what a user's own SQL may do is held to
reading. No read transaction outlives one step of an answer (but for own SQL), so that a reader who
stops to look does not keep the file from shrinking.
"""

from __future__ import annotations

import signal
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from xdpgw._abi import Reason, Verdict
from xdpgw.errors import XdpgwError
from xdpgw.event_file import require_ours
from xdpgw.event_import import imported, is_database
from xdpgw.event_store import COLUMNS, NAMED, address_text, batches_of, key_range, log_view
from xdpgw.events import EventBatch
from xdpgw.rule_types import Prefix

__all__ = ["EventLog", "Group", "Wanted"]

_PIECE_ROWS = 2048
_PIECE_IDS = 250_000
Show = Callable[[list[str], Iterable[tuple[Any, ...]]], None]
_INDEXED = ("ts_ns", "src")
_FEW_ROWS = 100_000
"""Events of some sources are looked up by source up to so many, and by time beyond."""
_STEPS = 10_000
"""Steps of SQLite's machine between two looks at signals: well below a millisecond."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events. Within a member any will do, all members must hold; an empty one asks nothing.

    Args:
        since_ns, until_ns: CLOCK_REALTIME; from and including, up to and without.
        port: names of ports of the gateway; sport and dport are ranges of TCP, UDP and SCTP ports.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    src: tuple[Prefix, ...] = ()
    dst: tuple[Prefix, ...] = ()
    rule: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    port: tuple[str, ...] = ()
    proto: tuple[int, ...] = ()
    sport: tuple[tuple[int, int], ...] = ()
    dport: tuple[tuple[int, int], ...] = ()

    def where(self, index: str | None = None) -> tuple[str, list[object]]:
        """The condition in SQL, and what is to be bound to it.

        Args:
            index: the one column, ts_ns or src, whose index SQLite may use; None leaves it to it.
        """
        conditions: list[str] = []
        bound: list[object] = []

        def name_of(column: str) -> str:
            barred = index is not None and column in _INDEXED and column != index
            return f"+{column}" if barred else column

        def ask(alternatives: Sequence[str], *values: object) -> None:
            if alternatives:
                conditions.append(f"({' OR '.join(alternatives)})")
                bound.extend(values)

        for sign, time_ns in ((">=", self.since_ns), ("<", self.until_ns)):
            if time_ns is not None:
                ask([f"{name_of('ts_ns')} {sign} ?"], time_ns)
        ranges: dict[str, Sequence[tuple[Any, Any]]] = {
            "src": [key_range(x) for x in self.src],
            "dst": [key_range(x) for x in self.dst],
            "sport": self.sport,
            "dport": self.dport,
        }
        for column, spans in ranges.items():
            ends = [end for span in spans for end in span]
            ask([f"{name_of(column)} BETWEEN ? AND ?"] * len(spans), *ends)
        for column in ("rule", "verdict", "reason", "port"):
            names: tuple[str, ...] = getattr(self, column)
            one = f"{column} = (SELECT id FROM {NAMED[column]} WHERE name = ?)"
            ask([one] * len(names), *names)
        ask(["proto = ?"] * len(self.proto), *self.proto)
        return " AND ".join(conditions) or "1", bound


@dataclass(frozen=True, slots=True)
class Group:
    """Events that have something in common.

    Args:
        key: by column; None where they lack it.
        bytes: sum of the frames' lengths.
        first_ns, last_ns: CLOCK_REALTIME.
    """

    key: dict[str, str | int | None]
    events: int
    bytes: int
    first_ns: int | None
    last_ns: int | None


class EventLog:
    """A file of the sink `sqlite`, to be read.

    By the main thread: what takes too long is ended by a signal.
    """

    def __init__(self, *paths: Path, timeout_s: float = 60.0) -> None:
        """Open a file; or some of the sinks `jsonl` and `binary`, which are read first.

        Args:
            timeout_s: how long SQLite may take for one step of an answer.

        Raises:
            XdpgwError: there is none, it is no log, or another version's.
        """
        self.path = paths[0]
        self.notes: list[str] = []
        """What a person should know of the files."""
        self._timeout_s = timeout_s
        for path in paths:
            if not path.exists():
                raise XdpgwError(f"there is no log {path}", "the sink sqlite makes one")
        if not any(map(is_database, paths)):
            self._db, self.notes = imported(paths)
        elif len(paths) == 1:
            with self._told():
                self._db = _connected(self.path)
        else:
            raise XdpgwError("one SQLite file can be asked at a time", "name one alone")
        try:
            with self._told():
                self._settle()
        except BaseException:
            self._db.close()
            raise

    def _settle(self) -> None:
        db = self._db
        ((application,), (version,)) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        require_ours(self.path, application, version)
        unknown = {x for (x,) in db.execute("SELECT name FROM verdicts")} - {
            x.text for x in Verdict
        }
        unknown |= {x for (x,) in db.execute("SELECT name FROM reasons")} - {x.text for x in Reason}
        if unknown:
            raise XdpgwError(
                f"{self.path} holds what this version of xdpgw does not know: {min(unknown)}",
                "use the version that wrote it",
            )
        db.create_function("ip_text", 1, address_text, deterministic=True)
        # In place of the file's own view: its addresses are in full.
        db.execute(log_view(lambda column: f"ip_text({column})", kind="TEMP VIEW"))
        db.set_progress_handler(lambda: 0, _STEPS)  # Python looks at signals when it is called
        db.set_authorizer(_authorize)

    def close(self) -> None:
        """Close the file; twice is fine."""
        self._db.close()

    def unknown_names(self, column: str, names: Sequence[str]) -> list[str]:
        """Those of some names of a column (`rule`, `port`) that no event has."""
        known = set(self._names()[NAMED[column]].values())
        return [name for name in names if name not in known]

    def batches(self, wanted: Wanted, *, limit: int | None = None) -> Iterator[EventBatch]:
        """The events, oldest first.

        Args:
            limit: only so many, the youngest.

        Raises:
            XdpgwError: it took too long, or the file is damaged.
        """
        columns = ", ".join(COLUMNS)
        for ids in self._ids(wanted, limit):
            for at in range(0, len(ids), _PIECE_ROWS):
                some = ids[at : at + _PIECE_ROWS]
                query = (
                    f"SELECT {columns} FROM events WHERE id IN ({', '.join('?' * len(some))}) "
                    "ORDER BY ts_ns, id"
                )
                rows, names = self._all(query, some), self._names()
                if rows:  # else they were deleted meanwhile
                    yield from batches_of(rows, names)

    def count(self, wanted: Wanted) -> int:
        """How many events there are."""
        where, bound = self._where(wanted)
        return int(self._all(f"SELECT count(*) FROM events WHERE {where}", bound)[0][0])

    def groups(self, wanted: Wanted, by: Sequence[str], *, limit: int | None) -> list[Group]:
        """Events by what they have in common, the most frequent first.

        Args:
            by: of `COLUMNS`.
            limit: only so many groups.
        """
        if not set(by) <= set(COLUMNS):  # they become SQL
            raise ValueError(f"no such columns: {by}")
        where, bound = self._where(wanted)
        columns = ", ".join(by)
        query = (
            f"SELECT {columns}, count(*), sum(len), min(ts_ns), max(ts_ns) FROM events "
            f"WHERE {where} GROUP BY {columns} ORDER BY count(*) DESC, {columns} LIMIT ?"
        )
        names = self._names()
        found = []
        for row in self._all(query, [*bound, -1 if limit is None else limit]):
            key = {
                column: names[NAMED[column]].get(value)
                if column in NAMED
                else address_text(value)
                if column in ("src", "dst")
                else value
                for column, value in zip(by, row, strict=False)
            }
            found.append(Group(key, *row[len(by) :]))
        return found

    def sql(self, query: str, show: Show) -> None:
        """Ask a query of the user's own.

        Args:
            show: takes the names of the columns, and the rows as they come.

        Raises:
            XdpgwError: it is no query, it would write, or took too long, the showing included.
        """
        with self._told(query), self._timed(), closing(self._db.cursor()) as cursor:
            cursor.execute(query)
            if cursor.description is None:
                raise XdpgwError("--sql takes a query: SELECT ...")
            show([x[0] for x in cursor.description], cursor)

    # Inside

    def _where(self, wanted: Wanted, *, in_order: bool = False) -> tuple[str, list[object]]:
        """The condition by the index that has less to look at: SQLite cannot know how many events
        some sources have.

        Args:
            in_order: the events are wanted in the order of their times.
        """
        by_time = in_order or wanted.since_ns is not None or wanted.until_ns is not None
        if not wanted.src or not by_time:
            return wanted.where()
        where, bound = Wanted(src=wanted.src).where()
        query = f"SELECT count(*) FROM (SELECT 1 FROM events WHERE {where} LIMIT ?)"
        ((count,),) = self._all(query, [*bound, _FEW_ROWS])
        return wanted.where("src" if count < _FEW_ROWS else "ts_ns")

    def _ids(self, wanted: Wanted, limit: int | None) -> Iterator[array[int]]:
        """The numbers of the events in the order of their times, up to `_PIECE_IDS` at once."""
        where, bound = self._where(wanted, in_order=True)
        if limit is not None:
            query = f"SELECT id FROM events WHERE {where} ORDER BY ts_ns DESC, id DESC LIMIT ?"
            found = array("q", (x for (x,) in self._all(query, [*bound, limit])))
            found.reverse()
            yield found
            return
        after: tuple[object, ...] = ()
        while True:
            behind = " AND (ts_ns, id) > (?, ?)" if after else ""
            query = f"SELECT ts_ns, id FROM events WHERE {where}{behind} ORDER BY ts_ns, id LIMIT ?"
            rows = self._all(query, [*bound, *after, _PIECE_IDS])
            yield array("q", (x for _, x in rows))
            if len(rows) < _PIECE_IDS:
                return
            after = rows[-1]

    def _all(self, query: str, bound: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._told(), self._timed():
            return self._db.execute(query, tuple(bound)).fetchall()

    def _names(self) -> dict[str, dict[int, str]]:
        return {x: dict(self._all(f"SELECT id, name FROM {x}", ())) for x in NAMED.values()}

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """End what is in the block when it takes too long, also when it waits for who reads."""

        def too_long(signum: int, frame: FrameType | None) -> None:
            self._late = True
            raise _LateError

        self._late = False
        before = signal.signal(signal.SIGALRM, too_long)
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    @contextmanager
    def _told(self, query: str | None = None) -> Iterator[None]:
        """Turn what SQLite says into a sentence."""
        try:
            yield
        except _LateError as error:
            raise self._too_late() from error
        except UnicodeEncodeError as error:
            raise XdpgwError("what is asked for is not UTF-8", "correct the option") from error
        except (sqlite3.Error, sqlite3.Warning) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_INTERRUPT:
                if self._late:
                    raise self._too_late() from error
                raise KeyboardInterrupt from error
            if query is None:
                raise XdpgwError(f"cannot read the log {self.path}: {error}") from error
            denied = "not authorized" in str(error) or code == sqlite3.SQLITE_AUTH
            hint = "it may only read" if denied else _SQL_HINT
            raise XdpgwError(f"--sql: {error}", hint) from error

    def _too_late(self) -> XdpgwError:
        return XdpgwError(
            f"the log did not answer within {self._timeout_s:g} s",
            "ask for less, by --since for one, or give it more time by --timeout",
        )

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_SQL_HINT = "there are the view log, and the tables events, " + ", ".join(sorted(NAMED.values()))


class _LateError(Exception):
    """It took too long."""


def _connected(path: Path) -> sqlite3.Connection:
    """A read-only connection."""
    uri = path.resolve().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return db
    except sqlite3.OperationalError:
        db.close()
        # Who may not write beside it cannot share it either; nobody needs to if nobody writes.
        if path.with_name(f"{path.name}-wal").exists():
            raise
    return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)


_READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


def _authorize(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
