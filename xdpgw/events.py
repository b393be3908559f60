"""Events on their way out of the kernel: ring buffer -> `EventReader` -> `Pump` -> sinks.

Records are moved in C, many a call, into one numpy array; nothing here runs Python once an event. A
`Pump` gives each sink a thread and a bounded queue, so that the ring is drained at its own pace
whatever a sink does: a slow one loses events, counted, and holds up nobody.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Self

from xdpgw import sinks
from xdpgw._native import ffi, lib
from xdpgw.errors import XdpgwError
from xdpgw.handles import checked
from xdpgw.maps import Map, pointer_to
from xdpgw.sink_worker import RETRY_S, ROOM, LateSink, SinkWorker

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.config import SinkSettings
    from xdpgw.pcapng import PcapngFile
    from xdpgw.sink_stats import SinkStats

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
OpenedSinks = list[tuple["SinkSettings", sinks.Sink | None]]
"""The sinks of a policy; None for one that is open already."""

GRACE_S = 5.0
"""For what waits when a sink is closed."""


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

    def over(self, older: Names) -> Names:
        """The same, and what slots were called that have no name any more."""
        return Names(_over(self.ports, older.ports), _over(self.rules, older.rules))

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


def _over(names: Sequence[str | None], older: Sequence[str | None]) -> Iterator[str | None]:
    return (y if x is None else x for x, y in zip_longest(names, older))


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

    def last(self, count: int) -> EventBatch:
        """The last events of it, at least one and at most all."""
        return replace(self, events=self.events[-count:])

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

    def capture(self, file: PcapngFile, names: Names, most: int) -> int:
        """Move records of a capture (`tap.Tap`), each with a frame, to a file; never waits.

        Returns:
            how many, `most` at most.
        """
        n = lib.xg_events_capture(
            self._handle(), file.handle, names.native, realtime_offset_ns(), most
        )
        return checked(n, "moving frames into a file")

    def wait(self, timeout_ms: int) -> bool:
        """Whether there is a record, after that long at most. A signal ends the wait."""
        ready = lib.xg_events_wait(self._handle(), timeout_ms)
        if ready < 0 and ready != -errno.EINTR:
            checked(ready, "waiting for events")
        return bool(ready > 0)

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

    def __init__(
        self, to: Iterable[sinks.Sink] = (), *, on_error: Complain, room: int = ROOM
    ) -> None:
        """Start the sinks' threads.

        Args:
            to: the sinks; they are closed with the pump.
            on_error: takes a sentence when a sink begins to fail, to lag, or is well again; called
                from any thread.
            room: events that may wait for one of these; what comes beyond is lost to it.
        """
        self._say = on_error
        self._workers: list[tuple[SinkSettings | None, SinkWorker]] = [
            (None, SinkWorker(sink, on_error, room=room)) for sink in to
        ]
        self._leaving: list[SinkWorker] = []
        self._closed = False

    @classmethod
    def of(cls, settings: Iterable[SinkSettings], *, on_error: Complain) -> Pump:
        """A pump into the sinks of a policy.

        Raises:
            XdpgwError: one cannot be opened; then none is.
        """
        pump = cls(on_error=on_error)
        pump.change(settings)
        return pump

    def change(self, settings: Iterable[SinkSettings], *, strict: bool = True) -> None:
        """Write to the sinks of another policy: `opening`, then `take`."""
        with self.opening(settings, strict=strict) as opened:
            self.take(opened)

    @contextmanager
    def opening(
        self, settings: Iterable[SinkSettings], *, strict: bool = True
    ) -> Iterator[OpenedSinks]:
        """Open the sinks of a policy, as far as they are not open, for `take`; those that it did
        not take are closed in the end.

        Args:
            strict: raise where one cannot be opened, instead of trying again later.

        Raises:
            XdpgwError: one cannot be opened.
        """
        opened: OpenedSinks = []
        try:
            for setting in settings:
                opened.append((setting, self._open(setting, strict)))
            yield opened
        finally:
            for _, sink in opened:
                if sink is not None:
                    sink.close()

    def _open(self, setting: SinkSettings, strict: bool) -> sinks.Sink | None:
        for before, _ in self._workers:
            if before == setting:
                return None
            if before is not None and before.place == setting.place:
                return LateSink(setting)
        try:
            return sinks.make(setting)
        except XdpgwError as error:
            if strict:
                raise
            self._say(f"{error}; it is tried again when there are events")
            return LateSink(setting)

    def take(self, opened: OpenedSinks) -> None:
        """Write to these sinks from now on. One that stays keeps its queue, its file and its books;
        one that goes writes what waits first, and nothing waits for it."""
        before, self._workers = self._workers, []
        for setting, sink in opened:
            kept = next((x for x in before if x[0] == setting), None)
            if kept is not None:
                before.remove(kept)
                self._workers.append(kept)
            elif sink is not None:
                at_place = (x for y, x in before if y is not None and y.place == setting.place)
                self._workers.append((setting, self._start(setting, sink, next(at_place, None))))
        opened.clear()
        for _, worker in before:
            worker.stop(GRACE_S)
            self._leaving.append(worker)

    def _start(
        self, setting: SinkSettings, sink: sinks.Sink, after: SinkWorker | None
    ) -> SinkWorker:
        options = setting.options
        return SinkWorker(
            sink,
            self._say,
            room=options.get("queue", ROOM),
            retry_s=options["retry"] / 1e9 if "retry" in options else RETRY_S,
            after=after,
        )

    def feed(self, reader: EventReader, names: Names, *, timeout_ms: int) -> int:
        """Drain once and hand over what came. Returns the number of events."""
        return self.hand_over(reader.drain(timeout_ms), names)

    def hand_over(self, events: NDArray[np.void], names: Names) -> int:
        """Hand what a reader drained to all sinks; never waits. Returns the number of events."""
        import numpy as np

        if len(events):
            # The reader's array is written again before a slow sink has read it. By way of bytes,
            # as numpy copies structs member by member.
            kept = np.frombuffer(events.tobytes(), events.dtype)
            self.put(EventBatch(kept, names, realtime_offset_ns()))
        if self._leaving:
            self._reap()
        return len(events)

    def put(self, batch: EventBatch) -> None:
        """Hand a batch to all sinks; never waits."""
        for _, worker in self._workers:
            worker.put(batch)

    @property
    def stats(self) -> list[SinkStats]:
        """The books of all sinks."""
        return [worker.stats for _, worker in self._workers]

    @property
    def lost(self) -> Mapping[str, int]:
        """Events that each sink did not take, by its name."""
        return {books.name: books.lost for books in self.stats}

    def close(self, grace_s: float = GRACE_S) -> None:
        """Let the sinks write what waits, then close them; twice is fine.

        Args:
            grace_s: seconds for all of them; what a stuck sink then still holds is lost.
        """
        if self._closed:
            return
        self._closed = True
        workers = [*self._leaving, *(worker for _, worker in self._workers)]
        for worker in workers:
            worker.stop(grace_s)
        for worker in workers:
            worker.join()
        self._reap()

    def _reap(self) -> None:
        ended = [worker for worker in self._leaving if worker.reap()]
        for worker in ended:
            self._leaving.remove(worker)
            if lost := worker.stats.lost:
                self._say(f"the sink {worker.sink.name}, which left, lost {lost} events")

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
