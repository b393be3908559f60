"""What a user would read a ring buffer with from Python instead: a callback a record.

    python log_peers.py bcc|libbpf WORK FD SECONDS CPU

By bcc's module (of the system's Python: Debian's python3-bpfcc), whose polling and callback are
those of its documentation, on a map that is there already; or by libbpf's ring_buffer__poll and
cffi. WORK is what the callback does: `count`, `field` (reads one by the record's struct), `copy`
(keeps the bytes), or `json FILE` (a line a record). Prints the records and the seconds. Needs
nothing of this project.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["main"]

WARM_S = 0.1


class Event(ctypes.Structure):
    """struct xg_event, as a user would write it down."""

    _fields_ = (
        ("ts_ns", ctypes.c_uint64),
        ("src", ctypes.c_uint8 * 16),
        ("dst", ctypes.c_uint8 * 16),
        ("len_bytes", ctypes.c_uint32),
        ("queue", ctypes.c_uint32),
        ("sport", ctypes.c_uint16),
        ("dport", ctypes.c_uint16),
        ("ethertype", ctypes.c_uint16),
        ("vlan", ctypes.c_uint16),
        ("rule", ctypes.c_uint16),
        ("rest", ctypes.c_uint8 * 14),
    )


def bcc_poll(fd: int, callback: Callable[[Any, int, int], int]) -> Callable[[], None]:
    """bcc.table.RingBuf on a map that no bcc program made."""
    from bcc import BPF  # type: ignore[import-not-found, unused-ignore]
    from bcc.table import RingBuf  # type: ignore[import-not-found, unused-ignore]

    bpf, ring = BPF.__new__(BPF), RingBuf.__new__(RingBuf)
    bpf._ringbuf_manager = None
    ring.bpf, ring.map_fd, ring._cbs, ring._ringbuf = bpf, fd, {}, None
    ring.open_ring_buffer(callback)

    def poll() -> None:
        bpf.ring_buffer_poll(100)
        assert ring._cbs  # it owns the callback

    return poll


def libbpf_poll(fd: int, callback: Callable[[Any, int, int], int]) -> Callable[[], None]:
    """libbpf's own consumer, called through cffi."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(
        """
        typedef int (*ring_buffer_sample_fn)(void *ctx, void *data, size_t size);
        void *ring_buffer__new(int map_fd, ring_buffer_sample_fn fn, void *ctx, void *opts);
        int ring_buffer__poll(void *rb, int timeout_ms);
        """
    )
    lib = ffi.dlopen("libbpf.so.1")

    def called(ctx: Any, data: Any, size: int) -> int:
        return callback(ctx, int(ffi.cast("uintptr_t", data)), size)

    kept = ffi.callback("ring_buffer_sample_fn", called)
    ring = lib.ring_buffer__new(fd, kept, ffi.NULL, ffi.NULL)
    if ring == ffi.NULL:
        raise OSError("ring_buffer__new failed")

    def poll() -> None:
        lib.ring_buffer__poll(ring, 100)
        assert kept

    return poll


def work(kind: str) -> tuple[Callable[[Any, int, int], int], Callable[[], int]]:
    """A callback, and how many records it has had and done with."""
    had = 0
    kept: list[bytes] = []
    pointer = ctypes.POINTER(Event)
    out = open(kind.split(None, 1)[1], "w") if kind.startswith("json") else None  # noqa: SIM115

    def count(ctx: Any, data: int, size: int) -> int:
        nonlocal had
        had += 1
        return 0

    def field(ctx: Any, data: int, size: int) -> int:
        nonlocal had
        had += 1 if ctypes.cast(data, pointer).contents.len_bytes else 0
        return 0

    def copy(ctx: Any, data: int, size: int) -> int:
        nonlocal had
        had += 1
        kept.append(ctypes.string_at(data, size))
        if len(kept) == 4096:
            kept.clear()
        return 0

    def line(ctx: Any, data: int, size: int) -> int:
        nonlocal had
        had += 1
        event = ctypes.cast(data, pointer).contents
        assert out is not None
        fields = {name: getattr(event, name) for name, *_ in Event._fields_[3:10]}
        src, dst = (str(ipaddress.IPv4Address(bytes(x[:4]))) for x in (event.src, event.dst))
        out.write(json.dumps({"ts": event.ts_ns, "src": src, "dst": dst, **fields}) + "\n")
        return 0

    def done() -> int:
        if out is not None:
            out.flush()
        return had

    works = {"count": count, "field": field, "copy": copy, "json": line}
    return works[kind.split()[0]], done


def main(peer: str, kind: str, fd: int, seconds: float, cpu: int) -> None:
    """Read for so long, and say how much it was.

    By a signal, as a poll does not return while more records come.
    """
    os.sched_setaffinity(0, {cpu})
    callback, had = work(kind)
    marks: list[tuple[int, float]] = []

    def tick(number: int, frame: object) -> None:
        marks.append((had(), time.monotonic()))
        if len(marks) == 2:
            (first, begun), (last, ended) = marks
            print(last - first, ended - begun, flush=True)
            os._exit(0)  # bcc's own clean-up knows only what bcc has loaded

    poll = {"bcc": bcc_poll, "libbpf": libbpf_poll}[peer](fd, callback)
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, WARM_S, seconds)
    while True:
        poll()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
