"""Frames of several buffers: ports with an MTU beyond what a driver puts into one page."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests import frames as f
from tests.bpf.verified import kernel_at_least
from tests.net.live import live
from xdpgw import config, gateway
from xdpgw._abi import Reason, Verdict
from xdpgw.errors import KernelError, UnsupportedError
from xdpgw.kernel import BpfObject
from xdpgw.pins import Instance
from xdpgw.testbed import TestBed

MTU = 9000
POLICY = """
[policy]
rules = \"\"\"
back    tx    udp to port 7
large   drop  len 9014
larger  pass  len 9000-9013
\"\"\"
[ports.left]
mode = "MODE"
[log]
sources = "off"
"""

pytestmark = pytest.mark.skipif(
    not kernel_at_least(5, 18), reason="multi-buffer XDP came with kernel 5.18"
)


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",), mtu=MTU) as made:
        yield made


def frame(length: int, dport: int = 9) -> bytes:
    """A UDP frame of so many bytes, none like its neighbour."""
    made = f.eth(f.ipv4(f.udp(bytes(n % 251 for n in range(length - 42)), dport=dport)))
    assert len(made) == length
    return made


def set_mtu(bed: TestBed, size: int) -> None:
    """Of the gateway's end."""
    from pyroute2 import IPRoute

    with bed.gateway.entered(), IPRoute() as ip:
        ip.link("set", index=socket.if_nametoindex("left"), mtu=size)


@contextmanager
def mtu(bed: TestBed, size: int) -> Iterator[None]:
    """Another MTU of the gateway's end while the context lasts."""
    set_mtu(bed, size)
    try:
        yield
    finally:
        set_mtu(bed, MTU)


def test_jumbo_frames_are_judged_by_their_whole_length(mode: str, bed: TestBed) -> None:
    whole = frame(9013)
    with live(POLICY.replace("MODE", mode), bed) as gate, bed.host() as host:
        assert gate.manifest.ports["left"].mode == mode
        assert gate.send([frame(9014), frame(9014), whole, frame(8999)]).rules == {
            "back": 0,
            "large": 2,
            "larger": 1,
        }
        assert host.receive(2) == [whole, frame(8999)]
        assert host.waiting() == []
        assert gate.books().counters[Verdict.PASS, Reason.DEFAULT] == 1


@pytest.mark.parametrize("length", [60, 1514, 4096, 9014])
def test_jumbo_port_sends_frames_of_any_length_back_whole(
    mode: str, bed: TestBed, length: int
) -> None:
    with live(POLICY.replace("MODE", mode), bed) as gate, bed.wire() as wire:
        sent = frame(length, dport=7)
        assert gate.send([sent] * 3).rules == {"back": 3, "large": 0, "larger": 0}
        assert wire.receive(3) == [sent] * 3


def test_jumbo_port_with_auto_gets_native(bed: TestBed) -> None:
    with live(POLICY.replace("MODE", "auto"), bed) as gate:
        assert gate.manifest.ports["left"].mode == "native"
        assert gate.manifest.ports["left"].note is None


def test_reload_follows_the_mtu_both_ways(bed: TestBed) -> None:
    policy = POLICY.replace("MODE", "generic")
    with live(policy, bed) as gate, mtu(bed, 1500):
        assert gate.apply(policy).switched == ("left",)
        set_mtu(bed, MTU)
        assert gate.apply(policy).switched == ("left",)
        assert gate.send([frame(9014)]).rules["large"] == 1


def test_reload_that_the_driver_refuses_leaves_the_policy_in_force(bed: TestBed) -> None:
    """The peer still sends frames of 9,000 bytes, which a single-buffer program cannot take."""
    policy = POLICY.replace("MODE", "native")
    with live(policy, bed) as gate:
        in_force = gate.instance.manifest()
        with mtu(bed, 1500), pytest.raises(KernelError, match="does not take the new") as caught:
            gate.apply(policy)
        assert caught.value.errno == errno.ERANGE
        assert "xdpgw detach, then start anew" in (caught.value.hint or "")
        assert gate.instance.manifest() == in_force
        assert gate.send([frame(9014)]).rules["large"] == 1


def test_kernel_without_multi_buffer_is_a_sentence(
    bed: TestBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BpfObject.load

    def old_kernel(obj: BpfObject, **settings: Any) -> None:
        if settings.get("prog_flags"):
            raise KernelError("loading xdpgw failed: Invalid argument", None, errno.EINVAL)
        real(obj, **settings)

    monkeypatch.setattr(BpfObject, "load", old_kernel)
    with bed.gateway.entered():
        instance = Instance()
        with pytest.raises(UnsupportedError, match="port left has an MTU over 3506") as caught:
            gateway.apply(config.loads(POLICY.replace("MODE", "native")), instance)
        assert not instance.linked_ports()
        # Generic mode makes one buffer of a frame, and asks nothing of the kernel.
        gateway.apply(config.loads(POLICY.replace("MODE", "generic")), instance)
        gateway.detach(instance)
    assert "kernel 5.18" in (caught.value.hint or "")
