"""The sink jsonl: its file, its age, its old files."""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.net.process import until
from xdpgw import compression, rotation, sinks
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.rotation import Limits
from xdpgw.sinks import SinkError
from xdpgw.sinks.jsonl import JsonlSink

from .batches import batch, numbered


def sources(path: Path) -> list[str]:
    """The last number of each source address in a file of whole lines."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(line)["src"].split(".")[-1] for line in data.splitlines()]


LINE_BYTES = len(numbered(1).json_lines())


def test_jsonl_appends_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "events"
    for number in (1, 2):
        sink = JsonlSink(path)
        sink.write(numbered(number))
        sink.close()
    assert sources(path) == ["1", "2"]


def test_jsonl_ends_the_line_that_a_crash_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b'{"cut')
    sink = JsonlSink(path)
    sink.write(numbered(1))
    sink.close()
    cut, line = path.read_bytes().splitlines()
    assert cut == b'{"cut'
    assert json.loads(line)["src"] == "192.0.2.1"


def test_jsonl_is_readable_by_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        JsonlSink(tmp_path / "events").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "events").stat().st_mode) == 0o640


def test_jsonl_rotates_before_it_grows_beyond_and_keeps_so_many(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_bytes=2 * LINE_BYTES, keep=2))
    for number in range(1, 8):
        sink.write(numbered(number))
    sink.close()
    assert sources(path) == ["7"]
    assert sources(tmp_path / "events.1") == ["5", "6"]
    assert sources(tmp_path / "events.2") == ["3", "4"]
    assert len(list(tmp_path.iterdir())) == 3


def test_jsonl_rotates_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_bytes=3 * LINE_BYTES + 7, keep=5))
    sink.write(numbered(*range(1, 9)))
    sink.close()
    found = [sources(tmp_path / name) for name in ("events.2", "events.1", "events")]
    assert found == [["1", "2", "3"], ["4", "5", "6"], ["7", "8"]]


def test_jsonl_keeps_nothing_where_told_so(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_bytes=LINE_BYTES, keep=0))
    sink.write(numbered(1, 2, 3))
    sink.close()
    assert sources(path) == ["3"]
    assert len(list(tmp_path.iterdir())) == 1


def test_jsonl_gives_a_line_that_is_too_long_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_bytes=10, keep=1))
    sink.write(numbered(1, 2))
    sink.close()
    assert (sources(tmp_path / "events.1"), sources(path)) == (["1"], ["2"])


@pytest.mark.parametrize("move", ["rename", "remove"])
def test_jsonl_follows_its_name_where_another_process_moves_the_file(
    tmp_path: Path, move: str
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path)
    sink.write(numbered(1))
    path.rename(tmp_path / "moved") if move == "rename" else path.unlink()
    sink.write(numbered(2))
    sink.close()
    assert sources(path) == ["2"]


def test_jsonl_on_a_full_disk_keeps_whole_lines_and_tells_what_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path)
    sink.write(numbered(1))
    room = [100]

    def write(fd: int, data: Any) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = bytes(data[: room[0]])
        room[0] -= len(part)
        return real_write(fd, part)

    real_write = os.write
    monkeypatch.setattr(rotation.os, "write", write)
    with pytest.raises(SinkError, match="No space left on device") as error:
        sink.write(numbered(2, 3, 4))
    assert (error.value.lost, error.value.left) == (0, 3)
    assert sources(path) == ["1"]
    room[0] = 1 << 20
    sink.write(numbered(5))
    sink.close()
    assert sources(path) == ["1", "5"]


def test_jsonl_that_fails_behind_a_rotation_counts_only_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_bytes=2 * LINE_BYTES, keep=3))

    def no_more(old: object, new: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(rotation.os, "replace", no_more)
    with pytest.raises(SinkError) as error:
        sink.write(numbered(1, 2, 3, 4, 5))
    assert (error.value.lost, error.value.left) == (0, 3)
    sink.close()
    assert sources(path) == ["1", "2"]


def test_jsonl_that_cannot_be_opened_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(XdpgwError, match=f"cannot open the log {tmp_path}/no/events"):
        JsonlSink(tmp_path / "no" / "events")


def test_jsonl_without_a_file_is_refused() -> None:
    with pytest.raises(XdpgwError, match="needs a file"):
        sinks.make(SinkSettings("jsonl"))


def test_jsonl_takes_its_options(tmp_path: Path) -> None:
    options = {"max_bytes": LINE_BYTES, "keep": 1}
    sink = sinks.make(SinkSettings("jsonl", tmp_path / "events", options))
    sink.write(numbered(1, 2, 3))
    sink.close()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["events", "events.1"]


# Age


SECOND_NS = 1_000_000_000
DATED_NS = 1_700_000_000 * SECOND_NS  # the second of the events of `batches`


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The wall clock, to be set: its one element is the time in ns."""
    now = [DATED_NS]
    monkeypatch.setattr(rotation.time, "time_ns", lambda: now[0])
    return now


def test_jsonl_rotates_a_file_that_is_old(tmp_path: Path, clock: list[int]) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_age_ns=60 * SECOND_NS))
    sink.write(numbered(1))
    clock[0] += 59 * SECOND_NS
    sink.write(numbered(2))
    clock[0] += SECOND_NS
    sink.write(numbered(3))
    sink.close()
    assert (sources(tmp_path / "events.1"), sources(path)) == (["1", "2"], ["3"])


def test_jsonl_rotates_an_old_file_without_an_event_but_never_an_empty_one(
    tmp_path: Path, clock: list[int]
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_age_ns=60 * SECOND_NS))
    sink.write(numbered(1))
    for _ in range(3):
        clock[0] += 60 * SECOND_NS
        sink.flush()
    sink.close()
    assert path.read_bytes() == b""
    assert sources(tmp_path / "events.1") == ["1"]
    assert len(list(tmp_path.iterdir())) == 2


def test_jsonl_knows_the_age_of_a_file_from_an_earlier_process(
    tmp_path: Path, clock: list[int]
) -> None:
    path = tmp_path / "events"
    first = JsonlSink(path)
    first.write(numbered(1))
    first.close()
    clock[0] += 60 * SECOND_NS
    second = JsonlSink(path, Limits(max_age_ns=60 * SECOND_NS))
    second.write(numbered(2))
    second.close()
    assert (sources(tmp_path / "events.1"), sources(path)) == (["1"], ["2"])


def test_jsonl_does_not_rotate_for_a_clock_that_was_set_back(
    tmp_path: Path, clock: list[int]
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_age_ns=60 * SECOND_NS))
    for number, step in enumerate((0, -86400, 59), 1):
        clock[0] += step * SECOND_NS
        sink.write(numbered(number))
    assert sources(path) == ["1", "2", "3"]
    clock[0] += SECOND_NS
    sink.write(numbered(4))
    sink.close()
    assert sources(path) == ["4"]


def test_jsonl_that_cannot_rotate_when_idle_says_so(
    tmp_path: Path, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_age_ns=SECOND_NS))
    sink.write(numbered(1))
    clock[0] += 60 * SECOND_NS

    def no_more(old: object, new: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch, pytest.raises(SinkError, match="cannot rotate") as error:
        patch.setattr(rotation.os, "replace", no_more)
        sink.flush()
    assert (error.value.lost, error.value.left) == (0, 0)
    sink.flush()
    sink.close()
    assert sources(tmp_path / "events.1") == ["1"]


# gzip


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def unpacked(path: Path) -> list[str]:
    return [json.loads(x)["src"].split(".")[-1] for x in content(path).splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(x.name for x in folder.iterdir())


def test_jsonl_compresses_old_files_and_keeps_so_many(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_bytes=LINE_BYTES, keep=3), gzip=True)
    for number in range(1, 9):
        sink.write(numbered(number))
        if number > 1:
            until((tmp_path / "events.1.gz").exists, "a compressed file")
            until(lambda: not (tmp_path / "events.1").exists(), "the plain one gone")
    sink.close()
    assert names(tmp_path) == ["events", "events.1.gz", "events.2.gz", "events.3.gz"]
    assert sources(path) == ["8"]
    assert [unpacked(tmp_path / f"events.{n}.gz") for n in (1, 2, 3)] == [["7"], ["6"], ["5"]]
    assert stat.S_IMODE((tmp_path / "events.1.gz").stat().st_mode) == 0o640


def test_jsonl_loses_no_line_while_files_rotate_and_are_compressed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_bytes=60 * LINE_BYTES, keep=200), gzip=True)
    for number in range(2000):
        sink.write(batch(*[{"src": f"10.0.{number >> 8}.{number & 255}"}] * 3))
    sink.close()
    found = []
    for file in sorted(tmp_path.iterdir(), key=age, reverse=True):
        data = content(file)
        found += [json.loads(line)["src"] for line in data.splitlines()]
    assert found == [f"10.0.{n >> 8}.{n & 255}" for n in range(2000) for _ in range(3)]


def age(path: Path) -> int:
    number = path.name.removeprefix("events").removesuffix(".gz").removeprefix(".")
    return int(number or 0)


def test_jsonl_takes_up_what_a_killed_process_left(tmp_path: Path) -> None:
    path = tmp_path / "events"
    line = numbered(1).json_lines()
    (tmp_path / "events.2").write_bytes(line)  # compressed already, but for the plain one
    (tmp_path / "events.2.gz").write_bytes(gzip.compress(line))
    (tmp_path / "events.3").write_bytes(line)  # not yet
    (tmp_path / ".events.gz.new").write_bytes(b"half")
    (tmp_path / ".events.new").write_bytes(b"half")
    sink = JsonlSink(path, Limits(keep=5), gzip=True)
    wanted = ["events", "events.2.gz", "events.3.gz"]
    until(lambda: [x for x in names(tmp_path) if x != ".events.new"] == wanted, "two files")
    sink.close()
    assert unpacked(tmp_path / "events.2.gz") == unpacked(tmp_path / "events.3.gz") == ["1"]


KILLED = """
import os, sys
from pathlib import Path
from tests.unit.batches import numbered
from xdpgw.rotation import Limits
from xdpgw.sinks.jsonl import JsonlSink

sink = JsonlSink(Path(sys.argv[1]), Limits(max_bytes=50_000, keep=1000), gzip=True)
for number in range(1 << 30):
    sink.write(numbered(*[number % 250] * 10))
    os.write(1, b"%d\\n" % number)
"""


def test_jsonl_killed_at_any_moment_leaves_every_line_once(tmp_path: Path) -> None:
    path = tmp_path / "events"
    told = 0
    for kill_after in (1, 40, 47, 55, 90):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(kill_after):
            process.stdout.readline()
        process.kill()
        told += kill_after + process.stdout.read().count(b"\n")
        process.wait()
        process.stdout.close()
    JsonlSink(path, Limits(keep=1000), gzip=True).close()
    count = 0
    for file in tmp_path.iterdir():
        data = content(file)
        assert file.name.startswith("events")
        assert all(json.loads(line)["src"] for line in data.splitlines())
        count += data.count(b"\n")
    assert 10 * told <= count <= 10 * (told + 5)  # of what was under way nothing was told


def test_jsonl_that_cannot_compress_says_so_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "AGAIN_S", 0.01)

    def no_more(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def said() -> str | None:
        try:
            sink.flush()
        except SinkError as error:
            return str(error)
        return None

    path = tmp_path / "events"
    with monkeypatch.context() as patch:
        patch.setattr(compression.os, "fsync", no_more)
        sink = JsonlSink(path, Limits(max_bytes=LINE_BYTES), gzip=True)
        sink.write(numbered(1, 2))
        until(said, "a complaint")
        assert said() == f"cannot compress {path}: No space left on device"
        assert sources(tmp_path / "events.1") == ["1"]
    until((tmp_path / "events.1.gz").exists, "another attempt")
    until(lambda: said() is None, "no complaint")
    sink.close()
    assert names(tmp_path) == ["events", "events.1.gz"]


# Names that are more than a file


@pytest.mark.parametrize("there", [True, False])
def test_jsonl_behind_a_link_rotates_the_file_and_not_the_link(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    if there:
        (tmp_path / "far/events").touch()
    link = tmp_path / "link"
    link.symlink_to("far/events")
    sink = JsonlSink(link, Limits(max_bytes=LINE_BYTES), gzip=True)
    sink.write(numbered(1, 2))
    until((tmp_path / "far/events.1.gz").exists, "a compressed file")
    sink.close()
    assert link.is_symlink()
    assert sources(link) == ["2"]
    assert names(tmp_path) == ["far", "link"]


def test_jsonl_into_a_pipe_never_rotates(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = JsonlSink(path, Limits(max_bytes=LINE_BYTES, max_age_ns=1))
    with path.open("rb", buffering=0) as pipe:
        for number in range(1, 4):
            sink.write(numbered(number, number))
            sink.flush()
        lines = pipe.read(65536).splitlines()
    sink.close()
    assert [json.loads(x)["src"][-1] for x in lines] == ["1", "1", "2", "2", "3", "3"]
    assert names(tmp_path) == ["pipe"]


# Another process


def test_jsonl_has_its_file_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, Limits(max_bytes=LINE_BYTES))
    for number in (1, 2):  # the second begins another file
        sink.write(numbered(number))
        with pytest.raises(XdpgwError, match="another process writes to it"):
            JsonlSink(path)
    sink.close()
    JsonlSink(path).close()
    assert (sources(tmp_path / "events.1"), sources(path)) == (["1"], ["2"])
