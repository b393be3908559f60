"""The log's books: due = written + lost + limited, and written is what a reader gets."""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.live import Live, live
from tests.net.process import until
from xdpgw import config, loader, rules
from xdpgw.compile import compile_rules
from xdpgw.config import SinkSettings
from xdpgw.events import EventReader, Names, Pump
from xdpgw.flows import Frames
from xdpgw.generate_live import Live as LiveFrames
from xdpgw.testbed import TestBed

FRAME = f.eth(f.ipv4(f.udp(b"x", dport=9)))
SEND_BACK = '[policy]\nrules = "all tx"\n[log]\nsources = "off"\n'


def policy(mode: str, log: str, rules_text: str = "") -> str:
    return (
        f'[policy]\ndefault = "drop"\nguard = false\nrules = """\n{rules_text}\n"""\n'
        f'[ports.left]\nmode = "{mode}"\n[log]\n{log}\n'
    )


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


def send(gate: Live, frames: list[bytes]) -> None:
    """Send frames in bursts that no ring on the way overflows by."""
    with gate.bed.wire() as wire:
        for at in range(0, len(frames), 100):
            burst = frames[at : at + 100]
            before = gate.books()
            wire.send(burst)
            gate.wait_for(before, len(burst))


def flood(gate: Live, frame: bytes, count: int) -> None:
    """Have the kernel send a frame so many times, as fast as it can."""
    image = compile_rules(rules.resolve(config.loads(SEND_BACK)))
    with gate.bed.peer.entered(), loader.load(image, [None]) as loaded:
        loaded.programs[None].live_frames(frame, gate.bed.peer_ifindex(), count)


def stream(gate: Live, frames: list[bytes], count: int) -> None:
    """Have the kernel send frames of one length, in turn, as fast as it can."""
    how = {"count": count, "rate_pps": 0.0, "seconds": 0.0, "into": False}
    with (
        gate.bed.peer.entered(),
        LiveFrames("left-peer", gate.bed.peer_ifindex(), Frames.of(frames), **how) as live_frames,  # type: ignore[arg-type]
    ):
        live_frames.send()


def read_all(gate: Live) -> list[dict[str, object]]:
    """All events in the ring."""
    events = []
    with EventReader(gate.maps["events"]) as reader:
        while len(batch := reader.drain(timeout_ms=0)):
            events += [
                {name: event[name].tolist() for name in ("src", "rule", "verdict", "ts_ns")}
                for event in batch
            ]
    return events


def test_log_every_tells_each_packet_with_time_and_verdict(mode: str, bed: TestBed) -> None:
    with live(policy(mode, 'sources = "every"'), bed) as gate:
        send(gate, [FRAME] * 250)
        events = read_all(gate)
        assert len(events) == 250
        times = [event["ts_ns"] for event in events]
        assert times == sorted(times)
        log = gate.books().log
        assert (log.due, log.written, log.lost, log.limited) == (250, 250, 0, 0)


def test_log_off_tells_nothing(mode: str, bed: TestBed) -> None:
    with live(policy(mode, 'sources = "off"'), bed) as gate:
        send(gate, [FRAME] * 50)
        assert gate.books().log.due == 0
        assert read_all(gate) == []


def test_log_over_the_global_rate_is_counted_not_sent(mode: str, bed: TestBed) -> None:
    with live(policy(mode, 'sources = "every"\nrate = "50/m"'), bed) as gate:
        send(gate, [FRAME] * 2000)
        log = gate.books().log
        assert log.due == 2000
        assert log.written + log.limited == 2000
        assert 50 <= log.written < 1000
        assert len(read_all(gate)) == log.written


def test_log_into_a_full_ring_is_counted_as_lost(bed: TestBed) -> None:
    count = 160_000
    with live(policy("native", 'sources = "every"\nrate = "off"'), bed) as gate:
        before = gate.books()
        flood(gate, FRAME, count)
        # Frames that veth's own ring had no room for never reached the program.
        log = gate.wait_for(before, 110_000).log
        assert log.lost > 0
        assert log.limited == 0
        assert log.due == gate.books().received
        assert len(read_all(gate)) == log.written == log.due - log.lost


def test_log_flood_into_a_file_written_is_what_is_in_the_file(bed: TestBed, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with live(policy("native", 'sources = "every"\nrate = "20000/s"'), bed) as gate:
        names = Names.of(ports=gate.manifest.port_slots, rules=gate.manifest.rule_slots)
        complaints: list[str] = []
        with (
            EventReader(gate.maps["events"]) as reader,
            Pump.of([SinkSettings("jsonl", path)], on_error=complaints.append) as pump,
        ):
            for _ in range(10):
                flood(gate, FRAME, 30_000)
                pump.feed(reader, names, timeout_ms=0)
            while pump.feed(reader, names, timeout_ms=50):
                pass
        log = gate.books().log
        lines = path.read_text().splitlines()
        lost_by_sink = sum(pump.lost.values())
        assert log.limited > 0
        assert log.due == log.written + log.lost + log.limited == gate.books().received
        assert len(lines) == log.written - lost_by_sink
        assert json.loads(lines[0])["src"] == f.A4
        assert json.loads(lines[-1])["src"] == f.A4
        assert complaints == []


def sources(count: int) -> list[bytes]:
    """Frames from so many sources, a third of them IPv6."""
    return [
        f.eth(f.ipv6(f.udp(b"x"), src=f"2001:db8:{number:x}::1"))
        if number % 3 == 0
        else f.eth(f.ipv4(f.udp(b"x"), src=f"10.{number >> 8}.{number & 255}.1"))
        for number in range(count)
    ]


def test_log_new_tells_a_source_once_a_window(mode: str, bed: TestBed) -> None:
    with live(policy(mode, 'sources = "new"\nwindow = "1h"'), bed) as gate:
        send(gate, sources(1000) * 3)
        events = read_all(gate)
        assert len(events) == 1000
        assert len({tuple(event["src"]) for event in events}) == 1000  # type: ignore[arg-type]
        assert gate.books().log.due == 1000


def test_log_new_tells_a_source_again_after_the_window(mode: str, bed: TestBed) -> None:
    with live(policy(mode, 'sources = "new"\nwindow = "1s"'), bed) as gate:

        def twice() -> bool:
            send(gate, [FRAME])
            return gate.books().log.written == 2

        send(gate, [FRAME] * 10)
        assert gate.books().log.written == 1
        until(twice, "a second event of the source")
        first, second = (event["ts_ns"] for event in read_all(gate))
        assert second - first >= 950_000_000  # type: ignore[operator]


def test_log_new_source_that_was_held_back_is_told_later(mode: str, bed: TestBed) -> None:
    with live(policy(mode, 'sources = "new"\nwindow = "1h"\nrate = "1/s"'), bed) as gate:
        send(gate, sources(20))
        assert gate.books().log.written <= 2

        def later() -> bool:
            send(gate, sources(20))
            return gate.books().log.written >= 4

        until(later, "more of the sources")
        told = [tuple(event["src"]) for event in read_all(gate)]  # type: ignore[arg-type]
        assert len(told) == len(set(told))


def test_log_of_a_rule_has_its_own_rate_and_sample(mode: str, bed: TestBed) -> None:
    text = (
        "slow  drop  udp to port 9  log 10/m\n"
        "some  drop  udp to port 7  log sample 1/10\n"
        "all   tx    udp to port 5  log\n"
        "none  drop  udp to port 3"
    )
    frames = {port: f.eth(f.ipv4(f.udp(b"x", dport=port))) for port in (9, 7, 5, 3)}
    with live(policy(mode, 'sources = "off"', text), bed) as gate:
        for frame in frames.values():
            send(gate, [frame] * 100)
        told: dict[str, int] = {}
        slots = {slot: name for name, slot in gate.manifest.rule_slots.items()}
        for event in read_all(gate):
            name = slots[event["rule"]]  # type: ignore[index]
            told[name] = told.get(name, 0) + 1
        log = gate.books().log
        assert told["all"] == 100
        assert 10 <= told["slow"] < 100
        # The first and each tenth after it, on each CPU that received some.
        assert 10 <= told["some"] <= 20
        assert "none" not in told
        assert log.limited == 100 - told["slow"]
        assert log.due == 200 + told["some"]


def test_log_new_and_rule_log_of_one_packet_is_one_event(mode: str, bed: TestBed) -> None:
    with live(policy(mode, 'sources = "new"', "nine drop udp to port 9 log"), bed) as gate:
        send(gate, [FRAME] * 5)
        assert len(read_all(gate)) == 5


def test_log_arp_is_told_by_a_rule_but_has_no_source(mode: str, bed: TestBed) -> None:
    with live(policy(mode, 'sources = "every"', "who drop arp log"), bed) as gate:
        send(gate, [f.eth(f.arp()), f.eth(f.raw(f.LLDP, bytes(50)))])
        assert len(read_all(gate)) == 1


ONE = "203.0.113.77"


def from_source(source: str) -> bytes:
    return f.eth(f.ipv4(f.udp(b"x", dport=9), src=source))


def events_of(gate: Live, source: str) -> int:
    """Events in the ring that name a source."""
    raw = list(ipaddress.ip_address(source).packed)
    return sum(event["src"][: len(raw)] == raw for event in read_all(gate))  # type: ignore[index]


@pytest.mark.parametrize(
    ("log", "rules_text"),
    [
        pytest.param('rate = "1000/s"', "", id="of one source"),
        pytest.param('rate = "1000/s"', "all drop log", id="that a rule tells"),
        pytest.param('rate = "1/s"', "all drop log", id="that a rule tells, at a low rate"),
    ],
)
def test_log_new_tells_a_source_of_one_packet_in_a_flood(
    log: str, rules_text: str, bed: TestBed
) -> None:
    flood_frames, rest = [from_source("198.51.100.1")] * 40_000, 20_000
    frames = [*flood_frames, from_source(ONE), *flood_frames[:rest]]
    text = policy(
        "native", f'sources = "new"\nwindow = "1h"\n{log}', f"one drop from {ONE}\n{rules_text}"
    )
    with live(text, bed) as gate:

        def judged() -> int:
            stream(gate, frames, len(frames))
            return gate.books().rules["one"]

        until(judged, "the one packet got past veth's own ring")
        books = gate.books()
        assert books.rules["one"] == 1
        assert (books.log.limited > 10_000) == bool(rules_text)
        assert books.log.lost == 0
        assert events_of(gate, ONE) == 1


def test_log_new_tells_a_source_of_one_packet_amid_spoofed_ones(bed: TestBed) -> None:
    """While the ring has room: each of the others is new, too."""
    spoofed = [from_source(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(60_000)]
    frames = [*spoofed[:30_000], from_source(ONE), *spoofed[30_000:]]
    text = policy("native", 'sources = "new"\nwindow = "1h"\nrate = "off"', f"one drop from {ONE}")
    with live(text, bed) as gate:

        def judged() -> int:
            stream(gate, frames, len(frames))
            return gate.books().rules["one"]

        until(judged, "the one packet got past veth's own ring")
        log = gate.books().log
        assert log.lost == log.limited == 0
        assert log.written > 50_000
        assert events_of(gate, ONE) == 1


@contextmanager
def written_to(gate: Live, path: Path) -> Iterator[Pump]:
    """All events go into a file of JSON lines, while they come; all are there at the end."""
    names = Names.of(ports=gate.manifest.port_slots, rules=gate.manifest.rule_slots)
    settings, over = [SinkSettings("jsonl", path)], threading.Event()
    with (
        EventReader(gate.maps["events"]) as reader,
        Pump.of(settings, on_error=lambda text: None) as pump,
    ):

        def move() -> None:
            while not over.is_set() or reader.used_bytes:
                pump.feed(reader, names, timeout_ms=20)

        mover = threading.Thread(target=move)
        mover.start()
        try:
            yield pump
        finally:
            over.set()
            mover.join()


def lost_of_a_flood(bed: TestBed, sources: str, rate: str, path: Path) -> int:
    """Packets of 600,000 that did not come back; all that did are in the books, and in the file."""
    count = 600_000
    text = policy("native", f'sources = "{sources}"\nrate = "{rate}"', "all tx")
    with live(text, bed) as gate:
        with written_to(gate, path) as pump:
            before = bed.peer_received()
            stream(gate, [FRAME], count)
            judged = gate.books().received
            until(lambda: bed.peer_received() - before == judged, "all that was judged", 10)
        log = gate.books().log
    assert log.due == log.written + log.lost + log.limited
    assert log.due == (judged if sources == "every" else 0)
    assert (log.limited > 0) == (sources == "every" and rate != "off")
    lines = sum(x.read_bytes().count(b"\n") for x in path.parent.glob(f"{path.name}*"))
    assert lines == log.written - sum(pump.lost.values())
    return count - judged


@pytest.mark.parametrize("rate", ["100000/s", "off"])
def test_log_of_a_flood_costs_no_forwarded_packet(rate: str, bed: TestBed, tmp_path: Path) -> None:
    """What is judged comes back, with the log as without, and no more is lost before."""
    lost: dict[str, list[int]] = {"off": [], "every": []}
    for number in range(3):
        for sources, losses in lost.items():
            path = tmp_path / f"{sources}-{number}.jsonl"
            losses.append(lost_of_a_flood(bed, sources, rate, path))
    assert min(lost["every"]) <= max(lost["off"])
