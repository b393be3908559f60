"""`EventReader` on a ring buffer of the kernel, written by a BPF program in test runs."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from xdpgw import _abi as abi
from xdpgw.errors import KernelError
from xdpgw.events import EventReader, ReaderStats
from xdpgw.kernel import BpfObject, Map, Program

from .toolchain import bpf_object

NOTHING, SUBMIT, DISCARD, SHORT = range(4)  # enum tiny_wish
RECORD_BYTES = 8 + 72
RING_BYTES = 65536


@pytest.fixture
def tiny() -> Iterator[BpfObject]:
    with BpfObject(bpf_object("bpf/tiny.bpf.c"), name="tiny") as obj:
        obj.load()
        yield obj


@pytest.fixture
def program(tiny: BpfObject) -> Program:
    return tiny.program("tiny")


@pytest.fixture
def reader(tiny: BpfObject) -> Iterator[EventReader]:
    with EventReader(tiny.map("events")) as reader:
        yield reader


def frame(wish: int, number: int = 0) -> bytes:
    event: Any = np.zeros(1, abi.event_dtype())
    event["ts_ns"], event["queue"] = number, number % 7
    return bytes([wish]) + bytes(13) + event.tobytes()


def test_drain_gives_the_program_s_records_in_order(program: Program, reader: EventReader) -> None:
    program.test_many([frame(SUBMIT, number) for number in range(5)])
    events = reader.drain()
    assert events["ts_ns"].tolist() == [0, 1, 2, 3, 4]
    assert events["queue"].tolist() == [0, 1, 2, 3, 4]
    assert len(reader.drain()) == 0


def test_drain_counts_discarded_and_malformed_records(
    program: Program, reader: EventReader
) -> None:
    wishes = [SUBMIT, DISCARD, SHORT, SHORT, NOTHING, SUBMIT]
    program.test_many([frame(wish, number) for number, wish in enumerate(wishes)])
    assert reader.drain()["ts_ns"].tolist() == [0, 5]
    assert reader.stats == ReaderStats(events=2, discarded=1, malformed=2)
    assert reader.used_bytes == 0


def test_drain_takes_one_capacity_at_a_time(tiny: BpfObject, program: Program) -> None:
    program.test_many([frame(SUBMIT, number) for number in range(7)])
    with EventReader(tiny.map("events"), capacity=3) as reader:
        assert reader.used_bytes == 7 * RECORD_BYTES
        assert [len(reader.drain()) for _ in range(4)] == [3, 3, 1, 0]
        assert reader.size_bytes == RING_BYTES


def test_full_ring_takes_records_again_after_a_drain(program: Program, reader: EventReader) -> None:
    room = (RING_BYTES - 1) // RECORD_BYTES
    program.test_many([frame(SUBMIT, number) for number in range(room + 100)])
    assert reader.drain()["ts_ns"].tolist() == list(range(room))
    program.test_many([frame(SUBMIT, 7)])
    assert reader.drain()["ts_ns"].tolist() == [7]


def test_ring_wraps_many_times_without_loss(program: Program, reader: EventReader) -> None:
    seen = []
    for start in range(0, 20000, 500):
        program.test_many([frame(SUBMIT, number) for number in range(start, start + 500)])
        seen += reader.drain()["ts_ns"].tolist()
    assert seen == list(range(20000))
    assert reader.stats == ReaderStats(events=20000, discarded=0, malformed=0)


def test_wait_ends_with_the_first_event(program: Program, reader: EventReader) -> None:
    writer = threading.Timer(0.05, program.test_many, [[frame(SUBMIT, 9)]])
    writer.start()
    began = time.monotonic()
    assert reader.drain(timeout_ms=30_000)["ts_ns"].tolist() == [9]
    assert time.monotonic() - began < 15
    writer.join()


def test_wait_ends_with_its_timeout(reader: EventReader) -> None:
    began = time.monotonic()
    assert len(reader.drain(timeout_ms=20)) == 0
    assert time.monotonic() - began >= 0.015


def test_wait_ends_with_a_signal_and_its_handler_runs(reader: EventReader) -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: told.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert len(reader.drain(timeout_ms=60_000)) == 0
        assert told == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_batches_go_on_where_drain_would(program: Program, reader: EventReader) -> None:
    batches = reader.batches(timeout_ms=1)
    assert len(next(batches)) == 0
    program.test_many([frame(SUBMIT, 3)])
    assert next(batches)["ts_ns"].tolist() == [3]


def test_descriptor_is_readable_while_there_are_events(
    program: Program, reader: EventReader
) -> None:
    assert select.select([reader], [], [], 0)[0] == []
    program.test_many([frame(SUBMIT)])
    assert select.select([reader], [], [], 0)[0] == [reader]
    reader.drain()
    assert select.select([reader], [], [], 0)[0] == []


def test_next_reader_gets_what_the_last_one_left(tiny: BpfObject, program: Program) -> None:
    program.test_many([frame(SUBMIT, number) for number in range(3)])
    with EventReader(tiny.map("events"), capacity=1) as first:
        assert first.drain()["ts_ns"].tolist() == [0]
    with EventReader(tiny.map("events").fileno()) as second:
        assert second.drain()["ts_ns"].tolist() == [1, 2]


def test_reader_outlives_the_map_s_descriptor() -> None:
    with BpfObject(bpf_object("bpf/tiny.bpf.c"), name="tiny") as obj:
        obj.load()
        obj.program("tiny").test_many([frame(SUBMIT, 4)])
        reader = EventReader(obj.map("events"))
    with reader:
        assert reader.drain()["ts_ns"].tolist() == [4]


def test_reader_of_a_map_that_is_no_ring_is_refused_and_leaks_nothing() -> None:
    with Map.create("array", "no_ring", key=4, value=8, entries=1) as array:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(KernelError, match="ring buffer"):
            EventReader(array)
        assert os.listdir("/proc/self/fd") == before


def test_closed_reader_says_so(tiny: BpfObject) -> None:
    reader = EventReader(tiny.map("events"))
    reader.close()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.drain()
