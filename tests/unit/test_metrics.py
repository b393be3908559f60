"""What is told to Prometheus."""

from __future__ import annotations

from typing import Any

from tests.snapshots import moment, socket
from xdpgw._abi import LogCounter, Reason, Verdict
from xdpgw.metrics import families, page
from xdpgw.sink_stats import SinkStats
from xdpgw.snapshot import RuleState, Snapshot
from xdpgw.stats import Counter


def told(found: Snapshot | None, **options: Any) -> dict[tuple[str, frozenset[str]], float]:
    """Values by name and label values."""
    values = {}
    for family in families(found, **options):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.values())
            assert key not in values or sample.labels["ring"], key
            values[key] = sample.value
    return values


def test_counters_are_told_by_port_verdict_and_reason() -> None:
    values = told(moment(10))
    packets = {
        key[1]: value for key, value in values.items() if key[0] == "xdpgw_packets_total" and value
    }
    assert packets == {
        frozenset(("eth0", "pass", "rule")): 10_000,
        frozenset(("eth0", "drop", "rule")): 2000,
        frozenset(("eth0", "af_xdp", "rule")): 500,
    }
    assert values["xdpgw_bytes_total", frozenset(("eth0", "drop", "rule"))] == 200_000
    assert values["xdpgw_rule_packets_total", frozenset(("bad", "drop"))] == 2000
    assert values["xdpgw_target_frames_total", frozenset(("tap", "eth0", "0", "rx_packets"))] == 500
    assert values["xdpgw_sink_events_total", frozenset(("jsonl x.jsonl", "written"))] == 90
    assert values["xdpgw_port_mode", frozenset(("wan", "generic"))] == 1
    for which in LogCounter:
        assert ("xdpgw_log_events_total", frozenset((which.text,))) in values


def test_what_must_not_be_missed_is_told_before_it_happens() -> None:
    values = told(moment(1))
    for reason in Reason:
        for verdict in (Verdict.PASS, Verdict.DROP):
            key = "xdpgw_packets_total", frozenset(("wan", verdict.text, reason.text))
            assert values[key] == 0


def test_limits_are_told_also_without_the_other_rules() -> None:
    values = told(moment(1), rules=False)
    assert values["xdpgw_limit_dropped_total", frozenset(("dns",))] == 0
    assert not [key for key in values if key[0].startswith("xdpgw_rule_")]


def test_without_a_filter_that_is_told() -> None:
    values = told(None)
    assert values["xdpgw_in_force", frozenset()] == 0
    assert [name for name, _ in values] == ["xdpgw_build_info", "xdpgw_in_force"]


def test_two_sinks_of_one_name_are_told_once() -> None:
    sinks = [SinkStats("stdout", 3, 1), SinkStats("stdout", 4, 2, failing="no space")]
    values = told(moment(1, sinks=sinks))
    assert values["xdpgw_sink_events_total", frozenset(("stdout", "written"))] == 7
    assert values["xdpgw_sink_failing", frozenset(("stdout",))] == 1


def test_a_socket_on_a_port_that_has_left_is_not_told() -> None:
    text = page(lambda: moment(1, sockets=[socket(1, 0, port=None)]))[1].decode()
    assert "xdpgw_target_frames_total{" not in text


def test_ten_thousand_rules_are_a_page_of_a_few_samples_each() -> None:
    rules = {f"r{n}": RuleState(f"r{n} drop udp", Counter(n, n)) for n in range(10_000)}
    _, text = page(lambda: moment(1, rules=rules))
    assert text.count(b"xdpgw_rule_packets_total{") == 10_000
    assert text.count(b"\n") < 21_000
    assert page(lambda: moment(1, rules=rules), rules=False)[1].count(b"\n") < 300
