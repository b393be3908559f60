"""The commands `xdpgw block`, `unblock` and `blocks`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xdpgw.cli_json import (
    as_json_option,
    duration_text,
    in_force,
    note,
    print_json,
    reading,
    time_text,
)
from xdpgw.errors import ConfigError, XdpgwError

if TYPE_CHECKING:
    from xdpgw.rule_types import Prefix

__all__ = ["block", "blocks", "unblock"]

sources_argument = click.argument("sources", metavar="[ADDRESS|PREFIX|-]...", nargs=-1)
file_option = click.option(
    "--file", type=click.Path(path_type=Path), help="Addresses and prefixes of a file, one a line."
)


@click.command()
@sources_argument
@file_option
@click.option("--for", "duration", metavar="TIME", help="10m, 12h or 1d.  [default: no end]")
@click.option("--reason", default="", metavar="TEXT", help="Why, for `xdpgw blocks`.")
@click.option("--force", is_flag=True, help="Also /0, and what covers your own SSH session.")
def block(
    sources: tuple[str, ...], file: Path | None, duration: str | None, reason: str, force: bool
) -> None:
    """Drop all packets from sources, at once and on all ports, before any rule is asked.

    A source that is blocked already gets the new end and reason. `-` reads sources from stdin, one
    a line. Blocks are kept over restarts and reboots. What `allow` of the policy names is never
    blocked, nor is the SSH session that put the policy in force.

    \b
    Example:
      xdpgw block 192.0.2.7 --for 10m --reason "probes ssh"
      xdpgw block --file feed.netset --for 1d
    """
    from xdpgw import block_request

    wanted = _read(sources, file)
    for_ns = None
    if duration is not None:
        for_ns = reading("--for", lambda: block_request.time_of(duration))
    reading("--reason", lambda: block_request.check_reason(reason))
    warning = block_request.block(*in_force(), wanted, for_ns=for_ns, reason=reason, force=force)
    if warning:
        note(warning)
    click.echo(
        f"{block_request.named(wanted)}: blocked" + ("" if duration is None else f" for {duration}")
    )


@click.command()
@sources_argument
@file_option
@click.option("--all", "everything", is_flag=True, help="All that is blocked.")
def unblock(sources: tuple[str, ...], file: Path | None, everything: bool) -> None:
    """Take back what `xdpgw block` did, at once.

    \b
    Example:
      xdpgw unblock 192.0.2.7
    """
    from xdpgw.block_request import named
    from xdpgw.blocks import clear, covering, remove
    from xdpgw.literals import prefix_text

    if everything:
        if sources or file:
            raise click.UsageError("--all takes no addresses")
        count = clear(in_force()[0])
        click.echo(f"{count} unblocked" if count else "nothing was blocked")
        return
    wanted = _read(sources, file)
    instance, _ = in_force()
    missing = remove(instance, wanted)
    if len(missing) < len(wanted):
        were_there = set(wanted) - set(missing)
        click.echo(f"{named([x for x in wanted if x in were_there])}: unblocked")
    if missing:
        wider = covering(instance, missing[0])
        raise XdpgwError(
            f"not blocked: {named(missing)}",
            "xdpgw blocks shows what is"
            if wider is None
            else f"{prefix_text(wider)} is, and covers {prefix_text(missing[0])}",
        )


@click.command()
@as_json_option
def blocks(as_json: bool) -> None:
    """Show what is blocked: how long still, since when, and why.

    \b
    Example:
      xdpgw blocks --json | jq -r '.[].source'
    """
    from xdpgw.blocks import listed
    from xdpgw.literals import prefix_text

    found = listed(in_force()[0])
    if as_json:
        print_json(
            [
                {
                    "source": prefix_text(x.source),
                    "left_s": None if x.left_ns is None else x.left_ns / 1e9,
                    "since_ns": x.since_ns,
                    "reason": x.reason,
                }
                for x in found
            ]
        )
        return
    rows = [
        (
            prefix_text(x.source),
            "no end" if x.left_ns is None else duration_text(x.left_ns),
            "unknown" if x.since_ns is None else time_text(x.since_ns),
            x.reason,
        )
        for x in found
    ]
    if not rows:
        click.echo("nothing is blocked")
        return
    rows.insert(0, ("source", "left", "since", "reason"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    click.echo("\n".join(lines))


def _read(words: Sequence[str], file: Path | None) -> list[Prefix]:
    """The sources of a command line, each once.

    Raises:
        ConfigError: with all that is wrong with the lines of a file or of stdin.
    """
    from xdpgw.literals import addresses
    from xdpgw.sets import read_feed

    found: list[Prefix] = []
    for word in words:
        if word != "-":
            found += reading(None, partial(addresses, word))
    files = [Path("/dev/stdin")] if "-" in words else []
    for path in (*files, *([file] if file else [])):
        try:
            feed, wrong = read_feed(path)
        except OSError as error:
            raise XdpgwError(f"cannot read {path}: {error.strerror}") from error
        if wrong:
            raise ConfigError(wrong)
        found += feed.prefixes
    if not found and not files and not file:
        raise click.UsageError("name an address or a prefix, or --file")
    return list(dict.fromkeys(found))
