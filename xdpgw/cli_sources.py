"""The command `xdpgw sources`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from xdpgw.geo import Geo
    from xdpgw.pins import Manifest
    from xdpgw.talkers import Order

__all__ = ["sources"]

WATCH_S = 1.0
VERDICTS = ("pass", "drop", "reject", "tx", "redirect", "forward", "af_xdp")
ORDERS = ("packets", "bytes", "dropped", "last")
MOST = 1 << 24
WIDTH = 220
"""Columns of what is printed, at most: a cut number is worse than a long line."""


@click.command()
@click.argument("within", metavar="[ADDRESS|PREFIX]...", nargs=-1)
@click.option(
    "--top", "count", type=click.IntRange(1, MOST), default=20, show_default=True, help="So many."
)
@click.option(
    "--by", type=click.Choice(ORDERS), default="packets", show_default=True, help="In this order."
)
@click.option("--port", help="Only those whose last packet came in there.")
@click.option("--verdict", type=click.Choice(VERDICTS), help="Only those whose last packet got it.")
@click.option(
    "--geoip",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A database of countries or ASes (.mmdb), in place of those of the policy.",
)
@click.option("--watch", is_flag=True, help="Again each second, with rates, until Ctrl-C.")
@as_json_option
def sources(
    within: tuple[str, ...],
    count: int,
    by: str,
    port: str | None,
    verdict: str | None,
    geoip: tuple[Path, ...],
    watch: bool,
    as_json: bool,
) -> None:
    """Show who sends: packets, bytes, what was dropped, first and last seen, the last verdict.

    Counted in the kernel, for each address, on all ports together. Who sends much is never
    forgotten; of those that came once, the oldest give way when the table is full.

    \b
    Example:
      xdpgw sources --by dropped
      xdpgw sources 192.0.2.0/24 --top 100 --json | jq '.sources[].source'
    """
    from xdpgw.literals import addresses
    from xdpgw.talkers import Asked, sources_of

    prefixes = [prefix for word in within for prefix in reading(None, partial(addresses, word))]
    asked = Asked(tuple(prefixes), count, cast("Order", by), port, verdict)
    instance, manifest = in_force()
    with ExitStack() as stack:
        geo = _geo(geoip, manifest)
        if geo is not None:
            stack.enter_context(geo)
        before: dict[str, Any] | None = None
        while True:
            state = sources_of(instance, manifest, asked, geo)
            if watch:
                _add_rates(state, before)
                if not as_json and sys.stdout.isatty():
                    click.clear()
            if as_json:
                print_json(state)
            else:
                _show(state, watch)
            if not watch:
                return
            before = state
            sys.stdout.flush()
            time.sleep(WATCH_S)
            instance, manifest = in_force()


def _geo(files: Sequence[Path], manifest: Manifest) -> Geo | None:
    """The databases of the command, or of the policy; these may be missing."""
    from xdpgw.geo import Geo

    if files:
        return Geo(files)
    if not manifest.geoip:
        return None
    try:
        return Geo(manifest.geoip)
    except XdpgwError as error:
        note(
            f"{error}: countries and ASes are not shown" + (f"\n  {error.hint}" * bool(error.hint))
        )
        return None


def _add_rates(state: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Packets a second of each source that was shown before; unknown of the others."""
    known = {x["source"]: x["packets"] for x in before["sources"]} if before else {}
    seconds = (state["at_ns"] - before["at_ns"]) / 1e9 if before else 0.0
    for row in state["sources"]:
        was = known.get(row["source"])
        grown = None if was is None else row["packets"] - was
        row["pps"] = None if grown is None or grown < 0 or not seconds else grown / seconds


def _show(state: Mapping[str, Any], watch: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    columns = ["source", "packets", "bytes", "dropped", "first seen", "last seen", "last verdict"]
    columns += ["port"] + ["pps"] * watch + ["country", "as"] * state["places"]
    table = Table(box=None, pad_edge=False)
    for heading in columns:
        right = heading in ("packets", "bytes", "dropped", "pps")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in state["sources"]:
        cells = [row["source"], *(f"{row[x]}" for x in ("packets", "bytes", "dropped"))]
        cells += [time_text(row["first_ns"]), _ago(state["at_ns"] - row["last_ns"])]
        cells += [f"{row['verdict']} {row['reason']}", row["port"] or "gone"]
        if watch:
            cells.append("" if row["pps"] is None else f"{row['pps']:.0f}")
        if state["places"]:
            asn = "" if row["asn"] is None else f"AS{row['asn']} {row['as_name'] or ''}".rstrip()
            cells += [row["country"] or "", asn]
        table.add_row(*map(Text, cells))
    if state["sources"]:
        console.print(table, crop=False)
    known, match = state["known"], state["matching"]
    told = f"{len(state['sources'])} of {match['sources']} sources"
    if match["sources"] != known["sources"]:
        told += f" that match, of {known['sources']} known"
    told += f"; together {match['packets']} packets, {match['bytes']} bytes"
    console.print(told, soft_wrap=True)
    gone = state["gone"]
    if gone["sources"]:
        console.print(
            f"forgotten: {gone['packets']} packets, {gone['bytes']} bytes of sources that gave way "
            f"{gone['sources']} times to others",
            soft_wrap=True,
        )


def _ago(ns: int) -> str:
    seconds = max(0, ns) // 10**9
    return "now" if seconds == 0 else f"{duration_text(seconds * 10**9)} ago"
