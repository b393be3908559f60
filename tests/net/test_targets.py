"""AF_XDP targets as `xdpgw run` serves them: handlers, several queues, death and return."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import PcapNgReader

from tests import frames as f
from tests.net.process import Running, data, running, until, xdpgw
from xdpgw.generate import generate
from xdpgw.testbed import TestBed

QUEUES = 4
POLICY = """
[policy]
rules = \"\"\"
wanted  af_xdp some else ELSE  on left
\"\"\"
[ports.left]
mode = "MODE"
[ports.right]
mode = "MODE"
[af_xdp.some]
handler = "HANDLER"
[log]
sources = "off"
[gateway]
on_exit = "detach"
[fastpath]
ring = 2048
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left", "right"), queues=QUEUES) as made:
        yield made


def swapped(frame: bytes) -> bytes:
    return frame[6:12] + frame[:6] + frame[12:]


def numbered(count: int, size: int = 60) -> list[bytes]:
    """Frames of a size, each with its number in its bytes."""
    return [
        f.eth(f.ipv4(f.udp(n.to_bytes(4, "big") + bytes(max(0, size - 46)), dport=9)))
        for n in range(count)
    ]


def frames_of(path: Path) -> list[bytes]:
    with PcapNgReader(str(path)) as reader:
        return [bytes(packet) for packet in reader]


class Served:
    """A policy with one target, and who serves it."""

    def __init__(self, bed: TestBed, path: Path) -> None:
        self.bed, self.path = bed, path
        self.run: Running

    def start(self) -> None:
        forget_output(self.path.parent)
        self.run = Running(self.bed, self.path.parent, "run", self.path)
        self.run.said("left: ")

    def kill(self) -> None:
        self.run.process.kill()
        self.run.process.wait()

    def counted(self) -> dict[tuple[str, str], int]:
        """Packets of the port left by verdict and reason."""
        port = next(x for x in data(self.bed, "status")["ports"] if x["port"] == "left")
        return {(x["verdict"], x["reason"]): x["packets"] for x in port["counters"]}

    def sockets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = data(self.bed, "targets")["sockets"]
        return found

    def total(self, *path: str) -> int:
        """One counter over all sockets that receive."""

        def read(row: dict[str, Any]) -> int:
            value: Any = row
            for key in path:
                value = value[key]
            return int(value)

        return sum(read(x) for x in self.sockets() if x["target"] is not None)


def forget_output(folder: Path) -> None:
    """What an earlier process said is not meant."""
    for name in ("out.txt", "err.txt"):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def served(
    bed: TestBed, folder: Path, mode: str, handler: str, otherwise: str = "drop", ring: int = 2048
) -> Iterator[Served]:
    path = folder / "edge.toml"
    text = POLICY.replace("MODE", mode).replace("HANDLER", handler).replace("ELSE", otherwise)
    path.write_text(text.replace("ring = 2048", f"ring = {ring}"))
    found = Served(bed, path)
    forget_output(folder)
    with running(bed, folder, "run", path) as run:
        found.run = run
        run.said("left: ")
        try:
            yield found
        finally:
            found.kill()


def send_from_peer(
    bed: TestBed, frames: list[bytes], count: int, rate_pps: float, queue: int = 0
) -> int:
    """Send frames, again and again, from the cable's far end; how many went out."""
    with bed.peer.entered():
        report = generate("left-peer", frames, count=count, rate_pps=rate_pps, queue=queue)
    return report.frames


def test_count_receives_every_frame(bed: TestBed, tmp_path: Path, mode: str) -> None:
    with served(bed, tmp_path, mode, "count") as target, bed.wire() as wire:
        wire.send(numbered(1000))
        until(lambda: target.total("counters", "rx_packets") == 1000, "1,000 frames received")
        assert target.counted() == {("af_xdp", "rule"): 1000}
        assert target.total("counters", "dropped") == 1000
        assert {x["mode"] for x in target.sockets()} == {"copy"}
        assert sorted(x["queue"] for x in target.sockets()) == list(range(QUEUES))


@pytest.mark.parametrize("size", [60, 64, 128, 594, 1514])
def test_reflect_sends_frames_back_whole(
    bed: TestBed, tmp_path: Path, mode: str, size: int
) -> None:
    frames = numbered(100, size)
    with served(bed, tmp_path, mode, "reflect"), bed.wire() as wire:
        wire.send(frames)
        assert wire.receive(100) == [swapped(x) for x in frames]


def test_forward_sends_frames_out_of_the_other_port_in_order(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    frames = numbered(500)
    with served(bed, tmp_path, mode, "forward:right"), bed.wire() as wire, bed.wire("right") as far:
        wire.send(frames)
        assert far.receive(500) == frames
        assert wire.waiting() == []


def test_all_queues_are_served_each_in_order(bed: TestBed, tmp_path: Path, mode: str) -> None:
    with served(bed, tmp_path, mode, f"capture:{tmp_path}/all.pcapng") as target:
        frames = numbered(400)
        for queue in range(QUEUES):
            assert send_from_peer(bed, frames, 400, 50_000, queue) == 400
        until(lambda: target.total("counters", "rx_packets") == 400 * QUEUES, "all received")
        per_queue = {x["queue"]: x["counters"]["rx_packets"] for x in target.sockets()}
        target.run.end()
    seen = frames_of(tmp_path / "all.pcapng")
    assert sorted(seen) == sorted(frames * QUEUES)
    if mode == "native":  # the sender's TX queue is the receiver's RX queue
        assert per_queue == dict.fromkeys(range(QUEUES), 400)


@pytest.mark.parametrize("handler", ["reflect", "forward:right"])
def test_a_million_frames_are_delivered_below_the_limit(
    bed: TestBed, tmp_path: Path, mode: str, handler: str
) -> None:
    million = 1_000_000
    port = "left" if handler == "reflect" else "right"
    # Not to the far end's own address: its stack drops them at once.
    frames = [bytes.fromhex("020000000999 020000000998") + x[12:] for x in numbered(64)]
    # A ring of 218 ms of them: a test that waits for its processor is no overload.
    with served(bed, tmp_path, mode, handler, ring=32_768) as target:
        before = bed.peer_received(port)
        assert send_from_peer(bed, frames, million, 150_000) == million
        until(lambda: bed.peer_received(port) - before == million, "all arrived", 10.0)
        assert target.counted() == {("af_xdp", "rule"): million}
        counted = [x["counters"] for x in target.sockets()]
        assert sum(x["rx_packets"] for x in counted) == million
        assert sum(x["tx_packets"] for x in counted) == million
        assert sum(x["dropped"] for x in counted) == 0


def test_overload_accounts_for_every_frame(bed: TestBed, tmp_path: Path, mode: str) -> None:
    with served(bed, tmp_path, mode, "reflect") as target:
        sent = send_from_peer(bed, numbered(64), 2_000_000, 0)

        def accounted() -> bool:
            if sum(target.counted().values()) != bed_received(bed, start):
                return False
            got = target.total("counters", "rx_packets")
            lost = target.total("statistics", "rx_ring_full")
            lost += target.total("statistics", "rx_dropped")
            return got + lost == target.counted()["af_xdp", "rule"]

        start = bed.received() - sum(target.counted().values())
        until(accounted, "received + lost = handed over")
        assert sum(target.counted().values()) <= sent
        counted = [x["counters"] for x in target.sockets()]
        received, sent_back, dropped, full = (
            sum(x[name] for x in counted)
            for name in ("rx_packets", "tx_packets", "dropped", "tx_full")
        )
        assert received == sent_back + dropped
        assert dropped == full


def bed_received(bed: TestBed, start: int) -> int:
    return bed.received() - start


def test_one_frame_alone_comes_back_at_once(bed: TestBed, tmp_path: Path, mode: str) -> None:
    """No batch is waited for: each frame is sent only when the one before it is back."""
    frames = numbered(50)
    with served(bed, tmp_path, mode, "reflect"), bed.wire() as wire:
        for frame in frames:
            wire.send([frame])
            assert wire.receive(1) == [swapped(frame)]


@pytest.mark.parametrize("otherwise", ["pass", "drop"])
def test_killed_process_falls_back_to_else_and_a_restart_takes_over(
    bed: TestBed, tmp_path: Path, mode: str, otherwise: str
) -> None:
    frame = numbered(1)[0]
    with served(bed, tmp_path, mode, "count", otherwise) as target, bed.wire() as wire:
        text = target.path.read_text().replace('"detach"', '"keep"')
        target.run.end()
        target.path.write_text(text)
        target.start()
        wire.send([frame] * 10)
        until(lambda: target.counted().get(("af_xdp", "rule")) == 10, "served")
        target.kill()
        assert data(bed, "targets")["unserved"] == ["some"]
        with bed.host() as host:
            wire.send([frame] * 7)
            until(lambda: target.counted().get((otherwise, "no_socket")) == 7, "the else verdict")
            assert len(host.waiting()) == (7 if otherwise == "pass" else 0)
        target.start()
        wire.send([frame] * 5)
        until(lambda: target.counted().get(("af_xdp", "rule")) == 15, "served again")
        assert target.run.end() == 0


def test_a_hundred_kills_under_load_leak_nothing(bed: TestBed, tmp_path: Path) -> None:
    with served(bed, tmp_path, "native", "count") as target:
        text = target.path.read_text().replace('"detach"', '"keep"')
        target.run.end()
        target.path.write_text(text)
        stop = threading.Event()
        sent = [0]

        def load() -> None:
            with bed.wire() as wire:
                while not stop.is_set():
                    sent[0] += wire.send(numbered(64))

        sender = threading.Thread(target=load)
        target.start()
        target.kill()
        before = bed.received()
        sender.start()
        try:
            pins: set[str] = set()
            for number in range(ROUNDS):
                target.start()
                served_before = target.counted().get(("af_xdp", "rule"), 0)
                until(
                    lambda was=served_before: target.counted().get(("af_xdp", "rule"), 0) > was,
                    "served",
                )
                lost_before = target.counted().get(("drop", "no_socket"), 0)
                target.kill()
                until(
                    lambda was=lost_before: target.counted().get(("drop", "no_socket"), 0) > was,
                    "the else verdict within a second",
                    1.0 if number else 5.0,
                )
                here = {x.name for x in Path(data(bed, "status")["pins"]).iterdir()}
                assert not pins or here == pins
                pins = here
        finally:
            stop.set()
            sender.join()
        until(
            lambda: sum(target.counted().values()) == bed.received() - before,
            "each packet counted once",
        )
        assert xsk_sockets(bed) == 0


ROUNDS = int(os.environ.get("XDPGW_KILL_ROUNDS", "10"))
"""A hundred take two minutes; the whole suite has fifteen."""


def xsk_sockets(bed: TestBed) -> int:
    """AF_XDP sockets of the gateway's namespace."""
    with bed.gateway.entered():
        path = Path("/proc/thread-self/net/protocols").read_text()
    line = next(x.split() for x in path.splitlines() if x.startswith("XDP"))
    return int(line[2])


def test_python_handler_claims_frames_by_their_bytes(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    (tmp_path / "some_handlers.py").write_text(
        "def odd(burst):\n    header = burst.header(64)\n    burst.send(header[:, 45] % 2 == 1)\n"
    )
    frames = numbered(100)
    with (
        served(bed, tmp_path, mode, "python:some_handlers:odd") as target,
        bed.wire() as wire,
    ):
        wire.send(frames)
        assert wire.receive(50) == frames[1::2]
        until(lambda: target.total("counters", "dropped") == 50, "the even ones recycled")
        assert wire.waiting() == []


def test_python_handler_that_raises_falls_back_and_a_reload_brings_it_back(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    module = tmp_path / "bad_handlers.py"
    module.write_text("def bad(burst):\n    raise ValueError('no such luck')\n")
    frame = numbered(1)[0]
    with served(bed, tmp_path, mode, "python:bad_handlers:bad") as target, bed.wire() as wire:
        wire.send([frame])
        target.run.said("ValueError: no such luck")
        target.run.said("target some no longer serves queue")
        wire.send([frame] * 3)
        until(lambda: target.counted().get(("drop", "no_socket")) == 3, "the else verdict")
        module.write_text("def bad(burst):\n    burst.send(None)\n")
        os.utime(module, (1, 1))  # the same second: the cache of bytecode goes by the time
        target.run.tell(signal.SIGHUP)
        until(
            lambda: (found := target.sockets()) and all(x["alive"] for x in found), "served again"
        )
        wire.send([frame])
        assert wire.receive(1) == [frame]


def test_python_handler_that_cannot_be_imported_changes_nothing(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    with served(bed, tmp_path, mode, "count") as target:
        text = target.path.read_text()
        target.path.write_text(text.replace('"count"', '"python:nowhere:to_be"'))
        done = xdpgw(bed, "reload", target.path)
        assert done.returncode == 1
        assert "cannot import nowhere:to_be" in done.stderr
        target.run.tell(signal.SIGHUP)
        target.run.said("the policy in force stays in force")
        assert [x["handler"] for x in target.sockets()] == ["count"] * QUEUES


def test_reload_leaves_the_sockets_of_unchanged_targets_alone(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    with served(bed, tmp_path, mode, "count") as target, bed.wire() as wire:
        wire.send(numbered(10))
        until(lambda: target.total("counters", "rx_packets") == 10, "received")
        target.path.write_text(
            target.path.read_text().replace("wanted  af_xdp", "none drop tcp\nwanted  af_xdp")
        )
        assert xdpgw(bed, "reload", target.path).returncode == 0
        target.run.said("the policy was replaced by another process")
        wire.send(numbered(10))
        until(lambda: target.total("counters", "rx_packets") == 20, "received by the same sockets")
        assert target.counted() == {("af_xdp", "rule"): 20}


def test_reload_to_another_handler_restarts_the_sockets(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    with served(bed, tmp_path, mode, "count") as target, bed.wire() as wire:
        target.path.write_text(target.path.read_text().replace('"count"', '"reflect"'))
        assert xdpgw(bed, "reload", target.path).returncode == 0
        until(
            lambda: {x["handler"] for x in target.sockets()} == {"reflect", None},
            "the new handler, and the sockets that it sends out of",
        )
        wire.send(numbered(3))
        assert wire.receive(3) == [swapped(x) for x in numbered(3)]


def test_capture_on_a_full_disk_goes_on_when_there_is_room(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, 1024) as fill:
        with served(bed, tmp_path, mode, f"capture:{disk}/all.pcapng") as target:
            fill()
            with bed.wire() as wire:
                wire.send(numbered(200, 594))
                target.run.said("cannot write the capture: No space left on device")
                (disk / "ballast").unlink()
                # One by one: each is written, or not, by itself.
                for frame in numbered(20):
                    wire.send([frame])
                target.run.said("the capture goes on")
            target.run.end()
        assert frames_of(disk / "all.pcapng")[-1] == numbered(20)[-1]


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Callable[[], None]]:
    """A file system of so many KiB; gives a function that fills it."""
    import subprocess

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(folder)], check=True)

    def fill() -> None:
        with (folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass

    try:
        yield fill
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_queue_that_is_held_by_another_socket_is_a_sentence_and_leaves_nothing(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    from xdpgw.fast import FastPort

    with bed.gateway.entered(), FastPort("left", 1, attach=None):
        path = tmp_path / "edge.toml"
        text = POLICY.replace("MODE", mode).replace("HANDLER", "count")
        path.write_text(text.replace("ELSE", "drop"))
        done = xdpgw(bed, "run", path)
    assert done.returncode == 4
    assert "queue 1 of port left" in done.stderr
    assert xdpgw(bed, "status").returncode == 1


TWO_TARGETS = """
[policy]
rules = \"\"\"
echo    af_xdp echo else drop  on left udp to port 7
rest    af_xdp tap  else pass  on left
\"\"\"
[ports.left]
mode = "MODE"
[af_xdp.echo]
handler = "reflect"
[af_xdp.tap]
handler = "capture:tap.pcapng"
snaplen = 64
[log]
sources = "off"
[gateway]
on_exit = "detach"
"""


def test_two_targets_share_a_queue(bed: TestBed, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(TWO_TARGETS.replace("MODE", mode))
    echo = [f.eth(f.ipv4(f.udp(bytes([n]) * 100, dport=7))) for n in range(100)]
    other = [f.eth(f.ipv4(f.udp(bytes([n]) * 100, dport=8))) for n in range(100)]
    with running(bed, tmp_path, "run", path) as run, bed.wire() as wire:
        run.said("left: ")
        wire.send(frame for pair in zip(echo, other, strict=True) for frame in pair)
        assert wire.receive(100) == [swapped(x) for x in echo]
        until(
            lambda: (
                sum(
                    x["counters"]["rx_packets"]
                    for x in data(bed, "targets")["sockets"]
                    if x["target"] == "tap"
                )
                == 100
            ),
            "the others captured",
        )
        assert run.end() == 0
    assert frames_of(tmp_path / "tap.pcapng") == [x[:64] for x in other]


BOTH_WAYS = """
[policy]
rules = \"\"\"
out   af_xdp out  else drop  on left
back  af_xdp back else drop  on right
\"\"\"
[ports.left]
mode = "MODE"
queues = [0, 1, 2]
[ports.right]
mode = "MODE"
queues = [3, 0]
[af_xdp.out]
handler = "forward:right"
[af_xdp.back]
handler = "forward:left"
[log]
sources = "off"
[gateway]
on_exit = "detach"
"""


def test_ports_forward_both_ways_with_unequal_queues(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(BOTH_WAYS.replace("MODE", mode))
    frames = numbered(200)
    with (
        running(bed, tmp_path, "run", path) as run,
        bed.wire("left") as left,
        bed.wire("right") as right,
    ):
        run.said("left: ")
        for queue in (0, 1, 2):
            assert send_from_peer(bed, frames, 200, 50_000, queue) == 200
            assert sorted(right.receive(200)) == sorted(frames)
        with bed.peer.entered():
            # In generic mode veth moves frames to another queue than the one they were sent on.
            queue = 3 if mode == "native" else 0
            report = generate("right-peer", frames, count=200, rate_pps=50_000, queue=queue)
        assert report.frames == 200
        assert sorted(left.receive(200)) == sorted(frames)
        assert right.waiting() == []


def test_frames_of_9000_bytes_are_reflected_and_forwarded_whole(tmp_path: Path, mode: str) -> None:
    frames = [
        f.eth(f.ipv4(f.udp(bytes([size % 251]) * (size - 42), dport=9)))
        for size in (60, 1514, 3514, 4000, 6000, 9000, 9014)
    ]
    with TestBed(("left", "right"), mtu=9000) as jumbo:
        for handler in ("reflect", "forward:right"):
            with served(jumbo, tmp_path, mode, handler) as target, jumbo.wire() as wire:
                assert {x["multi_buffer"] for x in target.sockets()} == {True}
                with jumbo.wire("right") as far:
                    wire.send(frames)
                    if handler == "reflect":
                        assert wire.receive(len(frames)) == [swapped(x) for x in frames]
                    else:
                        assert far.receive(len(frames)) == frames
                assert target.counted() == {("af_xdp", "rule"): len(frames)}


def test_port_that_goes_away_is_told_and_the_process_goes_on(tmp_path: Path, mode: str) -> None:
    from pyroute2 import IPRoute

    with TestBed(("left", "right")) as own, served(own, tmp_path, mode, "count") as target:
        with own.gateway.entered(), IPRoute() as ip:
            ip.link("del", index=own.ifindex("left"))
        target.run.said("its port is gone")
        assert target.run.process.poll() is None
        assert target.run.end() == 0
