"""Where pins live: the BPF file system, and the network namespace that names a folder in it."""

from __future__ import annotations

import os
from pathlib import Path

from xdpgw._native import lib
from xdpgw.mounts import KernelFs

__all__ = ["ensure_bpffs", "is_bpffs", "netns_inode"]


def is_bpffs(path: Path) -> bool:
    """Whether a path lies on a mounted BPF file system; False where it cannot be looked at."""
    return bool(lib.xg_is_bpffs(os.fsencode(path)) == 1)


_BPFFS = KernelFs("bpf", "BPF file system", Path("/sys/fs/bpf"), is_bpffs)


def ensure_bpffs() -> Path:
    """Find the BPF file system that outlives this process, or mount it at /sys/fs/bpf.

    Returns:
        its root: /sys/fs/bpf, or the same seen through a process that started this one.

    Raises:
        PrivilegeError: there is none, and mounting one takes root.
        KernelError: there is none, and mounting one failed.
    """
    return _BPFFS.ensure()[0]


def netns_inode() -> int:
    """The inode of the calling thread's network namespace: the number in `net:[4026531840]`."""
    return os.stat("/proc/thread-self/ns/net").st_ino
