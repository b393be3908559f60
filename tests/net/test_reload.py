"""Changing the policy while packets flow, and when something is in the way."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.live import Live, live
from xdpgw import _abi as abi
from xdpgw import compile, config, gateway
from xdpgw._abi import Reason, Verdict
from xdpgw.errors import AbiMismatch, KernelError, XdpgwError
from xdpgw.kernel import Map
from xdpgw.testbed import TestBed

# Both policies have the same rules, in another order, so that other ones of them decide: x passes
# and y is dropped by ODD, and the reverse by EVEN. Under a mix of the two, with tables of the one
# and rules of the other, a packet would be counted for a rule that does not name its source.
_X, _Y = "udp from 10.1.0.1", "udp from 10.1.0.2"
_RULES = {
    "odd_x": f"odd_x  pass  {_X}",
    "odd_y": f"odd_y  drop  {_Y}",
    "even_x": f"even_x drop  {_X}",
    "even_y": f"even_y pass  {_Y}",
    "both": "both   tx    udp from 10.1.0.3",
}


def _policy(*order: str) -> str:
    rules = "\n".join(_RULES[name] for name in order)
    return (
        f'[policy]\ndefault = "drop"\nrules = """\n{rules}\n"""\n'
        '[ports.left]\nmode = "MODE"\n[log]\nsources = "off"\n'
    )


ODD = _policy("odd_x", "odd_y", "even_x", "even_y", "both")
EVEN = _policy("both", "even_y", "odd_y", "even_x", "odd_x")
SWAPS = 60
IN_FORCE = {"odd_x": 20, "odd_y": 20, "even_x": 0, "even_y": 0, "both": 20}
BURST = [
    f.eth(f.ipv4(f.udp(b"x", dport=9), src=src))
    for src in ("10.1.0.1", "10.1.0.2", "10.1.0.3") * 20
]


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left", "right")) as made:
        yield made


class Sender(threading.Thread):
    """Sends bursts, each when the one before was counted, so that no ring overflows."""

    def __init__(self, gate: Live) -> None:
        super().__init__()
        self.gate = gate
        self.sent = 0
        self.stop = threading.Event()

    def run(self) -> None:
        with self.gate.bed.wire() as wire:
            while not self.stop.is_set():
                before = self.gate.books()
                self.sent += wire.send(BURST)
                self.gate.wait_for(before, len(BURST))


def test_reload_under_traffic_no_packet_is_lost_or_judged_by_a_mix(mode: str, bed: TestBed) -> None:
    odd, even = ODD.replace("MODE", mode), EVEN.replace("MODE", mode)
    with live(odd, bed) as gate:
        before = gate.books()
        sender = Sender(gate)
        sender.start()
        try:
            for number in range(SWAPS):
                applied = gate.apply(even if number % 2 == 0 else odd)
                assert applied.switched == ("left",)
        finally:
            sender.stop.set()
            sender.join()
        after = gate.books()
        assert sender.sent > 10 * len(BURST)
        assert after.received - before.received == sender.sent
        third = sender.sent // 3
        rules, counters = after.rules, after.counters
        assert rules["both"] == counters[Verdict.TX, Reason.RULE] == third
        assert rules["odd_x"] + rules["even_x"] == third
        assert rules["odd_y"] + rules["even_y"] == third
        assert min(rules.values()) > 0  # both policies were in force at some time
        assert counters[Verdict.PASS, Reason.RULE] == rules["odd_x"] + rules["even_y"]
        assert counters[Verdict.DROP, Reason.RULE] == rules["odd_y"] + rules["even_x"]
        assert len(counters) == 3  # no packet fell through


def test_reload_rule_that_keeps_its_name_keeps_its_counters(mode: str, bed: TestBed) -> None:
    odd = ODD.replace("MODE", mode)
    with live(odd, bed) as gate, bed.wire() as wire:
        before = gate.books()
        wire.send(BURST)
        gate.wait_for(before, len(BURST))
        gate.apply(odd.replace("odd_x ", "new_x "))
        assert gate.books().rules == {"new_x": 0, "odd_y": 20, "even_x": 0, "even_y": 0, "both": 20}
        wire.send(BURST)
        gate.wait_for(before, 2 * len(BURST))
        assert gate.books().rules["new_x"] == 20
        assert gate.books().rules["both"] == 40
        gate.apply(odd)
        assert gate.books().rules["odd_x"] == 0


def test_manifest_of_a_long_policy_is_one_that_kernel_5_15_can_hold(bed: TestBed) -> None:
    policy = ODD.replace("MODE", "native") + "#" * (5 << 20)
    with live(policy, bed) as gate:
        found = gate.instance.manifest()
        assert found is not None
        assert found.policy_text == policy
        with Map.from_pin(gate.instance.path / "manifest") as blob:
            assert blob.info().value_size <= 4 << 20


def test_reload_ports_come_and_go(mode: str, bed: TestBed) -> None:
    one = ODD.replace("MODE", mode)
    both = one.replace("[log]", f'[ports.right]\nmode = "{mode}"\n[log]')
    with live(one, bed) as gate, bed.wire("right") as wire:
        applied = gate.apply(both)
        assert (applied.switched, applied.attached) == (("left",), ("right",))
        before = gate.books()
        wire.send(BURST)
        gate.wait_for(before, len(BURST))
        assert gate.books("right").received == len(BURST)
        assert gate.apply(one).detached == ("right",)
        assert gate.instance.linked_ports() == ["left"]


BAD: dict[str, str] = {
    "no such port": '[ports.left]\nmode = "MODE"\n[ports.nowhere]\n',
    "not in this version": '[policy]\nrules = "a forward"\n[ports.left]\nmode = "MODE"\n',
    "another mode": '[ports.left]\nmode = "OTHER"\n',
}


@pytest.mark.parametrize("what", sorted(BAD))
def test_reload_that_fails_leaves_the_policy_in_force(what: str, mode: str, bed: TestBed) -> None:
    other = "generic" if mode == "native" else "native"
    with live(ODD.replace("MODE", mode), bed) as gate, bed.wire() as wire:
        with pytest.raises(XdpgwError) as caught:
            gate.apply(BAD[what].replace("MODE", mode).replace("OTHER", other))
        assert caught.value.hint
        before = gate.books()
        wire.send(BURST)
        gate.wait_for(before, len(BURST))
        assert gate.books().rules == IN_FORCE
        in_force = gate.instance.manifest()
        assert in_force is not None
        assert "odd_x" in in_force.rules_text
        assert sorted(x.name for x in gate.instance.path.iterdir() if "next" in x.name) == []


def test_reload_without_room_says_what_is_too_big_and_leaves_the_policy_in_force(
    mode: str, bed: TestBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > 1 << 37:
        pytest.skip("the machine may have room for 256 GiB of lines")
    (tmp_path / "feed").write_text("192.0.2.1\n")
    large = (
        'policy.rules = "bad drop from @bad"\n[sets]\nbad = [{ file = "feed", refresh = "5m" }]\n'
        f'[ports.left]\nmode = "{mode}"\n'
    )
    with live(ODD.replace("MODE", mode), bed) as gate, bed.wire() as wire:
        for name in ("SPARE_LEAST", "SPARE_MOST"):
            monkeypatch.setattr(compile, name, 2**32 - 2**17)
        with pytest.raises(KernelError) as caught:
            gate.apply(config.loads(large, base=tmp_path))
        assert caught.value.errno in (errno.ENOMEM, errno.E2BIG)
        said = str(caught.value)
        assert "no room for the policy: creating the map lines" in said
        assert "MiB of lines, 0.0 MiB of rules (rules: 1, prefixes of bad: 1)" in said
        assert re.search(r" 262,1\d\d\.\d MiB of lines", said)
        before = gate.books()
        wire.send(BURST)
        gate.wait_for(before, len(BURST))
        assert gate.books().rules == IN_FORCE


def test_reload_that_fails_at_the_second_port_switches_the_first_back(
    mode: str, bed: TestBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ODD.replace("MODE", mode).replace("[log]", f'[ports.right]\nmode = "{mode}"\n[log]')
    real = gateway._switch

    def failing(instance: object, port: str, *rest: object) -> None:
        if port == "right":
            raise XdpgwError("the kernel said no")
        real(instance, port, *rest)  # type: ignore[arg-type]

    with live(both, bed) as gate, bed.wire() as wire:
        monkeypatch.setattr(gateway, "_switch", failing)
        with pytest.raises(XdpgwError, match="the kernel said no"):
            gate.apply(both.replace("odd_x ", "new_x "))
        before = gate.books()
        wire.send(BURST)
        gate.wait_for(before, len(BURST))
        assert gate.books().rules == IN_FORCE


def test_start_that_fails_leaves_nothing(mode: str, bed: TestBed) -> None:
    policy = config.loads(ODD.replace("MODE", mode) + "[ports.nowhere]\n")
    with bed.gateway.entered():
        from xdpgw.pins import Instance

        instance = Instance()
        with pytest.raises(XdpgwError), gateway.take_charge(policy, instance):
            pass
        assert not instance.path.exists()


def test_port_made_anew_is_attached_by_the_next_reload(mode: str) -> None:
    policy = ODD.replace("MODE", mode)
    with TestBed(("left", "right")) as bed, live(policy, bed) as gate:
        from pyroute2 import IPRoute

        with bed.gateway.entered(), IPRoute() as ip:
            ip.link("del", index=bed.ifindex("left"))
            right = bed.ifindex("right")
            ip.link("set", index=right, state="down")
            ip.link("set", index=right, ifname="left")
            ip.link("set", index=bed.ifindex("left"), state="up")
        applied = gate.apply(policy)
        assert applied.attached == ("left",)
        with bed.wire("right") as wire:
            before = gate.books()
            wire.send(BURST)
            gate.wait_for(before, len(BURST))


def test_manifest_next_left_by_a_killed_swap_is_not_believed(mode: str, bed: TestBed) -> None:
    with live(ODD.replace("MODE", mode), bed) as gate:
        manifest = gate.instance.manifest()
        assert manifest is not None
        import msgspec

        ports = {
            name: msgspec.structs.replace(at, prog_id=at.prog_id + 100_000)
            for name, at in manifest.ports.items()
        }
        gate.instance.announce(msgspec.structs.replace(manifest, ports=ports, policy_file="/never"))
        assert gate.instance.manifest() == manifest
        assert gate.apply(EVEN.replace("MODE", mode)).switched == ("left",)


def test_manifest_of_another_version_says_to_detach_and_the_filter_stays(
    mode: str, bed: TestBed
) -> None:
    policy = ODD.replace("MODE", mode)
    with live(policy, bed) as gate, bed.wire() as wire:
        old = {"abi": abi.MANIFEST_VERSION - 1, "version": "0.0.1"}
        gate.instance.announce(old)  # type: ignore[arg-type]
        gate.instance.confirm()
        with pytest.raises(AbiMismatch, match=f"version {abi.MANIFEST_VERSION - 1}") as caught:
            gate.apply(policy)
        assert "xdpgw detach, then start anew" in (caught.value.hint or "")
        before = gate.books()
        wire.send(BURST)
        gate.wait_for(before, len(BURST))
        assert gate.books().rules == IN_FORCE


def test_policy_files_are_remembered_by_their_whole_path(
    mode: str, bed: TestBed, tmp_path: Path
) -> None:
    file = tmp_path / "p.toml"
    file.write_text(ODD.replace("MODE", mode))
    with live(ODD.replace("MODE", mode), bed) as gate:
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            gate.apply(config.read("p.toml"))
        finally:
            os.chdir(here)
        assert gate.manifest.policy_file == str(file)
