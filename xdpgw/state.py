"""Where what outlives a filter is kept: a folder a network namespace, by a name that a reboot does
not change where there is such a name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from xdpgw.netns import NAMED

__all__ = ["DEFAULT", "ENVIRONMENT", "state_folder"]

ENVIRONMENT = "XDPGW_STATE_DIR"
DEFAULT = Path("/var/lib/xdpgw")

_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, kernel 5.14
_INITIAL_COOKIE = 1  # of the first namespace: net_ns_init() of net/core/net_namespace.c
_HERE = Path("/proc/thread-self/ns/net")


def state_folder() -> Path:
    """The folder for this thread's network namespace; it may not be there yet.

    In `$XDPGW_STATE_DIR` or /var/lib/xdpgw: `netns-NAME` for a namespace that `ip netns` names,
    `host` for the machine's or process 1's (a container's), `net-COOKIE-BOOT` for any other, which
    no reboot brings back. An inode would not do: the next namespace may get it.
    """
    return Path(os.environ.get(ENVIRONMENT) or DEFAULT) / _namespace()


def _namespace() -> str:
    here = _identity(_HERE)
    for path in sorted(NAMED.iterdir()) if NAMED.is_dir() else ():
        if _identity(path) == here:
            return f"netns-{path.name}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    cookie = int.from_bytes(raw, "little")
    if cookie == _INITIAL_COOKIE or _identity(Path("/proc/1/ns/net")) == here:
        return "host"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return f"net-{cookie}-{boot}"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
