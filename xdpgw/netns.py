"""Entering a network namespace without leaving the mount namespace, in which bpffs and its pins
live.

`ip netns exec` gives a command a private /sys and with it a private, soon forgotten bpffs.
setns(2) on the network namespace alone does not.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from xdpgw.errors import PrivilegeError, XdpgwError

__all__ = ["enter", "path_of"]

CLONE_NEWNET = 0x40000000
NAMED = Path("/run/netns")


def path_of(spec: str) -> Path:
    """The file of a namespace given as a name (`ip netns`), a process id or a path.

    Raises:
        XdpgwError: there is none such; nothing is created.
    """
    if "/" in spec:
        path = Path(spec)
    elif (NAMED / spec).exists():
        path = NAMED / spec
    elif spec.isdigit():
        path = Path(f"/proc/{spec}/ns/net")
    else:
        path = NAMED / spec
    if not path.exists():
        named = sorted(x.name for x in NAMED.iterdir()) if NAMED.is_dir() else []
        raise XdpgwError(
            f"no network namespace {spec}",
            f"there is {', '.join(named)}" if named else "ip netns list shows none",
        )
    return path


def enter(spec: str) -> None:
    """Move this thread, and what it starts, into a network namespace.

    Args:
        spec: as in `path_of`.

    Raises:
        XdpgwError: there is none such, or it is no network namespace.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    path = path_of(spec)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise XdpgwError(f"cannot open {path}: {error.strerror}", "run it as root") from error
    try:
        if libc.setns(fd, CLONE_NEWNET):
            err = ctypes.get_errno()
            if err == 1:
                raise PrivilegeError(
                    f"cannot enter the network namespace {spec}",
                    "it takes CAP_SYS_ADMIN: run it as root",
                )
            raise XdpgwError(
                f"cannot enter {path}: {os.strerror(err)}", "is it a network namespace?"
            )
    finally:
        os.close(fd)
