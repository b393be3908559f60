"""Random policies x random and mutated packets: the kernel's datapath against the reference."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import classbench
from tests.bpf.limits import filtering
from tests.bpf.test_block import blocking
from tests.generate import PORTS, blocks, packets, policies
from tests.judges import KEY_FIELDS, kernel_judge, outcomes
from tests.reference import Reference
from xdpgw import _abi as abi
from xdpgw.explain import ETHERNET_HEADER_BYTES

POLICIES = int(os.environ.get("XDPGW_FUZZ_POLICIES", "420"))
LARGE, LIMITED, BLOCKING = 6, 80, 60
PACKETS_EACH = 60
XDP_ACTIONS = {"drop": 1, "pass": 2, "tx": 3}
seen = {"examples": 0, "policies": 0, "over": 0, "blocked": 0}


def held(policy: str, port: str | None, frames: Sequence[bytes]) -> None:
    """Judge frames both ways, one by one."""
    reference = Reference.from_text(policy)
    with kernel_judge(policy, port) as judge:
        for frame, got in zip(frames, outcomes(judge, frames), strict=True):
            wanted = reference.judge(frame, port)
            for field in ("verdict", "reason", "rule", "target"):
                assert got[field] == getattr(wanted, field), (field, frame.hex(), got, wanted)
            if wanted.reason != "malformed":
                key = asdict(wanted.key)
                assert got["key"] == {name: key[name] for name in KEY_FIELDS}, frame.hex()
    seen["examples"] += len(frames)


fuzzed = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@settings(fuzzed, max_examples=POLICIES)
@given(policies(), st.sampled_from(PORTS), st.integers(0, 2**32))
def test_fuzz_kernel_agrees_with_reference(policy: str, port: str, seed: int) -> None:
    held(policy, port, packets(random.Random(seed), PACKETS_EACH))
    seen["policies"] += 1


@settings(fuzzed, max_examples=LARGE)
@given(
    st.sampled_from([family for family in classbench.FAMILIES if "sets" not in family]),
    st.integers(1000, abi.MAX_RULES),
    st.integers(0, 2**32),
)
def test_fuzz_kernel_agrees_on_large_policies(family: str, rules: int, seed: int) -> None:
    made = classbench.policy(family, rules, seed)
    headers = [
        classbench.headers(made, trace, PACKETS_EACH, seed)
        for trace in ("match", "edges", "random")
    ]
    held(made.text, None, classbench.frames(np.concatenate(headers)))


@settings(fuzzed, max_examples=LIMITED)
@given(policies(limits=True), st.integers(0, 2**32))
def test_fuzz_limits_are_spent_as_the_reference_says(policy: str, seed: int) -> None:
    rng = random.Random(seed)
    some = [frame for frame in packets(rng, 20) if len(frame) >= ETHERNET_HEADER_BYTES]
    frames = rng.choices(some, k=PACKETS_EACH * 2)
    reference = Reference.from_text(policy)
    wanted = [reference.judge(frame, "left") for frame in frames]
    # Seeds as in earnest: small ones would have sources of several limits share a bucket.
    with filtering(policy, lambda slot: random.Random(slot).getrandbits(64)) as found:
        actions, _ = found.loaded.programs["left"].test_many(frames)
        assert actions.tolist() == [XDP_ACTIONS[answer.verdict] for answer in wanted]
        counters = {
            (verdict.text, reason.text): n for (verdict, reason), n in found.counters().items()
        }
        assert counters == Counter((answer.verdict, answer.reason) for answer in wanted)
        assert found.decided() == Counter(answer.rule for answer in wanted if answer.rule)
    seen["over"] += sum(answer.reason == "limit" for answer in wanted)


@settings(fuzzed, max_examples=BLOCKING)
@given(policies(allows=True), blocks(), st.integers(0, 2**32))
def test_fuzz_kernel_agrees_on_blocks(policy: str, blocked: list[str], seed: int) -> None:
    frames = [
        x for x in packets(random.Random(seed), PACKETS_EACH) if len(x) >= ETHERNET_HEADER_BYTES
    ]
    reference = Reference.from_text(policy, blocks=blocked)
    with blocking(policy) as found:
        found.put(*blocked)
        for frame, got in zip(frames, found.judged(*frames), strict=True):
            wanted = reference.judge(frame, "left")
            assert got == (wanted.verdict, wanted.reason, wanted.rule), frame.hex()
            seen["blocked"] += wanted.reason == "block"


def test_fuzz_covered_enough() -> None:
    assert seen["examples"] >= PACKETS_EACH * POLICIES * 0.9
    assert seen["over"] >= LIMITED * PACKETS_EACH / 20
    assert seen["blocked"] >= BLOCKING * PACKETS_EACH / 20
