"""Opening the socket of a FastPort, and asking what it counted."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from xdpgw._native import ffi, lib
from xdpgw.bpffs import netns_inode
from xdpgw.errors import FastpathError
from xdpgw.facts import mtu_of, single_buffer_mtu
from xdpgw.fast_errors import (
    RING_MAX,
    Wanted,
    check_port,
    check_power_of_two,
    wrong,
)
from xdpgw.fast_open import MODES, open_xsk
from xdpgw.fast_program import Entry, port_program, target_entry
from xdpgw.fast_umem import FRAME_OVERHEAD_BYTES, Umem, chunks_of, plan_umem

__all__ = [
    "Levels",
    "Opened",
    "Statistics",
    "Want",
    "levels_of",
    "open_socket",
    "statistics_of",
]

BURST_MAX = 4096
RETRY_MS = 500
"""How long a queue may stay busy after its last socket was closed; the kernel takes tens of ms."""

BUSY_BUDGET = 64
"""Packets of one busy poll: the kernel's own budget of a poll by interrupt."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a socket counted since it was opened, in packets unless the name says bytes."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    """Put into the TX ring."""
    tx_bytes: int
    dropped: int
    """Received and recycled: what was not sent."""
    tx_full: int
    """Was to be sent out of this socket, and dropped as its TX ring stayed full."""
    kicks: int
    """System calls made to send."""
    polls: int
    """Times that it slept."""
    rx_dropped: int
    """The kernel's, as all that follow: for other reasons than the next ones, such as a frame that
    is longer than a chunk, or no chunk in the fill ring."""
    rx_invalid_descs: int
    tx_invalid_descs: int
    rx_ring_full: int
    """Came while the RX ring was full: the loop is too slow, or the ring too small."""
    rx_fill_ring_empty: int
    tx_ring_empty: int


@dataclass(frozen=True, slots=True)
class Levels:
    """Descriptors that are in the rings now, and what they hold at most."""

    rx: int
    rx_size: int
    tx: int
    tx_size: int
    fill: int
    fill_size: int
    completion: int
    completion_size: int


def statistics_of(xsk: Any) -> Statistics:
    """What a struct xg_xsk * counted."""
    ours, kernels = ffi.new("struct xg_xsk_counters *"), ffi.new("struct xg_xdp_statistics *")
    lib.xg_xsk_counters(xsk, ours)
    err = lib.xg_xsk_statistics(xsk, kernels)
    if err < 0:
        raise FastpathError(f"getsockopt(XDP_STATISTICS) failed: {os.strerror(-err)}", None, -err)
    return Statistics(**_members(ours), **_members(kernels))


def levels_of(xsk: Any) -> Levels:
    """How full the rings of a struct xg_xsk * are."""
    raw = ffi.new("struct xg_ring_levels *")
    lib.xg_xsk_levels(xsk, raw)
    return Levels(**_members(raw))


def _members(raw: Any) -> dict[str, int]:
    return {name: getattr(raw, name) for name, _ in ffi.typeof(raw).item.fields}


@dataclass(frozen=True, slots=True)
class Want:
    """The arguments of a FastPort, as given."""

    port: str
    queue: int
    mode: str
    ring: int
    burst: int
    busy_poll_us: int

    def check(self, attach: str | None) -> None:
        """Refuse what is wrong on every host.

        Raises:
            FastpathError: with the values that are right.
        """
        check_power_of_two("ring", self.ring, 1, RING_MAX)
        if not 1 <= self.burst <= BURST_MAX:
            raise wrong(f"a burst has 1 to {BURST_MAX} frames, not {self.burst}")
        if self.mode not in MODES:
            raise wrong(f"the mode is {', '.join(MODES)}, not {self.mode}")
        if attach not in ("auto", "native", "generic", None):
            raise wrong(f"attach is auto, native, generic or None, not {attach}")
        if self.busy_poll_us < 0:
            raise wrong(f"busy_poll_us is a time in microseconds, or 0, not {self.busy_poll_us}")


@dataclass(frozen=True, slots=True)
class Opened:
    """What `open_socket` made."""

    umem: Umem
    xsk: Any
    raw: Any
    """struct xg_burst *"""
    entry: Entry | None
    wanted: Wanted


def open_socket(
    want: Want, umem: Umem | None, attach: str | None, target: str | None, undo: ExitStack
) -> Opened:
    """Make the memory, the socket and the program, in this order; undone in reverse.

    The socket first: a program that hands frames to nobody is of no use.
    """
    want.check(attach)
    ifindex = check_port(want.port, want.queue)
    mtu = mtu_of(want.port)
    if umem is None:
        umem = undo.enter_context(_own_umem(want, mtu))
    _check_mtu(want, umem, mtu)
    place = None if target is None else target_entry(want.port, want.queue, target)
    entries = undo.enter_context(_Entries([] if place is None else [place]))
    raw = _burst(want.burst)
    with umem.alone():
        xsk, wanted = _bind(want, umem, ifindex, undo)
    fd = lib.xg_xsk_fd(xsk)
    if place is not None:
        place.put(fd)
    elif attach is not None:
        frags = umem.multi_buffer or mtu > single_buffer_mtu()
        entries.append(port_program(want.port, ifindex, want.queue, fd, attach, frags=frags))
    return Opened(umem, xsk, raw, entries[0] if entries else None, wanted)


class _Entries(list["Entry"]):
    """None or one: known late, and closed behind the socket."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for entry in self:
            entry.close()


def _own_umem(want: Want, mtu: int) -> Umem:
    plan = plan_umem(mtu)
    chunks = chunks_of(want.ring, want.burst)
    return Umem(chunks, plan.chunk_bytes, multi_buffer=plan.multi_buffer)


def _check_mtu(want: Want, umem: Umem, mtu: int) -> None:
    if mtu + FRAME_OVERHEAD_BYTES <= umem.frame_bytes:
        return
    fits = umem.frame_bytes - FRAME_OVERHEAD_BYTES
    raise FastpathError(
        f"port {want.port} has an MTU of {mtu}, and chunks of {umem.chunk_bytes} bytes hold frames "
        f"of an MTU up to {fits}",
        f"ip link set dev {want.port} mtu {fits}, "
        + ("chunk_bytes=4096, " if umem.chunk_bytes < 4096 else "")
        + "or multi_buffer=True for the Umem",
        port=want.port,
        queue=want.queue,
    )


def _burst(room: int) -> Any:
    out = ffi.new("struct xg_burst **")
    err = lib.xg_burst_create(room, out)
    if err < 0:
        raise FastpathError(f"no memory for a burst of {room} frames", None, -err)
    return ffi.gc(out[0], lib.xg_burst_free)


def _bind(want: Want, umem: Umem, ifindex: int, undo: ExitStack) -> tuple[Any, Wanted]:
    opts = ffi.new("struct xg_xsk_opts *")
    opts.ifindex, opts.queue = ifindex, want.queue
    opts.rx = opts.tx = want.ring
    opts.fill = opts.completion = 2 * want.ring
    opts.mode = MODES[want.mode]
    opts.multi_buffer = umem.multi_buffer
    opts.busy_poll_us, opts.busy_budget = want.busy_poll_us, BUSY_BUDGET
    opts.retry_ms = RETRY_MS
    key = (netns_inode(), ifindex, want.queue)
    wanted = Wanted(
        want.ring,
        umem.chunk_bytes,
        umem.chunks * umem.chunk_bytes,
        want.mode,
        umem.multi_buffer,
        umem.chunks,
        chunks_of(want.ring, want.burst),
    )
    first = umem.first_socket(key)
    xsk = open_xsk(umem.handle, opts, port=want.port, wanted=wanted, beside=first)
    umem.add_socket(key, xsk)

    def close() -> None:
        umem.drop_socket(key, xsk)
        lib.xg_xsk_close(xsk)

    undo.callback(close)
    return xsk, wanted
