"""What can be asked of the host about a port. Unknown is None, never False."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import time

__all__ = ["jiffies", "mtu_of", "receive_queues", "single_buffer_mtu", "takes_vlan_tags", "tick_ns"]

_SIOCETHTOOL = 0x8946
_SIOCGIFMTU = 0x8921
_ETHTOOL_GFLAGS = 0x25
_ETHTOOL_GCHANNELS = 0x3C
_ETH_FLAG_RXVLAN = 1 << 8
_CLOCK_MONOTONIC_COARSE = 6


def _ethtool(port: str, request: bytes) -> bytes | None:
    """One SIOCETHTOOL, by ioctl, as /sys may show another network namespace. None: not told."""
    value = ctypes.create_string_buffer(request)
    wanted = struct.pack("16sP8x", port.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            fcntl.ioctl(probe, _SIOCETHTOOL, wanted)
        except OSError:
            return None
    return value.raw


def takes_vlan_tags(port: str) -> bool | None:
    """Whether the driver takes VLAN tags out of received frames (`rx-vlan-offload`).

    Source: ETHTOOL_GFLAGS of ethtool(2), linux/ethtool.h.
    """
    raw = _ethtool(port, struct.pack("II", _ETHTOOL_GFLAGS, 0))
    return None if raw is None else bool(struct.unpack("II", raw[:8])[1] & _ETH_FLAG_RXVLAN)


def receive_queues(port: str) -> int | None:
    """How many receive queues a port has now.

    Source: ETHTOOL_GCHANNELS (rx and combined) where the driver tells, else what the interface was
    made with (IFLA_NUM_RX_QUEUES of rtnetlink(7)). None: there is no such port.
    """
    raw = _ethtool(port, struct.pack("9I", _ETHTOOL_GCHANNELS, *[0] * 8))
    if raw is not None:
        # struct ethtool_channels: cmd, four maxima, then rx, tx, other, combined.
        channels = struct.unpack("9I", raw[:36])
        if channels[5] + channels[8]:
            return int(channels[5] + channels[8])
    from pyroute2 import IPRoute

    try:
        index = socket.if_nametoindex(port)
    except OSError:
        return None
    with IPRoute() as ip:
        return int(ip.get_links(index)[0].get_attr("IFLA_NUM_RX_QUEUES") or 1)


def mtu_of(port: str) -> int:
    """The MTU of a port, in bytes.

    Raises:
        OSError: there is no such port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, _SIOCGIFMTU, struct.pack("16sI12x", port.encode(), 0))
    mtu: int = struct.unpack("16sI12x", answer)[1]
    return mtu


def single_buffer_mtu() -> int:
    """The largest MTU, in bytes, at which a frame lies in one buffer of most drivers.

    A page less XDP's headroom, the kernel's struct skb_shared_info and the Ethernet header.
    """
    return os.sysconf("SC_PAGESIZE") - 256 - 320 - 14


def jiffies() -> int | None:
    """The kernel's count of ticks. None: /proc/timer_list is not there, or for others only."""
    try:
        with open("/proc/timer_list") as lines:
            found = (line for line in lines if line.startswith("jiffies:"))
            return next((int(line.split()[1]) for line in found), None)
    except OSError:
        return None


def tick_ns() -> int:
    """How long one of the kernel's jiffies lasts, in ns: the resolution of its coarse clocks."""
    return round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)
