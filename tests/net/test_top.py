"""`xdpgw top` over real filters: printed, driven by keys, and in a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests import frames as f
from tests.net.live import Live, live
from tests.net.process import Running, data, running, until, xdpgw
from tests.screens import driven, seen, text_of
from xdpgw import config, gateway
from xdpgw.cli_top import block_source
from xdpgw.pins import Instance
from xdpgw.snapshot import Reader
from xdpgw.testbed import TestBed
from xdpgw.top_app import Top

POLICY = """
[policy]
allow = ["192.0.2.9"]
rules = \"\"\"
nine   drop  udp to port 9
\"\"\"
[ports.left]
mode = "auto"
[log]
sources = "off"
"""
SOURCES = ("192.0.2.7", "192.0.2.8", "192.0.2.9")


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


def frames(source: str = SOURCES[0], dport: int = 9, count: int = 1) -> list[bytes]:
    return [f.eth(f.ipv4(f.udp(b"x", dport=dport), src=source), pad=60)] * count


@contextmanager
def traffic(bed: TestBed, *each: bytes) -> Iterator[None]:
    """Frames again and again, in the background."""
    stop = threading.Event()

    def send() -> None:
        with bed.wire() as wire:
            while not stop.wait(0.002):
                wire.send(each)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


# Printed


def test_once_prints_what_happens_in_an_interval(bed: TestBed) -> None:
    with live(POLICY, bed), traffic(bed, *frames(), *frames(SOURCES[1], 10)):
        text = xdpgw(bed, "top", "--once", "--interval", "500ms").stdout
        rows = {tuple(line.split()[:2]): line.split() for line in text.splitlines() if line}
        assert float(rows["192.0.2.7", rows_of(text, "192.0.2.7")[1]][1].rstrip("k")) > 0
        assert rows_of(text, "nine")[1] == "drop"
        assert rows_of(text, "drop")[1] == "rule"
        shown = data(bed, "top", "--once", "--interval", "500ms")
        assert 0.4 < shown["seconds"] < 30
        sent = {x["source"]: x for x in shown["sources"]}
        assert set(sent) == set(SOURCES[:2])
        assert sent["192.0.2.7"]["packets_per_s"] > 10
        assert (sent["192.0.2.7"]["verdict"], sent["192.0.2.8"]["verdict"]) == ("drop", "pass")
        nine = next(x for x in shown["rules"] if x["rule"] == "nine")
        received = next(x for x in shown["ports"] if x["verdict"] == "received")
        assert 0 < nine["packets_per_s"] < received["packets_per_s"]


def rows_of(text: str, first: str) -> list[str]:
    """The words of the first line that begins so."""
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [first])


def test_json_goes_on_until_ctrl_c(bed: TestBed, tmp_path: Path) -> None:
    with live(POLICY, bed):
        run = Running(bed, tmp_path, "top", "--json", "--interval", "100ms")
        lines = run.printed(3)
        assert run.end(signal.SIGINT) == 130
        assert [json.loads(line)["in_charge"] for line in lines[:3]] == [False] * 3
        assert "Traceback" not in run.err.read_text()


def test_json_of_a_filter_that_is_detached_meanwhile_ends_with_a_sentence(
    bed: TestBed, tmp_path: Path
) -> None:
    with live(POLICY, bed):
        run = Running(bed, tmp_path, "top", "--json", "--interval", "100ms")
        run.printed(1)
        xdpgw(bed, "detach")
        run.said("the filter was detached meanwhile")
        assert run.process.wait(30) == 1
        assert "Traceback" not in run.err.read_text()


def test_top_without_a_filter_or_a_terminal_is_a_sentence(bed: TestBed) -> None:
    done = xdpgw(bed, "top", "--once")
    assert (done.returncode, "no filter is in force" in done.stderr) == (1, True)
    with live(POLICY, bed):
        done = xdpgw(bed, "top")
        assert (done.returncode, "this is no terminal" in done.stderr) == (2, True)
        done = xdpgw(bed, "top", "--once", "--interval", "10")
        assert (done.returncode, "write a number and" in done.stderr) == (2, True)


def test_top_without_textual_says_how_to_get_it(bed: TestBed) -> None:
    code = "import sys; sys.modules['textual'] = None; from xdpgw.cli import main; main()"
    with live(POLICY, bed):
        command = [sys.executable, "-c", code, "--netns", bed.gateway.path, "top"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert "pip install 'xdpgw[tui]'" in done.stderr
        done = subprocess.run(
            [*command, "--once"], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, "top rules" in done.stdout) == (0, True)


# Driven


@contextmanager
def in_force(bed: TestBed) -> Iterator[Live]:
    """A filter that may come to an end before the test does, so that its books need not add up."""
    with bed.gateway.entered():
        instance = Instance()
        manifest = gateway.apply(config.loads(POLICY), instance).manifest
    try:
        yield Live(bed, instance, manifest)
    finally:
        with bed.gateway.entered():
            gateway.detach(instance)


def drive(
    gate: Live,
    keys: Callable[[Pilot[Any]], Coroutine[Any, Any, None]],
    size: tuple[int, int] = (80, 24),
) -> None:
    """Run the application beside a filter."""
    with gate.bed.gateway.entered():
        reader = Reader(gate.instance, sources=True)
        driven(Top(reader.read, partial(block_source, gate.instance), 0.1), keys, size)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_screen_shows_what_is_sent(bed: TestBed, size: tuple[int, int]) -> None:
    async def keys(pilot: Pilot[Any]) -> None:
        text = await seen(pilot, "192.0.2.7")
        assert re.search(r"left +(native|generic) +received ", text)
        assert len(text.splitlines()) == size[1]
        await pilot.press("3")
        await seen(pilot, "nine  drop")
        await pilot.press("4")
        await seen(pilot, "drop     rule")
        await pilot.press("5")
        await seen(pilot, "the policy has no AF_XDP target")
        await pilot.press("6")
        await seen(pilot, "ring: bytes that nobody drained yet")

    with live(POLICY, bed) as gate, traffic(bed, *frames()):
        drive(gate, keys, size)


def test_block_from_the_screen_drops_the_source_from_then_on(bed: TestBed) -> None:
    async def keys(pilot: Pilot[Any]) -> None:
        await seen(pilot, "192.0.2.8")
        await pilot.press("slash", *"192.0.2.8", "enter", "b")
        await seen(pilot, "block: drop all packets from")
        await pilot.press("enter", "enter")
        await seen(pilot, "192.0.2.8: blocked for 10m")
        await seen(pilot, "1 blocked")
        await seen(pilot, "drop  bl")  # the next packet of the source is told as dropped

    with live(POLICY, bed) as gate, traffic(bed, *frames(), *frames(SOURCES[1], 10)):
        drive(gate, keys)
        (blocked,) = data(bed, "blocks")
        assert blocked["source"] == "192.0.2.8"
        assert 500 < blocked["left_s"] <= 600
        assert re.fullmatch(r"top: \d+ packets/s", blocked["reason"])
        xdpgw(bed, "unblock", "--all")


def test_block_of_a_source_that_the_policy_allows_is_told_not_to_be(bed: TestBed) -> None:
    async def keys(pilot: Pilot[Any]) -> None:
        await seen(pilot, "192.0.2.9")
        await pilot.press("b", "enter", "enter")
        await seen(pilot, "the policy allows it, so it cannot be blocked")
        await pilot.press("shift+tab", "shift+tab", "end", *("backspace",) * 9, *"soon")
        await pilot.press("enter", "enter")
        await seen(pilot, '"soon" is not a time')
        assert "drop all packets from" in text_of(pilot.app)

    with live(POLICY, bed) as gate, traffic(bed, *frames(SOURCES[2])):
        drive(gate, keys)
        assert data(bed, "blocks") == []


def test_reload_detach_and_return_are_followed(bed: TestBed) -> None:
    async def keys(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        await seen(pilot, "nine")
        # In a thread: pyroute2 does not work beside a running loop.
        await asyncio.to_thread(gate.apply, POLICY.replace("nine ", "neun "))
        await seen(pilot, "neun")
        gateway.detach(gate.instance)
        await seen(pilot, "no filter is in force; looking on")
        await asyncio.to_thread(gate.apply, POLICY.replace("nine ", "zehn "))
        text = await seen(pilot, "zehn")
        assert "looking on" not in text

    with in_force(bed) as gate, traffic(bed, *frames()):
        drive(gate, keys)


def test_port_that_goes_is_told() -> None:
    async def keys(pilot: Pilot[Any]) -> None:
        await seen(pilot, "left")
        with bed.gateway.entered():
            subprocess.run(["ip", "link", "del", "left"], check=True)
        await seen(pilot, "gone: left")

    with TestBed(("left",)) as bed, in_force(bed) as gate:
        drive(gate, keys)


# In a real terminal


@contextmanager
def terminal(bed: TestBed, folder: Path, **environment: str) -> Iterator[Callable[..., str]]:
    """`xdpgw top` in a tmux of 80 x 24; what gives the output of a command of tmux."""

    def tmux(*words: str) -> str:
        command = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    words = [sys.executable, "-m", "xdpgw", "--netns", bed.gateway.path, "top"]
    env = [f"{name}={value}" for name, value in environment.items()]
    path = f"PYTHONPATH={os.getcwd()}"
    command = f"env {' '.join(env)} {path} {' '.join(words)}; echo status $?; cat"
    tmux("new-session", "-d", "-x", "80", "-y", "24", command)
    try:
        yield tmux
    finally:
        tmux("kill-server")


@pytest.mark.parametrize(
    "environment",
    [{}, {"TERM": "xterm", "COLORTERM": ""}, {"NO_COLOR": "1"}],
    ids=["as it is", "16 colours", "no colours"],
)
def test_top_in_a_terminal(bed: TestBed, tmp_path: Path, environment: dict[str, str]) -> None:
    with live(POLICY, bed), traffic(bed, *frames()), terminal(bed, tmp_path, **environment) as tmux:

        def shows(text: str, *more: str) -> str:
            until(lambda: text in tmux("capture-pane", "-p"), text)
            return tmux("capture-pane", "-p", *more)

        screen = shows("192.0.2.7").splitlines()
        assert len(screen) == 24
        assert screen[-1].startswith("tab view")
        if "NO_COLOR" in environment:
            assert not re.search(r"\x1b\[[\d;]*\b(3[0-7]|4[0-7]|[34]8|9\d|10\d)[;m]",
                                 tmux("capture-pane", "-p", "-e"))  # fmt: skip
        tmux("send-keys", "?")
        shows("keys of xdpgw top")
        tmux("send-keys", "Escape")
        until(lambda: "keys of" not in tmux("capture-pane", "-p"), "help is closed")
        tmux("resize-window", "-x", "160", "-y", "40")
        shows("verdicts and reasons")
        tmux("send-keys", "q")
        shows("status 0")


def test_top_beside_a_running_filter_with_sockets_and_sinks(bed: TestBed, tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(
        POLICY.replace('sources = "off"', 'sources = "every"\nsinks = [{ jsonl = "x.jsonl" }]')
        .replace("nine   drop", "tap    af_xdp tap else drop")
        .replace("[log]", '[af_xdp.tap]\nhandler = "count"\n[log]')
    )
    with running(bed, tmp_path, "run", path) as run, traffic(bed, *frames()):
        run.said("left: attached")
        shown = until(
            lambda: next(
                (
                    x
                    for x in [data(bed, "top", "--once", "--interval", "1s")]
                    if x["rings"] and x["rings"][0]["rx_per_s"] and x["log"][-3]["events_per_s"]
                ),
                None,
            ),
            "rates of the socket and of the sink",
        )
        assert (shown["rings"][0]["target"], shown["rings"][0]["port"]) == ("tap", "left")
        assert shown["log"][-3]["what"].endswith("x.jsonl: written")
        assert shown["in_charge"] is True
