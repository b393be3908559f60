"""Frames of many flows: crafted in numpy, compared with scapy's."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from xdpgw.errors import XdpgwError
from xdpgw.flows import Frames, Template, frames_of_pcap


def by_scapy(template: Template, src: str, sport: int, length: int) -> bytes:
    """The frame of one flow, as scapy builds it."""
    frame = Ether(src=template.eth_src, dst=template.eth_dst)
    if template.vlan is not None:
        frame /= Dot1Q(vlan=template.vlan)
    six = ":" in src
    ip = IPv6(src=src, dst=template.dst) if six else IP(src=src, dst=template.dst, id=0)
    l4 = {
        "udp": UDP(sport=sport, dport=template.dport),
        "tcp": TCP(sport=sport, dport=template.dport, flags="S", window=65535),
        "icmp": ICMPv6EchoRequest(id=1, seq=1) if six else ICMP(id=1, seq=1),
    }[template.proto]
    head = frame / ip / l4
    return bytes(frame / ip / l4 / Raw(bytes(length - len(head))))


@pytest.mark.parametrize("proto", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("vlan", [None, 7])
@pytest.mark.parametrize("length", [90, 91, 1514])
@pytest.mark.parametrize(
    ("src", "dst"), [("198.18.0.0/15", "198.19.0.1"), ("2001:2::/48", "2001:2:0:1::1")]
)
def test_template_makes_what_scapy_makes(
    proto: str, vlan: int | None, length: int, src: str, dst: str
) -> None:
    template = Template(
        proto=proto,  # type: ignore[arg-type]
        src=src,
        dst=dst,
        sport=(1000, 1002),
        vlan=vlan,
        lengths=(length,),
    )
    ports = 1 if proto == "icmp" else 3
    first = ipaddress.ip_network(src).network_address
    wanted = [
        by_scapy(template, str(first + n // ports), 1000 + n % ports, length) for n in range(7)
    ]
    assert list(template.frames(7)) == wanted


@given(st.integers(42, 1514), st.integers(0, 65_535), st.integers(0, 65_535))
def test_template_udp_checksum_is_right_for_any_length_and_port(
    length: int, sport: int, dport: int
) -> None:
    template = Template(sport=(sport, sport), dport=dport, lengths=(length,))
    assert template.frames()[0] == by_scapy(template, "198.18.0.0", sport, length)


def test_template_udp_checksum_of_zero_is_sent_as_ffff() -> None:
    def checksum(dport: int) -> bytes:
        return Template(dport=dport).frames()[0][40:42]

    # The sum of all but the destination port is made 0 by the port that is its complement.
    rest = int.from_bytes(checksum(0), "big")
    assert checksum(rest) == b"\xff\xff"


def test_template_with_several_lengths_has_whole_rounds_of_them() -> None:
    frames = Template(lengths=(60, 590, 1514)).frames(4)
    assert frames.lengths.tolist() == [60, 590, 1514] * 2
    assert len({frame[26:30] for frame in frames}) == 4


def test_template_of_the_most_flows_has_as_many_sources() -> None:
    frames = Template().frames(65_536)
    rows = frames.data.reshape(-1, 60)
    assert len(np.unique(rows[:, 26:30], axis=0)) == 65_536


@pytest.mark.parametrize(
    ("template", "flows", "what"),
    [
        (Template(lengths=(30,)), 1, "too short: its headers|too short"),
        (Template(src="198.18.0.0/31"), 3, "makes 2 flows, not 3"),
        (Template(src="2001:2::/48"), 1, "of two families"),
        (Template(src="nowhere"), 1, "does not appear to be"),
        (Template(eth_dst="02:00"), 1, "not a MAC address"),
        (Template(), 65_537, "too many"),
        (Template(sport=(65_535, 65_536)), 1, "no source ports"),
        (Template(sport=(9, 5)), 1, "9-5 are no source ports"),
        (Template(dport=65_536), 1, "no destination port"),
        (Template(vlan=4095), 1, "no id of a VLAN"),
        (Template(lengths=()), 1, "no length"),
        (Template(proto="sctp"), 1, "no protocol sctp"),  # type: ignore[arg-type]
    ],
)
def test_template_that_cannot_be_is_a_sentence(template: Template, flows: int, what: str) -> None:
    with pytest.raises(XdpgwError, match=what):
        template.frames(flows)


def test_frames_of_bytes_give_the_bytes_back() -> None:
    listed = [bytes([n]) * (14 + n) for n in range(20)]
    assert list(Frames.of(listed)) == listed


def test_frames_of_pcap_are_those_of_the_file(tmp_path: Path) -> None:
    # Both addresses given: scapy would ask the network for the one that is not.
    ends = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    listed = [ends / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=n) for n in range(5)]
    wrpcap(str(tmp_path / "some.pcap"), listed)
    assert list(frames_of_pcap(tmp_path / "some.pcap")) == [bytes(x) for x in listed]


def test_frames_of_an_empty_pcap_is_a_sentence(tmp_path: Path) -> None:
    wrpcap(str(tmp_path / "none.pcap"), [], linktype=1)
    with pytest.raises(XdpgwError, match="no frame to send"):
        frames_of_pcap(tmp_path / "none.pcap")
