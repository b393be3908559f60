"""The command `xdpgw top`."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from xdpgw.cli_json import as_json_option, in_force, print_json
from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from xdpgw.pins import Instance
    from xdpgw.snapshot import Reader, Snapshot
    from xdpgw.top_dialogs import Request

__all__ = ["block_source", "top"]


@click.command()
@click.option("--once", is_flag=True, help="Print what happens in one interval, and end.")
@click.option(
    "--interval", default="1s", show_default=True, metavar="TIME", help="Between two looks."
)
@click.option(
    "--rows",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="Of --once: sources, rules and reasons.",
)
@as_json_option
def top(once: bool, interval: str, rows: int, as_json: bool) -> None:
    """Watch the filter: rates by port and verdict, sources, rules, reasons, rings, losses.

    Works on a running and on an orphaned filter. The key ? shows all keys; b blocks the marked
    source. With --json one document an interval, until Ctrl-C.

    \b
    Example:
      xdpgw top
      xdpgw top --once --json | jq '.sources[:3]'
    """
    from xdpgw.literals import Wrong, duration_ns
    from xdpgw.snapshot import Change, Reader
    from xdpgw.top_tables import document, plain, tables

    try:
        pause_s = duration_ns(interval, "100ms", "1h", "interval") / 1e9
    except Wrong as wrong:
        raise click.BadParameter(
            f"{wrong.message} ({wrong.hint})", param_hint="--interval"
        ) from wrong
    instance, _ = in_force()
    reader = Reader(instance, sources=True)
    if not once and not as_json:
        _watch(instance, reader, pause_s)
        return
    before = _read(reader)
    while True:
        time.sleep(pause_s)
        after = _read(reader)
        change = Change(before, after)
        if as_json:
            print_json(document(change, tables(change)))
        else:
            click.echo(plain(change, tables(change), rows))
        sys.stdout.flush()
        if once:
            return
        before = after


def _read(reader: Reader) -> Snapshot:
    """What the filter tells now.

    Raises:
        XdpgwError: it is gone.
    """
    found = reader.read()
    if found is None:
        raise XdpgwError("the filter was detached meanwhile", "xdpgw run FILE starts one")
    return found


def _watch(instance: Instance, reader: Reader, pause_s: float) -> None:
    try:
        from xdpgw.top_app import Top
    except ModuleNotFoundError as error:
        raise XdpgwError(
            f"xdpgw top needs the package {error.name}",
            "pip install 'xdpgw[tui]'; xdpgw top --once does without",
        ) from error
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise click.UsageError("this is no terminal; --once prints, and --json goes on printing")
    for name in ("COLUMNS", "LINES"):  # who exports them says what was once, and sizes change
        os.environ.pop(name, None)
    app = Top(reader.read, partial(block_source, instance), pause_s)
    app.run()
    if app.return_code:  # it broke, and has said how
        sys.exit(app.return_code)


def block_source(instance: Instance, request: Request) -> str:
    """What was done, and what of it was not.

    Raises:
        Wrong: a word of the request.
        XdpgwError: as `block_request.block`.
    """
    from xdpgw import block_request
    from xdpgw.literals import addresses

    sources = addresses(request.source)
    for_ns = block_request.time_of(request.duration) if request.duration else None
    block_request.check_reason(request.reason)
    manifest = instance.manifest()
    if manifest is None:
        raise XdpgwError("no filter is in force any more")
    warning = block_request.block(instance, manifest, sources, for_ns=for_ns, reason=request.reason)
    end = f" for {request.duration}" if request.duration else ""
    done = f"{block_request.named(sources)}: blocked{end}"
    return f"{done}\n{warning}" if warning else done
