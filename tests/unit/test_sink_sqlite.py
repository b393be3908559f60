"""The sink `sqlite`: what is in the file is what was told, whatever becomes of the file."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.net.process import until
from xdpgw import event_file, sinks
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.event_store import COLUMNS, NAMED, VERSION, batches_of
from xdpgw.events import EventBatch
from xdpgw.sinks import SinkError
from xdpgw.sinks import sqlite as sink_sqlite
from xdpgw.sinks.sqlite import SqliteSink

from .batches import batch, numbered
from .event_strategies import batches, full

MANY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[SqliteSink]:
    sink = SqliteSink(path, **options)
    try:
        yield sink
    finally:
        sink.close()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """What a reader of its own gets."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def sources(path: Path) -> list[int]:
    """The last number of each source address, in the order of insertion."""
    return [x & 255 for (x,) in rows(path, "SELECT src FROM events ORDER BY id")]


def lines_of(path: Path) -> bytes:
    """All events as JSON lines."""
    names = {x: dict(rows(path, f"SELECT id, name FROM {x}")) for x in NAMED.values()}
    found = rows(path, f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY id")
    return b"".join(x.json_lines() for x in batches_of(found, names))


def old(batch_: EventBatch, age_s: float) -> EventBatch:
    """The batch as if all of it were so old."""
    events = batch_.events.copy()
    events["ts_ns"] = 1
    return EventBatch(events, batch_.names, time.time_ns() - int(age_s * 1e9))


# What is in the file


@MANY
@given(batches)
def test_sqlite_events_read_back_as_they_were_told(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]]
) -> None:
    path, told = tmp_path_factory.mktemp("log") / "events.db", batch(*changes)
    with opened(path) as sink:
        sink.write(told)
    assert lines_of(path) == told.json_lines()


@MANY
@given(batches)
def test_sqlite_view_log_says_in_sql_alone_what_json_lines_say(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]]
) -> None:
    path, told = tmp_path_factory.mktemp("log") / "events.db", batch(*changes)
    with opened(path) as sink:
        sink.write(told)
    wanted = [json.loads(line) for line in told.json_lines().splitlines()]
    for line in wanted:
        line |= {"src": full(line["src"]), "dst": full(line["dst"])}
    found = rows(path, f"SELECT {', '.join(wanted[0])} FROM log ORDER BY id")
    assert [dict(zip(wanted[0], row, strict=True)) for row in found] == wanted


def test_sqlite_appends_to_what_is_there_and_names_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    for number in (1, 2):
        with opened(path) as sink:
            sink.write(numbered(number))
    assert sources(path) == [1, 2]
    assert len(rows(path, "SELECT DISTINCT rule, port FROM events")) == 1


def test_sqlite_is_readable_by_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    path, before = tmp_path / "events.db", os.umask(0o077)
    try:
        with opened(path) as sink:
            sink.write(numbered(1))
            modes = {x.name: stat.S_IMODE(x.stat().st_mode) for x in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {f"events.db{end}": 0o640 for end in ("", "-wal", "-shm")}


def test_sqlite_readers_see_a_batch_at_once_and_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with opened(path) as sink, closing(sqlite3.connect(path)) as reader:
        for count in range(1, 5):
            sink.write(numbered(*range(100)))
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (100 * count,)


def test_sqlite_writes_on_while_a_reader_stands_still(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with opened(path) as sink, closing(sqlite3.connect(path)) as reader:
        sink.write(numbered(1, 2, 3))
        slow = reader.execute("SELECT id FROM events")
        assert slow.fetchone() == (1,)
        sink.write(numbered(4))
        assert slow.fetchall() == [(2,), (3,)]  # as of when it began
    assert sources(path) == [1, 2, 3, 4]


def test_sqlite_killed_while_it_writes_keeps_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.unit.batches import numbered\n"
        "from xdpgw.sinks.sqlite import SqliteSink\n"
        "sink = SqliteSink(Path(sys.argv[1]))\n"
        "while True:\n"
        "    sink.write(numbered(*range(100)))\n"
        "    print(flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert process.stdout
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    ((count,),) = rows(path, "SELECT count(*) FROM events")
    assert count >= 2000 and count % 100 == 0
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    with opened(path) as sink:
        sink.write(numbered(7))
    assert sources(path)[-1] == 7


# What is deleted


def test_sqlite_with_too_many_rows_deletes_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with opened(path, max_rows=1000) as sink:
        for number in range(12):
            sink.write(numbered(*[number] * 200))
            assert rows(path, "SELECT count(*) FROM events")[0][0] <= 1000
    assert sorted(set(sources(path))) == [7, 8, 9, 10, 11]


def test_sqlite_deletes_what_is_too_old_also_when_nothing_comes(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with opened(path) as sink:
        sink.write(old(numbered(*[1] * 9000), 7200))
        sink.write(old(numbered(2), 1800))
    with opened(path, keep_for_ns=3600 * 10**9) as sink:
        assert len(sources(path)) == 9001
        until(lambda: sink.flush() or sources(path) == [2], "the old ones gone")


def test_sqlite_deletes_a_step_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_sqlite, "_STEP_ROWS", 100)
    path = tmp_path / "events.db"
    with opened(path) as sink:
        sink.write(numbered(*[1] * 5000))
    with opened(path, max_rows=1000) as sink:
        for left in (4901, 4802, 4703):
            sink.write(numbered(2))
            assert len(sources(path)) == left
        until(lambda: sink.flush() or len(sources(path)) == 1000, "no more than it may have")


def test_sqlite_keeps_to_its_bytes_and_the_file_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with opened(path) as sink:
        for number in range(40):
            sink.write(numbered(*[number] * 2000))
    assert path.stat().st_size > 5 << 20
    with opened(path, max_bytes=1 << 20) as sink:
        sink.write(numbered(99))
        until(lambda: sink.flush() or _used(path) <= 1 << 20, "1 MiB in use")
        until(lambda: sink.flush() or _size(path) <= 4 << 20, "a small file")
    kept = sources(path)
    assert kept[-1] == 99
    assert len(kept) > 5000 and kept == sorted(kept)  # the youngest
    assert path.stat().st_size <= 4 << 20


def _used(path: Path) -> int:
    ((pages,), (free,)) = (
        rows(path, f"PRAGMA {name}")[0] for name in ("page_count", "freelist_count")
    )
    return int(pages - free) * 4096


def _size(path: Path) -> int:
    return int(rows(path, "PRAGMA page_count")[0][0]) * 4096


# What becomes of the file


@pytest.mark.parametrize("move", ["rename", "remove"])
def test_sqlite_follows_its_name_where_another_process_moves_the_file(
    tmp_path: Path, move: str
) -> None:
    path = tmp_path / "events.db"
    with opened(path) as sink:
        sink.write(numbered(1))
        path.rename(tmp_path / "moved") if move == "rename" else path.unlink()
        sink.write(numbered(2))
        sink.write(numbered(3))
        assert sources(path) == [2, 3]
        if move == "rename":
            assert sources(tmp_path / "moved") == [1]  # whole, although it was moved alone
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_sqlite_behind_a_link_is_followed_and_set_aside_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    path, real = tmp_path / "events.db", tmp_path / "disk" / "real.db"
    path.symlink_to(real)
    with opened(path) as sink:
        sink.write(numbered(1))
        real.rename(tmp_path / "moved")
        sink.write(numbered(2))
        assert (sources(real), sources(tmp_path / "moved")) == ([2], [1])
    damage(real)
    with opened(path) as sink:
        with pytest.raises(SinkError, match=f"it is {real}.damaged now"):
            sink.write(numbered(3))
        sink.write(numbered(3))
    assert path.is_symlink()
    assert sources(real) == [3]


def test_sqlite_whose_folder_is_gone_goes_on_saying_so(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with opened(folder / "events.db") as sink:
        sink.write(numbered(1))
        folder.rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(SinkError, match="No such file"):
                sink.write(numbered(2))
            with pytest.raises(SinkError, match="No such file"):
                sink.flush()
        (tmp_path / "away").rename(folder)
        sink.write(numbered(2))
    assert sources(folder / "events.db") == [1, 2]


def test_sqlite_locked_by_another_says_so_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "PATIENCE_S", 0.05)
    path = tmp_path / "events.db"
    with opened(path) as sink, closing(sqlite3.connect(path, isolation_level=None)) as other:
        sink.write(numbered(1))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SinkError, match="locked") as error:
            sink.write(numbered(2, 3))
        assert (error.value.lost, error.value.left) == (0, 2)
        assert error.value.hint == "another program holds it locked"
        other.execute("ROLLBACK")
        sink.write(numbered(2, 3))
    assert sources(path) == [1, 2, 3]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs takes root")
def test_sqlite_on_a_full_disk_keeps_whole_batches_and_recovers(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "t", str(tmp_path)], check=True)
    try:
        path, filler = tmp_path / "events.db", tmp_path / "filler"
        with opened(path) as sink:
            sink.write(numbered(1))
            filler.write_bytes(bytes(1 << 20))
            with pytest.raises(SinkError, match="full") as error:
                for _ in range(100):
                    sink.write(numbered(*[2] * 500))
            assert (error.value.lost, error.value.left) == (0, 500)
            assert len(sources(path)) % 500 == 1
            filler.unlink()
            sink.write(numbered(3))
            assert sources(path)[-1] == 3
            assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def damage(path: Path) -> None:
    """Leave of a file of ours its first page alone."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_sqlite_that_is_damaged_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with opened(path) as sink:
        sink.write(numbered(1))
    damage(path)
    with opened(path) as sink:  # a filter has to start all the same
        with pytest.raises(SinkError, match=f"it is {path}.damaged now, and a new one") as error:
            sink.write(numbered(2))
        assert (error.value.lost, error.value.left) == (0, 1)
        sink.write(numbered(2))
    assert sources(path) == [2]
    assert (tmp_path / "events.db.damaged").stat().st_size > 4096


def test_sqlite_whose_header_is_overwritten_meanwhile_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with opened(path) as sink:
        sink.write(numbered(1))
        sink.close()
        path.write_bytes(b"\xa5" * path.stat().st_size)
        with pytest.raises(SinkError, match="a new one is begun"):
            sink.write(numbered(2))
        sink.write(numbered(2))
    assert sources(path) == [2]


def test_sqlite_leaves_a_file_of_another_kind_alone(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text("[policy]\n" * 1000)
    with pytest.raises(XdpgwError, match="file is not a database") as error:
        SqliteSink(path)
    assert error.value.hint == "name another file for the log"
    assert path.read_text() == "[policy]\n" * 1000
    assert os.listdir(tmp_path) == ["edge.toml"]


def test_sqlite_replaced_by_a_file_of_another_kind_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with opened(path) as sink:
        sink.write(numbered(1))
        path.rename(tmp_path / "moved")
        path.write_text("mine\n" * 1000)
        with pytest.raises(SinkError, match="not a database"):
            sink.write(numbered(2))
        assert path.read_text() == "mine\n" * 1000


def test_sqlite_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "firefox.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(XdpgwError, match="no log of xdpgw"):
        SqliteSink(path)
    assert rows(path, "SELECT name FROM sqlite_master") == [("bookmarks",)]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]


def test_sqlite_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    SqliteSink(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(XdpgwError, match=f"version {VERSION + 1}, this one knows {VERSION}"):
        SqliteSink(path)


def test_sqlite_that_cannot_be_opened_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(XdpgwError, match=f"cannot open the log {tmp_path}/no/events"):
        SqliteSink(tmp_path / "no" / "events")


def test_sqlite_without_a_file_is_refused() -> None:
    with pytest.raises(XdpgwError, match="needs a file"):
        sinks.make(SinkSettings("sqlite"))


def test_sqlite_takes_its_options(tmp_path: Path) -> None:
    options = {"max_rows": 1000, "max_bytes": 1 << 20, "keep_for": 3600 * 10**9}
    sink = sinks.make(SinkSettings("sqlite", tmp_path / "events.db", options))
    sink.write(old(numbered(*[1] * 50), 7200))
    sink.write(old(numbered(*[2] * 1500), 60))
    sink.close()
    assert sources(tmp_path / "events.db") == [2] * 1000
