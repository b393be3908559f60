"""The engine: samples in rounds, and what they say.

A plan is a list of subjects, grouped in cases. One round takes one sample of each subject, in
order, so that whatever drifts on the machine (clock, neighbours, caches) drifts for all alike:
A B C A B C, never A A B B. What is told of a subject:

    value   the median of its samples
    spread  first and third quartile of its samples
    runs    how many samples there are

A subject is also told relative to the case's baseline, or to another subject of its case, as the
samples' ratio and difference within each round, and then the median of those: never a ratio of two
medians.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass

__all__ = [
    "Plan",
    "Record",
    "Samples",
    "Subject",
    "pinned",
    "quartiles",
    "show_progress",
    "summary",
    "take_rounds",
]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured.

    Args:
        sample: takes one sample.
        unit: of a sample; the plan's if empty.
        against: the subject of the case that it is told relative to; the plan's baseline if empty.
    """

    case: str
    name: str
    sample: Callable[[], float]
    unit: str = ""
    against: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All samples that answer a question; subjects with a case of the same name are compared.

    Args:
        baseline: the subject of each case that the others are told relative to.
        unit: of a sample.
    """

    question: str
    unit: str
    baseline: str
    rounds: int
    subjects: Sequence[Subject]

    def unit_of(self, subject: Subject) -> str:
        """Of its samples."""
        return subject.unit or self.unit

    def base_of(self, subject: Subject) -> str:
        """The name of the subject that it is told relative to."""
        return subject.against or self.baseline


@dataclass(frozen=True, slots=True)
class Record:
    """One figure. `spread` is the first and third quartile, in the unit of `value`."""

    question: str
    case: str
    subject: str
    value: float
    unit: str
    runs: int
    spread: tuple[float, float]

    def json(self) -> str:
        """One JSON object, without a line feed."""
        import json

        return json.dumps(asdict(self))


Samples = Mapping[tuple[str, str], Sequence[float]]
"""(case, subject) -> samples, one a round, in the order of the rounds."""


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile; of one value, three times that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def take_rounds(plan: Plan, tick: Callable[[], None] = lambda: None) -> Samples:
    """Take all samples; KeyboardInterrupt ends it early, with what there is by then.

    Args:
        plan: what to measure.
        tick: called after each sample.
    """
    samples: dict[tuple[str, str], list[float]] = {}
    try:
        for _ in range(plan.rounds):
            for subject in plan.subjects:
                taken = subject.sample()
                samples.setdefault((subject.case, subject.name), []).append(taken)
                tick()
    except KeyboardInterrupt:
        pass
    return samples


def summary(plan: Plan, samples: Samples) -> Iterator[Record]:
    """The figures of a plan, in the order of its subjects; none of a subject without samples."""
    for subject in plan.subjects:
        base_name, unit = plan.base_of(subject), plan.unit_of(subject)
        own = samples.get((subject.case, subject.name), ())
        base = samples.get((subject.case, base_name), ())
        yield from _records(plan, subject, own, unit)
        if subject.name == base_name:
            continue
        pairs = list(zip(own, base, strict=False))  # a last round may have only the first of both
        net = [mine - least for mine, least in pairs]
        yield from _records(plan, subject, net, f"{unit} over {base_name}")
        ratios = [mine / least for mine, least in pairs if least]
        yield from _records(plan, subject, ratios, f"times {base_name}")


def _records(plan: Plan, subject: Subject, values: Sequence[float], unit: str) -> Iterable[Record]:
    if values:
        low, middle, high = (round(x, 3) for x in quartiles(values))
        yield Record(
            plan.question, subject.case, subject.name, middle, unit, len(values), (low, high)
        )


@contextmanager
def show_progress(plan: Plan) -> Iterator[Callable[[], None]]:
    """A bar on stderr with the time left; gives the function to call after each sample."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(plan.question, total=plan.rounds * len(plan.subjects))
        yield lambda: progress.advance(task)


@contextmanager
def pinned(cpu: int | None = None) -> Iterator[None]:
    """Keep this thread on one CPU, the last one unless told."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before) if cpu is None else cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


Opener = Callable[[bool], AbstractContextManager[Plan]]
"""The function `plan(quick)` of a question."""
