"""The action `limit` on a live port: counters, reloads, and what `xdpgw limits` tells."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from tests.frames import eth, ipv4, ipv6, udp
from tests.net.live import Live, live
from tests.net.process import data, xdpgw
from xdpgw import events, facts
from xdpgw._abi import Reason, Verdict
from xdpgw.limit_state import limits_of
from xdpgw.testbed import TestBed

POLICY = """
[policy]
default = "pass"
rules = '''
RULES
'''
[ports.left]
mode = "MODE"
[log]
sources = "off"
"""
PASSED = (Verdict.PASS, Reason.DEFAULT)
OVER = (Verdict.DROP, Reason.LIMIT)


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


def policy(mode: str, *rules: str) -> str:
    return POLICY.replace("MODE", mode).replace("RULES", "\n".join(rules))


def packets(count: int, source: int = 1, dport: int = 53) -> list[bytes]:
    return [eth(ipv4(udp(dport=dport), src=f"10.7.0.{source}"), pad=60)] * count


def passed(gate: Live, frames: list[bytes]) -> int:
    """How many were let through; the others were over a limit."""
    counters = gate.send(frames).counters
    assert counters.keys() <= {PASSED, OVER}
    assert sum(counters.values()) == len(frames)
    return counters.get(PASSED, 0)


def test_limit_drops_what_is_over_and_delivers_the_rest(mode: str, bed: TestBed) -> None:
    with live(policy(mode, "few limit 1/m burst 5 udp"), bed) as gate, bed.host() as host:
        grown = gate.send(packets(8))
        assert grown.counters == {PASSED: 5, OVER: 3}
        assert grown.rules == {"few": 3}
        assert host.receive(5) == packets(5)
        assert host.waiting() == []


def test_limit_per_source_of_both_families(mode: str, bed: TestBed) -> None:
    with live(policy(mode, "few limit 1/m burst 2 per source udp"), bed) as gate:
        six = [eth(ipv6(udp(), src="2001:db8::7"), pad=60)] * 4
        assert passed(gate, [*packets(3, 1), *packets(3, 2), *six]) == 6


@pytest.mark.parametrize("per", ["rule", "source"])
def test_limit_goes_on_over_a_reload(mode: str, bed: TestBed, per: str) -> None:
    limit = f"few limit 1/m burst 5 per {per}"
    with live(policy(mode, f"{limit} udp"), bed) as gate:
        assert passed(gate, packets(3)) == 3
        more = "more limit 1/m burst 50 per source"
        gate.apply(policy(mode, "arp pass arp", more, f"{limit} udp to port 53"))
        assert passed(gate, packets(6)) == 2
        # Another name, or another rate, is another limit.
        gate.apply(policy(mode, f"{limit.replace('few', 'new')} udp"))
        assert passed(gate, packets(6)) == 5
        gate.apply(policy(mode, f"{limit.replace('few', 'new').replace('5', '4')} udp"))
        assert passed(gate, packets(6)) == 4


@pytest.mark.parametrize("per", ["rule", "source"])
def test_limit_that_gets_the_place_of_another_one_starts_anew(
    mode: str, bed: TestBed, per: str
) -> None:
    with live(policy(mode, f"old limit 1/m burst 5 per {per} udp"), bed) as gate:
        assert passed(gate, packets(6)) == 5
        slot = gate.manifest.limit_slots[f"old limit 1/m burst 5{' per source' * (per != 'rule')}"]
        gate.apply(policy(mode, "ok pass arp"))
        gate.apply(policy(mode, f"new limit 1/m burst 7 per {per} udp"))
        assert list(gate.manifest.limit_slots.values()) == [slot]
        assert passed(gate, packets(9)) == 7


def test_limit_seeds_are_not_to_be_guessed(mode: str, bed: TestBed) -> None:
    rules = [f"l{n} limit 1/s per source" for n in range(8)]
    with live(policy(mode, *rules), bed) as gate:
        seeds = set(gate.manifest.limit_seeds.values())
        assert len(seeds) == 8
        assert max(seeds) > 1 << 40


def test_limit_logs_what_is_over_it(mode: str, bed: TestBed) -> None:
    text = policy(mode, "few limit 1/m burst 2 udp log")
    with live(text, bed) as gate, events.EventReader(gate.maps["events"]) as reader:
        assert passed(gate, packets(5, 9)) == 2
        batch = reader.drain()
        assert [int(x["reason"]) for x in batch] == [Reason.LIMIT] * 3


def test_limits_shows_what_was_dropped_and_who_is_over(mode: str, bed: TestBed) -> None:
    rules = (
        "all limit 60/m burst 40",
        "each limit 1/m burst 4 per source/24,48 udp to port 53",
        "wide limit 8Mbit/s to port 54",
    )
    with live(policy(mode, *rules), bed) as gate:
        assert passed(gate, [*packets(3, 1), *packets(3, 2), *packets(2, 3, 55)]) == 6
        shown = data(bed, "limits", "10.7.9.9")
        every, each, wide = shown["limits"]
        assert (every["rule"], every["rate"], every["burst"]) == ("all", "60/m", 40)
        assert (every["per"], every["sources"]) == ("rule", [])
        assert 1 <= every["spent"] <= 8
        assert (each["per"], each["spent"]) == ("source/24,48", None)
        assert each["over"] == {"packets": 2, "bytes": 120}
        asked, over = each["sources"]
        assert asked == {"source": "10.7.9.0/24", "spent": 0, "over_s": None}
        assert (over["source"], over["spent"]) == ("10.7.0.0/24", 4)
        assert 0 <= over["over_s"] < 60
        assert (wide["burst"], wide["unit"], wide["spent"]) == (100_000, "bytes", 0)
        assert shown["table"] == {"buckets": 1 << 20, "in_use": 1}
        printed = xdpgw(bed, "limits").stdout
        assert "10.7.0.0/24" in printed
        assert "buckets of sources in use: 1 of 1048576" in printed


def test_limits_without_the_ticks_of_the_kernel_tells_the_rest(
    mode: str, bed: TestBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = ("ticks limit 10/s", "each limit 10/s per source", "exact limit 10/s burst 1")
    with live(policy(mode, *rules), bed) as gate:
        assert passed(gate, packets(2)) == 1
        monkeypatch.setattr(facts, "jiffies", lambda: None)
        asked = [ipaddress.ip_address("10.7.0.1")]
        shown = limits_of(gate.instance, gate.manifest, asked)
        ticks, each, exact = shown["limits"]
        assert (ticks["spent"], exact["spent"] is None) == (None, False)
        assert each["sources"] == [{"source": "10.7.0.1", "spent": None, "over_s": None}]
        assert exact["over"]["packets"] == 1
        assert shown["table"]["in_use"] is None


def test_limits_without_a_limit_says_so(mode: str, bed: TestBed) -> None:
    with live(policy(mode, "ok pass udp"), bed):
        assert xdpgw(bed, "limits").stdout == "the policy in force has no limit\n"
        assert data(bed, "limits")["limits"] == []


def test_limits_of_no_address_is_a_sentence(bed: TestBed) -> None:
    done = xdpgw(bed, "limits", "10.0.0.300")
    assert done.returncode == 2
    assert "'10.0.0.300' does not appear to be an IPv4 or IPv6 address" in done.stderr
