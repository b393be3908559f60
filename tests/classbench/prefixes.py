"""Sets of prefixes as networks have them.

`blocklist` is mostly hosts, in clusters; `scattered` is hosts and small networks anywhere, the
worst for what shares upper bits; `bgp` has the lengths of a full routing table.
"""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PREFIX", "PREFIX_KINDS", "distinct", "prefix_text", "prefixes"]

PREFIX = np.dtype([("version", "u1"), ("bits", "u1"), ("address", "u8", 2)])
"""A prefix without host bits; `address` is its high and low 64 bits, IPv4 in the low 32."""

PREFIX_KINDS = ("blocklist", "scattered", "bgp")

# Share of each length.
_LENGTHS = {
    ("blocklist", 4): {32: 0.82, 24: 0.12, 22: 0.03, 20: 0.02, 16: 0.01},
    ("scattered", 4): {32: 0.7, 28: 0.1, 24: 0.2},
    ("bgp", 4): {24: 0.6, 23: 0.1, 22: 0.12, 21: 0.05, 20: 0.05, 19: 0.03, 18: 0.02, 16: 0.03},
    ("blocklist", 6): {64: 0.6, 48: 0.25, 128: 0.1, 56: 0.05},
    ("scattered", 6): {64: 0.7, 48: 0.2, 128: 0.1},
    ("bgp", 6): {48: 0.55, 44: 0.15, 40: 0.1, 36: 0.08, 32: 0.12},
}
_CLUSTERS_MOST = {4: 20_000, 6: 30_000}  # a /16 or a /32 each
_MEMBERS_A_CLUSTER = 32
_WHOLE = np.uint64(2**64 - 1)


def prefixes(kind: str, count: int, seed: int = 1, version: int = 4) -> NDArray[Any]:
    """Distinct prefixes, which may nest, in no order.

    Args:
        kind: one of PREFIX_KINDS.
        version: 4 or 6.

    Returns:
        shape (count,) of PREFIX.
    """
    rng = np.random.default_rng([seed, count, version, PREFIX_KINDS.index(kind)])
    table = _LENGTHS[kind, version]
    clusters = int(np.clip(count // _MEMBERS_A_CLUSTER, 4, _CLUSTERS_MOST[version]))
    centres = None if kind == "scattered" else _anywhere(rng, clusters, version)
    found = np.zeros(0, PREFIX)
    while len(found) < count:
        some = np.zeros(count - len(found) + count // 8 + 8, PREFIX)
        some["version"] = version
        some["bits"] = rng.choice(list(table), len(some), p=list(table.values()))
        addresses = _anywhere(rng, len(some), version)
        if centres is not None:
            addresses = _near(rng, centres, addresses, version)
        some["address"] = addresses & _mask(some)
        found = distinct(np.concatenate([found, some]))
    return rng.permutation(found)[:count]


def distinct(some: NDArray[Any]) -> NDArray[Any]:
    """PREFIX records in order, each once."""
    address = some["address"]
    ordered = some[np.lexsort((some["bits"], address[:, 1], address[:, 0], some["version"]))]
    keep = np.ones(len(some), bool)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]


def prefix_text(some: NDArray[Any]) -> list[str]:
    """PREFIX records as a netset file has them; hosts without a length."""
    packed = some["address"].astype(">u8").tobytes()
    out = []
    for n, (version, bits) in enumerate(zip(some["version"], some["bits"], strict=True)):
        if version == 4:
            text = socket.inet_ntop(socket.AF_INET, packed[16 * n + 12 : 16 * n + 16])
        else:
            text = socket.inet_ntop(socket.AF_INET6, packed[16 * n : 16 * n + 16])
        out.append(text if bits == (32 if version == 4 else 128) else f"{text}/{bits}")
    return out


def _anywhere(rng: np.random.Generator, size: int, version: int) -> NDArray[np.uint64]:
    """Addresses in 1.0.0.0 to 223.255.255.255 or in 2000::/3, shape (size, 2)."""
    if version == 4:
        low = rng.integers(1 << 24, 224 << 24, size, np.uint64)
        return np.stack([np.zeros_like(low), low], axis=1)
    out = rng.integers(0, 2**64, (size, 2), np.uint64)
    out[:, 0] = out[:, 0] >> np.uint64(3) | np.uint64(1 << 61)
    return out


def _near(
    rng: np.random.Generator,
    centres: NDArray[np.uint64],
    addresses: NDArray[np.uint64],
    version: int,
) -> NDArray[np.uint64]:
    """The addresses moved into the networks of centres; few centres get many of them."""
    chosen = centres[(len(centres) * rng.random(len(addresses)) ** 2).astype(np.intp)]
    host = np.array([0, 0xFFFF] if version == 4 else [0xFFFFFFFF, 2**64 - 1], np.uint64)
    return chosen & ~host | addresses & host


def _mask(some: NDArray[Any]) -> NDArray[np.uint64]:
    """The network mask of each prefix, shape (n, 2)."""
    bits = some["bits"].astype(np.int64) + np.where(some["version"] == 4, 96, 0)
    out = np.zeros((len(some), 2), np.uint64)
    for half, start in enumerate((0, 64)):
        room = np.clip(64 + start - bits, 0, 64).astype(np.uint64)
        out[:, half] = np.where(room == 64, 0, _WHOLE << np.minimum(room, np.uint64(63)))
    return out
