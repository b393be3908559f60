"""`xdpgw.events.Pump`: what a slow, failing, stuck or vanished sink does to the others: nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.net.process import until
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.events import EventBatch, Names, Pump
from xdpgw.sinks import SinkError, SinkGoneError

from .batches import NAMES, batch, numbered

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
        "the sink fake is well again; it has lost 3 events so far",
    ]


def test_what_a_sink_could_not_take_is_offered_again_in_order(said: list[str]) -> None:
    taken: list[int] = []
    troubles = [SinkError("full", left=3), SinkError("full", lost=1, left=1)]

    class Picky(FakeSink):
        def write(self, batch: EventBatch) -> None:
            numbers = batch.events["queue"].tolist()
            error = troubles.pop(0) if troubles else None
            rest = 0 if error is None else error.lost + error.left
            taken.extend(numbers[: len(numbers) - rest])
            if error is not None:
                raise error

    with Pump([Picky()], on_error=said.append) as pump:
        pump.put(batch(*({"queue": n} for n in range(4))))
        pump.put(batch({"queue": 4}))
        until(lambda: pump.stats[0].queued == 0, "all taken")
    assert taken == [0, 1, 3, 4]  # 2 is lost, as the sink said
    (books,) = pump.stats
    assert (books.written, books.lost) == (4, 1)
    assert said == [
        "the sink fake fails; events wait for it: full",
        "the sink fake is well again; it has lost 1 events so far",
    ]


def test_queue_before_a_failing_sink_is_bounded_and_its_books_add_up(said: list[str]) -> None:
    sink = FakeSink(on_write=fails(SinkError("gone", left=2)))
    with Pump([sink], on_error=said.append, room=10) as pump:
        for number in range(1, 101):
            pump.put(batch({}, {}))
            if number == 1:
                sink.wait_for_try()
            (books,) = pump.stats
            assert books.written + books.lost + books.queued == 2 * number
        assert (books.written, books.queued) == (0, 2 + 10)
        assert books.failing == "gone"
        sink.on_write = lambda: None
        until(lambda: pump.stats[0].queued == 0, "all written")
        (books,) = pump.stats
    assert (sink.taken, books.written, books.lost) == (12, 12, 188)
    assert books.failing is books.failing_since_ns is None
    assert said == [
        "the sink fake fails; events wait for it: gone",
        "the sink fake has no room for more: it loses events",
        "the sink fake is well again; it has lost 188 events so far",
    ]


def test_failing_sink_gets_a_last_chance_when_the_pump_closes(said: list[str]) -> None:
    sink = FakeSink(on_write=fails(SinkError("gone", left=2)))
    pump = Pump([sink], on_error=said.append)
    pump.put(batch({}, {}))
    pump.put(batch({}))
    sink.wait_for_try()
    sink.on_write = lambda: None
    pump.close()
    assert (pump.stats[0].written, pump.stats[0].lost) == (3, 0)


def test_failing_sink_loses_what_waits_when_the_pump_closes(said: list[str]) -> None:
    sink = FakeSink(on_write=fails(SinkError("gone", left=1)))
    pump = Pump([sink], on_error=said.append)
    for _ in range(100):
        pump.put(batch({}))
    pump.close(grace_s=0.3)
    (books,) = pump.stats
    assert (books.written, books.lost, books.queued) == (0, 100, 0)
    assert sink.closed == 1
    assert said == ["the sink fake fails; events wait for it: gone"]


def test_sink_that_comes_and_goes_is_told_of_once(said: list[str]) -> None:
    sink = FakeSink()
    with Pump([sink], on_error=said.append) as pump:
        for number in range(20):
            sink.on_write = (lambda: None) if number % 2 else fails(SinkError("full", lost=1))
            pump.put(batch({}))
            sink.wait_for_try()
    assert len(said) == 2


def test_trouble_of_a_flush_is_told_and_outlasts_writes(said: list[str]) -> None:
    sink = FakeSink()
    flush = sink.flush
    sink.flush = fails(SinkError("cannot compress"))  # type: ignore[method-assign]
    with Pump([sink], on_error=said.append) as pump:
        until(lambda: pump.stats[0].failing == "cannot compress", "a complaint")
        pump.put(batch({}))
        until(lambda: pump.stats[0].written == 1, "an event")
        assert pump.stats[0].failing == "cannot compress"
        sink.flush = flush  # type: ignore[method-assign]
        until(lambda: pump.stats[0].failing is None, "no complaint")
    assert said == [
        "the sink fake has trouble: cannot compress",
        "the sink fake is well again; it has lost 0 events so far",
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


# Another policy


def jsonl(path: Path, **options: Any) -> SinkSettings:
    return SinkSettings("jsonl", path, options)


def sources(path: Path) -> list[str]:
    return [json.loads(line)["src"] for line in path.read_bytes().splitlines()]


def test_sink_that_stays_keeps_its_thread_its_file_and_its_books(
    tmp_path: Path, said: list[str]
) -> None:
    stays, goes, comes = (jsonl(tmp_path / name) for name in ("stays", "goes", "comes"))
    with Pump.of([stays, goes], on_error=said.append) as pump:
        pump.put(numbered(1))
        threads = {x for x in threading.enumerate() if x.name.endswith("stays")}
        pump.change([comes, stays])
        pump.put(numbered(2))
        assert {x for x in threading.enumerate() if x.name.endswith("stays")} == threads
        assert [x.name.rpartition("/")[2] for x in pump.stats] == ["comes", "stays"]
        until(lambda: [x.written for x in pump.stats] == [1, 2], "what was put")
        until(lambda: sources(tmp_path / "goes") == ["192.0.2.1"], "what waited")
    assert sources(tmp_path / "stays") == ["192.0.2.1", "192.0.2.2"]
    assert sources(tmp_path / "comes") == ["192.0.2.2"]
    assert sources(tmp_path / "goes") == ["192.0.2.1"]
    assert said == []


def test_sink_with_other_options_follows_the_one_before_in_order(
    tmp_path: Path, said: list[str]
) -> None:
    path = tmp_path / "events"
    with Pump.of([jsonl(path)], on_error=said.append) as pump:
        for number in range(1, 101):
            pump.put(numbered(number))
            if number % 10 == 0:
                pump.change([jsonl(path, keep=number)])
    assert sources(path) == [f"192.0.2.{n}" for n in range(1, 101)]
    assert said == []


def test_sink_that_leaves_and_is_stuck_holds_up_nobody(said: list[str], tmp_path: Path) -> None:
    go, entered = threading.Event(), threading.Event()

    def stick() -> None:
        entered.set()
        go.wait()

    pump = Pump([FakeSink("stuck", stick)], on_error=said.append)
    pump.put(batch({}))
    assert entered.wait(DEADLINE_S)
    pump.change([jsonl(tmp_path / "events")])  # returns though the sink does not
    pump.put(numbered(1))
    until(lambda: pump.stats[0].written == 1, "the new sink")
    pump.close(grace_s=0.01)
    pump.close()
    go.set()
    assert said == [
        "the sink stuck is stuck: its last 1 events are lost",
        "the sink stuck, which left, lost 1 events",
    ]


def test_sink_that_cannot_be_opened_changes_nothing(tmp_path: Path, said: list[str]) -> None:
    with Pump.of([jsonl(tmp_path / "events")], on_error=said.append) as pump:
        before = threading.active_count()
        with pytest.raises(XdpgwError, match="cannot open"):
            pump.change([jsonl(tmp_path / "new"), jsonl(tmp_path / "no" / "events")])
        assert threading.active_count() == before
        pump.put(numbered(1))
    assert sources(tmp_path / "events") == ["192.0.2.1"]


def test_sink_that_cannot_be_opened_yet_is_opened_later(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "no"
    with Pump(on_error=said.append) as pump:
        pump.change([jsonl(folder / "events")], strict=False)
        pump.put(numbered(1))
        until(lambda: pump.stats[0].failing, "a complaint")
        folder.mkdir()
        until(lambda: pump.stats[0].written, "an event")
    assert sources(folder / "events") == ["192.0.2.1"]
    assert len(said) == 3
    assert said[0].endswith("No such file or directory; it is tried again when there are events")


def test_sinks_take_their_queue_from_the_policy(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "no"
    with Pump(on_error=said.append) as pump:
        pump.change([jsonl(folder / "events", queue=2, retry=10**9)], strict=False)
        pump.put(numbered(1))
        until(lambda: pump.stats[0].failing, "one that was tried")
        for _ in range(9):
            pump.put(numbered(1))
        assert (pump.stats[0].queued, pump.stats[0].lost) == (3, 7)
        folder.mkdir()
        until(lambda: pump.stats[0].written == 3, "all that waited")


def test_ten_sinks_of_which_some_are_bad_give_the_good_ones_all(
    tmp_path: Path, said: list[str]
) -> None:
    go = threading.Event()
    bad = [
        FakeSink("stuck", lambda: assert_set(go)),
        FakeSink("failing", fails(SinkError("full", left=1))),
        FakeSink("broken", fails(ZeroDivisionError("oops"))),
        FakeSink("left", fails(SinkGoneError("gone"))),
    ]
    good = [FakeSink(f"good{n}") for n in range(6)]
    pump = Pump([*bad, *good], on_error=said.append, room=100)
    for _ in range(2000):
        pump.put(batch({}))
        for sink in good:
            sink.wait_for_try()
    assert [sink.taken for sink in good] == [2000] * 6
    go.set()
    pump.close(grace_s=0.3)
    for books in pump.stats:
        assert (books.written + books.lost, books.queued) == (2000, 0)


def assert_set(event: threading.Event) -> None:
    assert event.wait(DEADLINE_S)


def test_names_of_slots_leaves_gaps_unnamed() -> None:
    names = Names.of(ports={"eth0": 2}, rules={})
    assert names.ports == (None, None, "eth0")
    assert [names.port(slot) for slot in (0, 2, 3)] == [None, "eth0", None]
    assert names.rule(0xFFFF) is None
