"""Policies of a wanted length that look like what people write.

The mix follows what filters at the edge of a network hold: mostly services opened or closed for
some networks, lists of bad networks, a few rules of a whole protocol. All are drawn with a fixed
seed, so a policy of n rules is the same on every machine, and the shorter is not a part of the
longer one.

No rule but the last can match `SOURCE4`/`SOURCE6` to port `PORT`, for each asks at least one of: a
source or destination in networks where they are not, a port that is not theirs, a protocol or flags
that they do not have.
"""

from __future__ import annotations

import random

__all__ = ["PORT", "SOURCE4", "SOURCE6", "policy"]

SOURCE4, SOURCE6 = "10.1.0.1", "2001:db8:a::1"
"""Where the measured packets come from."""
PORT = 4242
"""And where they go to."""

_LAST = "from { 10.1.0.0/16, 2001:db8:a::/48 } to port"
_SERVICES = (22, 25, 53, 80, 110, 123, 143, 161, 179, 389, 443, 445, 587, 993, 1433, 3306, 3389)
_MORE_SERVICES = (5060, 5432, 5900, 6379, 8080, 8443, 9100, 9200, 11211, 27017)
_ICMP = ("icmp type echo-request", "icmp type 13", "icmp6 type 128", "icmp type 5")
_FLAGS = ("flags syn,fin", "flags syn,rst", "flags fin,psh,urg,!ack", "flags !syn,!ack,!rst,!fin")


def _network4(rng: random.Random) -> str:
    """In 172.16.0.0/12, 192.168.0.0/16 or 198.18.0.0/15: nothing of 10.0.0.0/8."""
    bits = rng.choice((16, 20, 22, 24, 24, 24, 28, 32, 32))
    base, room = rng.choice(((0xAC100000, 20), (0xC0A80000, 16), (0xC6120000, 17)))
    address = base | rng.getrandbits(room) & ~((1 << 32 - bits) - 1)
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}/{bits}"


def _network6(rng: random.Random) -> str:
    """In 2001:db8:4000::/34: nothing of 2001:db8:a::/48."""
    return f"2001:db8:{0x4000 | rng.getrandbits(14):x}::/48"


def _network(rng: random.Random) -> str:
    return _network4(rng) if rng.random() < 0.75 else _network6(rng)


def _service(rng: random.Random) -> int:
    return rng.choice(_SERVICES + _MORE_SERVICES)


def _match(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.35:
        return f"tcp from {_network(rng)} to port {_service(rng)}"
    if kind < 0.50:
        return f"tcp to {_network(rng)} port {_service(rng)}"
    if kind < 0.62:
        return f"udp from {_network(rng)} to port {_service(rng)}"
    if kind < 0.84:
        return f"from {_network(rng)}"
    if kind < 0.90:
        first = rng.randrange(5000, 9000)
        return f"tcp to {_network(rng)} port {first}-{first + rng.randrange(1, 200)}"
    if kind < 0.94:
        return f"udp from port {_service(rng)} to {_network(rng)}"
    if kind < 0.96:
        return f"{rng.choice(_ICMP)} from {_network(rng)}"
    if kind < 0.98:
        return rng.choice(_FLAGS)
    return f"{rng.choice(('gre', 'esp', 'sctp'))} to {_network(rng)}"


def policy(
    rules: int, *, last_matches: bool = True, counts_sources: bool = False, seed: int = 1
) -> str:
    """A policy file that passes by default and logs nothing.

    Args:
        rules: how many; the last one drops packets from `SOURCE4` or `SOURCE6` to `PORT`.
        last_matches: False puts another port there, so that no rule matches.
        counts_sources: the setting `count` of [sources].
        seed: of the mix.
    """
    rng = random.Random(f"{seed} {rules}")
    lines = [f"r{n} {rng.choice(('pass', 'drop', 'drop'))} {_match(rng)}" for n in range(rules - 1)]
    if rules:
        lines.append(f"last drop {_LAST} {PORT if last_matches else PORT + 1}")
    text = "\n".join(lines)
    return (
        f'[policy]\ndefault = "pass"\nrules = """\n{text}\n"""\n[log]\nsources = "off"\n'
        f"[sources]\ncount = {str(counts_sources).lower()}\n"
    )
