"""A file of SQLite, read without any help of ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.net.process import until

from . import Reader
from .jsonl import InFolder


class Sqlite(InFolder):
    def __init__(self, folder: Path, stdout: Reader) -> None:
        super().__init__("sqlite", folder, {})

    def sources(self, count: int) -> list[str]:
        return until(lambda: self._sources(count), f"{count} rows")[0]  # type: ignore[no-any-return]

    def _sources(self, count: int) -> tuple[list[str]] | None:
        with closing(sqlite3.connect(self.path)) as db:
            rows: list[Any] = db.execute("SELECT src FROM log ORDER BY id").fetchall()
        short = {"2001:0db8:0000:0000:0000:0000:0000:0001": "2001:db8::1", None: ""}
        return ([short.get(x, x) for (x,) in rows],) if len(rows) >= count else None


ADAPTERS = {"plain": Sqlite}
