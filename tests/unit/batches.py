"""Batches of events for tests of what comes behind the reader."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from xdpgw import _abi as abi
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.events import EventBatch, Names

NAMES = Names.of(ports={"eth0": 0, "wan": 3}, rules={"bad": 0, "web": 7})
NOON_NS = 1_700_000_000_123_456_789  # 2023-11-14T22:13:20.123456789Z

UDP: dict[str, Any] = {
    "ts_ns": 1,
    "family": 4,
    "src": "192.0.2.7",
    "dst": "198.51.100.1",
    "proto": 17,
    "sport": 53,
    "dport": 4242,
    "ethertype": 0x0800,
    "len_bytes": 74,
    "vlan": abi.VLAN_NONE,
    "frag": Frag.NO,
    "has": Has.PROTO | Has.PORTS | Has.ETHERTYPE,
    "verdict": Verdict.DROP,
    "reason": Reason.RULE,
    "rule": 0,
}


def batch(*events: dict[str, Any]) -> EventBatch:
    """A batch of events like `UDP` but for what is given; `batch({}, {})` has two of them."""
    array = np.zeros(len(events), abi.event_dtype())
    for at, changes in enumerate(events):
        for name, value in (UDP | changes).items():
            if name in ("src", "dst"):
                packed = ipaddress.ip_address(value).packed.ljust(16, b"\0")
                array[at][name] = np.frombuffer(packed, np.uint8)
            else:
                array[at][name] = value
    array.flags.writeable = False
    return EventBatch(array, NAMES, NOON_NS - 1)


def numbered(*numbers: int) -> EventBatch:
    """A batch of events from 192.0.2.NUMBER."""
    return batch(*({"src": f"192.0.2.{number}"} for number in numbers))
