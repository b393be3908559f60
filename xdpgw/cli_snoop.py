"""The commands `xdpgw snoop ...`."""

from __future__ import annotations

from pathlib import Path

import click

from xdpgw.cli_json import as_json_option, note
from xdpgw.errors import XdpgwError

__all__ = ["snoop"]


@click.group()
def snoop() -> None:
    """Watch system calls of the processes of this machine.

    \b
    Example:
      xdpgw snoop openat --comm nginx
    """


@snoop.command()
@click.option("--comm", metavar="NAME", help="Only threads of this name (its first 15 bytes).")
@click.option("--pid", type=click.IntRange(min=1), help="Only this process.")
@click.option("--own", is_flag=True, help="Also the calls of this command itself.")
@click.option(
    "--btf",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="This kernel's BTF, where it does not tell it.  [default: /sys/kernel/btf/vmlinux]",
)
@click.option("-v", "--verbose", is_flag=True, help="Say how the program was relocated.")
@as_json_option
def openat(
    comm: str | None,
    pid: int | None,
    own: bool,
    btf: Path | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Print each call of openat and openat2 when it returns, until Ctrl-C: time, process, name of
    the thread, file descriptor or error, flags, and the file asked for.

    What could not be printed is counted and told at the end. Mounts tracefs where it is missing.

    \b
    Example:
      xdpgw snoop openat --comm nginx
      xdpgw snoop openat --json | jq -r 'select(.errno == 2).path'
    """
    from xdpgw.snoop import Wanted, watch

    if comm == "":
        raise click.UsageError("--comm wants a name")
    if pid is not None and not Path(f"/proc/{pid}").exists():
        raise XdpgwError(f"there is no process {pid}", "pgrep -a NAME finds one by its name")
    watch(Wanted(comm, pid, own), as_json=as_json, verbose=verbose, kernel_btf=btf, note=note)
