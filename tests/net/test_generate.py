"""The traffic generator: exact counts, flows, rates, captures, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
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


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1, 63, 1000, 100_000])
def test_generate_sends_exactly_as_many_as_asked(bed: TestBed, engine: str, count: int) -> None:
    before = bed.peer_received()
    # Paced: a veth's ring of 256 drops what comes faster than the far end takes it.
    report = data_of(bed, "--count", count, "--engine", engine, "--rate", "200k")
    assert report["frames"] == count
    assert report["bytes"] == 60 * count
    until(lambda: bed.peer_received() - before == count, f"{count} frames at the far end")


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
    else:  # a run may move to another CPU, and so to another queue of the cable
        assert Counter(got) == Counter(frames[n % 50] for n in range(120))


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


def test_generate_live_cuts_frames_to_several_lengths(bed: TestBed) -> None:
    """Longer, shorter and longer again: the memory of each is another's before."""
    frames = Template(lengths=(60, 1514, 61, 590, 127, 129)).frames(12)
    with bed.wire() as wire, bed.gateway.entered():
        report = generate("left", frames, count=100, engine="live")
        wanted = [frames[n % 12] for n in range(100)]
        assert Counter(wire.receive(100)) == Counter(wanted)
    assert (report.frames, report.bytes) == (100, sum(map(len, wanted)))


def test_generate_live_of_frames_that_differ_behind_their_heads_is_a_sentence(
    bed: TestBed,
) -> None:
    frames = [bytes(200), bytes(199) + b"x"]
    with bed.gateway.entered(), pytest.raises(UnsupportedError, match="first 128 bytes only"):
        generate("left", frames, count=1, engine="live")


def test_generate_live_of_frames_longer_than_a_page_takes_is_a_sentence() -> None:
    frames = Template(lengths=(3800,)).frames()
    with (
        TestBed(("left",), mtu=9000) as own,
        own.gateway.entered(),
        pytest.raises(UnsupportedError, match="no live frames of 3800 bytes"),
    ):
        generate("left", frames, count=1, engine="live")


def test_generate_live_that_no_frame_leaves_by_is_a_sentence() -> None:
    with TestBed(("left",)) as own:
        with own.peer.entered():
            for words in ("ip link set dev left-peer xdpdrv off", "ethtool -K left-peer gro off"):
                subprocess.run(words.split(), check=True)
        with own.gateway.entered(), pytest.raises(FastpathError, match="none left port left"):
            generate("left", Template().frames(), count=1000, engine="live")


def test_generate_live_counts_a_run_that_was_stopped_and_continued(
    bed: TestBed, tmp_path: Path
) -> None:
    """The kernel ends a run at any signal, even at one that only stops the process for a while."""
    before, count = bed.peer_received(), 6_000_000
    command = ("generate", "left", "--engine", "live", "--count", count, "--json")
    run = Running(bed, tmp_path, *command)
    until(lambda: bed.peer_received() - before > 100_000, "some frames")
    run.tell(signal.SIGSTOP)
    until(lambda: _state(run.process.pid) == "T", "the process to be stopped")
    run.tell(signal.SIGCONT)
    assert run.process.wait(60) == 0, run.err.read_text()
    assert json.loads(run.out.read_text())["frames"] == count
    until(lambda: bed.peer_received() - before == count, "as many at the far end")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rate_pps", [0.000_001, 3, 2000, 50_000])
def test_generate_sends_no_faster_than_the_rate(bed: TestBed, engine: str, rate_pps: float) -> None:
    """A bound that no slow machine breaks: what the rate gives in that time, and the first."""
    with bed.gateway.entered():
        report = generate(
            "left",
            Template().frames(1),
            seconds=0.25,
            rate_pps=rate_pps,
            engine=engine,  # type: ignore[arg-type]
        )
    assert 1 <= report.frames <= 0.25 * rate_pps + 1


def test_generate_live_ends_in_time(bed: TestBed) -> None:
    """Not after a whole million of frames."""
    with bed.gateway.entered():
        report = generate("left", Template().frames(1), seconds=0.02, engine="live")
    assert 0 < report.frames < 1 << 20


def test_generate_replays_a_capture_in_order(bed: TestBed, tmp_path: Path) -> None:
    listed = [bytes.fromhex("020000000001 020000000002 88b5") + bytes([n]) * 50 for n in range(9)]
    wrpcap(str(tmp_path / "some.pcap"), listed, linktype=1)
    with bed.wire() as wire:
        report = data_of(bed, "--pcap", tmp_path / "some.pcap", "--count", 18)
        assert report["frames"] == 18
        assert wire.receive(18) == listed * 2


@pytest.mark.parametrize("engine", ENGINES)
def test_generate_interrupted_tells_what_it_sent(bed: TestBed, tmp_path: Path, engine: str) -> None:
    before = bed.peer_received()
    run = Running(bed, tmp_path, "generate", "left", "--rate", "2k", "--engine", engine, "--json")
    until(lambda: bed.peer_received() - before > 10, "some frames")
    assert run.end(signal.SIGINT) == 0
    report = json.loads(run.out.read_text())
    until(lambda: bed.peer_received() - before == report["frames"], "as many as it says")
    assert "Traceback" not in run.err.read_text()


@pytest.mark.parametrize(
    ("args", "status", "what"),
    [
        (["nowhere", "--count", "1"], 4, "no port nowhere"),
        (["left", "--count", "1", "--queue", "9"], 4, "no queue 9"),
        (["left", "--count", "1", "--length", "9000"], 4, "9000 bytes cannot be sent"),
        (["left", "--count", "1", "--length", "20"], 1, "too short"),
        (["left", "--count", "1", "--rate", "fast"], 2, "100k or 1.5M"),
        (["left", "--count", "1", "--length", "60-²"], 2, "60-1514 or imix"),
        (["left", "--count", "1", "--sport", "70000"], 1, "no source ports"),
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
