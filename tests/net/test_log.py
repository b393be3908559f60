"""The log's books: due = written + lost + limited, and written is what a reader gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.live import Live, live
from tests.net.process import until
from xdpgw import config, loader, rules
from xdpgw.compile import compile_rules
from xdpgw.config import SinkSettings
from xdpgw.events import EventReader, Names, Pump
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
