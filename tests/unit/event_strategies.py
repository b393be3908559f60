"""Events of every kind that the datapath tells, at random: what a packet lacks is 0, as there."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import strategies as st

from xdpgw import _abi as abi
from xdpgw._abi import Frag, Has, Reason, Verdict

__all__ = ["batches", "event", "full"]

_U16 = st.integers(0, 0xFFFF)
_BYTE = st.integers(0, 0xFF)
# Few addresses, so that some are equal; and those at the ends of what a family has.
_IPV4 = st.sampled_from(["0.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.1.0", "255.255.255.255"])
_IPV6 = st.sampled_from(
    ["::", "::1", "::ffff:10.0.0.1", "a00::1", "2001:db8::", "2001:db8:0:1::9", "ff02::1"]
) | st.ip_addresses(v=6).map(str)


@st.composite
def event(draw: st.DrawFn) -> dict[str, Any]:
    """The members of one event, for `batch`."""
    family = draw(st.sampled_from([4, 4, 6, 6, 0]))
    rule = draw(st.sampled_from([0, 7, 3, abi.NO_RULE]))
    made: dict[str, Any] = {
        "ts_ns": draw(st.integers(1, 10**12)),
        "port": draw(st.sampled_from([0, 3, 9])),
        "queue": draw(st.integers(0, 127)),
        "len_bytes": draw(st.integers(14, 0xFFFFFFFF)),
        "vlan": draw(st.sampled_from([0, 1, 4095, abi.VLAN_NONE])),
        "verdict": draw(st.sampled_from(list(Verdict))),
        "reason": draw(st.sampled_from(list(Reason))),
        "rule": rule,
        "family": family,
        "frag": Frag.NOT_IP,
        "has": 0,
        **dict.fromkeys(("proto", "sport", "dport", "ethertype"), 0),
    }
    if draw(st.booleans()):
        made |= {"ethertype": draw(_U16), "has": Has.ETHERTYPE}
    if not family:
        return made | {"src": "0.0.0.0", "dst": "0.0.0.0"}
    addresses = _IPV4 if family == 4 else _IPV6
    made |= {"src": draw(addresses), "dst": draw(addresses), "ttl": draw(_BYTE)}
    made |= {"dscp": draw(st.integers(0, 63))}
    made["frag"] = draw(st.sampled_from([Frag.NO, Frag.FIRST, Frag.LATER]))
    if draw(st.sampled_from([True, True, True, False])):  # else malformed before that
        return made | draw(_transport(made))
    return made


@st.composite
def _transport(draw: st.DrawFn, made: dict[str, Any]) -> dict[str, Any]:
    has = made["has"] | Has.PROTO
    proto = draw(st.sampled_from([1, 6, 17, 47, 58, 132, 255]))
    out = {"proto": proto, "has": has}
    if made["frag"] is Frag.LATER:
        return out
    if proto in (6, 17, 132):
        out |= {"sport": draw(_U16), "dport": draw(_U16), "has": has | Has.PORTS}
    if proto == 6:
        out |= {"tcp_flags": draw(_BYTE), "has": out["has"] | Has.TCP_FLAGS}
    if proto in (1, 58):
        out |= {"icmp_type": draw(_BYTE), "icmp_code": draw(_BYTE), "has": has | Has.ICMP}
    return out


batches = st.lists(event(), min_size=1, max_size=12)
"""Lists of them, at least one."""


def full(address: str | None) -> str | None:
    """An address as SQL alone writes it: IPv6 in all its digits."""
    return None if address is None else ipaddress.ip_address(address).exploded
