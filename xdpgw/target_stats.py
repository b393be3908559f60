"""What the sockets of the AF_XDP targets count, as any process reads it from their pinned map."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xdpgw import _abi as abi
from xdpgw._abi import Handler

if TYPE_CHECKING:
    from xdpgw.pins import Instance, Manifest

__all__ = ["COUNTERS", "read_sockets", "targets_of", "unserved"]

FRESH_S = 2.0
"""Counters are published five times a second; older ones are of a process that died."""

WAIT_S = 0.6
"""For the next publication, to tell rates."""

COUNTERS = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "dropped", "tx_full")
STATISTICS = (
    "rx_dropped",
    "rx_invalid_descs",
    "tx_invalid_descs",
    "rx_ring_full",
    "rx_fill_ring_empty",
    "tx_ring_empty",
)
RINGS = ("fill", "rx", "tx", "completion")


def targets_of(instance: Instance, manifest: Manifest) -> dict[str, Any]:
    """All that can be said of the targets of the filter in force.

    Returns:
        `sockets`, a row a socket with counters in packets and bytes since it was opened, rates a
        second between the last two publications (None where there is one only), ring levels and
        sizes in descriptors; and `unserved`, targets of the policy that no socket serves.
    """
    in_charge = instance.in_charge
    rows = _read(instance) if in_charge else []
    if rows:
        rows = _with_rates(instance, rows)
    sockets = _sockets(rows, manifest)
    return {
        "in_charge": in_charge,
        "sockets": sockets,
        "unserved": unserved(sockets, manifest),
    }


def read_sockets(instance: Instance, manifest: Manifest) -> list[dict[str, Any]]:
    """The `sockets` of `targets_of` as they are now, without rates, of a filter that a process is
    in charge of."""
    return _sockets(_read(instance), manifest)


def unserved(sockets: Iterable[Mapping[str, Any]], manifest: Manifest) -> list[str]:
    """Targets of the policy that none of these sockets serves."""
    served = {x["target"] for x in sockets if x["alive"]}
    return [name for name in manifest.target_slots if name not in served]


def _sockets(rows: Iterable[dict[str, Any]], manifest: Manifest) -> list[dict[str, Any]]:
    ports = {slot: name for name, slot in manifest.port_slots.items()}
    targets = {slot: name for name, slot in manifest.target_slots.items()}
    return [_described(row, ports, targets) for row in rows]


def _read(instance: Instance) -> list[dict[str, Any]]:
    table = instance.sockets()
    if table is None:
        return []
    with table:
        rows = table.array().reshape(-1).view(abi.socket_stats_dtype())
    assert rows.dtype.names is not None
    return [{name: int(row[name]) for name in rows.dtype.names if name != "zero"} for row in rows]


def _with_rates(instance: Instance, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Wait for the next publication; rates are what was counted in between."""
    deadline = time.monotonic() + WAIT_S
    after = before
    while after[0]["ts_ns"] == before[0]["ts_ns"] and time.monotonic() < deadline:
        time.sleep(0.02)
        after = _read(instance)
        if len(after) != len(before):
            return after
    for old, new in zip(before, after, strict=True):
        seconds = (new["ts_ns"] - old["ts_ns"]) / 1e9
        new["rates"] = (
            {name: (new[name] - old[name]) / seconds for name in COUNTERS} if seconds else None
        )
    return after


def _described(
    row: dict[str, Any], ports: dict[int, str], targets: dict[int, str]
) -> dict[str, Any]:
    sends_only = row["target"] == abi.NO_TARGET
    return {
        "target": None if sends_only else targets.get(row["target"]),
        "handler": None if sends_only else Handler(row["handler"]).text,
        "port": ports.get(row["port"]),
        "queue": row["queue"],
        "mode": "zero-copy" if row["zero_copy"] else "copy",
        "multi_buffer": bool(row["multi_buffer"]),
        "alive": bool(row["alive"]),
        "counters": {name: row[name] for name in (*COUNTERS, "kicks", "polls")},
        "rates": row.get("rates"),
        "statistics": {name: row[name] for name in STATISTICS},
        "rings": {name: {"level": row[name], "size": row[f"{name}_size"]} for name in RINGS},
        "chunks_free": row["chunks_free"],
        "ts_ns": row["ts_ns"],
        "age_s": (time.monotonic_ns() - row["ts_ns"]) / 1e9,
    }
