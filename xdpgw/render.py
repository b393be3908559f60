"""What people read on a terminal. Every command that prints data has the same data as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xdpgw.words import flags_text, protocol_text

if TYPE_CHECKING:
    from xdpgw.gateway import Applied

__all__ = ["applied_text", "explanation_line", "flow_text", "print_status"]


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
    """What `gateway.apply` did, and what is to be known of each port."""
    from xdpgw.pins import notes

    lines = []
    for port, at in applied.manifest.ports.items():
        how = "attached" if port in applied.attached else "switched to the new policy"
        lines.append(f"{port}: {how}, {at.mode} mode")
        lines += [f"{port}: {note}" for note in notes(applied.manifest, port)]
    lines += [f"{port}: detached" for port in applied.detached]
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
