"""The sink `ipfix` and collectors of others: nfdump's nfcapd, and the dissector of tshark."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from tests.ipfix import Reading
from tests.net.process import TIMEOUT_S, data, running, until
from tests.unit.batches import batch, numbered
from tests.unit.listeners import UdpDatagrams
from xdpgw.config import SinkSettings
from xdpgw.demo import samples
from xdpgw.events import EventBatch, Pump
from xdpgw.sinks import SinkError
from xdpgw.sinks.ipfix import IpfixSink
from xdpgw.testbed import SUBNETS, TestBed

PORT = 4739
POLICY = """
[policy]
rules = \"\"\"
web    pass   tcp to port {80, 443}  log
who    drop   arp                    log
ten    drop   vlan 10                log
rest   pass   ip                     log
rest6  pass   ip6                    log
\"\"\"
[ports.left]
mode = "MODE"
[log]
sources = "every"
sinks = [{ jsonl = "events.jsonl" }, { ipfix = { to = "127.0.0.1:4739", domain = 7 } }]
"""
FLAGS = "CEUAPRSF"


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",), quiet=False) as made:
        yield made


@contextmanager
def nfcapd(bed: TestBed, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The collector on the gateway's loopback; when told to end it writes its file."""
    assert which("nfcapd"), "no nfcapd: make test installs nfdump"
    folder.mkdir(exist_ok=True)
    words = ["nfcapd", "-b", "127.0.0.1", "-p", str(PORT), "-w", str(folder), "-B", "4000000"]
    with (folder / "said").open("w") as said, bed.gateway.entered():
        process = subprocess.Popen(words, stdout=said, stderr=said)
    try:
        until(lambda: "Startup" in (folder / "said").read_text(), "nfcapd listens")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(TIMEOUT_S)


def collected(process: subprocess.Popen[bytes], folder: Path) -> list[dict[str, Any]]:
    """What the collector has, as nfdump shows it; it saw no gap."""
    process.send_signal(signal.SIGTERM)
    process.wait(TIMEOUT_S)
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("nfcapd.*")):
        shown = _nfdump("-r", path, "-o", "json")
        found += json.loads(shown) if shown.strip() else []
        assert "Sequence failures: 0" in _nfdump("-r", path, "-I").splitlines()
    return found


def _nfdump(*words: object) -> str:
    done = subprocess.run(
        ["nfdump", *map(str, words)], env={"TZ": "UTC"}, capture_output=True, text=True, check=True
    )
    return done.stdout


def flow_of(line: dict[str, Any], ifindex: int) -> dict[str, Any]:
    """The flow that nfdump shows of an event, by its JSON line."""
    proto = line["proto"] or 0
    flow = {
        "first": line["ts"][:23],
        "last": line["ts"][:23],
        "in_packets": 1,
        "in_bytes": line["len"],
        "proto": proto,
        "src_tos": (line["dscp"] or 0) << 2,
        "input_snmp": ifindex,
        "src_vlan": line["vlan"] or 0,
    }
    if proto in (1, 58):
        flow |= {"icmp_type": line["icmp_type"] or 0, "icmp_code": line["icmp_code"] or 0}
    else:
        bits = f"{line['tcp_flags'] or 0:08b}"
        flags = (x if bit == "1" else "." for x, bit in zip(FLAGS, bits, strict=True))
        flow |= {"tcp_flags": "".join(flags)}
        flow |= {"src_port": line["sport"] or 0, "dst_port": line["dport"] or 0}
    if line["family"]:
        flow |= {f"{end}{line['family']}_addr": line[end] for end in ("src", "dst")}
    return flow


def test_ipfix_of_a_run_is_what_nfcapd_collects(bed: TestBed, tmp_path: Path, mode: str) -> None:
    policy, folder = tmp_path / "edge.toml", tmp_path / "flows"
    policy.write_text(POLICY.replace("MODE", mode))
    jsonl = tmp_path / "events.jsonl"
    with nfcapd(bed, folder) as collector:
        with running(bed, tmp_path, "run", policy) as run, bed.wire() as wire:
            run.said("left: attached")
            wire.send([frame for _, frame in samples()] * 20)
            written = until(lambda: data(bed, "status")["log"]["written"], "events")
            until(lambda: jsonl.read_text().count("\n") >= written >= 400, f"{written} lines")
            assert run.end() == 0
            assert "lost" not in run.err.read_text()
        flows = collected(collector, folder)
    lines = [json.loads(line) for line in jsonl.read_text().splitlines()]
    wanted = [flow_of(line, bed.ifindex()) for line in lines]
    got = [
        {name: flow.get(name) for name in want} for flow, want in zip(flows, wanted, strict=True)
    ]
    assert got == wanted
    assert {x["proto"] for x in flows} >= {0, 1, 6, 17, 58}


def test_ipfix_is_read_by_tshark_to_the_last_element(tmp_path: Path) -> None:
    told = batch(
        {"dscp": 46, "ttl": 63, "vlan": 5, "tcp_flags": 0x12},
        {"family": 6, "src": "2001:db8::1", "dst": "::1", "proto": 58, "icmp_type": 128},
        {"family": 0, "has": 16, "ethertype": 0x0806, "rule": 0xFFFF, "verdict": 0},
    )
    shown = dissected(told, tmp_path / "flows.pcap")
    ipv4, ipv6, other = shown.split("[Template Frame: 1]")[1:]
    for part, words in {
        ipv4: "SrcAddr: 192.0.2.7|DstAddr: 198.51.100.1|Protocol: UDP (17)|IP ToS: 0xb8|IP TTL: 63"
        "|TCP Flags: 0x12|SrcPort: 53 (53)|DstPort: 4242 (4242)|Vlan Id: 5",
        ipv6: "SrcAddr: 2001:db8::1|DstAddr: ::1|IPv6 ICMP Type: 128|IPv6 ICMP Code: 0",
        other: "Ethernet Type: 2054|ForwardingStatus: Forward (1)",
    }.items():
        assert [x for x in words.split("|") if x not in part] == []
    for word in (
        "Observation Time Nanoseconds: Nov 14, 2023 22:13:20.123456789 UTC",
        "StartTime: Nov 14, 2023 22:13:20.123000000 UTC",
        "EndTime: Nov 14, 2023 22:13:20.123000000 UTC",
        "Octets: 74",
        "Packets: 1",
        "IfName: eth0",
    ):
        assert shown.count(word) == 3, word
    assert shown.count("ForwardingStatusDropCode: Drop ACL drop (2)") == 2
    assert shown.count("Selector Name: bad") == 2
    assert "Malformed" not in shown and "Expert" not in shown


def dissected(told: EventBatch, path: Path) -> str:
    """What tshark says of the datagrams for some events."""
    from scapy.layers.inet import IP, UDP
    from scapy.packet import Raw
    from scapy.utils import wrpcap

    assert which("tshark"), "no tshark: make test installs it"
    listener = UdpDatagrams()
    sink = IpfixSink(f"127.0.0.1:{listener.port}")
    sink.write(told)
    sink.close()
    until(lambda: len(listener.heard) == 2, "templates and records")
    listener.stop()
    ends = {"src": "127.0.0.1", "dst": "127.0.0.1"}
    wrpcap(str(path), [IP(**ends) / UDP(sport=PORT, dport=PORT) / Raw(x) for x in listener.heard])
    return subprocess.run(
        ["tshark", "-r", path, "-V"], env={**os.environ, "TZ": "UTC"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_ipfix_on_a_path_that_takes_less_sends_less(bed: TestBed) -> None:
    """Datagrams are never cut into fragments."""
    with bed.peer.entered(), closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as collector:
        collector.bind((f"{SUBNETS['left'][0]}.2", PORT))
        collector.settimeout(TIMEOUT_S)
        with bed.gateway.entered():
            subprocess.run(["ip", "link", "set", "left", "mtu", "1000"], check=True)
            sink = IpfixSink(f"{SUBNETS['left'][0]}.2:{PORT}")
            for _ in range(2):  # 1400, 1050
                with pytest.raises(SinkError, match="Message too long") as error:
                    sink.write(numbered(*range(100)))
                assert (error.value.lost, error.value.left) == (0, 100)
            sink.write(numbered(*range(100)))
            sink.close()
        reading = Reading()
        while len(reading.records) < 100:
            datagram = collector.recv(65536)
            assert len(datagram) <= 1000 - 28
            reading.take(datagram)
    assert [x[8][3] for x in reading.records] == list(range(100))
    assert reading.sequence_errors == 0


def test_ipfix_to_nowhere_is_said_once_and_kept_for_later(bed: TestBed) -> None:
    said: list[str] = []
    with bed.gateway.entered():
        settings = SinkSettings("ipfix", None, {"to": f"203.0.113.9:{PORT}"})
        with Pump.of([settings], on_error=said.append) as pump:
            for number in range(5):
                pump.put(numbered(number))
            until(lambda: pump.stats[0].failing, "a complaint")
            subprocess.run(["ip", "route", "add", "203.0.113.9", "dev", "lo"], check=True)
            subprocess.run(["ip", "addr", "add", "203.0.113.9", "dev", "lo"], check=True)
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as collector:
                collector.bind(("203.0.113.9", PORT))
                until(lambda: pump.stats[0].written == 5, "all of them sent")
    assert "Network is unreachable" in said[0]
    assert (pump.stats[0].lost, len(said)) == (0, 2)
