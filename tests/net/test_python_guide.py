"""The programs of docs/python-guide.md do what the guide says, as they stand there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import frames as f
from tests.fastpath.toolchain import ROOT
from tests.net.process import running, until
from xdpgw.kernel import holder_of
from xdpgw.testbed import TestBed

GUIDE = (ROOT / "docs/python-guide.md").read_text()
PROGRAMS = {
    name: code for code, name in re.findall(r"```python\n(# (\S+\.py)\n.*?)```", GUIDE, re.DOTALL)
}
LEFT, RIGHT = "02:00:00:00:0a:01", "02:00:00:00:0b:01"
QUEUES = 2


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left", "right")) as made:
        yield made


@pytest.fixture(scope="module")
def wide() -> Iterator[TestBed]:
    with TestBed(("left", "right"), queues=QUEUES) as made:
        yield made


def frame(n: int, src: str = LEFT, dst: str = RIGHT) -> bytes:
    packet = f.ipv4(f.udp(bytes([n] * 18), sport=1000, dport=9), src="192.0.2.7")
    return f.eth(packet, src=src, dst=dst)


class Program:
    """One program of the guide, as a process in the gateway's namespace."""

    def __init__(self, bed: TestBed, folder: Path, name: str) -> None:
        self.bed = bed
        (folder / name).write_text(PROGRAMS[name])
        self.out = folder / "out.txt"
        with bed.gateway.entered(), self.out.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(folder / name)],
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )

    def up(self, sockets: int) -> None:
        """Wait until it has so many sockets, and its program is on."""

        def ready() -> bool:
            assert self.process.poll() is None, self.process.communicate()[1]
            return xsk_sockets(self.bed) == sockets and attached(self.bed, "left")

        until(ready, "up")

    def printed(self, lines: int) -> list[str]:
        until(lambda: self.out.read_text().count("\n") >= lines, f"{lines} lines")
        return self.out.read_text().splitlines()

    def interrupt(self) -> None:
        """Ctrl-C ends it, by nothing else, and leaves nothing."""
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=20)[1]
        assert self.process.returncode == -signal.SIGINT, said
        assert said.splitlines()[-1] == "KeyboardInterrupt"
        assert "Warning" not in said

    def end(self) -> str:
        """It ends by itself."""
        said = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == 0, said
        assert said == ""
        return self.out.read_text()


def xsk_sockets(bed: TestBed) -> int:
    with bed.gateway.entered():
        text = Path("/proc/thread-self/net/protocols").read_text()
    return int(next(x.split() for x in text.splitlines() if x.startswith("XDP"))[2])


def attached(bed: TestBed, port: str) -> bool:
    with bed.gateway.entered():
        return holder_of(bed.ifindex(port)) is not None


Start = Callable[[str], Program]


@contextmanager
def starting(bed: TestBed, folder: Path) -> Iterator[Start]:
    """Starts programs of the guide; afterwards neither process, socket nor program is there."""
    started: list[Program] = []

    def begin(name: str) -> Program:
        started.append(Program(bed, folder, name))
        return started[-1]

    yield begin
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
            program.process.communicate()
    until(lambda: xsk_sockets(bed) == 0, "no socket")
    assert not attached(bed, "right")


@pytest.fixture
def start(bed: TestBed, tmp_path: Path) -> Iterator[Start]:
    with starting(bed, tmp_path) as begin:
        yield begin
    assert not attached(bed, "left")


@pytest.fixture
def start_wide(wide: TestBed, tmp_path: Path) -> Iterator[Start]:
    with starting(wide, tmp_path) as begin:
        yield begin


def test_sniffer_prints_a_line_a_frame(bed: TestBed, start: Start) -> None:
    sniffer = start("sniffer.py")
    sniffer.up(1)
    with bed.wire() as wire:
        wire.send([frame(1), frame(2)])
    assert sniffer.printed(2) == [
        "020000000a01 > 020000000b01, type 0800, 60 bytes",
        "020000000a01 > 020000000b01, type 0800, 60 bytes",
    ]
    sniffer.interrupt()


def test_top_adds_up_bytes_by_source(bed: TestBed, start: Start) -> None:
    top = start("top.py")
    top.up(1)
    with bed.wire() as wire:
        wire.send([frame(n) for n in range(50)] + [f.eth(ethertype=0x88B5, pad=60)])
    assert top.end() == "192.0.2.7              3,000 bytes\n"


def test_reflect_sends_frames_back_to_their_sender(bed: TestBed, start: Start) -> None:
    reflect = start("reflect.py")
    reflect.up(1)
    with bed.wire() as wire:
        wire.send([frame(n) for n in range(50)])
        assert wire.receive(50) == [frame(n, src=RIGHT, dst=LEFT) for n in range(50)]
    reflect.interrupt()


def test_send_sends_what_scapy_built(bed: TestBed, start: Start) -> None:
    with bed.wire() as wire:
        send = start("send.py")
        got = wire.receive(100, timeout_s=30)
        assert send.end() == "100 frames, 0 left in the ring\n"
    assert len(got) == 100
    assert all(x.endswith(b"hello") and x[:6].hex() == "020000000001" for x in got)


@pytest.mark.parametrize("name", ["bridge.py", "aio.py", "switch.py"])
def test_frames_cross_both_ways(bed: TestBed, start: Start, name: str) -> None:
    there = [frame(n) for n in range(50)]
    back = [frame(n, src=RIGHT, dst=LEFT) for n in range(50)]
    bridge = start(name)
    bridge.up(2)
    with bed.wire("left") as left, bed.wire("right") as right:
        left.send(there)
        assert right.receive(50) == there
        right.send(back)
        assert left.receive(50) == back
        left.send(there)
        assert right.receive(50) == there
        assert left.waiting() == right.waiting() == []
    bridge.interrupt()


def test_switch_keeps_frames_on_their_side(bed: TestBed, start: Start) -> None:
    switch = start("switch.py")
    switch.up(2)
    with bed.wire("left") as left, bed.wire("right") as right:
        left.send([frame(1)])
        assert right.receive(1) == [frame(1)]
        left.send([frame(2, src=RIGHT, dst=LEFT), frame(3)])  # RIGHT has moved to the left
        left.send([frame(4, src="02:00:00:00:0c:01", dst="02:00:00:00:0d:01")])
        got = right.receive(1)
        assert got == [frame(4, src="02:00:00:00:0c:01", dst="02:00:00:00:0d:01")]
        assert left.waiting() == right.waiting() == []
    switch.interrupt()


def test_queues_all_receive(wide: TestBed, start_wide: Start) -> None:
    flows = [f.eth(f.ipv4(f.udp(bytes(18), sport=n, dport=9))) for n in range(200)]
    queues = start_wide("queues.py")
    queues.up(QUEUES)
    with wide.wire() as wire:
        wire.send(flows)

    def counted() -> list[int]:
        told = re.findall(r"queue (\d): (\d+) frames\n", queues.out.read_text())
        return [sum(int(n) for queue, n in told if int(queue) == at) for at in range(QUEUES)]

    until(lambda: sum(counted()) == 200, "all frames told")
    assert all(counted())
    queues.interrupt()


POLICY = """
[policy]
rules = \"\"\"
mine  af_xdp some else drop  udp to port 9
\"\"\"
[ports.left]
queues = [1]
[af_xdp.some]
handler = "count"
[log]
sources = "off"
"""


def test_target_serves_the_queue_that_the_gateway_leaves(
    wide: TestBed, start_wide: Start, tmp_path: Path
) -> None:
    """queues = [1] leaves queue 0 to others."""
    (tmp_path / "edge.toml").write_text(POLICY)
    with running(wide, tmp_path, "run", tmp_path / "edge.toml") as run:
        run.said("left: ")
        target = start_wide("target.py")
        target.up(2)
        with wide.wire() as wire:
            wire.send([f.eth(f.ipv4(f.udp(bytes(18), sport=n, dport=9))) for n in range(100)])
        assert "frames that a rule chose" in target.printed(1)[0]
        target.interrupt()
        run.end()


def test_every_program_of_the_guide_is_run() -> None:
    used = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))
    assert set(PROGRAMS) == used
    assert GUIDE.count("```python") == len(PROGRAMS)
