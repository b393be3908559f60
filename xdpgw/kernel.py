"""Kernel objects as Python holds them: an object's programs and maps, links, pins. All by file descriptor.

Spec, object, attachment: bytes become a `BpfObject`, its `load` makes `Map`s and `Program`s, `Link.attach`
puts a program on a port. Each owns its descriptor and closes it once, in `close` or at the end of a `with`;
what an object lends (`BpfObject.map`, `.program`) lives as long as the object. Links and pins outlive both.

The errno of a refusal becomes the sentence that an operator needs; `raise KernelError(errno)` is what is left.
"""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, overload

from xdpgw._native import ffi, lib
from xdpgw.bpffs import ensure_bpffs, netns_inode
from xdpgw.errors import (
    AbiMismatch,
    BusyError,
    KernelError,
    PrivilegeError,
    UnsupportedError,
    VerifierError,
)
from xdpgw.holder import Holder, holder_of

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
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

MAP_TYPES = {
    "hash": 1,
    "array": 2,
    "percpu_hash": 5,
    "percpu_array": 6,
    "lru_hash": 9,
    "lru_percpu_hash": 10,
    "lpm_trie": 11,
    "devmap": 14,
    "xskmap": 17,
    "ringbuf": 27,
}
"""enum bpf_map_type."""

_PER_CPU = frozenset({5, 6, 10})
_MODE_FLAGS = {"native": 1 << 2, "generic": 1 << 1}  # XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
_XDP_HAS_FRAGS = 1 << 5  # BPF_F_XDP_HAS_FRAGS
_ENOTSUPP = 524  # the kernel's own; no errno of user space
_TEST_ROOM_BYTES = 4096  # a test run's frame is one page at most, unless the program takes frags


def possible_cpus() -> int:
    """CPUs that may ever come up: per-CPU maps have a value for each."""
    return _checked(lib.xg_possible_cpus(), "counting the possible CPUs")


def _fail(err: int, doing: str, hint: str | None = None) -> NoReturn:
    """Raise what -errno means: `doing` is the call with its arguments, as a noun."""
    code = -err
    if code in (errno.EPERM, errno.EACCES):
        raise PrivilegeError(
            f"no permission for {doing}",
            hint or "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON "
            "(before kernel 5.8: CAP_SYS_ADMIN)",
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
    raise KernelError(f"{doing} failed", hint, code)


def _checked(result: int, doing: str, hint: str | None = None) -> int:
    if result < 0:
        _fail(result, doing, hint)
    return result


class _Handle:
    """A file descriptor with one owner: this object, or the BpfObject that lends it."""

    def __init__(self, fd: int, lender: BpfObject | None = None) -> None:
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
        """Give the descriptor back; twice is fine. What an object lends is the object's to close."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._lender is None:
            os.close(fd)

    def pin(self, path: Path | str) -> None:
        """Make it outlive this process under a name on a bpffs.

        Raises:
            KernelError: the name is taken (EEXIST), or the path is not on a bpffs.
        """
        _checked(
            lib.xg_pin(self.fileno(), os.fsencode(path)),
            f"pinning {type(self).__name__.lower()} at {path}",
            "pins live on a BPF file system, such as /sys/fs/bpf",
        )

    @classmethod
    def from_pin(cls, path: Path | str) -> Self:
        """Open what is pinned under a name.

        Raises:
            KernelError: nothing is (ENOENT).
        """
        fd = ffi.new("int *")
        _checked(lib.xg_pin_get(os.fsencode(path), fd), f"opening the pin {path}")
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


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What a map is."""

    type: int
    """enum bpf_map_type."""
    id: int
    name: str
    key_size: int
    """Bytes."""
    value_size: int
    """Bytes, of one CPU where the map is per CPU."""
    max_entries: int
    flags: int


class Map(_Handle):
    """A map. Keys and values are bytes as they lie in memory; those of per-CPU maps hold all CPUs."""

    _info: MapInfo | None = None

    @classmethod
    def create(
        cls, kind: str, name: str, *, key: int, value: int, entries: int, flags: int = 0
    ) -> Map:
        """Create a map.

        Args:
            kind: a key of `MAP_TYPES`.
            name: at most 15 letters, digits, `_` and `.`.
            key: bytes of a key.
            value: bytes of a value.
            entries: its capacity.
            flags: BPF_F_* of linux/bpf.h.

        Raises:
            KernelError: the kernel refuses (EINVAL), or has no memory for it.
        """
        fd = ffi.new("int *")
        code = lib.xg_map_create(MAP_TYPES[kind], name.encode(), key, value, entries, flags, fd)
        _checked(code, f"creating the {kind} map {name} of {entries} entries")
        return cls(int(fd[0]))

    @classmethod
    def from_id(cls, map_id: int) -> Map:
        """Open a map by the kernel's number for it."""
        fd = ffi.new("int *")
        _checked(lib.xg_map_fd_by_id(map_id, fd), f"opening map {map_id}")
        return cls(int(fd[0]))

    def info(self) -> MapInfo:
        """What the map is; asked for once, as it cannot change."""
        if self._info is None:
            raw = ffi.new("struct xg_map_info *")
            _checked(lib.xg_map_info(self.fileno(), raw), "reading a map's description")
            self._info = MapInfo(
                raw.type,
                raw.id,
                ffi.string(raw.name, 16).decode(),
                raw.key_bytes,
                raw.value_bytes,
                raw.max_entries,
                raw.flags,
            )
        return self._info

    @property
    def value_bytes(self) -> int:
        """Bytes of a whole value: where the map is per CPU, each CPU's share rounded up to 8."""
        info = self.info()
        if info.type in _PER_CPU:
            return -(-info.value_size // 8) * 8 * possible_cpus()
        return info.value_size

    def lookup(self, key: bytes) -> bytes:
        """The value of a key.

        Raises:
            KeyError: it has none.
        """
        value = ffi.new("char[]", self.value_bytes)
        err = lib.xg_map_lookup(self.fileno(), self._key(key), value)
        if err == -errno.ENOENT:
            raise KeyError(key)
        _checked(err, f"a lookup in map {self.info().name}")
        return bytes(ffi.buffer(value))

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value of a key.

        Args:
            key: as many bytes as the map's keys have.
            value: `value_bytes` bytes.
            flags: 0 any, 1 BPF_NOEXIST, 2 BPF_EXIST.

        Raises:
            KernelError: E2BIG, ENOSPC: the map is full. EEXIST, ENOENT: as the flags say.
        """
        if len(value) != self.value_bytes:
            raise ValueError(f"map {self.info().name} takes values of {self.value_bytes} bytes")
        err = lib.xg_map_update(self.fileno(), self._key(key), ffi.from_buffer(value), flags)
        _checked(err, f"an update of map {self.info().name}")

    def update_all_cpus(self, key: bytes, value: bytes) -> None:
        """Set the value of a key to the same bytes for each CPU; a plain update where not per CPU."""
        if self.info().type in _PER_CPU:
            value = value.ljust(-(-self.info().value_size // 8) * 8, b"\0") * possible_cpus()
        self.update(key, value)

    def update_many(self, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """Set many keys at once: one system call where the kernel can.

        Args:
            keys: shape (n, ...), n keys of the map's key size.
            values: shape (n, ...), n values of `value_bytes`.

        Raises:
            KernelError: the map is full, or the like; the first ones may be in then.
        """
        import numpy as np

        n, info = len(keys), self.info()
        keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
        if keys.nbytes != n * info.key_size or values.nbytes != n * self.value_bytes:
            raise ValueError(
                f"map {info.name} takes keys of {info.key_size} and values of {self.value_bytes} "
                f"bytes; {n} pairs came in {keys.nbytes} and {values.nbytes}"
            )
        done = ffi.new("uint32_t *")
        err = lib.xg_map_update_many(self.fileno(), _pointer(keys), _pointer(values), n, done)
        _checked(
            err,
            f"writing entry {done[0]} of {n} into map {info.name} "
            f"(it takes {info.max_entries} entries)",
        )

    def delete(self, key: bytes) -> None:
        """Remove a key.

        Raises:
            KeyError: it is not there.
        """
        err = lib.xg_map_delete(self.fileno(), self._key(key))
        if err == -errno.ENOENT:
            raise KeyError(key)
        _checked(err, f"a delete in map {self.info().name}")

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) pairs, in the map's order. Keys that come or go meanwhile may be missed."""
        for key in self._keys():
            try:
                yield key, self.lookup(key)
            except KeyError:
                continue

    def _keys(self) -> list[bytes]:
        """Collected first, as the kernel starts over behind a key that was removed meanwhile."""
        keys: dict[bytes, None] = {}
        at, following = ffi.NULL, ffi.new("char[]", self.info().key_size)
        while True:
            err = lib.xg_map_next_key(self.fileno(), at, following)
            if err == -errno.ENOENT:
                return list(keys)
            _checked(err, f"walking map {self.info().name}")
            key = bytes(ffi.buffer(following))
            if key in keys:
                return list(keys)
            keys[key] = None
            at = ffi.new("char[]", key)

    def array(self) -> NDArray[np.uint8]:
        """All values of an array map, shape (max_entries, value_bytes)."""
        import numpy as np

        info = self.info()
        out = np.empty((info.max_entries, self.value_bytes), np.uint8)
        err = lib.xg_map_read_array(self.fileno(), len(out), _pointer(out), out.nbytes)
        _checked(err, f"reading map {info.name}")
        return out

    def percpu(self) -> NDArray[np.uint64]:
        """All values of a per-CPU array of 64-bit numbers, shape (max_entries, cpus, numbers).

        Each number is whole, but writers go on meanwhile.

        Raises:
            KernelError: the map is not an array.
        """
        import numpy as np

        if self.info().type not in _PER_CPU or self.info().value_size % 8:
            raise ValueError(f"map {self.info().name} has no 64-bit numbers for each CPU")
        return self.array().view(np.uint64).reshape(self.info().max_entries, possible_cpus(), -1)

    def _key(self, key: bytes) -> Any:
        # A key of another length would make the kernel read past it.
        if len(key) != self.info().key_size:
            raise ValueError(f"map {self.info().name} has keys of {self.info().key_size} bytes")
        return ffi.from_buffer(key)


@dataclass(frozen=True, slots=True)
class ProgInfo:
    """What a program is, and what it cost."""

    type: int
    """enum bpf_prog_type."""
    id: int
    name: str
    """As the kernel keeps it, 15 bytes at most."""
    tag: str
    """Hash of its instructions, hexadecimal."""
    load_time_ns: int
    """CLOCK_BOOTTIME."""
    xlated_bytes: int
    jited_bytes: int
    """0: interpreted."""
    verified_insns: int | None
    """Instructions that the verifier walked; None before kernel 5.16."""
    run_time_ns: int
    """Grows only while kernel.bpf_stats_enabled is 1, as `run_count`."""
    run_count: int


@dataclass(frozen=True, slots=True)
class TestRun:
    """One BPF_PROG_TEST_RUN."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    retval: int
    """What the program returned: enum xdp_action."""
    data: bytes
    """The frame after the run."""
    duration_ns: int
    """Mean of the runs."""


class Program(_Handle):
    """A program that passed the verifier."""

    @classmethod
    def from_id(cls, prog_id: int) -> Program:
        """Open a program by the kernel's number for it."""
        fd = ffi.new("int *")
        _checked(lib.xg_prog_fd_by_id(prog_id, fd), f"opening program {prog_id}")
        return cls(int(fd[0]))

    def info(self) -> ProgInfo:
        """What the program is, and has run so far."""
        raw = ffi.new("struct xg_prog_info *")
        _checked(lib.xg_prog_info(self.fileno(), raw), "reading a program's description")
        return ProgInfo(
            type=raw.type,
            id=raw.id,
            name=ffi.string(raw.name, 16).decode(),
            tag=bytes(raw.tag).hex(),
            load_time_ns=raw.load_time_ns,
            xlated_bytes=raw.xlated_bytes,
            jited_bytes=raw.jited_bytes,
            verified_insns=raw.verified_insns or None,
            run_time_ns=raw.run_time_ns,
            run_count=raw.run_count,
        )

    def test_run(self, frame: bytes, repeat: int = 1) -> TestRun:
        """Run the program on a copy of one frame; it sends and redirects nothing.

        Args:
            frame: 14 bytes at least.
            repeat: how often. More than once costs about 8 ms a call on top.
        """
        out = ffi.new("char[]", max(_TEST_ROOM_BYTES, 2 * len(frame)))
        out_len = ffi.new("uint32_t *", len(out))
        retval, duration = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        err = lib.xg_prog_test_run(
            self.fileno(), ffi.from_buffer(frame), len(frame), repeat, out, out_len, retval, duration
        )
        _checked(err, f"a test run on a frame of {len(frame)} bytes")
        return TestRun(int(retval[0]), bytes(ffi.buffer(out, out_len[0])), int(duration[0]))

    @overload
    def test_many(
        self, frames: Sequence[bytes], explained: Map
    ) -> tuple[NDArray[np.uint32], NDArray[np.void]]: ...

    @overload
    def test_many(self, frames: Sequence[bytes]) -> tuple[NDArray[np.uint32], None]: ...

    def test_many(
        self, frames: Sequence[bytes], explained: Map | None = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.void] | None]:
        """Run the program once on each of many frames, in one call.

        Args:
            frames: 14 bytes at least, each.
            explained: the map (ARRAY of one struct xg_event) to read after each run.

        Returns:
            what the program returned, shape (n,), and what the map held, shape (n,) of
            `_abi.event_dtype()`; None without the map.
        """
        import numpy as np

        from xdpgw import _abi

        lens = np.fromiter(map(len, frames), np.uint32, len(frames))
        offsets = np.zeros(len(frames), np.uintp)
        np.cumsum(lens[:-1], out=offsets[1:])
        retvals = np.zeros(len(frames), np.uint32)
        events: NDArray[np.void] | None = None
        if explained is not None:
            events = np.zeros(len(frames), _abi.event_dtype())
            if explained.value_bytes != events.itemsize or explained.info().key_size != 4:
                raise AbiMismatch(
                    f"map {explained.info().name} does not hold struct xg_event",
                    struct="xg_event",
                    wanted=events.itemsize,
                    got=explained.value_bytes,
                )
        done = ffi.new("uint32_t *")
        err = lib.xg_prog_test_many(
            self.fileno(),
            ffi.from_buffer(b"".join(frames)),
            _pointer(offsets, "size_t *"),
            _pointer(lens, "uint32_t *"),
            len(frames),
            -1 if explained is None else explained.fileno(),
            _pointer(retvals, "uint32_t *"),
            ffi.NULL if events is None else _pointer(events, "struct xg_event *"),
            done,
        )
        if err < 0:
            length = len(frames[done[0]])
            _fail(err, f"a test run on frame {done[0]} of {len(frames)}, {length} bytes long")
        return retvals, events

    def live_frames(self, frame: bytes, ifindex: int, repeat: int, batch: int = 0) -> None:
        """Have a frame enter the program as if a port had received it; verdicts are carried out.

        Args:
            frame: 14 bytes at least.
            ifindex: the port.
            repeat: how many frames.
            batch: frames between two flushes, at most 256; 0 for the kernel's own 64.

        Raises:
            UnsupportedError: a kernel before 5.18.
        """
        err = lib.xg_prog_live_frames(
            self.fileno(), ifindex, ffi.from_buffer(frame), len(frame), repeat, batch
        )
        _checked(err, f"running {repeat} live frames of {len(frame)} bytes on ifindex {ifindex}")


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What a link ties together."""

    id: int
    prog_id: int
    ifindex: int
    """0: the port is gone."""


class Link(_Handle):
    """A program on a port, for as long as the link or a pin of it is held."""

    @classmethod
    def attach(cls, program: Program, ifindex: int, mode: str) -> Link:
        """Put a program on a port of this network namespace.

        Args:
            program: of type XDP.
            ifindex: the port.
            mode: native or generic.

        Raises:
            BusyError: the port has a program already; `holder` names it.
            PrivilegeError: CAP_NET_ADMIN (and CAP_BPF) are missing.
            UnsupportedError: the driver has no native mode.
            KernelError: the port is gone, or its driver refuses it as it is set up (its MTU, its queues).
        """
        fd = ffi.new("int *")
        err = lib.xg_link_attach_xdp(program.fileno(), ifindex, _MODE_FLAGS[mode], fd)
        if err < 0:
            _refuse_attach(-err, ifindex, mode)
        return cls(int(fd[0]))

    @classmethod
    def from_id(cls, link_id: int) -> Link:
        """Open a link by the kernel's number for it."""
        fd = ffi.new("int *")
        _checked(lib.xg_link_fd_by_id(link_id, fd), f"opening link {link_id}")
        return cls(int(fd[0]))

    def info(self) -> LinkInfo:
        """What the link ties together now."""
        raw = ffi.new("struct xg_link_info *")
        _checked(lib.xg_link_info(self.fileno(), raw), "reading a link's description")
        return LinkInfo(raw.id, raw.prog_id, raw.ifindex)

    def update(self, program: Program, expected: Program | None = None) -> None:
        """Change programs between two packets; none goes unfiltered.

        Args:
            program: the new one.
            expected: the one that must be there now; None for any.

        Raises:
            KernelError: ENOLINK: the port is gone; EPERM: another program than `expected` is there.
        """
        old = -1 if expected is None else expected.fileno()
        err = lib.xg_link_update(self.fileno(), program.fileno(), old)
        if err == -errno.ENOLINK:
            raise KernelError("the port of this link is gone", "attach anew", errno.ENOLINK)
        if err == -errno.EPERM and expected is not None and self._runs_another(expected):
            raise BusyError(
                "the port runs another program than expected",
                "another process changed it meanwhile; try again",
                errno.EPERM,
                holder=f"program {self.info().prog_id}",
            )
        _checked(err, "changing the program of a link")

    def _runs_another(self, expected: Program) -> bool:
        return self.info().prog_id != expected.info().id

    def detach(self) -> None:
        """Take the program off the port now, whoever else holds the link."""
        _checked(lib.xg_link_detach(self.fileno()), "detaching a link")


class BpfObject:
    """An ELF file of programs and maps, and after `load` the kernel's objects made of it."""

    def __init__(self, elf: bytes, *, name: str) -> None:
        """Parse an object; touches no kernel state.

        Args:
            elf: the file's bytes.
            name: names its .rodata in the kernel; at most 15 letters, digits and `_`.

        Raises:
            KernelError: it is no BPF object that this libbpf understands.
        """
        self._object: Any = None
        out = ffi.new("struct xg_object **")
        err = lib.xg_object_open(ffi.from_buffer(elf), len(elf), name.encode(), out)
        if err < 0:
            raise KernelError(
                f"{name} is not a BPF object that libbpf understands", "build it anew", _errno(err)
            )
        self._name = name
        self._object = out[0]

    def load(
        self,
        *,
        rodata: bytes | None = None,
        symbol: str = "cfg",
        entries: Mapping[str, int] | None = None,
        reuse: Mapping[str, Map] | None = None,
        frags: Sequence[str] = (),
    ) -> None:
        """Create the maps and have the kernel verify the programs; loads once.

        Args:
            rodata: the bytes of the read-only constant `symbol`; as compiled if None.
            symbol: a `const volatile` global of the object.
            entries: max_entries of maps, by name.
            reuse: maps to take instead of new ones, by name.
            frags: programs that take frames of several buffers (BPF_F_XDP_HAS_FRAGS, kernel 5.18).

        Raises:
            VerifierError: with the verifier's log.
            AbiMismatch: the constant or a map to reuse has another layout than the object.
            PrivilegeError: CAP_BPF and CAP_NET_ADMIN are missing.
            KernelError: no such map, out of memory, or the like.
        """
        handle = self._handle()
        if rodata is not None:
            self._set_rodata(symbol, rodata)
        for name, count in (entries or {}).items():
            self._named(lib.xg_object_map_set_entries(handle, name.encode(), count), "map", name)
        for name, kept in (reuse or {}).items():
            self._reuse(name, kept)
        for name in frags:
            err = lib.xg_object_prog_set_flags(handle, name.encode(), _XDP_HAS_FRAGS)
            self._named(err, "program", name)
        err = lib.xg_object_load(handle)
        if err < 0:
            self._refuse_load(-err)

    def _set_rodata(self, symbol: str, value: bytes) -> None:
        err = lib.xg_object_set_rodata(
            self._handle(), symbol.encode(), ffi.from_buffer(value), len(value)
        )
        if err == -errno.EMSGSIZE:
            raise AbiMismatch(
                f"the constant {symbol} of {self._name} is not {len(value)} bytes long",
                "build it anew: make build",
                struct=symbol,
                wanted=len(value),
            )
        self._named(err, "constant", symbol)

    def _reuse(self, name: str, kept: Map) -> None:
        before = len(self.log)
        err = lib.xg_object_map_reuse(self._handle(), name.encode(), kept.fileno())
        if err == -errno.EMEDIUMTYPE:
            raise AbiMismatch(
                self.log[before:].strip(),
                "another version of xdpgw made it: xdpgw detach, then start anew",
                struct=name,
            )
        self._named(err, "map", name)

    def _named(self, err: int, what: str, name: str) -> None:
        if err == -errno.ENOENT:
            raise KernelError(f"{self._name} has no {what} {name}", None, errno.ENOENT)
        _checked(err, f"setting up {what} {name} of {self._name}")

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
            _fail(-code, f"loading {self._name}")
        said = [x.removeprefix("libbpf: ") for x in log.splitlines() if x.strip()]
        raise KernelError(f"loading {self._name} failed", said[0] if said else None, code)

    @property
    def log(self) -> str:
        """What libbpf and the verifier said so far."""
        text: bytes = ffi.string(lib.xg_object_log(self._handle()))
        return text.decode(errors="replace")

    def map_names(self) -> list[str]:
        """The maps that the source declares, in its order; not .rodata and its like."""
        names = []
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


def _pointer(array: NDArray[Any], kind: str = "char *") -> Any:
    """The memory of a contiguous array, which must outlive the pointer's use."""
    return ffi.cast(kind, array.ctypes.data)


# Why a port refuses a program


def _refuse_attach(code: int, ifindex: int, mode: str) -> NoReturn:
    import socket

    try:
        port = socket.if_indextoname(ifindex)
    except OSError:
        raise KernelError(
            f"no interface {ifindex} in this network namespace",
            "xdpgw --netns NAME looks into another one",
            errno.ENODEV,
        ) from None
    generic = 'generic mode takes it: mode = "generic"'
    if code in (errno.EBUSY, errno.EEXIST):
        holder = holder_of(ifindex)
        raise BusyError(
            f"port {port} is held by {holder or 'another XDP program, or one on the bond above it'}",
            holder.remedy(port) if holder else f"bpftool net show dev {port} tells more",
            code,
            holder=str(holder) if holder else None,
        )
    if code in (errno.EPERM, errno.EACCES):
        _fail(-code, f"attaching a program to port {port}")
    if code == errno.EOPNOTSUPP and mode == "native":
        raise UnsupportedError(
            f"port {port} has no native XDP, or not with the offloads that it has on",
            f"{generic}; some drivers want: ethtool -K {port} lro off",
            code,
            feature="native XDP",
        )
    if mode == "native" and code in (errno.ERANGE, errno.EMSGSIZE, errno.EINVAL):
        mtu, limit = _mtu(port), _mtu_limit()
        if code == errno.ERANGE or mtu > limit:
            raise KernelError(
                f"port {port} or its peer has an MTU (here {mtu}) over what native XDP takes: "
                f"{limit} on a page of {os.sysconf('SC_PAGESIZE')} bytes, a little less or more by driver",
                f"ip link set dev {port} mtu {min(1500, limit)} (veth: both ends), or {generic}",
                code,
            )
    if mode == "native" and code in (errno.ENOSPC, errno.ENOMEM):
        raise KernelError(
            f"port {port} has too few queues for native XDP",
            f"give it some: ethtool -L {port} (veth: rx at least the peer's tx), or {generic}",
            code,
        )
    _fail(-code, f"attaching a program to port {port} in {mode} mode")


def _mtu(port: str) -> int:
    """By ioctl, as /sys may show another network namespace."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, 0x8921, struct.pack("16sI12x", port.encode(), 0))  # SIOCGIFMTU
    mtu: int = struct.unpack("16sI12x", answer)[1]
    return mtu


def _mtu_limit() -> int:
    """One buffer is a page less XDP's headroom, the kernel's struct skb_shared_info and the Ethernet header."""
    return os.sysconf("SC_PAGESIZE") - 256 - 320 - 14
