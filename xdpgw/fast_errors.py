"""What a refusal of an AF_XDP call means, in a sentence with a hint.

Used by `xdpgw.fast` and by the workers of the gateway. Needs no numpy.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import struct
from dataclasses import dataclass
from typing import NoReturn

from xdpgw.errors import FastpathError, PrivilegeError
from xdpgw.facts import receive_queues

__all__ = ["RING_MAX", "Wanted", "check_port", "check_power_of_two", "refuse_socket", "wrong"]

RING_MAX = 1 << 16
"""Descriptors of a ring; 65,536 packets are some ms of any line, what is more is a mistake."""

_SIOCGIFFLAGS = 0x8913


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a socket was to be.

    Args:
        ring: descriptors of its RX and TX ring.
        chunk_bytes: a chunk of its UMEM.
        umem_bytes: its UMEM as a whole.
        mode: auto, zerocopy or copy.
        multi_buffer: whether a frame may take several chunks.
        chunks: of its UMEM; None where it does not matter.
        chunks_wanted: what its rings take of them; None where it does not matter.
    """

    ring: int
    chunk_bytes: int
    umem_bytes: int
    mode: str
    multi_buffer: bool = False
    chunks: int | None = None
    chunks_wanted: int | None = None


def wrong(message: str, hint: str | None = None) -> FastpathError:
    """The error for an argument that is wrong on every host."""
    return FastpathError(message, hint, errno.EINVAL)


def check_power_of_two(what: str, value: int, lowest: int, highest: int) -> None:
    """Refuse what is no power of two within the limits.

    Args:
        what: the argument's name, and what it counts, such as "ring" or "chunk_bytes".
        value: what was given.
        lowest: the least that is allowed, a power of two.
        highest: the most that is allowed, a power of two.

    Raises:
        FastpathError: it names the nearest values that are right.
    """
    if lowest <= value <= highest and value & (value - 1) == 0:
        return
    if lowest < value < highest:
        below = 1 << (value.bit_length() - 1)
        raise wrong(f"{what} is a power of two, not {value}", f"{below} or {2 * below}")
    raise wrong(f"{what} is a power of two from {lowest} to {highest}, not {value}")


def check_port(port: str, queue: int) -> int:
    """Whether the port is there, and has the queue.

    Args:
        port: name of an interface of this network namespace.
        queue: counted from 0.

    Returns:
        the port's ifindex.

    Raises:
        FastpathError: ENODEV: there is no such port. ENETDOWN: it is down. EINVAL: it has no such
            queue.
    """
    try:
        ifindex = socket.if_nametoindex(port)
    except OSError:
        there = ", ".join(name for _, name in socket.if_nameindex() if name != "lo")
        raise FastpathError(
            f"there is no port {port} in this network namespace",
            f"there is {there}" if there else "there is none at all; is it the right namespace?",
            errno.ENODEV,
            port=port,
            queue=queue,
        ) from None
    if not _is_up(port):
        # The kernel would bind to it, and nothing would ever come.
        raise FastpathError(*_down(port), errno.ENETDOWN, port=port, queue=queue)
    count = receive_queues(port)
    if queue < 0 or (count is not None and queue >= count):
        _no_queue(port, queue, count)
    return ifindex


def _is_up(port: str) -> bool:
    """By ioctl, as /sys may show another network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sH14x", port.encode(), 0))
    return bool(struct.unpack("16sH14x", answer)[1] & 1)  # IFF_UP


def _down(port: str) -> tuple[str, str]:
    return f"port {port} is down", f"ip link set dev {port} up"


def _no_queue(port: str, queue: int, count: int | None) -> NoReturn:
    has = "" if count is None else f": it has {count}, counted from 0"
    raise FastpathError(
        f"port {port} has no queue {queue}{has}",
        f"ethtool -l {port} shows them, ethtool -L {port} combined N makes more where the driver "
        "can; frames come in on the queue that ethtool -x and -n tell",
        errno.EINVAL,
        port=port,
        queue=queue,
    )


def refuse_socket(err: int, call: str, *, port: str, queue: int, wanted: Wanted) -> NoReturn:
    """Raise what it means that an AF_XDP socket could not be had.

    Args:
        err: -errno, as of `xg_xsk_open()`.
        call: the call that failed, as `xg_xsk_open()` names it.
        port: name of the port.
        queue: number of its queue.
        wanted: what the socket was to be.

    Raises:
        PrivilegeError: CAP_NET_RAW is missing.
        FastpathError: all else; `errno` is the kernel's.
    """
    code = -err
    if code in (errno.EPERM, errno.EACCES):
        capability = "CAP_NET_ADMIN" if "BUSY_POLL" in call else "CAP_NET_RAW"
        raise PrivilegeError(
            f"no permission for an AF_XDP socket on queue {queue} of port {port}: {call}",
            f"run it as root, or with {capability} in the port's network namespace",
            code,
        )
    message, hint = _meaning(code, call, port, queue, wanted)
    raise FastpathError(message, hint, code, port=port, queue=queue)


def _meaning(code: int, call: str, port: str, queue: int, wanted: Wanted) -> tuple[str, str | None]:
    at = f"queue {queue} of port {port}"
    if code == errno.ENOSPC and call == "fill ring":
        return _too_few_chunks(at, wanted)
    if code in (errno.ENOBUFS, errno.ENOMEM) and "UMEM_REG" in call:
        return _locked_memory(wanted)
    if code in (errno.ENOBUFS, errno.ENOMEM):
        return (
            f"no memory for the rings of {at}: {call}",
            f"a smaller ring than {wanted.ring} takes less",
        )
    if code == errno.EBUSY:
        return (
            f"{at} is held by another AF_XDP socket",
            "a queue is served from one UMEM: end the other program (ss --xdp -ap names it), take "
            "another queue, or share the UMEM with umem=",
        )
    if code == errno.EOPNOTSUPP:
        return _no_support(at, port, wanted)
    if code in (errno.ENODEV, errno.ENXIO):
        return f"port {port} is gone", "it was there a moment ago; ip link shows what there is"
    if code == errno.ENETDOWN:
        return _down(port)
    if code == errno.ENOPROTOOPT and "BUSY_POLL" in call:
        return f"this kernel ({os.uname().release}) has no preferred busy polling", "it takes 5.11"
    if code == errno.EAFNOSUPPORT:
        return "this kernel has no AF_XDP", "it takes one with CONFIG_XDP_SOCKETS"
    if code == errno.EINVAL and call.startswith("bind"):
        return _refused_bind(at, port, queue, wanted)
    return f"no AF_XDP socket on {at}: {call} failed: {os.strerror(code)}", None


def _too_few_chunks(at: str, wanted: Wanted) -> tuple[str, str | None]:
    has = "" if wanted.chunks is None else f" of {wanted.chunks} chunks"
    needs = wanted.chunks_wanted
    return (
        f"the UMEM{has} has too few free ones for the rings of {at}",
        f"each socket with ring={wanted.ring} takes {needs or 2 * wanted.ring} chunks: give the "
        "UMEM more, or the ports a smaller ring",
    )


def _locked_memory(wanted: Wanted) -> tuple[str, str | None]:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    kib = -(-wanted.umem_bytes // 1024)
    limit = "" if soft == resource.RLIM_INFINITY else f" of {soft:,} bytes"
    return (
        f"a UMEM of {wanted.umem_bytes:,} bytes is more than this user's limit of locked "
        f"memory{limit} leaves",
        f"ulimit -l {kib} (or more, for all UMEMs of the user), LimitMEMLOCK={kib}K in a systemd "
        "unit, or CAP_IPC_LOCK; a smaller ring takes less",
    )


def _no_support(at: str, port: str, wanted: Wanted) -> tuple[str, str | None]:
    if wanted.mode == "zerocopy":
        return (
            f"the driver of port {port} has no zero-copy AF_XDP"
            + (", or none for frames over several chunks" if wanted.multi_buffer else ""),
            'mode="copy" works with every driver, mode="auto" takes the better of both',
        )
    return (
        f"the driver of port {port} refuses {at} with what the socket asks for",
        'mode="copy" works with every driver',
    )


def _refused_bind(at: str, port: str, queue: int, wanted: Wanted) -> tuple[str, str | None]:
    count = receive_queues(port)
    if count is not None and queue >= count:
        _no_queue(port, queue, count)
    if wanted.multi_buffer:
        return (
            f"the kernel refuses {at} with frames over several chunks",
            f"that takes kernel 6.6 (this is {os.uname().release}); with an MTU up to "
            f"{4096 - 256 - 22} no frame needs several",
        )
    return (
        f"the kernel refuses {at} (a UMEM of {wanted.umem_bytes:,} bytes in chunks of "
        f"{wanted.chunk_bytes}, mode {wanted.mode})",
        f"ethtool -l {port} shows which queues are in use now; sockets that share a UMEM must be "
        "of one mode",
    )
