"""The judge of batches against the plain one, on random policies and packets."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import classbench
from tests.generate import PORTS, packets, policies
from tests.packets import POLICIES, rows_by_policy
from tests.reference import Key, Reference, parse
from tests.reference_bulk import REASONS, VERDICTS, BulkReference, Judgements, Keys


def agree(
    policy: str, frames: Sequence[bytes], port: str | None = None, **world: Any
) -> Judgements:
    """Hold both judges of a policy to the same frames; what they said."""
    plain, bulk = Reference.from_text(policy, **world), BulkReference.from_text(policy, **world)
    got = bulk.judge(Keys.of(parse(frame, port) for frame in frames), port)
    for n, frame in enumerate(frames):
        wanted = plain.judge(frame, port)
        rule = bulk.rules[got.rule[n]] if got.rule[n] >= 0 else None
        answer = VERDICTS[got.verdict[n]], REASONS[got.reason[n]], rule and rule.name
        assert answer == (wanted.verdict, wanted.reason, wanted.rule), (frame.hex(), port)
        assert (rule and rule.target) == wanted.target
    return got


@settings(max_examples=150, deadline=None)
@given(policies(), st.sampled_from(PORTS), st.integers(0, 2**32), st.booleans())
def test_bulk_agrees_with_the_plain_judge(policy: str, port: str, seed: int, ssh: bool) -> None:
    session = ("10.1.0.1", 22, "192.0.2.7", 80) if ssh else None
    agree(policy, packets(random.Random(seed), 60), port, ssh=session)


@pytest.mark.parametrize("policy", POLICIES)
def test_bulk_agrees_on_the_table_of_packets(policy: str) -> None:
    for port in {row.port for row in rows_by_policy()[policy]}:
        frames = [row.frame for row in rows_by_policy()[policy] if row.port == port]
        agree(POLICIES[policy], frames, port)


@pytest.mark.parametrize("family", classbench.FAMILIES)
@pytest.mark.parametrize("trace", ["match", "random"])
def test_bulk_agrees_on_large_policies(family: str, trace: str) -> None:
    made = classbench.policy(family, 300, prefixes_in_sets=500, inline=True)
    agree(made.text, classbench.frames(classbench.headers(made, trace, 60)))


@pytest.mark.parametrize("blocks", [["10.0.0.0/8"], ["10.1.0.9", "2001:db8:a::/64"], ["::/0"]])
def test_bulk_agrees_on_blocks(blocks: list[str]) -> None:
    frames = packets(random.Random(1), 600)
    for settings_ in ("", 'allow = ["10.1.0.0/29", "@six"]\nfragments = "follow"\n'):
        policy = f'[policy]\n{settings_}rules = "one tx udp"\n[sets]\nsix = ["2001:db8:a::9"]\n'
        got = agree(policy, frames, blocks=blocks, ssh=("10.1.0.1", 22, "192.0.2.7", 80))
        assert np.count_nonzero(got.reason == REASONS.index("block")) > 20


@pytest.mark.parametrize("family", ["acl", "acl6"])
def test_bulk_knows_a_session_as_the_plain_judge_does(family: str) -> None:
    made = classbench.policy(family, 50)
    headers = classbench.headers(made, "match", 400)
    frames = classbench.frames(headers[headers["proto"] == 6])
    for key in map(parse, frames[:20]):
        assert isinstance(key, Key)
        ssh = (key.src, key.sport, key.dst, key.dport)
        got = agree('[policy]\ndefault = "drop"\n', frames, ssh=ssh)
        assert np.count_nonzero(got.reason == REASONS.index("guard")) == 1


@given(policies(limits=True))
@settings(max_examples=20, deadline=None)
def test_bulk_passes_over_limits(policy: str) -> None:
    lines = policy.splitlines(keepends=True)
    others = "".join(line for line in lines if not re.match(r"r\d+ limit", line))
    keys = Keys.of(map(parse, packets(random.Random(1), 100)))
    limiting, plain = (BulkReference.from_text(text) for text in (policy, others))
    got, wanted = (judge.judge(keys) for judge in (limiting, plain))
    names = [
        [judge.rules[n].name if n >= 0 else None for n in found.rule.tolist()]
        for judge, found in ((limiting, got), (plain, wanted))
    ]
    assert names[0] == names[1]
    assert np.array_equal(got.verdict, wanted.verdict)
    assert np.array_equal(got.reason, wanted.reason)
