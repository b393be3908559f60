"""Make the pictures of docs/top.md: a real filter under traffic, on interfaces of its own.

    python docs/pictures/top.py

Takes root and half a minute, and writes top-*.svg beside itself. The fonts are those of who looks.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from textual.pilot import Pilot

from xdpgw.cli_top import block_source
from xdpgw.generate import generate
from xdpgw.pins import Instance
from xdpgw.snapshot import Reader
from xdpgw.state import ENVIRONMENT
from xdpgw.testbed import TestBed, mac
from xdpgw.top_app import Top
from xdpgw.top_dialogs import Request

HERE = Path(__file__).parent
SECONDS = 14
"""Of history in the pictures."""

POLICY = """
[policy]
default = "drop"
rules = \"\"\"
dns     limit 40/s burst 60 per source   udp to port 53
names   pass                             udp to port 53
web     pass                             tcp to port {80, 443}
bad     drop                             from 203.0.113.0/24       log 20/s
mirror  af_xdp tap else drop             udp to port 4789
\"\"\"
[ports.left]
[ports.right]
[af_xdp.tap]
handler = "count"
[log]
sources = "new"
sinks = [{ jsonl = "sources.jsonl" }]
"""


@cache
def frames() -> list[bytes]:
    """A mix of packets, of which some sources send more than others."""
    ether = Ether(src=mac("left", peer=True), dst=mac("left"))
    packets = []
    for n in range(48):
        packets.append(IP(src=f"192.0.2.{10 + n % 12}") / UDP(dport=53) / bytes(30))
        packets.append(IP(src=f"198.51.100.{n % 7}") / TCP(dport=443, flags="A") / bytes(900))
        packets += [IP(src=f"203.0.113.{n % 5 + 66}") / UDP(dport=9)] * (n % 3)
        packets += [IP(src="10.20.0.7") / UDP(dport=4789) / bytes(60)] * (n % 2)
        packets += [IPv6(src=f"2001:db8:7::{n % 4 + 1:x}") / TCP(dport=80, flags="S")] * (n % 2)
    return [bytes(ether / packet) for packet in packets]


@contextmanager
def sending(bed: TestBed) -> Iterator[None]:
    """Traffic at a rate that goes up and down, in the background."""
    stop = threading.Event()

    def send() -> None:
        with bed.peer.entered():
            for rate in itertools.cycle((4000, 6000, 9000, 12_000, 8000, 5000)):
                if stop.is_set():
                    return
                generate("left-peer", frames(), count=rate // 2, rate_pps=rate)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def picture(app: Top, name: str) -> None:
    """Write the screen; without the address of a font, which would be fetched."""
    svg = app.export_screenshot(title="xdpgw top")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S).replace("Fira Code", "monospace")
    (HERE / f"top-{name}.svg").write_text(svg)


async def show(pilot: Pilot[None]) -> None:
    app = pilot.app
    assert isinstance(app, Top)
    await pilot.pause(SECONDS)
    picture(app, "80x24")
    await pilot.press("down", "b")
    await pilot.pause(0.5)
    picture(app, "block")
    await pilot.press("escape")
    await pilot.resize_terminal(160, 44)
    await pilot.pause(2.5)
    picture(app, "160x44")


async def run(app: Top) -> None:
    app.animation_level = "none"
    async with app.run_test(size=(80, 24)) as pilot:
        await show(pilot)


def main() -> None:
    os.environ["COLORTERM"] = "truecolor"
    with tempfile.TemporaryDirectory() as folder, TestBed(("left", "right")) as bed:
        os.environ[ENVIRONMENT] = folder
        path = Path(folder) / "edge.toml"
        path.write_text(POLICY)
        command = [sys.executable, "-m", "xdpgw", "--netns", bed.gateway.path]
        serving = subprocess.Popen([*command, "run", path])
        try:
            with bed.gateway.entered():
                instance = Instance()
                while not instance.in_charge or not instance.exists:
                    time.sleep(0.1)
                reader = Reader(instance, sources=True)
                block_source(instance, Request("203.0.113.66", "1d", "a scanner"))
                app = Top(reader.read, partial(block_source, instance))
                with sending(bed):
                    asyncio.run(run(app))
        finally:
            serving.terminate()
            serving.wait()
            subprocess.run([*command, "detach"], check=True)


if __name__ == "__main__":
    main()
