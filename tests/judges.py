"""The datapath as a judge of frames, in the words of docs/policy.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xdpgw import config
from xdpgw.explain import Explainer, explainer

__all__ = ["KEY_FIELDS", "events", "kernel_judge", "outcomes"]

KEY_FIELDS = (
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
)


@contextmanager
def kernel_judge(policy: str, port: str | None = None, base: Path = Path()) -> Iterator[Explainer]:
    """The compiled object under a policy, in the kernel, by BPF_PROG_TEST_RUN."""
    with explainer(config.loads(policy, base=base), port) as judge:
        yield judge


def outcomes(judge: Explainer, frames: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the datapath says of each frame, without the frame's number."""
    return [{k: v for k, v in answer.items() if k != "frame"} for answer in judge.explain(frames)]


def events(judge: Explainer, frames: Sequence[bytes]) -> NDArray[Any]:
    """What the datapath says of many frames of 14 bytes at least: shape (n,), struct xg_event."""
    _, found = judge._program.test_many(frames, judge._explained)
    return found
