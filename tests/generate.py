"""Random policies and random packets over small pools, so that rules and packets often meet.

Policies come from whoever chooses among options: hypothesis, which shrinks, or a seeded generator,
which gives the same on every machine. Packets come from a seeded generator, as a policy is held to
many of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from tests import frames as f
from tests.packets import ROWS

__all__ = ["BLOCKS", "PORTS", "blocks", "packets", "policies", "policy"]

_Option = TypeVar("_Option")
_Choose = Callable[[Sequence[_Option]], _Option]

PORTS = ("left", "right")
_ADDRESSES = (
    "10.1.0.1",
    "10.0.0.0/8",
    "10.1.0.0/24",
    "10.1.0.5-10.1.0.9",
    "192.0.2.7/32",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8:a::1",
    "2001:db8:a::/127",
    "2001:db8:a::8-2001:db8:b::2",
    "::/0",
    "@nets",
    "@more",
    "{10.1.0.1, 2001:db8:a::1}",
    "{10.1.0.0/31 192.0.2.0/24 @nets}",
    "{2001:db8:a::/64}",
)
_PORTS = (
    "80",
    "53",
    "0",
    "65535",
    "22-80",
    "1024-65535",
    "@web",
    "{53, 123, 4000-5000}",
    "{@web 7}",
)
_SIMPLE = (
    *("arp", "ip", "ip6", "tcp", "udp", "icmp", "icmp6", "sctp", "gre", "esp", "ah"),
    *("proto 17", "proto 0", "proto 44", "proto 59", "proto 60", "proto 253"),
)
_OTHER = (
    *("vlan 10", "vlan 0", "vlan any", "vlan none"),
    *("ether type 0x0800", "ether type 0x86dd", "ether type 0x88cc", "ether type 0x88b5"),
    *("ether from 02:00:00:00:00:01", "ether to 02:00:00:00:00:09"),
    *("len 60", "len 14-70", "len 71-1514", "ttl 64", "ttl 255", "ttl 0-63", "dscp 0", "dscp 46"),
    *("frag no", "frag first", "frag later", "frag any"),
    *("flags syn", "flags syn,!ack", "flags !rst", "flags fin,psh,urg", "flags ece,!cwr"),
    *("type 8", "type 128", "type echo-request", "type 3 code 4", "type 135", "type 0"),
    *("type 8 code 0", "type 128 code 1", "type 135 code 2", "type 0 code 3", "icmp6 type 137"),
)
_ACTIONS = (
    *("pass", "drop", "tx") * 4,
    *("reject", "forward", "redirect right", "af_xdp inspect else pass"),
)
_SETS = """
[sets]
nets = ["10.1.0.0/29", "203.0.113.0/24", "2001:db8:b::/48"]
more = ["10.0.0.0/16", "2001:db8:a::1"]
web = [80, 443, "8000-8100"]

[af_xdp.inspect]
handler = "count"

[ports.left]
[ports.right]
"""


_KINDS = ("simple", "simple", "other", "other", "other", "from", "to", "on")
# How many matches. A rule without any leaves nothing to those behind it.
_FEW = ("1", "1", "12", "12", "12", "123", "1234", "")
_MANY = ("12345", "123456", "1234567")
_ALLOWED = ("[]", '["10.1.0.1"]', '["10.1.0.0/29", "@more"]', '["2001:db8:a::/127", "@nets"]')
BLOCKS = ("10.1.0.1", "10.1.0.0/31", "10.0.0.0/8", "192.0.2.7", "0.0.0.0/0", "203.0.113.0/24")
BLOCKS += ("2001:db8:a::1", "2001:db8:a::/64", "2001:db8::/33", "2001:db8:b::/126", "::/128")
_LIMITED = (
    *("pass", "drop", "tx", "limit 1/m burst 1", "limit 1/m burst 9", "limit 1/m burst 2 per rule"),
    *("limit 1/m burst 3 per source", "limit 1/m burst 2 per source/24,48"),
    *("limit 1/m burst 4 per source/8,32", "limit 1/m burst 1 per source/32,128"),
)


def _endpoint(choose: _Choose[str], side: str) -> str:
    words, which = [side], choose(("addresses", "ports", "both"))
    if which != "ports":
        words += [choose(("", "not")), choose(_ADDRESSES)]
    if which != "addresses":
        words += ["port", choose(("", "not")), choose(_PORTS)]
    return " ".join(word for word in words if word)


def _match(choose: _Choose[str]) -> str:
    kind = choose(_KINDS)
    if kind in ("from", "to"):
        return _endpoint(choose, kind)
    pools = {"simple": _SIMPLE, "other": _OTHER, "on": ("on left", "on right")}
    return choose(pools[kind])


def _rule(choose: _Choose[str], number: int, counts: Sequence[str], limits: bool) -> str:
    """A rule with a name of its own."""
    matches: dict[str, str] = {}
    for _ in choose(counts):
        match = _match(choose)
        matches.setdefault(match.split()[0], match)
    action = choose(_LIMITED if limits else _ACTIONS)
    return f"r{number} {action} {' '.join(matches.values())}"


def policy(
    choose: _Choose[str],
    sizes: Iterable[int] = range(13),
    *,
    limits: bool = False,
    allows: bool = False,
    narrow: bool = False,
) -> str:
    """A whole policy file.

    Args:
        choose: picks one of some options.
        sizes: how many rules it may have.
        limits: rules limit, with rates so slow that time has no part in it, pass, drop or tx.
        allows: it may name sources that no block covers.
        narrow: rules ask for so much that many of them are tried before one holds.
    """
    allow = f"allow = {choose(_ALLOWED)}\n" if allows else ""
    counts = _MANY if narrow else _FEW
    size = int(choose(list(map(str, sizes))))
    rules = "\n".join(_rule(choose, number, counts, limits) for number in range(size))
    return (
        f'[policy]\ndefault = "{choose(("pass", "drop"))}"\n'
        f'malformed = "{choose(("pass", "drop"))}"\n'
        f'fragments = "{choose(("rules", "rules", "drop", "follow"))}"\n'
        f"guard = {choose(('true', 'false'))}\n{allow}"
        f'rules = """\n{rules}\n"""\n{_SETS}'
    )


@st.composite
def policies(draw: st.DrawFn, limits: bool = False, allows: bool = False) -> str:
    """Policies of `policy`, to shrink."""
    return policy(lambda options: draw(st.sampled_from(options)), limits=limits, allows=allows)


def blocks() -> st.SearchStrategy[list[str]]:
    """Sources to block, which may nest; so many that some packet of a few dozen comes from one."""
    return st.lists(st.sampled_from(BLOCKS), min_size=2, max_size=6, unique=True)


def packets(rng: random.Random, count: int) -> list[bytes]:
    """Frames: built ones, rows of the table, and mutations of both."""
    return [_packet(rng) for _ in range(count)]


_SOURCES = ("10.1.0.1", "10.1.0.0", "10.1.0.9", "10.1.0.10", "10.9.9.9", "192.0.2.7", "203.0.113.1")
_SOURCES6 = ("2001:db8:a::1", "2001:db8:a::", "2001:db8:a::9", "2001:db8:b::2", "2001:db9::1", "::")
_NUMBERS = (0, 7, 22, 53, 67, 68, 80, 81, 123, 443, 546, 547, 1023, 1024, 4500, 8050, 65535)
_TYPES = (0, 3, 8, 128, 132, 133, 135, 137, 138)
_EXTENSIONS = (f.HOPOPTS, f.ROUTING, f.DSTOPTS, f.MOBILITY, f.HIP, f.SHIM6)


def _packet(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.2:
        frame = rng.choice(ROWS).frame
    elif kind < 0.25:
        return rng.randbytes(rng.randrange(14, 120))
    else:
        frame = _built(rng)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        frame = _mutated(rng, frame)
    return frame


def _mutated(rng: random.Random, frame: bytes) -> bytes:
    how, out = rng.randrange(4), bytearray(frame)
    # Most bytes that matter are headers'.
    at = min(rng.randrange(12, 80), len(out) - 1) if out else 0
    if how == 0 and out:
        out[at] ^= 1 << rng.randrange(8)
    elif how == 1 and out:
        out[at] = rng.choice((0, 1, 5, 0x45, 0x60, 0xFF, *_EXTENSIONS, 44, 50, 51, 58, 59))
    elif how == 2:
        del out[rng.randrange(len(out) + 1) :]
    else:
        out += bytes(rng.randrange(1, 40))
    return bytes(out)


def _segment(rng: random.Random) -> f.Segment:
    sport, dport = rng.choice(_NUMBERS), rng.choice(_NUMBERS)
    data = bytes(rng.randrange(0, 30))
    which = rng.randrange(8)
    if which < 2:
        flags = rng.choice((f.SYN, f.SYN | f.ACK, f.RST, f.FIN | f.PSH | f.URG, rng.randrange(256)))
        return f.tcp(data, sport=sport, dport=dport, flags=flags)
    if which < 4:
        length = rng.choice((None, None, None, rng.randrange(0, 60)))
        return f.udp(data, sport=sport, dport=dport, length=length)
    if which == 4:
        return f.sctp(data, sport=sport, dport=dport)
    if which == 5:
        return f.icmp(rng.choice(_TYPES), rng.randrange(6), data)
    if which == 6:
        return f.icmp6(rng.choice(_TYPES), rng.randrange(6), data)
    return f.Segment(rng.choice((f.GRE, f.ESP, f.AH, f.NO_NEXT, 60, 253)), data)


def _layer4(rng: random.Random) -> f.Layer:
    fragment = rng.random() < 0.25
    return f.ipv4(
        _segment(rng),
        src=rng.choice(_SOURCES),
        dst=rng.choice(_SOURCES),
        ttl=rng.choice((0, 1, 63, 64, 255)),
        tos=rng.choice((0, 46 << 2, rng.randrange(256))),
        mf=fragment and rng.random() < 0.5,
        offset=rng.choice((0, 1, 100)) if fragment else 0,
        options=bytes([1]) * rng.choice((0, 0, 0, 4, 40)),
    )


def _headers(rng: random.Random) -> Iterable[f.Extension]:
    if rng.random() < 0.5:
        return []
    chain: list[f.Extension] = []
    for _ in range(rng.randrange(1, 11)):
        what = rng.randrange(8)
        if what == 0:
            chain.append(f.fragment(offset=rng.choice((0, 0, 5)), more=rng.random() < 0.5))
        elif what == 1:
            chain.append(f.ah())
        else:
            chain.append(f.extension(rng.choice(_EXTENSIONS), units=rng.choice((0, 0, 1))))
        if rng.random() < 0.4:
            break
    return chain


def _layer6(rng: random.Random) -> f.Layer:
    return f.ipv6(
        _segment(rng),
        *_headers(rng),
        src=rng.choice(_SOURCES6),
        dst=rng.choice(_SOURCES6),
        hop_limit=rng.choice((0, 1, 64, 254, 255)),
        traffic_class=rng.choice((0, 46 << 2, rng.randrange(256))),
    )


def _built(rng: random.Random) -> bytes:
    tags = [
        f.vlan(rng.choice((0, 10, 4095)), ethertype=rng.choice((0x8100, 0x88A8, 0x9100)))
        for _ in range(rng.choice((0, 0, 0, 0, 1, 1, 2, 3)))
    ]
    which = rng.randrange(10)
    if which < 4:
        layer = _layer4(rng)
    elif which < 8:
        layer = _layer6(rng)
    elif which == 8:
        layer = f.arp()
    else:
        layer = f.raw(rng.choice((f.SLOW, f.LLDP, f.EAPOL, f.TEST_TYPE, 40)), bytes(20))
    return f.eth(
        *tags,
        layer,
        src=rng.choice(("02:00:00:00:00:01", "02:00:00:00:00:09")),
        dst=rng.choice(("02:00:00:00:00:01", "02:00:00:00:00:09")),
        pad=rng.choice((0, 60)),
    )
