"""The command `xdpgw log query`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xdpgw.cli_json import as_json_option, in_force, note, print_json, reading
from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from xdpgw.config import Config
    from xdpgw.event_query import EventLog, Group, Wanted
    from xdpgw.events import EventBatch
    from xdpgw.rule_types import Prefix

__all__ = ["log"]

_T = TypeVar("_T")

TOP = 20
"""Groups that --by shows, unless told otherwise."""
GROUPS = ("src", "dst", "rule", "verdict", "reason", "port", "proto", "sport", "dport", "vlan")
"""Columns of the log by which events are worth counting."""
_LAST_NS = 2**63 - 1
"""The last time that SQLite has a number for, in the year 2262."""


@click.group()
def log() -> None:
    """What the log holds.

    \b
    Example:
      xdpgw log query --since 1h --verdict drop
    """


@log.command()
@click.argument("files", metavar="[FILE]...", type=click.Path(path_type=Path), nargs=-1)
@click.option("--policy", type=click.Path(path_type=Path), help="The log of this policy.")
@click.option("--since", metavar="TIME", help="1h ago, or from 2026-03-01T10:00 on (local, or Z).")
@click.option("--until", metavar="TIME", help="The same, up to then.")
@click.option("--src", multiple=True, metavar="PREFIX", help="Source: address, prefix or A-B.")
@click.option("--dst", multiple=True, metavar="PREFIX", help="Destination.")
@click.option("--rule", multiple=True, metavar="NAME", help="The rule that decided.")
@click.option("--verdict", multiple=True, metavar="NAME", help="pass, drop, tx, af_xdp ...")
@click.option("--reason", multiple=True, metavar="NAME", help="rule, default, malformed, block ...")
@click.option("--port", multiple=True, metavar="NAME", help="The gateway's port: eth0.")
@click.option("--proto", multiple=True, metavar="NAME|N", help="tcp, udp, icmp, or a number.")
@click.option("--sport", multiple=True, metavar="N|N-N", help="Source port of TCP, UDP or SCTP.")
@click.option("--dport", multiple=True, metavar="N|N-N", help="Destination port.")
@click.option(
    "--limit", type=click.IntRange(1, 10**12), help="The youngest N; with --by, the top N."
)
@click.option("--count", is_flag=True, help="Only how many there are.")
@click.option("--by", multiple=True, type=click.Choice(GROUPS), help="Counts by it, top first.")
@click.option("--sql", metavar="QUERY", help="A query of your own, over the view log.")
@click.option(
    "--timeout", default="60s", show_default=True, metavar="TIME", help="How long it may search."
)
@as_json_option
def query(files: tuple[Path, ...], **options: Any) -> None:
    """Search the events in FILE, which the sink sqlite writes; without FILE, those of the filter
    in force. Also while it writes.

    FILE may also be one or several of the sinks jsonl (gzip, too) and binary: these are read from
    end to end first.

    An option that is given several times takes any of its values. Events come oldest first, with
    --json as in the sink jsonl.

    \b
    Examples:
      xdpgw log query --since 1h --src 192.0.2.0/24 --verdict drop
      xdpgw log query events.db --since 1d --by src --by rule --limit 10
      xdpgw log query events.jsonl events.jsonl.*.gz --count
      xdpgw log query events.db --sql "SELECT src, count(*) AS n FROM log GROUP BY src ORDER BY n"
    """
    from xdpgw.event_query import EventLog
    from xdpgw.literals import duration_ns

    timeout = options["timeout"]
    timeout_ns = reading("--timeout", lambda: duration_ns(timeout, "1s", "1d", "timeout"))
    wanted = _wanted(options)
    own, as_json = options["sql"], options["as_json"]
    if own is not None and any(
        value for name, value in options.items() if name not in _WITH_SQL and value
    ):
        raise click.UsageError("--sql says all itself: it goes with --json and --timeout only")
    if options["count"] and (options["by"] or options["limit"]):
        raise click.UsageError("--count goes without --by and --limit")
    paths = files or (_file_of(options["policy"]),)
    if files and options["policy"]:
        raise click.UsageError("name the file or the policy, not both")
    with EventLog(*paths, timeout_s=timeout_ns / 1e9) as events:
        for sentence in events.notes:
            note(f"note: {sentence}")
        for column in ("rule", "port"):
            for name in events.unknown_names(column, options[column]):
                note(f"note: no event of this log has the {column} {name}")
        if own is not None:
            events.sql(own, partial(_print_rows, as_json))
        elif options["count"]:
            found = events.count(wanted)
            print_json({"events": found}) if as_json else click.echo(found)
        elif options["by"]:
            by = list(dict.fromkeys(options["by"]))
            _print_groups(events.groups(wanted, by, limit=options["limit"] or TOP), by, as_json)
        else:
            _print_events(events, wanted, options["limit"], as_json)


_WITH_SQL = ("sql", "as_json", "timeout", "policy")


def _file_of(policy: Path | None) -> Path:
    """The file of a policy, or of the one in force."""
    from xdpgw import config

    if policy is not None:
        return _sink_of(config.read(policy))
    _, manifest = in_force()
    source = Path(manifest.policy_file)
    return _sink_of(config.loads(manifest.policy_text, file=str(source), base=source.parent))


def _sink_of(policy: Config) -> Path:
    paths = [x.path for x in policy.log.sinks if x.kind == "sqlite" and x.path is not None]
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise XdpgwError(
            f"{policy.path} has {len(paths)} sinks sqlite", f"name the file of one: {paths[0]}"
        )
    raise XdpgwError(
        f"{policy.path} has no sink sqlite",
        'write { sqlite = "events.db" } into sinks of [log], or name a file',
    )


# What is asked


def _wanted(options: dict[str, Any]) -> Wanted:
    from xdpgw._abi import Reason, Verdict
    from xdpgw.event_query import Wanted
    from xdpgw.literals import choice, number, port_range
    from xdpgw.words import PROTOCOLS

    now_ns = time.time_ns()

    def each(name: str, read: Callable[[str], _T]) -> tuple[_T, ...]:
        return tuple(reading(f"--{name}", partial(read, word)) for word in options[name])

    def at_ns(name: str) -> int | None:
        word = options[name]
        return None if word is None else reading(f"--{name}", lambda: _time_ns(word, now_ns))

    return Wanted(
        since_ns=at_ns("since"),
        until_ns=at_ns("until"),
        src=_prefixes(options, "src"),
        dst=_prefixes(options, "dst"),
        rule=options["rule"],
        verdict=each("verdict", lambda word: choice(word, [x.text for x in Verdict], "verdict")),
        reason=each("reason", lambda word: choice(word, [x.text for x in Reason], "reason")),
        port=options["port"],
        proto=each(
            "proto",
            lambda word: (
                PROTOCOLS[choice(word, PROTOCOLS, "protocol")]
                if not word.isdigit()
                else number(word, 0, 255, "protocol")
            ),
        ),
        sport=each("sport", port_range),
        dport=each("dport", port_range),
    )


def _prefixes(options: dict[str, Any], name: str) -> tuple[Prefix, ...]:
    from xdpgw.literals import addresses

    words: tuple[str, ...] = options[name]
    found = (reading(f"--{name}", partial(addresses, word)) for word in words)
    return tuple(prefix for prefixes in found for prefix in prefixes)


def _time_ns(word: str, now_ns: int) -> int:
    """A time ago, or a time of a calendar, as CLOCK_REALTIME.

    Raises:
        Wrong: it is neither.
    """
    from datetime import datetime

    from xdpgw.literals import Wrong, duration_ns

    if word[:1].isdigit() and word[-1:] in "smhd":
        return now_ns - duration_ns(word, "1s", "3650d", "time")
    try:
        when = datetime.fromisoformat(word)
        # Whole microseconds: a float of that size has none left.
        ns = int(when.timestamp()) * 10**9 + when.microsecond * 1000
        return max(0, min(ns, _LAST_NS))
    except (ValueError, OverflowError, OSError) as error:
        raise Wrong(f'"{word}" is not a time', "write 1h, or 2026-03-01T10:00:00Z") from error


# What is answered


def _print_events(events: EventLog, wanted: Wanted, limit: int | None, as_json: bool) -> None:
    out = sys.stdout.buffer
    for batch in events.batches(wanted, limit=limit):
        out.write(batch.json_lines() if as_json else _lines(batch))
        out.flush()


def _lines(batch: EventBatch) -> bytes:
    from xdpgw.event_text import descriptions

    times = map(_time_text, batch.events["ts_ns"].tolist())
    lines = (" ".join(pair) for pair in zip(times, descriptions(batch), strict=True))
    return "\n".join([*lines, ""]).encode()


def _time_text(ns: int | None) -> str:
    """Local time with microseconds."""
    if not ns:
        return "no time"
    second, rest = divmod(ns, 10**9)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(second))}.{rest // 1000:06}"


def _print_groups(groups: list[Group], by: list[str], as_json: bool) -> None:
    if as_json:
        for group in groups:
            print_json(
                {
                    **group.key,
                    "events": group.events,
                    "bytes": group.bytes,
                    "first_ns": group.first_ns,
                    "last_ns": group.last_ns,
                }
            )
        return
    rows = [("events", "bytes", "first", "last", *by)]
    for group in groups:
        times = (_time_text(x)[:19] for x in (group.first_ns, group.last_ns))
        key = ("-" if x is None else str(x) for x in group.key.values())
        rows.append((str(group.events), str(group.bytes), *times, *key))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        numbers = (x.rjust(width) for x, width in zip(row[:2], widths, strict=False))
        words = (x.ljust(width) for x, width in zip(row[2:], widths[2:], strict=True))
        click.echo("  ".join((*numbers, *words)).rstrip())


def _print_rows(as_json: bool, names: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    if not as_json:
        click.echo("\t".join(names))
    elif len(set(names)) < len(names):
        raise XdpgwError("--sql: two columns have the same name", "give each its own by AS")
    for row in rows:
        shown = [x.hex() if isinstance(x, bytes) else x for x in row]
        if as_json:
            print_json(dict(zip(names, shown, strict=True)))
        else:
            click.echo("\t".join("" if x is None else str(x) for x in shown))
