"""`xdpgw.events.Pump`: what a slow, failing, stuck or vanished sink does to the others: nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.events import EventBatch, Names, Pump
from xdpgw.sinks import SinkError, SinkGoneError

from .batches import NAMES, batch

DEADLINE_S = 10.0


class FakeSink:
    """Remembers what it was told; `on_write` is what it does first."""

    def __init__(self, name: str = "fake", on_write: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.on_write = on_write
        self.taken = self.flushed = self.closed = 0
        self.tried = threading.Semaphore(0)

    def write(self, batch: EventBatch) -> None:
        try:
            self.on_write()
            self.taken += len(batch)
        finally:
            self.tried.release()

    def flush(self) -> None:
        self.flushed = self.taken

    def close(self) -> None:
        self.closed += 1

    def wait_for_try(self) -> None:
        assert self.tried.acquire(timeout=DEADLINE_S)


class FakeReader:
    """Hands out arrays, writing over the last one as `EventReader` does."""

    def __init__(self, *sizes: int) -> None:
        self._array = batch(*[{}] * 8).events.copy()
        self._sizes = list(sizes)
        self._number = 0

    def drain(self, timeout_ms: int = 0) -> Any:
        n = self._sizes.pop(0)
        self._number += 1
        self._array["queue"] = self._number
        return self._array[:n]


@pytest.fixture
def said() -> list[str]:
    return []


def fails(error: Exception) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


def test_pump_gives_each_sink_all_events_and_closes_it(said: list[str]) -> None:
    one, two = FakeSink("one"), FakeSink("two")
    with Pump([one, two], on_error=said.append) as pump:
        for _ in range(10):
            pump.put(batch({}, {}))
    for sink in (one, two):
        assert (sink.taken, sink.flushed, sink.closed) == (20, 20, 1)
    assert pump.lost == {"one": 0, "two": 0}
    assert said == []


def test_feed_hands_over_what_the_reader_may_write_over(said: list[str]) -> None:
    seen: list[EventBatch] = []

    class Keeper(FakeSink):
        def write(self, batch: EventBatch) -> None:
            seen.append(batch)

    reader: Any = FakeReader(3, 0, 2)
    with Pump([Keeper()], on_error=said.append) as pump:
        assert [pump.feed(reader, NAMES, timeout_ms=0) for _ in range(3)] == [3, 0, 2]
    assert [x.events["queue"].tolist() for x in seen] == [[1, 1, 1], [3, 3]]
    assert seen[0].names is NAMES
    with pytest.raises(ValueError, match="read-only"):
        seen[0].events["queue"] = 0


def test_sink_is_flushed_when_there_is_nothing_to_write(said: list[str]) -> None:
    flushed = threading.Event()
    sink = FakeSink()
    sink.flush = lambda: flushed.set() if sink.taken else None  # type: ignore[method-assign]
    with Pump([sink], on_error=said.append) as pump:
        pump.put(batch({}))
        assert flushed.wait(DEADLINE_S)


def test_slow_sink_loses_events_and_holds_up_nobody(said: list[str]) -> None:
    go = threading.Event()

    def wait() -> None:
        assert go.wait(DEADLINE_S)

    slow, quick = FakeSink("slow", wait), FakeSink("quick")
    with Pump([slow, quick], on_error=said.append, room=10) as pump:
        for _ in range(100):
            pump.put(batch({}, {}))
            quick.wait_for_try()
        assert quick.taken == 200
        assert pump.lost["quick"] == 0
        lost = pump.lost["slow"]
        go.set()
    assert slow.taken + lost == 200
    assert 2 + 10 >= slow.taken >= 10  # what it held and what waited
    assert said == ["the sink slow is too slow: it loses events"]


def test_batch_larger_than_the_queue_is_taken_by_an_idle_sink(said: list[str]) -> None:
    sink = FakeSink()
    with Pump([sink], on_error=said.append, room=1) as pump:
        pump.put(batch({}, {}, {}))
    assert sink.taken == 3


def test_failing_sink_is_told_once_counted_and_may_recover(said: list[str]) -> None:
    sink = FakeSink(on_write=fails(SinkError("the disk is full", lost=1)))
    with Pump([sink], on_error=said.append) as pump:
        for _ in range(3):
            pump.put(batch({}, {}))
            sink.wait_for_try()
        sink.on_write = lambda: None
        pump.put(batch({}))
    assert sink.taken == 1
    assert pump.lost == {"fake": 3}  # one of each two, as the sink said
    assert said == [
        "the sink fake fails and loses events: the disk is full",
        "the sink fake writes again; it has lost 3 events so far",
    ]


def test_sink_with_a_bug_loses_its_batch_and_goes_on(said: list[str]) -> None:
    bad, good = FakeSink("bad", fails(ZeroDivisionError("oops"))), FakeSink("good")
    with Pump([bad, good], on_error=said.append) as pump:
        for _ in range(3):
            pump.put(batch({}, {}))
    assert pump.lost == {"bad": 6, "good": 0}
    assert good.taken == 6
    assert bad.closed == 1
    assert said == ["the sink bad fails and loses events: oops"]


def test_sink_whose_reader_has_gone_ends_in_silence(said: list[str]) -> None:
    sink = FakeSink(on_write=fails(SinkGoneError("gone")))
    with Pump([sink], on_error=said.append) as pump:
        for _ in range(3):
            pump.put(batch({}))
        sink.wait_for_try()
    assert (pump.lost, said) == ({"fake": 3}, [])
    assert not sink.tried.acquire(blocking=False)  # asked once, and never again


def test_stuck_sink_is_left_behind_after_its_grace(said: list[str]) -> None:
    go, entered = threading.Event(), threading.Event()

    def stick() -> None:
        entered.set()
        go.wait()

    pump = Pump([FakeSink("stuck", stick)], on_error=said.append)
    pump.put(batch({}))
    assert entered.wait(DEADLINE_S)
    pump.put(batch({}, {}))
    pump.close(grace_s=0.01)
    pump.close()
    assert said == ["the sink stuck is stuck: its last 3 events are lost"]
    assert pump.lost == {"stuck": 3}
    go.set()


def test_pump_of_a_policy_s_sinks_writes_to_them(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "events"
    with Pump.of([SinkSettings("jsonl", path)], on_error=said.append) as pump:
        pump.put(batch({}, {}))
    assert path.read_bytes().count(b"\n") == 2


def test_pump_opens_all_sinks_or_none(tmp_path: Path, said: list[str]) -> None:
    settings = [
        SinkSettings("jsonl", tmp_path / "events"),
        SinkSettings("jsonl", tmp_path / "no" / "events"),
    ]
    before = threading.active_count()
    with pytest.raises(XdpgwError, match="cannot open"):
        Pump.of(settings, on_error=said.append)
    assert threading.active_count() == before


def test_names_of_slots_leaves_gaps_unnamed() -> None:
    names = Names.of(ports={"eth0": 2}, rules={})
    assert names.ports == (None, None, "eth0")
    assert [names.port(slot) for slot in (0, 2, 3)] == [None, "eth0", None]
    assert names.rule(0xFFFF) is None
