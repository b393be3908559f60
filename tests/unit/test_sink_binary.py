"""The sink binary: segments, their heads, and who maps them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xdpgw import _abi as abi
from xdpgw import rotation, sinks
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.events import EventBatch, Names
from xdpgw.rotation import Limits
from xdpgw.sinks import binary
from xdpgw.sinks.binary import BinarySink

from .batches import NAMES, NOON_NS, batch, numbered

RECORD = abi.event_dtype().itemsize


def written(path: Path, *batches: EventBatch, limits: Limits | None = None) -> Path:
    sink = BinarySink(path, limits)
    for each in batches:
        sink.write(each)
    sink.close()
    return path


def last_bytes(path: Path) -> list[int]:
    """The last number of each IPv4 source."""
    return [int(x) for x in binary.read(path)["src"][:, 3]]


def test_binary_records_are_the_events_with_the_time_of_the_wall(tmp_path: Path) -> None:
    given = batch({"src": "192.0.2.9", "sport": 7}, {"family": 6, "src": "2001:db8::1"})
    events = binary.read(written(tmp_path / "events", given))
    assert isinstance(events, np.memmap)
    assert events.dtype == abi.event_dtype()
    assert events["ts_ns"].tolist() == [NOON_NS, NOON_NS]
    for name in given.events.dtype.names or ():
        if name != "ts_ns":
            assert (events[name] == given.events[name]).all(), name
    with pytest.raises(ValueError, match="read-only"):
        events["port"] = 1


def test_binary_time_is_right_over_a_clock_that_was_set(tmp_path: Path) -> None:
    late = batch({"ts_ns": 5})
    early = EventBatch(late.events, NAMES, -3)
    events = binary.read(written(tmp_path / "events", late, early))
    assert events["ts_ns"].tolist() == [5 + NOON_NS - 1, 2]


def test_binary_head_names_the_slots(tmp_path: Path) -> None:
    header = binary.read_header(written(tmp_path / "events", numbered(1)))
    assert (header.ports, header.rules) == (NAMES.ports, NAMES.rules)
    assert header.realtime_offset_ns == NOON_NS - 1
    assert header.itemsize == RECORD


def test_binary_appends_to_a_segment_with_the_same_names(tmp_path: Path) -> None:
    path = tmp_path / "events"
    written(path, numbered(1))
    written(path, numbered(2))
    assert last_bytes(path) == [1, 2]
    assert len(list(tmp_path.iterdir())) == 1


def test_binary_begins_a_segment_where_the_names_are_others(tmp_path: Path) -> None:
    path = tmp_path / "events"
    others = EventBatch(numbered(3).events, Names(["wan"], ["x"]), 0)
    written(path, numbered(1, 2), others, numbered(4))
    found = [tmp_path / name for name in ("events.2", "events.1", "events")]
    assert [last_bytes(x) for x in found] == [[1, 2], [3], [4]]
    assert [binary.read_header(x).ports for x in found] == [NAMES.ports, ("wan",), NAMES.ports]


def test_binary_before_the_first_event_is_an_empty_segment(tmp_path: Path) -> None:
    path = written(tmp_path / "events")
    assert len(binary.read(path)) == 0
    assert binary.read(path).dtype == abi.event_dtype()
    written(path, numbered(1))
    assert last_bytes(path) == [1]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("cut", [1, RECORD - 1, RECORD, RECORD + 1])
def test_binary_ignores_half_a_record_and_goes_on_behind_whole_ones(
    tmp_path: Path, cut: int
) -> None:
    path = written(tmp_path / "events", numbered(1, 2, 3))
    os.truncate(path, path.stat().st_size - cut)
    left = [1, 2] if cut <= RECORD else [1]
    assert last_bytes(path) == left
    written(path, numbered(9))
    assert last_bytes(path) == [*left, 9]


@pytest.mark.parametrize("size", [0, 5, 16, 40])
def test_binary_file_that_is_no_segment_is_kept_and_another_begun(
    tmp_path: Path, size: int
) -> None:
    path = written(tmp_path / "events", numbered(1))
    os.truncate(path, size)
    with pytest.raises(XdpgwError, match="is no segment of events"):
        binary.read(path)
    written(path, numbered(2))
    assert last_bytes(path) == [2]
    assert (tmp_path / "events.1").stat().st_size == size


@pytest.mark.parametrize("at", [0, 8, 12, 20])
def test_binary_head_that_is_damaged_is_no_segment(tmp_path: Path, at: int) -> None:
    path = written(tmp_path / "events", numbered(1))
    data = bytearray(path.read_bytes())
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(XdpgwError, match="is no segment of events"):
        binary.read(path)


def test_binary_segment_of_another_layout_is_read_by_what_its_head_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    layout: Any = {"names": ["ts_ns", "x"], "formats": ["<u8", ("<u1", (2,))], "itemsize": 16}
    layout["offsets"] = [0, 8]
    made = binary.Header(layout, (), (), 0, 1)
    path.write_bytes(made.encode() + np.array([(7, [1, 2])], np.dtype(layout)).tobytes())
    events = binary.read(path)
    assert (events["ts_ns"].tolist(), events["x"].tolist()) == ([7], [[1, 2]])
    written(path, numbered(5))
    assert last_bytes(path) == [5]
    assert binary.read(tmp_path / "events.1")["ts_ns"].tolist() == [7]


def test_binary_rotates_before_it_grows_beyond(tmp_path: Path) -> None:
    path = tmp_path / "events"
    head = len(written(path).read_bytes())
    big = len(written(tmp_path / "other", numbered(1)).read_bytes()) - RECORD
    assert head <= big
    limits = Limits(max_bytes=big + 3 * RECORD + 5, keep=2)
    written(path, numbered(*range(1, 9)), limits=limits)
    found = [last_bytes(tmp_path / x) for x in ("events.2", "events.1", "events")]
    assert found == [[1, 2, 3], [4, 5, 6], [7, 8]]


def test_binary_rotates_by_age_also_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [10**18]
    for module in (rotation, binary):
        monkeypatch.setattr(module.time, "time_ns", lambda: now[0])
    path, limits = tmp_path / "events", Limits(max_age_ns=60 * 10**9)
    written(path, numbered(1), limits=limits)
    now[0] += 59 * 10**9
    written(path, numbered(2), limits=limits)
    now[0] += 10**9
    written(path, numbered(3), limits=limits)
    assert (last_bytes(tmp_path / "events.1"), last_bytes(path)) == ([1, 2], [3])


def test_binary_is_mapped_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = BinarySink(path)
    sink.write(numbered(1))
    early = binary.read(path)
    sink.write(numbered(*range(2, 200)))
    assert len(early) == 1
    assert last_bytes(path) == list(range(1, 200))
    sink.close()
    assert int(early["src"][0, 3]) == 1


def test_binary_full_disk_keeps_whole_records_that_a_reader_has_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    sink = BinarySink(path)
    sink.write(numbered(1))
    room = [2 * RECORD + 10]

    def write(fd: int, data: Any) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        part = bytes(data[: room[0]])
        room[0] -= len(part)
        return real_write(fd, part)

    real_write = os.write
    with monkeypatch.context() as patch, pytest.raises(sinks.SinkError) as error:
        patch.setattr(rotation.os, "write", write)
        sink.write(numbered(2, 3, 4, 5))
    assert (error.value.lost, error.value.left) == (0, 2)
    assert last_bytes(path) == [1, 2, 3]
    sink.write(numbered(4, 5))
    sink.close()
    assert last_bytes(path) == [1, 2, 3, 4, 5]


def test_binary_is_readable_by_owner_and_group(tmp_path: Path) -> None:
    path = written(tmp_path / "events", numbered(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_binary_without_a_file_is_refused() -> None:
    with pytest.raises(XdpgwError, match="needs a file"):
        sinks.make(SinkSettings("binary"))


def test_binary_of_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(XdpgwError, match="no: No such file"):
        binary.read(tmp_path / "no")
