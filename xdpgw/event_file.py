"""The file of the sink `sqlite` as a file: made, opened, moved away under us, damaged.

SQLite keeps two more beside it, NAME-wal and NAME-shm, by name. Who moves the file alone leaves
them behind, and whatever gets its name next would be overwritten with what they hold. So a file
that was moved is completed from them first, and then they go.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xdpgw.errors import XdpgwError
from xdpgw.event_store import APPLICATION_ID, SCHEMA, VERSION

__all__ = ["EventFile", "hint_of", "is_damage", "require_ours", "transaction"]

MODE = 0o640
"""Events name peers; a log group may read them, others may not."""
PATIENCE_S = 2.0
"""How long another writer is waited for."""

_ENDS = ("", "-wal", "-shm")


class EventFile:
    """A file by its name, open or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = path.resolve()
        """Where SQLite puts the others, if the name is a link."""
        self._db: sqlite3.Connection | None = None
        self._known: dict[str, tuple[int, int] | None] = {}
        """Device and inode of the three files, as they were when we opened them."""

    def followed(self) -> sqlite3.Connection:
        """The file of that name: opened anew where that is another one by now, or none.

        Raises:
            sqlite3.Error, OSError: it cannot be opened.
            XdpgwError: it is none of ours.
        """
        if self._db is not None:
            if self._known[""] == _identity(self.path):
                return self._db
            self._leave()
        self._real = self.path.resolve()
        self._db = self._opened()
        self._known = {end: _identity(self._beside(end)) for end in _ENDS}
        return self._db

    def close(self) -> None:
        """Close it; twice is fine."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def may_set_aside(self) -> bool:
        """Whether it is ours for certain: the one that we had open, or it still says so."""
        found = _identity(self.path)
        if found is not None and found == self._known.get(""):
            return True
        # SQLite's locks go with any descriptor of the file that the process closes.
        assert self._db is None
        with suppress(OSError), open(self.path, "rb") as file:
            head = file.read(72)
            magic, application = b"SQLite format 3\0", APPLICATION_ID.to_bytes(4)
            return head.startswith(magic) and head[68:] == application
        return False

    def set_aside(self) -> str:
        """Move it away, for a new one. Returns what was done, in words."""
        aside = self._beside(".damaged")
        try:
            for end in ("-wal", ""):
                with suppress(FileNotFoundError):
                    os.replace(self._beside(end), f"{aside}{end}")
            self._beside("-shm").unlink(missing_ok=True)
        except OSError as error:
            return f"it cannot be moved away: {error.strerror}"
        return f"it is {aside} now, and a new one is begun"

    def _beside(self, end: str) -> Path:
        return self._real.with_name(f"{self._real.name}{end}")

    def _leave(self) -> None:
        """Give up a file that has another name by now, or none."""
        assert self._db is not None
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.close()
        for end in _ENDS[1:]:
            # By now they may be those of another file.
            if self._known[end] is not None and self._known[end] == _identity(self._beside(end)):
                self._beside(end).unlink(missing_ok=True)

    def _opened(self) -> sqlite3.Connection:
        with suppress(FileExistsError):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
            os.fchmod(fd, MODE)  # whatever the umask; what SQLite puts beside it has the same
            os.close(fd)
        db = sqlite3.connect(
            self.path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
        )
        try:
            fresh = self._is_fresh(db)
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise XdpgwError(
                    f"cannot open the log {self.path}: its file system has no shared memory",
                    "put it on a local file system",
                )
            db.execute("PRAGMA synchronous = NORMAL")
            # With many sources, an insert touches any page of the index: 64 MiB of them in memory,
            # and written back not more often than every 64 MiB.
            db.execute("PRAGMA cache_size = -65536")
            db.execute("PRAGMA wal_autocheckpoint = 16384")
            db.execute(f"PRAGMA journal_size_limit = {64 << 20}")
            if fresh:
                with transaction(db):
                    if self._is_fresh(db):  # nobody was quicker
                        for statement in SCHEMA:
                            db.execute(statement)
        except BaseException:
            db.close()
            raise
        return db

    def _is_fresh(self, db: sqlite3.Connection) -> bool:
        """Whether it has no tables yet; changes nothing.

        Raises:
            XdpgwError: it has others than ours.
        """
        application, version, tables = (
            db.execute(query).fetchone()[0]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if not tables and not application:
            return True
        require_ours(self.path, application, version)
        return False


def require_ours(path: Path, application: int, version: int) -> None:
    """Refuse a file that this version has not made.

    Args:
        application: PRAGMA application_id.
        version: PRAGMA user_version.

    Raises:
        XdpgwError: it is another program's, or another version's.
    """
    if application != APPLICATION_ID:
        raise XdpgwError(
            f"{path} is an SQLite file, but no log of xdpgw", "name another file for the log"
        )
    if version != VERSION:
        raise XdpgwError(
            f"{path} was written by another version of xdpgw: its tables are of version {version}, "
            f"this one knows {VERSION}",
            "use that version, or move the file away and let a new one be made",
        )


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is done inside, or nothing; others may read meanwhile, but not write."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # what failed may have ended it already
            db.execute("ROLLBACK")
        raise


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file does not hold what it should."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def hint_of(error: sqlite3.Error) -> str | None:
    """What to do about an error."""
    return _HINTS.get(_code(error))


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 where SQLite gave none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


_HINTS = {
    sqlite3.SQLITE_CANTOPEN: "its folder must exist and be writable",
    sqlite3.SQLITE_READONLY: "the user that runs xdpgw must be allowed to write it",
    sqlite3.SQLITE_BUSY: "another program holds it locked",
    sqlite3.SQLITE_FULL: "make room on its disk, or give it less by max_bytes",
    sqlite3.SQLITE_NOTADB: "name another file for the log",
    sqlite3.SQLITE_CORRUPT: "move it away and let a new one be made",
}


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
