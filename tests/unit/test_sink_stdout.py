"""The sink stdout: what its lines look like, and who reads them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from xdpgw import sinks
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.sinks import SinkError, SinkGoneError, stdout
from xdpgw.sinks.stdout import StdoutSink

from .batches import UDP, batch, numbered


class Pipe:
    """A pipe whose far end reads when it is told to."""

    def __init__(self) -> None:
        self.far, self.near = os.pipe()
        os.set_blocking(self.far, False)

    def read(self) -> bytes:
        """All that is in it."""
        data = b""
        while True:
            try:
                part = os.read(self.far, 65536)
            except BlockingIOError:
                return data
            if not part:
                return data
            data += part

    def close(self) -> None:
        os.close(self.near)
        if self.far >= 0:
            os.close(self.far)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def line_of(**changes: Any) -> str:
    made = Pipe()
    StdoutSink(fd=made.near).write(batch(changes))
    line = made.read().decode().removesuffix("\n")
    made.close()
    return line


def clock() -> str:
    return time.strftime("%H:%M:%S", time.localtime(1_700_000_000)) + ".123456"


def test_stdout_line_reads_as_documented() -> None:
    wanted = "eth0 drop  rule bad        192.0.2.7:53 > 198.51.100.1:4242 udp 74"
    assert line_of() == f"{clock()} {wanted}"


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"vlan": 7}, "vlan 7 192.0.2.7:53 > 198.51.100.1:4242 udp 74"),
        (
            {"family": 6, "src": "2001:db8::7", "dst": "2001:db8::1"},
            "[2001:db8::7]:53 > [2001:db8::1]:4242 udp 74",
        ),
        (
            {"proto": 6, "tcp_flags": 0x12, "has": UDP["has"] | Has.TCP_FLAGS},
            "192.0.2.7:53 > 198.51.100.1:4242 tcp syn,ack 74",
        ),
        (
            {"proto": 6, "tcp_flags": 0, "has": UDP["has"] | Has.TCP_FLAGS},
            "192.0.2.7:53 > 198.51.100.1:4242 tcp no flags 74",
        ),
        (
            {"proto": 1, "icmp_type": 3, "icmp_code": 13, "has": Has.PROTO | Has.ICMP},
            "192.0.2.7 > 198.51.100.1 icmp type 3 code 13 74",
        ),
        (
            {"frag": Frag.LATER, "has": Has.PROTO},
            "192.0.2.7 > 198.51.100.1 udp frag later 74",
        ),
        ({"proto": 200, "has": Has.PROTO}, "192.0.2.7 > 198.51.100.1 proto 200 74"),
        (
            {"family": 0, "ethertype": 0x0806, "has": Has.ETHERTYPE, "frag": Frag.NOT_IP},
            "rule bad        ether 0x0806 74",
        ),
        ({"family": 0, "has": 0, "frag": Frag.NOT_IP}, "rule bad        74"),
    ],
)
def test_stdout_line_shows_what_the_packet_has(changes: dict[str, Any], end: str) -> None:
    assert line_of(**changes).endswith(f" {end}")


def test_stdout_line_without_names_shows_slots() -> None:
    assert " port#9 pass  limit #5        192" in line_of(
        port=9, rule=5, verdict=Verdict.PASS, reason=Reason.LIMIT
    )


def test_stdout_line_without_a_rule_shows_the_reason() -> None:
    assert " drop  malformed       192" in line_of(rule=0xFFFF, reason=Reason.MALFORMED)


def test_stdout_style_sourceip_shows_just_addresses(pipe: Pipe) -> None:
    sink = StdoutSink("sourceip", pipe.near)
    sink.write(batch({}, {"family": 0}, {"family": 6, "src": "2001:db8::7"}))
    sink.write(batch({"family": 0}))
    assert pipe.read() == b"192.0.2.7\n2001:db8::7\n"


def test_stdout_unknown_style_is_refused() -> None:
    with pytest.raises(XdpgwError, match="no such style"):
        sinks.make(SinkSettings("stdout", options={"style": "haiku"}))


def test_stdout_into_a_closed_pipe_is_gone(pipe: Pipe) -> None:
    os.close(pipe.far)
    pipe.far = -1
    with pytest.raises(SinkGoneError, match="the reader of standard output has gone"):
        StdoutSink(fd=pipe.near).write(numbered(1))


def test_stdout_on_a_full_disk_keeps_what_it_could_not_write() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(SinkError, match="standard output: No space left on device") as error:
        StdoutSink(fd=full).write(numbered(1, 2))
    os.close(full)
    assert (error.value.lost, error.value.left) == (0, 2)


@pytest.mark.parametrize("style", ["line", "sourceip"])
@pytest.mark.parametrize("blocking", [True, False])
def test_stdout_whose_reader_rests_goes_on_where_it_was(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, style: str, blocking: bool
) -> None:
    monkeypatch.setattr(stdout, "PATIENCE_S", 0.01)
    os.set_blocking(pipe.near, blocking)
    events = [{"src": f"10.0.{n >> 8}.{n & 255}"} if n % 3 else {"family": 0} for n in range(9000)]
    given, sink, read = batch(*events), StdoutSink(style, pipe.near), b""
    rests = 0
    while given is not None:
        try:
            sink.write(given)
        except SinkError as error:
            assert str(error) == "standard output: its reader does not read"
            rests += 1
            read += pipe.read()
            given = given.last(error.left)
        else:
            break
    read += pipe.read()
    assert rests > 0
    monkeypatch.undo()
    told = [x["src"] for x in events if "src" in x]
    found = read.decode().splitlines()
    if style == "line":
        assert len(found) == len(events)
        found = [line.split()[5].partition(":")[0] for line in found if " > " in line]
    assert found == told


def test_stdout_that_is_stuck_does_not_keep_the_process_from_ending() -> None:
    """A thread in the lock of Python's own buffer would abort it."""
    code = (
        "import sys\n"
        "from tests.unit.batches import batch\n"
        "from xdpgw.config import SinkSettings\n"
        "from xdpgw.events import Pump\n"
        "pump = Pump.of([SinkSettings('stdout')], on_error=lambda text: None)\n"
        "for _ in range(50):\n"
        "    pump.put(batch(*[{}] * 100))\n"
        "print('put', file=sys.stderr, flush=True)\n"
        "sys.stdin.read()\n"
        "pump.close(0.1)\n"
        "(books,) = pump.stats\n"
        "print(books.written + books.lost, books.queued, file=sys.stderr)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    assert process.stderr.readline() == "put\n"
    process.stdin.close()
    said = process.stderr.read()
    assert (process.wait(), said) == (0, "5000 0\n")
    process.stdout.close()
    process.stderr.close()
