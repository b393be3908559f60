"""Measurements: one module a question, `bench.run` the engine, `python -m bench` the command."""

from __future__ import annotations

__all__ = ["QUESTIONS"]

QUESTIONS = (
    *("verdict", "rules", "sets", "limit", "limit_share", "talkers"),
    *("reload", "log", "afxdp"),
)
"""Modules of this package, each with a function `plan(quick)` that gives a `bench.run.Plan`."""
