"""The process in charge: started, signalled, killed, replaced; and commands beside and after it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.process import Running, data, running, until, xdpgw
from xdpgw.testbed import TestBed

FRAME = f.eth(f.ipv4(f.udp(b"x", dport=9)))
POLICY = """
[policy]
rules = \"\"\"
nine  drop  udp to port 9
\"\"\"
[ports.left]
mode = "MODE"
[log]
sources = "every"
sinks = ["stdout", { jsonl = "events.jsonl" }]
[gateway]
on_exit = "EXIT"
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


@pytest.fixture
def policy(tmp_path: Path, mode: str) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(POLICY.replace("MODE", mode).replace("EXIT", "keep"))
    return path


def received(bed: TestBed) -> int:
    """Packets that the filter counted."""
    return sum(port["received"]["packets"] for port in data(bed, "status")["ports"])


def start(bed: TestBed, policy: Path) -> Running:
    """The command, in force."""
    run = Running(bed, policy.parent, "run", policy)
    run.said("left: ")
    return run


def test_run_logs_to_all_sinks_and_ends_on_ctrl_c(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        wire.send([FRAME] * 5)
        lines = run.printed(5)
        assert all("drop  rule nine" in line for line in lines)
        assert run.end(signal.SIGINT) == 0
        events = [json.loads(x) for x in (policy.parent / "events.jsonl").read_text().splitlines()]
        assert [(x["port"], x["src"], x["rule"]) for x in events] == [("left", f.A4, "nine")] * 5
        # on_exit = "keep": it still filters.
        state = data(bed, "status")
        assert state["in_charge"] is False
        assert state["ports"][0]["attached"] is True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_on_exit_detach_leaves_nothing(
    bed: TestBed, policy: Path, number: signal.Signals
) -> None:
    policy.write_text(policy.read_text().replace("keep", "detach"))
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        assert run.end(number) == 0
        assert xdpgw(bed, "status").returncode == 1
        assert "nothing to detach" in xdpgw(bed, "detach").stderr


def test_run_killed_leaves_the_filter_and_the_next_start_adopts_it(
    bed: TestBed, policy: Path
) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        run.process.kill()
        run.process.wait()
        stop, sent = threading.Event(), [0]

        def send() -> None:
            while not stop.is_set():
                sent[0] += wire.send([FRAME])
                stop.wait(0.0005)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            until(lambda: sent[0] > 50, "packets before the adoption")
            second = Running(bed, policy.parent, "run", policy)
            second.said("left: switched to the new policy")
            mark = sent[0]
            until(lambda: sent[0] > mark + 50, "packets after the adoption")
        finally:
            stop.set()
            sender.join()
        # Each packet met the old program or the new one: all counted, none let through.
        until(lambda: received(bed) == sent[0], f"{sent[0]} packets counted")
        assert host.waiting() == []
        rules = data(bed, "rules")
        assert rules[0]["packets"] == sent[0]
        # What was in the ring while nobody read it is not lost.
        until(
            lambda: (policy.parent / "events.jsonl").read_text().count("\n") == sent[0],
            f"{sent[0]} events",
        )
        assert second.end() == 0


def test_second_run_is_refused_and_names_the_first(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        done = xdpgw(bed, "run", policy)
        assert done.returncode == 3
        assert f"pid {run.process.pid}" in done.stderr
        assert "Traceback" not in done.stderr
        assert run.process.poll() is None


def test_sighup_reads_the_file_again_and_a_bad_file_changes_nothing(
    bed: TestBed, policy: Path
) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        good = policy.read_text()
        policy.write_text(good.replace("nine ", "neun "))
        run.tell(signal.SIGHUP)
        run.said("switched to the new policy")
        wire.send([FRAME])
        assert "drop  rule neun" in run.printed(1)[0]
        policy.write_text(good.replace("nine  drop", "nine  dorp"))
        run.tell(signal.SIGHUP)
        run.said("the policy in force stays in force")
        assert 'did you mean "drop"?' in run.err.read_text()
        wire.send([FRAME])
        assert "drop  rule neun" in run.printed(2)[1]


def test_reload_by_another_process_is_followed(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        other = policy.with_name("other.toml")
        other.write_text(policy.read_text().replace("nine ", "other "))
        done = xdpgw(bed, "reload", other)
        assert (done.returncode, done.stderr) == (0, "")
        assert "left: switched to the new policy" in done.stdout
        run.said("replaced by another process")
        wire.send([FRAME])
        assert "drop  rule other" in run.printed(1)[0]
        assert xdpgw(bed, "rules").stdout == "other  drop  udp to port 9\n"


def test_reload_by_another_process_that_cannot_be_read_here_ends_nothing(
    bed: TestBed, policy: Path
) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        feed, other = policy.with_name("feed"), policy.with_name("other.toml")
        feed.write_text("10.9.9.9\n")
        text = policy.read_text().replace("nine ", "gone drop from @feed\nother ")
        other.write_text(f'{text}\n[sets]\nfeed = [{{ file = "feed", refresh = "1s" }}]\n')
        run.tell(signal.SIGSTOP)
        assert xdpgw(bed, "reload", other).returncode == 0
        feed.unlink()
        run.tell(signal.SIGCONT)
        run.said("until the next reload")
        wire.send([FRAME])
        assert "drop  rule other" in run.printed(1)[0]
        run.tell(signal.SIGHUP)
        run.said("switched to the new policy")
        wire.send([FRAME])
        assert "drop  rule nine" in run.printed(2)[1]


def test_reload_without_a_file_takes_the_one_in_force(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        run.process.kill()
        run.process.wait()
        policy.write_text(policy.read_text().replace("nine ", "again "))
        assert xdpgw(bed, "reload").returncode == 0
        assert data(bed, "rules")[0]["name"] == "again"


def test_detach_by_another_process_ends_the_run(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        assert xdpgw(bed, "detach").stdout == "left: detached\n"
        assert run.process.wait(10) == 0
        assert "detached by another process" in run.err.read_text()


@pytest.mark.parametrize(
    "command",
    [["status"], ["rules"], ["reload"], ["block", "::1"], ["unblock", "--all"], ["blocks"]],
)
def test_commands_without_a_filter_say_so(bed: TestBed, command: list[str]) -> None:
    done = xdpgw(bed, *command)
    assert done.returncode == 1
    assert "no filter is in force" in done.stderr


def test_port_held_by_netlink_names_the_holder_and_changes_nothing(
    bed: TestBed, policy: Path, mode: str
) -> None:
    flag = {"native": "xdpdrv", "generic": "xdpgeneric"}[mode]
    with resources.as_file(resources.files("xdpgw") / "bpf" / "pass.bpf.o") as obj:
        attach = ["ip", "link", "set", "left", flag, "object", str(obj), "sec", "xdp"]
        with bed.gateway.entered():
            subprocess.run(attach, check=True)
    try:
        done = xdpgw(bed, "run", policy)
        assert done.returncode == 3
        assert "port left is held by" in done.stderr
        assert "pass" in done.stderr
        assert xdpgw(bed, "status").returncode == 1
    finally:
        with bed.gateway.entered():
            subprocess.run(["ip", "link", "set", "left", flag, "off"], check=True)


def test_port_held_by_another_link_names_its_process(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "sourceip", "left") as other:
        until(lambda: b"xdp" in link_show(bed), "sourceip attached")
        done = xdpgw(bed, "run", policy)
        assert done.returncode == 3
        assert f"{other.process.pid}" in done.stderr


def link_show(bed: TestBed) -> bytes:
    """ip link show left."""
    with bed.gateway.entered():
        return subprocess.run(
            ["ip", "link", "show", "left"], check=True, capture_output=True
        ).stdout


def test_sourceip_prints_the_source_of_every_packet(
    bed: TestBed, tmp_path: Path, mode: str
) -> None:
    frames = [
        f.eth(f.ipv4(f.udp(b"x"), src="192.0.2.77")),
        f.eth(f.vlan(5), f.ipv6(f.tcp(), src="2001:db8::77")),
        f.eth(f.arp()),
        f.eth(f.ipv4(f.udp(b"y"), src="192.0.2.77")),
    ]
    with (
        running(bed, tmp_path, "sourceip", "left", "--mode", mode) as run,
        bed.wire() as wire,
        bed.host() as host,
    ):
        until(lambda: b"xdp" in link_show(bed), "sourceip attached")
        wire.send(frames)
        assert run.printed(3) == ["192.0.2.77", "2001:db8::77", "192.0.2.77"]
        assert host.receive(4) == frames  # all pass
        assert run.end() == 0
        assert b"xdp" not in link_show(bed)


def test_sourceip_stops_after_count(bed: TestBed, tmp_path: Path) -> None:
    with (
        running(bed, tmp_path, "sourceip", "left", "--count", "2", "--json") as run,
        bed.wire() as wire,
    ):
        until(lambda: b"xdp" in link_show(bed), "sourceip attached")
        wire.send([FRAME] * 5)
        assert run.process.wait(10) == 0
        assert [json.loads(line)["src"] for line in run.printed(2)] == [f.A4] * 2


def test_mtu_too_large_for_native_is_a_sentence_and_auto_goes_generic(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    with TestBed(("left",), mtu=9000) as bed:
        # With an MTU of 9,000 it would get a program for frames of several buffers. With 1,500 it
        # does not, and veth goes by what the peer may send.
        with bed.gateway.entered():
            subprocess.run(["ip", "link", "set", "left", "mtu", "1500"], check=True)
        path.write_text(POLICY.replace("MODE", "native").replace("EXIT", "keep"))
        done = xdpgw(bed, "run", path)
        assert done.returncode == 3
        assert "MTU" in done.stderr
        assert "3506" in done.stderr
        path.write_text(POLICY.replace("MODE", "auto").replace("EXIT", "keep"))
        with running(bed, tmp_path, "run", path) as run:
            run.said("left: not native: port left or its peer has an MTU")
            assert data(bed, "status")["ports"][0]["mode"] == "generic"


@pytest.mark.parametrize(
    "words",
    [["run", "FILE"], ["status"], ["detach"], ["explain", "FILE", "--pcap", "FILE"],
     ["sourceip", "lo"], ["demo"], ["testbed", "up"], ["block", "192.0.2.1"], ["blocks"]],
)  # fmt: skip
def test_without_privilege_every_command_is_a_sentence(tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(POLICY.replace("MODE", "auto").replace("EXIT", "keep").replace("left", "lo"))
    command = [word.replace("FILE", str(path)) for word in words]
    no_capability = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run(
        [*no_capability, sys.executable, "-m", "xdpgw", *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    if words == ["detach"]:  # there is nothing to detach, whoever asks
        assert done.returncode == 0
    else:
        assert done.returncode in (1, 3)
        assert "root" in done.stderr or words[0] in ("status", "block", "blocks"), done.stderr


def test_demo_shows_both_modes_alike_and_leaves_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xdpgw", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["fine"] is True
    assert len(shown["frames"]) >= 12
    assert {x["native"]["verdict"] for x in shown["frames"]} == {"pass", "drop", "tx", "af_xdp"}
    for frame in shown["frames"]:
        assert frame["native"] == frame["generic"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_interrupted_leaves_nothing(number: signal.Signals) -> None:
    pins = Path("/sys/fs/bpf/xdpgw")
    before = set(pins.iterdir()) if pins.exists() else set()
    process = subprocess.Popen(
        [sys.executable, "-m", "xdpgw", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # In the middle of it: a filter is in force.
    until(lambda: pins.exists() and set(pins.iterdir()) != before, "the demo's filter")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert (set(pins.iterdir()) if pins.exists() else set()) == before
