"""Sources by columns, without a kernel: added up, chosen and ordered."""

from __future__ import annotations

import ipaddress
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpgw import _abi as abi
from xdpgw._abi import Reason, Verdict
from xdpgw.config import SourceSettings
from xdpgw.literals import addresses
from xdpgw.talkers import ORDERS, Sum, Talkers, merged, sets_for

# The same bytes in both families, and neighbours at either end.
SOURCES = ["0.0.0.0", "32.1.13.184", "10.0.0.1", "10.0.0.2", "255.255.255.255"]
SOURCES += ["::", "2001:db8::", "2001:db8::1", "2001:db8:0:0:1::", "2001:db8:1::", "ffff::ffff"]

row = st.tuples(
    st.sampled_from(SOURCES),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 60),
    st.integers(0, 1 << 60),
    st.sampled_from(list(Verdict)),
)


def columns(rows: list[tuple[object, ...]]) -> np.ndarray:
    out = np.zeros(len(rows), abi.talker_dtype())
    for at, (source, packets, size, dropped, first, last, verdict) in zip(out, rows, strict=True):
        address = ipaddress.ip_address(source)  # type: ignore[arg-type]
        at["addr"][: len(address.packed)] = list(address.packed)
        at["family"], at["verdict"] = address.version, verdict
        at["packets"], at["bytes"], at["dropped"] = packets, size, dropped
        at["first_ns"], at["last_ns"] = first, last
    return out


def talkers(rows: np.ndarray) -> Talkers:
    return Talkers(rows, {0: "left", 1: "right"}, {4: 32, 6: 128}, 0, Sum(), 0)


def some(**packets: int) -> Talkers:
    """Sources by the last part of their address and what they sent, one packet of each dropped."""
    rows = [(f"10.0.0.{x[1:]}", n, 100 * n, 1, 5, n % 7, Verdict.PASS) for x, n in packets.items()]
    return talkers(columns(rows))


@given(st.lists(row, max_size=60))
def test_merged_adds_up_what_several_cpus_saw(rows: list[tuple[object, ...]]) -> None:
    wanted: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    for one in rows:
        wanted[str(one[0])].append(one)
    empty = np.zeros(3, abi.talker_dtype())
    found = talkers(merged(np.concatenate([empty, columns(rows), empty])))
    assert len(found) == len(wanted)
    for talker in found.top(None):
        parts = wanted[str(talker.source)]
        sums = [sum(x[n] for x in parts) for n in (1, 2, 3)]  # type: ignore[misc]
        assert [talker.packets, talker.bytes, talker.dropped] == sums
        assert talker.first_ns == min(x[4] for x in parts)  # type: ignore[type-var]
        assert talker.last_ns == max(x[5] for x in parts)  # type: ignore[type-var]
        assert talker.verdict in [x[6] for x in parts if x[5] == talker.last_ns]
    total = found.total()
    assert total.packets == sum(x[1] for x in rows)  # type: ignore[misc]
    assert total.sources == len(wanted)


@given(st.lists(row, max_size=40), st.sampled_from(ORDERS), st.integers(1, 50))
def test_top_gives_the_most_of_what_is_asked_for(
    rows: list[tuple[object, ...]], by: str, count: int
) -> None:
    every = talkers(merged(columns(rows)))
    name = "last_ns" if by == "last" else by
    found = [getattr(x, name) for x in every.top(count, by)]  # type: ignore[arg-type]
    assert found == sorted((getattr(x, name) for x in every.top(None)), reverse=True)[:count]


def test_top_of_equals_is_by_packets_then_by_address() -> None:
    shown = some(x3=7, x1=9, x2=7).top(None, "dropped")
    assert [str(x.source) for x in shown] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["10.0.0.0/8"], ["10.0.0.1", "10.0.0.2"]),
        (
            ["10.0.0.2", "2001:db8::/64"],
            ["10.0.0.2", "2001:db8::", "2001:db8::1", "2001:db8:0:0:1::"],
        ),
        (["0.0.0.0/0"], SOURCES[:5]),
        (["::/0"], SOURCES[5:]),
        (["::"], ["::"]),
        (["192.0.2.0/24"], []),
    ],
)
def test_only_within_prefixes(words: list[str], kept: list[str]) -> None:
    every = talkers(columns([(x, 1, 1, 0, 0, 0, Verdict.PASS) for x in SOURCES]))
    within = [prefix for word in words for prefix in addresses(word)]
    assert {str(x.source) for x in every.only(within=within).top(None)} == set(kept)


@pytest.mark.parametrize(
    "word", ["10.1.2.3", "10.1.2.0/24", "2001:db8::5", "2001:db8:0:0:8000::/65"]
)
def test_only_within_less_than_a_counted_prefix_finds_the_source_it_is_in(word: str) -> None:
    rows = columns([(x, 1, 1, 0, 0, 0, Verdict.PASS) for x in ("10.1.0.0", "2001:db8::")])
    every = Talkers(rows, {}, {4: 16, 6: 64}, 0, Sum(), 0)
    (found,) = every.only(within=addresses(word)).top(None)
    assert ipaddress.ip_network(word).subnet_of(found.source)


def test_only_by_verdict_and_port() -> None:
    rows = columns([(x, 1, 1, 0, 0, 0, v) for x, v in zip(SOURCES, Verdict, strict=False)])
    rows["port"] = [0, 1] * 3 + [0]
    every = talkers(rows)
    assert [str(x.source) for x in every.only(verdict=Verdict.DROP).top(None)] == [SOURCES[1]]
    assert len(every.only(port="right")) == 3
    assert len(every.only(port="right", verdict=Verdict.PASS)) == 0
    assert len(every.only(port="none")) == 0


def test_talker_of_a_port_that_the_policy_has_no_longer_has_none() -> None:
    rows = columns([("10.0.0.1", 1, 1, 0, 0, 0, Verdict.PASS)])
    rows["port"], rows["reason"] = 9, Reason.GUARD
    (talker,) = talkers(rows).top(1)
    assert (talker.port, talker.reason) == (None, Reason.GUARD)


def test_talker_of_a_prefix_is_a_network() -> None:
    rows = columns([(x, 1, 1, 0, 0, 0, Verdict.PASS) for x in ("10.1.0.0", "2001:db8::")])
    shown = Talkers(rows, {}, {4: 16, 6: 64}, 0, Sum(), 0).top(None)
    assert {str(x.source) for x in shown} == {"10.1.0.0/16", "2001:db8::/64"}


def test_times_are_moved_to_the_wall_clock() -> None:
    rows = columns([("10.0.0.1", 1, 1, 0, 3, 5, Verdict.PASS)])
    (talker,) = Talkers(rows, {}, {4: 32, 6: 128}, 1000, Sum(), 0).top(1)
    assert (talker.first_ns, talker.last_ns) == (1003, 1005)


def test_sets_hold_the_slots_that_the_policy_asks_for() -> None:
    assert sets_for(SourceSettings(slots=128)) * abi.TALKER_WAYS == 128
    assert sets_for(SourceSettings()) * abi.TALKER_WAYS == 8192
    assert sets_for(SourceSettings(count=False)) == 0
