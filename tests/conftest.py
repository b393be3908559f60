"""What all tests share: what a run says at its end, and that Ctrl-C counts."""

from __future__ import annotations

import signal

import pytest

from tests.namespaces import STUCK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly that the live tests did not run, where they could not."""
    missed = [x for x in terminalreporter.stats.get("skipped", []) if STUCK in str(x.longrepr)]
    if missed:
        terminalreporter.section("NOT TESTED", sep="!", red=True)
        terminalreporter.line(f"{len(missed)} tests of live traffic did not run: {STUCK}")


@pytest.fixture(scope="session", autouse=True)
def signals_count() -> None:
    """A shell starts what runs in the background with SIGINT ignored, nohup with SIGHUP, and
    children inherit it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
