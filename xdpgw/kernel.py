"""Kernel objects as Python holds them: all by file descriptor, each with one owner.

Spec, object, attachment: bytes become a `BpfObject`, its `load` makes `Map`s and `Program`s,
`Link.attach` puts a program on a port. Each owns its descriptor and closes it once, in `close` or
at the end of a `with`; what an object lends (`BpfObject.map`, `.program`) lives as long as the
object. Links and pins outlive both.
"""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from xdpgw._native import ffi, lib
from xdpgw.bpffs import ensure_bpffs, netns_inode
from xdpgw.errors import AbiMismatch, KernelError, VerifierError
from xdpgw.handles import checked, fail, possible_cpus
from xdpgw.holder import Holder, holder_of
from xdpgw.links import Link, LinkInfo
from xdpgw.maps import Map, MapInfo
from xdpgw.progs import ProgInfo, Program, TestRun

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "XDP_HAS_FRAGS",
    "BpfObject",
    "Holder",
    "Link",
    "LinkInfo",
    "Map",
    "MapInfo",
    "ProgInfo",
    "Program",
    "TestRun",
    "ensure_bpffs",
    "holder_of",
    "netns_inode",
    "possible_cpus",
]

XDP_HAS_FRAGS = 1 << 5
"""BPF_F_XDP_HAS_FRAGS of linux/bpf.h: the program takes frames of several buffers."""

_DIFFERENCE = re.compile(r"^map '.*': (.*): wanted (\d+), got (\d+)$", re.MULTILINE)


class BpfObject:
    """An ELF file of programs and maps, and after `load` the kernel's objects made of it."""

    def __init__(
        self, elf: bytes, *, name: str, kernel_btf: Path | None = None, debug: bool = False
    ) -> None:
        """Parse an object; touches no kernel state.

        Args:
            elf: the file's bytes.
            name: names its .rodata in the kernel; at most 15 letters, digits and `_`.
            kernel_btf: a file that describes the kernel's types, for CO-RE relocations; what the
                kernel itself says if None.
            debug: keep each step of libbpf in `log`.

        Raises:
            KernelError: it is no BPF object that this libbpf understands.
        """
        self._object: Any = None
        out = ffi.new("struct xg_object **")
        path = ffi.NULL if kernel_btf is None else ffi.new("char[]", os.fsencode(kernel_btf))
        err = lib.xg_object_open(ffi.from_buffer(elf), len(elf), name.encode(), path, out)
        if err < 0:
            raise KernelError(
                f"{name} is not a BPF object that libbpf understands", "build it anew", _errno(err)
            )
        self._name = name
        self._object = out[0]
        if debug:
            lib.xg_object_keep_debug(self._object)

    def load(
        self,
        *,
        rodata: bytes | None = None,
        symbol: str = "cfg",
        entries: Mapping[str, int] | None = None,
        reuse: Mapping[str, Map] | None = None,
        prog_flags: Mapping[str, int] | None = None,
    ) -> None:
        """Create the maps and have the kernel verify the programs; loads once.

        Args:
            rodata: the bytes of the read-only constant `symbol`; as compiled if None.
            symbol: a `const volatile` global of the object.
            entries: max_entries of maps, by name.
            reuse: maps to take instead of new ones, by name.
            prog_flags: BPF_F_* of linux/bpf.h for programs, by name.

        Raises:
            VerifierError: with the verifier's log.
            AbiMismatch: the constant or a map to reuse has another layout than the object.
            PrivilegeError: CAP_BPF and CAP_NET_ADMIN are missing.
            KernelError: no such map, out of memory, or the like.
        """
        handle = self._handle()
        if rodata is not None:
            self.set_rodata(symbol, rodata)
        for name, count in (entries or {}).items():
            self._named(lib.xg_object_map_set_entries(handle, name.encode(), count), "map", name)
        for name, kept in (reuse or {}).items():
            self._reuse(name, kept)
        for name, flags in (prog_flags or {}).items():
            err = lib.xg_object_prog_set_flags(handle, name.encode(), flags)
            self._named(err, "program", name)
        err = lib.xg_object_load(handle)
        if err < 0:
            self._refuse_load(-err)

    def set_rodata(self, symbol: str, value: bytes) -> None:
        """Set a `const volatile` global before load.

        Raises:
            AbiMismatch: it has another size.
            KernelError: there is no such global, or the object is loaded.
        """
        err = lib.xg_object_set_rodata(
            self._handle(), symbol.encode(), ffi.from_buffer(value), len(value)
        )
        if err == -errno.EMSGSIZE:
            raise AbiMismatch(symbol, f"{len(value)} bytes", "another size in the object")
        self._named(err, "constant", symbol)

    def _reuse(self, name: str, kept: Map) -> None:
        before = len(self.log)
        err = lib.xg_object_map_reuse(self._handle(), name.encode(), kept.fileno())
        if err == -errno.EMEDIUMTYPE:
            found = _DIFFERENCE.findall(self.log[before:])
            raise AbiMismatch(
                f"map {name}",
                ", ".join(f"{what} {wanted}" for what, wanted, _ in found),
                ", ".join(f"{what} {got}" for what, _, got in found),
                "another version made the kept map: xdpgw detach, then start anew",
            )
        self._named(err, "map", name)

    def _named(self, err: int, what: str, name: str) -> None:
        if err == -errno.ENOENT:
            raise KernelError(f"{self._name} has no {what} {name}", None, errno.ENOENT)
        checked(err, f"setting up {what} {name} of {self._name}")

    def _refuse_load(self, code: int) -> NoReturn:
        log = self.log
        refused = re.search(
            r"prog '([^']*)': -- BEGIN PROG LOAD LOG --\n(.*?)(?:-- END PROG LOAD LOG --|\Z)",
            log,
            re.DOTALL,
        )
        # Without CAP_BPF the kernel refuses before it verifies: EPERM, and no log.
        if refused and code != errno.EPERM:
            raise VerifierError(
                f"the kernel's verifier refuses program {refused[1]}",
                f"kernel {os.uname().release}; the whole log is in the error's `log`",
                code,
                log=refused[2],
            )
        if code in (errno.EPERM, errno.EACCES):
            fail(-code, f"loading {self._name}")
        if failed := re.search(r"map '([^']*)': failed to create", log):
            what = f"creating the map {failed[1]} of {self._name}"
            raise KernelError(f"{what} failed: {os.strerror(code)}", None, code)
        said = [x.removeprefix("libbpf: ") for x in log.splitlines() if x.strip()]
        raise KernelError(
            f"loading {self._name} failed: {os.strerror(code)}", said[0] if said else None, code
        )

    @property
    def log(self) -> str:
        """What libbpf and the verifier said so far."""
        text: bytes = ffi.string(lib.xg_object_log(self._handle()))
        return text.decode(errors="replace")

    def map_names(self) -> list[str]:
        """The maps that the source declares; not .rodata and its like."""
        names: list[str] = []
        while name := lib.xg_object_map_name(self._handle(), len(names)):
            names.append(ffi.string(name).decode())
        return names

    def map(self, name: str) -> Map:
        """A map of the loaded object, lent.

        Raises:
            KernelError: it has no such map (ENOENT), or is not loaded (EBADF).
        """
        fd = lib.xg_object_map_fd(self._handle(), name.encode())
        self._named(fd, "map", name)
        return Map(fd, self)

    def program(self, name: str) -> Program:
        """A program of the loaded object, lent.

        Raises:
            KernelError: it has no such program (ENOENT), or is not loaded (EBADF).
        """
        fd = lib.xg_object_prog_fd(self._handle(), name.encode())
        self._named(fd, "program", name)
        return Program(fd, self)

    @property
    def closed(self) -> bool:
        """Whether it was closed, and with it all that it lent."""
        return self._object is None

    def close(self) -> None:
        """Close all descriptors; twice is fine. Links and pins live on."""
        handle, self._object = self._object, None
        if handle is not None:
            lib.xg_object_close(handle)

    def _handle(self) -> Any:
        if self._object is None:
            raise ValueError("BpfObject is closed")
        return self._object

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
        if getattr(self, "_object", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"<BpfObject {self._name}>"


def _errno(err: int) -> int | None:
    """libbpf has errors of its own, from 4000 on, that no strerror knows."""
    return -err if -err < 4000 else None
