"""What several commands share: options and their words, words on stderr, the filter in force."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from xdpgw.pins import Instance, Manifest

__all__ = ["as_json_option", "in_force", "note", "print_json", "reading"]

_T = TypeVar("_T")

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def note(text: str) -> None:
    """Say something to the person, on stderr."""
    click.echo(text, err=True)


def print_json(data: Any) -> None:
    """One JSON document a line, on stdout."""
    import msgspec

    sys.stdout.buffer.write(msgspec.json.encode(data) + b"\n")


def in_force() -> tuple[Instance, Manifest]:
    """The filter of this network namespace.

    Raises:
        XdpgwError: there is none.
    """
    from xdpgw.pins import Instance

    instance = Instance()
    manifest = instance.manifest()
    if manifest is None:
        raise XdpgwError(
            "no filter is in force in this network namespace",
            "xdpgw run FILE starts one; --netns NAME looks into another namespace",
        )
    return instance, manifest


def reading(option: str | None, read: Callable[[], _T]) -> _T:
    """What `read` gives; a usage error with what was wrong."""
    from xdpgw.literals import Wrong

    try:
        return read()
    except Wrong as wrong:
        text = wrong.message + (f" ({wrong.hint})" if wrong.hint else "")
        raise click.BadParameter(text, param_hint=option) from wrong
