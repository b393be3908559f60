"""A fixed corpus of a million (policy, packet) pairs: the kernel's datapath against the reference.

Half of it is many small policies of every match, each against frames of one pool, broken ones among
them; half is large policies of each family with traffic for them. The same on every machine.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests import classbench, generate
from tests.bpf import agreement
from tests.bpf.agreement import Case, differences, reproduction
from tests.frames import eth, ipv4, udp
from tests.judges import kernel_judge
from tests.reference import parse
from tests.reference_bulk import REASONS, VERDICTS, BulkReference, Judgements, Keys
from xdpgw import _abi as abi
from xdpgw.explain import Explainer

PAIRS, ENOUGH = 1_000_000, 30
POOL, PARTS, POLICIES_A_PART, FRAMES_EACH = 20_000, 10, 40, 1250
BLOCKING_POLICIES = 40

# Family, rules, prefixes in sets.
LARGE = (
    *((family, 1000, 1000) for family in classbench.FAMILIES if "sets" not in family),
    *(("acl46", 5000, 0), ("fw46", 5000, 0), ("ipc46", 5000, 0), ("stripes46", 10_000, 0)),
    *(("sets", 1000, 100_000), ("sets6", 200, 100_000), ("sets46", 2000, 100_000)),
)
LARGE_FRAMES = {"match": 7000, "edges": 7000, "random": 2500, "flows": 500}

KINDS = (
    *("on", "vlan", "ether", "arp", "ip", "ip6", "tcp", "udp", "icmp", "icmp6", "sctp", "gre"),
    *("esp", "ah", "proto", "from", "to", "not", "port", "flags", "type", "code", "len", "ttl"),
    *("dscp", "frag"),
)
covered: Counter[str] = Counter()


@cache
def pool() -> tuple[list[bytes], Keys]:
    """Frames for small policies, and their keys."""
    frames = [
        frame for frame in generate.packets(random.Random(POOL), POOL + 1000) if len(frame) >= 14
    ][:POOL]
    return frames, Keys.of(map(parse, frames))


def count(text: str, reference: BulkReference, wanted: Judgements) -> None:
    """Write down what a policy's packets covered, and which matches the rules that decided have."""
    covered["pairs"] += len(wanted.rule)
    for names, column in ((VERDICTS, wanted.verdict), (REASONS, wanted.reason)):
        for place, packets in zip(*np.unique(column, return_counts=True), strict=True):
            covered[names[place]] += int(packets)
    numbers, packets = np.unique(wanted.rule[wanted.rule >= 0], return_counts=True)
    decided = {reference.rules[n].name: int(p) for n, p in zip(numbers, packets, strict=True)}
    for line in text.splitlines():
        name, *words = re.findall(r"[^\s{}]+", line) or [""]
        for word in set(words) & set(KINDS):
            covered[word] += decided.get(name, 0)


def held(case: Case, frames: Sequence[bytes], keys: Keys) -> None:
    """Judge frames both ways, and say how to see a difference again."""
    found, wanted, reference = differences(case, frames, keys)
    if len(found):
        told = reproduction(case, frames[found[0]])
        pytest.fail(f"{len(found)} of {len(frames)} frames differ\n{told}", pytrace=False)
    count(case.text, reference, wanted)


@pytest.mark.parametrize("part", range(PARTS))
def test_corpus_small_policies_are_judged_alike(part: int) -> None:
    frames, keys = pool()
    for number in range(POLICIES_A_PART):
        rng = random.Random(f"{part} {number}")
        sizes = range(rng.choice((4, 12, 40)))
        # Of limits an explanation says what comes of packets that they let go on.
        text = generate.policy(rng.choice, sizes, limits=part % 5 == 4)
        which = rng.sample(range(len(frames)), FRAMES_EACH)
        case = Case(f"small policy {part} {number}", text, rng.choice(generate.PORTS))
        held(case, [frames[n] for n in which], keys.take(which))


def test_corpus_blocked_sources_are_judged_alike() -> None:
    frames, keys = pool()
    for number in range(BLOCKING_POLICIES):
        rng = random.Random(f"blocks {number}")
        text = generate.policy(rng.choice, allows=True)
        blocked = tuple(rng.sample(generate.BLOCKS, rng.randrange(1, len(generate.BLOCKS))))
        case = Case(f"blocking policy {number}", text, "left", blocks=blocked)
        which = rng.sample(range(len(frames)), FRAMES_EACH)
        held(case, [frames[n] for n in which], keys.take(which))


@pytest.mark.parametrize("rules", [500, 1000, 3000, 10_000])
def test_corpus_many_rules_over_all_fields_are_judged_alike(rules: int) -> None:
    frames, keys = pool()
    rng = random.Random(rules)
    text = generate.policy(rng.choice, [min(rules, abi.MAX_RULES)], narrow=True)
    held(Case(f"narrow policy {rules}", text, "left"), frames, keys)


@pytest.mark.parametrize(("family", "rules", "prefixes"), LARGE)
def test_corpus_large_policies_are_judged_alike(
    family: str, rules: int, prefixes: int, tmp_path: Path
) -> None:
    made = classbench.policy(family, min(rules, abi.MAX_RULES), prefixes_in_sets=prefixes)
    made.write(tmp_path)
    frames = [
        frame
        for trace, size in LARGE_FRAMES.items()
        for frame in classbench.frames(classbench.headers(made, trace, size))
    ]
    case = Case(f"classbench.policy({family!r}, {rules})", made.text, None, tmp_path)
    held(case, frames, Keys.of(map(parse, frames)))


def test_corpus_covered_every_match_verdict_and_reason() -> None:
    assert covered["pairs"] >= PAIRS
    few = {word: covered[word] for word in (*KINDS, *VERDICTS, *REASONS) if covered[word] < ENOUGH}
    assert not few


def test_corpus_a_difference_is_told_with_the_rules_that_make_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong_judge(text: str, port: str | None, base: Path) -> AbstractContextManager[Explainer]:
        return kernel_judge(text.replace("port 53", "port 54"), port, base)

    monkeypatch.setattr(agreement, "kernel_judge", wrong_judge)
    rules = "\n".join(f"r{n} drop udp to port {n}" for n in range(50, 60))
    frame = eth(ipv4(udp(dport=54)))
    case = Case("wrong", f'[policy]\nrules = """\n{rules}\n"""\n')
    found, _, _ = differences(case, [frame, frame[:20]], Keys.of(map(parse, [frame, frame[:20]])))
    assert found.tolist() == [0]
    told = reproduction(case, frame)
    assert frame.hex() in told
    assert re.findall(r"^r\d+", told, re.M) == ["r53"]
    assert "wanted" in told and "got" in told
