"""Programs that passed the verifier: what they are, and running them on frames without a port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from xdpgw._native import ffi, lib
from xdpgw.errors import AbiMismatch
from xdpgw.handles import Handle, checked, fail
from xdpgw.maps import Map, pointer_to

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ProgInfo", "Program", "TestRun"]

_TEST_ROOM_BYTES = 4096  # a test run's frame is one page at most, unless the program takes frags


@dataclass(frozen=True, slots=True)
class ProgInfo:
    """What a program is, and what it cost."""

    type: int
    """enum bpf_prog_type."""
    id: int
    name: str
    """As the kernel keeps it, 15 bytes at most."""
    tag: str
    """Hash of its instructions, hexadecimal."""
    load_time_ns: int
    """CLOCK_BOOTTIME."""
    xlated_bytes: int
    jited_bytes: int
    """0: interpreted."""
    verified_insns: int | None
    """Instructions that the verifier walked; None before kernel 5.16."""
    run_time_ns: int
    """Grows only while kernel.bpf_stats_enabled is 1, as `run_count`."""
    run_count: int


@dataclass(frozen=True, slots=True)
class TestRun:
    """One BPF_PROG_TEST_RUN."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    retval: int
    """What the program returned: enum xdp_action."""
    data: bytes
    """The frame after the run."""
    duration_ns: int
    """Mean of the runs."""


class Program(Handle):
    """A program that passed the verifier."""

    @classmethod
    def from_id(cls, prog_id: int) -> Program:
        """Open a program by the kernel's number for it."""
        fd = ffi.new("int *")
        checked(lib.xg_prog_fd_by_id(prog_id, fd), f"opening program {prog_id}")
        return cls(int(fd[0]))

    def info(self) -> ProgInfo:
        """What the program is, and has run so far."""
        raw = ffi.new("struct xg_prog_info *")
        checked(lib.xg_prog_info(self.fileno(), raw), "reading a program's description")
        return ProgInfo(
            type=raw.type,
            id=raw.id,
            name=ffi.string(raw.name, 16).decode(),
            tag=bytes(raw.tag).hex(),
            load_time_ns=raw.load_time_ns,
            xlated_bytes=raw.xlated_bytes,
            jited_bytes=raw.jited_bytes,
            verified_insns=raw.verified_insns or None,
            run_time_ns=raw.run_time_ns,
            run_count=raw.run_count,
        )

    def map_ids(self) -> list[int]:
        """The kernel's numbers for the maps that the program uses."""
        room = 256
        ids = ffi.new("uint32_t[]", room)
        n = lib.xg_prog_map_ids(self.fileno(), ids, room)
        return list(ids[0 : min(checked(n, "reading which maps a program uses"), room)])

    def test_run(self, frame: bytes, repeat: int = 1) -> TestRun:
        """Run the program on a copy of one frame; it sends and redirects nothing.

        Args:
            frame: 14 bytes at least.
            repeat: how often. More than once costs about 8 ms a call on top.
        """
        out = ffi.new("char[]", max(_TEST_ROOM_BYTES, 2 * len(frame)))
        out_len = ffi.new("uint32_t *", len(out))
        retval, duration = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        data = ffi.from_buffer(frame)
        err = lib.xg_prog_test_run(
            self.fileno(), data, len(frame), repeat, out, out_len, retval, duration
        )
        checked(err, f"a test run on a frame of {len(frame)} bytes")
        return TestRun(int(retval[0]), bytes(ffi.buffer(out, out_len[0])), int(duration[0]))

    @overload
    def test_many(
        self, frames: Sequence[bytes], explained: Map
    ) -> tuple[NDArray[np.uint32], NDArray[np.void]]: ...

    @overload
    def test_many(self, frames: Sequence[bytes]) -> tuple[NDArray[np.uint32], None]: ...

    def test_many(
        self, frames: Sequence[bytes], explained: Map | None = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.void] | None]:
        """Run the program once on each of many frames, in one call.

        Args:
            frames: 14 bytes at least, each.
            explained: the map (ARRAY of one struct xg_event) to read after each run.

        Returns:
            what the program returned, shape (n,), and what the map held, shape (n,) of
            `_abi.event_dtype()`; None without the map.
        """
        import numpy as np

        from xdpgw import _abi

        lens = np.fromiter(map(len, frames), np.uint32, len(frames))
        offsets = np.zeros(len(frames), np.uintp)
        np.cumsum(lens[:-1], out=offsets[1:])
        retvals = np.zeros(len(frames), np.uint32)
        events: NDArray[np.void] | None = None
        if explained is not None:
            dtype: np.dtype[np.void] = _abi.event_dtype()
            events = np.zeros(len(frames), dtype)
            if explained.value_bytes != dtype.itemsize or explained.info().key_size != 4:
                raise AbiMismatch("struct xg_event", dtype.itemsize, explained.value_bytes)
        done = ffi.new("uint32_t *")
        err = lib.xg_prog_test_many(
            self.fileno(),
            ffi.from_buffer(b"".join(frames)),
            pointer_to(offsets, "size_t *"),
            pointer_to(lens, "uint32_t *"),
            len(frames),
            -1 if explained is None else explained.fileno(),
            pointer_to(retvals, "uint32_t *"),
            ffi.NULL if events is None else pointer_to(events, "struct xg_event *"),
            done,
        )
        if err < 0:
            length = len(frames[done[0]])
            fail(err, f"a test run on frame {done[0]} of {len(frames)}, {length} bytes long")
        return retvals, events

    def live_frames(self, frame: bytes, ifindex: int, repeat: int, batch: int = 0) -> None:
        """Have a frame enter the program as if a port had received it; verdicts are carried out.

        Args:
            frame: 14 bytes at least.
            ifindex: the port.
            repeat: how many frames.
            batch: frames between two flushes, at most 256; 0 for the kernel's own 64.

        Raises:
            UnsupportedError: a kernel before 5.18.
        """
        err = lib.xg_prog_live_frames(
            self.fileno(), ifindex, ffi.from_buffer(frame), len(frame), repeat, batch
        )
        checked(err, f"running {repeat} live frames of {len(frame)} bytes on ifindex {ifindex}")
