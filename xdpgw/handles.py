"""A file descriptor with one owner, and what a refusal of the kernel means.

Under all of `kernel`: the errno of a call becomes the exception that says what to do about it.
"""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, Self

from xdpgw._native import ffi, lib
from xdpgw.bpffs import is_bpffs
from xdpgw.errors import KernelError, PrivilegeError, UnsupportedError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Handle", "Lender", "checked", "fail", "possible_cpus"]

_ENOTSUPP = 524  # the kernel's own; no errno of user space


def possible_cpus() -> int:
    """CPUs that may ever come up: per-CPU maps have a value for each."""
    return checked(lib.xg_possible_cpus(), "counting the possible CPUs")


def fail(err: int, doing: str, hint: str | None = None) -> NoReturn:
    """Raise what a refusal means.

    Args:
        err: -errno.
        doing: the call with its arguments, as a noun.
        hint: what to do about it, where it is not obvious.
    """
    code = -err
    if code in (errno.EPERM, errno.EACCES):
        raise PrivilegeError(
            f"no permission for {doing}",
            hint
            or "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON "
            "(before kernel 5.8, and to open what is not pinned: CAP_SYS_ADMIN)",
            code,
        )
    if code in (errno.ENOSYS, errno.EOPNOTSUPP, _ENOTSUPP):
        raise UnsupportedError(
            f"this kernel ({os.uname().release}) cannot do it: {doing}",
            hint,
            None if code == _ENOTSUPP else code,
            feature=doing,
            kernel=os.uname().release,
        )
    raise KernelError(f"{doing} failed: {os.strerror(code)}", hint, code)


def checked(result: int, doing: str, hint: str | None = None) -> int:
    """The result of a call, or what its refusal means; see `fail`."""
    if result < 0:
        fail(result, doing, hint)
    return result


class Lender(Protocol):
    """Whoever owns descriptors and lends them."""

    @property
    def closed(self) -> bool:
        """Whether they are gone."""


class Handle:
    """A file descriptor with one owner: this object, or the one that lends it."""

    def __init__(self, fd: int, lender: Lender | None = None) -> None:
        self._fd = fd
        self._lender = lender

    def fileno(self) -> int:
        """The descriptor.

        Raises:
            ValueError: it is closed.
        """
        if self.closed:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether the descriptor was given back."""
        return self._fd < 0 or (self._lender is not None and self._lender.closed)

    def close(self) -> None:
        """Give the descriptor back; twice is fine. A lent one is the lender's to close."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._lender is None:
            os.close(fd)

    def pin(self, path: Path | str) -> None:
        """Make it outlive this process under a name on a bpffs.

        Raises:
            KernelError: the name is taken (EEXIST), or the path is not on a bpffs.
        """
        err = lib.xg_pin(self.fileno(), os.fsencode(path))
        if err in (-errno.EPERM, -errno.EINVAL) and not is_bpffs(Path(path).parent):
            raise KernelError(
                f"{path} is not on a BPF file system",
                "pins live on one, such as /sys/fs/bpf",
                -err,
            )
        checked(err, f"pinning a {type(self).__name__.lower()} at {path}")

    @classmethod
    def from_pin(cls, path: Path | str) -> Self:
        """Open what is pinned under a name.

        Raises:
            KernelError: nothing is (ENOENT).
        """
        fd = ffi.new("int *")
        checked(lib.xg_pin_get(os.fsencode(path), fd), f"opening the pin {path}")
        return cls(int(fd[0]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0 and self._lender is None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self._fd}>"
