"""The builders of frames against published values and the sums that right checksums have."""

from __future__ import annotations

import struct

import pytest

from tests.frames import (
    A4,
    A6,
    B4,
    B6,
    Segment,
    ah,
    crc32c,
    eth,
    extension,
    fragment,
    icmp,
    icmp6,
    internet_checksum,
    ipv4,
    ipv6,
    raw,
    sctp,
    tcp,
    udp,
    vlan,
)

# 192.168.0.1 to 192.168.0.199, UDP, 115 bytes, don't fragment: a header often printed.
KNOWN_HEADER = "4500007300004000 4011b861 c0a80001 c0a800c7"


def test_internet_checksum_of_rfc_1071_example() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


def test_crc32c_of_check_string() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_ipv4_header_is_the_known_one() -> None:
    segment = Segment(17, bytes(95))
    layer = ipv4(segment, src="192.168.0.1", dst="192.168.0.199", ident=0, df=True)
    assert layer.data[:20] == bytes.fromhex(KNOWN_HEADER)


@pytest.mark.parametrize("segment", [tcp(b"odd"), udp(b"odd"), tcp(options=bytes(8)), udp()])
def test_segment_over_ipv4_sums_to_0(segment: Segment) -> None:
    data = ipv4(segment).data[20:]
    pseudo = bytes((10, 1, 0, 1, 10, 2, 0, 2)) + struct.pack("!HH", segment.protocol, len(data))
    assert (A4, B4) == ("10.1.0.1", "10.2.0.2")
    assert internet_checksum(pseudo + data) == 0


@pytest.mark.parametrize("segment", [tcp(b"odd"), udp(b"odd"), icmp6(), icmp6(135, 0, bytes(20))])
def test_segment_over_ipv6_sums_to_0(segment: Segment) -> None:
    data = ipv6(segment).data[40:]
    ends = "20010db8000a000000000000000000012001 0db8000b00000000000000000002"
    pseudo = bytes.fromhex(ends) + struct.pack("!II", len(data), segment.protocol)
    assert (A6, B6) == ("2001:db8:a::1", "2001:db8:b::2")
    assert internet_checksum(pseudo + data) == 0


def test_icmp_sums_to_0() -> None:
    assert internet_checksum(icmp(8, 0, b"odd").data) == 0


def test_sctp_has_the_crc_of_itself_with_0() -> None:
    data = sctp(b"chunk").data
    assert data[8:12] == struct.pack("<I", crc32c(data[:8] + bytes(4) + data[12:]))


def test_eth_with_tags_and_padding() -> None:
    frame = eth(vlan(10, ethertype=0x88A8), vlan(0xFFF, pcp=7, dei=1), raw(0x1234, b"x"), pad=24)
    assert frame.hex() == "02000000000202000000000188a8000a8100ffff12347800"


def test_ipv6_chain_links_its_headers() -> None:
    frame = ipv6(udp(), extension(0), extension(43, units=1), fragment(offset=2, more=True), ah())
    data = frame.data
    assert data[4:6] == struct.pack("!H", 8 + 16 + 8 + 24 + 8)
    assert (data[6], data[40], data[48], data[64], data[72]) == (0, 43, 44, 51, 17)
    assert (data[41], data[49], data[73]) == (0, 1, 4)
    assert data[66:68] == b"\x00\x11"


def test_fragments_put_together_are_the_whole() -> None:
    whole = ipv4(udp(bytes(range(64)))).data[20:]
    first = ipv4(udp(bytes(range(64))), part=slice(0, 24), mf=True).data
    later = ipv4(udp(bytes(range(64))), part=slice(24, None), offset=3).data
    assert first[20:] + later[20:] == whole
    assert (first[6:8], later[6:8]) == (b"\x20\x00", b"\x00\x03")
