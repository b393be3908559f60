"""AF_XDP targets that nobody serves: each packet gets the verdict after `else`, and says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import frames as f
from tests.net.live import live
from xdpgw import _abi as abi
from xdpgw import config, gateway
from xdpgw._abi import Reason, Verdict
from xdpgw.errors import XdpgwError
from xdpgw.events import EventReader
from xdpgw.facts import receive_queues
from xdpgw.pins import Instance
from xdpgw.testbed import TestBed

QUEUES = 2
PASSED = f.eth(f.ipv4(f.udp(b"x", dport=4789)))
DROPPED = f.eth(f.ipv4(f.udp(b"x", dport=7)))
OTHER = f.eth(f.ipv4(f.udp(b"x", dport=9)))
POLICY = """
[policy]
rules = \"\"\"
passed   af_xdp some  else pass  udp to port 4789 log
dropped  af_xdp other else drop  udp to port 7    log
\"\"\"
[ports.left]
mode = "MODE"
[af_xdp.some]
handler = "count"
[af_xdp.other]
handler = "count"
[log]
sources = "off"
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",), queues=QUEUES) as made:
        yield made


def test_target_without_socket_gets_the_else_verdict_and_is_counted_once(
    mode: str, bed: TestBed
) -> None:
    with live(POLICY.replace("MODE", mode), bed) as gate, bed.host() as host:
        assert gate.send([PASSED] * 5 + [DROPPED] * 3 + [OTHER]).counters == {
            (Verdict.PASS, Reason.NO_SOCKET): 5,
            (Verdict.DROP, Reason.NO_SOCKET): 3,
            (Verdict.PASS, Reason.DEFAULT): 1,
        }
        assert host.receive(6) == [PASSED] * 5 + [OTHER]
        assert host.waiting() == []
        assert gate.books().rules == {"passed": 5, "dropped": 3}


def test_target_without_socket_is_told_with_its_rule_and_reason(mode: str, bed: TestBed) -> None:
    with live(POLICY.replace("MODE", mode), bed) as gate:
        gate.send([PASSED, DROPPED])
        with EventReader(gate.maps["events"]) as reader:
            events = reader.drain(timeout_ms=1000)
            told = [
                tuple(int(x[name]) for name in ("dport", "verdict", "reason", "rule"))
                for x in events
            ]
        slots = gate.manifest.rule_slots
        assert told == [
            (4789, Verdict.PASS, Reason.NO_SOCKET, slots["passed"]),
            (7, Verdict.DROP, Reason.NO_SOCKET, slots["dropped"]),
        ]


def test_targets_keep_their_slots_by_name_over_a_reload(bed: TestBed) -> None:
    text = POLICY.replace("MODE", "generic")
    with live(text, bed) as gate:
        assert gate.manifest.target_slots == {"some": 0, "other": 1}
        gate.apply(text.replace("some", "third"))
        assert gate.manifest.target_slots == {"third": 2, "other": 1}
        assert gate.send([PASSED, DROPPED]).counters == {
            (Verdict.PASS, Reason.NO_SOCKET): 1,
            (Verdict.DROP, Reason.NO_SOCKET): 1,
        }


def test_books_of_sockets_outlive_a_reload(bed: TestBed) -> None:
    text = POLICY.replace("MODE", "generic")
    with live(text, bed) as gate:
        before = gate.maps["xsks"].info()
        assert before.max_entries == abi.MAX_PORTS * abi.MAX_TARGETS * abi.MAX_QUEUES
        gate.apply(text.replace('handler = "count"', 'handler = "reflect"'))
        with gate.bed.gateway.entered(), gate.instance.books() as books:
            assert books["xsks"].info().id == before.id


def test_receive_queues_are_those_of_the_port_in_its_namespace(bed: TestBed) -> None:
    with bed.gateway.entered():
        assert receive_queues("left") == QUEUES
        assert receive_queues("nowhere") is None


def test_list_of_queues_is_for_sockets_and_the_filter_sees_every_queue(
    mode: str, bed: TestBed
) -> None:
    text = POLICY.replace('mode = "MODE"', f'mode = "{mode}"\nqueues = [1]')
    with live(text, bed) as gate:
        assert gate.send([DROPPED] * 4).counters == {(Verdict.DROP, Reason.NO_SOCKET): 4}


def test_queue_that_the_port_does_not_have_is_an_error_and_nothing_is_left(bed: TestBed) -> None:
    text = POLICY.replace('mode = "MODE"', "queues = [1, 2, 7]")
    with bed.gateway.entered():
        instance = Instance()
        with (
            pytest.raises(XdpgwError, match="port left has no queue 2, 7") as caught,
            gateway.take_charge(config.loads(text), instance),
        ):
            pass
        assert not instance.path.exists()
    assert caught.value.hint is not None
    assert f"it has {QUEUES}" in caught.value.hint
