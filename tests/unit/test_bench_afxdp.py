"""What `bench afxdp` measures: the plan's shape, and the frame that all subjects are sent."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from bench import afxdp, afxdp_subjects
from bench.run import Plan


@pytest.fixture
def bedless(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A plan without namespaces; the list fills with the kinds of process that samples start."""
    started: list[str] = []

    def no_bed(self: afxdp.Bench, stack: ExitStack, seconds: float, threaded: bool = False) -> None:
        self.bed = SimpleNamespace(gateway=SimpleNamespace(path="nowhere"))  # type: ignore[assignment]

    def start_only(self: afxdp.Bench, start: Callable[[], object], *_: object) -> float:
        start()
        return 1.0

    def process(kind: str, *_: object) -> None:
        started.append(kind)

    monkeypatch.setattr(afxdp.Bench, "__init__", no_bed)
    monkeypatch.setattr(afxdp.Bench, "sample", start_only)
    monkeypatch.setattr(afxdp, "Process", process)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return started


@pytest.fixture
def plan_without_dpdk(bedless: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with afxdp.plan(quick=True) as plan:
        yield plan


def test_plan_has_the_baseline_first_in_each_case(plan_without_dpdk: Plan) -> None:
    first: dict[str, str] = {}
    for subject in plan_without_dpdk.subjects:
        first.setdefault(subject.case, subject.name)
    assert set(first.values()) == {plan_without_dpdk.baseline}
    assert len(first) > 5


def test_plan_names_each_subject_of_a_case_once(plan_without_dpdk: Plan) -> None:
    named = [(subject.case, subject.name) for subject in plan_without_dpdk.subjects]
    assert len(named) == len(set(named))


def test_every_subject_starts_a_kind_of_process_that_there_is(
    plan_without_dpdk: Plan, bedless: list[str]
) -> None:
    for subject in plan_without_dpdk.subjects:
        subject.sample()
    assert set(bedless) == set(afxdp_subjects.KINDS) - {"generate"}


def test_missing_testpmd_is_told_and_left_out(
    bedless: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with afxdp.plan(quick=True) as plan:
        assert not [subject for subject in plan.subjects if "testpmd" in subject.name]
    assert "apt-get install --no-install-recommends dpdk-dev" in capsys.readouterr().err


def test_testpmd_is_compared_where_it_is_installed(
    bedless: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with afxdp.plan(quick=True) as plan:
        cases = {subject.case for subject in plan.subjects if "testpmd" in subject.name}
    assert {"rx native", "reflect native", "forward native"} <= cases
    assert capsys.readouterr().err == ""


def test_one_cpu_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with pytest.raises(RuntimeError, match="two CPUs"), afxdp.plan(quick=True):
        pass


def test_frame_is_64_bytes_with_fcs_and_what_the_python_subjects_ask_for() -> None:
    frame = afxdp_subjects.frame()
    assert len(frame) == afxdp_subjects.FRAME_BYTES == 64 - 4
    assert frame[12:14] == b"\x08\x00"
    assert frame[23] == 17


def test_kinds_are_all_told_in_the_docstring() -> None:
    text = (afxdp_subjects.__doc__ or "").partition("KIND:")[2]
    told = re.findall(r"^    (\S+(?: \S+)*)  ", text, re.MULTILINE)
    assert {kind for line in told for kind in line.split()} == set(afxdp_subjects.KINDS)


def test_subject_says_ready_and_answers_each_line_until_stdin_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("count\ncount\n"))
    counts = iter((7, 9))
    afxdp_subjects.serve(lambda: next(counts))
    assert capsys.readouterr().out.split() == ["ready", "7", "9"]
