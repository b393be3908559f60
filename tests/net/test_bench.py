"""The questions of bench/ that take root, each asked in its short form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench import log, reload, rules, sets
from bench.facts import ROOT
from bench.run import Plan, Record, summary, take_rounds
from tests import frames as f
from xdpgw import config, loader
from xdpgw.compile import compile_rules
from xdpgw.rules import resolve

TWO_CPUS = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU sends, one receives")


def answer(plan: Callable[[bool], AbstractContextManager[Plan]]) -> tuple[Plan, list[Record]]:
    """All samples of the short form, and their records."""
    with plan(True) as asked:
        return asked, list(summary(asked, take_rounds(asked)))


def whole(asked: Plan, records: list[Record]) -> dict[str, set[str]]:
    """The subjects by case; each has a figure, and one beside what it is told relative to."""
    told = {(x.case, x.subject, x.unit) for x in records}
    subjects = {(x.case, x.name) for x in asked.subjects}
    assert len(subjects) == len(asked.subjects)
    by_case: dict[str, set[str]] = {}
    for x in asked.subjects:
        base = asked.base_of(x)
        assert (x.case, x.name, asked.unit_of(x)) in told
        if x.name != base and (x.case, base) in subjects:
            assert (x.case, x.name, f"{asked.unit_of(x)} over {base}") in told
        by_case.setdefault(x.case, set()).add(x.name)
    return by_case


@TWO_CPUS
def test_rules_are_measured_with_their_peers() -> None:
    cases = whole(*answer(rules.plan))
    assert {"parse", "1 rule", "10 rules", "linear, 10 rules"} <= cases["acl, match"]
    assert {"empty", "xdpgw"} <= cases["1 rule, one frame"]
    assert {"xdpgw native", "xdpgw generic"} <= cases["live, acl, 10 rules"]
    assert not [x for x in cases["acl6, match"] if x.startswith("linear")]


def test_sets_are_measured_against_the_trie() -> None:
    asked, records = answer(sets.plan)
    cases = whole(asked, records)
    for case in ("IPv4 blocklist, 1,000, hits", "IPv6 blocklist, 1,000, near"):
        assert cases[case] == {sets.LOOKUP, sets.TRIE, sets.VERDICT}
    (memory,) = (
        x.value
        for x in records
        if (x.case, x.subject, x.unit) == ("IPv4 blocklist, 1,000, memory", sets.TRIE, "MiB")
    )
    assert memory > 0.01  # the kernel tells it: a thousand nodes of some 30 bytes


@TWO_CPUS
def test_reload_is_measured_under_load() -> None:
    asked, records = answer(reload.plan)
    cases = whole(asked, records)
    assert reload.NO_RELOAD in cases["longest gap"]
    assert len(cases["longest gap"]) == 4
    gaps = [x.value for x in records if x.case == "longest gap" and x.unit == "us"]
    whole_gaps = [x.value for x in records if x.case == "with the sender's" and x.unit == "us"]
    assert all(0 < gap <= more for gap, more in zip(gaps, whole_gaps, strict=True))
    assert all(x.value > 0 for x in records if x.case == "took" and x.unit == "ms")


@TWO_CPUS
def test_log_is_measured_against_a_callback_an_event() -> None:
    asked, records = answer(log.plan)
    cases = whole(asked, records)
    assert {log.OURS, "counting only"} < cases["ring to numpy"]
    assert len(cases["ring to numpy"]) == 5
    for case in ("forwarding", "lost of a flood", "sent"):
        assert cases[case] == set(log.LOGS)
    rates = [x.value for x in records if x.unit in ("M/s", "Mpps")]
    assert all(rate > 0 for rate in rates)
    assert all(0 <= x.value <= 100 for x in records if x.unit == "%")


def test_peer_of_the_log_reads_the_datapath_s_records(tmp_path: Path) -> None:
    image = compile_rules(resolve(config.loads('[log]\nsources = "every"\n')))
    script, out = ROOT / "bench" / "log_peers.py", tmp_path / "out.jsonl"
    with loader.load(image, [None]) as loaded:
        frame = f.eth(f.ipv4(f.udp(b"x", dport=9)))
        loaded.programs[None].test_many([frame] * 50)
        fd = loaded.maps["events"].fileno()
        command = [sys.executable, script, "libbpf", f"json {out}", str(fd), "0.1", "0"]
        subprocess.run(command, pass_fds=[fd], stdout=subprocess.PIPE, check=True)
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(told) == 50
    assert {(x["src"], x["dst"], x["dport"]) for x in told} == {(f.A4, f.B4, 9)}
