"""`fragments = "follow"`: later fragments get what their first one got."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.frames import (
    DSTOPTS,
    TCP,
    Extension,
    Layer,
    Segment,
    eth,
    extension,
    fragment,
    ipv4,
    ipv6,
    udp,
)
from tests.judges import kernel_judge, outcomes
from xdpgw import _abi as abi
from xdpgw.explain import Explainer

POLICY = """
[policy]
default = "pass"
fragments = "follow"
rules = '''
web drop udp to port 80
dns tx udp to port 53
inspect af_xdp eyes else drop udp to port 90
'''
[ports.left]
[af_xdp.eyes]
handler = "count"
"""
SECOND = 1_000_000_000
UNKNOWN = ("drop", "fragment", None)
DROPPED = ("drop", "rule", "web")
SENT_BACK = ("tx", "rule", "dns")


def first4(dport: int = 80, ident: int = 7, **ip: Any) -> Layer:
    return ipv4(udp(bytes(64), dport=dport), ident=ident, mf=True, part=slice(0, 32), **ip)


def later4(ident: int = 7, offset: int = 4, **ip: Any) -> Layer:
    return ipv4(udp(bytes(64)), ident=ident, offset=offset, part=slice(32, None), **ip)


def first6(*before: Extension, dport: int = 80, ident: int = 7, behind: bool = False) -> Layer:
    more = [extension(DSTOPTS)] if behind else []
    head = fragment(more=True, ident=ident)
    return ipv6(udp(bytes(64), dport=dport), *before, head, *more, part=slice(0, 32))


def later6(*before: Extension, ident: int = 7, next_header: int | None = None) -> Layer:
    head = fragment(offset=4, ident=ident)
    layer = ipv6(udp(bytes(64)), *before, head, part=slice(32, None))
    if next_header is None:
        return layer
    packet = bytearray(layer.data)
    packet[40] = next_header
    return Layer(layer.ethertype, bytes(packet))


@pytest.fixture
def judge() -> Iterator[Explainer]:
    with kernel_judge(POLICY, "left") as found:
        yield found


def judged(judge: Explainer, *layers: Layer) -> list[tuple[str, str, str | None]]:
    answers = outcomes(judge, [eth(layer) for layer in layers])
    return [(answer["verdict"], answer["reason"], answer["rule"]) for answer in answers]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (first4(), later4()),
        (first4(options=bytes([1]) * 40), later4()),
        (first6(), later6()),
        (first6(extension(DSTOPTS)), later6()),
        (first6(), later6(extension(DSTOPTS), extension(DSTOPTS))),
        (first6(fragment()), later6()),
        (first6(behind=True), later6(next_header=DSTOPTS)),
    ],
    ids=["4", "4 options", "6", "6 first behind", "6 later behind", "6 atomic", "6 options inside"],
)
def test_follow_later_gets_the_verdict_of_its_first(
    judge: Explainer, first: Layer, later: Layer
) -> None:
    assert judged(judge, later, first, later, later) == [UNKNOWN, DROPPED, DROPPED, DROPPED]


@pytest.mark.parametrize(
    "other",
    [
        later4(ident=8),
        later4(src="10.9.9.9"),
        later4(dst="10.9.9.9"),
        ipv4(Segment(TCP, bytes(64)), ident=7, offset=4),
        later6(),
    ],
    ids=["id", "source", "destination", "protocol", "family"],
)
def test_follow_another_packets_fragment_is_dropped(judge: Explainer, other: Layer) -> None:
    assert judged(judge, first4(), other) == [DROPPED, UNKNOWN]


def test_follow_ipv6_next_header_is_part_of_the_key(judge: Explainer) -> None:
    assert judged(judge, first6(), later6(next_header=DSTOPTS)) == [DROPPED, UNKNOWN]


def test_follow_passes_default_and_rule_alike(judge: Explainer) -> None:
    assert judged(judge, first4(dport=53), later4(), first4(dport=443), later4()) == [
        SENT_BACK,
        SENT_BACK,
        ("pass", "default", None),
        ("pass", "default", None),
    ]


def test_follow_af_xdp_names_the_target_of_the_first(judge: Explainer) -> None:
    answers = outcomes(judge, [eth(first4(dport=90)), eth(later4())])
    assert [answer["target"] for answer in answers] == ["eyes", "eyes"]


def test_follow_a_malformed_first_leaves_nothing(judge: Explainer) -> None:
    tiny = ipv4(udp(bytes(64), dport=53), ident=7, mf=True, part=slice(0, 4))
    assert judged(judge, tiny, later4()) == [("drop", "malformed", None), UNKNOWN]


def test_follow_whole_packets_leave_nothing(judge: Explainer) -> None:
    whole = ipv4(udp(dport=53), ident=7)
    assert judged(judge, whole, later4()) == [("tx", "rule", "dns"), UNKNOWN]


@pytest.mark.parametrize(
    ("age_s", "wanted"), [(abi.FRAGMENT_SECONDS - 5, DROPPED), (abi.FRAGMENT_SECONDS + 1, UNKNOWN)]
)
def test_follow_ends_with_its_time(
    judge: Explainer, age_s: int, wanted: tuple[str, str, str | None]
) -> None:
    table = judge._loaded.maps["fragments"]
    judged(judge, first4())
    ((key, value),) = table.items()
    entry = np.frombuffer(value, abi.fragment_dtype()).copy()
    entry["ts_ns"] -= age_s * SECOND
    table.update(key, entry.tobytes())
    assert judged(judge, later4()) == [wanted]


def test_follow_a_flood_of_firsts_stays_in_its_table(judge: Explainer) -> None:
    table = judge._loaded.maps["fragments"]
    room = table.info().max_entries
    assert room == abi.FRAGMENT_SLOTS
    flood = [first4(ident=n & 0xFFFF, src=f"10.3.{n >> 16}.1") for n in range(room + 4096)]
    judged(judge, *flood)
    assert len(dict(table.items())) <= room
    assert judged(judge, first4(src="10.4.0.1"), later4(src="10.4.0.1")) == [DROPPED, DROPPED]


def test_follow_makes_no_table_where_nothing_follows() -> None:
    with kernel_judge(POLICY.replace('"follow"', '"rules"'), "left") as judge:
        assert judge._loaded.maps["fragments"].info().max_entries == 1
        assert judged(judge, first4(), later4()) == [DROPPED, ("pass", "default", None)]
