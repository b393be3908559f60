"""Random policies x random and mutated packets: the kernel's datapath against the reference."""

from __future__ import annotations

import os
import random
from dataclasses import asdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.generate import PORTS, packets, policies
from tests.judges import KEY_FIELDS, kernel_judge, outcomes
from tests.reference import Reference

POLICIES = int(os.environ.get("XDPGW_FUZZ_POLICIES", "420"))
PACKETS_EACH = 60
seen = {"examples": 0, "policies": 0}


@settings(
    max_examples=POLICIES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(policies(), st.sampled_from(PORTS), st.integers(0, 2**32))
def test_fuzz_kernel_agrees_with_reference(policy: str, port: str, seed: int) -> None:
    frames = packets(random.Random(seed), PACKETS_EACH)
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
    seen["policies"] += 1


def test_fuzz_covered_enough() -> None:
    assert seen["examples"] >= PACKETS_EACH * POLICIES * 0.9
