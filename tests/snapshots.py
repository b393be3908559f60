"""Fixed snapshots of a filter that never was, to show and to tell."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xdpgw import _abi as abi
from xdpgw._abi import Reason, Verdict
from xdpgw.pins import Attached, Counted, Manifest
from xdpgw.sink_stats import SinkStats
from xdpgw.snapshot import PortState, Ring, RuleState, Snapshot
from xdpgw.stats import Counter, LogStats, PortStats
from xdpgw.talkers import Sum, Talkers

__all__ = ["RULES", "manifest", "moment", "socket", "talkers"]

RULES = """\
dns     limit 1000/s per source   udp to port 53
web     pass                      tcp to port {80, 443}
bad     drop                      from 203.0.113.0/24       log 10/s
mirror  af_xdp tap else drop      udp to port 4789"""

SECOND_NS = 1_000_000_000


def manifest(**changes: Any) -> Manifest:
    """Of a policy with the rules above on the ports eth0 and wan."""
    names = [line.split()[0] for line in RULES.splitlines()]
    values: dict[str, Any] = {
        "version": "0",
        "policy_file": "/etc/xdpgw/edge.toml",
        "policy_text": "",
        "rules_text": RULES,
        "loaded_at_ns": 1_700_000_000 * SECOND_NS,
        "rule_slots": {name: slot for slot, name in enumerate(names)},
        "port_slots": {"eth0": 0, "wan": 1},
        "target_slots": {"tap": 0},
        "limit_slots": {},
        "limit_seeds": {},
        "ports": {"eth0": Attached(2, "native", 7), "wan": Attached(3, "generic", 8)},
        "on_exit": "keep",
        "log_sources": "new",
        "counted": Counted(16, 32, 128, 0),
    }
    return Manifest(**{**values, **changes})


def talkers(sent: Mapping[str, int], verdict: Verdict = Verdict.PASS) -> Talkers:
    """Sources by what each sent, in packets of 100 bytes."""
    rows = np.zeros(len(sent), abi.talker_dtype())
    for row, (source, packets) in zip(rows, sent.items(), strict=True):
        address = ipaddress.ip_address(source)
        row["addr"][: len(address.packed)] = list(address.packed)
        row["family"], row["packets"], row["bytes"] = address.version, packets, 100 * packets
        row["verdict"], row["reason"] = verdict, Reason.RULE
    not_yet = time.time_ns() + 3600 * SECOND_NS  # however slow a test is, they were seen just now
    return Talkers(rows, {0: "eth0"}, {4: 32, 6: 128}, not_yet, Sum(), len(sent))


def socket(rx: int, at_ns: int, **changes: Any) -> dict[str, Any]:
    """The socket of the target tap on queue 0 of eth0."""
    counters = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "dropped", "tx_full")
    statistics = ("rx_dropped", "rx_invalid_descs", "tx_invalid_descs", "rx_ring_full")
    rings = {"fill": 2048, "rx": 512, "tx": 0, "completion": 0}
    row = {
        "target": "tap",
        "port": "eth0",
        "queue": 0,
        "mode": "copy",
        "alive": True,
        "counters": {**dict.fromkeys(counters, 0), "rx_packets": rx, "rx_bytes": 60 * rx},
        "statistics": {**dict.fromkeys(statistics, 0), "rx_ring_full": rx // 10},
        "rings": {name: {"level": level, "size": 2048} for name, level in rings.items()},
        "chunks_free": 100,
        "ts_ns": at_ns,
    }
    return {**row, **changes}


def moment(
    second: float,
    *,
    sources: Mapping[str, int] | None = None,
    ports: Sequence[str] = ("eth0", "wan"),
    gone: Sequence[str] = (),
    **changes: Any,
) -> Snapshot:
    """What the filter tells so many seconds after it started, at steady rates.

    eth0 passes 1,000 packets of 100 bytes a second by the rule web, drops 200 by bad, and hands 50
    to tap; wan gets nothing.
    """
    described = manifest()

    def count(per_second: float) -> Counter:
        return Counter(int(per_second * second), int(per_second * second) * 100)

    by = {
        (Verdict.PASS, Reason.RULE): count(1000),
        (Verdict.DROP, Reason.RULE): count(200),
        (Verdict.AF_XDP, Reason.RULE): count(50),
    }
    lines = dict(zip(described.rule_slots, RULES.splitlines(), strict=True))
    rates = {"dns": 0, "web": 1000, "bad": 200, "mirror": 50}
    at_ns = int(second * SECOND_NS)
    sent = {f"198.51.100.{n}": int(100 * n * second) for n in range(1, 21)}
    sent["2001:db8:1234:5678:9abc:def0:1234:5678"] = int(50 * second)
    values: dict[str, Any] = {
        "at_ns": at_ns,
        "manifest": described,
        "pins": "/sys/fs/bpf/xdpgw/net-1",
        "epoch": 1,
        "in_charge": True,
        "ports": tuple(
            PortState(
                PortStats(port, by if port == "eth0" else {}),
                described.ports[port].ifindex,
                described.ports[port].mode,
                port not in gone,
                (),
            )
            for port in ports
        ),
        "rules": {name: RuleState(line, count(rates[name])) for name, line in lines.items()},
        "log": LogStats(*(int(n * second) for n in (200, 10, 5, 185))),
        "ring": Ring(1024, 8192),
        "sinks": [SinkStats("jsonl x.jsonl", int(9 * second), 0, 1)],
        "sockets": [socket(int(50 * second), at_ns)],
        "unserved": (),
        "blocks": 3,
        "sources": talkers(sent if sources is None else sources),
    }
    return Snapshot(**{**values, **changes})
