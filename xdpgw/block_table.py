"""The maps of blocks as control writes them; what the datapath makes of them is `bpf/block.h`.

Who writes them holds `Instance.changing`, and nobody else does, so that a whole table can be read.
A block of the same source replaces the one before in one step, so that no packet slips through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xdpgw import _abi as abi

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.kernel import Map
    from xdpgw.rule_types import Prefix

__all__ = ["BlockTable", "keys_of", "lengths_of", "lines_of"]

_SINGLE_LINES = 64
"""More lines of the filter than these are cheaper read as a whole."""

_ONLY = (0).to_bytes(4, "little")


class BlockTable:
    """Blocks by source, with their ends: CLOCK_BOOTTIME in ns, 0 for none."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._blocks, self._lengths = maps["blocks"], maps["block_lengths"]
        self._filter = maps["block_filter"]

    def put(self, sources: Sequence[Prefix], ends_ns: NDArray[np.uint64]) -> int:
        """Block sources, or give those that are blocked another end.

        Args:
            sources: without host bits.
            ends_ns: shape (n,).

        Returns:
            how many got in, the first ones: fewer than n where the table is full, or the kernel
            out of memory.
        """
        import numpy as np

        keys = keys_of(sources)
        # Both lead to a block from before it is in.
        self._use(self._in_use() | lengths_of(keys))
        self._mark(keys)
        done = self._blocks.fill(keys, ends_ns.astype(np.uint64))
        if done < len(sources):
            self._settle(self._read()[0])
        return done

    def remove(self, sources: Sequence[Prefix]) -> list[bool]:
        """Unblock sources; which of them were blocked."""
        found = []
        for key in keys_of(sources):
            try:
                self._blocks.delete(key.tobytes())
                found.append(True)
            except KeyError:
                found.append(False)
        self._settle(self._read()[0])
        return found

    def clear(self) -> int:
        """Unblock all; how many there were."""
        keys, _ = self._blocks.read()
        self._blocks.delete_many(keys)
        self._settle(keys_of(()))
        return len(keys)

    def sweep(self, now_ns: int) -> int:
        """Remove blocks that are over, which block nothing any more; how many."""
        keys, ends = self._read()
        over = (ends != 0) & (ends <= now_ns)
        self._blocks.delete_many(keys[over])
        if over.any():
            self._settle(keys[~over])
        return int(over.sum())

    def blocking(self, now_ns: int) -> int:
        """How many block now. Without the lock, some that come or go meanwhile may be missed."""
        if not self._in_use():
            return 0
        _, ends = self._read()
        return int(((ends == 0) | (ends > now_ns)).sum())

    def items(self) -> list[tuple[Prefix, int]]:
        """All sources and their ends, by family, address and length; some may be over."""
        import numpy as np

        keys, ends = self._read()
        order = np.lexsort([keys[name] for name in ("bits", "low", "high", "family")])
        keys, ends = keys[order], ends[order]
        numbers = (keys[name].tolist() for name in ("family", "high", "low", "bits"))
        return [
            ((family, high >> 32 if family == 4 else high << 64 | low, bits), end)
            for family, high, low, bits, end in zip(*numbers, ends.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self._blocks.read()[0])

    def __contains__(self, source: Prefix) -> bool:
        try:
            self._blocks.lookup(keys_of([source])[0].tobytes())
        except KeyError:
            return False
        return True

    def _read(self) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        import numpy as np

        keys, values = self._blocks.read()
        return keys.view(abi.block_dtype())[:, 0], values.view(np.uint64)[:, 0]

    def _in_use(self) -> int:
        return int.from_bytes(self._lengths.lookup(_ONLY), "little")

    def _use(self, lengths: int) -> None:
        if lengths != self._in_use():
            size: int = abi.LAYOUTS["block_lengths"]["itemsize"]
            self._lengths.update(_ONLY, lengths.to_bytes(size, "little"))

    def _mark(self, keys: NDArray[Any]) -> None:
        """Have the filter let these through, too."""
        import numpy as np

        lines = lines_of(keys)
        at = np.flatnonzero(lines.any(axis=1)).astype(np.uint32)
        if len(at) > _SINGLE_LINES:
            lines |= self._filter.array().view(np.uint64)
        else:
            for n in at:
                lines[n] |= np.frombuffer(self._filter.lookup(n.tobytes()), np.uint64)
        self._filter.update_many(at, lines[at])

    def _settle(self, keys: NDArray[Any]) -> None:
        """Have the lengths and the filter lead to what the table holds, and to nothing more."""
        import numpy as np

        self._use(lengths_of(keys))
        lines = lines_of(keys)
        self._filter.update_many(np.arange(len(lines), dtype=np.uint32), lines)


def lines_of(keys: NDArray[Any]) -> NDArray[np.uint64]:
    """The filter of bpf/block.h for some blocks, shape (XG_BLOCK_LINES, 8)."""
    import numpy as np

    hashes = (keys["high"] ^ keys["bits"]) * np.uint64(0x9E3779B97F4A7C15)
    hashes ^= hashes >> np.uint64(32)
    hashes = (hashes ^ keys["low"]) * np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(29)
    bits = np.zeros((abi.BLOCK_LINES, 512), np.bool_)
    for shift in (42, 33):
        bits[hashes >> np.uint64(51), hashes >> np.uint64(shift) & np.uint64(511)] = True
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint64)


def keys_of(sources: Sequence[Prefix]) -> NDArray[Any]:
    """Structs xg_block, shape (n,)."""
    import numpy as np

    keys: NDArray[Any] = np.zeros(len(sources), abi.block_dtype())
    low = (1 << 64) - 1
    for name, numbers in (
        ("high", (a << 32 if family == 4 else a >> 64 for family, a, _ in sources)),
        ("low", (0 if family == 4 else a & low for family, a, _ in sources)),
        ("family", (family for family, _, _ in sources)),
        ("bits", (bits for _, _, bits in sources)),
    ):
        keys[name] = np.fromiter(numbers, np.uint64, len(sources))
    return keys


def lengths_of(keys: NDArray[Any]) -> int:
    """struct xg_block_lengths as a number: v4 in the lowest 64 bits, v6 in the others."""
    import numpy as np

    found = np.unique(np.where(keys["family"] == 4, 0, 64) + keys["bits"].astype(np.int64))
    return sum(1 << int(at) for at in found)
