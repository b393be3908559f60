"""What a run of the tests says at its end."""

from __future__ import annotations

import pytest

from tests.namespaces import STUCK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly that the live tests did not run, where they could not."""
    missed = [x for x in terminalreporter.stats.get("skipped", []) if STUCK in str(x.longrepr)]
    if missed:
        terminalreporter.section("NOT TESTED", sep="!", red=True)
        terminalreporter.line(f"{len(missed)} tests of live traffic did not run: {STUCK}")
