"""The command `xdpgw`. Each command imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xdpgw import __version__
from xdpgw.cli_blocks import block, blocks, unblock
from xdpgw.cli_capture import capture, trace
from xdpgw.cli_generate import generate as generate_command
from xdpgw.cli_json import as_json_option, in_force, note, note_in_passing, print_json, snapshot
from xdpgw.cli_log import log as log_command
from xdpgw.cli_metrics import metrics
from xdpgw.cli_snoop import snoop
from xdpgw.cli_sources import sources
from xdpgw.cli_top import top
from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from xdpgw.config import Config
    from xdpgw.rules import RuleSet

__all__ = ["cli", "main"]

POLICY = click.Path(path_type=Path)
mode_option = click.option(
    "--mode",
    type=click.Choice(["auto", "native", "generic"]),
    default="auto",
    show_default=True,
    help="Where the program runs: in the driver, or behind it for any interface.",
)


class Group(click.Group):
    """Shows commands in the order of a first day with the product, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error  # click would exit with 1


def _is_full(error: OSError) -> bool:
    """Whether it is our output that took no more, which has no name for us."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    return error.errno in full and error.filename is None


class _ReaderGoneError(Exception):
    """Who read our output has seen enough."""


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 failed, 2 bad policy or usage, 3 the kernel said no, "
    "4 fast path, 5 built for another version, 130 interrupted.",
)
@click.version_option(__version__, prog_name="xdpgw")
@click.option("--netns", metavar="NAME|PID|PATH", help="Work in this network namespace.")
def cli(netns: str | None) -> None:
    """Packet filter and gateway on XDP.

    \b
    First steps:
      xdpgw demo                    see it work, on interfaces of its own
      xdpgw check edge.toml         read a policy and say what is wrong with it
      xdpgw run edge.toml           put it in force and log; Ctrl-C ends
    """
    if netns is not None:
        from xdpgw.netns import enter

        enter(netns)


def _read(file: Path) -> tuple[Config, RuleSet]:
    """Read and resolve a policy, with its warnings on stderr."""
    from xdpgw import config, rules

    policy = config.read(file)
    for warning in policy.warnings:
        note(f"warning: {warning}")
    return policy, rules.resolve(policy)


@cli.command()
@click.argument("file", type=POLICY)
@as_json_option
def check(file: Path, as_json: bool) -> None:
    """Read a policy FILE, and say all that is wrong with it. Needs no privilege.

    \b
    Example:
      xdpgw check edge.toml && xdpgw reload edge.toml
    """
    from xdpgw.compile import compile_rules
    from xdpgw.errors import UnsupportedError

    policy, ruleset = _read(file)
    for missing in ruleset.unsupported:
        note(str(missing))
    try:
        memory: int | None = compile_rules(ruleset).memory_bytes
    except UnsupportedError:
        if not ruleset.unsupported:
            raise
        memory = None
    if as_json:
        print_json(
            {
                "file": str(file),
                "rules": len(policy.rules),
                "sets": len(policy.sets),
                "ports": list(policy.ports),
                "memory_bytes": memory,
                "warnings": [str(x) for x in policy.warnings],
                "not_in_this_version": [str(x) for x in ruleset.unsupported],
            }
        )
        return
    size = "" if memory is None else f", {_size(memory)} of maps"
    click.echo(
        f"{file}: the policy is well-formed: {_many(len(policy.rules), 'rule')}, "
        f"{_many(len(policy.sets), 'set')}, {_many(len(policy.ports), 'port')}{size}"
    )
    if ruleset.unsupported:
        note("run and reload refuse it until then")


@cli.command()
@click.argument("file", type=POLICY)
@click.option(
    "--pcap", required=True, type=click.Path(path_type=Path), help="Frames: pcap or pcapng."
)
@click.option("--port", help="The port they came in on.  [default: the policy's first]")
@as_json_option
def explain(file: Path, pcap: Path, port: str | None, as_json: bool) -> None:
    """Say what the policy FILE does with each frame of a capture, and why. Attaches nothing.

    \b
    Example:
      tcpdump -i eth0 -c 100 -w some.pcap
      xdpgw explain edge.toml --pcap some.pcap
    """
    from xdpgw.explain import explainer, read_frames
    from xdpgw.render import explanation_line

    policy, _ = _read(file)
    with explainer(policy, port) as judge:
        for answer in judge.explain(read_frames(pcap)):
            if as_json:
                print_json(answer)
            else:
                click.echo(explanation_line(answer))


@cli.command()
@click.argument("file", type=POLICY)
def run(file: Path) -> None:
    """Put the policy FILE in force on its ports, and log, until Ctrl-C or SIGTERM.

    The filter outlives the process unless the policy says on_exit = "detach". A start over a
    filter that is in force takes it over without a gap. SIGHUP reads FILE again.

    \b
    Example:
      xdpgw run edge.toml
    """
    from xdpgw.service import serve

    policy, _ = _read(file)
    serve(policy, note=note_in_passing)


@cli.command()
@click.argument("file", type=POLICY, required=False)
def reload(file: Path | None) -> None:
    """Replace the policy in force by FILE, at once. Without FILE: by the file it came from.

    Works on a running and on an orphaned filter. A rule that keeps its name keeps its counters.
    Whatever fails, the policy in force stays in force.

    \b
    Example:
      xdpgw reload edge.toml
    """
    from xdpgw import gateway
    from xdpgw.render import applied_text
    from xdpgw.session import find_session
    from xdpgw.targets import prepare

    instance, manifest = in_force()
    policy, _ = _read(file or Path(manifest.policy_file))
    prepare(policy)  # what cannot be served is no reason to change what is in force
    applied = gateway.apply(policy, instance, session=find_session())
    click.echo(applied_text(applied))


@cli.command()
@as_json_option
def status(as_json: bool) -> None:
    """Show the filter in force, running or orphaned: ports, verdicts and reasons, the log's books.

    \b
    Example:
      xdpgw status --json | jq '.ports[].received.packets'
    """
    from xdpgw.render import print_status
    from xdpgw.service import status_of

    state = status_of(snapshot())
    if as_json:
        print_json(state)
    else:
        print_status(state)


@cli.command()
@click.argument("file", type=POLICY, required=False)
@click.option(
    "-c", "--counters", is_flag=True, help="With packets and bytes of each rule as a comment."
)
@as_json_option
def rules(file: Path | None, counters: bool, as_json: bool) -> None:
    """Print the rules in force in canonical spacing, or those of FILE. What is printed can be
    read back.

    \b
    Example:
      xdpgw rules --counters
    """
    from xdpgw.service import rules_of_file, rules_of_filter

    if file is not None:
        if counters:
            raise click.UsageError("a file has no counters; leave FILE out for the rules in force")
        policy, _ = _read(file)
        listed = rules_of_file(policy)
    else:
        listed = rules_of_filter(*in_force())
    if as_json:
        print_json(listed)
        return
    width = max((len(x["text"]) for x in listed), default=0)
    for rule in listed:
        count = f"  # {rule['packets']} packets, {rule['bytes']} bytes" if counters else ""
        click.echo(f"{rule['text']:<{width}}{count}" if counters else rule["text"])


@cli.command()
@as_json_option
def targets(as_json: bool) -> None:
    """Show the sockets of the AF_XDP targets: mode, rates, rings, and what was lost where.

    Rates are of the last fifth of a second.

    \b
    Example:
      xdpgw targets --json | jq '.sockets[].counters.rx_packets'
    """
    from xdpgw.render import print_targets
    from xdpgw.target_stats import targets_of

    state = targets_of(*in_force())
    if as_json:
        print_json(state)
    else:
        print_targets(state)


@cli.command()
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@as_json_option
def limits(addresses: tuple[str, ...], as_json: bool) -> None:
    """Show the limits in force: rate, burst, what was dropped, and which sources are over the rate.

    Of each limit per source, up to eight sources that were over the rate in the last minute, and
    each ADDRESS.

    \b
    Example:
      xdpgw limits 192.0.2.7
      xdpgw limits --json | jq '.limits[] | {rule, over}'
    """
    import ipaddress

    from xdpgw.limit_state import limits_of
    from xdpgw.render import print_limits

    try:
        asked = [ipaddress.ip_address(text) for text in addresses]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    instance, manifest = in_force()
    state = limits_of(instance, manifest, asked)
    if as_json:
        print_json(state)
    else:
        print_limits(state)


@cli.command()
def detach() -> None:
    """Detach the filter from all of its ports and remove all that was pinned.

    \b
    Example:
      xdpgw detach
    """
    from xdpgw import gateway
    from xdpgw.pins import Instance

    instance = Instance()
    existed = instance.path.exists()
    ports = gateway.detach(instance)
    if ports:
        click.echo("\n".join(f"{port}: detached" for port in ports))
    elif existed:
        click.echo("what a broken start had left was removed")
    else:
        note("no filter is in force in this network namespace: nothing to detach")


@cli.command()
@click.argument("port")
@mode_option
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many packets.")
@as_json_option
def sourceip(port: str, mode: str, count: int | None, as_json: bool) -> None:
    """Print the source address, IPv4 or IPv6, of every packet on PORT, until Ctrl-C.

    Lets all packets pass. What could not be printed is counted and told at the end.

    \b
    Example:
      xdpgw sourceip eth0 | sort | uniq -c | sort -n
    """
    from xdpgw.sourceip import watch

    watch(port, mode=mode, count=count, as_json=as_json, note=note)


cli.add_command(block)
cli.add_command(unblock)
cli.add_command(blocks)
cli.add_command(sources)
cli.add_command(log_command)
cli.add_command(top)
cli.add_command(metrics)
cli.add_command(capture)
cli.add_command(trace)
cli.add_command(generate_command)
cli.add_command(snoop)


@cli.command()
@as_json_option
def demo(as_json: bool) -> None:
    """See it work: frames of a dozen kinds, in native and in generic mode, on interfaces of its
    own.

    Makes network namespaces, and removes them. Takes root and half a minute.

    \b
    Example:
      xdpgw demo
    """
    from rich.console import Console

    from xdpgw import demo as shown

    raise SystemExit(shown.run(Console(), as_json=as_json))


@cli.group(cls=Group)
def testbed() -> None:
    """Network namespaces with veth pairs, to try policies in."""


name_option = click.option(
    "--name", default="xdpgw", show_default=True, help="Prefix of the namespaces."
)


@testbed.command()
@name_option
@as_json_option
def up(name: str, as_json: bool) -> None:
    """Make a gateway and its peer, joined by two veth pairs, and leave them up.

    \b
    Example:
      xdpgw testbed up
      xdpgw --netns xdpgw-gw run edge.toml
    """
    from xdpgw.testbed import describe as describe_bed
    from xdpgw.testbed import up as make

    made = make(name)
    if as_json:
        print_json(made)
    else:
        click.echo(describe_bed(made))


@testbed.command()
@name_option
@as_json_option
def down(name: str, as_json: bool) -> None:
    """Remove what `testbed up` made."""
    from xdpgw.testbed import down as remove

    removed = remove(name)
    if as_json:
        print_json(removed)
    else:
        click.echo(f"removed {', '.join(removed)}" if removed else "there was nothing to remove")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL.

    \b
    Example:
      xdpgw completion bash > /etc/bash_completion.d/xdpgw
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:  # click knows all that Choice admits
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(cli, {}, "xdpgw", "_XDPGW_COMPLETE").source())


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _size(count: int) -> str:
    return f"{count / 1024:.0f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def _close_stdout() -> None:
    """Keep the interpreter from flushing into it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(args: Iterable[str] | None = None) -> None:
    """Run the command and exit. No user's error ends in a traceback."""
    _require_streams()
    try:
        cli.main(None if args is None else list(args), prog_name="xdpgw", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _close_stdout()
        sys.exit(130)
    except (BrokenPipeError, _ReaderGoneError):
        _close_stdout()
        sys.exit(0)
    except OSError as error:
        if not _is_full(error):
            raise
        _close_stdout()
        note(f"xdpgw: cannot write to standard output: {error.strerror}")
        sys.exit(1)
    except XdpgwError as error:
        note(f"xdpgw: {error}" if error.exit_status != 2 else str(error))
        if error.hint:
            note(f"  {error.hint}")
        sys.exit(error.exit_status)


def _require_streams() -> None:
    """Open what the caller has closed of stdin, stdout and stderr, so that nothing else gets these
    numbers: a map of the filter could be written to as stdout."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
