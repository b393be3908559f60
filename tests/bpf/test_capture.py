"""What a tap sees of packets in test runs, and that the filter does not know of it."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import frames as f
from tests.bpf.verified import kernel_at_least
from tests.judges import kernel_judge, outcomes
from tests.packets import POLICIES, ROWS, rows_by_policy
from tests.reference import Reference
from tests.taps import Filter, filtering, judgements, kept_frames, tapping
from xdpgw import _abi as abi
from xdpgw import config, loader, rules
from xdpgw._abi import Reason, Verdict
from xdpgw.compile import compile_rules
from xdpgw.errors import BusyError, ConfigError, UnsupportedError, VerifierError, XdpgwError
from xdpgw.events import EventReader
from xdpgw.kernel import BpfObject
from xdpgw.rule_types import Rate
from xdpgw.seat import Seat
from xdpgw.tap import Tap, TapBooks, Wanted

PORTS = ("left", "right")
XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3
PASS = rules.Action("pass")
POLICY = """
[policy]
rules = \"\"\"
web   drop  tcp to port 80
back  tx    udp to port 7
dns   pass  udp to port 53
\"\"\"
[sets]
some = ["10.1.0.0/16"]
ports = [7, 53]
[ports.left]
[log]
sources = "off"
"""
WEB = f.eth(f.ipv4(f.tcp(dport=80)))
BACK = f.eth(f.ipv4(f.udp(dport=7)))
DNS = f.eth(f.ipv4(f.udp(b"what is", dport=53)))
BROKEN = WEB[:-1]
FRAMES = [WEB, BACK, DNS, BROKEN]
JUDGED = [
    ("drop", "rule", "web"),
    ("tx", "rule", "back"),
    ("pass", "rule", "dns"),
    ("drop", "malformed", None),
]
ONE_BUFFER = 3520
"""Bytes of a frame that test runs have in one piece, whatever the kernel."""
SEED = 20250307


@pytest.fixture
def at() -> Iterator[Filter]:
    with filtering(POLICY) as found:
        yield found


def actions(at: Filter, frames: list[bytes], port: str = "left") -> list[int]:
    """What the driver is told."""
    retvals, _ = at.program(port).test_many(frames)
    return [int(x) for x in retvals]


def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that refuses bpf_xdp_load_bytes(), which is asked for with multi_buffer."""
    real = BpfObject.load

    def load(obj: BpfObject, *, rodata: bytes | None = None, **settings: Any) -> None:
        offset = abi.LAYOUTS["config"]["offsets"][
            abi.LAYOUTS["config"]["names"].index("multi_buffer")
        ]
        if rodata is not None and rodata[offset]:
            raise VerifierError(
                "the kernel's verifier refuses",
                None,
                22,
                log="unknown func bpf_xdp_get_buff_len#188",
            )
        real(obj, rodata=rodata, **settings)

    monkeypatch.setattr(BpfObject, "load", load)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_tap_sees_each_row_as_judged_and_changes_no_verdict(policy: str, tmp_path: Path) -> None:
    for port in PORTS:
        rows = [row for row in rows_by_policy()[policy] if row.port == port]
        rows = [row for row in rows if 14 <= len(row.frame) <= ONE_BUFFER]
        frames, wanted = [row.frame for row in rows], [row.unserved for row in rows]
        ports = tuple(config.loads(POLICIES[policy]).ports)
        if not frames:
            continue
        with filtering(POLICIES[policy], ports) as alone:
            untouched = actions(alone, frames, port)
        with filtering(POLICIES[policy], ports) as at, tapping(at, port=port) as (tap, reader):
            assert actions(at, frames, port) == untouched
            assert judgements(tap, reader) == wanted
            assert tap.books == TapBooks(len(frames), len(frames), 0, 0)


@pytest.mark.parametrize("old", [False, True])
def test_tap_keeps_each_row_byte_by_byte(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old:
        old_kernel(monkeypatch)
    frames = [row.frame for row in ROWS if 14 <= len(row.frame) <= ONE_BUFFER]
    frames += [os.urandom(length) for length in (*range(14, 40), 1514, 3000)]
    with (
        filtering(POLICY) as at,
        tapping(at, snaplen=abi.CAPTURE_BYTES) as (tap, reader),
    ):
        assert tap._several_buffers == (not old and kernel_at_least(5, 18))
        actions(at, frames)
        assert kept_frames(tap, reader, tmp_path / "x", abi.CAPTURE_BYTES) == frames


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("snaplen", [1, 7, 8, 9, 60, 1000, 65535])
def test_tap_keeps_no_more_than_the_snaplen(
    snaplen: int, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old:
        old_kernel(monkeypatch)
    frames = [bytes(n % 251 for n in range(length)) for length in (14, 59, 60, 61, 999, 1001)]
    with filtering(POLICY) as at, tapping(at, snaplen=snaplen) as (tap, reader):
        actions(at, frames)
        assert kept_frames(tap, reader, tmp_path / "x", snaplen) == [x[:snaplen] for x in frames]


def matches(policy: str) -> list[str]:
    """What stands behind the actions of its rules."""
    found = []
    for rule in config.loads(policy).rules:
        plain = dataclasses.replace(rule, name="it", action=PASS, log=None, sample=None)
        found.append(rules.format_rule(plain).removeprefix("it pass").strip())
    return [match for match in found if "established" not in match]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_match_takes_what_a_rule_with_it_takes(policy: str, tmp_path: Path) -> None:
    """Each match of the table's policies, against the judge in plain Python."""
    text = POLICIES[policy]
    frames = [row.frame for row in ROWS if len(row.frame) >= 14]
    rest = text.partition("rules")[2]
    behind = rest.partition('"""')[2].partition('"""')[2]
    chosen = matches(text)
    assert chosen
    with filtering(text, tuple(config.loads(text).ports)) as at:
        for match in random.Random(SEED).sample(chosen, min(len(chosen), 6)):
            one = f'[policy]\nrules = "it pass {match}"\n{behind}'
            judge = Reference.from_text(one)
            wanted = [frame for frame in frames if judge.judge(frame, "left").rule == "it"]
            with tapping(at, match, snaplen=abi.CAPTURE_BYTES) as (tap, reader):
                actions(at, frames)
                got = kept_frames(tap, reader, tmp_path / "x", abi.CAPTURE_BYTES)
                assert (match, got) == (match, wanted)
                assert tap.books == TapBooks(len(wanted), len(wanted), 0, 0)


def test_match_names_sets_of_the_policy_in_force(at: Filter) -> None:
    with tapping(at, "udp from @some to port @ports") as (tap, reader):
        actions(at, FRAMES)
        assert judgements(tap, reader) == [JUDGED[1], JUDGED[2]]


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("udp tpc", 'MATCH:1:5: unknown word "tpc" (did you mean "tcp"?)'),
        ("from 10.0.0.1/8", "MATCH:1:6: "),
        ("tcp to port", 'MATCH:1:8: nothing stands after "port" (write port N,'),
        ("from @none", 'MATCH:1:6: unknown set "none"'),
        ("on right", 'MATCH:1:4: unknown port "right"'),
        ("tcp log", "MATCH:1:1: log and sample are options of a rule, not matches"),
        ("established", "MATCH:1:1: established is not in this version"),
        ("drop", "MATCH:1:1: a rule has one action"),
        ("nonsense", "(write a match such as tcp or from ADDRESS)"),
    ],
)
def test_match_that_is_wrong_is_told_by_its_column(at: Filter, match: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught, tapping(at, match):
        pass
    assert message in str(caught.value)
    assert actions(at, [WEB]) == [XDP_DROP]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"verdicts": frozenset({Verdict.DROP})}, [0, 3]),
        ({"verdicts": frozenset({Verdict.TX, Verdict.PASS})}, [1, 2]),
        ({"reasons": frozenset({Reason.MALFORMED})}, [3]),
        ({"rule": "dns"}, [2]),
        ({"rule": "dns", "verdicts": frozenset({Verdict.DROP})}, []),
        ({"match": "tcp", "verdicts": frozenset({Verdict.DROP})}, [0]),
        ({"match": "udp", "rule": "web"}, []),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_tap_asks_for_verdict_reason_and_rule(
    at: Filter, wanted: dict[str, Any], numbers: list[int]
) -> None:
    with tapping(at, **wanted) as (tap, reader):
        actions(at, FRAMES)
        assert judgements(tap, reader) == [JUDGED[n] for n in numbers]
        assert tap.books == TapBooks(len(numbers), len(numbers), 0, 0)


def test_tap_for_a_rule_that_is_not_in_force_is_refused(at: Filter) -> None:
    with pytest.raises(XdpgwError, match="no rule wbe is in force"), tapping(at, rule="wbe"):
        pass


def test_full_ring_loses_packets_and_counts_each(at: Filter) -> None:
    with tapping(at, ring_bytes=4096, snaplen=1000) as (tap, reader):
        actions(at, FRAMES * 100)
        books = tap.books
        assert books.seen == 400 == books.captured + books.lost
        assert 0 < books.captured < 400
        with pytest.raises(AssertionError):
            assert len(reader.drain()) == books.captured  # records with frames are no events
        assert reader.stats.malformed == books.captured
        actions(at, [WEB])
        assert tap.books.captured == books.captured + 1


@pytest.mark.parametrize("rate", [Rate(10, "/s"), Rate(600, "/m")])
def test_rate_holds_back_and_counts_each(at: Filter, rate: Rate) -> None:
    with tapping(at, rate=rate) as (tap, reader):
        actions(at, FRAMES * 500)
        books = tap.books
        assert books.seen == 2000 == books.captured + books.limited
        assert books.captured >= rate.amount
        assert books.limited > 1000
        assert len(reader.drain()) == books.captured


def test_count_is_exact_and_what_comes_behind_it_is_not_seen(at: Filter) -> None:
    with tapping(at, count=7) as (tap, reader):
        actions(at, FRAMES * 5)
        assert judgements(tap, reader) == (JUDGED * 2)[:7]
        assert tap.books == TapBooks(7, 7, 0, 0)


def test_lost_packets_do_not_count_for_the_count(at: Filter) -> None:
    with tapping(at, count=100, ring_bytes=4096) as (tap, reader):
        actions(at, FRAMES * 50)
        first = tap.books
        assert first.captured < 100 and first.seen == 200 == first.captured + first.lost
        got = len(reader.drain())
        while got < 100:
            actions(at, FRAMES)
            got += len(reader.drain())
        actions(at, FRAMES)
        assert got == tap.books.captured == 100
        assert len(reader.drain()) == 0


def test_second_tap_is_refused_and_told_whose_the_first_is(at: Filter) -> None:
    with tapping(at) as (tap, reader):
        with pytest.raises(BusyError, match="another capture or trace") as caught, tapping(at):
            pass
        assert f"(pid {os.getpid()})" in (caught.value.hint or "")
        actions(at, [WEB])
        assert judgements(tap, reader) == [JUDGED[0]]
    with tapping(at) as (tap, reader):
        actions(at, [DNS])
        assert judgements(tap, reader) == [JUDGED[2]]


def seat_of(tap: Tap) -> Any:
    return tap._seats["left"]


def test_packet_takes_back_the_flag_of_who_is_gone(at: Filter) -> None:
    with tapping(at) as (tap, reader):
        seat = seat_of(tap)
        seat._slot.delete(bytes(4))  # as the kernel does when a process dies
        assert actions(at, FRAMES) == [XDP_DROP, XDP_TX, XDP_PASS, XDP_DROP]
        assert seat._flag.lookup(bytes(4)) == bytes(4)
        assert tap.books.seen == 0
        assert tap.check() is None  # who is there all the same takes its place again
        actions(at, [WEB])
        assert judgements(tap, reader) == [JUDGED[0]]


def test_reload_is_followed_with_books_ring_and_names(at: Filter) -> None:
    told: list[str] = []
    later = POLICY.replace("dns   pass", "name  drop").replace("10.1.0.0/16", "192.0.2.0/24")
    image = compile_rules(
        rules.resolve(config.loads(later)),
        at.loaded.image.names.renewed(["web", "back", "name"], ["left"]),
    )
    with (
        loader.load(image, ["left"]) as loaded,
        Tap(
            at,  # type: ignore[arg-type]
            at.current,
            ["left"],
            Wanted("udp from @some"),
            ring_bytes=1 << 20,
            note=told.append,
        ) as tap,
    ):
        actions(at, [DNS])
        before = Filter(loaded)
        at.loaded, at.current, at.generation = loaded, before.current, 2
        assert tap.check() is None
        actions(at, [DNS])  # the set has others now
        assert tap.books == TapBooks(1, 1, 0, 0)
        actions(at, [f.eth(f.ipv4(f.udp(dport=53), src="192.0.2.1"))])
        assert tap.books == TapBooks(2, 2, 0, 0)
        with EventReader(tap.ring) as reader:
            assert judgements(tap, reader) == [("pass", "rule", "dns"), ("drop", "rule", "name")]
    assert told == [
        "the policy was replaced: packets of left between that and now were not looked at"
    ]


def test_kernel_without_calls_from_programs_with_functions_gets_a_filter_without_taps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, layout = BpfObject.load, abi.LAYOUTS["config"]
    at_byte = layout["offsets"][layout["names"].index("capture")]

    def load(obj: BpfObject, *, rodata: bytes | None = None, **settings: Any) -> None:
        if rodata is not None and rodata[at_byte]:
            log = "tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls"
            raise VerifierError("the kernel's verifier refuses", None, 22, log=log)
        real(obj, rodata=rodata, **settings)

    monkeypatch.setattr(BpfObject, "load", load)
    with filtering(POLICY) as at:
        assert actions(at, [WEB]) == [XDP_DROP]
        with pytest.raises(UnsupportedError, match="does not show packets"), tapping(at):
            pass


def test_verifier_error_of_another_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(obj: BpfObject, **settings: Any) -> None:
        raise VerifierError("the kernel's verifier refuses", None, 22, log="R1 invalid mem access")

    monkeypatch.setattr(BpfObject, "load", load)
    with pytest.raises(VerifierError), filtering(POLICY):
        pass


def test_program_of_another_version_is_told() -> None:
    with BpfObject(loader.artifact("pass.bpf.o"), name="pass") as obj:
        obj.load()
        with pytest.raises(UnsupportedError, match="port left does not show"):
            Seat("left", obj.program("pass").info().id)


def test_set_that_changes_in_place_is_taken_without_a_gap(at: Filter) -> None:
    with tapping(at, "from @some") as (tap, reader):
        actions(at, [WEB])
        at.generation = 2
        at.current = msgspec.structs.replace(
            at.current, policy_text=POLICY.replace("10.1.0.0/16", "192.0.2.0/24")
        )
        assert tap.check() is None
        actions(at, [WEB, f.eth(f.ipv4(f.udp(dport=53), src="192.0.2.1"))])
        assert judgements(tap, reader) == [JUDGED[0], JUDGED[2]]


def test_tap_sees_random_frames_as_explain_does_and_changes_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    sources = [row.frame for row in ROWS if 14 <= len(row.frame) <= ONE_BUFFER]
    frames = []
    for _ in range(3000):
        frame = bytearray(chance.choice(sources))
        for _ in range(chance.randint(0, 4)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        frames.append(bytes(frame[: chance.randint(14, len(frame))]))
    with kernel_judge(POLICY) as judge:
        said = [(x["verdict"], x["reason"], x["rule"]) for x in outcomes(judge, frames)]
    with filtering(POLICY) as alone:
        untouched = actions(alone, frames)
    with filtering(POLICY) as at:
        with tapping(at) as (tap, reader):
            assert actions(at, frames) == untouched
            assert judgements(tap, reader) == said
        with tapping(at, snaplen=abi.CAPTURE_BYTES) as (tap, reader):
            actions(at, frames)
            assert kept_frames(tap, reader, tmp_path / "x", abi.CAPTURE_BYTES) == frames
