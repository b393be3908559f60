"""What `bench rules` compares: the same rules in each peer's form, over the same packets."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from bench import harness, reload, rules, rules_peers
from bench.facts import ROOT
from tests import classbench
from tests.reference import Reference

PASS, DROP = 2, 1


def constants(source: str) -> dict[str, int]:
    """The plain numbers of a source's enums."""
    text = (ROOT / "bench" / source).read_text()
    return {name: int(value) for name, value in re.findall(r"\b([A-Z_0-9]+) = (\d+)", text)}


def by_ranges(table: np.ndarray[Any, Any], packet: Any) -> int:
    """What bench/peers.bpf.c does, one rule after the other."""
    for rule in table:
        if not rule["any_proto"] and rule["proto"] != packet["proto"]:
            continue
        sides = [
            (rule[side][0] <= packet[side][1] <= rule[side][1] and not rule[f"{side}_not"])
            or (not rule[side][0] <= packet[side][1] <= rule[side][1] and rule[f"{side}_not"])
            for side in ("src", "dst")
        ]
        ports = [rule[side][0] <= packet[side] <= rule[side][1] for side in ("sport", "dport")]
        if all(sides) and all(ports):
            return int(rule["action"])
    return PASS


@pytest.mark.parametrize("family", [x for x in rules.FAMILIES if x != "acl6"])
@pytest.mark.parametrize("trace", rules.TRACES)
def test_linear_table_judges_as_the_policy_does(family: str, trace: str) -> None:
    policy = classbench.policy(family, 40)
    packets = classbench.headers(policy, trace, 60)
    table, reference = rules_peers.linear_table(policy), Reference.from_text(policy.text)
    for packet, frame in zip(packets, classbench.frames(packets), strict=True):
        wanted = DROP if reference.judge(frame).verdict == "drop" else PASS
        assert by_ranges(table, packet) == wanted


@pytest.mark.parametrize("family", ["acl6", "sets"])
def test_linear_table_of_what_it_cannot_hold_is_refused(family: str) -> None:
    with pytest.raises(ValueError, match="IPv4, and no sets"):
        rules_peers.linear_table(classbench.policy(family, 10))


@pytest.fixture
def one_rule() -> classbench.Policy:
    """tcp from 10.1.0.0/16 to 192.0.2.7 port 80-90."""
    rule = np.zeros(1, classbench.RULE)
    rule["version"], rule["proto"], rule["src_set"], rule["dst_set"] = 4, 6, -1, -1
    rule["src"][0] = [[0, 0x0A010000], [0, 0x0A01FFFF]]
    rule["dst"][0] = [[0, 0xC0000207], [0, 0xC0000207]]
    rule["sport"], rule["dport"] = [0, 65535], [80, 90]
    return classbench.Policy("", rule)


def test_nft_has_the_rule_as_text(one_rule: classbench.Policy) -> None:
    wanted = "ip saddr 10.1.0.0/16 ip daddr 192.0.2.7/32 ip protocol tcp tcp dport 80-90 drop"
    assert wanted in rules_peers.nft_rules(one_rule, "left").splitlines()


def test_iptables_has_the_rule_as_text(one_rule: classbench.Policy) -> None:
    wanted = "-A PREROUTING -s 10.1.0.0/16 -d 192.0.2.7/32 -p tcp --dport 80:90 -j DROP"
    assert wanted in rules_peers.iptables_rules(one_rule).splitlines()


def test_rule_of_any_packet_has_no_words() -> None:
    rule = np.zeros(1, classbench.RULE)
    rule["version"], rule["proto"] = 4, -1
    for side in ("src", "dst"):
        rule[side][0] = [[0, 0], [0, 0xFFFFFFFF]]
        rule[side[0] + "port"] = [0, 65535]
    policy = classbench.Policy("", rule)
    assert " drop" in rules_peers.nft_rules(policy, "left").splitlines()
    assert "-A PREROUTING  -j DROP" in rules_peers.iptables_rules(policy).splitlines()


def test_missing_peer_is_told_with_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not rules_peers.has("xdp-filter")
    assert "apt-get install --no-install-recommends xdp-tools" in capsys.readouterr().err


@pytest.mark.parametrize("most", [1, 100, 1024, 10_000])
def test_sizes_grow_with_what_a_policy_may_have(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdpgw.rules.MAX_RULES", most)
    assert rules.sizes(quick=False)[-1] <= most
    assert rules.sizes(quick=False) == tuple(x for x in rules.SIZES if x <= most)


def test_numbers_are_those_of_the_programs() -> None:
    trace, tap = constants("trace.h"), constants("tap.bpf.c")
    assert (trace["PASSES"], trace["HEAD_BYTES"]) == (harness.PASSES, harness.HEAD_BYTES)
    assert tap["WINDOWS"] == reload.WINDOWS


def test_linear_rule_has_the_program_s_layout() -> None:
    assert rules_peers.LINEAR.itemsize == 4 * 4 + 4 * 2 + 4 + 4
    assert rules_peers.LINEAR.fields is not None
    assert rules_peers.LINEAR.fields["action"][1] == 28


@pytest.mark.parametrize("packets", [1, 63, 100])
def test_trace_takes_a_power_of_two(packets: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        harness.Trace.of([bytes(60)] * packets)


def test_trace_is_as_long_as_its_sources() -> None:
    heads = np.zeros((64, harness.HEAD_BYTES), np.uint8)
    assert len(harness.Trace(heads)) == 64
    assert len(harness.Trace(heads, 0, np.zeros((256, 4), np.uint8))) == 256
    with pytest.raises(ValueError, match="power of two"):
        harness.Trace(heads, 0, np.zeros((100, 4), np.uint8))


def test_trace_pads_frames_behind_their_end() -> None:
    heads = harness.Trace.of([bytes([7]) * 60] * 64).heads
    assert heads.shape == (64, harness.HEAD_BYTES)
    assert (heads[:, :60] == 7).all()
    assert not heads[:, 60:].any()
