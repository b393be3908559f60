"""python -m bench list | run QUESTION [--json] [--quick]: measure, and tell the figures."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from bench import QUESTIONS

if TYPE_CHECKING:
    from bench.run import Plan, Record

__all__ = ["main"]

INTERRUPTED = 130
FILE_COLUMNS = 160


@click.group(help=__doc__)
def main() -> None:
    """The command."""


@main.command("list")
def list_questions() -> None:
    """The questions, one a line."""
    for name in QUESTIONS:
        about = (import_module(f"bench.{name}").__doc__ or "").partition("\n")[0]
        click.echo(f"{name:<12} {about}")


@main.command()
@click.argument("question", type=click.Choice([*QUESTIONS, "all"]))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--quick", is_flag=True, help="Few and short samples: does it work?")
def run(question: str, as_json: bool, quick: bool) -> None:
    """Answer a question. Ctrl-C ends it early and prints what there is."""
    from bench.facts import host_facts

    facts = host_facts()
    if as_json:
        _print_json({"facts": facts})
    else:
        _print_facts(facts)
    for name in QUESTIONS if question == "all" else (question,):
        plan, records = _answer(name, quick)
        if as_json:
            for record in records:
                click.echo(record.json())
        else:
            _print_table(plan, records)
        if not records or records[0].runs < plan.rounds:
            sys.exit(INTERRUPTED)


def _answer(name: str, quick: bool) -> tuple[Plan, list[Record]]:
    from bench.run import show_progress, summary, take_rounds

    with import_module(f"bench.{name}").plan(quick) as plan:
        with show_progress(plan) as tick:
            samples = take_rounds(plan, tick)
        return plan, list(summary(plan, samples))


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value))


def _print_facts(facts: dict[str, object]) -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {text}" for key, text in value.items()) or "none"
        click.echo(f"{name:<16} {'unknown' if value is None else value}")


def _print_table(plan: Plan, records: Iterable[Record]) -> None:
    from rich.console import Console
    from rich.table import Table

    found: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        found.setdefault((record.case, record.subject), {})[record.unit] = record
    several = any(subject.against for subject in plan.subjects)
    base = "" if several else f" {plan.baseline}"
    title = f"{plan.question}: median (first to third quartile)"
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    table.add_column("case", no_wrap=True)
    table.add_column("subject", no_wrap=True)
    for heading in (plan.unit, f"over{base}", f"times{base}", "runs"):
        table.add_column(heading, justify="right", no_wrap=True)
    if several:
        table.add_column("than", no_wrap=True)
    last = None
    for subject in plan.subjects:
        by_unit = found.get((subject.case, subject.name))
        if not by_unit:
            continue
        unit, against = plan.unit_of(subject), plan.base_of(subject)
        over, times = by_unit.get(f"{unit} over {against}"), by_unit.get(f"times {against}")
        if last not in (None, subject.case):
            table.add_row()
        table.add_row(
            "" if subject.case == last else subject.case,
            subject.name,
            _cell(by_unit[unit]) + (f" {subject.unit}" if subject.unit else ""),
            _cell(over),
            _cell(times),
            str(by_unit[unit].runs),
            *([against if over else ""] if several else []),
        )
        last = subject.case
    # A file has no width, and a figure is no figure when it is cut.
    Console(highlight=False, width=None if sys.stdout.isatty() else FILE_COLUMNS).print(table)


def _cell(record: Record | None) -> str:
    if record is None:
        return ""
    low, high = map(_short, record.spread)
    return f"{_short(record.value)} ({low}-{high})"


def _short(value: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
