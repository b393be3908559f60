"""The traffic generator: exact counts, flows, rates, captures, Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.utils import wrpcap

from tests.net.process import Running, data, until, xdpgw
from xdpgw.errors import FastpathError, UnsupportedError
from xdpgw.generate import Template, generate
from xdpgw.testbed import TestBed

ENGINES = ["afxdp", "live"]


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",), queues=2) as made:
        yield made


def arrived(bed: TestBed) -> int:
    """Frames that the kernel says the cable's far end received."""
    from pyroute2 import IPRoute

    with bed.peer.entered(), IPRoute() as ip:
        (link,) = ip.get_links(bed.peer_ifindex())
        return int(link.get_attr("IFLA_STATS64")["rx_packets"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1, 63, 1000, 100_000])
def test_generate_sends_exactly_as_many_as_asked(bed: TestBed, engine: str, count: int) -> None:
    before = arrived(bed)
    # Paced: a veth's ring of 256 drops what comes faster than the far end takes it.
    report = data_of(bed, "--count", count, "--engine", engine, "--rate", "200k")
    assert report["frames"] == count
    assert report["bytes"] == 60 * count
    until(lambda: arrived(bed) - before == count, f"{count} frames at the far end")


def data_of(bed: TestBed, *args: object) -> dict[str, float]:
    found: dict[str, float] = data(bed, "generate", "left", *args)
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_generate_sends_all_flows_in_turn(bed: TestBed, engine: str) -> None:
    frames = Template(sport=(1000, 1009)).frames(50)
    with bed.wire() as wire, bed.gateway.entered():
        generate("left", frames, count=120, rate_pps=5000, engine=engine)  # type: ignore[arg-type]
        got = wire.receive(120)
    assert len(got) == 120
    if engine == "afxdp":
        assert got == [frames[n % 50] for n in range(120)]
    else:  # a run may move to another CPU, and count anew there
        assert set(got) == set(frames)


@pytest.mark.parametrize("length", [60, 61, 100, 127, 128, 129, 1500])
def test_generate_live_writes_the_whole_frame(bed: TestBed, length: int) -> None:
    frames = Template(lengths=(length,)).frames(3)
    with bed.wire() as wire, bed.gateway.entered():
        generate("left", frames, count=64, engine="live")
        assert set(wire.receive(64)) == set(frames)


def test_generate_into_reaches_the_hosts_own_stack(bed: TestBed) -> None:
    frames = Template().frames(1)
    with bed.host() as host, bed.gateway.entered():
        generate("left", frames, count=100, engine="live", into=True)
        assert host.receive(100) == [frames[0]] * 100


def test_generate_of_several_lengths_by_live_is_a_sentence(bed: TestBed) -> None:
    frames = Template(lengths=(60, 61)).frames(1)
    with bed.gateway.entered(), pytest.raises(UnsupportedError, match="of one length"):
        generate("left", frames, count=1, engine="live")


def test_generate_sends_no_faster_than_the_rate(bed: TestBed) -> None:
    """A bound that no slow machine breaks: of 50,000 a second, at most that many and the first."""
    with bed.gateway.entered():
        report = generate("left", Template().frames(1), seconds=0.5, rate_pps=50_000)
    assert 0 < report.frames <= 50_000 * report.seconds + 1


def test_generate_replays_a_capture_in_order(bed: TestBed, tmp_path: Path) -> None:
    listed = [bytes.fromhex("020000000001 020000000002 88b5") + bytes([n]) * 50 for n in range(9)]
    wrpcap(str(tmp_path / "some.pcap"), listed, linktype=1)
    with bed.wire() as wire:
        report = data_of(bed, "--pcap", tmp_path / "some.pcap", "--count", 18)
        assert report["frames"] == 18
        assert wire.receive(18) == listed * 2


@pytest.mark.parametrize("engine", ENGINES)
def test_generate_interrupted_tells_what_it_sent(bed: TestBed, tmp_path: Path, engine: str) -> None:
    before = arrived(bed)
    run = Running(bed, tmp_path, "generate", "left", "--rate", "2k", "--engine", engine, "--json")
    until(lambda: arrived(bed) - before > 10, "some frames")
    assert run.end(signal.SIGINT) == 0
    import json

    report = json.loads(run.out.read_text())
    until(lambda: arrived(bed) - before == report["frames"], "as many as it says")
    assert "Traceback" not in run.err.read_text()


@pytest.mark.parametrize(
    ("args", "status", "what"),
    [
        (["nowhere", "--count", "1"], 4, "no port nowhere"),
        (["left", "--count", "1", "--queue", "9"], 4, "no queue 9"),
        (["left", "--count", "1", "--length", "9000"], 4, "9000 bytes cannot be sent"),
        (["left", "--count", "1", "--length", "20"], 1, "too short"),
        (["left", "--count", "1", "--rate", "fast"], 2, "100k or 1.5M"),
        (["left", "--count", "1", "--pcap", "none.pcap"], 1, "none.pcap"),
        (["left", "--count", "1", "--into"], 1, "engine live only"),
        (["left", "--count", "1", "--mode", "zerocopy"], 4, "no zero-copy"),
    ],
)
def test_generate_with_wrong_arguments_is_a_sentence(
    bed: TestBed, args: list[str], status: int, what: str
) -> None:
    done = xdpgw(bed, "generate", *args)
    assert done.returncode == status, done.stderr
    assert what in done.stderr
    assert "Traceback" not in done.stderr


def test_generate_on_a_port_that_is_down_is_a_sentence() -> None:
    from pyroute2 import IPRoute

    with TestBed(("left",)) as own, own.gateway.entered():
        with IPRoute() as ip:
            ip.link("set", index=own.ifindex(), state="down")
        with pytest.raises(FastpathError, match="port left is down"):
            generate("left", Template().frames(1), count=1)
