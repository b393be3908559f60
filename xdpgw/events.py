"""Events on their way out of the kernel: ring buffer -> `EventReader` -> `Pump` -> sinks.

Records are moved in C, many a call, into one numpy array; nothing here runs Python once an event. A
`Pump` gives each sink a thread and a bounded queue, so that the ring is drained at its own pace
whatever a sink does: a slow one loses events, counted, and holds up nobody.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from xdpgw import sinks
from xdpgw._native import ffi, lib
from xdpgw.handles import checked
from xdpgw.maps import Map, pointer_to

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.config import SinkSettings

__all__ = [
    "EventBatch",
    "EventReader",
    "Names",
    "Pump",
    "ReaderStats",
    "formatted",
    "realtime_offset_ns",
]

Complain = Callable[[str], None]


class Names:
    """What the slots in events are called."""

    def __init__(self, ports: Iterable[str | None] = (), rules: Iterable[str | None] = ()) -> None:
        """Name slots.

        Args:
            ports: by slot; None for a slot without a name.
            rules: the same for rules.
        """
        self.ports = tuple(ports)
        self.rules = tuple(rules)
        self._native: tuple[Any, list[Any]] | None = None

    @classmethod
    def of(cls, *, ports: Mapping[str, int], rules: Mapping[str, int]) -> Names:
        """The same from slots by name."""
        return cls(_by_slot(ports), _by_slot(rules))

    def port(self, slot: int) -> str | None:
        """Name of a port; None where it has none."""
        return self.ports[slot] if slot < len(self.ports) else None

    def rule(self, slot: int) -> str | None:
        """Name of a rule; None where it has none, as NO_RULE."""
        return self.rules[slot] if slot < len(self.rules) else None

    @property
    def native(self) -> Any:
        """The names as a `struct xg_names *`, escaped for JSON; lives as long as this object."""
        if self._native is None:
            struct, owned = ffi.new("struct xg_names *"), []
            for kind, names in (("ports", self.ports), ("rules", self.rules)):
                texts = [ffi.NULL if x is None else ffi.new("char[]", _escaped(x)) for x in names]
                table = ffi.new("char *[]", texts)
                owned += [*texts, table]
                setattr(struct, kind, table)
                setattr(struct, f"n_{kind}", len(names))
            self._native = struct, owned
        return self._native[0]

    @property
    def longest_bytes(self) -> int:
        """Bytes that the names of one event take in JSON, at most."""
        return sum(
            max((len(_escaped(x)) for x in names if x is not None), default=0)
            for names in (self.ports, self.rules)
        )


def _by_slot(slots: Mapping[str, int]) -> list[str | None]:
    names: list[str | None] = [None] * (max(slots.values(), default=-1) + 1)
    for name, slot in slots.items():
        names[slot] = name
    return names


def _escaped(name: str) -> bytes:
    return json.dumps(name)[1:-1].encode()


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events with what it takes to read them. Sinks share it, so none writes to it."""

    events: NDArray[np.void]
    """Shape (n,) of `_abi.event_dtype()`, oldest first, n at least 1."""
    names: Names
    realtime_offset_ns: int
    """CLOCK_REALTIME - CLOCK_MONOTONIC: add it to ts_ns."""

    def __len__(self) -> int:
        return len(self.events)

    def json_lines(self) -> bytes:
        """One JSON object and a newline an event; unknown is null. Over a million a second."""
        import numpy as np

        events = np.ascontiguousarray(self.events)
        first, offset_ns = pointer_to(events, "struct xg_event *"), self.realtime_offset_ns
        return formatted(
            len(self) * (lib.XG_JSON_LINE_BYTES + self.names.longest_bytes),
            lambda *out: lib.xg_events_json(first, len(self), self.names.native, offset_ns, *out),
        )


def formatted(room_bytes: int, write: Callable[[Any, int, Any], int]) -> bytes:
    """What a formatter of fastpath/ makes of records that it has room for.

    Args:
        room_bytes: that all of them surely fit in.
        write: calls it with the last three arguments: out, room_bytes, consumed.
    """
    import numpy as np

    out, consumed = np.empty(room_bytes, np.uint8), ffi.new("uint32_t *")
    written = checked(write(pointer_to(out), room_bytes, consumed), "formatting events")
    return out[:written].tobytes()


@dataclass(frozen=True, slots=True)
class ReaderStats:
    """What a reader met since it opened the ring. All of it only grows."""

    events: int
    """Handed out."""
    discarded: int
    """Given up by the program after it had reserved them."""
    malformed: int
    """Of another size than the reader's records: skipped."""


class EventReader:
    """The consumer of a ring buffer of events. A ring has one; what it leaves is the next one's."""

    def __init__(
        self, ring: Map | int, capacity: int = 4096, *, record: np.dtype[np.void] | None = None
    ) -> None:
        """Map a ring.

        Args:
            ring: a map of type BPF_MAP_TYPE_RINGBUF, or its descriptor; may be closed afterwards.
            capacity: events of one batch, at most.
            record: what a record of the ring is, a dtype of `_abi`; struct xg_event if None.

        Raises:
            KernelError: it is no ring buffer (EMEDIUMTYPE).
        """
        import numpy as np

        from xdpgw import _abi

        self._out = np.zeros(capacity, _abi.event_dtype() if record is None else record)
        self._ring: Any = None
        self._fd = os.dup(ring if isinstance(ring, int) else ring.fileno())
        ring_out = ffi.new("struct xg_events **")
        try:
            err = lib.xg_events_open(self._fd, self._out.itemsize, ring_out)
            checked(err, "opening the ring buffer of events")
        except BaseException:
            os.close(self._fd)
            raise
        self._ring = ring_out[0]

    def drain(self, timeout_ms: int = 0) -> NDArray[np.void]:
        """Take what is there; where nothing is, wait; where few are, let more gather for a
        millisecond, as a batch costs about as much as a hundred events.

        Args:
            timeout_ms: how long to wait for a first event; -1 for as long as it takes. A signal
                ends the wait. 0: take what is there, at once.

        Returns:
            the events, shape (n,) of `record`, oldest first, n possibly 0: a view, valid until the
            next call.
        """
        out = pointer_to(self._out, "void *")
        n = lib.xg_events_take(self._handle(), out, len(self._out), timeout_ms)
        return self._out[: checked(n, "draining events")]

    def batches(self, timeout_ms: int = 100) -> Iterator[NDArray[np.void]]:
        """`drain` for ever: an empty one now and then, so that a loop can look around and end."""
        while True:
            yield self.drain(timeout_ms)

    @property
    def stats(self) -> ReaderStats:
        """What the reader met so far."""
        raw = ffi.new("struct xg_events_stats *")
        lib.xg_events_stats(self._handle(), raw)
        return ReaderStats(int(raw.events), int(raw.discarded), int(raw.malformed))

    @property
    def size_bytes(self) -> int:
        """Bytes of the ring."""
        return int(lib.xg_events_size_bytes(self._handle()))

    @property
    def used_bytes(self) -> int:
        """Bytes of events not drained yet, with their headers of 8 bytes each."""
        return int(lib.xg_events_used_bytes(self._handle()))

    def fileno(self) -> int:
        """A descriptor that is readable while there are events."""
        self._handle()
        return self._fd

    def close(self) -> None:
        """Unmap the ring; twice is fine."""
        ring, self._ring = self._ring, None
        if ring is not None:
            lib.xg_events_close(ring)
            os.close(self._fd)

    def _handle(self) -> Any:
        if self._ring is None:
            raise ValueError("EventReader is closed")
        return self._ring

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_ring", None) is not None:
            self.close()


class Pump:
    """Moves events from a reader to sinks, each behind a queue and a thread of its own."""

    def __init__(self, to: Iterable[sinks.Sink], *, on_error: Complain, room: int = 65536) -> None:
        """Start the sinks' threads.

        Args:
            to: the sinks; they are closed with the pump.
            on_error: takes a sentence when a sink begins to fail, to lag, or is well again; called
                from any thread.
            room: events that may wait for one sink; what comes beyond is lost to it.
        """
        self._workers = [_Worker(sink, on_error, room) for sink in to]
        self._closed = False

    @classmethod
    def of(cls, settings: Iterable[SinkSettings], *, on_error: Complain, room: int = 65536) -> Pump:
        """A pump into the sinks of a policy.

        Raises:
            XdpgwError: one cannot be opened; then none is.
        """
        made: list[sinks.Sink] = []
        try:
            for setting in settings:
                made.append(sinks.make(setting))
        except BaseException:
            for sink in made:
                sink.close()
            raise
        return cls(made, on_error=on_error, room=room)

    def feed(self, reader: EventReader, names: Names, *, timeout_ms: int) -> int:
        """Drain once and hand over what came. Returns the number of events."""
        import numpy as np

        events = reader.drain(timeout_ms)
        if len(events):
            # The reader's array is written again before a slow sink has read it. By way of bytes,
            # as numpy copies structs member by member.
            kept = np.frombuffer(events.tobytes(), events.dtype)
            self.put(EventBatch(kept, names, realtime_offset_ns()))
        return len(events)

    def put(self, batch: EventBatch) -> None:
        """Hand a batch to all sinks; never waits."""
        for worker in self._workers:
            worker.put(batch)

    @property
    def lost(self) -> Mapping[str, int]:
        """Events that each sink did not take, by its name."""
        return {worker.sink.name: worker.lost for worker in self._workers}

    def close(self, grace_s: float = 5.0) -> None:
        """Let the sinks write what waits, then close them; twice is fine.

        Args:
            grace_s: seconds for all of them; what a stuck sink then still holds is lost.
        """
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + grace_s
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join(deadline - time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def realtime_offset_ns() -> int:
    """CLOCK_REALTIME - CLOCK_MONOTONIC now, in ns; moves when the wall clock is set."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class _Worker:
    """A sink, the queue before it and the thread that empties it."""

    def __init__(self, sink: sinks.Sink, on_error: Complain, room: int) -> None:
        self.sink = sink
        self.lost = 0
        self._complain = on_error
        self._room = room
        self._queue: deque[EventBatch] = deque()
        self._waiting = 0  # events in the queue
        self._held = 0  # events that the sink is at
        self._stopping = self._lagging = self._failing = self._gone = self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
        self._thread.start()

    def put(self, batch: EventBatch) -> None:
        with self._changed:
            full = self._waiting > 0 and self._waiting + len(batch) > self._room
            begins = full and not self._lagging
            self._lagging = full
            if full or self._gone:
                self.lost += len(batch)
            else:
                self._queue.append(batch)
                self._waiting += len(batch)
                self._changed.notify()
        if begins:
            self._complain(f"the sink {self.sink.name} is too slow: it loses events")

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, seconds: float) -> None:
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            with self._changed:
                left = self._waiting + self._held
                self.lost += left
                self._abandoned = True
                self._waiting = 0
                self._queue.clear()
            self._complain(f"the sink {self.sink.name} is stuck: its last {left} events are lost")

    def _run(self) -> None:
        try:
            while (batch := self._next()) is not None:
                self._write(batch)
                self._held = 0
        finally:
            self._guarded(self.sink.close)

    def _next(self) -> EventBatch | None:
        """The next batch, after a flush where there was none; None when it is time to stop."""
        if not self._queue and not self._gone:
            self._guarded(self.sink.flush)
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            if not self._queue:
                return None
            batch = self._queue.popleft()
            self._waiting -= len(batch)
            self._held = len(batch)
            return batch

    def _write(self, batch: EventBatch) -> None:
        if self._gone:
            self._lose(len(batch))
            return
        try:
            self.sink.write(batch)
        except sinks.SinkGoneError:
            self._gone = True
            self._lose(len(batch))
        except Exception as error:
            self._lose(error.lost if isinstance(error, sinks.SinkError) else len(batch))
            self._say_failing(error)
        else:
            if self._failing:
                self._failing = False
                self._complain(
                    f"the sink {self.sink.name} writes again; it has lost {self.lost} events so far"
                )

    def _lose(self, events: int) -> None:
        with self._changed:
            if not self._abandoned:
                self.lost += events

    def _say_failing(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            self._complain(f"the sink {self.sink.name} fails and loses events: {error}")

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except sinks.SinkGoneError:
            self._gone = True
        except Exception as error:
            self._say_failing(error)
