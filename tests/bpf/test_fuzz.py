"""Random policies x random and mutated packets: the kernel's datapath against the reference."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import classbench
from tests.generate import PORTS, packets, policies
from tests.judges import KEY_FIELDS, kernel_judge, outcomes
from tests.reference import Reference
from xdpgw import _abi as abi

POLICIES = int(os.environ.get("XDPGW_FUZZ_POLICIES", "420"))
LARGE = 6
PACKETS_EACH = 60
seen = {"examples": 0, "policies": 0}


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


def test_fuzz_covered_enough() -> None:
    assert seen["examples"] >= PACKETS_EACH * POLICIES * 0.9
