"""The lines of a file of addresses, a million a second, by the reader in C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdpgw._native import ffi, lib
from xdpgw.prefixes import Prefixes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["scan"]

_ROOM = 1 << 18
_COLUMNS = {
    "v4_addr": ("n4", np.uint32),
    "v4_bits": ("n4", np.uint8),
    "v6_hi": ("n6", np.uint64),
    "v6_lo": ("n6", np.uint64),
    "v6_bits": ("n6", np.uint8),
    "odd_line": ("n_odd", np.uint64),
    "odd_offset": ("n_odd", np.uint64),
}
"""Members of struct xg_netset: which other one tells how far it is filled, and its type."""


def scan(text: bytes, *, room: int = _ROOM) -> tuple[Prefixes, list[tuple[int, int]]]:
    """Read the lines that are plain.

    Args:
        room: rows of the arrays that are filled at once.

    Returns:
        What they hold, and (number from 1, offset in bytes) of each line that wants a closer look:
        it is wrong, or unusual.
    """
    parts = {name: [part] for name, part in _empty().items()}
    for some in _batches(text, room):
        for name, part in some.items():
            parts[name].append(part)
    whole = {name: np.concatenate(part) for name, part in parts.items()}
    lines, offsets = (whole.pop(name).tolist() for name in ("odd_line", "odd_offset"))
    return Prefixes.of_arrays(**whole), list(zip(lines, offsets, strict=True))


def _empty() -> dict[str, Any]:
    return {name: np.zeros(0, kind) for name, (_, kind) in _COLUMNS.items()}


def _batches(text: bytes, room: int) -> Iterator[dict[str, Any]]:
    columns = {name: np.empty(room, kind) for name, (_, kind) in _COLUMNS.items()}
    netset = ffi.new("struct xg_netset *", {"room": room, "line": 1})
    views = {
        name: ffi.from_buffer(ffi.typeof(getattr(netset, name)), column)
        for name, column in columns.items()
    }
    for name, view in views.items():
        setattr(netset, name, view)
    source = ffi.from_buffer(text)
    while netset.offset < len(text):
        netset.n4 = netset.n6 = netset.n_odd = 0
        error = lib.xg_netset_read(source, len(text), netset)
        if error:
            raise ValueError(f"xg_netset_read(room={room}): {error}")
        yield {
            name: columns[name][: getattr(netset, n)].copy() for name, (n, _) in _COLUMNS.items()
        }
