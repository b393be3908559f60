"""What several commands share: the option --json, what is read and said, the filter in force."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from xdpgw.pins import Instance, Manifest
    from xdpgw.snapshot import Snapshot

__all__ = [
    "as_json_option",
    "duration_text",
    "in_force",
    "note",
    "note_in_passing",
    "print_json",
    "reading",
    "snapshot",
    "time_text",
]

_T = TypeVar("_T")

PATIENCE_MS = 50
"""For a reader of stderr that is slow; one that stands still is not waited for."""

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def note(text: str) -> None:
    """Say something to the person, on stderr; to nobody where that is full or closed."""
    with suppress(OSError):
        click.echo(text, err=True)


def note_in_passing(text: str) -> None:
    """As `note`, for a process that others depend on: what nobody reads is not waited for long. May
    be called from any thread."""
    data = memoryview(f"{text}\n".encode(errors="backslashreplace"))
    fd = sys.stderr.fileno()
    ready = select.poll()
    ready.register(fd, select.POLLOUT)
    with suppress(OSError):
        while data and ready.poll(PATIENCE_MS):
            data = data[os.write(fd, data[: select.PIPE_BUF]) :]


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
        raise _no_filter()
    return instance, manifest


def reading(option: str | None, read: Callable[[], _T]) -> _T:
    """What `read` gives; a usage error with what was wrong."""
    from xdpgw.literals import Wrong

    try:
        return read()
    except Wrong as wrong:
        text = wrong.message + (f" ({wrong.hint})" if wrong.hint else "")
        raise click.BadParameter(text, param_hint=option) from wrong


def duration_text(ns: int) -> str:
    """A time in its two largest units: 9m58s."""
    left = max(1, -(-ns // 10**9))
    out: list[str] = []
    for unit, seconds in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= seconds or out:
            out.append(f"{left // seconds}{unit}")
            left %= seconds
    return "".join(out[:2])


def time_text(ns: int) -> str:
    """Local time of a CLOCK_REALTIME."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ns / 1e9))


def snapshot() -> Snapshot:
    """What the filter of this network namespace tells now.

    Raises:
        XdpgwError: there is none.
    """
    from xdpgw.pins import Instance
    from xdpgw.snapshot import Reader

    found = Reader(Instance()).read()
    if found is None:
        raise _no_filter()
    return found


def _no_filter() -> XdpgwError:
    return XdpgwError(
        "no filter is in force in this network namespace",
        "xdpgw run FILE starts one; --netns NAME looks into another namespace",
    )
