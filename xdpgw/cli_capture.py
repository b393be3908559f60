"""The commands `xdpgw capture` and `xdpgw trace`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xdpgw import _abi as abi
from xdpgw._abi import Reason, Verdict
from xdpgw.cli_json import as_json_option, in_force, note, print_json, reading
from xdpgw.errors import ConfigError, Diagnostic, XdpgwError

if TYPE_CHECKING:
    from xdpgw.pins import Manifest
    from xdpgw.rule_types import Rate
    from xdpgw.tap import Wanted

__all__ = ["capture", "trace"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

LINES_PER_S = "1000/s"
"""Of lines, if nothing is said: more than anybody reads, and no load."""


def _filters(command: _Command) -> _Command:
    """The options that both commands have."""
    for option in reversed(
        (
            click.option(
                "--verdict",
                "verdicts",
                multiple=True,
                type=click.Choice([x.text for x in Verdict]),
                help="With this verdict only; may be repeated, as --reason.",
            ),
            click.option(
                "--reason",
                "reasons",
                multiple=True,
                type=click.Choice([x.text for x in Reason]),
                help="With this reason only.",
            ),
            click.option("--rule", metavar="NAME", help="That this rule decided on only."),
            click.option("--count", type=click.IntRange(min=1), help="End after so many packets."),
            click.option("--for", "duration", metavar="TIME", help="End after 10s, 5m or 1h."),
            click.option(
                "--rate",
                metavar="N/s|off",
                help="No more than so many a second, or N/m a minute.  [default: off with -w, "
                f"else {LINES_PER_S}]",
            ),
            as_json_option,
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("port")
@click.argument("match", nargs=-1)
@click.option(
    "-w", "file", metavar="FILE|-", help="Write frames as pcapng, to standard output with -."
)
@click.option(
    "--snaplen",
    type=click.IntRange(1, abi.CAPTURE_BYTES),
    default=abi.CAPTURE_BYTES,
    show_default=True,
    help="With -w: bytes of a frame.",
)
@_filters
def capture(
    port: str,
    match: tuple[str, ...],
    file: str | None,
    snaplen: int,
    duration: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Capture frames of PORT as the filter sees them, with what it decided and why, until Ctrl-C.

    MATCH is what stands behind the action of a rule, with the sets of the policy in force. Without
    -w a line a packet is printed, as `xdpgw trace` does. The filter goes on meanwhile, and packets
    get the verdicts that they would have got. What was lost is counted and told at the end.

    \b
    Examples:
      xdpgw capture eth0 tcp from 10.0.0.0/8 to port 22 -w ssh.pcapng
      xdpgw capture eth0 --verdict drop --for 10s -w dropped.pcapng
      xdpgw capture eth0 from @bad -w - | tshark -r - -T fields -e frame.comment
    """
    if file is None:
        _print_lines([port, *match], True, duration, as_json, filters)
        return
    if file == "-" and as_json:
        raise click.UsageError("with -w - standard output is the capture's: leave --json out")
    if file == "-" and sys.stdout.isatty():
        raise click.UsageError("frames are not for a terminal: -w FILE, or a pipe behind -w -")
    from xdpgw.capture import write_file

    instance, manifest = in_force()
    _require_port(port, manifest)
    done = write_file(
        instance,
        manifest,
        port,
        _wanted(" ".join(match), snaplen=snaplen, rate_default="off", **filters),
        os.dup(sys.stdout.fileno()) if file == "-" else Path(file),
        seconds=_seconds(duration),
        note=note,
    )
    if as_json:
        print_json({"port": port, "file": file, **done.as_dict()})
    else:
        note(str(done))
    if done.failed:
        raise XdpgwError(f"{file} is not whole: {done.failed}", "what is in it can be read")


@click.command()
@click.argument("words", nargs=-1, metavar="[PORT] [MATCH]...")
@_filters
def trace(words: tuple[str, ...], duration: str | None, as_json: bool, **filters: Any) -> None:
    """Print why each packet got its verdict, a line a packet, until Ctrl-C. Of all ports of the
    filter where none is named.

    MATCH is what stands behind the action of a rule, with the sets of the policy in force.

    \b
    Examples:
      xdpgw trace
      xdpgw trace eth0 udp to port 53 --verdict drop
      xdpgw trace --reason malformed --count 10 --json
    """
    _print_lines(list(words), False, duration, as_json, filters)


def _print_lines(
    words: list[str], needs_port: bool, duration: str | None, as_json: bool, filters: Any
) -> None:
    from xdpgw.capture import ports_and_match, write_lines

    instance, manifest = in_force()
    if needs_port:
        _require_port(words[0], manifest)
    ports, match = ports_and_match(words, manifest)
    try:
        done = write_lines(
            instance,
            manifest,
            ports,
            _wanted(match, rate_default=LINES_PER_S, **filters),
            as_json=as_json,
            seconds=_seconds(duration),
            note=note,
        )
    except ConfigError as error:
        raise _or_a_port(error, manifest) from error
    note(str(done))


def _or_a_port(error: ConfigError, manifest: Manifest) -> ConfigError:
    """Of a first word that is no match, what was meant may be a port."""
    first = error.diagnostics[0]
    if first.column != 1 or not first.message.startswith("unknown word"):
        return error
    hint = f"write a match such as tcp, or a port: {', '.join(manifest.ports)}"
    return ConfigError([Diagnostic(first.file, first.line, first.column, first.message, hint)])


def _require_port(port: str, manifest: Manifest) -> None:
    if port not in manifest.ports:
        raise XdpgwError(
            f"the filter is not on port {port}", f"it is on {', '.join(manifest.ports)}"
        )


def _wanted(
    match: str,
    *,
    verdicts: tuple[str, ...],
    reasons: tuple[str, ...],
    rule: str | None,
    count: int | None,
    rate: str | None,
    rate_default: str,
    snaplen: int = 0,
) -> Wanted:
    from xdpgw.tap import Wanted

    return Wanted(
        match,
        frozenset(x for x in Verdict if not verdicts or x.text in verdicts),
        frozenset(x for x in Reason if not reasons or x.text in reasons),
        rule,
        snaplen,
        count or 0,
        _rate(rate or rate_default),
    )


def _rate(text: str) -> Rate | None:
    from xdpgw.literals import rate

    return None if text == "off" else reading("--rate", lambda: rate(text, counts=True))


def _seconds(duration: str | None) -> float | None:
    from xdpgw.literals import duration_ns

    if duration is None:
        return None
    return reading("--for", lambda: duration_ns(duration, "1ms", "365d", "time")) / 1e9
