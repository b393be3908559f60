"""The test beds themselves: quiet, true to the byte, and gone when they are left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import frames as f
from tests.net.process import until
from xdpgw import testbed
from xdpgw.errors import XdpgwError
from xdpgw.testbed import NAMED, Namespace, TestBed
from xdpgw.testing import judge

FRAME = f.eth(f.ipv4(f.udp(b"x", dport=9)))


def here() -> int:
    """The network namespace of this thread."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def test_bed_carries_frames_as_they_are_and_nothing_else() -> None:
    frames = [FRAME, f.eth(f.vlan(5), f.ipv6(f.tcp())), f.eth(f.arp()), bytes(15)]
    with TestBed(("left", "right"), queues=2) as bed:
        for port in bed.ports:
            with bed.wire(port) as wire, bed.host(port) as host:
                assert wire.send(frames) == len(frames)
                assert host.receive(len(frames)) == frames
                assert host.send(frames) == len(frames)
                assert wire.receive(len(frames)) == frames
                assert host.waiting() == wire.waiting() == []
        # Since they were made: what was sent to them, and nothing from the kernel itself.
        assert [bed.received(port) for port in bed.ports] == [len(frames)] * 2


def test_bed_has_the_addresses_queues_and_mtu_that_were_asked_for() -> None:
    with TestBed(("left",), queues=2, mtu=3000, quiet=False) as bed:
        for namespace, name in ((bed.gateway, "left"), (bed.peer, "left-peer")):
            with namespace.entered():
                asked = ["ip", "-json", "-detail", "address", "show", name]
                done = subprocess.run(asked, check=True, capture_output=True)
            (link,) = json.loads(done.stdout)
            assert (link["mtu"], link["num_rx_queues"], link["num_tx_queues"]) == (3000, 2, 2)
            assert link["address"] == testbed.mac("left", peer=namespace is bed.peer)
            number = 1 if namespace is bed.gateway else 2
            locals_ = {each["local"] for each in link["addr_info"]}
            assert {f"192.0.2.{number}", f"2001:db8:0:2::{number}"} <= locals_
        with bed.gateway.entered():
            server = socket.create_server(("192.0.2.1", 0))
        with server, bed.peer.entered():
            socket.create_connection(server.getsockname(), timeout=5).close()


def test_entered_goes_home_after_an_error_and_out_of_another_bed() -> None:
    home = here()
    with TestBed(("left",)) as bed:
        with pytest.raises(ZeroDivisionError), bed.gateway.entered():
            inside = here()
            with bed.peer.entered():
                assert len({home, inside, here()}) == 3
            assert here() == inside
            raise ZeroDivisionError
        assert here() == home
    assert here() == home


def test_bed_of_a_killed_process_is_gone() -> None:
    code = (
        "import sys\nfrom xdpgw.testbed import TestBed\nbed = TestBed(('left',))\n"
        "print(bed.peer.fd, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            fd = int(process.stdout.readline())
            peer = Namespace(os.open(f"/proc/{process.pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)

    def names() -> list[str]:
        with peer.entered():
            return [name for _, name in socket.if_nameindex()]

    # The peer's namespace is kept from here. Its end of the cable goes when the gateway's does.
    until(lambda: names() == ["lo"], "the end of the gateway's namespace")
    peer.close()


@pytest.fixture
def name() -> Iterator[str]:
    """A name for namespaces, which are gone afterwards."""
    chosen = f"t{os.getpid()}"
    yield chosen
    testbed.down(chosen)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xdpgw", "testbed", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_up_and_down_by_name_are_idempotent(name: str) -> None:
    ours = {f"{name}-gw", f"{name}-peer"}
    for made in (True, False):
        done = command("up", "--name", name, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["made"] is made
        assert {told["gateway"], told["peer"]} == ours
        assert ours <= {path.name for path in NAMED.iterdir()}
    said = command("up", "--name", name).stdout
    assert f"xdpgw --netns {name}-gw run" in said
    assert f"xdpgw testbed down --name {name}" in said
    assert set(json.loads(command("down", "--name", name, "--json").stdout)) == ours
    assert not ours & {path.name for path in NAMED.iterdir()}
    again = command("down", "--name", name)
    assert (again.returncode, again.stdout) == (0, "there was nothing to remove\n")


def test_up_beside_half_a_pair_says_what_to_do_and_leaves_it(name: str) -> None:
    subprocess.run(["ip", "netns", "add", f"{name}-peer"], check=True)
    done = command("up", "--name", name)
    assert done.returncode != 0
    assert f"xdpgw testbed down --name {name}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (NAMED / f"{name}-gw").exists()


def test_up_that_fails_half_way_leaves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise XdpgwError("no")

    monkeypatch.setattr(testbed, "_furnish", failing)
    with pytest.raises(XdpgwError, match="no"):
        testbed.up(name)
    assert not [path for path in NAMED.iterdir() if path.name.startswith(f"{name}-")]


def test_judge_of_the_testing_module_needs_no_interface() -> None:
    with judge('[policy]\nrules = "web drop tcp to port 80"') as verdict_of:
        found = verdict_of(f.eth(f.ipv4(f.tcp(dport=80))))
        assert (found["verdict"], found["reason"], found["rule"]) == ("drop", "rule", "web")
        assert verdict_of(FRAME)["reason"] == "default"
