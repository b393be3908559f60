"""The command `xdpgw generate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from xdpgw.cli_json import as_json_option, print_json

__all__ = ["generate"]


def _rate(text: str) -> tuple[float, bool]:
    """A rate, and whether it counts bits: 100k, 1.5M, 2500 (frames), 1Gbit, 200Mbit/s."""
    found = re.fullmatch(r"([0-9.]+)([kMG]?)(pps|(bit)(/s)?)?", text.strip())
    try:
        value = float(found[1]) if found else 0.0
    except ValueError:
        value = 0.0
    if not found or value <= 0:
        raise click.BadParameter("write 100k or 1.5M (frames a second), or 1Gbit/s")
    return value * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]], bool(found[4])


def _lengths(text: str) -> list[int]:
    """Lengths of frames: 60, 60-1514 (eight steps), or imix."""
    from xdpgw.flows import IMIX

    if text == "imix":
        return [length for length, times in IMIX for _ in range(times)]
    first, _, last = text.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()):
        raise click.BadParameter("write 60, 60-1514 or imix")
    low, high = int(first), int(last or first)
    return sorted({low + (high - low) * step // 7 for step in range(8)})


@click.command()
@click.argument("port")
@click.option("--count", type=click.IntRange(min=1), help="End after so many frames.")
@click.option("--seconds", type=click.FloatRange(min=0.001), help="End after so long.")
@click.option(
    "--rate", help="Frames a second (100k, 1.5M) or bits (1Gbit/s).  [default: all it can]"
)
@click.option("--flows", type=click.IntRange(1, 65_536), default=1, show_default=True)
@click.option(
    "--proto", type=click.Choice(["udp", "tcp", "icmp"]), default="udp", show_default=True
)
@click.option("--src", default="198.18.0.0/15", show_default=True, help="Prefix of the sources.")
@click.option("--dst", default="198.19.255.254", show_default=True, help="Destination address.")
@click.option("--sport", default="49152", show_default=True, help="Source port, or FIRST-LAST.")
@click.option("--dport", type=click.IntRange(0, 65_535), default=9, show_default=True)
@click.option("--eth-src", default="02:00:00:00:00:0a", show_default=True)
@click.option("--eth-dst", default="02:00:00:00:00:0b", show_default=True)
@click.option("--vlan", type=click.IntRange(0, 4094), help="Id of a VLAN tag.")
@click.option(
    "--length", default="60", show_default=True, help="Bytes without FCS: N, FIRST-LAST or imix."
)
@click.option("--pcap", type=click.Path(path_type=Path), help="Frames of a capture instead.")
@click.option("--engine", type=click.Choice(["afxdp", "live"]), default="afxdp", show_default=True)
@click.option("--queue", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--mode", type=click.Choice(["auto", "zerocopy", "copy"]), default="auto", show_default=True
)
@click.option("--into", is_flag=True, help="Up the stack of this host (engine live).")
@as_json_option
def generate(
    port: str,
    count: int | None,
    seconds: float | None,
    rate: str | None,
    flows: int,
    pcap: Path | None,
    length: str,
    sport: str,
    engine: str,
    queue: int,
    mode: str,
    into: bool,
    as_json: bool,
    **template: Any,
) -> None:
    """Send frames out of PORT, counted exactly, until --count, --seconds or Ctrl-C.

    The engine afxdp sends any frames by an AF_XDP socket; live has the kernel make them, several
    times as fast, where they differ in their first 128 bytes only. Flows vary in source ports
    first, then in source addresses. A rate in bits counts what --length counts: no FCS, no gaps.

    \b
    Examples:
      xdpgw generate eth1 --flows 1000 --rate 100k --seconds 10
      xdpgw generate eth1 --length imix --rate 1Gbit/s --seconds 10
      xdpgw generate eth1 --pcap attack.pcap --count 1000000
    """
    from xdpgw import generate as generator
    from xdpgw.render import print_report, sending

    if pcap is not None:
        frames = generator.frames_of_pcap(pcap)
    else:
        first, _, last = sport.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise click.BadParameter("write 49152 or 1024-65535", param_hint="--sport")
        ports = (int(first), int(last or first))
        frames = generator.Template(sport=ports, lengths=_lengths(length), **template).frames(flows)
    pace, bits = _rate(rate) if rate else (0.0, False)
    if bits:
        pace /= 8 * float(frames.lengths.mean())
    with sending(count, quiet=as_json) as progress:
        report = generator.generate(
            port,
            frames,
            count=count or 0,
            rate_pps=pace,
            seconds=seconds or 0.0,
            engine=engine,  # type: ignore[arg-type]
            queue=queue,
            mode=mode,
            into=into,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "port": port,
                "engine": report.engine,
                "frames": report.frames,
                "bytes": report.bytes,
                "seconds": report.seconds,
                "pps": report.pps,
                "bits_per_s": report.bits_per_s,
            }
        )
    else:
        print_report(report)
