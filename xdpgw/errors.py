"""Every error that xdpgw raises on purpose.

```
XdpgwError(hint)                                                exit status 1
├─ ConfigError(file, line, column)                                   2
├─ KernelError(errno)  PrivilegeError  UnsupportedError(feature, kernel)
│  VerifierError(log)  BusyError(holder)                             3
├─ FastpathError(errno, port, queue)                                 4
└─ AbiMismatch(struct, wanted, got)                                  5
```

`str(error)` says what failed, `error.hint` what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "AbiMismatch",
    "BusyError",
    "ConfigError",
    "Diagnostic",
    "FastpathError",
    "KernelError",
    "PrivilegeError",
    "UnsupportedError",
    "VerifierError",
    "XdpgwError",
]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong with a policy, and where.

    Args:
        file: the file as the user named it.
        line: counted from 1; 0 where the file as a whole is meant.
        column: in characters, counted from 1; 0 where the file as a whole is meant.
        message: what is wrong.
        hint: what to write instead; None if there is nothing better to say.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class XdpgwError(Exception):
    """What xdpgw could not do, with a hint what to do about it."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(XdpgwError):
    """A policy that is wrong; carries everything that is wrong with it.

    `str(error)` is a line a diagnostic, each with its own hint; `error.hint` is None.

    Args:
        diagnostics: at least one, in the order to be read.
    """

    exit_status = 2

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        first = self.diagnostics[0]
        self.file, self.line, self.column = first.file, first.line, first.column
        super().__init__("\n".join(map(str, self.diagnostics)))


class _KernelSide(XdpgwError):
    exit_status = 3

    def __init__(self, message: str, hint: str | None = None, errno: int | None = None) -> None:
        super().__init__(message, hint)
        self.errno = errno


class KernelError(_KernelSide):
    """A system call failed.

    Args:
        errno: positive, as in the module `errno`; None where the kernel gave none.
    """


class PrivilegeError(_KernelSide):
    """The kernel refused for want of a capability."""


class UnsupportedError(_KernelSide):
    """This kernel, this driver or this version of xdpgw lacks a feature.

    Args:
        feature: what is missing.
        kernel: release of the running kernel; None where it does not matter.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        errno: int | None = None,
        *,
        feature: str | None = None,
        kernel: str | None = None,
    ) -> None:
        super().__init__(message, hint, errno)
        self.feature = feature
        self.kernel = kernel


class VerifierError(_KernelSide):
    """The kernel's verifier refused a program.

    Args:
        log: the whole log of the verifier; `str(error)` shows its last useful lines.
    """

    shown_lines: ClassVar[int] = 8

    def __init__(
        self, message: str, hint: str | None = None, errno: int | None = None, *, log: str = ""
    ) -> None:
        super().__init__(message, hint, errno)
        self.log = log

    def __str__(self) -> str:
        lines = (line.rstrip() for line in self.log.splitlines())
        useful = [line for line in lines if line and not line.startswith(_STATISTICS)]
        return "\n".join([super().__str__(), *(f"  {x}" for x in useful[-self.shown_lines :])])


_STATISTICS = ("processed ", "verification time ", "stack depth ", "-- BEGIN ", "-- END ")
"""What the verifier and libbpf write behind the reason."""


class BusyError(_KernelSide):
    """Somebody else holds what is wanted.

    Args:
        holder: who, as far as it is known.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        errno: int | None = None,
        *,
        holder: str | None = None,
    ) -> None:
        super().__init__(message, hint, errno)
        self.holder = holder


class FastpathError(XdpgwError):
    """The AF_XDP half failed.

    Args:
        errno: positive, as in the module `errno`.
        port: name of the port, if it is about one.
        queue: number of its queue, if it is about one.
    """

    exit_status = 4

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        errno: int | None = None,
        *,
        port: str | None = None,
        queue: int | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.errno, self.port, self.queue = errno, port, queue


class AbiMismatch(XdpgwError):
    """The two sides of a border do not agree about a struct.

    Args:
        struct: its name.
        wanted: what this Python was built for, such as a size or a version.
        got: what the other side has.
    """

    exit_status = 5

    def __init__(self, struct: str, wanted: object, got: object, hint: str | None = None) -> None:
        super().__init__(
            f"{struct}: this xdpgw was built for {wanted}, the other side has {got}",
            hint or "build and install both halves from the same version",
        )
        self.struct, self.wanted, self.got = struct, wanted, got
