"""`xdpgw demo`: a policy, some frames of every kind, and what becomes of them, on real interfaces.

Everything happens in network namespaces that the demo makes and that end with it. For native and
for generic mode: attach, send each frame, read the verdict off the counters, see whether the
frame reached the host's stack or came back on the wire, and print the source log as it arrives.
Counters, log and what was seen have to agree, and so have the two modes.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from xdpgw import gateway
from xdpgw._abi import Reason, Verdict
from xdpgw.events import EventReader, Names
from xdpgw.pins import Instance
from xdpgw.targets import Targets, prepare
from xdpgw.testbed import PacketSocket, TestBed
from xdpgw.testing import Books, read_books

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["POLICY", "Seen", "run", "samples"]

MODES = ("native", "generic")
WAIT_S = 2.0

Told = tuple[str, str, str | None]
"""Verdict, reason and rule, as an event of the log tells them."""

POLICY = """
[policy]
default = "drop"
rules = \"\"\"
ssh    pass  tcp from 10.0.0.0/8 to port 22
web    pass  tcp to port @web flags syn,!ack
bad    drop  from @bad                          log
echo   tx    udp to port 7
ten    drop  vlan 10
ping   pass  icmp type echo-request
ping6  pass  icmp6 type echo-request
bits   drop  frag later
dns    pass  udp to port 53
user   af_xdp mirror else drop  udp to port 4789
\"\"\"
[sets]
web = [80, 443]
bad = ["192.0.2.0/24", "2001:db8:bad::/48"]
[ports.left]
mode = "MODE"
[af_xdp.mirror]
handler = "reflect"
[log]
sources = "every"
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one frame."""

    verdict: str
    reason: str
    rule: str | None
    arrived: str
    """Where the frame was seen: "host", "wire" or "nowhere"."""

    @property
    def why(self) -> str:
        """The rule that decided, else the reason."""
        return f"rule {self.rule}" if self.rule else self.reason

    @property
    def consistent(self) -> bool:
        """Whether the frame was seen where its verdict says."""
        sent_back = "wire" if self.verdict in SENT_BACK else "nowhere"
        return self.arrived == ("host" if self.verdict == "pass" else sent_back)


def _swapped(frame: bytes) -> bytes:
    return frame[6:12] + frame[:6] + frame[12:]


SENT_BACK: Mapping[str, Callable[[bytes], bytes]] = {"tx": bytes, "af_xdp": _swapped}
"""What comes back on the wire for a frame, by its verdict."""


def samples() -> list[tuple[str, bytes]]:
    """Frames to send, with what they are; crafted by scapy."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
    from scapy.layers.inet6 import (
        ICMPv6EchoRequest,
        ICMPv6ND_NS,
        IPv6,
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
    )
    from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
    from scapy.packet import Raw

    def eth(*layers: Any) -> bytes:
        frame = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
        for layer in layers:
            frame /= layer
        return bytes(frame)

    # Whatever is not given here scapy looks up in the machine's routes.
    good = {"src": "10.1.0.1", "dst": "198.51.100.1"}
    good6 = {"src": "2001:db8:a::1", "dst": "2001:db8:b::2"}
    bad, bad6 = {**good, "src": "192.0.2.7"}, {**good6, "src": "2001:db8:bad::1"}
    arp = {"hwsrc": "02:00:00:00:00:01", "psrc": "10.1.0.1", "pdst": "10.1.0.2"}
    return [
        ("IPv4 TCP SYN to ssh", eth(IP(**good), TCP(dport=22))),
        ("IPv6 TCP SYN to https", eth(IPv6(**good6), TCP(dport=443))),
        ("IPv4 TCP SYN,ACK to http", eth(IP(**good), TCP(dport=80, flags="SA"))),
        ("IPv4 from a bad network", eth(IP(**bad), UDP(dport=53))),
        ("IPv6 from a bad network", eth(IPv6(**bad6), UDP(dport=53))),
        ("IPv4 UDP to echo", eth(IP(**good), UDP(dport=7), Raw(b"hello"))),
        ("IPv4 DNS behind options", eth(IP(**good, options=[IPOption_NOP()] * 4), UDP(dport=53))),
        ("IPv6 DNS behind options", eth(IPv6(**good6), IPv6ExtHdrDestOpt(), UDP(dport=53))),
        ("VLAN 10, IPv4 DNS", eth(Dot1Q(vlan=10), IP(**good), UDP(dport=53))),
        ("VLAN 20, IPv4 DNS", eth(Dot1Q(vlan=20), IP(**good), UDP(dport=53))),
        (
            "QinQ 30/10, IPv6 DNS",
            eth(Dot1AD(vlan=30), Dot1Q(vlan=10), IPv6(**good6), UDP(dport=53)),
        ),
        ("three VLAN tags", eth(Dot1Q(), Dot1Q(), Dot1Q(vlan=1), IP(**good), UDP(dport=53))),
        ("ICMP echo request", eth(IP(**good), ICMP())),
        ("ICMPv6 echo request", eth(IPv6(**good6), ICMPv6EchoRequest())),
        ("ICMPv6 neighbour question", eth(IPv6(**good6, hlim=255), ICMPv6ND_NS())),
        ("ARP", eth(ARP(**arp))),
        (
            "first fragment of DNS",
            eth(IP(**good, flags="MF"), UDP(dport=53, len=900), Raw(bytes(64))),
        ),
        ("later fragment", eth(IP(**good, frag=10, proto=17), Raw(bytes(64)))),
        (
            "IPv6 later fragment",
            eth(IPv6(**good6), IPv6ExtHdrFragment(offset=9, nh=17), Raw(bytes(64))),
        ),
        ("IPv4 VXLAN, to user space", eth(IP(**good), UDP(dport=4789), Raw(bytes(8)))),
        ("IPv4 with IHL 3", eth(IP(**good, ihl=3), UDP(dport=53))),
        ("IPv4 longer than its frame", eth(IP(**good, len=400), UDP(dport=53))),
        ("TCP cut after its ports", eth(IP(**good, proto=6, len=24), Raw(bytes(4)))),
    ]


def run(console: Console, *, as_json: bool = False) -> int:
    """Show it all.

    Args:
        console: where to; as JSON to standard output instead with as_json.

    Returns:
        exit status: 0, or 1 where the modes differ, a frame was not where its verdict says, the log
        says otherwise, or the books do not add up.

    Raises:
        PrivilegeError: it takes root.
    """
    frames = samples()
    results: dict[str, list[Seen]] = {}
    books: dict[str, Books] = {}
    told: dict[str, list[Told]] = {}

    def tell(line: str) -> None:
        if not as_json:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    with _terminable():
        for mode in MODES:
            tell(f"\n{mode} mode: {len(frames)} frames, and the source log as it comes")
            results[mode], books[mode], told[mode] = _one_mode(mode, frames, tell)
    same = results["native"] == results["generic"]
    consistent = all(seen.consistent for mode in MODES for seen in results[mode])
    add_up = all(books[mode].received == len(frames) and books[mode].log_adds_up for mode in MODES)
    logged = all(
        len(told[mode]) == books[mode].log.written and _in_order(told[mode], results[mode])
        for mode in MODES
    )
    fine = same and consistent and add_up and logged
    if as_json:
        _print_json(frames, results, books, fine)
    else:
        _print_tables(console, frames, results, books)
        console.print(f"both modes judge alike: {_yes(same)}")
        console.print(f"every frame was seen where its verdict says: {_yes(consistent)}")
        console.print(f"the log says the same: {_yes(logged)}")
        console.print(f"the books add up: {_yes(add_up)}")
    return 0 if fine else 1


def _yes(fact: bool) -> str:
    return "yes" if fact else "NO"


def _in_order(told: Sequence[Told], seen: Sequence[Seen]) -> bool:
    """Whether the log tells what was counted, in the order sent. Not all packets have a source."""
    counted = iter((x.verdict, x.reason, x.rule) for x in seen)
    return all(event in counted for event in told)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that all is cleaned up."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_mode(
    mode: str, frames: Sequence[tuple[str, bytes]], tell: Any
) -> tuple[list[Seen], Books, list[Told]]:
    from xdpgw import config

    policy = config.loads(POLICY.replace("MODE", mode), file="demo")
    with ExitStack() as stack:
        bed = stack.enter_context(TestBed(("left",)))
        with bed.gateway.entered():
            instance = Instance()
            stack.callback(gateway.detach, instance)
            manifest = gateway.apply(policy, instance).manifest
            targets = stack.enter_context(Targets(instance, tell))
            targets.serve(policy, manifest, prepare(policy))
            maps = stack.enter_context(instance.books())
        reader = stack.enter_context(EventReader(maps["events"]))
        wire, host = stack.enter_context(bed.wire()), stack.enter_context(bed.host())
        names = Names.of(ports=manifest.port_slots, rules=manifest.rule_slots)
        seen: list[Seen] = []
        told: list[Told] = []
        for _, frame in frames:
            seen.append(_send(frame, wire, host, maps, manifest))
            told += _tell_log(reader, names, tell)
        books = read_books(maps, manifest)
        deadline = time.monotonic() + WAIT_S
        while len(told) < books.log.written and time.monotonic() < deadline:
            told += _tell_log(reader, names, tell, timeout_ms=50)
        return seen, books, told


def _send(frame: bytes, wire: PacketSocket, host: PacketSocket, maps: Any, manifest: Any) -> Seen:
    before = read_books(maps, manifest)
    wire.send([frame])
    after = before.wait_for(maps, manifest, packets=1, timeout_s=WAIT_S)
    verdict, reason, rule = after.only_new(before)
    # A dropped frame is nowhere by the time it is counted; the others are on their way.
    arrived = "nowhere"
    if verdict == "pass" and frame in host.receive(1, WAIT_S):
        arrived = "host"
    elif verdict in SENT_BACK and SENT_BACK[verdict](frame) in wire.receive(1, WAIT_S):
        arrived = "wire"
    elif host.waiting() or wire.waiting():
        arrived = "elsewhere"
    return Seen(verdict, reason, rule, arrived)


def _tell_log(reader: EventReader, names: Names, tell: Any, timeout_ms: int = 0) -> list[Told]:
    from xdpgw.events import EventBatch, realtime_offset_ns
    from xdpgw.sinks.stdout import STYLES

    events = reader.drain(timeout_ms=timeout_ms)
    if len(events):
        for line in STYLES["line"](EventBatch(events, names, realtime_offset_ns())):
            tell(f"  {line}")
    return [
        (Verdict(verdict).text, Reason(reason).text, names.rule(rule))
        for verdict, reason, rule in zip(
            *(events[name].tolist() for name in ("verdict", "reason", "rule")), strict=True
        )
    ]


def _print_json(
    frames: Sequence[tuple[str, bytes]],
    results: dict[str, list[Seen]],
    books: dict[str, Books],
    fine: bool,
) -> None:
    from xdpgw.cli_json import print_json

    rows = [
        {
            "frame": name,
            **{
                mode: {
                    "verdict": results[mode][at].verdict,
                    "reason": results[mode][at].reason,
                    "rule": results[mode][at].rule,
                    "arrived": results[mode][at].arrived,
                }
                for mode in MODES
            },
        }
        for at, (name, _) in enumerate(frames)
    ]
    counted = {
        mode: {"received": books[mode].received, "log": asdict(books[mode].log)} for mode in MODES
    }
    print_json({"frames": rows, "books": counted, "fine": fine})


def _print_tables(
    console: Console,
    frames: Sequence[tuple[str, bytes]],
    results: dict[str, list[Seen]],
    books: dict[str, Books],
) -> None:
    from rich.table import Table

    table = Table(
        box=None, pad_edge=False, title="\nWhat became of each frame", title_justify="left"
    )
    for column in ("frame", "native", "generic", "why", "seen at"):
        table.add_column(column, no_wrap=column != "frame")
    for at, (name, _) in enumerate(frames):
        native, generic = results["native"][at], results["generic"][at]
        why = native.why if native.why == generic.why else f"{native.why} / {generic.why}"
        table.add_row(name, native.verdict, generic.verdict, why, native.arrived)
    console.print(table)

    table = Table(box=None, pad_edge=False, title="\nThe books", title_justify="left")
    for column in ("counter", "native", "generic"):
        table.add_column(column, justify="left" if column == "counter" else "right")
    rows = sorted({key for mode in MODES for key in books[mode].counters})
    for verdict, reason in rows:
        counts = [str(books[mode].counters.get((verdict, reason), 0)) for mode in MODES]
        table.add_row(f"{verdict.text} by {reason.text}", *counts)
    table.add_row("sum = received", *(str(books[mode].received) for mode in MODES))
    for name in ("due", "written", "lost", "limited"):
        table.add_row(f"log {name}", *(str(getattr(books[mode].log, name)) for mode in MODES))
    console.print(table)
