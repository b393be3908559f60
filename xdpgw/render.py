"""What people read on a terminal. Every command that prints data has the same data as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xdpgw.words import flags_text, protocol_text

if TYPE_CHECKING:
    from xdpgw.gateway import Applied
    from xdpgw.generate import Report

__all__ = [
    "applied_text",
    "explanation_line",
    "flow_text",
    "print_limits",
    "print_report",
    "print_status",
    "print_targets",
    "sending",
]


def flow_text(key: Mapping[str, Any]) -> str:
    """Who to whom, by what: the key of an explanation in a few words."""
    words = []
    if key["vlan"] is not None:
        words.append(f"vlan {key['vlan']}")
    if key["family"] is None:
        words.append("not ip")
    else:
        ends = []
        for address, port in ((key["src"], key["sport"]), (key["dst"], key["dport"])):
            shown = f"[{address}]" if port is not None and key["family"] == 6 else address
            ends.append(shown if port is None else f"{shown}:{port}")
        words.append(" > ".join(ends))
        words.append(protocol_text(key["proto"]))
        if key["tcp_flags"] is not None:
            words.append(flags_text(key["tcp_flags"]))
        if key["frag"] != "no":
            words.append(f"{key['frag']} fragment")
    return " ".join(words) + f" len {key['len']}"


def explanation_line(answer: Mapping[str, Any]) -> str:
    """One explanation as a line: number, verdict, why, flow."""
    verdict = answer["verdict"]
    if answer["target"] is not None:
        verdict += f" {answer['target']}"
    why = answer["reason"] if answer["rule"] is None else f"{answer['reason']} {answer['rule']}"
    return f"{answer['frame']:>6}  {verdict:<14} {why:<20} {flow_text(answer['key'])}"


def applied_text(applied: Applied) -> str:
    """What was put in force, and what is to be known of each port."""
    from xdpgw.pins import notes

    if applied.edited is not None:
        return f"prefixes changed in the tables in force: {applied.edited}"
    lines = []
    if applied.rebuilt is not None:
        lines.append(f"the tables were made anew: {applied.rebuilt}")
    for port, at in applied.manifest.ports.items():
        how = "attached" if port in applied.attached else "switched to the new policy"
        lines.append(f"{port}: {how}, {at.mode} mode")
        lines += [f"{port}: {note}" for note in notes(applied.manifest, port)]
    lines += [f"{port}: detached" for port in applied.detached]
    if applied.forgets:
        lines.append("what sources sent so far was forgotten, as [sources] is another one")
    if kept := applied.restored:
        lost = f"; {kept.lost} could not be taken over" if kept.lost else ""
        lines.append(f"blocked as before: {kept.blocks} sources, by {kept.file}{lost}")
    return "\n".join(lines)


def print_status(state: Mapping[str, Any]) -> None:
    """Print what `xdpgw status --json` holds, as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state["loaded_at_ns"] / 1e9))
    charge = (
        "a process is in charge"
        if state["in_charge"]
        else "orphaned: it filters, but nobody drains its log"
    )
    console.print(
        f"policy {state['policy_file']}, in force since {since}; {charge}", soft_wrap=True
    )

    ports = Table("port", "mode", "verdict", "reason", box=None, pad_edge=False)
    ports.add_column("packets", justify="right")
    ports.add_column("bytes", justify="right")
    for port in state["ports"]:
        mode = port["mode"] if port["attached"] else "gone"
        ports.add_row(
            port["port"],
            mode,
            "received",
            "",
            f"{port['received']['packets']}",
            f"{port['received']['bytes']}",
        )
        for count in port["counters"]:
            ports.add_row(
                "",
                "",
                count["verdict"],
                count["reason"],
                f"{count['packets']}",
                f"{count['bytes']}",
            )
    console.print(ports)
    for port in state["ports"]:
        if not port["attached"]:
            console.print(
                f"{port['port']}: the interface is gone or was made anew; xdpgw reload attaches it"
            )
        for note in port["notes"]:
            console.print(f"{port['port']}: {note}", soft_wrap=True)
    log = state["log"]
    console.print(
        f"log: {log['sources']} sources; events due {log['due']} = written {log['written']} "
        f"+ lost {log['lost']} + over the rate {log['limited']}",
        soft_wrap=True,
    )
    for sink in log["sinks"]:
        console.print(f"log: {_sink_text(sink)}", soft_wrap=True, markup=False)


def _sink_text(sink: Mapping[str, Any]) -> str:
    """The books of a sink, and what it suffers from."""
    text = (
        f"{sink['name']}: events written {sink['written']}, lost {sink['lost']}, "
        f"waiting {sink['queued']}"
    )
    if sink["failing"] is None:
        return text
    since = time.strftime("%H:%M:%S", time.localtime(sink["failing_since_ns"] / 1e9))
    return f"{text}; fails since {since}: {sink['failing']}"


TARGETS_WIDTH = 220
"""Columns of what `xdpgw targets` prints at most."""


def print_targets(state: Mapping[str, Any]) -> None:
    """Print what `xdpgw targets --json` holds, as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    # A cut number is worse than a long line, on a narrow terminal, too.
    console.width = max(console.width, TARGETS_WIDTH)
    if state["sockets"]:
        table = Table(box=None, pad_edge=False)
        for heading in ("target", "handler", "port", "queue", "mode"):
            table.add_column(heading, no_wrap=True)
        for heading in ("rx/s", "tx/s", "received", "sent", "dropped", "fill", "rx", "tx"):
            table.add_column(heading, justify="right", no_wrap=True)
        for at in state["sockets"]:
            rates, counters = at["rates"] or {}, at["counters"]
            table.add_row(
                at["target"] or "",
                ("sends only" if at["handler"] is None else at["handler"])
                + ("" if at["alive"] else " (gave up)"),
                at["port"],
                f"{at['queue']}",
                at["mode"] + (", multi-buffer" if at["multi_buffer"] else ""),
                _rate(rates.get("rx_packets")),
                _rate(rates.get("tx_packets")),
                f"{counters['rx_packets']}",
                f"{counters['tx_packets']}",
                f"{counters['dropped']}",
                *(_level(at["rings"][name]) for name in ("fill", "rx", "tx")),
            )
        console.print(table, crop=False)
    for at in state["sockets"]:
        lost = {name: n for name, n in at["statistics"].items() if n and name in _LOSSES}
        if at["counters"]["tx_full"]:
            lost["tx_full"] = at["counters"]["tx_full"]
        if lost:
            console.print(
                f"{at['target'] or 'sending'} on {at['port']} queue {at['queue']}: "
                + ", ".join(f"{n} {_LOSSES[name]}" for name, n in lost.items()),
                soft_wrap=True,
            )
    for name in state["unserved"]:
        why = "" if state["in_charge"] else ": no process is in charge of the filter"
        console.print(
            f"{name}: no socket, its packets get the verdict after else{why}", soft_wrap=True
        )
    if not state["sockets"] and not state["unserved"]:
        console.print("the policy in force has no AF_XDP target")


_LOSSES = {
    "rx_dropped": "dropped by the kernel, such as longer than a chunk",
    "rx_ring_full": "lost as the RX ring was full: the handler is too slow",
    "rx_fill_ring_empty": "times the kernel found no chunk to receive into",
    "rx_invalid_descs": "invalid descriptors to receive into",
    "tx_invalid_descs": "invalid descriptors to send",
    "tx_full": "not sent as the TX ring was full",
}


def _rate(per_second: float | None) -> str:
    return "" if per_second is None else f"{per_second:.0f}"


def _level(ring: Mapping[str, int]) -> str:
    return f"{ring['level']}/{ring['size']}" if ring["size"] else ""


def print_limits(state: Mapping[str, Any]) -> None:
    """Print what `xdpgw limits --json` holds, as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not state["limits"]:
        console.print("the policy in force has no limit")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("rule", "rate", "burst", "per", "source"):
        table.add_column(heading, no_wrap=True)
    for heading in ("spent", "over", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for limit in state["limits"]:
        burst = f"{limit['burst']} {limit['unit']}"
        over = limit["over"]
        table.add_row(
            *(limit["rule"], limit["rate"], burst, limit["per"], ""),
            _spent(limit) if limit["per"] == "rule" else "",
            f"{over['packets']}",
            f"{over['bytes']}",
        )
        for at in limit["sources"]:
            ago = "" if at["over_s"] is None else f"{at['over_s']:.0f} s ago"
            spent = _spent({**limit, **at})
            table.add_row("", "", "", "", at["source"] or "not IP", spent, ago, "")
    console.width = max(console.width, TARGETS_WIDTH)
    console.print(table, crop=False)
    in_use = state["table"]["in_use"]
    if in_use:
        console.print(f"buckets of sources in use: {in_use} of {state['table']['buckets']}")


def _spent(at: Mapping[str, Any]) -> str:
    return "unknown" if at["spent"] is None else f"{100 * at['spent'] / at['burst']:.0f} %"


@contextmanager
def sending(count: int | None, *, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """A line on a terminal's stderr that tells how many frames are out; gives what to call."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.completed:,.0f} frames"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=count)
        yield lambda sent: progress.update(task, completed=sent)


def print_report(report: Report) -> None:
    """Print what was sent."""
    import click

    click.echo(
        f"{report.frames} frames, {report.bytes} bytes in {report.seconds:.3f} s: "
        f"{report.pps:,.0f} frames/s, {report.bits_per_s / 1e6:,.1f} Mbit/s"
    )
