"""What a row is, and the shorthands that the themes write rows with."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from tests.frames import A4, A6, B4, B6, SYN, TCP, UDP, eth, ipv4, ipv6, tcp, udp

__all__ = ["NOT_IP", "Key", "Row", "four", "not_ip", "row", "six", "tcp4", "udp4", "udp6"]

Key = dict[str, object]

_MIN_FRAME = 14
_MAX_FRAME = 1514
_TAG = 4

NOT_IP: Key = {
    "family": None,
    "src": None,
    "dst": None,
    "proto": None,
    "sport": None,
    "dport": None,
    "vlan": None,
    "frag": None,
    "tcp_flags": None,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One packet and what becomes of it.

    key is the whole key that explain prints; of a malformed packet only what is certain of it.
    live is False where the frame cannot be sent over a veth whole. otherwise is the verdict after
    `else` of a rule that hands packets to an AF_XDP target.
    """

    name: str
    policy: str
    frame: bytes
    verdict: str
    reason: str
    rule: str | None
    key: Key
    live: bool = True
    port: str = "left"
    otherwise: str | None = None

    @property
    def unserved(self) -> tuple[str, str, str | None]:
        """Verdict, reason and rule where no socket serves a target."""
        if self.otherwise is None:
            return self.verdict, self.reason, self.rule
        return self.otherwise, "no_socket", self.rule


def not_ip(vlan: int | None = None) -> Key:
    """The key of a packet that is not IP."""
    return {**NOT_IP, "vlan": vlan}


def four(
    proto: int,
    sport: int | None = None,
    dport: int | None = None,
    flags: int | None = None,
    *,
    src: str = A4,
    dst: str = B4,
    frag: str = "no",
    vlan: int | None = None,
) -> Key:
    """The key of an IPv4 packet."""
    return {
        "family": 4,
        "src": str(ip_address(src)),
        "dst": str(ip_address(dst)),
        "proto": proto,
        "sport": sport,
        "dport": dport,
        "vlan": vlan,
        "frag": frag,
        "tcp_flags": flags,
    }


def six(
    proto: int,
    sport: int | None = None,
    dport: int | None = None,
    flags: int | None = None,
    *,
    src: str = A6,
    dst: str = B6,
    frag: str = "no",
    vlan: int | None = None,
) -> Key:
    """The key of an IPv6 packet."""
    key = four(proto, sport, dport, flags, src=src, dst=dst, frag=frag, vlan=vlan)
    return {**key, "family": 6}


def row(
    name: str,
    policy: str,
    frame: bytes,
    outcome: str,
    key: Key | None = None,
    *,
    port: str = "left",
) -> Row:
    """A row from an outcome in words: "drop malformed", "pass default", "tx rule NAME", or
    "af_xdp rule NAME else pass".

    key without the length, which is the frame's; none for a malformed packet unless its tag is
    certain.
    """
    outcome, _, otherwise = outcome.partition(" else ")
    verdict, reason, *rule = outcome.split()
    if reason != "malformed" and key is None:
        raise ValueError(f"{name!r} has no key")
    limit = _MAX_FRAME + (_TAG if frame[12:14] == b"\x81\x00" else 0)
    return Row(
        name=name,
        policy=policy,
        frame=frame,
        verdict=verdict,
        reason=reason,
        rule=rule[0] if rule else None,
        key={**(key or {}), "len": len(frame)},
        live=_MIN_FRAME <= len(frame) <= limit,
        port=port,
        otherwise=otherwise or None,
    )


def udp4(
    name: str,
    outcome: str,
    *,
    policy: str = "addresses",
    port: str = "left",
    sport: int = 40000,
    dport: int = 4242,
    src: str = A4,
    dst: str = B4,
) -> Row:
    """A row of a plain UDP packet over IPv4."""
    packet = ipv4(udp(b"x", sport=sport, dport=dport), src=src, dst=dst)
    return row(
        name, policy, eth(packet), outcome, four(UDP, sport, dport, src=src, dst=dst), port=port
    )


def udp6(
    name: str,
    outcome: str,
    *,
    policy: str = "addresses",
    port: str = "left",
    sport: int = 40000,
    dport: int = 4242,
    src: str = A6,
    dst: str = B6,
) -> Row:
    """A row of a plain UDP packet over IPv6."""
    packet = ipv6(udp(b"x", sport=sport, dport=dport), src=src, dst=dst)
    return row(
        name, policy, eth(packet), outcome, six(UDP, sport, dport, src=src, dst=dst), port=port
    )


def tcp4(
    name: str,
    outcome: str,
    *,
    policy: str = "addresses",
    port: str = "left",
    sport: int = 40000,
    dport: int = 80,
    src: str = A4,
    dst: str = B4,
) -> Row:
    """A row of a TCP SYN over IPv4."""
    packet = ipv4(tcp(sport=sport, dport=dport), src=src, dst=dst)
    return row(
        name,
        policy,
        eth(packet),
        outcome,
        four(TCP, sport, dport, SYN, src=src, dst=dst),
        port=port,
    )
