"""Packets for a policy: each one a hit, none of them, or a few flows again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.classbench.policies import Policy
from tests.frames import (
    ACK,
    DST_MAC,
    ETHERTYPE_IP4,
    ETHERTYPE_IP6,
    ICMP,
    ICMP6,
    SRC_MAC,
    SYN,
    TCP,
    UDP,
)

__all__ = ["FLOWS", "HEADER", "TRACES", "frames", "headers"]

TRACES = ("match", "random", "flows")
FLOWS = 256
"""Flows of the trace `flows`."""

HEADER = np.dtype(
    [
        ("version", "u1"),
        ("proto", "u1"),
        ("src", "u8", 2),  # high and low 64 bits; IPv4 in the low 32
        ("dst", "u8", 2),
        ("sport", "u2"),  # 0 where the protocol has none, as the next two
        ("dport", "u2"),
        ("flags", "u1"),  # TCP
    ]
)
"""What a packet's headers say."""

_Column = NDArray[Any]


def headers(policy: Policy, kind: str, count: int, seed: int = 1) -> NDArray[Any]:
    """A trace.

    Args:
        policy: what it is for.
        kind: `match`: each packet from a rule drawn uniformly, anew; an earlier rule may take it.
            `random`: uniform over addresses, ports, TCP and UDP. `flows`: FLOWS packets of `match`
            (fewer where it has no more that differ) over and over, in no order. And, for tests,
            `edges`: as `match`, with addresses and ports at the ends of a rule's or just outside.
        count: packets.

    Returns:
        shape (count,) of HEADER.
    """
    rng = np.random.default_rng([seed, len(policy.rules), (*TRACES, "edges").index(kind)])
    if kind == "flows":
        flows = np.unique(headers(policy, "match", 4 * FLOWS, seed))
        flows = rng.permutation(flows)[:FLOWS]
        return flows[rng.integers(len(flows), size=count)]
    rules = policy.rules[rng.integers(len(policy.rules), size=count)]
    out = np.zeros(count, HEADER)
    out["version"] = rules["version"]
    out["proto"] = rng.choice(np.array([TCP, UDP]), count)
    for side in ("src", "dst"):
        out[side] = _anywhere(rng, out["version"])
        out[side[0] + "port"] = rng.integers(0, 65536, count)
    if kind != "random":
        out["proto"] = np.where(rules["proto"] < 0, out["proto"], rules["proto"])
        for side in ("src", "dst"):
            _hit_address(rng, policy, rules, out, side, kind == "edges")
            ends = rules[side[0] + "port"].astype(np.int64)
            if kind == "edges":
                out[side[0] + "port"] = _end_of(rng, ends) + _step(rng, len(ends)) & 0xFFFF
            else:
                out[side[0] + "port"] = rng.integers(ends[:, 0], ends[:, 1], endpoint=True)
    without = ~np.isin(out["proto"], (TCP, UDP))
    out["sport"][without] = out["dport"][without] = 0
    flags = rng.choice(np.array([SYN, ACK]), count)
    out["flags"] = np.where(out["proto"] == TCP, flags, 0)
    return out


def _anywhere(rng: np.random.Generator, version: _Column) -> _Column:
    """Any IPv4 address, or one in 2000::/3."""
    out = rng.integers(0, 2**64, (len(version), 2), np.uint64)
    four = version == 4
    out[:, 0] = np.where(four, 0, out[:, 0] >> np.uint64(3) | np.uint64(1 << 61))
    out[four, 1] >>= np.uint64(32)
    return out


def _hit_address(
    rng: np.random.Generator, policy: Policy, rules: _Column, out: _Column, side: str, edges: bool
) -> None:
    """Move addresses to where the rules want them; "not" leaves them anywhere, which is outside
    of nearly every prefix."""
    ends = rules[side].copy()
    for number, members in enumerate(policy.sets):
        for version in (4, 6):
            some = members[members["version"] == version]
            asked = (rules[f"{side}_set"] == number) & (rules["version"] == version)
            if not len(some) or not asked.any():
                continue
            chosen = some[rng.integers(len(some), size=int(asked.sum()))]
            ends[asked] = np.stack([chosen["address"], chosen["address"] | _hosts(chosen)], axis=1)
    if edges:
        out[side] = _shifted(_end_of(rng, ends), _step(rng, len(ends)), out["version"])
        return
    plain = ~rules[f"{side}_not"]
    out[side][plain] = _between(rng, ends[plain, 0], ends[plain, 1])


def _end_of(rng: np.random.Generator, ends: _Column) -> _Column:
    """Of each pair the first or the last."""
    return ends[np.arange(len(ends)), rng.integers(2, size=len(ends))]


def _step(rng: np.random.Generator, count: int) -> _Column:
    """0, mostly, or 1 back or on."""
    return rng.choice(np.array([-1, 0, 0, 0, 1]), count)


def _shifted(addresses: _Column, step: _Column, version: _Column) -> _Column:
    """The addresses that many further, without leaving their family."""
    low = addresses[:, 1] + step.astype(np.uint64)
    carry = ((low == 0) & (step > 0)).astype(np.uint64)
    borrow = ((addresses[:, 1] == 0) & (step < 0)).astype(np.uint64)
    four = version == 4
    high = np.where(four, 0, addresses[:, 0] + carry - borrow)
    return np.stack([high, np.where(four, low & np.uint64(0xFFFFFFFF), low)], axis=1)


def _hosts(some: _Column) -> _Column:
    """The host bits of PREFIX records, shape (n, 2)."""
    free = np.where(some["version"] == 4, 32, 128) - some["bits"].astype(np.int64)
    out = np.zeros((len(some), 2), np.uint64)
    for half, above in ((1, 0), (0, 64)):
        bits = np.clip(free - above, 0, 64).astype(np.uint64)
        low = (np.uint64(1) << np.minimum(bits, np.uint64(63))) - np.uint64(1)
        out[:, half] = np.where(bits == 64, np.uint64(2**64 - 1), low)
    return out


def _between(rng: np.random.Generator, first: _Column, last: _Column) -> _Column:
    """An address from first to last, both in."""
    high = rng.integers(first[:, 0], last[:, 0], dtype=np.uint64, endpoint=True)
    low_first = np.where(high == first[:, 0], first[:, 1], np.uint64(0))
    low_last = np.where(high == last[:, 0], last[:, 1], np.uint64(2**64 - 1))
    low = rng.integers(low_first, low_last, dtype=np.uint64, endpoint=True)
    return np.stack([high, low], axis=1)


# --- Frames ---------------------------------------------------------------------------------------

_ETHERNET, _IP4, _IP6 = 14, 20, 40
_LEAST = 64
_MOST = _ETHERNET + _IP6 + 20
# Where a protocol has its checksum.
_CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMP6: 2}


def frames(some: NDArray[Any]) -> list[bytes]:
    """Frames of 64 bytes, 74 for TCP in IPv6, with right lengths and checksums, padded inside.

    Args:
        some: shape (n,) of HEADER. ICMP and ICMPv6 become echo requests.
    """
    out = np.zeros((len(some), _MOST), np.uint8)
    out[:, :6] = list(bytes.fromhex(DST_MAC.replace(":", "")))
    out[:, 6:12] = list(bytes.fromhex(SRC_MAC.replace(":", "")))
    lens = np.full(len(some), _LEAST)
    lens[(some["version"] == 6) & (some["proto"] == TCP)] = _MOST
    for version in (4, 6):
        for proto in np.unique(some["proto"]):
            at = np.flatnonzero((some["version"] == version) & (some["proto"] == proto))
            if len(at):
                out[at] = _filled(out[at], some[at], version, int(proto), int(lens[at[0]]))
    packed = out.tobytes()
    return [packed[n * _MOST : n * _MOST + size] for n, size in enumerate(lens.tolist())]


def _filled(out: _Column, some: _Column, version: int, proto: int, size: int) -> _Column:
    """Frames of one version and protocol behind their MAC addresses."""
    at = _ETHERNET + (_IP4 if version == 4 else _IP6)
    if version == 4:
        _put(out, 12, ETHERTYPE_IP4)
        _put(out, 14, 0x4500)
        _put(out, 16, size - _ETHERNET)
        out[:, 22], out[:, 23] = 64, proto
        out[:, 26:30], out[:, 30:34] = (_bytes(some[side])[:, 12:] for side in ("src", "dst"))
        _put(out, 24, _checksum(out[:, 14:34]))
    else:
        _put(out, 12, ETHERTYPE_IP6)
        out[:, 14] = 0x60
        _put(out, 18, size - at)
        out[:, 20], out[:, 21] = proto, 64
        out[:, 22:38], out[:, 38:54] = (_bytes(some[side]) for side in ("src", "dst"))
    if proto in (TCP, UDP):
        _put(out, at, some["sport"])
        _put(out, at + 2, some["dport"])
    if proto == TCP:
        out[:, at + 12], out[:, at + 13] = 0x50, some["flags"]
    elif proto == UDP:
        _put(out, at + 4, size - at)
    elif proto in (ICMP, ICMP6):
        out[:, at] = 8 if proto == ICMP else 128
    if proto in _CHECKSUM_AT:
        covered = out[:, at:size]
        if proto != ICMP:
            head = np.zeros((len(out), 4), np.uint8)
            _put(head, 0, proto)
            _put(head, 2, size - at)
            start = 26 if version == 4 else 22
            covered = np.concatenate([out[:, start:at], head, covered], axis=1)
        _put(out, at + _CHECKSUM_AT[proto], _checksum(covered))
    return out


def _put(out: _Column, at: int, numbers: Any) -> None:
    """Write 16-bit numbers in network order."""
    out[:, at], out[:, at + 1] = np.asarray(numbers) >> 8, np.asarray(numbers) & 0xFF


def _bytes(addresses: _Column) -> _Column:
    return addresses.astype(">u8").view(np.uint8).reshape(len(addresses), 16)


def _checksum(covered: _Column) -> _Column:
    """The Internet checksum of each row (RFC 1071)."""
    words: _Column = np.ascontiguousarray(covered).view(">u2").sum(axis=1, dtype=np.int64)
    for _ in range(2):
        words = (words & 0xFFFF) + (words >> 16)
    return words ^ 0xFFFF
