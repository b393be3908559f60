"""Events as text: the C formatter against Python's json and ipaddress."""

from __future__ import annotations

import ipaddress
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xdpgw import _abi as abi
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw._native import ffi, lib
from xdpgw.events import EventBatch, Names

NS = 1_000_000_000
EDGES = {8: (0, 1, 0xFF), 16: (0, 1, 0xFFFF), 32: (0, 1, 0xFFFFFFFF)}


def number(bits: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from(EDGES[bits]), st.integers(0, (1 << bits) - 1))


def addresses(size: int) -> st.SearchStrategy[bytes]:
    """Runs of zeros are what the text form is about."""
    group = st.one_of(st.just(b"\0\0"), st.binary(min_size=2, max_size=2))
    return st.lists(group, min_size=size // 2, max_size=size // 2).map(b"".join)


EVENTS = st.fixed_dictionaries(
    {
        "ts_ns": st.integers(0, 100 * 365 * 86400 * NS),
        "src": addresses(16),
        "dst": addresses(16),
        "len_bytes": number(32),
        "queue": number(32),
        "sport": number(16),
        "dport": number(16),
        "ethertype": number(16),
        "vlan": number(16),
        "rule": st.one_of(st.integers(0, 3), st.just(abi.NO_RULE)),
        "port": st.integers(0, 3),
        "family": st.sampled_from([0, 4, 6]),
        "proto": number(8),
        "tcp_flags": number(8),
        "icmp_type": number(8),
        "icmp_code": number(8),
        "ttl": number(8),
        "dscp": st.integers(0, 63),
        "frag": st.sampled_from([int(x) for x in Frag]),
        "has": st.integers(0, 31),
        "verdict": st.sampled_from([int(x) for x in Verdict]),
        "reason": st.sampled_from([int(x) for x in Reason]),
    }
)
NAMES = st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=3)


def array_of(events: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    array = np.zeros(len(events), abi.event_dtype())
    for at, event in enumerate(events):
        for name, value in event.items():
            array[at][name] = np.frombuffer(value, np.uint8) if name in ("src", "dst") else value
    return array


def time_text(realtime_ns: int) -> str:
    second, ns = divmod(realtime_ns, NS)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09}Z"


def expected(event: dict[str, Any], names: Names, offset_ns: int) -> dict[str, Any]:
    has, family = Has(event["has"]), event["family"]
    ports, icmp = Has.PORTS in has, Has.ICMP in has
    size = {0: 0, 4: 4, 6: 16}[family]

    def address(raw: bytes) -> str | None:
        return text_of(raw[:size]) if size else None

    return {
        "ts": time_text(event["ts_ns"] + offset_ns) if event["ts_ns"] else None,
        "port": names.port(event["port"]),
        "queue": event["queue"],
        "family": family or None,
        "src": address(event["src"]),
        "dst": address(event["dst"]),
        "proto": event["proto"] if Has.PROTO in has else None,
        "sport": event["sport"] if ports else None,
        "dport": event["dport"] if ports else None,
        "tcp_flags": event["tcp_flags"] if Has.TCP_FLAGS in has else None,
        "icmp_type": event["icmp_type"] if icmp else None,
        "icmp_code": event["icmp_code"] if icmp else None,
        "frag": None if event["frag"] == Frag.NOT_IP else Frag(event["frag"]).name.lower(),
        "ttl": event["ttl"] if family else None,
        "dscp": event["dscp"] if family else None,
        "vlan": None if event["vlan"] == abi.VLAN_NONE else event["vlan"],
        "ethertype": event["ethertype"] if Has.ETHERTYPE in has else None,
        "len": event["len_bytes"],
        "verdict": Verdict(event["verdict"]).text,
        "reason": Reason(event["reason"]).text,
        "rule": names.rule(event["rule"]),
    }


def text_of(raw: bytes) -> str:
    """Python's text, but IPv4-mapped addresses in groups, as before 3.13, which has dots there."""
    address = ipaddress.ip_address(raw)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        high, low = raw[12:14].hex(), raw[14:].hex()
        return f"::ffff:{int(high, 16):x}:{int(low, 16):x}"
    return str(address)


@given(st.lists(EVENTS, min_size=1, max_size=5), NAMES, NAMES, st.integers(0, 2**40))
def test_json_lines_are_what_python_would_write(
    events: list[dict[str, Any]], ports: list[str | None], rules: list[str | None], offset_ns: int
) -> None:
    names = Names(ports, rules)
    lines = EventBatch(array_of(events), names, offset_ns).json_lines().decode()
    assert lines.endswith("\n")
    got = [json.loads(line) for line in lines[:-1].split("\n")]
    wanted = [expected(event, names, offset_ns) for event in events]
    assert got == wanted
    assert [list(x) for x in got] == [list(x) for x in wanted]  # the order of keys is part of it


@given(addresses(16))
@example(bytes(16))
@example(bytes(15) + b"\1")
@example(bytes.fromhex("20010db8000000000001000000000001"))  # two runs as long: the first
@example(bytes.fromhex("20010db8000100010001000100010000"))  # one zero group stays
@example(bytes.fromhex("00000000000000000000ffffc0000207"))  # IPv4-mapped
@example(b"\xff" * 16)
def test_ipv6_text_is_that_of_python(raw: bytes) -> None:
    out = ffi.new("char[]", lib.XG_IPV6_TEXT_BYTES)
    length = lib.xg_ipv6_text(ffi.from_buffer("uint8_t[]", raw), out)
    assert ffi.string(out).decode() == text_of(raw)
    assert length == len(text_of(raw))


@given(addresses(4))
@example(b"\xff" * 4)
def test_ipv4_text_is_that_of_python(raw: bytes) -> None:
    out = ffi.new("char[]", lib.XG_IPV4_TEXT_BYTES)
    assert lib.xg_ipv4_text(ffi.from_buffer("uint8_t[]", raw), out) == len(text_of(raw))
    assert ffi.string(out).decode() == text_of(raw)


@given(st.integers(0, 2**63 - 1))
@example(951782399 * NS)  # 2000-02-28T23:59:59
@example(951868800 * NS)  # 2000-03-01
@example(4107542400 * NS)  # 2100-03-01: no leap year
def test_time_is_that_of_python(realtime_ns: int) -> None:
    event = np.zeros(1, abi.event_dtype())
    event["ts_ns"] = realtime_ns or 1
    line = json.loads(EventBatch(event, Names(), 0).json_lines())
    assert line["ts"] == time_text(realtime_ns or 1)


def longest_event() -> np.ndarray[Any, Any]:
    event = np.zeros(1, abi.event_dtype())
    for name in event.dtype.names or ():
        event[name] = np.iinfo(event.dtype[name].base).max
    event["family"], event["frag"], event["vlan"] = 6, Frag.FIRST, 0xFFFE
    event["verdict"] = max(Verdict, key=lambda x: len(x.text))
    event["reason"] = max(Reason, key=lambda x: len(x.text))
    event["port"] = event["rule"] = 0
    return event


def test_json_of_the_longest_event_fits_its_room() -> None:
    assert len(EventBatch(longest_event(), Names(), 0).json_lines()) <= lib.XG_JSON_LINE_BYTES


def write(events: np.ndarray[Any, Any], room: int, names: Names) -> tuple[int, int, bytes]:
    out = ffi.new("char[]", room + 16)
    ffi.memmove(out, b"\xee" * (room + 16), room + 16)
    consumed = ffi.new("uint32_t *", 77)
    pointer = ffi.cast("struct xg_event *", events.ctypes.data)
    n = lib.xg_events_json(pointer, len(events), names.native, 0, out, room, consumed)
    written = bytes(ffi.buffer(out))
    assert written[room:] == b"\xee" * 16
    return n, consumed[0], written[: max(n, 0)]


def test_json_without_room_for_a_line_is_refused_and_consumes_nothing() -> None:
    n, consumed, _ = write(longest_event(), lib.XG_JSON_LINE_BYTES - 1, Names())
    assert (n, consumed) == (-28, 77)  # ENOSPC, and the out pointer as it was


def test_json_with_room_for_some_events_tells_how_many() -> None:
    events = np.repeat(longest_event(), 5)
    n, consumed, text = write(events, 3 * lib.XG_JSON_LINE_BYTES, Names(["p" * 99], ["r" * 99]))
    assert 0 < consumed < 5
    assert text.count(b"\n") == consumed
    assert n == len(text)


def test_json_of_no_events_is_nothing() -> None:
    assert write(longest_event()[:0], 0, Names()) == (0, 0, b"")


@pytest.mark.parametrize("name", ['a"b', "back\\slash", "\x00\x1f", "grün", "\U0001f600"])
def test_json_names_are_escaped(name: str) -> None:
    line = json.loads(EventBatch(longest_event(), Names([name], [name]), 0).json_lines())
    assert (line["port"], line["rule"]) == (name, name)
