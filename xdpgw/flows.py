"""Frames to send, of many flows at once: built from a template in numpy, or read from a capture.

A flow is a source address and a source port. Frames are crafted as arrays, all flows together, with
right checksums, because crafting one at a time costs a millisecond each.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IMIX", "MAX_FLOWS", "Frames", "Template", "frames_of_pcap"]

MAX_FLOWS = 65_536
"""Frames are laid out in memory, 2 KiB each."""

IMIX = ((60, 7), (590, 4), (1514, 1))
"""Lengths in bytes without FCS, and how often each of twelve frames has it ("simple IMIX")."""

ETHERNET_MIN = 60
"""Bytes of the shortest Ethernet frame, without FCS."""

_PROTOCOLS = {"udp": 17, "tcp": 6, "icmp": 1}
_L4_BYTES = {"udp": 8, "tcp": 20, "icmp": 8}


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames, one behind the other.

    Args:
        data: all bytes, shape (total,), uint8.
        offsets: where each frame begins, shape (n,).
        lengths: of each, in bytes without FCS, shape (n,), uint32.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.uintp]
    lengths: NDArray[np.uint32]

    @classmethod
    def of(cls, frames: Iterable[bytes]) -> Self:
        """Frames given as bytes."""
        listed = list(frames)
        lengths = np.fromiter(map(len, listed), np.uint32, len(listed))
        offsets = np.zeros(len(listed), np.uintp)
        np.cumsum(lengths[:-1], out=offsets[1:])
        return cls(np.frombuffer(b"".join(listed), np.uint8), offsets, lengths)

    @classmethod
    def of_matrix(cls, rows: NDArray[np.uint8]) -> Self:
        """Frames of one length, shape (n, length)."""
        n, length = rows.shape
        offsets = np.arange(n, dtype=np.uintp) * np.uintp(length)
        return cls(np.ascontiguousarray(rows).reshape(-1), offsets, np.full(n, length, np.uint32))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, at: int) -> bytes:
        start = int(self.offsets[at])
        return self.data[start : start + int(self.lengths[at])].tobytes()

    def __iter__(self) -> Any:
        return (self[at] for at in range(len(self)))


def frames_of_pcap(path: Path | str) -> Frames:
    """All frames of a pcap or pcapng, in order.

    Raises:
        XdpgwError: it cannot be read, or has no frame.
    """
    from xdpgw.explain import read_frames

    listed = list(read_frames(path))
    if not listed:
        raise XdpgwError(f"{path} has no frame to send", "tcpdump -w writes some")
    return Frames.of(listed)


@dataclass(frozen=True, slots=True)
class Template:
    """What the frames of all flows have in common, and what varies.

    Args:
        proto: udp, tcp (a SYN) or icmp (an echo request; ICMPv6 where addresses are IPv6).
        src: prefix that source addresses are taken from, one after the other.
        dst: destination address, of the same family.
        sport: first and last source port; with them, flows vary in ports first, then in addresses.
        dport: destination port.
        eth_src: source MAC address.
        eth_dst: destination MAC address.
        vlan: id of a VLAN tag; None for none.
        lengths: bytes of a frame without FCS; several: each flow has the next one, round and round.
    """

    proto: Literal["udp", "tcp", "icmp"] = "udp"
    src: str = "198.18.0.0/15"
    dst: str = "198.19.255.254"
    sport: tuple[int, int] = (49152, 49152)
    dport: int = 9
    eth_src: str = "02:00:00:00:00:0a"
    eth_dst: str = "02:00:00:00:00:0b"
    vlan: int | None = None
    lengths: Sequence[int] = (ETHERNET_MIN,)

    def frames(self, flows: int = 1) -> Frames:
        """Craft a frame a flow.

        Args:
            flows: how many, 1 to `MAX_FLOWS`.

        Returns:
            at least `flows` frames: with several lengths, whole rounds of them.

        Raises:
            XdpgwError: a number is out of its range, a length is too short for the headers, the
                families differ, or the prefix and the ports do not make as many flows.
        """
        self._check_numbers()
        network, target = self._addresses()
        ports = self.sport[1] - self.sport[0] + 1 if self.proto != "icmp" else 1
        if not 1 <= flows <= MAX_FLOWS:
            raise XdpgwError(f"{flows} flows are too many or too few", f"1 to {MAX_FLOWS}")
        if flows > network.num_addresses * ports:
            raise XdpgwError(
                f"{self.src} with {ports} source ports makes {network.num_addresses * ports} "
                f"flows, not {flows}",
                "a wider prefix, or more source ports",
            )
        rounds = -(-flows // len(self.lengths))
        count = rounds * len(self.lengths)
        numbers = np.arange(count) % flows
        first = int(network.network_address)
        made: list[bytes] = [b""] * count
        for at, length in enumerate(self.lengths):
            mine = numbers[at :: len(self.lengths)]
            addresses = [first + int(n) // ports for n in mine]
            sports = self.sport[0] + mine % ports
            rows = self._craft(length, network.version, addresses, int(target), sports)
            if len(self.lengths) == 1:
                return Frames.of_matrix(rows)
            for number, row in zip(range(at, count, len(self.lengths)), rows, strict=True):
                made[number] = row.tobytes()
        return Frames.of(made)

    def _check_numbers(self) -> None:
        first, last = self.sport
        if not 0 <= first <= last <= 65_535:
            raise XdpgwError(f"{first}-{last} are no source ports", "such as 1024-65535")
        if not 0 <= self.dport <= 65_535:
            raise XdpgwError(f"{self.dport} is no destination port", "0 to 65535")
        if self.vlan is not None and not 0 <= self.vlan <= 4094:
            raise XdpgwError(f"{self.vlan} is no id of a VLAN", "0 to 4094")
        if not self.lengths or self.proto not in _PROTOCOLS:
            what = f"no protocol {self.proto}" if self.lengths else "no length"
            raise XdpgwError(f"there is {what} to make frames of", "udp, tcp or icmp; 60 bytes")

    def _addresses(self) -> tuple[Any, Any]:
        try:
            network = ipaddress.ip_network(self.src, strict=False)
            target = ipaddress.ip_address(self.dst)
        except ValueError as error:
            raise XdpgwError(str(error), "such as 198.18.0.0/15 or 2001:2::/48") from error
        if network.version != target.version:
            raise XdpgwError(
                f"the source {self.src} and the destination {self.dst} are of two families",
                "--dst 2001:2::1 goes with --src 2001:2::/48",
            )
        return network, target

    def _craft(
        self, length: int, version: int, sources: list[int], target: int, sports: NDArray[Any]
    ) -> NDArray[np.uint8]:
        n, size = len(sources), 4 if version == 4 else 16
        tag = b"" if self.vlan is None else struct.pack("!HH", 0x8100, self.vlan)
        l3 = 12 + len(tag) + 2
        l4 = l3 + (20 if version == 4 else 40)
        least = l4 + _L4_BYTES[self.proto]
        if not least <= length <= 65_535:
            raise XdpgwError(
                f"a frame of {length} bytes is too {'short' if length < least else 'long'}",
                f"its headers take {least}; lengths are without the FCS",
            )
        rows = np.zeros((n, length), np.uint8)
        ethertype = struct.pack("!H", 0x0800 if version == 4 else 0x86DD)
        _put(rows, 0, _mac(self.eth_dst) + _mac(self.eth_src) + tag + ethertype)
        source = _columns(sources, size)
        destination = np.frombuffer(target.to_bytes(size, "big"), np.uint8)
        proto = 58 if (self.proto, version) == ("icmp", 6) else _PROTOCOLS[self.proto]
        if version == 4:
            header = struct.pack("!BBHHHBBH", 0x45, 0, length - l3, 0, 0, 64, proto, 0)
            _put(rows, l3, header)
            rows[:, l3 + 12 : l3 + 16] = source
            rows[:, l3 + 16 : l3 + 20] = destination
            _put_sum(rows, l3 + 10, _sum(rows[:, l3:l4]))
        else:
            _put(rows, l3, struct.pack("!IHBB", 6 << 28, length - l4, proto, 64))
            rows[:, l3 + 8 : l3 + 24] = source
            rows[:, l3 + 24 : l3 + 40] = destination
        pseudo = _sum(source) + _sum(destination[None, :]) + (length - l4) + proto
        self._craft_l4(rows, l4, version, sports, pseudo)
        return rows

    def _craft_l4(
        self,
        rows: NDArray[np.uint8],
        at: int,
        version: int,
        sports: NDArray[Any],
        pseudo: NDArray[np.int64],
    ) -> None:
        size = rows.shape[1] - at
        if self.proto == "icmp":
            # Type, code, checksum, identifier, sequence number.
            _put(rows, at, struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, 1, 1))
            _put_sum(rows, at + 2, _sum(rows[:, at:]) + (pseudo if version == 6 else 0))
            return
        rows[:, at] = sports >> 8
        rows[:, at + 1] = sports & 0xFF
        if self.proto == "udp":
            _put(rows, at + 2, struct.pack("!HHH", self.dport, size, 0))
            # RFC 768: a sum of 0 is sent as 0xffff, as 0 means that there is none.
            _put_sum(rows, at + 6, _sum(rows[:, at:]) + pseudo, zero=0xFFFF)
        else:
            header = struct.pack("!HIIBBHHH", self.dport, 0, 0, 5 << 4, 0x02, 65_535, 0, 0)
            _put(rows, at + 2, header)
            _put_sum(rows, at + 16, _sum(rows[:, at:]) + pseudo)


def _mac(text: str) -> bytes:
    try:
        made = bytes.fromhex(text.replace(":", " ").replace("-", " "))
    except ValueError:
        made = b""
    if len(made) != 6:
        raise XdpgwError(f"{text} is not a MAC address", "such as 02:00:00:00:00:0b")
    return made


def _columns(numbers: Sequence[int], size: int) -> NDArray[np.uint8]:
    raw = b"".join(number.to_bytes(size, "big") for number in numbers)
    return np.frombuffer(raw, np.uint8).reshape(-1, size)


def _put(rows: NDArray[np.uint8], at: int, value: bytes) -> None:
    rows[:, at : at + len(value)] = np.frombuffer(value, np.uint8)


def _sum(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The sum of the 16-bit words of each row, a last odd byte as the upper half of one."""
    high = rows[:, 0::2].sum(axis=1, dtype=np.int64)
    low = rows[:, 1::2].sum(axis=1, dtype=np.int64)
    total: NDArray[np.int64] = (high << 8) + low
    return total


def _put_sum(rows: NDArray[np.uint8], at: int, total: NDArray[np.int64], zero: int = 0) -> None:
    """The ones' complement of the folded sum (RFC 1071)."""
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    value = ~total & 0xFFFF
    value[value == 0] = zero
    rows[:, at] = value >> 8
    rows[:, at + 1] = value & 0xFF
