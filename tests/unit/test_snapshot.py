"""Rates as differences of two snapshots, and what `top --once` makes of them."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from tests.snapshots import moment, socket
from xdpgw._abi import Reason, Verdict
from xdpgw.snapshot import Change, PerSecond
from xdpgw.stats import Counter
from xdpgw.top_tables import cell_text, compact, document, plain, tables

PASSED, DROPPED = (Verdict.PASS, Reason.RULE), (Verdict.DROP, Reason.RULE)


def test_rates_are_what_was_counted_over_the_time_between() -> None:
    change = Change(moment(10), moment(14))
    eth0, wan = change.after.ports
    assert change.seconds == 4
    assert change.port(eth0)[PASSED] == PerSecond(1000, 100_000)
    assert change.port(wan) == {}
    assert change.rule("bad").packets == 200
    assert change.log("lost") == 5
    assert change.sink("jsonl x.jsonl", "written") == 9
    assert change.socket(change.after.sockets[0], "counters", "rx_packets") == 50


def test_rates_of_sockets_are_over_the_time_between_publications() -> None:
    before = moment(0, sockets=[socket(100, 0)])
    after = moment(10, sockets=[socket(300, 2_000_000_000)])
    assert Change(before, after).socket(after.sockets[0], "counters", "rx_packets") == 100
    stale = moment(10, sockets=[socket(100, 0)])
    assert Change(before, stale).socket(stale.sockets[0], "counters", "rx_packets") == 0


def test_books_that_began_anew_are_counted_from_nothing() -> None:
    before, after = moment(100), moment(104, epoch=2)
    change = Change(before, after)
    assert change.port(after.ports[0])[PASSED].packets == 26_000
    assert change.rule("web").packets == 26_000
    assert change.log("due") == 104 * 200 / 4
    rates = {str(x.source): rate.packets for x, rate in change.sources(5)}
    assert rates["198.51.100.20"] == 104 * 2000 / 4


def test_a_slot_that_another_rule_got_is_counted_from_nothing() -> None:
    before, after = moment(100), moment(101)
    fresh = replace(after.rules["web"], count=Counter(7, 700))
    after = replace(after, rules={**after.rules, "web": fresh})
    assert Change(before, after).rule("web") == PerSecond(7, 700)


def test_a_port_and_a_rule_that_were_not_there_before_are_counted_from_nothing() -> None:
    before, after = moment(1, ports=("wan",), rules={}), moment(2)
    change = Change(before, after)
    assert change.port(after.ports[0])[DROPPED].packets == 400
    assert change.rule("bad").packets == 400


def test_no_time_between_gives_no_rates() -> None:
    change = Change(moment(5), moment(5))
    assert change.port(change.after.ports[0])[PASSED].packets == 0
    assert change.sources(5) == []


def test_sources_are_those_that_send_most_now_and_in_all() -> None:
    before = moment(0, sources={"192.0.2.1": 5000, "192.0.2.2": 1, "2001:db8::1": 7})
    sent = {"192.0.2.2": 1001, "2001:db8::1": 9, "192.0.2.1": 5000, "192.0.2.3": 30}
    change = Change(before, moment(1, sources=sent))
    assert {str(x.source): rate.packets for x, rate in change.sources(1)} == {
        "192.0.2.1": 0,  # most in all
        "192.0.2.2": 1000,  # most now
    }
    assert {x.source: rate.packets for x, rate in change.sources(9)} == {
        ipaddress.ip_address(source): rate
        for source, rate in (
            ("192.0.2.1", 0),
            ("192.0.2.2", 1000),
            ("2001:db8::1", 2),
            ("192.0.2.3", 30),
        )
    }


def test_addresses_of_both_families_with_the_same_bytes_are_two_sources() -> None:
    sent = {"32.1.13.184": 10, "2001:db8::": 500}
    change = Change(moment(0, sources=sent), moment(1, sources={x: n + 5 for x, n in sent.items()}))
    assert [rate.packets for _, rate in change.sources(9)] == [5, 5]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.04, "0"), (0.5, "0.5"), (9.94, "9.9"), (9.96, "10"), (999.4, "999"),
        (999.6, "1.00k"), (1234, "1.23k"), (9996, "10.0k"), (99_960, "100k"), (999_600, "1.00M"),
        (1.5e9, "1.50G"), (2e12, "2.00T"), (5e16, "50000T"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert compact(value) == text


def test_once_prints_all_tables() -> None:
    change = Change(moment(10), moment(11))
    text = plain(change, tables(change), 3)
    assert [line for line in text.splitlines() if line and line[0] != " "][2:] == [
        "ports", "top sources", "top rules", "verdicts and reasons", "AF_XDP rings", "log"
    ]  # fmt: skip
    assert "  and 18 more" in text
    lines = {tuple(line.split()) for line in text.splitlines()}
    for row in (
        "eth0 native received 1.25k 1.00M 13750",
        "eth0 native drop 200 160k 2200",
        "wan generic received 0 0 0",
        "web pass 1.00k 800k 11000",
        "mirror af_xdp 50 40.0k 550",
        "tap eth0 0 copy 50 0 5 100 % 25 % 0 %",
        "198.51.100.20 2.00k 1.60M 22000 pass rule eth0",
    ):
        wanted = tuple(row.split())
        assert any(line[: len(wanted)] == wanted for line in lines), row


def test_json_has_a_list_of_objects_for_each_table() -> None:
    change = Change(moment(10), moment(11))
    shown = document(change, tables(change))
    assert shown["seconds"] == 1
    assert shown["rules"][0] == {
        "rule": "web",
        "action": "pass",
        "packets_per_s": 1000,
        "bits_per_s": 800_000,
        "packets": 11_000,
    }
    assert [x["packets_per_s"] for x in shown["sources"][:2]] == [2000, 1900]


def test_targets_without_a_socket_and_sockets_that_gave_up_are_told() -> None:
    after = moment(1, sockets=[socket(5, 0, alive=False)], unserved=("tap",))
    rings = tables(Change(moment(0), after))["rings"]
    assert [row.cells[3] for row in rings.rows] == ["gave up", "no socket"]


def test_rows_are_sorted_by_any_column_and_found_by_text() -> None:
    change = Change(moment(10), moment(11))
    rules = tables(change)["rules"]

    def names(order: str | None, *, reverse: bool = False, needle: str = "") -> list[str]:
        return [row.key for row in rules.arranged(order, reverse=reverse, needle=needle)]

    assert names(None) == ["dns", "web", "bad", "mirror"]
    assert names("packets_per_s") == ["web", "bad", "mirror", "dns"]
    assert names("packets", reverse=True) == ["dns", "mirror", "bad", "web"]
    assert names("rule") == ["bad", "dns", "mirror", "web"]
    assert names("rule", needle="DRO") == ["bad"]
    assert names("rule", needle="1") == []  # numbers change: only text is found
    rings = tables(Change(moment(0), moment(1, unserved=("tap",))))["rings"]
    assert [row.cells[3] for row in rings.arranged("rx_per_s", reverse=True)] == [
        "copy",
        "no socket",
    ]  # unknown is last, whichever way


def test_unknown_is_empty() -> None:
    assert cell_text(None, tables(Change(moment(0), moment(1)))["rings"].columns[4]) == ""
