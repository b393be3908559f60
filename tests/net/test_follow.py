"""`fragments = "follow"` on a live port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import frames as f
from tests.net.live import live
from xdpgw._abi import Reason, Verdict
from xdpgw.testbed import TestBed

POLICY = """
[policy]
default = "drop"
guard = false
fragments = "follow"
rules = "dns pass udp to port 53"
[ports.left]
mode = "MODE"
[log]
sources = "off"
"""
PASSED = (Verdict.PASS, Reason.RULE)
UNKNOWN = (Verdict.DROP, Reason.FRAGMENT)
REFUSED = (Verdict.DROP, Reason.DEFAULT)


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


def pieces(dport: int, ident: int, family: int) -> tuple[bytes, bytes]:
    """A datagram in two fragments."""
    whole = f.udp(bytes(n % 251 for n in range(64)), dport=dport)
    head, tail = slice(0, 32), slice(32, None)
    if family == 4:
        first = f.ipv4(whole, ident=ident, mf=True, part=head)
        later = f.ipv4(whole, ident=ident, offset=4, part=tail)
    else:
        first = f.ipv6(whole, f.fragment(more=True, ident=ident), part=head)
        later = f.ipv6(whole, f.fragment(offset=4, ident=ident), part=tail)
    return f.eth(first, pad=60), f.eth(later, pad=60)


@pytest.mark.parametrize("family", [4, 6])
def test_follow_lets_whole_datagrams_through(mode: str, bed: TestBed, family: int) -> None:
    good, bad = pieces(53, 1, family), pieces(80, 2, family)
    with live(POLICY.replace("MODE", mode), bed) as gate, bed.host() as host:
        assert gate.send([good[1]]).counters == {UNKNOWN: 1}
        assert gate.send([*good, good[1], *bad]).counters == {PASSED: 3, REFUSED: 2}
        assert host.receive(3) == [*good, good[1]]
        assert host.waiting() == []
        assert gate.books().rules["dns"] == 3


def test_follow_starts_anew_with_a_reload(mode: str, bed: TestBed) -> None:
    """A later fragment never gets a verdict of a policy that is no longer in force."""
    first, later = pieces(53, 3, 4)
    policy = POLICY.replace("MODE", mode)
    with live(policy, bed) as gate:
        assert gate.send([first, later]).counters == {PASSED: 2}
        gate.apply(policy.replace("dns pass", "dns drop"))
        assert gate.send([later]).counters == {UNKNOWN: 1}
        assert gate.send([first, later]).counters == {(Verdict.DROP, Reason.RULE): 2}
