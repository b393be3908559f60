"""What can be asked of the host about a port. Unknown is None, never False."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

__all__ = ["takes_vlan_tags"]

_SIOCETHTOOL = 0x8946
_ETHTOOL_GFLAGS = 0x25
_ETH_FLAG_RXVLAN = 1 << 8


def takes_vlan_tags(port: str) -> bool | None:
    """Whether the driver takes VLAN tags out of received frames (`rx-vlan-offload`).

    Source: ETHTOOL_GFLAGS of ethtool(2), linux/ethtool.h.
    """
    value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_GFLAGS, 0))
    request = struct.pack("16sP8x", port.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            fcntl.ioctl(probe, _SIOCETHTOOL, request)
        except OSError:
            return None
    return bool(struct.unpack("II", value.raw[:8])[1] & _ETH_FLAG_RXVLAN)
