"""Events in an SQLite file, a transaction a batch, for `xdpgw log query` and for any other reader.

The tables are those of `xdpgw.event_store`. Readers look on while it writes (write-ahead log).
What is too old or too much is deleted from the oldest on, a few rows after each batch, and the file
gives back pages that stay empty. A file that another process has moved away is begun anew; one of
ours that is damaged is set aside as NAME.damaged.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xdpgw.errors import XdpgwError
from xdpgw.event_file import EventFile, hint_of, is_damage, transaction
from xdpgw.event_store import INSERT, Numbers, rows_of
from xdpgw.sink_options import Count, File, Size, Spec, Time
from xdpgw.sinks import SinkError

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["MAX_BYTES", "SPEC", "SqliteSink", "make"]

MAX_BYTES = 1 << 30
"""What events take in the file, unless the policy says otherwise: about 10 million of them."""

_STEP_ROWS = 4096
"""Rows deleted at a time, at least: some 20 ms."""
_STEP_PAGES = 512
"""Empty pages given back at a time: 2 MiB."""
_SPARE = 16
"""One page in so many may stay empty, for what is written next."""
_IDLE_S = 0.1
"""So long a sink without events goes on deleting before it looks for some."""

SPEC = Spec(
    {
        "path": File(),
        "keep_for": Time("1m", "3650d"),
        "max_rows": Count(1000, 10**12),
        "max_bytes": Size(1 << 20),
    },
    main="path",
    needed=True,
    example='{ sqlite = "FILE" }',
)


class SqliteSink:
    """Inserts events into a file."""

    def __init__(
        self,
        path: Path,
        *,
        keep_for_ns: int | None = None,
        max_rows: int | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open a file, or create it.

        Args:
            path: the file; its folder must exist.
            keep_for_ns: older events are deleted.
            max_rows: with more events, the oldest are deleted.
            max_bytes: the same with more bytes of the file in use.

        Raises:
            XdpgwError: it cannot be opened, is none of ours, or another version's.
        """
        self.name = f"sqlite {path}"
        self._file = EventFile(path)
        self._keep_for_ns = keep_for_ns
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._numbers: Numbers | None = None
        try:
            self._file.followed()
        except sqlite3.Error as error:
            # A damaged one is set aside with the first batch, when there is somebody to be told.
            if not (is_damage(error) and self._file.may_set_aside()):
                raise XdpgwError(f"cannot open the log {path}: {error}", hint_of(error)) from error
        except OSError as error:
            raise XdpgwError(
                f"cannot open the log {path}: {error.strerror}",
                "its folder must exist and be writable",
            ) from error

    def write(self, batch: EventBatch) -> None:
        """Insert a batch, all of it or nothing; then delete what is too old or too much."""
        left = len(batch)
        try:
            db = self._file.followed()
            self._insert(db, batch)
            left = 0
            self._trim(db, max(_STEP_ROWS, 2 * len(batch)))
        except (sqlite3.Error, OSError, XdpgwError) as error:
            raise self._failed(error, left) from error

    def flush(self) -> None:
        """Delete what is too old or too much; all that was written can be read already."""
        deadline = time.monotonic() + _IDLE_S
        try:
            while self._trim(self._file.followed(), _STEP_ROWS):
                if time.monotonic() > deadline:
                    break
        except (sqlite3.Error, OSError, XdpgwError) as error:
            raise self._failed(error, 0) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _insert(self, db: sqlite3.Connection, batch: EventBatch) -> None:
        if self._numbers is None or self._numbers.db is not db:
            self._numbers = Numbers(db)
        with transaction(db):
            db.executemany(INSERT, rows_of(batch, self._numbers))

    def _trim(self, db: sqlite3.Connection, step: int) -> bool:
        """Delete some rows that are too old or too many, give back some pages.

        Args:
            step: rows, at most.

        Returns:
            whether there may be more to do.
        """
        pages, free, page_bytes = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        deleted = 0
        if self._keep_for_ns is not None:
            oldest = time.time_ns() - self._keep_for_ns
            deleted = db.execute(
                "DELETE FROM events WHERE id IN "
                "(SELECT id FROM events WHERE ts_ns < ? ORDER BY ts_ns LIMIT ?)",
                (oldest, step),
            ).rowcount
        first, last = db.execute(
            "SELECT (SELECT min(id) FROM events), (SELECT max(id) FROM events)"
        ).fetchone()
        # Numbers are given in order, so that this counts a row twice never, a gap at most.
        rows = 0 if first is None else last - first + 1
        excess = max(0, rows - self._max_rows) if self._max_rows is not None else 0
        used, room = pages - free, self._max_bytes // page_bytes
        if used > room:
            excess = max(excess, rows * (used - room) // used, 1)
        if excess and rows:
            last_to_go = first + min(excess, step) - 1
            deleted += db.execute("DELETE FROM events WHERE id <= ?", (last_to_go,)).rowcount
        if free > max(pages // _SPARE, _STEP_PAGES):
            db.execute(f"PRAGMA incremental_vacuum({_STEP_PAGES})").fetchall()
            return True
        return deleted > 0

    def _failed(self, error: Exception, left: int) -> SinkError:
        """What to raise; the next batch finds the file opened anew."""
        self._file.close()
        text = f"{self._file.path}: {error.strerror if isinstance(error, OSError) else error}"
        hint = error.hint if isinstance(error, XdpgwError) else None
        if isinstance(error, sqlite3.Error):
            hint = hint_of(error)
            if is_damage(error) and self._file.may_set_aside():
                text += f"; {self._file.set_aside()}"
        return SinkError(text, hint, left=left)


def make(settings: SinkSettings) -> SqliteSink:
    """The sink `{ sqlite = "FILE" }`."""
    if settings.path is None:
        raise XdpgwError("the sink sqlite needs a file", SPEC.example)
    options = settings.options
    return SqliteSink(
        settings.path,
        keep_for_ns=options.get("keep_for"),
        max_rows=options.get("max_rows"),
        max_bytes=int(options.get("max_bytes", MAX_BYTES)),
    )
