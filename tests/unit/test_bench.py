"""The engine of bench/: order of samples, statistics, and the shape of what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

import bench
from bench import verdict
from bench.__main__ import _print_table, main
from bench.policies import PORT, policy
from bench.run import Plan, Record, Subject, quartiles, summary, take_rounds
from tests.reference import Reference
from xdpgw import config, rules

KEYS = ["question", "case", "subject", "value", "unit", "runs", "spread"]


def feed(log: list[str], name: str, values: list[float]) -> Callable[[], float]:
    """A sampler that writes down that it was asked; an infinite value is Ctrl-C."""
    left = iter(values)

    def sample() -> float:
        log.append(name)
        value = next(left)
        if value == float("inf"):
            raise KeyboardInterrupt
        return value

    return sample


def plan_of(log: list[str], rounds: int, **values: list[float]) -> Plan:
    subjects = [Subject("case", name, feed(log, name, some)) for name, some in values.items()]
    return Plan("question", "ns", "base", rounds, subjects)


def by_unit(records: Iterator[Record]) -> dict[tuple[str, str], Record]:
    return {(record.subject, record.unit): record for record in records}


def test_rounds_interleave_the_subjects() -> None:
    log: list[str] = []
    ticks: list[None] = []
    take_rounds(plan_of(log, 3, base=[1] * 3, b=[2] * 3, c=[3] * 3), lambda: ticks.append(None))
    assert log == ["base", "b", "c"] * 3
    assert len(ticks) == 9


def test_value_is_the_median_and_spread_the_quartiles() -> None:
    plan = plan_of([], 5, base=[10, 50, 20, 40, 30])
    found = by_unit(summary(plan, take_rounds(plan)))
    assert list(found) == [("base", "ns")]
    assert found["base", "ns"] == Record("question", "case", "base", 30, "ns", 5, (20, 40))


def test_quartiles_of_few() -> None:
    assert quartiles([7]) == (7, 7, 7)
    assert quartiles([1, 3]) == (1.5, 2, 2.5)


def test_ratio_and_difference_are_taken_within_a_round() -> None:
    # The machine is slower from round to round; the ratio is 3 in each.
    plan = plan_of([], 3, base=[1, 10, 100], b=[3, 30, 300])
    found = by_unit(summary(plan, take_rounds(plan)))
    assert (found["b", "times base"].value, found["b", "times base"].spread) == (3, (3, 3))
    assert found["b", "ns over base"].value == 20


def test_ratio_to_nothing_is_left_out() -> None:
    plan = plan_of([], 2, base=[0, 2], b=[3, 4])
    found = by_unit(summary(plan, take_rounds(plan)))
    assert (found["b", "times base"].value, found["b", "times base"].runs) == (2, 1)


def test_subject_may_have_its_own_unit_and_its_own_base() -> None:
    log: list[str] = []
    subjects = [
        Subject("case", "base", feed(log, "base", [1])),
        Subject("case", "b", feed(log, "b", [3]), unit="MiB"),
        Subject("case", "c", feed(log, "c", [12]), against="b"),
        Subject("case", "d", feed(log, "d", [5]), against="d"),
    ]
    plan = Plan("question", "ns", "base", 1, subjects)
    told = [(x.subject, x.unit, x.value) for x in summary(plan, take_rounds(plan))]
    assert told == [
        ("base", "ns", 1),
        ("b", "MiB", 3),
        ("b", "MiB over base", 2),
        ("b", "times base", 3),
        ("c", "ns", 12),
        ("c", "ns over b", 9),
        ("c", "times b", 4),
        ("d", "ns", 5),
    ]


def test_table_tells_units_and_bases_where_there_are_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    subjects = [
        Subject("case", "base", lambda: 1.0),
        Subject("case", "b", lambda: 3.0, unit="MiB", against="base"),
    ]
    plan = Plan("question", "ns", "base", 1, subjects)
    _print_table(plan, list(summary(plan, take_rounds(plan))))
    heading, _, row = capsys.readouterr().out.splitlines()[1:4]
    assert heading.split() == ["case", "subject", "ns", "over", "times", "runs", "than"]
    assert "3 (3-3) MiB" in row
    assert row.split()[-1] == "base"


def test_interrupt_keeps_what_there_is() -> None:
    plan = plan_of([], 3, base=[1, 1, 1], b=[4, float("inf")])
    samples = take_rounds(plan)
    assert samples == {("case", "base"): [1, 1], ("case", "b"): [4]}
    found = by_unit(summary(plan, samples))
    assert found["b", "times base"].runs == 1
    assert found["base", "ns"].runs == 2


def test_interrupt_before_the_first_sample_tells_nothing() -> None:
    plan = plan_of([], 3, base=[float("inf")])
    assert not list(summary(plan, take_rounds(plan)))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a plan in the place of the question `verdict`."""

    def put(**values: list[float]) -> None:
        @contextmanager
        def plan(quick: bool) -> Iterator[Plan]:
            yield plan_of([], 2, **values)

        monkeypatch.setattr(verdict, "plan", plan)
        monkeypatch.setattr("bench.__main__.QUESTIONS", ("verdict",))

    return put


def test_json_is_facts_and_then_a_record_a_line(stub: Callable[..., None]) -> None:
    stub(base=[1, 1], b=[2, 4])
    done = CliRunner().invoke(main, ["run", "verdict", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    facts, *records = [json.loads(line) for line in done.stdout.splitlines()]
    assert facts["facts"].keys() >= {"kernel", "cpu", "clang", "python", "xdpgw"}
    assert all(list(record) == KEYS for record in records)
    told = [(record["subject"], record["unit"], record["value"]) for record in records]
    assert told == [
        ("base", "ns", 1),
        ("b", "ns", 3),
        ("b", "ns over base", 2),
        ("b", "times base", 3),
    ]
    assert records[1]["spread"] == [2.5, 3.5]


def test_table_has_every_subject(stub: Callable[..., None]) -> None:
    stub(base=[1, 1], b=[2, 4])
    done = CliRunner().invoke(main, ["run", "all"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "kernel" in done.stdout
    assert "3 (2.5-3.5)" in done.stdout


def test_interrupted_run_prints_and_says_so(stub: Callable[..., None]) -> None:
    stub(base=[1, float("inf")], b=[2])
    done = CliRunner().invoke(main, ["run", "verdict", "--json"], catch_exceptions=False)
    assert done.exit_code == 130
    assert [json.loads(x)["subject"] for x in done.stdout.splitlines()[1:]] == ["base"] + ["b"] * 3


def test_list_tells_each_question_in_a_line() -> None:
    done = CliRunner().invoke(main, ["list"], catch_exceptions=False)
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(bench.QUESTIONS)
    assert all(len(line.split()) > 4 for line in done.stdout.splitlines())


def test_questions_are_all_modules_with_a_plan() -> None:
    modules = [path.stem for path in Path(bench.__file__).parent.glob("[a-z]*.py")]
    found = [name for name in modules if hasattr(import_module(f"bench.{name}"), "plan")]
    assert sorted(found) == sorted(bench.QUESTIONS)


def test_frames_are_64_bytes_and_differ() -> None:
    frames = verdict.frames()
    assert {len(frame) for frame in frames.values()} == {64}
    assert len(set(frames.values())) == 3


@pytest.mark.parametrize("count", [0, *verdict.RULES])
def test_policy_has_its_length_and_is_the_same_each_time(count: int) -> None:
    text = policy(count)
    assert len(rules.resolve(config.loads(text)).rules) == count
    assert policy(count) == text
    assert count < 10 or policy(count, seed=2) != text


@pytest.mark.parametrize("count", verdict.RULES)
@pytest.mark.parametrize("case", ["udp4", "udp6", "syn4"])
def test_policy_only_the_last_rule_matches_or_none(count: int, case: str) -> None:
    frame = verdict.frames()[case]
    last = Reference.from_text(policy(count)).judge(frame)
    assert (last.verdict, last.rule) == ("drop", "last")
    none = Reference.from_text(policy(count, last_matches=False)).judge(frame)
    assert (none.verdict, none.reason) == ("pass", "default")


def test_last_rule_takes_just_its_port() -> None:
    assert f"port {PORT}\n" in policy(1)
    assert f"port {PORT}\n" not in policy(1, last_matches=False)
