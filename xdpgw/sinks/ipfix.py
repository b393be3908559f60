"""Events to a flow collector: IPFIX (RFC 7011) by UDP, a data record an event.

    message: header | set of template 256, 257 or 258: record, record ... | set ...

An event is a flow of one packet. Its elements are in `_HEAD`, `_IP` and `_TAIL`; what the packet
lacks is 0. The names of port and rule stand in the record itself, so that no collector needs to
have heard an earlier message but the templates. These go out first, again every minute, and
whenever the collector was gone.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from xdpgw._abi import Reason, Verdict
from xdpgw.collector import Collector, host_and_port, udp_datagrams
from xdpgw.errors import XdpgwError
from xdpgw.sink_options import Count, Spec, Text, Time
from xdpgw.sinks import SinkError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdpgw.config import SinkSettings
    from xdpgw.events import EventBatch

__all__ = ["MAX_BYTES", "SPEC", "TEMPLATES_NS", "IpfixSink", "forwarding_status", "make"]

MAX_BYTES = 1400
"""Bytes of a datagram without its IP and UDP headers: fits into 1500, in a tunnel or two, too."""
TEMPLATES_NS = 60_000_000_000
"""So often a collector that was started anew hears what records look like."""

_LEAST_BYTES = 512
"""What any path takes: RFC 7011, 10.3.3."""

Field: TypeAlias = tuple[int, str, str]
"""Number of an element (IANA), its numpy type (big-endian), what `_columns` calls it."""

_HEAD: tuple[Field, ...] = (
    (325, ">u8", "observationTimeNanoseconds"),
    (152, ">u8", "flowStartMilliseconds"),
    (153, ">u8", "flowEndMilliseconds"),
)
_IP: tuple[Field, ...] = (
    (4, "u1", "protocolIdentifier"),
    (5, "u1", "ipClassOfService"),
    (192, "u1", "ipTTL"),
    (6, "u1", "tcpControlBits"),
    # Before the ports: nfdump keeps it where the destination port goes.
    (-1, ">u2", "icmpTypeCode"),
    (7, ">u2", "sourceTransportPort"),
    (11, ">u2", "destinationTransportPort"),
)
_TAIL: tuple[Field, ...] = (
    (256, ">u2", "ethernetType"),
    (58, ">u2", "vlanId"),
    (10, ">u4", "ingressInterface"),
    (1, ">u4", "octetDeltaCount"),
    (2, ">u4", "packetDeltaCount"),
    (89, "u1", "forwardingStatus"),
)
_NAMES = (82, 335)
"""interfaceName and selectorName, of variable length (RFC 7011, 7)."""


def _ip(src: int, dst: int, width: str, icmp: int) -> tuple[Field, ...]:
    addresses = ((src, width, "src"), (dst, width, "dst"))
    return addresses + tuple((icmp if x < 0 else x, kind, name) for x, kind, name in _IP)


_TEMPLATES: dict[int, tuple[int, tuple[Field, ...]]] = {
    4: (256, (*_HEAD, *_ip(8, 12, "V4", 32), *_TAIL)),
    6: (257, (*_HEAD, *_ip(27, 28, "V16", 139), *_TAIL)),
    0: (258, (*_HEAD, *_TAIL)),
}
"""By family of addresses: the number of the template, and its elements of fixed length."""

_NTP_EPOCH_S = 2_208_988_800
"""1970 as seconds since 1900: RFC 7011, 6.1.9."""
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2  # linux/in.h, linux/in6.h

SPEC = Spec(
    {
        "to": Text('"HOST:PORT"', partial(host_and_port, example=4739)),
        "domain": Count(0, 0xFFFFFFFF),
        "templates": Time("1s", "1h"),
        "max_bytes": Count(_LEAST_BYTES, 65_000),
    },
    main="to",
    needed=True,
    example='{ ipfix = "HOST:PORT" }',
)


class IpfixSink:
    """Sends events to a collector."""

    def __init__(
        self,
        to: str,
        *,
        domain: int = 0,
        templates_ns: int = TEMPLATES_NS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Connect when the first event comes.

        Args:
            to: HOST:PORT; an IPv6 address stands in brackets.
            domain: the observation domain.
            templates_ns: templates are sent again after so long.
            max_bytes: of a datagram without its IP and UDP headers.
        """
        self.name = f"ipfix {to}"
        self._collector = Collector(to, partial(_connected, *host_and_port(to)))
        self._domain = domain
        self._templates_ns = templates_ns
        self._max_bytes = max_bytes
        self._sequence = 0
        """Of the next data record: RFC 7011, 3.1."""
        self._templates_due_ns = 0
        """CLOCK_MONOTONIC."""
        self._interfaces: dict[str | None, int] = {}

    def write(self, batch: EventBatch) -> None:
        """Send a record an event, in order."""
        messages: list[bytes] = []
        records: list[int] = []  # of each message
        now_ns = time.monotonic_ns()
        if now_ns >= self._templates_due_ns:
            self._interfaces.clear()  # an interface that was made anew has another number
            messages.append(self._message(self._sequence, _template_set()))
            records.append(0)
        sequence = self._sequence
        for count, body in self._bodies(batch):
            messages.append(self._message(sequence, body))
            records.append(count)
            sequence = (sequence + count) & 0xFFFFFFFF
        try:
            self._collector.send(messages)
        except SinkError as error:
            self._templates_due_ns = 0
            raise self._failed(error, records) from error
        self._sequence = sequence
        if now_ns >= self._templates_due_ns:
            self._templates_due_ns = now_ns + self._templates_ns

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Close the socket."""
        self._collector.close()

    def _failed(self, error: SinkError, records: Sequence[int]) -> SinkError:
        """The error in events instead of messages."""
        behind, lost = len(records) - error.left, error.lost
        too_long = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EMSGSIZE
        if too_long and self._max_bytes > _LEAST_BYTES:
            self._max_bytes = max(_LEAST_BYTES, self._max_bytes * 3 // 4)
            behind, lost = behind - lost, 0  # they may go in smaller ones
        # Those lost have had their numbers, so that the collector knows of them.
        self._sequence = (self._sequence + sum(records[:behind])) & 0xFFFFFFFF
        return SinkError(
            str(error),
            error.hint,
            lost=sum(records[behind - lost : behind]),
            left=sum(records[behind:]),
        )

    # Messages

    def _message(self, sequence: int, body: bytes) -> bytes:
        head = (10, 16 + len(body), int(time.time()), sequence, self._domain)
        return struct.pack(">HHIII", *head) + body

    def _bodies(self, batch: EventBatch) -> Iterator[tuple[int, bytes]]:
        """The sets of as many messages as it takes, with the number of records in each."""
        room = self._max_bytes - 16
        body, count, start, current = bytearray(), 0, 0, -1
        for template, record in self._records(batch):
            more = len(record) + (4 if template != current else 0)
            if count and len(body) + more > room:
                _end_set(body, start)
                yield count, bytes(body)
                body, count, current = bytearray(), 0, -1
            if template != current:
                if count:
                    _end_set(body, start)
                start, current = len(body), template
                body += struct.pack(">HH", template, 0)
            body += record
            count += 1
        _end_set(body, start)
        yield count, bytes(body)

    def _records(self, batch: EventBatch) -> Iterator[tuple[int, bytes]]:
        """Of each event in order the number of its template, and its record."""
        import numpy as np

        events = batch.events
        columns = self._columns(batch)
        packed: dict[int, Iterator[bytes]] = {}
        for family, (_, fields) in _TEMPLATES.items():
            chosen = events["family"] == family
            array = np.zeros(np.count_nonzero(chosen), [(name, kind) for _, kind, name in fields])
            for _, kind, name in fields:
                if name in ("src", "dst"):
                    raw = events[name][chosen][:, : int(kind[1:])]
                    array[name] = np.ascontiguousarray(raw).view(kind).ravel()
                else:
                    array[name] = columns[name][chosen]
            packed[family] = _cut(array)
        tails: dict[tuple[int, int], bytes] = {}
        keys = (events[name].tolist() for name in ("family", "port", "rule"))
        for family, port, rule in zip(*keys, strict=True):
            tail = tails.get((port, rule))
            if tail is None:
                names = batch.names
                tail = _text(names.port(port)) + _text(names.rule(rule))
                tails[port, rule] = tail
            yield _TEMPLATES[family][0], next(packed[family]) + tail

    def _columns(self, batch: EventBatch) -> dict[str, Any]:
        """Elements by name, of all events."""
        import numpy as np

        events = batch.events
        ts_ns = (events["ts_ns"].astype(np.int64) + batch.realtime_offset_ns).astype(np.uint64)
        second, rest = np.divmod(ts_ns, np.uint64(10**9))
        era_s = (second + np.uint64(_NTP_EPOCH_S)) & np.uint64(0xFFFFFFFF)
        # Rounded up: who rounds down again has the same nanosecond.
        fraction = ((rest << np.uint64(32)) + np.uint64(10**9 - 1)) // np.uint64(10**9)
        ms = ts_ns // np.uint64(10**6)
        return {
            "observationTimeNanoseconds": era_s << np.uint64(32) | fraction,
            "flowStartMilliseconds": ms,
            "flowEndMilliseconds": ms,
            "protocolIdentifier": events["proto"],
            "ipClassOfService": events["dscp"] << 2,
            "ipTTL": events["ttl"],
            "tcpControlBits": events["tcp_flags"],
            "icmpTypeCode": events["icmp_type"].astype(np.uint16) << 8 | events["icmp_code"],
            "sourceTransportPort": events["sport"],
            "destinationTransportPort": events["dport"],
            "ethernetType": events["ethertype"],
            "vlanId": np.where(events["vlan"] < 4096, events["vlan"], 0),
            "ingressInterface": self._interface_numbers(batch),
            "octetDeltaCount": events["len_bytes"],
            "packetDeltaCount": np.ones(len(events), np.uint32),
            "forwardingStatus": _statuses()[events["verdict"], events["reason"]],
        }

    def _interface_numbers(self, batch: EventBatch) -> NDArray[np.uint32]:
        import numpy as np

        slots, at = np.unique(batch.events["port"], return_inverse=True)
        names = (batch.names.port(int(slot)) for slot in slots)
        return np.array([self._interface(name) for name in names], np.uint32)[at]

    def _interface(self, name: str | None) -> int:
        """The number of an interface; 0 where there is none of that name."""
        if name not in self._interfaces:
            self._interfaces[name] = 0
            if name is not None:
                with suppress(OSError):
                    self._interfaces[name] = socket.if_nametoindex(name)
        return self._interfaces[name]


def _template_set() -> bytes:
    templates = b""
    for number, fields in _TEMPLATES.values():
        templates += struct.pack(">HH", number, len(fields) + len(_NAMES))
        for element, kind, _ in fields:
            templates += struct.pack(">HH", element, int(kind.strip(">uV")))
        for element in _NAMES:
            templates += struct.pack(">HH", element, 0xFFFF)
    return struct.pack(">HH", 2, 4 + len(templates)) + templates


def _end_set(body: bytearray, start: int) -> None:
    """Write the length of the set that begins there into it."""
    struct.pack_into(">H", body, start + 2, len(body) - start)


def _cut(array: NDArray[Any]) -> Iterator[bytes]:
    data, size = array.tobytes(), array.dtype.itemsize
    return (data[at : at + size] for at in range(0, len(data), size))


def _text(name: str | None) -> bytes:
    """A string with its length before it; names of ports and rules are short."""
    text = (name or "").encode()[:254]
    return bytes([len(text)]) + text


def forwarding_status(verdict: Verdict, reason: Reason) -> int:
    """The element forwardingStatus (RFC 7270, 4.12): 64 forwarded, 128 dropped, 192 consumed, plus
    why as far as there is a code for it."""
    if verdict is Verdict.AF_XDP:
        return 192
    if verdict is Verdict.REJECT:
        return 129  # ACL deny
    if verdict is not Verdict.DROP:
        return 64
    if reason is Reason.LIMIT:
        return 138  # policer
    if reason in (Reason.RULE, Reason.DEFAULT, Reason.BLOCK, Reason.FRAGMENT):
        return 130  # ACL drop
    return 128


@cache
def _statuses() -> NDArray[np.uint8]:
    """`forwarding_status` by the numbers of verdict and reason."""
    import numpy as np

    out = np.zeros((256, 256), np.uint8)
    for verdict in Verdict:
        for reason in Reason:
            out[verdict, reason] = forwarding_status(verdict, reason)
    return out


def _connected(host: str, port: int) -> socket.socket:
    """A socket whose datagrams are never cut into fragments."""
    made = udp_datagrams(host, port)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    return made


def make(settings: SinkSettings) -> IpfixSink:
    """The sink `{ ipfix = "HOST:PORT" }`."""
    options = settings.options
    if "to" not in options:
        raise XdpgwError("the sink ipfix needs a collector", SPEC.example)
    return IpfixSink(
        str(options["to"]),
        domain=int(options.get("domain", 0)),
        templates_ns=int(options.get("templates", TEMPLATES_NS)),
        max_bytes=int(options.get("max_bytes", MAX_BYTES)),
    )
