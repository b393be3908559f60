"""The table of packets is whole: names, policies, verdicts, keys. Not whether it is right."""

from __future__ import annotations

import tomllib
from collections import Counter
from ipaddress import ip_address

import pytest

from tests.packets import POLICIES, ROWS, Row, rows_by_policy

KEY = {
    "family",
    "src",
    "dst",
    "proto",
    "sport",
    "dport",
    "vlan",
    "frag",
    "len",
    "tcp_flags",
}


def rules_of(policy: str) -> dict[str, tuple[str, str | None]]:
    """The action of each rule of a policy, and its verdict after `else`, by the rule's name."""
    lines = tomllib.loads(POLICIES[policy])["policy"]["rules"].splitlines()
    return {
        name: (action, rest[2] if action == "af_xdp" else None)
        for name, action, *rest in map(str.split, filter(None, lines))
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_is_whole(row: Row) -> None:
    assert row.policy in POLICIES
    assert row.verdict in {"pass", "drop", "tx", "af_xdp"}
    assert (row.otherwise is not None) == (row.verdict == "af_xdp")
    assert row.key["len"] == len(row.frame)
    assert row.port in tomllib.loads(POLICIES[row.policy])["ports"]
    if row.reason == "rule":
        assert row.rule is not None
        assert rules_of(row.policy)[row.rule] == (row.verdict, row.otherwise)
    else:
        assert row.rule is None
    if row.reason == "malformed":
        assert set(row.key) <= {"len", "vlan"}
    else:
        assert set(row.key) == KEY


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_key_agrees_with_itself(row: Row) -> None:
    key = row.key
    if row.reason == "malformed":
        return
    if key["family"] is None:
        assert {key[name] for name in KEY - {"vlan", "len"}} == {None}
        return
    for end in (key["src"], key["dst"]):
        address = ip_address(str(end))
        assert str(address) == end
        assert address.version == key["family"]
    assert key["frag"] in {"no", "first", "later"}
    ports = key["proto"] in {6, 17, 132} and key["frag"] != "later"
    assert (key["sport"] is not None) == ports
    assert (key["dport"] is not None) == ports
    assert (key["tcp_flags"] is not None) == (ports and key["proto"] == 6)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_setting_agrees_with_outcome(row: Row) -> None:
    setting = tomllib.loads(POLICIES[row.policy])["policy"]
    if row.reason in {"default", "malformed"}:
        assert row.verdict == setting[row.reason]
    elif row.reason == "fragment":
        assert (row.verdict, setting["fragments"]) == ("drop", "drop")
        assert row.key["frag"] in {"first", "later"}
    elif row.reason == "guard":
        assert (row.verdict, setting["default"], setting["guard"]) == ("pass", "drop", True)


def test_row_live_only_where_a_veth_carries_the_frame() -> None:
    for row in ROWS:
        tagged = row.frame[12:14] == b"\x81\x00"
        assert row.live == (14 <= len(row.frame) <= 1514 + 4 * tagged), row.name


def test_rows_names_are_unique() -> None:
    assert [name for name, count in Counter(row.name for row in ROWS).items() if count > 1] == []


def test_rows_policy_and_frame_are_unique() -> None:
    seen = Counter((row.policy, row.port, row.frame) for row in ROWS)
    twice = [row.name for row in ROWS if seen[row.policy, row.port, row.frame] > 1]
    assert twice == []


def test_rows_are_many() -> None:
    assert len(ROWS) >= 190


def test_rows_by_policy_holds_every_row_once_and_no_policy_is_idle() -> None:
    grouped = rows_by_policy()
    assert list(grouped) == list(POLICIES)
    assert all(grouped.values())
    assert sorted(row.name for rows in grouped.values() for row in rows) == sorted(
        row.name for row in ROWS
    )


def test_rows_provoke_every_verdict_with_every_reason_that_applies() -> None:
    assert {(row.verdict, row.reason) for row in ROWS} == {
        ("pass", "rule"),
        ("drop", "rule"),
        ("tx", "rule"),
        ("af_xdp", "rule"),
        ("pass", "default"),
        ("drop", "default"),
        ("pass", "malformed"),
        ("drop", "malformed"),
        ("drop", "fragment"),
        ("pass", "guard"),
    }


def test_rows_meet_every_rule() -> None:
    met = {(row.policy, row.rule) for row in ROWS if row.rule}
    assert {(key, name) for key in POLICIES for name in rules_of(key)} - met == set()


def test_policies_have_the_port_left() -> None:
    for key, text in POLICIES.items():
        assert "left" in tomllib.loads(text)["ports"], key
