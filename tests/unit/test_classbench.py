"""The generators of large policies: what they promise, held against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import classbench
from tests.frames import internet_checksum
from tests.reference import Key, Reference, parse

RULES, PACKETS = 200, 100


@pytest.mark.parametrize("family", classbench.FAMILIES)
def test_match_trace_hits_rules_all_over_the_policy(family: str, tmp_path: Path) -> None:
    made = classbench.policy(family, RULES)
    reference = Reference.from_text(made.write(tmp_path).read_text(), tmp_path)
    trace = classbench.frames(classbench.headers(made, "match", PACKETS))
    answers = [reference.judge(frame) for frame in trace]
    assert {answer.reason for answer in answers} == {"rule"}
    assert len({answer.rule for answer in answers}) > PACKETS / 2


@pytest.mark.parametrize("family", classbench.FAMILIES)
def test_random_trace_hits_next_to_nothing(family: str, tmp_path: Path) -> None:
    made = classbench.policy(family, RULES)
    reference = Reference.from_text(made.write(tmp_path).read_text(), tmp_path)
    trace = classbench.frames(classbench.headers(made, "random", PACKETS))
    reasons = [reference.judge(frame).reason for frame in trace]
    assert set(reasons) <= {"rule", "default"}
    assert reasons.count("rule") < PACKETS / 10


def test_flows_are_few_and_come_again() -> None:
    made = classbench.policy("acl46", RULES)
    trace = classbench.headers(made, "flows", 10_000)
    assert len(set(classbench.frames(trace))) == classbench.FLOWS


@pytest.mark.parametrize("family", ["acl46", "sets46", "ranges6"])
def test_same_arguments_give_the_same_and_other_seeds_do_not(family: str) -> None:
    first, again, other = (classbench.policy(family, RULES, seed) for seed in (1, 1, 2))
    assert (first.text, first.files) == (again.text, again.files)
    assert (first.text, first.files) != (other.text, other.files)
    for kind in classbench.TRACES:
        one, two = (classbench.headers(made, kind, 50) for made in (first, again))
        assert np.array_equal(one, two)
        assert not np.array_equal(one, classbench.headers(first, kind, 50, seed=2))


@pytest.mark.parametrize("family", ["fw", "fw6"])
def test_frames_say_what_their_headers_say(family: str) -> None:
    made = classbench.policy(family, RULES)
    trace = classbench.headers(made, "match", 300)
    assert {6, 17} < set(trace["proto"].tolist())
    for header, frame in zip(trace, classbench.frames(trace), strict=True):
        key = parse(frame)
        assert isinstance(key, Key)
        assert (key.family, key.proto) == (header["version"], header["proto"])
        assert key.source == int(header["src"][0]) << 64 | int(header["src"][1])
        assert key.destination == int(header["dst"][0]) << 64 | int(header["dst"][1])
        assert (key.sport or 0, key.dport or 0) == (header["sport"], header["dport"])
        assert (key.tcp_flags or 0) == header["flags"]
        assert len(frame) == (74 if (key.family, key.proto) == (6, 6) else 64)


def test_frames_have_right_checksums() -> None:
    made = classbench.policy("fw", RULES)
    for frame in classbench.frames(classbench.headers(made, "match", 300)):
        assert internet_checksum(frame[14:34]) == 0
        pseudo = frame[26:34] + bytes([0, frame[23]]) + (len(frame) - 34).to_bytes(2)
        if frame[23] in (6, 17):
            assert internet_checksum(pseudo + frame[34:]) == 0
        elif frame[23] == 1:
            assert internet_checksum(frame[34:]) == 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", classbench.PREFIX_KINDS)
def test_prefixes_are_distinct_and_without_host_bits(kind: str, version: int) -> None:
    from ipaddress import ip_network

    some = classbench.prefixes(kind, 5000, version=version)
    networks = {ip_network(text) for text in classbench.prefix_text(some)}
    assert len(networks) == 5000
    assert {network.version for network in networks} == {version}


def test_sets_hold_as_many_prefixes_as_asked_for_inline_or_in_files() -> None:
    for inline in (False, True):
        made = classbench.policy("sets46", 100, prefixes_in_sets=3000, inline=inline)
        assert len(np.unique(np.concatenate(made.sets))) == 3000
        assert len(made.files) == (0 if inline else len(made.sets))
        assert "@s0" in made.text and "@s7" in made.text
