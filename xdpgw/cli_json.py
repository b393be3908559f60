"""What the commands that print data share."""

from __future__ import annotations

import sys
from typing import Any

import click

__all__ = ["as_json_option", "print_json"]

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(data: Any) -> None:
    """One JSON document a line, on stdout."""
    import msgspec

    sys.stdout.buffer.write(msgspec.json.encode(data) + b"\n")
