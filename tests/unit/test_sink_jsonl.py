"""The sink jsonl: its file, its age, its old files."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from xdpgw import rotation, sinks
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.rotation import Limits
from xdpgw.sinks import SinkError
from xdpgw.sinks.jsonl import JsonlSink

from .batches import numbered


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
