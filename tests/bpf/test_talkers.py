"""What each source sent, counted by test runs: exact, whatever comes, and bounded."""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frames import arp, eth, ipv4, ipv6, udp
from tests.packets import POLICIES, rows_by_policy
from xdpgw import _abi as abi
from xdpgw import config, loader, rules
from xdpgw._abi import Reason, Verdict
from xdpgw.compile import compile_rules
from xdpgw.kernel import possible_cpus
from xdpgw.limit_state import source_hash
from xdpgw.pins import Counted, Manifest
from xdpgw.talkers import Talker, Talkers, sets_for, snapshot

SEED = 0x0123456789ABCDEF
SLOTS = 128
SETS = SLOTS // abi.TALKER_WAYS
ETH_HLEN = 14
MINUTE = 60 * 10**9
KEEP_NS = 1 << abi.TALKER_KEEP_BITS
FEW = f"slots = {SLOTS}"


def policy(sources: str = FEW) -> str:
    return (
        '[policy]\nguard = false\nrules = "bad drop udp to port 9"\n[ports.left]\n[ports.right]\n'
        f'[log]\nsources = "off"\n[sources]\n{sources}\n'
    )


def packet(source: str, *, dport: int = 53, data: int = 0) -> bytes:
    payload = udp(bytes(data), dport=dport)
    return eth(ipv6(payload, src=source) if ":" in source else ipv4(payload, src=source))


@dataclass
class Filter:
    """A loaded policy that counts sources."""

    loaded: loader.Loaded
    manifest: Manifest

    def send(self, *frames: bytes, port: str = "left") -> None:
        self.loaded.programs[port].test_many(frames)

    def read(self) -> Talkers:
        return snapshot(self.loaded.maps["talkers"], self.manifest)

    def sources(self) -> dict[str, Talker]:
        found = {str(x.source): x for x in self.read().top(None)}
        assert len(found) == len(self.read())
        return found

    def packets(self) -> dict[str, int]:
        return {name: talker.packets for name, talker in self.sources().items()}

    @contextmanager
    def table(self) -> Iterator[np.ndarray]:
        """The sets of all CPUs, to be written to."""
        with self.loaded.maps["talkers"].memory() as raw:
            yield raw.view(abi.talker_set_dtype())


@contextmanager
def counting(text: str) -> Iterator[Filter]:
    ruleset = rules.resolve(config.loads(text))
    of, ports = ruleset.config.sources, list(ruleset.config.ports)
    with loader.load(compile_rules(ruleset), ports, talker_seed=SEED) as loaded:
        yield Filter(loaded, manifest_of(ports, sets_for(of), of.prefix4, of.prefix6))


def manifest_of(ports: Sequence[str], sets: int, prefix4: int, prefix6: int) -> Manifest:
    return Manifest(
        *("0", "p.toml", "", "", 0, {}, {port: n for n, port in enumerate(ports)}, {}, {}, {}, {}),
        on_exit="keep",
        log_sources="off",
        counted=Counted(sets, prefix4, prefix6, SEED) if sets else None,
    )


@pytest.fixture(scope="module")
def shared() -> Iterator[Filter]:
    with counting(policy()) as found:
        yield found


@pytest.fixture
def few(shared: Filter) -> Filter:
    """A filter of few slots that has seen nobody."""
    with shared.table() as sets:
        sets[:] = 0
    return shared


def place(source: str) -> tuple[int, int]:
    """Set and tag of a source where all its bits are looked at."""
    found = source_hash(SEED, ipaddress.ip_address(source), 32, 128)
    return found & (SETS - 1), found >> 56


def alike(amount: int, *, tags: bool) -> list[str]:
    """Addresses of one set, and of one tag if asked."""
    found: dict[object, list[str]] = {}
    for number in count(0x0A000000):
        source = str(ipaddress.ip_address(number))
        at = place(source) if tags else place(source)[0]
        group = found.setdefault(at, [])
        group.append(source)
        if len(group) == amount:
            return group
    raise AssertionError


def test_source_is_told_with_all_that_it_sent(few: Filter) -> None:
    few.send(*[packet("10.0.0.1", data=n) for n in range(5)])
    few.send(packet("10.0.0.1", dport=9), packet("2001:db8::7"), port="right")
    found = few.sources()
    v4, v6 = found["10.0.0.1"], found["2001:db8::7"]
    assert (v4.packets, v4.bytes, v4.dropped) == (6, 6 * 42 + 10, 1)
    assert (v4.verdict, v4.reason, v4.port) == (Verdict.DROP, Reason.RULE, "right")
    assert (v6.packets, v6.bytes, v6.dropped) == (1, 62, 0)
    assert (v6.verdict, v6.reason, v6.port) == (Verdict.PASS, Reason.DEFAULT, "right")
    assert v4.first_ns <= v4.last_ns <= v6.first_ns == v6.last_ns
    assert abs(time.time_ns() - v6.last_ns) < MINUTE


def test_addresses_of_both_families_with_the_same_bytes_are_two_sources(few: Filter) -> None:
    few.send(packet("32.1.13.184"), packet("2001:db8::"), packet("0.0.0.0"), packet("::"))
    assert few.packets() == {"32.1.13.184": 1, "2001:db8::": 1, "0.0.0.0": 1, "::": 1}


def test_packets_without_an_ip_header_have_no_source(few: Filter) -> None:
    few.send(eth(arp()), b"\0" * 20, eth(ipv4(udp(), ihl=4)))
    assert few.packets() == {}


@pytest.mark.parametrize("name", sorted(rows_by_policy()))
def test_each_packet_that_has_a_source_is_counted_once(name: str) -> None:
    # The kernel takes no shorter ones for a test run.
    frames = [row.frame for row in rows_by_policy().get(name, ()) if len(row.frame) >= ETH_HLEN]
    assert frames
    judged = config.loads(POLICIES[name])
    image = compile_rules(rules.resolve(judged))
    port = next(iter(judged.ports), None)
    with loader.load(image, [port]) as loaded, loader.load(image, [port], explain=True) as told:
        expected: Counter[str] = Counter()
        for frame in frames:
            told.programs[port].test_run(frame)
            event = np.frombuffer(told.maps["explained"].lookup(bytes(4)), abi.event_dtype())[0]
            if event["family"]:
                size = 4 if event["family"] == 4 else 16
                expected[str(ipaddress.ip_address(bytes(event["src"])[:size]))] += 1
        loaded.programs[port].test_many(frames)
        ports = [port] if port else []
        manifest = manifest_of(ports, sets_for(judged.sources), 32, 128)
        seen = snapshot(loaded.maps["talkers"], manifest)
        assert {str(x.source): x.packets for x in seen.top(None)} == expected
        assert not seen.gone.packets


@pytest.mark.parametrize(
    ("sources", "shown"),
    [
        ("prefix4 = 24", {"10.0.0.0/24": 3, "2001:db8::1": 1, "2001:db8::2": 1}),
        ("prefix4 = 0\nprefix6 = 0", {"0.0.0.0/0": 3, "::/0": 2}),
        (
            "prefix4 = 31\nprefix6 = 64",
            {"10.0.0.0/31": 2, "10.0.0.2/31": 1, "2001:db8::/64": 2},
        ),
    ],
)
def test_sources_are_prefixes_where_the_policy_says_so(sources: str, shown: dict[str, int]) -> None:
    with counting(policy(sources)) as found:
        found.send(*map(packet, ("10.0.0.0", "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2")))
        assert found.packets() == shown


def test_without_count_nothing_is_counted_nor_kept() -> None:
    with counting(policy("count = false")) as found:
        found.send(packet("10.0.0.1"))
        assert found.loaded.maps["talkers"].info().max_entries == 1
        assert not found.loaded.maps["talkers"].array().any()
        assert len(found.read()) == 0


def test_explaining_counts_nothing() -> None:
    image = compile_rules(rules.resolve(config.loads(policy())))
    with loader.load(image, ["left"], explain=True) as loaded:
        loaded.programs["left"].test_many([packet("10.0.0.1")])
        assert not loaded.maps["talkers"].array().any()


def test_eight_sources_of_one_set_are_all_there(few: Filter) -> None:
    sources = alike(8, tags=False)
    few.send(*[packet(x) for x in sources * 3])
    assert few.packets() == dict.fromkeys(sources, 3)


@pytest.mark.parametrize("amount", [2, 3, 4, 6])
def test_sources_of_one_set_and_tag_are_not_mixed_up(few: Filter, amount: int) -> None:
    """From the fourth on they are looked for in vain, and may take up two places each."""
    sources = alike(amount, tags=True)
    few.send(*[packet(x) for n, x in enumerate(sources) for _ in range(n + 1)])
    few.send(*[packet(x) for x in sources])
    gone = few.read().gone.packets
    assert gone == 0 or amount > 3
    assert sum(few.packets().values()) + gone == sum(range(2, amount + 2))
    if not gone:
        assert few.packets() == {x: n + 2 for n, x in enumerate(sources)}


def test_newcomer_takes_the_place_of_who_came_once_and_longest_ago(few: Filter) -> None:
    *busy, once, newcomer = alike(9, tags=False)
    few.send(*[packet(x) for x in busy * 2], packet(once))
    few.send(packet(newcomer))
    assert few.packets() == {**dict.fromkeys(busy, 2), newcomer: 1}
    gone = few.read().gone
    assert (gone.packets, gone.bytes, gone.sources) == (1, len(packet(once)), 1)


def test_newcomers_take_turns_in_the_places_of_each_other(few: Filter) -> None:
    sources = alike(40, tags=False)
    few.send(*map(packet, sources))
    assert set(few.packets()) == set(sources[-8:])
    assert few.read().gone.sources == 32


def test_who_sent_much_gives_way_after_a_long_silence(few: Filter) -> None:
    old, *others = alike(9, tags=False)
    few.send(*[packet(old)] * 1000, *[packet(x) for x in others[:7] * 2])
    level = 10
    for silent_ns, stays in ((MINUTE * (level - 1), True), (MINUTE * (level + 2), False)):
        with few.table() as sets:
            keep = sets["keep"]
            at = np.nonzero(sets["talker"]["packets"] == 1000)
            assert len(at[0]) == 1
            was = keep[at].copy()
            keep[at] -= silent_ns // KEEP_NS
        few.send(packet(others[7]))
        assert (old in few.packets()) is stays
        if stays:
            with few.table() as sets:
                sets["keep"][at] = was
                # The newcomer has its packet back.
                sets["talker"][sets["talker"]["packets"] == 1] = 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_agree_with_a_plain_dictionary(shared: Filter, data: st.DataObject) -> None:
    with shared.table() as sets:
        sets[:] = 0
    known = st.sampled_from([f"10.0.{n >> 8}.{n & 255}" for n in range(400)])
    known6 = st.sampled_from([f"2001:db8::{n:x}" for n in range(1, 101)])
    one = st.tuples(known | known6, st.sampled_from([9, 53]), st.integers(0, 300))
    amount = data.draw(st.integers(0, 400))
    sent = data.draw(st.lists(one, min_size=amount, max_size=amount))
    packets, size, dropped, last = Counter(), Counter(), Counter(), {}  # type: ignore[var-annotated]
    for source, dport, length in sent:
        packets[source] += 1
        size[source] += len(packet(source, data=length))
        dropped[source] += dport == 9
        last[source] = Verdict.DROP if dport == 9 else Verdict.PASS
    shared.send(*[packet(s, dport=d, data=n) for s, d, n in sent])

    found, gone = shared.sources(), shared.read().gone
    assert gone.packets + sum(x.packets for x in found.values()) == len(sent)
    assert gone.bytes + sum(x.bytes for x in found.values()) == size.total()
    crowded = Counter(place(source)[0] for source in packets)
    for source in packets:
        if crowded[place(source)[0]] <= abi.TALKER_WAYS:
            assert source in found
            assert found[source].packets == packets[source]
    for source, talker in found.items():
        assert talker.verdict == last[source]
        if gone.sources == 0:
            assert (talker.packets, talker.bytes) == (packets[source], size[source])
            assert talker.dropped == dropped[source]
        assert talker.packets <= packets[source]
        assert talker.dropped <= dropped[source]


def test_steady_source_gets_in_though_newcomers_are_gone_before_it_comes_again(
    few: Filter,
) -> None:
    steady, *crowd = alike(17, tags=False)
    sent = 2 * abi.TALKER_LUCKY
    few.send(*[packet(x) for _ in range(sent) for x in (*crowd, steady)])
    assert few.packets()[steady] > 1
    seen = few.read()
    assert seen.total().packets + seen.gone.packets == sent * 17


def spoofed(first: int, amount: int) -> list[bytes]:
    """Frames of sources below 128.0.0.0, each another one."""
    frames = np.tile(np.frombuffer(packet("10.0.0.0"), np.uint8), (amount, 1))
    numbers = np.arange(first, first + amount, dtype=np.uint32) * np.uint32(0x9E3779B1) >> 1
    frames[:, 26:30] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
    return [row.tobytes() for row in frames]


def test_talkers_keep_their_counts_under_a_million_spoofed_sources() -> None:
    """Each of ten sends a packet in a thousand, into a table of the default size."""
    talkers = [f"192.0.2.{n}" for n in range(10)]
    turns, each = 1000, 1000
    with counting(policy("")) as found:
        for turn in range(turns):
            found.send(*[packet(x) for x in talkers], *spoofed(turn * each, each))
        seen = found.read()
    assert {str(x.source): x.packets for x in seen.top(10)} == dict.fromkeys(talkers, turns)
    assert seen.total().packets + seen.gone.packets == turns * (each + len(talkers))
    assert seen.gone.sources > turns * each // 2
    assert seen.total().sources <= seen.slots == 8192 * possible_cpus()


def test_two_cpus_at_once_lose_nothing(few: Filter) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("there is one CPU only")
    program, each, rounds = few.loaded.programs["left"], 20_000, 20
    crowd = [packet(f"10.1.{n >> 8}.{n & 255}") for n in range(2000)]
    start = threading.Barrier(len(cpus))

    def sender(cpu: int) -> None:
        os.sched_setaffinity(threading.get_native_id(), {cpu})
        start.wait()
        for _ in range(rounds):
            program.test_run(packet("10.0.0.1"), each)
            program.test_many(crowd)

    threads = [threading.Thread(target=sender, args=(cpu,)) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with few.table() as sets:
        assert sets["talker"]["packets"].reshape(possible_cpus(), -1).any(axis=1).sum() >= 2
    assert few.packets()["10.0.0.1"] == 2 * rounds * each
    seen = few.read()
    assert seen.total().packets + seen.gone.packets == 2 * rounds * (each + len(crowd))
    size = len(packet("10.0.0.1"))
    assert seen.total().bytes + seen.gone.bytes == 2 * rounds * (each + len(crowd)) * size
