"""`xdpgw capture` and `xdpgw trace`: what a tap on a filter found, as a file or as lines."""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from xdpgw.errors import XdpgwError
from xdpgw.events import EventBatch, EventReader, Names, realtime_offset_ns
from xdpgw.pcapng import PcapngFile, Written
from xdpgw.service import Signals
from xdpgw.sinks import SinkGoneError
from xdpgw.sinks.stdout import STYLES
from xdpgw.tap import Tap, TapBooks, Wanted

if TYPE_CHECKING:
    from xdpgw.pins import Instance, Manifest

__all__ = ["Captured", "ports_and_match", "write_file", "write_lines"]

FRAME_RING_BYTES = 1 << 24
LINE_RING_BYTES = 1 << 22

CHECK_MS = 100
"""How often it is looked whether the filter was replaced."""

_RECORDS_AT_ONCE = 4096
_LAST_S = 1.0
"""A packet that another CPU is about to put down is in the ring within microseconds."""

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture brought."""

    books: TapBooks
    """Of the kernel: records in the ring, or not."""
    written: Written | None = None
    """Of the file, where there is one."""

    def as_dict(self) -> dict[str, int]:
        """The same, flat."""
        file = {} if self.written is None else {"written": self.written.frames}
        return asdict(self.books) | file

    @property
    def unwritten(self) -> int:
        """Frames that were captured and are not in the file: they could not be written, or nobody
        took them from the ring in time."""
        return 0 if self.written is None else self.books.captured - self.written.frames

    @property
    def failed(self) -> str | None:
        """Why frames are missing in the file at its end; not that its reader went."""
        if self.written is None or not self.unwritten or self.written.errno == errno.EPIPE:
            return None
        if self.written.errno:
            return os.strerror(self.written.errno)
        return "some writes failed" if self.written.lost else "it was written too slowly"

    def __str__(self) -> str:
        books = self.books
        text = (
            f"seen {books.seen} = captured {books.captured} + lost {books.lost} "
            f"+ over the rate {books.limited}"
        )
        if self.unwritten:
            text += f"; {self.unwritten} of the captured could not be written"
        return text


class _Output(Protocol):
    """Where records go."""

    def move(self, names: Names, timeout_ms: int) -> int:
        """Take what is in the ring, and wait only where nothing is. Returns how many.

        Raises:
            SinkGoneError: nobody reads any more.
        """


class _Lines:
    """Records as lines on standard output."""

    def __init__(self, reader: EventReader, *, as_json: bool) -> None:
        self._reader, self._as_json = reader, as_json

    def move(self, names: Names, timeout_ms: int) -> int:
        events = self._reader.drain(timeout_ms)
        if len(events):
            self._write(EventBatch(events, names, realtime_offset_ns()))
        else:
            _require_reader(sys.stdout.fileno())
        return len(events)

    def _write(self, batch: EventBatch) -> None:
        if self._as_json:
            text = batch.json_lines()
        else:
            text = "".join(f"{line}\n" for line in STYLES["line"](batch)).encode()
        try:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            # Keep the interpreter from flushing into it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SinkGoneError("who read the lines has gone") from error


class _Frames:
    """Records as packets of a file, moved in C."""

    def __init__(self, reader: EventReader, file: PcapngFile, to: Path | int, note: Note) -> None:
        self._reader, self._file, self._to, self._note = reader, file, to, note
        self._told = 0

    def move(self, names: Names, timeout_ms: int) -> int:
        moved = self._reader.capture(self._file, names, _RECORDS_AT_ONCE)
        if not moved and self._reader.wait(timeout_ms):
            moved = self._reader.capture(self._file, names, _RECORDS_AT_ONCE)
        if moved:
            self._tell()
        elif isinstance(self._to, int):
            _require_reader(self._to)
        return moved

    def _tell(self) -> None:
        written = self._file.written
        if written.errno == errno.EPIPE:
            raise SinkGoneError("who read the capture has gone")
        if written.errno != self._told:
            self._told = written.errno
            self._note(
                f"cannot write the capture: {os.strerror(written.errno)}; frames are lost to it "
                f"until that ends, {written.lost} so far"
                if written.errno
                else "the capture is written again"
            )


def _require_reader(fd: int) -> None:
    """Notice a reader that goes while nothing is to be written.

    Raises:
        SinkGoneError: there is none.
    """
    poll = select.poll()
    poll.register(fd, 0)  # errors and hang-ups are told unasked
    if poll.poll(0):
        raise SinkGoneError("who read the output has gone")


def write_lines(
    instance: Instance,
    manifest: Manifest,
    ports: Sequence[str],
    wanted: Wanted,
    *,
    as_json: bool,
    seconds: float | None,
    note: Note,
) -> Captured:
    """Print a line a packet until told to stop, or all that was asked for is there.

    Args:
        seconds: end after so long; None for no end.

    Raises:
        As `tap.Tap`.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(Signals().caught(printing=True))
        tap = stack.enter_context(
            Tap(instance, manifest, ports, wanted, ring_bytes=LINE_RING_BYTES, note=note)
        )
        reader = stack.enter_context(EventReader(tap.ring))
        _watch(tap, _Lines(reader, as_json=as_json), wanted.count, seconds, signals, note)
        return Captured(tap.books)


def write_file(
    instance: Instance,
    manifest: Manifest,
    port: str,
    wanted: Wanted,
    to: Path | int,
    *,
    seconds: float | None,
    note: Note,
) -> Captured:
    """Write packets to a pcapng file, as `write_lines`.

    Args:
        to: the file, or a descriptor, which is closed at the end.

    Raises:
        XdpgwError: the file cannot be written.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(Signals().caught(printing=True))
        tap = stack.enter_context(
            Tap(instance, manifest, [port], wanted, ring_bytes=FRAME_RING_BYTES, note=note)
        )
        reader = stack.enter_context(EventReader(tap.ring))
        try:
            file = PcapngFile(to, {port: manifest.port_slots[port]}, snaplen=wanted.snaplen)
        except BrokenPipeError:
            raise  # who was to read it has gone already
        except OSError as error:
            name = to if isinstance(to, Path) else "standard output"
            raise XdpgwError(f"cannot write {name}: {error.strerror}") from error
        with file:
            _watch(tap, _Frames(reader, file, to, note), wanted.count, seconds, signals, note)
            return Captured(tap.books, file.written)


def _watch(
    tap: Tap,
    output: _Output,
    count: int,
    seconds: float | None,
    signals: Signals,
    note: Note,
) -> None:
    start = checked_at = time.monotonic()
    moved = 0
    note(f"looking on at {', '.join(tap.ports)}; Ctrl-C ends")
    with suppress(SinkGoneError):
        while not (signals.stop or (count and moved >= count)):
            moved += output.move(tap.names, CHECK_MS)
            now = time.monotonic()
            if seconds is not None and now - start >= seconds:
                break
            if now - checked_at >= CHECK_MS / 1000:
                checked_at = now
                if (gone := tap.check()) is not None:
                    note(f"the filter is no longer on port {gone}")
                    break
    tap.withdraw()
    with suppress(SinkGoneError):
        _move_rest(tap, output, moved)


def _move_rest(tap: Tap, output: _Output, moved: int) -> None:
    """Take what is in the ring, and what CPUs that were at it put there still."""
    deadline = time.monotonic() + _LAST_S
    while time.monotonic() < deadline:
        books = tap.books
        if books.add_up and moved >= books.captured:
            return
        moved += output.move(tap.names, 1)


def ports_and_match(words: Sequence[str], manifest: Manifest) -> tuple[list[str], str]:
    """The ports and the match of `trace [PORT] [MATCH...]`: all ports where none is named."""
    if words and words[0] in manifest.ports:
        return [words[0]], " ".join(words[1:])
    return list(manifest.ports), " ".join(words)
