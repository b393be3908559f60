"""Where pins live: the BPF file system, and the network namespace that names a folder in it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

from xdpgw._native import lib
from xdpgw.errors import KernelError, PrivilegeError
from xdpgw.processes import ancestors

__all__ = ["ensure_bpffs", "is_bpffs", "netns_inode"]

_HERE = Path("/sys/fs/bpf")


def is_bpffs(path: Path) -> bool:
    """Whether a path lies on a mounted BPF file system; False where it cannot be looked at."""
    return bool(lib.xg_is_bpffs(os.fsencode(path)) == 1)


def ensure_bpffs() -> Path:
    """Find the BPF file system that outlives this process, or mount it at /sys/fs/bpf.

    `ip netns exec` gives a command a /sys of its own, without the bpffs and gone with the command.
    The processes that started it still see the real one, so it is looked for, and mounted, there.

    Returns:
        its root: /sys/fs/bpf, or the same seen through a process that started this one.

    Raises:
        PrivilegeError: there is none, and mounting one takes root.
        KernelError: there is none, and mounting one failed.
    """
    complaints = []
    if found := _find():
        return found
    for command in _mount_commands():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if found := _find():
            return found
        complaints.append(done.stderr.strip() or f"{command[0]}: exit status {done.returncode}")
    hint = "mount it: mount -t bpf bpf /sys/fs/bpf"
    if os.geteuid() != 0:
        raise PrivilegeError(
            "no BPF file system is mounted at /sys/fs/bpf", hint + " (as root)", errno=errno.EPERM
        )
    raise KernelError(
        f"no BPF file system could be mounted at /sys/fs/bpf: {'; '.join(complaints)}",
        hint,
        errno=errno.ENODEV,
    )


def netns_inode() -> int:
    """The inode of the calling thread's network namespace: the number in `net:[4026531840]`."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def _find() -> Path | None:
    return next((path for path in (_HERE, *map(_seen_by, ancestors())) if is_bpffs(path)), None)


def _seen_by(pid: int) -> Path:
    return Path(f"/proc/{pid}/root{_HERE}")


def _mount_commands() -> list[list[str]]:
    """Ways to mount, best first: in the mount namespace that lives longest."""
    mount = ["mount", "-t", "bpf", "bpf", str(_HERE)]
    enter = [["nsenter", f"--mount=/proc/{pid}/ns/mnt", *mount] for pid in reversed([*ancestors()])]
    return [command for command in (*enter, mount) if shutil.which(command[0])]
