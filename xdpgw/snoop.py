"""`xdpgw snoop openat`: who opens what, by tracepoints of the system calls openat and openat2.

Loader, ring and drain are those of the datapath. What the kernel calls its tracepoints' context is
its own affair, so the object (bpf/openat.bpf.c) is relocated at load against the kernel's BTF.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from xdpgw import _abi as abi
from xdpgw import loader
from xdpgw._abi import OpenCounter, OpenHas
from xdpgw._native import ffi, lib
from xdpgw.errors import KernelError, UnsupportedError, VerifierError
from xdpgw.events import EventReader, formatted, realtime_offset_ns
from xdpgw.kernel import BpfObject, Link
from xdpgw.maps import pointer_to
from xdpgw.service import WAIT_MS, Signals
from xdpgw.tracefs import ensure_tracefs, event_id
from xdpgw.words import time_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.maps import Map

__all__ = [
    "OBJECT",
    "OpenBooks",
    "Relocation",
    "Wanted",
    "json_of",
    "lines_of",
    "load",
    "relocations",
    "watch",
]

OBJECT = "openat.bpf.o"
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_ATTACHMENTS = (
    # Returns first: what is seen to begin is then seen to end.
    ("openat_return", "syscalls/sys_exit_openat"),
    ("openat_return", "syscalls/sys_exit_openat2"),
    ("openat", "syscalls/sys_enter_openat"),
    ("openat2", "syscalls/sys_enter_openat2"),
)
_LOOK_S = 5.0
_INITIAL_PIDNS = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel
_NO_DIRFD = 2**31  # of a signed int: AT_FDCWD, and what is wrong


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls are told.

    Args:
        comm: only those of threads of this name; the kernel keeps 15 bytes of it. None: any.
        pid: only those of this process. None: any.
        own: also those of this process itself.
    """

    comm: str | None = None
    pid: int | None = None
    own: bool = False

    def rodata(self) -> bytes:
        """struct xg_snoop."""
        import numpy as np

        pidns = os.stat("/proc/self/ns/pid")
        config = np.zeros(1, abi.snoop_dtype())
        if pidns.st_ino != _INITIAL_PIDNS:
            config["pidns_dev"], config["pidns_ino"] = pidns.st_dev, pidns.st_ino
        name = os.fsencode(self.comm or "")[: abi.COMM_BYTES - 1]
        config["comm"][0, : len(name)] = list(name)
        config["pid"] = self.pid or 0
        config["not_pid"] = 0 if self.own else os.getpid()
        raw: bytes = config.tobytes()
        return raw


@dataclass(frozen=True, slots=True)
class Relocation:
    """A member of a kernel's struct, and where it lies, in bytes."""

    program: str
    member: str
    in_object: int
    in_kernel: int

    def __str__(self) -> str:
        return (
            f"{self.program}: {self.member} at {self.in_object} in the object, "
            f"at {self.in_kernel} in this kernel"
        )


def relocations(log: str) -> list[Relocation]:
    """The CO-RE relocations that libbpf made, as its log tells of them.

    Args:
        log: of an object that was loaded with `debug`.
    """
    wanted = re.findall(r"prog '(\w+)': relo #(\d+): <\w+> \[\d+\] struct (\S+) ", log)
    members = {(program, number): member for program, number, member in wanted}
    patched = re.findall(
        r"prog '(\w+)': relo #(\d+): patched insn #\d+ \(.*?\) (?:off|imm) (\d+) -> (\d+)", log
    )
    return [
        Relocation(program, members[program, number], int(before), int(after))
        for program, number, before, after in patched
        if (program, number) in members
    ]


@dataclass(frozen=True, slots=True)
class OpenBooks:
    """What the program counted, in calls. asked = written + lost + those under way."""

    asked: int
    written: int
    lost: int
    unread: int
    """Written without their path."""

    @classmethod
    def read(cls, counters: Map) -> OpenBooks:
        """Read them from the map `open_counters`."""
        totals = counters.percpu().sum(axis=1)
        return cls(**{which.text: int(totals[which][0]) for which in OpenCounter})


def load(
    wanted: Wanted, *, kernel_btf: Path | None = None, debug: bool = False, elf: bytes | None = None
) -> BpfObject:
    """Load the programs; attaches nothing.

    Args:
        wanted: which calls are told.
        kernel_btf: a file with the kernel's BTF, where it has none itself.
        debug: keep each step of libbpf in the object's log.
        elf: the object; the one that was built with the package if None.

    Raises:
        UnsupportedError: the kernel has no BTF, or none of its tracepoints' context.
        PrivilegeError, VerifierError, KernelError: as the kernel says.
    """
    obj = BpfObject(
        loader.artifact(OBJECT) if elf is None else elf,
        name="openat",
        kernel_btf=kernel_btf,
        debug=debug,
    )
    try:
        with _told_of_btf(kernel_btf, obj):
            obj.load(rodata=wanted.rodata())
    except BaseException:
        obj.close()
        raise
    return obj


@contextmanager
def _told_of_btf(kernel_btf: Path | None, obj: BpfObject) -> Iterator[None]:
    """Whether it was for want of BTF that a load failed."""
    path = kernel_btf or KERNEL_BTF
    try:
        yield
    except (KernelError, VerifierError) as error:
        if "CO-RE relocation" in getattr(error, "log", ""):
            what = f"{path} does not describe the tracepoints of system calls"
        elif re.search(r"(?i)(failed|error).* (target|vmlinux|kernel) BTF", obj.log):
            what = f"there is no description of this kernel's types (BTF) in {path}"
        else:
            raise
        raise UnsupportedError(
            what,
            "it takes a kernel with CONFIG_DEBUG_INFO_BTF, or its BTF by --btf FILE",
            error.errno,
            feature="BTF",
            kernel=os.uname().release,
        ) from error


def watch(
    wanted: Wanted,
    *,
    as_json: bool,
    verbose: bool,
    kernel_btf: Path | None,
    note: Callable[[str], None],
) -> None:
    """Print calls until told to stop.

    Args:
        wanted: which ones.
        as_json: as JSON lines.
        verbose: say how the object was relocated.
        kernel_btf: a file with the kernel's BTF, where it has none itself.
        note: takes what a person should know.

    Raises:
        As `load`, and where there is no tracefs or no such tracepoint.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(Signals().caught(printing=True))
        obj = stack.enter_context(load(wanted, kernel_btf=kernel_btf, debug=verbose))
        if verbose:
            note(f"types of this kernel: {kernel_btf or KERNEL_BTF}")
            note("\n".join(map(str, relocations(obj.log))) or "libbpf tells of no relocation")
        reader = stack.enter_context(EventReader(obj.map("opens"), record=abi.open_dtype()))
        with ExitStack() as attached:
            _attach(attached, obj, note)
            losses = _Losses(obj.map("open_counters"), note)
            while not signals.stop:
                _print(reader.drain(WAIT_MS), as_json)
                losses.tell()
        while len(batch := reader.drain()):
            _print(batch, as_json)
        books = OpenBooks.read(obj.map("open_counters"))
    if books.lost:
        note(f"{books.written} calls printed; {books.lost} lost: they came too fast, or too many")
    if books.unread:
        note(f"of {books.unread} calls the path could not be read")
    if pending := books.asked - books.written - books.lost:
        note(f"{pending} calls had not returned by the end")


class _Losses:
    """Says that calls are lost while they are, now and then."""

    def __init__(self, counters: Map, note: Callable[[str], None]) -> None:
        self._counters, self._note = counters, note
        self._told, self._looked_at = 0, time.monotonic()

    def tell(self) -> None:
        """Look, if it is time to."""
        if (now := time.monotonic()) - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        if (lost := OpenBooks.read(self._counters).lost) > self._told:
            self._note(f"{lost} calls lost so far")
            self._told = lost


def _attach(stack: ExitStack, obj: BpfObject, note: Callable[[str], None]) -> None:
    root, mounted = ensure_tracefs()
    if mounted:
        note(f"tracefs was not mounted: it is now, at {root}")
    for program, event in _ATTACHMENTS:
        number = event_id(root, event)
        stack.enter_context(Link.attach_tracepoint(obj.program(program), number, event))


def _print(batch: NDArray[np.void], as_json: bool) -> None:
    if not len(batch):
        return
    if as_json:
        out = json_of(batch, realtime_offset_ns())
    else:
        out = "\n".join([*lines_of(batch, realtime_offset_ns()), ""]).encode()
    sys.stdout.buffer.write(out)
    sys.stdout.buffer.flush()


def json_of(opens: NDArray[np.void], offset_ns: int) -> bytes:
    """One JSON object and a newline a call; unknown is null.

    Args:
        opens: shape (n,) of `_abi.open_dtype()`, contiguous.
        offset_ns: CLOCK_REALTIME - CLOCK_MONOTONIC.
    """
    first = pointer_to(opens, "struct xg_open *")
    return formatted(
        len(opens) * lib.XG_OPEN_LINE_BYTES,
        lambda *out: lib.xg_opens_json(first, len(opens), offset_ns, *out),
    )


def lines_of(opens: NDArray[np.void], offset_ns: int) -> Iterator[str]:
    """The same for people: time, process, thread, user, name, what came of it, flags, path."""
    for row in opens:
        code, flags = int(row["error"]), int(row["flags"])
        result = errno.errorcode.get(code, f"errno {code}") if code else str(row["fd"])
        known = OpenHas(int(row["has"]))
        yield (
            f"{time_text(int(row['ts_ns']) + offset_ns)} {row['pid']:>7} {row['tid']:>7} "
            f"{row['uid']:>5} "
            f"{_shown(row['comm'].tobytes().rstrip(bytes(1))):<15} {result:>7} "
            f"{_flags_text(flags) if OpenHas.FLAGS in known else '?'} {_path_text(row, known)}"
        )


def _path_text(row: np.void, known: OpenHas) -> str:
    if OpenHas.PATH not in known:
        return "(path could not be read)"
    raw = row["path"].tobytes()[: int(row["path_bytes"])]
    base = int(row["dirfd"])
    under = f"(in {base}) " if base < _NO_DIRFD and not raw.startswith(b"/") else ""
    return f"{under}{_shown(raw)}{'...' if OpenHas.CUT_PATH in known else ''}"


def _shown(raw: bytes) -> str:
    """Bytes as text that does nothing to a terminal."""
    text = raw.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@lru_cache(maxsize=1024)
def _flags_text(flags: int) -> str:
    out = ffi.new("char[]", lib.XG_FLAGS_TEXT_BYTES)
    length = lib.xg_open_flags_text(flags, out)
    text: bytes = ffi.buffer(out, length)[:]
    return text.decode()
