"""Maps of the kernel, by file descriptor: single entries as bytes, whole tables as numpy arrays."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xdpgw._native import ffi, lib
from xdpgw.handles import Handle, checked, fail, possible_cpus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAP_TYPES", "Map", "MapInfo", "pointer_to"]

MAP_TYPES = {
    "hash": 1,
    "array": 2,
    "prog_array": 3,
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


class Map(Handle):
    """A map. Keys and values are bytes as they lie in memory; per-CPU values hold all CPUs."""

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
        checked(code, f"creating the {kind} map {name} of {entries} entries")
        return cls(int(fd[0]))

    @classmethod
    def from_id(cls, map_id: int) -> Map:
        """Open a map by the kernel's number for it."""
        fd = ffi.new("int *")
        checked(lib.xg_map_fd_by_id(map_id, fd), f"opening map {map_id}")
        return cls(int(fd[0]))

    def info(self) -> MapInfo:
        """What the map is; asked for once, as it cannot change."""
        if self._info is None:
            raw = ffi.new("struct xg_map_info *")
            checked(lib.xg_map_info(self.fileno(), raw), "reading a map's description")
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
        checked(err, f"a lookup in map {self.info().name}")
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
        checked(err, f"an update of map {self.info().name}")

    def update_many(self, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """Set many keys at once: one system call where the kernel can.

        Args:
            keys: shape (n, ...), n keys of the map's key size.
            values: shape (n, ...), n values of `value_bytes`.

        Raises:
            KernelError: the map is full, or the like; the first ones may be in then.
        """
        done, err = self._write(keys, values)
        info = self.info()
        checked(
            err,
            f"writing entry {done} of {len(keys)} into map {info.name} "
            f"(it takes {info.max_entries} entries)",
        )

    def zero(self, numbers: Sequence[int]) -> None:
        """Clear these entries of an array, on each CPU where it is per CPU."""
        import numpy as np

        keys = np.array(numbers, np.uint32)
        self.update_many(keys, np.zeros((len(keys), self.value_bytes), np.uint8))

    def fill(self, keys: NDArray[Any], values: NDArray[Any]) -> int:
        """As `update_many`, but that a map is full or the kernel out of memory is no error.

        Returns:
            how many were set, the first ones.
        """
        done, at_once, err = 0, -1, -errno.ENOMEM
        while err == -errno.ENOMEM and at_once:
            # The kernel's stock for a map that is not preallocated fills up between two calls.
            at_once, err = self._write(keys[done:], values[done:])
            done += at_once
        if err not in (-errno.E2BIG, -errno.ENOMEM):
            checked(err, f"writing entry {done} of {len(keys)} into map {self.info().name}")
        return done

    def _write(self, keys: NDArray[Any], values: NDArray[Any]) -> tuple[int, int]:
        """How many pairs got in, and 0 or -errno."""
        import numpy as np

        n, info = len(keys), self.info()
        keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
        if keys.nbytes != n * info.key_size or values.nbytes != n * self.value_bytes:
            raise ValueError(
                f"map {info.name} takes keys of {info.key_size} and values of {self.value_bytes} "
                f"bytes; {n} pairs came in {keys.nbytes} and {values.nbytes}"
            )
        done = ffi.new("uint32_t *")
        err = lib.xg_map_update_many(self.fileno(), pointer_to(keys), pointer_to(values), n, done)
        return int(done[0]), err

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """All keys and values of a hash map that nobody writes meanwhile.

        Returns:
            shapes (n, key bytes) and (n, value bytes), in the map's order.
        """
        import numpy as np

        info = self.info()
        keys = np.empty((info.max_entries, info.key_size), np.uint8)
        values = np.empty((info.max_entries, info.value_size), np.uint8)
        done = ffi.new("uint32_t *")
        err = lib.xg_map_read_hash(
            self.fileno(), pointer_to(keys), pointer_to(values), len(keys), done
        )
        checked(err, f"reading map {info.name}")
        return keys[: done[0]], values[: done[0]]

    def delete_many(self, keys: NDArray[Any]) -> None:
        """Remove many keys of a hash map, all of which are there.

        Args:
            keys: shape (n, ...), n keys of the map's key size.
        """
        import numpy as np

        keys, done = np.ascontiguousarray(keys), ffi.new("uint32_t *")
        if keys.nbytes != len(keys) * self.info().key_size:
            raise ValueError(f"map {self.info().name} has keys of {self.info().key_size} bytes")
        err = lib.xg_map_delete_many(self.fileno(), pointer_to(keys), len(keys), done)
        checked(err, f"deleting key {done[0]} of {len(keys)} in map {self.info().name}")

    def delete(self, key: bytes) -> None:
        """Remove a key.

        Raises:
            KeyError: it is not there.
        """
        err = lib.xg_map_delete(self.fileno(), self._key(key))
        if err == -errno.ENOENT:
            raise KeyError(key)
        checked(err, f"a delete in map {self.info().name}")

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) pairs, in the map's order; it may miss what comes meanwhile."""
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
            checked(err, f"walking map {self.info().name}")
            key = bytes(ffi.buffer(following))
            if key in keys:
                return list(keys)
            keys[key] = None
            at = ffi.new("char[]", key)

    @contextmanager
    def memory(self) -> Iterator[NDArray[np.uint8]]:
        """All values of an array map as one writable array of bytes: the kernel's own memory.

        Of a map that was made with BPF_F_MMAPABLE, whose values are a multiple of 8 bytes. The
        array must not outlive the `with`.

        Raises:
            KernelError: it is no such map.
        """
        import mmap

        import numpy as np

        info = self.info()
        size = info.max_entries * info.value_size
        try:
            mapped = mmap.mmap(self.fileno(), size)
        except OSError as error:
            fail(-(error.errno or errno.EINVAL), f"mapping the memory of map {info.name}")
        try:
            yield np.frombuffer(mapped, np.uint8)
        finally:
            with suppress(BufferError):  # who broke the rule above keeps the memory
                mapped.close()

    def array(self, first: int | None = None) -> NDArray[np.uint8]:
        """The values of an array map, or the first so many: shape (first, value_bytes)."""
        import numpy as np

        info = self.info()
        entries = info.max_entries if first is None else first
        out = np.empty((entries, self.value_bytes), np.uint8)
        err = lib.xg_map_read_array(self.fileno(), len(out), pointer_to(out), out.nbytes)
        checked(err, f"reading map {info.name}")
        return out

    def percpu(self, first: int | None = None) -> NDArray[np.uint64]:
        """The values of a per-CPU array of 64-bit numbers, or the first so many: shape
        (first, cpus, numbers).

        Each number is whole, but writers go on meanwhile.

        Raises:
            KernelError: the map is not an array.
        """
        import numpy as np

        if self.info().type not in _PER_CPU or self.info().value_size % 8:
            raise ValueError(f"map {self.info().name} has no 64-bit numbers for each CPU")
        values = self.array(first).view(np.uint64)
        return values.reshape(len(values), possible_cpus(), self.info().value_size // 8)

    def _key(self, key: bytes) -> Any:
        # A key of another length would make the kernel read past it.
        if len(key) != self.info().key_size:
            raise ValueError(f"map {self.info().name} has keys of {self.info().key_size} bytes")
        return ffi.from_buffer(key)


def pointer_to(array: NDArray[Any], kind: str = "char *") -> Any:
    """The memory of a contiguous array, which must outlive the pointer's use."""
    return ffi.cast(kind, array.ctypes.data)
