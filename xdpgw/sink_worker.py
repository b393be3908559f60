"""One sink behind the pump: a bounded queue, the thread that empties it, and the books of both.

What is handed to a sink is queued, written or lost, at every moment. A batch that the sink could
not take is offered again, ever less often, while what follows waits in the queue.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from xdpgw import sinks
from xdpgw.errors import XdpgwError
from xdpgw.sink_stats import SinkStats

if TYPE_CHECKING:
    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["ROOM", "LateSink", "SinkWorker"]

ROOM = 65536
"""Events that may wait for one sink, unless the policy says otherwise: some 5 MB."""
RETRY_S = 5.0
"""The longest wait between two attempts, unless the policy says otherwise."""

_FIRST_WAIT_S = 0.1
_IDLE_S = 1.0
"""Between two flushes of a sink that has nothing to write."""
_CALM_S = 10.0
"""A sink that comes and goes is told of so often at most."""
_LAST_CHANCE_S = 1.0
"""At the end, for a sink that fails."""

Say = Callable[[str], None]


class LateSink:
    """A sink that is opened when it is to write: its place is taken until then, or out of reach."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._sink: sinks.Sink | None = None
        self.name = f"{settings.kind} {settings.path or settings.options.get('to', '')}".rstrip()

    def write(self, batch: EventBatch) -> None:
        if self._sink is None:
            try:
                self._sink = sinks.make(self._settings)
            except XdpgwError as error:
                raise sinks.SinkError(str(error), error.hint, left=len(batch)) from error
        self._sink.write(batch)

    def flush(self) -> None:
        if self._sink is not None:
            self._sink.flush()

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()


class SinkWorker:
    """A sink, the queue before it and the thread that empties it."""

    def __init__(
        self,
        sink: sinks.Sink,
        say: Say,
        *,
        room: int = ROOM,
        retry_s: float = RETRY_S,
        after: SinkWorker | None = None,
    ) -> None:
        """Start the thread.

        Args:
            sink: is closed with the worker.
            say: takes a sentence, from any thread.
            room: events that may wait; what comes beyond is lost.
            retry_s: the longest wait between two attempts.
            after: writes to the same place, and is waited for.
        """
        self.sink = sink
        self._say = say
        self._room = room
        self._retry_s = retry_s
        self._after = after
        self._queue: deque[EventBatch] = deque()
        self._waiting = 0  # events in the queue
        self._held = 0  # events that the sink is at
        self._written = self._lost = 0
        self._troubles: dict[str, str] = {}  # what it cannot do now, and why
        self._failing_since_ns: int | None = None
        self._lagging_at = self._told_at = float("-inf")
        self._lagging = self._told = self._gone = False
        self._end_at: float | None = None  # when it stops: the last moment to write
        self._give_up_at = 0.0
        self.ended = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
        self._thread.start()

    # For who has events. None of it waits for the sink.

    @property
    def stats(self) -> SinkStats:
        """The books, at one moment."""
        with self._changed:
            return SinkStats(
                self.sink.name,
                self._written,
                self._lost,
                self._waiting + self._held,
                next(iter(self._troubles.values()), None),
                self._failing_since_ns,
            )

    def put(self, batch: EventBatch) -> None:
        """Queue a batch, or lose it where there is no room."""
        word = None
        with self._changed:
            full = self._waiting > 0 and self._waiting + len(batch) > self._room
            if full or self._gone:
                self._lost += len(batch)
            else:
                self._queue.append(batch)
                self._waiting += len(batch)
                self._changed.notify()
            if full:
                word = None if self._lagging else self._lag_word()
                self._lagging, self._lagging_at = True, time.monotonic()
            elif self._lagging and time.monotonic() - self._lagging_at >= _CALM_S:
                self._lagging = False
                word = f"the sink {self.sink.name} keeps up again; it has lost {self._lost} events"
        if word:
            self._say(word)

    def _lag_word(self) -> str:
        why = "has no room for more" if self._troubles else "is too slow"
        return f"the sink {self.sink.name} {why}: it loses events"

    def stop(self, grace_s: float) -> None:
        """Write what waits, then close the sink; see `reap`.

        Args:
            grace_s: for all of that, or what is left of an earlier grace; a sink that fails gets a
                second of it at most.
        """
        now = time.monotonic()
        with self._changed:
            if self._end_at is None or now + grace_s < self._end_at:
                self._end_at = now + grace_s
                self._give_up_at = now + min(grace_s / 2, _LAST_CHANCE_S)
                self._changed.notify()

    def join(self) -> None:
        """Wait until a worker that stops has ended, or its time is over."""
        assert self._end_at is not None
        self.ended.wait(max(0.0, self._end_at - time.monotonic()))
        self.reap()

    def reap(self) -> bool:
        """Leave behind a worker whose time is over; whether it has ended."""
        if self.ended.is_set():
            return True
        if self._end_at is None or time.monotonic() < self._end_at:
            return False
        with self._changed:
            left = self._waiting + self._held
            self._lost += left
            self._waiting = self._held = 0
            self._queue.clear()
            self.ended.set()  # from here on the books stand
        what = f"its last {left} events are lost" if left else "it was left behind"
        self._say(f"the sink {self.sink.name} is stuck: {what}")
        return True

    # The thread.

    def _run(self) -> None:
        try:
            if self._after is not None:
                self._after.ended.wait()
            while (batch := self._next()) is not None:
                self._write_all(batch)
        finally:
            self._guarded(self.sink.close)
            self.ended.set()

    def _next(self) -> EventBatch | None:
        """The next batch, with flushes until there is one; None when it is time to stop."""
        while True:
            if not self._queue and not self._gone and self._guarded(self.sink.flush):
                self._note_trouble("flush", None)
            with self._changed:
                self._changed.wait_for(
                    lambda: self._queue or self._end_at is not None,
                    None if self._gone else _IDLE_S,
                )
                if self._queue:
                    batch = self._queue.popleft()
                    self._waiting -= len(batch)
                    self._held = len(batch)
                    return batch
                if self._end_at is not None:
                    return None

    def _write_all(self, batch: EventBatch) -> None:
        """Offer a batch until it is written or lost."""
        wait_s = _FIRST_WAIT_S
        while True:
            left = self._offer(batch)
            if not left:
                return
            if left < len(batch):
                wait_s = _FIRST_WAIT_S
            if not self._pause(wait_s):
                self._give_up()
                return
            batch = batch.last(left)
            wait_s = min(2 * wait_s, self._retry_s)

    def _offer(self, batch: EventBatch) -> int:
        """Offer a batch once. Returns the events that are left of it."""
        size = len(batch)
        if self._gone:
            self._book(lost=size)
            return 0
        try:
            self.sink.write(batch)
        except sinks.SinkGoneError as error:
            self._gone = True
            self._book(lost=size)
            self._note_trouble("write", str(error))
            return 0
        except Exception as error:
            # Of what raised something else nobody knows what it took.
            told = error if isinstance(error, sinks.SinkError) else sinks.SinkError("", lost=size)
            lost = min(told.lost, size)
            left = min(told.left, size - lost)
            self._book(size - lost - left, lost)
            self._note_trouble("write", _why(error))
            self._say_failing("fails; events wait for it" if left else "fails and loses events")
            return left
        self._book(size)
        self._note_trouble("write", None)
        return 0

    def _book(self, written: int = 0, lost: int = 0) -> None:
        with self._changed:
            if not self.ended.is_set():  # else it was left behind, and they are lost already
                self._held -= written + lost
                self._written += written
                self._lost += lost

    def _give_up(self) -> None:
        """Lose what is left of the batch, and what waits."""
        with self._changed:
            self._held += self._waiting
            self._waiting = 0
            self._queue.clear()
            self._book(lost=self._held)

    def _pause(self, seconds: float) -> bool:
        """Wait before another attempt; False if there is to be none."""
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: self._end_at is not None, seconds)
            if self._end_at is None:
                return True
            end = min(until, time.monotonic() + _FIRST_WAIT_S, self._give_up_at)
            while (now := time.monotonic()) < end:
                self._changed.wait(end - now)
            return end < self._give_up_at

    def _guarded(self, call: Callable[[], None]) -> bool:
        """Flush or close; whether it went well."""
        try:
            call()
            return True
        except sinks.SinkGoneError as error:
            self._gone = True
            self._note_trouble("write", str(error))
        except Exception as error:
            self._note_trouble("flush", _why(error))
            self._say_failing("has trouble")
        return False

    # What a person is told: once when it begins, and once when it is over.

    def _note_trouble(self, what: str, why: str | None) -> None:
        with self._changed:
            if why is None:
                self._troubles.pop(what, None)
            else:
                self._troubles[what] = why
            if self._troubles:
                self._failing_since_ns = self._failing_since_ns or time.time_ns()
                return
            self._failing_since_ns = None
            told, self._told, lost = self._told, False, self._lost
            if told:
                self._lagging = False  # which is told with it
        if told:
            self._say(f"the sink {self.sink.name} is well again; it has lost {lost} events so far")

    def _say_failing(self, how: str) -> None:
        now = time.monotonic()
        if not self._told and now - self._told_at >= _CALM_S:
            self._told, self._told_at = True, now
            self._say(f"the sink {self.sink.name} {how}: {self.stats.failing}")


def _why(error: Exception) -> str:
    return str(error) or repr(error)
