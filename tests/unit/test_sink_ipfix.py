"""The sink `ipfix`: what a collector reads that knows nothing but RFC 7011."""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tests.ipfix import Reading, Record, names_of, numbers_of
from tests.net.process import until
from xdpgw import sinks
from xdpgw._abi import Reason, Verdict
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.events import EventBatch, Pump
from xdpgw.sinks import SinkError
from xdpgw.sinks.ipfix import IpfixSink, forwarding_status

from .batches import NOON_NS, batch, numbered
from .event_strategies import batches
from .listeners import UdpDatagrams


def sent(*told: EventBatch, **options: Any) -> list[bytes]:
    """The datagrams that a sink sends for some batches."""
    with closing(_bound()) as collector:
        sink = IpfixSink(f"127.0.0.1:{collector.getsockname()[1]}", **options)
        heard: list[bytes] = []
        for each in told:
            sink.write(each)
            while True:
                try:
                    heard.append(collector.recv(65536, socket.MSG_DONTWAIT))
                except BlockingIOError:
                    break
        sink.close()
    return heard


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.bind(("127.0.0.1", 0))
    return made


def read(datagrams: list[bytes]) -> Reading:
    reading = Reading()
    for datagram in datagrams:
        reading.take(datagram)
    return reading


# What is in a record


def record_of(line: dict[str, Any], ts_ns: int) -> tuple[dict[int, int], dict[int, str]]:
    """What the JSON line of an event says, as elements; of addresses, too, as numbers."""
    second, rest = divmod(ts_ns, 10**9)
    verdict, reason = Verdict[line["verdict"].upper()], Reason[line["reason"].upper()]
    numbers = {
        325: ((second + 2_208_988_800) % 2**32 << 32) - -(rest << 32) // 10**9,
        152: ts_ns // 10**6,
        153: ts_ns // 10**6,
        256: line["ethertype"] or 0,
        58: line["vlan"] or 0,
        10: {name: index for index, name in socket.if_nameindex()}.get(line["port"], 0),
        1: line["len"],
        2: 1,
        89: forwarding_status(verdict, reason),
    }
    family = line["family"]
    if family:
        icmp = (line["icmp_type"] or 0) << 8 | (line["icmp_code"] or 0)
        src, dst, icmp_type_code = (8, 12, 32) if family == 4 else (27, 28, 139)
        numbers |= {
            src: int(ipaddress.ip_address(line["src"])),
            dst: int(ipaddress.ip_address(line["dst"])),
            4: line["proto"] or 0,
            5: line["dscp"] << 2,
            192: line["ttl"],
            6: line["tcp_flags"] or 0,
            icmp_type_code: icmp,
            7: line["sport"] or 0,
            11: line["dport"] or 0,
        }
    return numbers, {82: line["port"] or "", 335: line["rule"] or ""}


@settings(deadline=None)
@given(batches)
def test_ipfix_records_say_what_the_json_lines_say(changes: list[dict[str, Any]]) -> None:
    told = batch(*changes)
    reading = read(sent(told))
    lines = [json.loads(line) for line in told.json_lines().splitlines()]
    times = (told.events["ts_ns"].astype(int) + told.realtime_offset_ns).tolist()
    wanted = [record_of(line, at) for line, at in zip(lines, times, strict=True)]
    assert [(numbers_of(x), names_of(x)) for x in reading.records] == wanted


def only(told: EventBatch) -> Record:
    (record,) = read(sent(told)).records
    return record


def test_ipfix_time_is_exact_to_the_nanosecond() -> None:
    since_1900 = int.from_bytes(only(numbered(1))[325], "big")
    assert since_1900 >> 32 == NOON_NS // 10**9 + 2_208_988_800
    assert (since_1900 & 0xFFFFFFFF) * 10**9 >> 32 == NOON_NS % 10**9


def test_ipfix_names_the_interface_by_its_number() -> None:
    told = numbered(1)
    names = type(told.names)(("lo",), told.names.rules)
    record = only(EventBatch(told.events, names, told.realtime_offset_ns))
    assert record[10] == socket.if_nametoindex("lo").to_bytes(4, "big")
    assert names_of(record) == {82: "lo", 335: "bad"}


@pytest.mark.parametrize(
    ("verdict", "reason", "status"),
    [
        (Verdict.PASS, Reason.RULE, 64),  # forwarded
        (Verdict.TX, Reason.RULE, 64),
        (Verdict.AF_XDP, Reason.RULE, 192),  # consumed
        (Verdict.DROP, Reason.RULE, 130),  # dropped, ACL drop
        (Verdict.DROP, Reason.DEFAULT, 130),
        (Verdict.DROP, Reason.LIMIT, 138),  # dropped, policer
        (Verdict.DROP, Reason.MALFORMED, 128),  # dropped, unknown
        (Verdict.REJECT, Reason.RULE, 129),  # dropped, ACL deny
    ],
)
def test_ipfix_forwarding_status_is_that_of_rfc_7270(
    verdict: Verdict, reason: Reason, status: int
) -> None:
    assert only(batch({"verdict": verdict, "reason": reason}))[89] == bytes([status])


# Messages


def test_ipfix_templates_come_first_and_again_when_their_time_is_over() -> None:
    assert read(sent(numbered(1), numbered(2))).template_sets == 1
    again = read(sent(numbered(1), numbered(2), templates_ns=0))
    assert (again.template_sets, len(again.records), again.sequence_errors) == (2, 2, 0)
    assert set(again.templates) == {256, 257, 258}


@pytest.mark.parametrize("max_bytes", [512, 1400, 9000])
def test_ipfix_datagrams_fit_and_records_are_numbered_on(max_bytes: int) -> None:
    mixed = [{}, {}, {"family": 6, "src": "::1", "dst": "::2"}, {"family": 0, "has": 0}]
    told = batch(*mixed * 200)
    heard = sent(told, told, max_bytes=max_bytes)
    assert max(map(len, heard)) <= max_bytes
    assert max(map(len, heard)) > max_bytes - 200  # full ones
    reading = read(heard)
    assert (len(reading.records), reading.sequence_errors) == (1600, 0)
    kinds = [8 in x or (27 in x and 6) for x in reading.records]
    assert kinds == [True, True, 6, False] * 400


def test_ipfix_tells_domain_and_time_of_export() -> None:
    reading = read(sent(numbered(1), domain=0xFFFFFFFF))
    assert reading.domains == {0xFFFFFFFF}
    assert all(abs(x - time.time()) < 60 for x in reading.export_times)


def test_ipfix_takes_its_options() -> None:
    with closing(_bound()) as collector:
        options = {"to": f"127.0.0.1:{collector.getsockname()[1]}", "domain": 7}
        sink = sinks.make(SinkSettings("ipfix", None, options | {"max_bytes": 512}))
        sink.write(numbered(*range(100)))
        sink.close()
        heard = [collector.recv(65536) for _ in range(10)]
    assert read(heard).domains == {7}
    assert max(map(len, heard)) <= 512


def test_ipfix_to_an_ipv6_address() -> None:
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as collector:
        collector.bind(("::1", 0))
        sink = IpfixSink(f"[::1]:{collector.getsockname()[1]}")
        sink.write(numbered(1))
        sink.close()
        assert len(read([collector.recv(65536) for _ in range(2)]).records) == 1


def test_ipfix_without_a_collector_is_refused() -> None:
    with pytest.raises(XdpgwError, match="needs a collector"):
        sinks.make(SinkSettings("ipfix"))


# A collector that goes


def test_ipfix_says_that_the_collector_is_gone_and_sends_templates_to_the_next() -> None:
    listener = UdpDatagrams()
    sink = IpfixSink(f"127.0.0.1:{listener.port}")
    sink.write(numbered(1))
    listener.stop()
    for _ in range(2):
        with pytest.raises(SinkError, match="Connection refused") as error:
            sink.write(numbered(2, 3))
        assert (error.value.lost, error.value.left) == (0, 2)
    before = len(listener.heard)
    listener.start()
    sink.write(numbered(2, 3))
    sink.close()
    until(lambda: len(listener.heard) == before + 2, "templates and records")
    listener.stop()
    again = read(listener.heard[before:])
    assert [x[8][3] for x in again.records] == [2, 3]
    assert read(listener.heard).sequence_errors == 0


def test_ipfix_behind_a_pump_waits_for_a_collector_and_says_so_once(tmp_path: Path) -> None:
    listener = UdpDatagrams()
    listener.stop()
    said: list[str] = []
    settings_ = SinkSettings("ipfix", None, {"to": f"127.0.0.1:{listener.port}"})
    with Pump.of([settings_], on_error=said.append) as pump:
        for number in range(1, 6):
            pump.put(numbered(number))
        until(lambda: pump.stats[0].failing, "a complaint")
        listener.start()
        until(lambda: pump.stats[0].written == 5, "all of them sent")
    listener.stop()
    assert [x[8][3] for x in read(listener.heard).records] == [1, 2, 3, 4, 5]
    assert (pump.stats[0].lost, len(said)) == (0, 2)
