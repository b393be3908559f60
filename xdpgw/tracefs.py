"""The kernel's tracepoints, as tracefs lists them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from xdpgw.errors import KernelError, PrivilegeError, UnsupportedError
from xdpgw.mounts import KernelFs

__all__ = ["ensure_tracefs", "event_id"]

_TRACEFS = KernelFs("tracefs", "tracefs", Path("/sys/kernel/tracing"), os.path.ismount)


def ensure_tracefs() -> tuple[Path, bool]:
    """Find tracefs, or mount it at /sys/kernel/tracing, where it then stays.

    Returns:
        its root, and whether it was mounted by this call.

    Raises:
        PrivilegeError: there is none, and mounting one takes root.
        KernelError: there is none, and mounting one failed.
    """
    return _TRACEFS.ensure()


def event_id(root: Path, event: str) -> int:
    """The kernel's number for a tracepoint.

    Args:
        root: of tracefs.
        event: such as `syscalls/sys_enter_openat`.

    Raises:
        UnsupportedError: this kernel has no such tracepoint.
        PrivilegeError: tracefs is not for this user to read.
    """
    path = root / "events" / event / "id"
    try:
        return int(path.read_text())
    except PermissionError as error:
        raise PrivilegeError(
            f"no permission to read {path}",
            "run it as root, or with CAP_DAC_READ_SEARCH",
            error.errno,
        ) from error
    except FileNotFoundError as error:
        release = os.uname().release
        raise UnsupportedError(
            f"this kernel ({release}) has no tracepoint {event}",
            "it takes a kernel with CONFIG_FTRACE_SYSCALLS",
            errno.ENOENT,
            feature=f"tracepoint {event}",
            kernel=release,
        ) from error
    except OSError as error:
        raise KernelError(f"cannot read {path}: {error.strerror}", None, error.errno) from error
