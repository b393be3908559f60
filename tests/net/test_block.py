"""Blocks on a live port, by the commands: at once, in time, and over restarts of all kinds."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.live import live
from tests.net.process import Running, data, running, until, xdpgw
from xdpgw import _abi as abi
from xdpgw import blocks, gateway
from xdpgw._abi import Reason, Verdict
from xdpgw.errors import XdpgwError
from xdpgw.literals import addresses
from xdpgw.pins import Instance
from xdpgw.state import ENVIRONMENT
from xdpgw.testbed import TestBed

POLICY = """
[policy]
default = "pass"
allow = ["198.51.100.0/24"]
[ports.left]
mode = "MODE"
[log]
sources = "off"
"""
NATIVE = POLICY.replace("MODE", "native")
BLOCKED = (Verdict.DROP, Reason.BLOCK)
PASSED = (Verdict.PASS, Reason.DEFAULT)
SOURCE4, SOURCE6 = "192.0.2.7", "2001:db8::7"
FRAME4 = f.eth(f.ipv4(f.udp(b"x", dport=9), src=SOURCE4), pad=60)
FRAME6 = f.eth(f.ipv6(f.udp(b"x", dport=9), src=SOURCE6))


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where blocks are kept by this test, and no other."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "state"))
    return tmp_path / "state"


def done(bed: TestBed, *words: object) -> str:
    """What a command that succeeds prints."""
    got = xdpgw(bed, *words)
    assert got.returncode == 0, got.stderr
    return got.stdout


def refused(bed: TestBed, *words: object) -> str:
    """What a command that fails says."""
    got = xdpgw(bed, *words)
    assert (got.returncode, got.stdout) == (1, ""), got
    assert "Traceback" not in got.stderr
    return got.stderr


def listed(bed: TestBed) -> dict[str, str]:
    """Sources and reasons of what is blocked."""
    return {x["source"]: x["reason"] for x in data(bed, "blocks")}


def test_block_works_at_once_and_until_unblocked(mode: str, bed: TestBed) -> None:
    with live(POLICY.replace("MODE", mode), bed) as gate, bed.host() as host:
        assert gate.send([FRAME4, FRAME6]).counters == {PASSED: 2}
        assert host.receive(2) == [FRAME4, FRAME6]
        assert done(bed, "block", SOURCE4, "2001:db8::/32", "--reason", "probes") == (
            "192.0.2.7, 2001:db8::/32: blocked\n"
        )
        assert gate.send([FRAME4, FRAME6]).counters == {BLOCKED: 2}
        assert listed(bed) == {SOURCE4: "probes", "2001:db8::/32": "probes"}
        assert done(bed, "unblock", SOURCE4) == "192.0.2.7: unblocked\n"
        assert gate.send([FRAME4, FRAME6]).counters == {PASSED: 1, BLOCKED: 1}
        assert host.receive(1) == [FRAME4]
        assert done(bed, "unblock", "--all") == "1 unblocked\n"
        assert gate.send([FRAME6]).counters == {PASSED: 1}
        assert done(bed, "blocks") == "nothing is blocked\n"


def test_block_ends_with_its_time_without_anyone(mode: str, bed: TestBed) -> None:
    with live(POLICY.replace("MODE", mode), bed) as gate:
        assert done(bed, "block", SOURCE4, "--for", "2s") == "192.0.2.7: blocked for 2s\n"
        done(bed, "block", SOURCE6, "--for", "1h")
        assert gate.send([FRAME4]).counters == {BLOCKED: 1}
        until(lambda: gate.send([FRAME4]).counters == {PASSED: 1}, "the end of the block")
        # It is in the table still: nobody swept it.
        assert len(dict(gate.maps["blocks"].items())) == 2
        assert list(listed(bed)) == [SOURCE6]
        assert len(dict(gate.maps["blocks"].items())) == 1
        assert gate.send([FRAME6]).counters == {BLOCKED: 1}


def test_blocks_show_time_left_since_and_reason(bed: TestBed) -> None:
    with live(NATIVE, bed):
        done(bed, "block", SOURCE4, "--for", "10m", "--reason", 'says "hi"')
        done(bed, "block", SOURCE6)
        head, first, second = done(bed, "blocks").splitlines()
        assert head.split() == ["source", "left", "since", "reason"]
        assert first.split()[:2] == [SOURCE4, "9m59s"] or first.split()[:2] == [SOURCE4, "10m0s"]
        assert first.endswith('  says "hi"')
        assert second.split()[:3] == [SOURCE6, "no", "end"]
        shown = data(bed, "blocks")
        assert 540 < shown[0]["left_s"] <= 600
        assert shown[1]["left_s"] is None
        assert all(0 <= x["since_ns"] - shown[0]["since_ns"] < 60 * 10**9 for x in shown)


def test_block_again_never_lets_a_packet_through(mode: str, bed: TestBed) -> None:
    with live(POLICY.replace("MODE", mode), bed) as gate, bed.host() as host:
        done(bed, "block", SOURCE4)
        stop, sent = threading.Event(), [0]

        def send() -> None:
            while not stop.is_set():
                sent[0] += sum(gate.send([FRAME4] * 20).counters.values())

        sender = threading.Thread(target=send)
        sender.start()
        try:
            until(lambda: sent[0] > 100, "packets before")
            for n in range(300):
                with bed.gateway.entered():
                    blocks.add(gate.instance, addresses(SOURCE4), for_ns=(n + 1) * 10**12)
            mark = sent[0]
            until(lambda: sent[0] > mark + 100, "packets after")
        finally:
            stop.set()
            sender.join()
        assert gate.books().counters == {BLOCKED: sent[0]}
        assert host.waiting() == []


def test_reload_keeps_blocks_and_takes_the_new_allow(mode: str, bed: TestBed) -> None:
    policy = POLICY.replace("MODE", mode)
    with live(policy, bed) as gate:
        done(bed, "block", SOURCE4, SOURCE6, "--for", "1h")
        gate.apply(policy.replace('default = "pass"', 'default = "drop"'))
        assert gate.send([FRAME4, FRAME6]).counters == {BLOCKED: 2}
        gate.apply(policy.replace("198.51.100.0/24", SOURCE4))
        assert gate.send([FRAME4, FRAME6]).counters == {PASSED: 1, BLOCKED: 1}
        gate.apply(policy)
        assert gate.send([FRAME4, FRAME6]).counters == {BLOCKED: 2}


def test_detach_and_attach_keep_blocks(mode: str, bed: TestBed) -> None:
    policy = POLICY.replace("MODE", mode)
    with live(policy, bed) as gate:
        done(bed, "block", SOURCE4, "--for", "1h", "--reason", "probes")
        done(bed, "block", SOURCE6, "203.0.113.0/24")
        done(bed, "unblock", SOURCE6)
        shown = data(bed, "blocks")
    with live(policy, bed) as gate:
        assert gate.send([FRAME4, FRAME6]).counters == {BLOCKED: 1, PASSED: 1}
        again = data(bed, "blocks")
        for before, now in zip(shown, again, strict=True):
            for name in ("source", "since_ns", "reason"):
                assert before[name] == now[name]
        assert 3500 < again[0]["left_s"] < shown[0]["left_s"]
        assert again[1]["left_s"] is None


def test_run_killed_keeps_blocks_and_the_next_one_says_so(
    bed: TestBed, mode: str, tmp_path: Path
) -> None:
    policy = tmp_path / "edge.toml"
    policy.write_text(POLICY.replace("MODE", mode))
    with running(bed, tmp_path, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        done(bed, "block", SOURCE4)
        run.process.kill()
        run.process.wait()
        wire.send([FRAME4, FRAME6])
        assert host.receive(1) == [FRAME6]
        done(bed, "block", SOURCE6)  # an orphan's, too
        second = Running(bed, tmp_path, "run", policy)
        second.said("left: switched to the new policy")
        wire.send([FRAME4, FRAME6])
        until(lambda: blocked_of(bed) == 3, "three packets blocked")
        assert second.end() == 0
        done(bed, "detach")
        third = Running(bed, tmp_path, "run", policy)
        third.said("blocked as before: 2 sources, by ")
        wire.send([FRAME4, FRAME6])
        until(lambda: blocked_of(bed) == 2, "two packets blocked")
        assert third.end() == 0
        assert host.waiting() == []


def blocked_of(bed: TestBed) -> int:
    """Packets with the reason block."""
    ports = data(bed, "status")["ports"]
    return sum(x["packets"] for x in ports[0]["counters"] if x["reason"] == "block")


def test_run_takes_blocks_that_are_over_out(bed: TestBed) -> None:
    with live(NATIVE, bed) as gate, bed.gateway.entered():
        said: list[str] = []
        blocks.add(gate.instance, addresses("192.0.2.0-192.0.2.9"), for_ns=1)
        blocks.add(gate.instance, addresses(SOURCE6), for_ns=None)
        with blocks.sweeping(gate.instance, said.append, every_s=0.01):
            until(lambda: len(dict(gate.maps["blocks"].items())) == 1, "the table swept")
        assert said == []
        assert blocks.tidy(gate.instance) == 0
        assert list(listed(bed)) == [SOURCE6]


def test_tidy_of_a_filter_that_is_gone_leaves_nothing(bed: TestBed) -> None:
    with bed.gateway.entered():
        assert blocks.tidy(Instance()) == 0


def test_many_processes_at_once_lose_nothing(bed: TestBed) -> None:
    command = [sys.executable, "-m", "xdpgw", "--netns", bed.gateway.path, "block"]
    with live(NATIVE, bed) as gate:
        started = [
            subprocess.Popen([*command, f"192.0.2.{n}"], stdout=subprocess.DEVNULL)
            for n in range(12)
        ]
        for n in range(3):
            gate.apply(NATIVE.replace('default = "pass"', f'default = "{("pass", "drop")[n % 2]}"'))
        assert [process.wait(60) for process in started] == [0] * 12
        wanted = {f"192.0.2.{n}" for n in range(12)}
        assert set(listed(bed)) == wanted
    with live(NATIVE, bed):
        assert set(listed(bed)) == wanted


def test_block_500_000_by_a_file_and_no_more(bed: TestBed, tmp_path: Path) -> None:
    feed = tmp_path / "feed.netset"
    feed.write_text("# a feed\n" + "".join(f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}\n"
                                           for n in range(abi.BLOCK_SLOTS - 1)))  # fmt: skip
    with live(NATIVE, bed) as gate:
        said = done(bed, "block", "--file", feed, "--for", "1d", "--reason", "feed")
        assert said.endswith("172.16.0.4 and 499994 more: blocked for 1d\n")
        assert "of these 3, from the first on, are blocked now" in refused(
            bed, "block", SOURCE4, SOURCE6, "203.0.113.9"
        )
        assert gate.send([FRAME4, FRAME6]).counters == {BLOCKED: 1, PASSED: 1}
        # One of the many is over: there is room again, which the next block finds by itself.
        assert done(bed, "block", "172.16.0.5", "--for", "1s").endswith("for 1s\n")
        until(lambda: xdpgw(bed, "block", SOURCE6).returncode == 0, "room for one more")
        assert gate.send([FRAME4, FRAME6]).counters == {BLOCKED: 2}
        assert len(data(bed, "blocks")) == abi.BLOCK_SLOTS
    with live(NATIVE, bed) as gate:
        last = f.eth(f.ipv4(f.udp(), src="172.23.161.30"), pad=60)
        assert gate.send([FRAME4, FRAME6, last]).counters == {BLOCKED: 3}
        assert done(bed, "unblock", "--all") == "500000 unblocked\n"
        assert gate.send([FRAME4, FRAME6, last]).counters == {PASSED: 3}
    with live(NATIVE, bed):
        assert listed(bed) == {}


def test_block_reads_stdin(bed: TestBed) -> None:
    command = [sys.executable, "-m", "xdpgw", "--netns", bed.gateway.path, "block", "-"]
    with live(NATIVE, bed):
        subprocess.run(command, input=b"192.0.2.7\n# or\n::/64\n", check=True, timeout=60)
        assert list(listed(bed)) == [SOURCE4, "::/64"]
        subprocess.run(command, input=b"", check=True, timeout=60)
        assert list(listed(bed)) == [SOURCE4, "::/64"]


def test_block_of_what_is_allowed_is_refused_or_warned_of(bed: TestBed) -> None:
    with live(NATIVE, bed) as gate:
        err = refused(bed, "block", SOURCE4, "198.51.100.9", "198.51.100.0/25")
        assert "cannot be blocked: 198.51.100.9, 198.51.100.0/25" in err
        assert listed(bed) == {}
        got = xdpgw(bed, "block", "198.0.0.0/8")
        assert got.returncode == 0
        assert "warning: the policy allows a part of it, which is not blocked" in got.stderr
        allowed = f.eth(f.ipv4(f.udp(), src="198.51.100.9"), pad=60)
        other = f.eth(f.ipv4(f.udp(), src="198.51.101.9"), pad=60)
        assert gate.send([allowed, other]).counters == {PASSED: 1, BLOCKED: 1}


def test_block_of_everything_leaves_what_is_allowed_and_no_ip(mode: str, bed: TestBed) -> None:
    with live(POLICY.replace("MODE", mode), bed) as gate:
        done(bed, "block", "0.0.0.0/0", "::/0", "--force")
        allowed = f.eth(f.ipv4(f.udp(), src="198.51.100.9"), pad=60)
        got = gate.send([FRAME4, FRAME6, allowed, f.eth(f.arp(), pad=60)])
        assert got.counters == {BLOCKED: 2, PASSED: 2}


def test_block_of_ones_own_session_is_refused(
    bed: TestBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", f"{SOURCE4} 40000 10.2.0.2 22")
    with live(NATIVE, bed):
        assert "192.0.2.0/24 covers 192.0.2.7" in refused(bed, "block", "192.0.2.0/24")
        done(bed, "block", "192.0.2.0/24", "--force")
        assert list(listed(bed)) == ["192.0.2.0/24"]


def test_unblock_of_what_is_not_blocked_is_an_error(bed: TestBed) -> None:
    with live(NATIVE, bed):
        assert "not blocked: 192.0.2.7" in refused(bed, "unblock", SOURCE4)
        done(bed, "block", "192.0.2.0/24", SOURCE6)
        assert "192.0.2.0/24 is, and covers 192.0.2.7" in refused(bed, "unblock", SOURCE4)
        got = xdpgw(bed, "unblock", SOURCE6, "10.0.0.1")
        assert (got.returncode, got.stdout) == (1, "2001:db8::7: unblocked\n")
        assert "not blocked: 10.0.0.1" in got.stderr
        assert list(listed(bed)) == ["192.0.2.0/24"]
        done(bed, "unblock", "--all")
        assert done(bed, "unblock", "--all") == "nothing was blocked\n"


def test_block_that_cannot_be_kept_says_so_and_holds(bed: TestBed, state: Path) -> None:
    state.write_text("in the way")
    with live(NATIVE, bed) as gate:
        err = refused(bed, "block", SOURCE4)
        assert f"cannot write {state}/" in err
        assert "is not kept" in err
        assert gate.send([FRAME4]).counters == {BLOCKED: 1}


def test_start_with_a_file_of_another_version_attaches_nothing(bed: TestBed, state: Path) -> None:
    with live(NATIVE, bed) as gate:
        done(bed, "block", SOURCE4)
        file = gate.instance.state / "blocks"
    assert file.is_relative_to(state)
    file.write_text(file.read_text().replace('["#",1,', '["#",99,'))
    with bed.gateway.entered():
        instance = Instance()
        try:
            with pytest.raises(XdpgwError, match="written by another version"), live(NATIVE, bed):
                pytest.fail("it started")
            assert instance.linked_ports() == []
            assert not instance.exists
        finally:
            gateway.detach(instance)


def test_start_tells_of_lines_that_it_cannot_read(bed: TestBed, tmp_path: Path) -> None:
    policy = tmp_path / "edge.toml"
    policy.write_text(NATIVE)
    with live(NATIVE, bed) as gate:
        done(bed, "block", SOURCE4)
        file = gate.instance.state / "blocks"
    with file.open("a") as journal:
        journal.write("garbage\n" + json.dumps(["+", SOURCE6, None, 1, ""])[:20])
    with running(bed, tmp_path, "run", policy) as run:
        run.said("blocked as before: 1 sources")
        assert "1 could not be taken over" in run.err.read_text()
        done(bed, "block", "203.0.113.9")
        assert set(listed(bed)) == {SOURCE4, "203.0.113.9"}
