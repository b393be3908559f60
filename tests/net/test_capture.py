"""`xdpgw capture` and `xdpgw trace` beside a filter on real interfaces."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests import frames as f
from tests.net.live import Live, live, with_mode
from tests.net.process import Running, _command, running, until, xdpgw
from tests.net.test_rows import SHORT_FOR_THE_STACK
from tests.packets import POLICIES, rows_by_policy
from xdpgw.explain import read_frames
from xdpgw.generate import generate
from xdpgw.seat import Seat
from xdpgw.testbed import TestBed

POLICY = """
[policy]
rules = \"\"\"
web   drop  tcp to port 80
dns   pass  udp to port 53
\"\"\"
[ports.left]
mode = "MODE"
[log]
sources = "off"
"""
WEB = f.eth(f.ipv4(f.tcp(dport=80)))
DNS = f.eth(f.ipv4(f.udp(b"what is", dport=53)))
FLOOD = 400_000


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left", "right")) as made:
        yield made


@contextmanager
def looking(bed: TestBed, folder: Path, *args: object) -> Iterator[Running]:
    """A capture or trace, from when it looks on."""
    folder.mkdir(exist_ok=True)
    command = Running(bed, folder, *args)
    try:
        command.said("looking on at ")
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait(60)


def is_seen(gate: Live) -> bool:
    """Whether somebody looks on at the port left."""
    link = gate.instance.link("left")
    assert link is not None
    with link:
        seat = Seat("left", link.info().prog_id)
    there = seat._in_slot() is not None
    seat.close()
    return there


def tshark(path: Path, *fields: str) -> list[tuple[str, ...]]:
    """Fields of the packets of a file, read by Wireshark's own reader."""
    command = ["tshark", "-r", str(path), "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def test_tshark_is_there() -> None:
    assert shutil.which("tshark"), "make test installs it"


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_capture_holds_each_row_as_it_was_sent_with_why(
    policy: str, mode: str, bed: TestBed, tmp_path: Path
) -> None:
    rows = [row for row in rows_by_policy()[policy] if row.live]
    with live(with_mode(POLICIES[policy], mode), bed) as gate:
        for port in gate.manifest.ports:
            mine = [row for row in rows if row.port == port]
            file = tmp_path / f"{port}.pcapng"
            with (
                looking(gate.bed, tmp_path / port, "capture", port, "-w", file) as command,
                bed.wire(port) as wire,
                bed.host(port) as host,
            ):
                for row in mine:
                    before = gate.books()
                    wire.send([row.frame])
                    gate.wait_for(before, 1)
                    came = {"pass": host, "tx": wire}.get(row.unserved[0])
                    if came is not None and row.name not in SHORT_FOR_THE_STACK:
                        assert came.receive(1) == [row.frame]
                assert command.end() == 0
                assert not wire.waiting() + host.waiting()
            n = len(mine)
            assert command.err.read_text() == (
                f"looking on at {port}; Ctrl-C ends\n"
                f"seen {n} = captured {n} + lost 0 + over the rate 0\n"
            )
            assert list(read_frames(file)) == [row.frame for row in mine]
            wanted = [
                (" ".join(x for x in row.unserved if x), port, str(len(row.frame)), "0x00000001")
                for row in mine
            ]
            told = ("frame.comment", "frame.interface_name", "frame.len")
            assert tshark(file, *told, "frame.packet_flags") == wanted


@pytest.fixture
def gate(mode: str, bed: TestBed) -> Iterator[Live]:
    with live(POLICY.replace("MODE", mode), bed) as found:
        yield found


def test_capture_goes_on_under_a_new_policy_and_says_so(
    mode: str, gate: Live, tmp_path: Path
) -> None:
    file = tmp_path / "x.pcapng"
    with looking(gate.bed, tmp_path, "capture", "left", "-w", file) as command:
        gate.send([WEB, DNS])
        gate.apply(
            POLICY.replace("MODE", mode).replace("web ", "www ").replace("dns   pass", "dns   tx  ")
        )
        command.said("the policy was replaced: packets of left")
        gate.send([WEB, DNS])
        assert command.end() == 0
        command.said("seen 4 = captured 4 + lost 0 + over the rate 0")
    assert [comment for (comment,) in tshark(file, "frame.comment")] == [
        "drop rule web",
        "pass rule dns",
        "drop rule www",
        "tx rule dns",
    ]


def test_killed_capture_leaves_the_filter_as_it_was(gate: Live, tmp_path: Path) -> None:
    with looking(gate.bed, tmp_path, "capture", "left", "-w", tmp_path / "x") as command:
        gate.send([WEB])
        command.tell(signal.SIGKILL)
        command.process.wait(60)
        until(lambda: not is_seen(gate), "the kernel emptied the slot")
    assert gate.send([WEB] * 3 + [DNS]).rules == {"web": 3, "dns": 1}
    with looking(gate.bed, tmp_path / "next", "trace", "left", "--count", 1) as command:
        gate.send([DNS])
        assert command.process.wait(60) == 0
        assert "pass  rule dns" in command.out.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_capture_ends_on_a_signal_with_a_whole_file(
    number: int, gate: Live, tmp_path: Path
) -> None:
    file = tmp_path / "x.pcapng"
    with looking(gate.bed, tmp_path, "capture", "left", "-w", file) as command:
        gate.send([WEB, DNS])
        assert command.end(number) == 0
        assert not is_seen(gate)
    assert list(read_frames(file)) == [WEB, DNS]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("before", ["", "of somebody else"])
def test_file_that_is_there_is_replaced_and_its_mode_with_it(
    before: str, gate: Live, tmp_path: Path
) -> None:
    file = tmp_path / "x.pcapng"
    file.write_text(before)
    file.chmod(0o666)
    with looking(gate.bed, tmp_path, "capture", "left", "-w", file, "--count", 1) as command:
        gate.send([WEB])
        assert command.process.wait(60) == 0
    assert list(read_frames(file)) == [WEB]
    assert file.stat().st_mode & 0o777 == 0o600


def test_detach_ends_a_capture(gate: Live, tmp_path: Path) -> None:
    with looking(gate.bed, tmp_path, "capture", "left", "-w", tmp_path / "x") as command:
        gate.send([WEB])
        del gate.attached_at["left"]  # what comes later meets no filter
        assert xdpgw(gate.bed, "detach").returncode == 0
        assert command.process.wait(60) == 0
        command.said("the filter is no longer on port left")
    assert list(read_frames(tmp_path / "x")) == [WEB]


def test_second_capture_names_the_first(gate: Live, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("not to be touched")
    with looking(gate.bed, tmp_path, "trace") as command:
        done = xdpgw(gate.bed, "capture", "left", "-w", kept)
        assert done.returncode == 3
        assert "another capture or trace looks on at port left" in done.stderr
        assert f"(pid {command.process.pid})" in done.stderr
        gate.send([WEB])
        assert "drop  rule web" in command.printed(1)[0]
    assert kept.read_text() == "not to be touched"


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (("capture", "lfet"), 1, "the filter is not on port lfet"),
        (("capture", "lo", "-w", "x"), 1, "it is on left"),
        (("trace", "lfet"), 2, "write a match such as tcp, or a port: left"),
        (("capture", "left", "tcp", "to", "prot", "80"), 2, "MATCH:1:13"),
        (("trace", "--rule", "wbe"), 1, "no rule wbe is in force"),
        (("trace", "--rate", "fast"), 2, "--rate"),
        (("trace", "--for", "10"), 2, "--for"),
        (("trace", "--verdict", "dorp"), 2, "--verdict"),
        (("capture", "left", "-w", "-", "--json"), 2, "leave --json out"),
        (("capture", "left", "-w", "/nowhere/x"), 1, "cannot write /nowhere/x"),
        (("capture", "left", "--snaplen", "0"), 2, "--snaplen"),
    ],
)
def test_what_is_wrong_is_said(args: tuple[str, ...], status: int, said: str, bed: TestBed) -> None:
    with live(POLICY.replace("MODE", "native"), bed) as gate:
        done = xdpgw(bed, *args)
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr
        assert "Traceback" not in done.stderr
        assert not is_seen(gate)


def test_without_a_filter_there_is_nothing_to_see(bed: TestBed) -> None:
    for command in (("capture", "left"), ("trace",)):
        done = xdpgw(bed, *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no filter is in force in this network namespace" in done.stderr


def test_capture_into_a_pipe_is_read_while_it_goes_on(gate: Live, tmp_path: Path) -> None:
    reading = ["tshark", "-l", "-r", "-", "-T", "fields", "-e", "frame.comment"]
    out = tmp_path / "told"
    with (
        out.open("wb") as told,
        looking_into(gate, tmp_path, "capture", "left", "-w", "-") as command,
        subprocess.Popen(reading, stdin=command.stdout, stdout=told, stderr=told) as reader,
    ):
        assert command.stdout is not None
        command.stdout.close()
        until(lambda: b"looking on" in (tmp_path / "err").read_bytes(), "it looks on")
        gate.send([WEB])
        until(lambda: b"drop rule web" in out.read_bytes(), "the first packet")
        gate.send([DNS])
        until(lambda: b"pass rule dns" in out.read_bytes(), "the second packet")
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 0
        assert reader.wait(60) == 0


def test_capture_ends_with_who_reads_it(gate: Live, tmp_path: Path) -> None:
    with looking_into(gate, tmp_path, "capture", "left", "-w", "-") as command:
        until(lambda: b"looking on" in (tmp_path / "err").read_bytes(), "it looks on")
        assert command.stdout is not None
        command.stdout.close()
        gate.send([WEB])
        assert command.wait(60) == 0
        assert not is_seen(gate)
    assert gate.send([WEB]).rules["web"] == 1


def test_capture_ends_on_a_signal_though_nobody_takes_it(gate: Live, tmp_path: Path) -> None:
    big = f.eth(f.ipv4(f.udp(bytes(1400), dport=53)))
    with looking_into(gate, tmp_path, "capture", "left", "-w", "-") as command:
        until(lambda: b"looking on" in (tmp_path / "err").read_bytes(), "it looks on")
        gate.send([big] * 400)  # a pipe takes 64 KiB
        until(lambda: "pipe" in Path(f"/proc/{command.pid}/wchan").read_text(), "the pipe is full")
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 0
    told = (tmp_path / "err").read_text()
    assert "seen 400 = captured 400 + lost 0 + over the rate 0; " in told
    assert "of the captured could not be written" in told


def test_trace_ends_on_a_second_signal_though_nobody_takes_it(gate: Live, tmp_path: Path) -> None:
    with looking_into(gate, tmp_path, "trace", "left", "--rate", "off") as command:
        until(lambda: b"looking on" in (tmp_path / "err").read_bytes(), "it looks on")
        gate.send([DNS] * 2000)  # a pipe takes 64 KiB
        until(lambda: "pipe" in Path(f"/proc/{command.pid}/wchan").read_text(), "the pipe is full")

        def ended() -> bool:
            command.send_signal(signal.SIGINT)
            return command.poll() is not None

        until(ended, "its end")
        assert command.wait() in (130, -signal.SIGINT)  # told once more at its very end
        assert not is_seen(gate)


@pytest.mark.parametrize("words", [("capture", "left", "-w", "-"), ("trace", "left")])
def test_closed_standard_output_is_one_that_nobody_reads(
    words: tuple[str, ...], gate: Live
) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *_command(gate.bed, *words, "--for", "200ms")]
    done = subprocess.run(closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "seen 0 = captured 0" in done.stderr


@pytest.mark.parametrize("words", [("capture", "left", "-w", "-"), ("trace", "left")])
def test_reader_that_goes_while_no_packet_comes_ends_it(
    words: tuple[str, ...], gate: Live, tmp_path: Path
) -> None:
    with looking_into(gate, tmp_path, *words) as command:
        until(lambda: b"looking on" in (tmp_path / "err").read_bytes(), "it looks on")
        assert command.stdout is not None
        command.stdout.close()
        assert command.wait(60) == 0


@contextmanager
def looking_into(gate: Live, folder: Path, *args: object) -> Iterator[subprocess.Popen[bytes]]:
    """A command whose output is a pipe."""
    with (
        (folder / "err").open("wb") as err,
        subprocess.Popen(_command(gate.bed, *args), stdout=subprocess.PIPE, stderr=err) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def test_flood_into_a_file_is_captured_lost_or_over_the_rate(
    mode: str, bed: TestBed, tmp_path: Path
) -> None:
    file = tmp_path / "x.pcapng"
    for n, rate in enumerate(("off", "5000/s")):
        with live(POLICY.replace("MODE", mode), bed) as gate:
            args = ("capture", "left", "udp", "--rate", rate, "--json", "-w", file)
            with looking(bed, tmp_path / str(n), *args) as command:
                flood(gate, DNS, FLOOD, "live" if mode == "native" else "afxdp")
                assert command.end() == 0
            told = json.loads(command.out.read_text().splitlines()[-1])
            assert told["seen"] == gate.books().rules["dns"] > FLOOD // 4
            assert told["seen"] == told["captured"] + told["lost"] + told["limited"]
            assert told["captured"] == told["written"] == len(tshark(file, "frame.comment"))
            assert (told["limited"] > 0) == (rate != "off")


def flood(gate: Live, frame: bytes, count: int, engine: Literal["live", "afxdp"]) -> None:
    """Send one frame as fast as it goes."""
    with gate.bed.peer.entered():
        generate("left-peer", [frame], count=count, engine=engine)
    until(gate.adds_up, "all that came is counted")


def test_count_and_time_end_it(gate: Live, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    with looking(gate.bed, tmp_path, "capture", "left", "-w", file, "--count", 3) as command:
        gate.send([WEB, DNS] * 5)
        assert command.process.wait(60) == 0
    assert list(read_frames(file)) == [WEB, DNS, WEB]
    done = xdpgw(gate.bed, "trace", "left", "--for", "200ms")
    assert (done.returncode, done.stdout) == (0, "")
    assert "seen 0 = captured 0" in done.stderr


def test_snaplen_keeps_the_head_and_the_length(gate: Live, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    args = ("capture", "left", "-w", file, "--snaplen", 20, "--count", 1)
    with looking(gate.bed, tmp_path, *args) as command:
        gate.send([DNS])
        assert command.process.wait(60) == 0
    assert list(read_frames(file)) == [DNS[:20]]
    assert tshark(file, "frame.len", "frame.cap_len") == [(str(len(DNS)), "20")]


def test_full_disk_leaves_whole_packets_and_is_told(gate: Live, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
    try:
        file, big = disk / "x.pcapng", f.eth(f.ipv4(f.udp(bytes(1400), dport=53)))
        with looking(gate.bed, tmp_path, "capture", "left", "-w", file) as command:
            for _ in range(4):
                gate.send([big] * 40)
            command.said("cannot write the capture: No space left on device")
            assert command.end() == 1
            command.said("seen 160 = captured 160")
            command.said("is not whole")
        frames = list(read_frames(file))
        assert 0 < len(frames) < 160
        assert set(frames) == {big}
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("before", [b"", b"kept"])
def test_full_disk_behind_standard_output_costs_nothing_that_is_there(
    before: bytes, gate: Live, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
    try:
        big, out = f.eth(f.ipv4(f.udp(bytes(1400), dport=53))), disk / "out"
        out.write_bytes(before)
        (tmp_path / "out.txt").symlink_to(out)
        with looking(gate.bed, tmp_path, "capture", "left", "-w", "-") as command:
            for _ in range(4):
                gate.send([big] * 40)
            command.said("cannot write the capture: No space left on device")
            assert command.end() == 1
        whole = tmp_path / "whole"
        whole.write_bytes(out.read_bytes().removeprefix(before))
        assert out.read_bytes() == before + whole.read_bytes()
        frames = list(read_frames(whole))
        assert 0 < len(frames) < 160
        assert len(tshark(whole, "frame.number")) == len(frames)  # which complains of half a packet
        assert set(frames) == {big}
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("words", [("status",), ("sources", "--json"), ("trace", "--count", "1")])
def test_output_that_takes_no_more_is_a_sentence(words: tuple[str, ...], gate: Live) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            _command(gate.bed, *words), stdout=full, stderr=subprocess.PIPE, text=True
        )

        def is_done() -> bool:
            gate.send([DNS])
            return process.poll() is not None

        until(is_done, "the end")
        said = process.communicate()[1]
    assert process.returncode == 1
    assert said.splitlines()[-1] == (
        "xdpgw: cannot write to standard output: No space left on device"
    )
    assert "Traceback" not in said


def test_trace_tells_all_ports_and_json(bed: TestBed, tmp_path: Path) -> None:
    both = POLICY.replace("MODE", "native") + '[ports.right]\nmode = "generic"\n'
    with (
        live(both, bed) as gate,
        looking(gate.bed, tmp_path, "trace", "--json") as command,
        bed.wire("left") as left,
        bed.wire("right") as right,
    ):
        left.send([WEB])
        command.printed(1)
        right.send([DNS])
        lines = [json.loads(line) for line in command.printed(2)]
        assert [(x["port"], x["verdict"], x["reason"], x["rule"]) for x in lines] == [
            ("left", "drop", "rule", "web"),
            ("right", "pass", "rule", "dns"),
        ]
        assert command.end() == 0
        command.said("seen 2 = captured 2")


def test_frames_of_several_buffers_are_captured_whole(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    with TestBed(("left",), mtu=9000) as bed, live(POLICY.replace("MODE", mode), bed) as gate:
        frames = [
            f.eth(f.ipv4(f.udp(bytes(n % 251 for n in range(length - 42)), dport=53)))
            for length in (60, 3506, 4096, 9014)
        ]
        with looking(gate.bed, tmp_path, "capture", "left", "-w", file, "--count", 4) as command:
            gate.send(frames)
            assert command.process.wait(60) == 0
        assert list(read_frames(file)) == frames
        assert len(tshark(file, "frame.comment")) == 4


def test_frames_for_a_socket_get_there_under_a_capture(
    mode: str, bed: TestBed, tmp_path: Path
) -> None:
    policy = tmp_path / "edge.toml"
    policy.write_text(
        POLICY.replace("MODE", mode).replace("dns   pass", "dns   af_xdp some else drop")
        + '[af_xdp.some]\nhandler = "reflect"\n'
    )
    file = tmp_path / "x.pcapng"
    with running(bed, tmp_path, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        with looking(bed, tmp_path / "capture", "capture", "left", "-w", file) as command:
            wire.send([DNS] * 3)
            assert wire.receive(3) == [DNS[6:12] + DNS[:6] + DNS[12:]] * 3
            assert command.end() == 0
    assert list(read_frames(file)) == [DNS] * 3
    assert tshark(file, "frame.comment") == [("af_xdp rule dns",)] * 3


def test_reloads_under_a_flood_lose_no_book(bed: TestBed, tmp_path: Path) -> None:
    """Each frame is judged, whoever looks on, and what is seen of them is in the file or told."""
    text = POLICY.replace("MODE", "native")
    file = tmp_path / "x.pcapng"
    with live(text, bed) as gate:
        with looking(gate.bed, tmp_path, "capture", "left", "-w", file, "--json") as command:
            sender = threading.Thread(target=flood, args=(gate, DNS, FLOOD, "live"))
            sender.start()
            for n in range(8):
                gate.apply(text if n % 2 else text.replace("web ", "www "))
                until(
                    lambda n=n: command.err.read_text().count("policy was replaced") > n,
                    "it looks on again",
                )
            sender.join()
            assert command.end() == 0
        told = json.loads(command.out.read_text())
        assert told["seen"] == told["captured"] + told["lost"] + told["limited"] > 0
        assert told["captured"] == len(tshark(file, "frame.comment"))
        assert told["seen"] <= gate.books().rules["dns"]


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_trace_ends_with_who_reads_it(how: tuple[str, ...], gate: Live, tmp_path: Path) -> None:
    with looking_into(gate, tmp_path, "trace", *how) as command:
        until(lambda: b"looking on" in (tmp_path / "err").read_bytes(), "it looks on")
        assert command.stdout is not None
        gate.send([WEB])
        assert b"web" in command.stdout.readline()
        command.stdout.close()
        gate.send([WEB])
        assert command.wait(60) == 0
    assert "Traceback" not in (tmp_path / "err").read_text()
