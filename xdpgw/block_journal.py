"""The file that keeps blocks while no filter is in force: what was blocked and unblocked, in order.

One JSON array a line, appended and synced, so that a crash costs at most the line that was being
written:

    ["#", 1, 88]                                                  head: version, bytes of the rest
    ["+", "192.0.2.7", 1790000000000000000, 1789999400000000000, "probes"]
    ["-", "192.0.2.7"]

`+` has the end (CLOCK_REALTIME in ns, null for none), the time of the block and the reason. A line
without an end is torn and does not count; the next append cuts it off. When the file has grown to
twice what it was after it was last written anew, and a bit, it is written anew with what is still
blocked. Whoever reads or writes it holds `Instance.changing`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from xdpgw.errors import XdpgwError

__all__ = ["Blocked", "Journal", "Unblocked", "sync_folder"]

VERSION = 1
SLACK_BYTES = 1 << 20
_PIECE = 1 << 16
"""So much of the file is read at once."""


class Blocked(msgspec.Struct, array_like=True, frozen=True, tag="+"):
    """A source that was blocked."""

    source: str
    """An address or a prefix, in canonical form."""
    until_ns: int | None
    """CLOCK_REALTIME; None for no end."""
    since_ns: int
    """CLOCK_REALTIME."""
    reason: str


class Unblocked(msgspec.Struct, array_like=True, frozen=True, tag="-"):
    """A source that was unblocked."""

    source: str


class _Head(msgspec.Struct, array_like=True, frozen=True, tag="#"):
    version: int
    bytes: int


_Line = _Head | Blocked | Unblocked
_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


class Journal:
    """The file at a path; it need not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[dict[str, Blocked], int]:
        """What is blocked, by source, and how many lines could not be read.

        Blocks that are over are left out.

        Raises:
            XdpgwError: the file cannot be read, or another version wrote it.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return {}, 0
        except OSError as error:
            raise XdpgwError(
                f"cannot read {self.path}: {error.strerror}",
                "it keeps what is blocked; make it readable, or move it away to start without",
            ) from error
        lines, unreadable = _decode(raw[: raw.rfind(b"\n") + 1])
        for line in lines:
            if isinstance(line, _Head) and line.version != VERSION:
                raise XdpgwError(
                    f"{self.path} was written by another version of xdpgw",
                    f"it is of version {line.version}, and this one knows {VERSION}: "
                    "move it away to start without what is blocked",
                )
        now, blocked = time.time_ns(), _outcome(lines)
        live = {x: y for x, y in blocked.items() if y.until_ns is None or y.until_ns > now}
        return live, unreadable

    def append(self, lines: Sequence[Blocked | Unblocked]) -> None:
        """Write lines behind the others; they are on the disk on return.

        Raises:
            XdpgwError: they are not, and none of them counts.
        """
        if not lines:
            return
        if not self.path.exists():
            self.rewrite(_outcome(lines).values())
            return
        try:
            with self.path.open("r+b") as file:
                size = _whole(file.fileno())
                try:
                    os.truncate(file.fileno(), size)
                    file.seek(size)
                    file.write(_encoder.encode_lines(lines))
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(file.fileno(), size)
                    raise
                grown = os.fstat(file.fileno()).st_size
                head = os.pread(file.fileno(), _PIECE, 0).partition(b"\n")[0]
        except OSError as error:
            self._refuse(error)
        if grown > 2 * _bytes_after(head) + SLACK_BYTES:
            self.rewrite(self.read()[0].values())

    def rewrite(self, blocks: Iterable[Blocked]) -> None:
        """Replace the file by one that holds these blocks; whole or not at all.

        Raises:
            XdpgwError: it cannot be written; the old one is as it was.
        """
        body = _encoder.encode_lines(blocks)
        head = _encoder.encode(_Head(VERSION, len(body))) + b"\n"
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(head + body)
                file.flush()
                os.fsync(file.fileno())
            os.rename(fresh, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            self._refuse(error)

    def _refuse(self, error: OSError) -> NoReturn:
        raise XdpgwError(
            f"cannot write {self.path}: {error.strerror}",
            "what is blocked or unblocked now holds as long as the filter does, but is not kept: "
            "make room, or the folder writable, and say it again",
        ) from error


def _outcome(lines: Iterable[_Line]) -> dict[str, Blocked]:
    """What is blocked after all of them, by source."""
    blocked: dict[str, Blocked] = {}
    for line in lines:
        if isinstance(line, Blocked):
            blocked[line.source] = line
        elif isinstance(line, Unblocked):
            blocked.pop(line.source, None)
    return blocked


def _decode(raw: bytes) -> tuple[list[_Line], int]:
    """The lines, and how many of them could not be read."""
    try:
        return _decoder.decode_lines(raw), 0
    except (msgspec.DecodeError, UnicodeDecodeError):
        found: list[_Line] = []
        wrong = 0
        for line in filter(bytes.strip, raw.split(b"\n")):
            try:
                found.append(_decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                wrong += 1
        return found, wrong


def _bytes_after(head: bytes) -> int:
    try:
        found = _decoder.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0
    return found.bytes if isinstance(found, _Head) else 0


def _whole(fd: int) -> int:
    """Bytes of a file up to the end of its last whole line."""
    end = os.fstat(fd).st_size
    while end > 0:
        begin = max(0, end - _PIECE)
        at = os.pread(fd, end - begin, begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        end = begin
    return 0


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
