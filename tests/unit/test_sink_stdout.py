"""The sink stdout: what its lines look like, and who reads them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xdpgw import sinks
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.sinks import SinkError, stdout
from xdpgw.sinks.stdout import StdoutSink

from .batches import UDP, batch, numbered


def line_of(**changes: Any) -> str:
    stream = io.BytesIO()
    StdoutSink(stream=stream).write(batch(changes))
    return stream.getvalue().decode().removesuffix("\n")


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


def test_stdout_style_sourceip_shows_just_addresses() -> None:
    stream = io.BytesIO()
    sink = StdoutSink("sourceip", stream)
    sink.write(batch({}, {"family": 0}, {"family": 6, "src": "2001:db8::7"}))
    sink.write(batch({"family": 0}))
    assert stream.getvalue() == b"192.0.2.7\n2001:db8::7\n"


def test_stdout_unknown_style_is_refused() -> None:
    with pytest.raises(XdpgwError, match="no such style"):
        sinks.make(SinkSettings("stdout", options={"style": "haiku"}))


def test_stdout_into_a_closed_pipe_is_gone_and_leaves_no_complaint() -> None:
    code = (
        "import sys\n"
        "from tests.unit.batches import batch\n"
        "from xdpgw.sinks import SinkGoneError\n"
        "from xdpgw.sinks.stdout import StdoutSink\n"
        "sink = StdoutSink()\n"
        "sys.stdin.read()\n"
        "try:\n"
        "    sink.write(batch({}))\n"
        "    sink.flush()\n"
        "except SinkGoneError:\n"
        "    print('gone', file=sys.stderr)\n"
        "print('nobody reads this')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.close()
    complaints = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), complaints) == (0, "gone\n")


def test_stdout_other_errors_are_not_taken_for_a_closed_pipe() -> None:
    class Full(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as error:
        StdoutSink(stream=Full()).write(batch({}))  # type: ignore[arg-type]
    assert not isinstance(error.value, SinkGoneError)
