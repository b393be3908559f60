"""The reference itself, held to answers worked out by hand from docs/policy.md.

Frames are put together here with struct alone, so that no helper shares a mistake with the judge;
the table of packets, written from the same page by another hand, comes last.
"""

import struct
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.packets import POLICIES, rows_by_policy
from tests.reference import Judgement, Key, Malformed, Reference, parse

MACS = bytes.fromhex("020000000009020000000001")  # destination, then source
TCP, UDP, ICMP, ICMP6, SCTP, AH, NO_NEXT = 6, 17, 1, 58, 132, 51, 59
HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60


def ether(kind: int, payload: bytes = b"", *tags: tuple[int, int]) -> bytes:
    """A frame; each tag is its type and its tag control word."""
    words = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return MACS + words + struct.pack("!H", kind) + payload


def ip4(
    proto: int, data: bytes = b"", *, place: int = 0, src: str = "10.0.0.7", **over: int
) -> bytes:
    ihl, ttl, tos = over.get("ihl", 5), over.get("ttl", 64), over.get("tos", 0)
    options = b"\x01" * max(0, ihl * 4 - 20)
    total = over.get("total", 20 + len(options) + len(data))
    addresses = ip_address(src).packed + bytes([192, 0, 2, 1])
    first = over.get("version", 4) << 4 | ihl
    head = struct.pack("!BBHHHBBH", first, tos, total, 1, place, ttl, proto, 0)
    return head + addresses + options + data


def frame4(proto: int, data: bytes = b"", **how: int | str) -> bytes:
    return ether(0x0800, ip4(proto, data, **how))  # type: ignore[arg-type]


def frame6(proto: int, data: bytes = b"", *, src: str = "2001:db8::1", **over: int) -> bytes:
    word = over.get("version", 6) << 28 | over.get("traffic", 0) << 20
    head = struct.pack("!IHBB", word, over.get("length", len(data)), proto, over.get("hops", 64))
    addresses = ip_address(src).packed + ip_address("2001:db8::2").packed
    return ether(0x86DD, head + addresses + data)


def tcp(sport: int = 1000, dport: int = 22, flags: int = 2, offset: int = 5) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 0, 0, offset << 4, flags, 0, 0, 0)


def udp(sport: int = 1000, dport: int = 53, length: int = 8) -> bytes:
    return struct.pack("!HHHH", sport, dport, length, 0)


def extension(following: int, units: int = 0) -> bytes:
    return bytes([following, units]) + bytes(6 + units * 8)


def fragment(following: int, offset: int = 0, more: int = 0) -> bytes:
    return struct.pack("!BBHI", following, 0, offset << 3 | more, 77)


def key_of(frame: bytes) -> Key:
    key = parse(frame)
    assert isinstance(key, Key), key
    return key


def judge(rules: str, frame: bytes, port: str | None = None, settings: str = "") -> Judgement:
    sets = '[sets]\nnets = ["10.0.0.0/30", "2001:db8::/32"]\nweb = [80, "8000-8100"]\n'
    text = f'[policy]\n{settings}\nrules = """\n{rules}\n"""\n{sets}'
    return Reference.from_text(text).judge(frame, port)


GOOD = {
    "ipv4 tcp": frame4(TCP, tcp()),
    "ipv4 with ihl 15": frame4(TCP, tcp(), ihl=15),
    "ipv4 with padding behind the total length": frame4(UDP, udp()) + bytes(18),
    "ipv4 with nothing behind the header": frame4(47),
    "tcp with data offset up to its end": frame4(TCP, tcp(offset=6) + bytes(4)),
    "udp with bytes behind its length": frame4(UDP, udp() + b"rest"),
    "first fragment of a longer udp": frame4(UDP, udp(length=4000), place=0x2000),
    "later fragment without a byte": frame4(TCP, place=185),
    "sctp of 12 bytes": frame4(SCTP, bytes(12)),
    "icmp of 8 bytes": frame4(ICMP, bytes(8)),
    "icmpv6 of 4 bytes in ipv4": frame4(ICMP6, bytes(4)),
    "esp in ipv6 without a byte": frame6(50),
    "no next header with bytes behind it": frame6(NO_NEXT, b"rest"),
    "ipv6 with padding": frame6(TCP, tcp()) + bytes(3),
    "eight extension headers": frame6(
        HOP, b"".join(extension(DESTINATION) for _ in range(7)) + extension(TCP) + tcp()
    ),
    "ah of (1 + 2) * 4 bytes": frame6(AH, bytes([TCP, 1]) + bytes(10) + tcp()),
    "later fragment whose next header is hop-by-hop": frame6(FRAGMENT, fragment(HOP, 9)),
    "arp without a byte": ether(0x0806),
    "length instead of type": ether(40, bytes(3)),
    "two tags": ether(0x0806, b"", (0x88A8, 5), (0x8100, 6)),
}

BAD = {
    "13 bytes": MACS + b"\x08",
    "no byte": b"",
    "half of a tag": MACS + bytes([0x81, 0, 0]),
    "a tag without a type": MACS + bytes([0x81, 0, 0, 1]),
    "three tags": ether(0x0806, b"", (0x8100, 1), (0x8100, 2), (0x9100, 3)),
    "two tags and the type of a third": ether(0x88A8, b"", (0x8100, 1), (0x8100, 2)),
    "ipv4 of 19 bytes": ether(0x0800, ip4(TCP)[:19]),
    "ipv4 with version 6": frame4(TCP, tcp(), version=6),
    "ipv4 with ihl 4": frame4(47, bytes(40), ihl=4),
    "ipv4 with ihl 0": frame4(47, bytes(40), ihl=0),
    "ipv4 with total length below its header": frame4(TCP, tcp(), total=19),
    "ipv4 with total length inside its options": frame4(TCP, b"", ihl=7, total=24),
    "ipv4 with total length of one too many": frame4(TCP, tcp(), total=41),
    "tcp header partly in the padding": frame4(TCP, tcp(), total=39),
    "tcp with data offset 4": frame4(TCP, tcp(offset=4)),
    "tcp with data offset behind its end": frame4(TCP, tcp(offset=6)),
    "tiny first fragment": frame4(TCP, tcp()[:16], place=0x2000),
    "tcp options cut in a first fragment": frame4(TCP, tcp(offset=6), place=0x2000),
    "udp of 7 bytes": frame4(UDP, udp()[:7]),
    "udp with length 7": frame4(UDP, udp(length=7)),
    "udp with length 9 of 8": frame4(UDP, udp(length=9)),
    "first fragment of udp with length 7": frame4(UDP, udp(length=7), place=0x2000),
    "sctp of 11 bytes": frame4(SCTP, bytes(11)),
    "icmp of 7 bytes": frame4(ICMP, bytes(7)),
    "icmp of 7 bytes in ipv6": frame6(ICMP, bytes(7)),
    "icmpv6 of 3 bytes": frame6(ICMP6, bytes(3)),
    "ipv6 of 39 bytes": frame6(NO_NEXT)[:-1],
    "ipv6 with version 4": frame6(TCP, tcp(), version=4),
    "ipv6 with payload length of one too many": frame6(TCP, tcp(), length=21),
    "tcp header behind the payload length": frame6(TCP, tcp(), length=19),
    "jumbogram": frame6(HOP, extension(TCP) + tcp(), length=0),
    "nine extension headers": frame6(
        HOP, b"".join(extension(DESTINATION) for _ in range(8)) + extension(TCP) + tcp()
    ),
    "second hop-by-hop": frame6(HOP, extension(HOP) + extension(TCP) + tcp()),
    "hop-by-hop behind a first fragment header": frame6(
        FRAGMENT, fragment(HOP, 0, 1) + extension(TCP) + tcp()
    ),
    "extension header behind the payload length": frame6(ROUTING, extension(NO_NEXT, 1)[:-1]),
    "half of a fragment header": frame6(FRAGMENT, fragment(TCP, 9)[:7]),
    "ah behind its end": frame6(AH, bytes([NO_NEXT, 1]) + bytes(9)),
    "tiny first fragment in ipv6": frame6(FRAGMENT, fragment(UDP, 0, 1) + udp()[:4]),
}


@pytest.mark.parametrize("frame", GOOD.values(), ids=GOOD.keys())
def test_parse_sound_packet_has_key(frame: bytes) -> None:
    assert key_of(frame).len == len(frame)


@pytest.mark.parametrize("frame", BAD.values(), ids=BAD.keys())
def test_parse_broken_packet_is_malformed(frame: bytes) -> None:
    got = parse(frame)
    assert isinstance(got, Malformed)
    assert got.key.len == len(frame)


def test_parse_ipv4_tcp_tells_every_field() -> None:
    frame = ether(
        0x0800, ip4(TCP, tcp(1000, 22, 0x92), tos=0xB9, ttl=3), (0x88A8, 0xF00A), (0x8100, 7)
    )
    assert parse(frame, "eth0") == Key(
        family=4,
        src="10.0.0.7",
        dst="192.0.2.1",
        proto=TCP,
        sport=1000,
        dport=22,
        vlan=10,
        frag="no",
        len=14 + 8 + 40,
        tcp_flags=0x92,
        port="eth0",
        ethertype=0x0800,
        ether_from=bytes.fromhex("020000000001"),
        ether_to=bytes.fromhex("020000000009"),
        source=0x0A000007,
        destination=0xC0000201,
        ttl=3,
        dscp=46,
    )


def test_parse_ipv6_icmp6_tells_every_field() -> None:
    got = key_of(frame6(ICMP6, bytes([135, 1, 0, 0]), traffic=0xB9, hops=255))
    assert (got.family, got.src, got.dst) == (6, "2001:db8::1", "2001:db8::2")
    assert (got.proto, got.icmp_type, got.icmp_code) == (ICMP6, 135, 1)
    assert (got.dscp, got.ttl, got.frag, got.len) == (46, 255, "no", 58)
    assert (got.sport, got.dport, got.tcp_flags, got.vlan) == (None, None, None, None)


@pytest.mark.parametrize("kind", [HOP, ROUTING, DESTINATION, 135, 139, 140])
def test_parse_extension_header_is_stepped_over(kind: int) -> None:
    assert key_of(frame6(kind, extension(TCP, 1) + tcp())).dport == 22


def test_parse_priority_tag_is_vlan_0() -> None:
    assert key_of(ether(0x0806, b"", (0x8100, 0xE000))).vlan == 0


def test_parse_malformed_behind_a_tag_keeps_vlan() -> None:
    got = parse(ether(0x0800, b"", (0x9100, 9)))
    assert isinstance(got, Malformed)
    assert got.key.vlan == 9


def test_parse_not_ip_has_no_fragment_state() -> None:
    got = key_of(ether(0x0806, bytes(28)))
    assert (got.family, got.src, got.proto, got.frag) == (None, None, None, None)


FRAGMENTS = {
    "ipv4 with DF": (frame4(TCP, tcp(), place=0x4000), TCP, "no", 22),
    "ipv4 first": (frame4(TCP, tcp(), place=0x2000), TCP, "first", 22),
    "ipv4 later with more to come": (frame4(TCP, tcp(), place=0x2001), TCP, "later", None),
    "ipv4 last": (frame4(UDP, b"", place=0x1000), UDP, "later", None),
    "ipv6 atomic": (frame6(FRAGMENT, fragment(TCP) + tcp()), TCP, "no", 22),
    "ipv6 atomic with reserved bits": (
        frame6(FRAGMENT, bytes([TCP, 9, 0, 6, 0, 0, 0, 1]) + tcp()),
        TCP,
        "no",
        22,
    ),
    "ipv6 first": (frame6(FRAGMENT, fragment(TCP, 0, 1) + tcp()), TCP, "first", 22),
    "ipv6 later": (frame6(FRAGMENT, fragment(TCP, 1) + tcp()), TCP, "later", None),
    "ipv6 later of an extension": (frame6(FRAGMENT, fragment(60, 1, 1)), 60, "later", None),
    "ipv6 atomic, first": (
        frame6(FRAGMENT, fragment(FRAGMENT) + fragment(TCP, 0, 1) + tcp()),
        TCP,
        "first",
        22,
    ),
    "ipv6 first, atomic": (
        frame6(FRAGMENT, fragment(FRAGMENT, 0, 1) + fragment(TCP) + tcp()),
        TCP,
        "first",
        22,
    ),
    "ipv6 first, later": (
        frame6(FRAGMENT, fragment(FRAGMENT, 0, 1) + fragment(TCP, 2) + tcp()),
        TCP,
        "later",
        None,
    ),
}


@pytest.mark.parametrize(("frame", "proto", "frag", "dport"), FRAGMENTS.values(), ids=FRAGMENTS)
def test_parse_fragment_has_state(frame: bytes, proto: int, frag: str, dport: int | None) -> None:
    got = key_of(frame)
    assert (got.proto, got.frag, got.dport) == (proto, frag, dport)


SYN, SYN6 = frame4(TCP, tcp()), frame6(TCP, tcp())
LATER = frame4(TCP, tcp(), place=1)
TAGGED = ether(0x0806, b"", (0x8100, 10), (0x8100, 20))
UNREACHABLE4 = frame4(ICMP, bytes([3, 4]) + bytes(6))
UNREACHABLE6 = frame6(ICMP6, bytes([1, 4]) + bytes(6))
MATCHES = [
    ("", ether(40), True),
    ("tcp from 10.0.0.0/8 to port 22", SYN, True),
    ("tcp from 10.0.0.0/8 to port 23", SYN, False),
    ("tcp from 10.0.0.0/8 to port 22", SYN6, False),
    ("udp", SYN, False),
    ("ip tcp", SYN6, False),
    ("ip6 proto 6", SYN6, True),
    ("from 10.0.0.8-10.0.0.9", SYN, False),
    ("from 10.0.0.1 - 10.0.0.7", SYN, True),
    ("from @nets", SYN, False),
    ("from {10.0.0.0/24 10.0.0.1}", SYN, True),
    ("from @nets", SYN6, True),
    ("from {10.0.0.1, 10.0.0.6-10.0.0.7 @nets}", SYN, True),
    ("from not { 10.0.0.0/24, }", SYN, False),
    ("from not 10.0.0.0/8", SYN6, True),
    ("from not 10.0.0.0/8", ether(0x0806), False),
    ("from 0.0.0.0/0", SYN6, False),
    ("to 192.0.2.1 port {80 20-22}", SYN, True),
    ("to not 192.0.2.1 port 22", SYN, False),
    ("to port @web", frame4(UDP, udp(1, 8050)), True),
    ("to port @web", frame4(UDP, udp(1, 8101)), False),
    ("from port 1000 to port 22", SYN, True),
    ("from port 22", SYN, False),
    ("to port not 80", SYN, True),
    ("to port not 22", SYN, False),
    ("to port not 80", LATER, False),
    ("to port not 80", UNREACHABLE4, False),
    ("to port 0", frame4(SCTP, bytes(12)), True),
    ("tcp from 10.0.0.7", LATER, True),
    ("flags syn,!ack", SYN, True),
    ("flags syn,!ack", frame4(TCP, tcp(flags=0x12)), False),
    ("flags cwr,ece", frame4(TCP, tcp(flags=0xC0)), True),
    ("flags !syn", LATER, False),
    ("flags !syn", frame4(UDP, udp()), False),
    ("type 3", UNREACHABLE4, True),
    ("type unreachable code 4", UNREACHABLE4, True),
    ("type unreachable code 3", UNREACHABLE4, False),
    ("type destination-unreachable", UNREACHABLE6, True),
    ("icmp type unreachable", UNREACHABLE6, False),
    ("icmp6 type unreachable", UNREACHABLE6, True),
    ("type 3", UNREACHABLE6, False),
    ("type 128", frame6(ICMP6, bytes([128, 0, 0, 0])), True),
    ("icmp6 type echo-request", frame6(ICMP6, bytes([128, 0, 0, 0])), True),
    ("type echo-request", frame4(ICMP, bytes([8]) + bytes(7)), True),
    ("type 0", frame4(ICMP, bytes(8), place=1), False),
    ("type 0", SYN, False),
    ("len 54", SYN, True),
    ("len 55-1514", SYN, False),
    ("len 14", ether(40), True),
    ("len 14-53", SYN, False),
    ("ttl 64", SYN6, True),
    ("ttl 0-255", ether(40), False),
    ("dscp 46", frame4(UDP, udp(), tos=46 << 2 | 3), True),
    ("dscp 0", ether(40), False),
    ("frag no", SYN, True),
    ("frag no", ether(40), False),
    ("frag any", SYN, False),
    ("frag any", LATER, True),
    ("frag first", LATER, False),
    ("frag any", frame4(TCP, tcp(), place=0x2000), True),
    ("vlan none", SYN, True),
    ("vlan any", SYN, False),
    ("vlan 10", TAGGED, True),
    ("vlan 20", TAGGED, False),
    ("vlan none", ether(0x0806, b"", (0x8100, 0)), False),
    ("vlan any", ether(0x0806, b"", (0x8100, 0)), True),
    ("arp", TAGGED, True),
    ("ether type 0x0806", TAGGED, True),
    ("ether type 0x8100", TAGGED, False),
    ("ether from 02:00:00:00:00:01 ether to 02:00:00:00:00:09", SYN, True),
    ("ether from 02:00:00:00:00:09", SYN, False),
    ("ah", frame4(AH), True),
    ("ah", frame6(AH, bytes([TCP, 1]) + bytes(10) + tcp()), False),
    ("tcp", frame6(AH, bytes([TCP, 1]) + bytes(10) + tcp()), True),
    ("esp", frame6(50), True),
    ("on eth0", SYN, False),
    ("tcp log 10/s sample 1/8  # udp", SYN, True),
    ("tcp log", SYN, True),
]


@pytest.mark.parametrize(("match", "frame", "holds"), MATCHES)
def test_judge_match_decides(match: str, frame: bytes, holds: bool) -> None:
    got = judge(f"one drop {match}", frame)
    wanted = ("drop", "rule", "one") if holds else ("pass", "default", None)
    assert (got.verdict, got.reason, got.rule) == wanted


def test_judge_on_needs_the_port() -> None:
    assert judge("one drop on eth0", SYN, "eth0").rule == "one"
    assert judge("one drop on eth0", SYN, "eth1").rule is None


@pytest.mark.parametrize(
    ("action", "verdict", "target"),
    [
        *((name, name, None) for name in ("pass", "drop", "reject", "tx", "forward")),
        ("redirect eth1", "redirect", "eth1"),
        ("af_xdp overlay else drop", "af_xdp", "overlay"),
    ],
)
def test_judge_action_is_the_verdict(action: str, verdict: str, target: str | None) -> None:
    got = judge(f"# first\n\n  one {action} tcp\n two drop", SYN)
    assert (got.verdict, got.reason, got.rule, got.target) == (verdict, "rule", "one", target)


def test_judge_first_match_wins() -> None:
    assert judge("a drop udp\nb tx tcp\nc drop tcp", SYN).rule == "b"


@pytest.mark.parametrize("verdict", ["pass", "drop"])
def test_judge_malformed_comes_before_rules_and_fragments(verdict: str) -> None:
    settings = f'malformed = "{verdict}"\nfragments = "drop"'
    got = judge("one tx", BAD["tiny first fragment"], settings=settings)
    assert (got.verdict, got.reason, got.rule) == (verdict, "malformed", None)


@pytest.mark.parametrize("place", [0x2000, 1])
def test_judge_fragments_drop_comes_before_rules(place: int) -> None:
    got = judge("one pass", frame4(TCP, tcp(), place=place), settings='fragments = "drop"')
    assert (got.verdict, got.reason, got.rule) == ("drop", "fragment", None)


def test_judge_fragments_drop_leaves_atomic_fragments() -> None:
    frame = FRAGMENTS["ipv6 atomic"][0]
    assert judge("one pass", frame, settings='fragments = "drop"').rule == "one"


GUARD = [
    (ether(0x0806), True),
    (TAGGED, True),
    (ether(0x8809), True),
    (ether(0x88CC), True),
    (ether(0x888E), True),
    (ether(0x8808), False),
    (frame4(UDP, udp(67, 68)), True),
    (frame4(UDP, udp(68, 67)), False),
    (frame6(UDP, udp(547, 546)), True),
    (frame6(UDP, udp(547, 68)), False),
    (frame4(TCP, tcp(67, 68)), False),
    (frame6(ICMP6, bytes([132, 0, 0, 0]), hops=255), False),
    (frame6(ICMP6, bytes([133, 0, 0, 0]), hops=255), True),
    (frame6(ICMP6, bytes([137, 0, 0, 0]), hops=255), True),
    (frame6(ICMP6, bytes([138, 0, 0, 0]), hops=255), False),
    (frame6(ICMP6, bytes([135, 0, 0, 0]), hops=254), False),
    (frame4(ICMP6, bytes([135, 0, 0, 0]), ttl=255), False),
    (SYN, False),
]


@pytest.mark.parametrize(("frame", "passes"), GUARD)
def test_judge_guard_passes_what_keeps_a_host_alive(frame: bytes, passes: bool) -> None:
    got = judge("", frame, settings='default = "drop"\nguard = true')
    assert (got.verdict, got.reason) == (("pass", "guard") if passes else ("drop", "default"))
    off = judge("", frame, settings='default = "drop"\nguard = false')
    assert (off.verdict, off.reason) == ("drop", "default")
    assert judge("", frame, settings='default = "pass"\nguard = true').reason == "default"
    assert judge("one drop", frame, settings='default = "drop"\nguard = true').reason == "rule"


def test_judge_guard_knows_the_ssh_session() -> None:
    policy = '[policy]\ndefault = "drop"\nguard = true\n'
    session = Reference.from_text(policy, ssh=("10.0.0.7", 1000, "192.0.2.1", 22))
    assert session.judge(SYN).reason == "guard"
    assert session.judge(frame4(TCP, tcp(sport=1001))).reason == "default"
    assert session.judge(frame4(UDP, udp(1000, 22))).reason == "default"
    sctp = frame4(SCTP, struct.pack("!HH8x", 1000, 22))
    assert session.judge(sctp).reason == "default"
    assert session.judge(frame4(TCP, tcp(), src="10.0.0.8")).reason == "default"


def test_from_text_set_reads_a_file_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "feed.netset").write_text("# feed\n10.0.0.9 # one\n\n10.0.0.5 - 10.0.0.7\n")
    text = '[policy]\nrules = "one drop from @bad"\n[sets]\nbad = [{ file = "feed.netset" }]\n'
    reference = Reference.from_text(text, tmp_path)
    sources = [f"10.0.0.{last}" for last in range(4, 11)]
    rules = [reference.judge(frame4(47, src=source)).rule for source in sources]
    assert rules == [None, "one", "one", "one", None, "one", None]


@pytest.mark.parametrize(
    "rule",
    ["one limit 10/s burst 5 per source", "one limit 1/m per source", "one pass established"],
)
def test_from_text_refuses_what_needs_a_clock_or_connections(rule: str) -> None:
    with pytest.raises(NotImplementedError):
        Reference.from_text(f'[policy]\nrules = "{rule}"\n')


def answers(policy: str, frames: list[bytes], **world: object) -> list[tuple[str, str, str | None]]:
    reference = Reference.from_text(f"[policy]\n{policy}\n", **world)  # type: ignore[arg-type]
    judged = [reference.judge(frame) for frame in frames]
    return [(x.verdict, x.reason, x.rule) for x in judged]


PASSED, OVER, NEXT = ("pass", "default", None), ("drop", "limit", "slow"), ("tx", "rule", "next")


def test_judge_limit_lets_its_burst_go_on_and_drops_the_rest() -> None:
    policy = 'rules = """\nslow limit 1/m burst 2 udp\nnext tx udp to port 53\n"""'
    frames = [frame4(UDP, udp()), SYN, frame4(UDP, udp(dport=54)), frame6(UDP, udp()), SYN]
    assert answers(policy, frames) == [NEXT, PASSED, PASSED, OVER, PASSED]


def test_judge_limit_behind_the_rule_that_decides_counts_nothing() -> None:
    policy = 'rules = """\nnext tx udp to port 53\nslow limit 1/m burst 1 udp\n"""'
    other = frame4(UDP, udp(dport=54))
    assert answers(policy, [frame4(UDP, udp())] * 3 + [other] * 2) == [NEXT] * 3 + [PASSED, OVER]


def test_judge_two_limits_each_take_from_their_own() -> None:
    policy = 'rules = """\nslow limit 1/m burst 1 tcp\nall limit 1/m burst 2\n"""'
    over_all = ("drop", "limit", "all")
    frames = [SYN, SYN, frame4(UDP, udp()), SYN, frame4(UDP, udp())]
    assert answers(policy, frames) == [PASSED, OVER, PASSED, OVER, over_all]


@pytest.mark.parametrize(
    ("per", "sources", "over"),
    [
        ("", ["10.0.0.1", "10.0.0.2"], 1),
        ("per rule", ["10.0.0.1", "10.0.0.2"], 1),
        ("per source", ["10.0.0.1", "10.0.0.2", "10.0.0.1"], 1),
        ("per source/24,48", ["10.0.0.1", "10.0.0.2", "10.0.1.1"], 1),
        ("per source/0,0", ["10.0.0.1", "192.0.2.1", "198.51.100.1"], 2),
        ("per source", ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"], 1),
        ("per source/24,48", ["2001:db8::1", "2001:db8:0:1::1", "2001:db8:1::"], 1),
        ("per source/32,128", ["2001:db8::1", "2001:db8::2"], 0),
        ("per source/0,0", ["10.0.0.1", "2001:db8::2"], 0),
    ],
)
def test_judge_limit_per_source_counts_its_prefix(per: str, sources: list[str], over: int) -> None:
    frames = [(frame6 if ":" in source else frame4)(47, src=source) for source in sources]
    got = answers(f'rules = "slow limit 1/m burst 1 {per}"', frames)
    assert got.count(OVER) == over
    assert got.count(PASSED) == len(sources) - over


BLOCKED = ("drop", "block", None)


def test_judge_block_comes_before_fragments_rules_and_guard_and_after_malformed() -> None:
    settings = 'default = "drop"\nfragments = "drop"\nmalformed = "pass"\nrules = "one tx"'
    frames = [SYN, LATER, BAD["tiny first fragment"], frame4(47, src="10.0.1.1")]
    got = answers(settings, frames, blocks=["10.0.0.0/24"])
    assert got == [BLOCKED, BLOCKED, ("pass", "malformed", None), ("tx", "rule", "one")]
    solicitation = frame6(ICMP6, bytes([135, 0, 0, 0]), hops=255)
    assert answers('default = "drop"', [solicitation], blocks=["2001:db8::1"]) == [BLOCKED]


def test_judge_block_asks_for_the_source_of_ip_only() -> None:
    frames = [frame4(47, src="192.0.2.1"), frame4(47, src="10.0.0.1"), ether(0x0806), SYN6]
    got = answers("", frames, blocks=["192.0.2.1", "2001:db8::/64"])
    assert got == [BLOCKED, PASSED, PASSED, BLOCKED]


def test_judge_block_never_covers_what_is_allowed() -> None:
    frames = [frame4(47, src=f"10.0.0.{last}") for last in (1, 2, 3)]
    sets = '[sets]\noffice = ["10.0.0.2/31"]'
    got = answers(f'allow = ["@office"]\n{sets}', [*frames, SYN6], blocks=["0.0.0.0/0", "::/0"])
    assert got == [BLOCKED, PASSED, PASSED, BLOCKED]
    assert answers('allow = ["2001:db8::1"]', [SYN6, SYN], blocks=["::/0"]) == [PASSED, PASSED]


def test_judge_block_never_covers_the_ssh_session() -> None:
    ssh = ("10.0.0.7", 1000, "192.0.2.1", 22)
    other = frame4(TCP, tcp(sport=1001))
    assert answers("", [SYN, other], blocks=["10.0.0.7"], ssh=ssh) == [PASSED, BLOCKED]


@pytest.mark.parametrize("rule", ["one eat tcp", "one drop tpc", "one drop type 0x8"])
def test_from_text_does_not_pass_over_unknown_words(rule: str) -> None:
    with pytest.raises(ValueError):
        Reference.from_text(f'[policy]\nrules = "{rule}"\n')


@pytest.mark.parametrize("policy", POLICIES)
def test_judge_agrees_with_the_table_of_packets(policy: str) -> None:
    reference = Reference.from_text(POLICIES[policy])
    for row in rows_by_policy()[policy]:
        got = reference.judge(row.frame, row.port)
        assert (got.verdict, got.reason, got.rule) == (row.verdict, row.reason, row.rule), row.name
        assert {field: getattr(got.key, field) for field in row.key} == row.key, row.name
