"""A file that only grows, in pieces: NAME, then NAME.1 (younger) to NAME.keep (oldest).

Every piece holds whole units only (lines, records): what a full disk cut short is taken back, what
a crash cut short is mended by who knows the units. A file that another process has moved away
(logrotate) is opened anew.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xdpgw.errors import XdpgwError
from xdpgw.sink_options import Count, Option, Size, Time
from xdpgw.sinks import SinkError

__all__ = [
    "KEEP",
    "MAX_BYTES",
    "MODE",
    "OPTIONS",
    "Limits",
    "RotatingFile",
    "Units",
    "old",
    "shift",
]

MAX_BYTES = 100_000_000
"""A file's size, unless the policy says otherwise: about 300,000 lines."""
KEEP = 5
"""Old files that stay, unless the policy says otherwise."""
MODE = 0o640
"""Events name peers; a log group may read them, others may not."""

OPTIONS: dict[str, Option] = {
    "max_bytes": Size(),
    "max_age": Time("1s", "3650d"),
    "keep": Count(0, 1000),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """When a piece ends, and how many stay.

    Args:
        max_bytes: it ends before it grows beyond; a longer unit gets a piece of its own.
        max_age_ns: it ends so long after it began; None for never.
        keep: old pieces that stay; 0 for none.
    """

    max_bytes: int = MAX_BYTES
    max_age_ns: int | None = None
    keep: int = KEEP

    @classmethod
    def of(cls, options: dict[str, object]) -> Limits:
        """Those that a policy asks for by `OPTIONS`."""
        names = {"max_bytes": "max_bytes", "max_age": "max_age_ns", "keep": "keep"}
        return cls(**{names[x]: y for x, y in options.items() if x in names})  # type: ignore[arg-type]


class Units(Protocol):
    """What a piece is made of."""

    def head(self) -> bytes:
        """What a piece begins with."""

    def whole(self, data: memoryview) -> int:
        """Bytes of the whole units at the beginning of some."""

    def first(self, data: memoryview) -> int:
        """Bytes of the first unit of some."""

    def mend(self, fd: int, size: int) -> tuple[int, int] | None:
        """Make a piece that is there end with a whole unit.

        Returns:
            its size then, and that of its head; None if nothing can be appended to it.
        """

    def fits(self) -> bool:
        """Whether what comes next may go into the piece that was begun or mended last."""

    def began_ns(self, fd: int) -> int | None:
        """CLOCK_REALTIME at which a piece that is there began; None if it does not tell."""


class RotatingFile:
    """Appends units to the piece that is called NAME."""

    def __init__(
        self,
        path: Path,
        units: Units,
        limits: Limits,
        *,
        rotated: Callable[[], None] = lambda: None,
        make_room: Callable[[Path, int], None] | None = None,
    ) -> None:
        """Open the piece, or begin it.

        Args:
            path: its name; its folder must exist.
            rotated: called when a piece has become an old one.
            make_room: does so at NAME.1, as `shift`.

        Raises:
            XdpgwError: it cannot be opened.
        """
        self.path = path
        self._units = units
        self._limits = limits
        self._rotated = rotated
        self._make_room = make_room or shift
        self._fd = -1
        self._size = self._head_bytes = self._began_ns = 0
        self._rotates = True
        try:
            self._open()
        except OSError as error:
            raise XdpgwError(
                f"cannot open the log {path}: {error.strerror}",
                "its folder must exist and be writable",
            ) from error

    def append(self, data: memoryview) -> tuple[int, OSError | None]:
        """Append units, rotating where a piece is full or old.

        Returns:
            the bytes of the units that were written, and why not all were.
        """
        done = 0
        try:
            self._follow()
            if not self._units.fits():
                self.rotate()
            self.rotate_if_old()
            while done < len(data):
                done += self._append(data[done:])
        except OSError as error:
            return done, error
        return done, None

    def rotate_if_old(self) -> None:
        """Rotate a piece that is not empty and past its age.

        Raises:
            OSError: it cannot be.
        """
        age = self._limits.max_age_ns
        if age is not None and self._fd >= 0 and self._rotates and not self.empty:
            # A clock that was set back makes it young again, and never older than it is.
            now = time.time_ns()
            self._began_ns = min(self._began_ns, now)
            if now - self._began_ns >= age:
                self.rotate()

    def rotate_when_idle(self) -> None:
        """`rotate_if_old`, for a sink that has nothing to write.

        Raises:
            SinkError: it cannot be.
        """
        try:
            self.rotate_if_old()
        except OSError as error:
            raise SinkError(f"{self.path} cannot rotate: {error.strerror}") from error

    def rotate(self) -> None:
        """Make the piece an old one, and begin another.

        Raises:
            OSError: it cannot be; the piece goes on.
        """
        if self.empty or not self._limits.keep:
            self._begin()
            return
        self._make_room(self.path, self._limits.keep)
        os.replace(self.path, old(self.path, 1))
        self._open()
        self._rotated()

    @property
    def empty(self) -> bool:
        """Whether the piece holds no unit."""
        return self._size <= self._head_bytes

    def close(self) -> None:
        """Close the piece."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append(self, data: memoryview) -> int:
        """Write as many whole units as the piece has room for; returns their bytes."""
        room = max(0, self._limits.max_bytes - self._size) if self._rotates else len(data)
        whole = self._units.whole(data[:room])
        if not whole:
            if not self.empty:
                self.rotate()
                return 0
            whole = self._units.first(data)
        done = self._write(data[:whole])
        self._size += done
        return done

    def _write(self, data: memoryview) -> int:
        """Write whole units, all or as many as can be; after an error the piece ends with one."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            # Units that are written stay: a reader may have mapped them.
            done = self._units.whole(data[:done])
            try:
                os.ftruncate(self._fd, self._size + done)
            except OSError:
                self.close()  # it is mended when it is opened
            if not done:
                raise
        return done

    def _open(self) -> None:
        """Open the piece of this name, or begin it; one that cannot go on becomes an old one."""
        while True:
            try:
                fd = _locked(self.path)
            except FileNotFoundError:
                self._begin()
                return
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    break
            os.close(fd)  # it was renamed before it was locked
        try:
            size = os.fstat(fd).st_size
            mended = self._units.mend(fd, size)
            began_ns = self._units.began_ns(fd) if size else None
        except BaseException:
            os.close(fd)
            raise
        if mended is not None:
            self._use(fd, *mended, began_ns)
            return
        os.close(fd)
        if self._limits.keep:
            self._make_room(self.path, self._limits.keep)
            os.replace(self.path, old(self.path, 1))
        self._begin()

    def _begin(self) -> None:
        """Begin a piece, in the place of one that is there; whole with its head, or not at all."""
        head = self._units.head()
        # With a dot, so that no pattern of log files takes it for one.
        fresh = self.path.with_name(f".{self.path.name}.new")
        fd = _locked(fresh, os.O_CREAT)
        try:
            os.ftruncate(fd, 0)
            os.fchmod(fd, MODE)  # whatever the umask
            if head and os.write(fd, head) < len(head):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.replace(fresh, self.path)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                fresh.unlink()
            raise
        self._use(fd, len(head), len(head), None)

    def _use(self, fd: int, size: int, head_bytes: int, began_ns: int | None) -> None:
        self.close()
        self._fd, self._size, self._head_bytes = fd, size, head_bytes
        self._began_ns = began_ns or time.time_ns()
        self._rotates = stat.S_ISREG(os.fstat(fd).st_mode)  # a pipe or a device does not

    def _follow(self) -> None:
        """Open the file anew where its name means another one by now, or none."""
        if self._fd < 0:
            self._open()
            return
        mine = os.fstat(self._fd)
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            self._open()
            return
        if not os.path.samestat(named, mine):
            self._open()
        else:
            self._size = mine.st_size


def real_path(path: Path) -> Path:
    """The file behind symbolic links, so that it rotates and not they; a pipe's name as it is."""
    return path if path.exists() and not path.is_file() else path.resolve()


def _locked(path: Path, flags: int = 0) -> int:
    """Open a file that nobody else may write to as long as it is open: who rotates is alone."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise OSError(errno.EBUSY, "another process writes to it") from None
    return fd


def old(path: Path, age: int) -> Path:
    """The name of an old piece; 1 is the youngest."""
    return path.with_name(f"{path.name}.{age}")


def shift(path: Path, keep: int, endings: Sequence[str] = ("",)) -> None:
    """Make room at NAME.1: each old piece takes the name of the next older one, the oldest goes.

    Args:
        endings: that a piece may have behind its number.
    """
    for ending in endings:
        Path(f"{old(path, keep)}{ending}").unlink(missing_ok=True)
    for age in range(keep - 1, 0, -1):
        for ending in endings:
            piece = Path(f"{old(path, age)}{ending}")
            if piece.exists():
                os.replace(piece, f"{old(path, age + 1)}{ending}")
