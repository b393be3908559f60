"""The action `limit`, judged by test runs. Times are moved in the books, so that nothing waits."""

from __future__ import annotations

import ipaddress
import os
import random
import threading
import time
from collections import Counter

import numpy as np
import pytest

from tests.bpf.limits import Filter, filtering, policy
from tests.frames import arp, eth, fragment, ipv4, ipv6, tcp, udp
from tests.judges import kernel_judge, outcomes
from xdpgw import _abi as abi
from xdpgw import facts
from xdpgw._abi import Reason, Verdict
from xdpgw.limit_state import hash_source
from xdpgw.limits import first_jiffy, limits_in

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
OVER = (Verdict.DROP, Reason.LIMIT)
PASSED = (Verdict.PASS, Reason.DEFAULT)


def from4(src: str, dport: int = 53) -> bytes:
    return eth(ipv4(udp(dport=dport), src=src))


def from6(src: str, dport: int = 53) -> bytes:
    return eth(ipv6(udp(dport=dport), src=src))


FRAME = from4("10.0.0.1")


def first_passes(found: Filter, *frames: bytes) -> int:
    """How many pass, which must be the first ones."""
    passed = found.passes(*frames)
    assert passed == sorted(passed, reverse=True)
    return sum(passed)


@pytest.mark.parametrize(
    ("words", "burst"),
    [
        ("1/m burst 5", 5),
        ("1/m burst 1", 1),
        ("7/m", 7),
        ("59/m burst 3000 per rule", 3000),
        ("1/m burst 5 per source", 5),
        ("7/m per source", 7),
        ("31/m burst 900 per source/0,0", 900),
    ],
)
def test_limit_burst_is_exact(words: str, burst: int) -> None:
    with filtering(policy(f"few limit {words}")) as found:
        assert first_passes(found, *[FRAME] * (burst + 3)) == burst
        assert found.counters() == {PASSED: burst, OVER: 3}
        assert found.decided() == {"few": 3}


def test_limit_per_rule_counts_all_sources_together() -> None:
    with filtering(policy("few limit 1/m burst 3 udp")) as found:
        frames = [from4("10.0.0.1"), from6("2001:db8::1"), from4("10.0.0.2"), from6("2001:db8::2")]
        assert first_passes(found, *frames) == 3
        assert found.passes(eth(ipv4(tcp()))) == [True]


@pytest.mark.parametrize(
    ("later_ns", "passing"),
    [(MINUTE * 9 // 10, 0), (MINUTE, 1), (MINUTE * 19 // 10, 1), (MINUTE * 4, 4), (MINUTE * 55, 5)],
)
@pytest.mark.parametrize("per", ["rule", "source"])
def test_limit_refills_at_its_rate_and_no_further_than_its_burst(
    per: str, later_ns: int, passing: int
) -> None:
    with filtering(policy(f"few limit 1/m burst 5 per {per}")) as found:
        assert first_passes(found, *[FRAME] * 6) == 5
        if per == "rule":
            found.bucket -= later_ns
        else:
            found.move("10.0.0.1", -later_ns)
        assert first_passes(found, *[FRAME] * 7) == passing


def test_limit_per_source_gives_each_its_own() -> None:
    with filtering(policy("few limit 1/m burst 2 per source udp")) as found:
        sources = [
            *(from4(f"10.0.{n}.1") for n in range(50)),
            *(from6(f"2001:db8:0:{n:x}::1") for n in range(50)),
        ]
        for frame in sources:
            assert found.passes(frame, frame, frame) == [True, True, False]
        assert not any(found.passes(*sources))


@pytest.mark.parametrize(
    ("per", "first", "same", "other"),
    [
        ("source", from4("10.0.0.1"), from4("10.0.0.1", 54), from4("10.0.0.2")),
        ("source/24,48", from4("10.0.0.1"), from4("10.0.0.255"), from4("10.0.1.1")),
        ("source/31,64", from4("10.0.0.2"), from4("10.0.0.3"), from4("10.0.0.1")),
        ("source/0,0", from4("10.0.0.1"), from4("203.0.113.9"), from6("2001:db8::1")),
        ("source", from6("2001:db8::1"), from6("2001:db8::ffff:0:0:2"), from6("2001:db8:0:1::1")),
        ("source/32,48", from6("2001:db8::1"), from6("2001:db8:0:ffff::1"), from6("2001:db8:1::1")),
        ("source/32,128", from6("2001:db8::1"), from6("2001:db8::1", 9), from6("2001:db8::2")),
        ("source/32,127", from6("2001:db8::2"), from6("2001:db8::3"), from6("2001:db8::4")),
    ],
)
def test_limit_per_source_looks_at_its_bits_only(
    per: str, first: bytes, same: bytes, other: bytes
) -> None:
    with filtering(policy(f"few limit 1/m burst 2 per {per}")) as found:
        assert found.passes(first, same, first, same) == [True, True, False, False]
        assert found.passes(other) == [True]


@pytest.mark.parametrize("seed", [1, 0x0123456789ABCDEF])
def test_limit_ipv4_sources_do_not_spend_what_an_ipv6_one_has(seed: int) -> None:
    # 2001:db8:: as a number, and IPv4 addresses that differ from it in what a family may add.
    near = [bytes([0x20 ^ n, 1, 13, 184]) for n in range(64)]
    with filtering(policy("few limit 1/m burst 1 per source"), lambda slot: seed) as found:
        assert all(found.passes(*(from4(str(ipaddress.ip_address(x))) for x in near)))
        assert found.passes(from6("2001:db8::1")) == [True]


def test_limit_per_source_takes_all_that_is_not_ip_for_one_source() -> None:
    with filtering(policy("few limit 1/m burst 2 per source")) as found:
        frames = [eth(arp(src=f"10.0.0.{n}"), src=f"02:00:00:00:00:{n:02x}") for n in range(3)]
        assert found.passes(*frames) == [True, True, False]
        assert found.passes(from4("10.0.0.0"), from6("::")) == [True, True]


def test_limits_are_asked_in_order_until_one_refuses() -> None:
    rules = (
        "one limit 1/m burst 4 per rule udp to port 53",
        "all limit 1/m burst 6 udp",
        "web drop udp to port 80",
    )
    with filtering(policy(*rules)) as found:
        assert first_passes(found, *[from4("10.0.0.1", 53)] * 6) == 4
        assert found.decided() == {"one": 2}
        # What the first limit refused took nothing from the second.
        assert first_passes(found, *[from4("10.0.0.1", 54)] * 4) == 2
        assert found.decided() == {"one": 2, "all": 2}
        # What is over a limit is dropped by it, not by the rule behind it.
        assert found.passes(from4("10.0.0.1", 80)) == [False]
        assert found.decided() == {"one": 2, "all": 3}


def test_limit_behind_the_deciding_rule_is_not_asked() -> None:
    rules = ("ok pass udp to port 53", "few limit 1/m burst 1")
    with filtering(policy(*rules, default="drop")) as found:
        assert all(found.passes(*[FRAME] * 3))
        assert found.bucket == 0
        assert found.passes(from4("10.0.0.1", 54)) == [False]  # by default, but it has paid
        assert found.counters()[Verdict.DROP, Reason.DEFAULT] == 1
        assert found.bucket > 0


def test_limit_refuses_before_the_default_and_the_guard() -> None:
    text = policy("few limit 1/m burst 1 arp", default="drop").replace("false", "true", 1)
    with filtering(text) as found:
        frame = eth(arp())
        assert found.passes(frame, frame) == [True, False]
        assert found.counters() == {(Verdict.PASS, Reason.GUARD): 1, OVER: 1}


@pytest.mark.parametrize(
    ("rules", "limits"), [(7, 3), (31, 31), (32, 32), (70, 30), (300, 130), (8700, 1000)]
)
def test_limits_amid_other_rules_agree_with_a_model(rules: int, limits: int) -> None:
    """8,700 rules with 1,000 limits: limits are in words of two summaries of a row."""
    rng = random.Random(rules)
    ports = range(2000, 2000 + max(8, rules // 8))
    lines: list[tuple[str, str, int, int]] = []  # (name, action, port, burst)
    for n, is_limit in enumerate(rng.sample([True] * limits + [False] * (rules - limits), rules)):
        port = rng.choice(ports)
        action = "limit" if is_limit else rng.choice(("pass", "drop", "drop"))
        lines.append((f"r{n}", action, port, rng.randrange(1, 9)))
    text = [
        f"{name} {f'limit 1/m burst {burst}' if action == 'limit' else action} udp to port {port}"
        for name, action, port, burst in lines
    ]
    spent: Counter[str] = Counter()
    decided: Counter[str] = Counter()

    def judged(port: int) -> bool:
        for name, action, asked, burst in lines:
            if asked != port:
                continue
            if action == "limit" and spent[name] < burst:
                spent[name] += 1
                continue
            decided[name] += 1
            return action == "pass"
        return True

    with filtering(policy(*text)) as found:
        sent = [port for port in rng.sample(ports, min(len(ports), 120)) for _ in range(9)]
        assert found.passes(*[from4("10.0.0.1", port) for port in sent]) == list(map(judged, sent))
        assert found.decided() == decided
        assert any(name in decided for name, action, *_ in lines if action == "limit")


def test_a_hundred_limits_are_asked_of_one_packet() -> None:
    rules = [f"l{n} limit 10/m burst {200 - n} per source" for n in range(100)]
    with filtering(policy(*rules)) as found:
        assert first_passes(found, *[FRAME] * 103) == 101
        # What the last refuses has paid all the others.
        assert found.decided() == {"l98": 1, "l99": 1}


def test_limit_in_bits_takes_each_byte_of_the_frame() -> None:
    """By what a bucket is moved that does not empty meanwhile: a byte is 8,000 ns at 1 Mbit/s."""
    with filtering(policy("slow limit 1Mbit/s burst 2000000")) as found:
        assert found.passes(FRAME) == [True]
        found.bucket += 8 * SECOND
        for size in (60, 61, 514, 1514):
            before = found.bucket
            assert found.passes(eth(ipv4(udp(bytes(size - 42))))) == [True]
            assert found.bucket - before == size * 8000


def test_limit_in_bits_lets_a_frame_pass_while_some_of_the_burst_is_left() -> None:
    with filtering(policy("slow limit 1Mbit/s burst 1000000")) as found:
        frame = eth(ipv4(udp(bytes(1000))))
        found.passes(frame)
        depth_ns = 8 * SECOND
        found.bucket += depth_ns - 2 * SECOND
        assert found.passes(frame) == [True]
        found.bucket += 4 * SECOND
        assert found.passes(frame) == [False]
        assert found.decided() == {"slow": 1}


def test_limit_in_bits_counts_sources_apart() -> None:
    with filtering(policy("slow limit 1Mbit/s burst 1000000 per source")) as found:
        frame = from4("10.0.0.1")
        assert found.passes(frame) == [True]
        found.move("10.0.0.1", 9 * SECOND)
        assert found.passes(frame, from4("10.0.0.2")) == [False, True]
        assert found.offenders() == {(4, "10.0.0.1")}


def test_limit_keeps_the_fraction_of_a_nanosecond() -> None:
    """100 Gbit/s are 4.8 ns a frame of 60 bytes, and its burst lasts for a tenth of a second."""
    with filtering(policy("fast limit 100Gbit/s")) as found:
        frame = eth(ipv4(udp(bytes(18))))
        assert found.passes(frame) == [True]
        found.bucket += SECOND // 20
        start = found.bucket
        assert all(found.passes(*[frame] * 5000))
        assert abs(found.bucket - start - 5000 * 4.8) < 500


def test_limit_with_a_long_burst_goes_by_the_ticks_of_the_kernel() -> None:
    tick_ns = facts.tick_ns()

    def clock() -> int:
        jiffies = facts.jiffies()
        assert jiffies is not None
        return (jiffies - first_jiffy(tick_ns)) * tick_ns

    with filtering(policy("few limit 10/s")) as found:
        before = clock()
        found.passes(FRAME)
        assert before <= found.bucket - SECOND // 10 <= clock()


def test_limit_with_a_short_burst_goes_by_the_exact_clock() -> None:
    with filtering(policy("few limit 1000/s burst 1")) as found:
        before = time.monotonic_ns()
        found.passes(FRAME)
        assert before <= found.bucket - SECOND // 1000 <= time.monotonic_ns()


def test_limit_old_bucket_never_refuses() -> None:
    """Only the low bits of its time are like those of a full one."""
    with filtering(policy("few limit 1/m burst 5 per source")) as found:
        assert first_passes(found, *[FRAME] * 6) == 5
        found.move("10.0.0.1", -(1 << abi.LIMIT_TIME_BITS))
        assert first_passes(found, *[FRAME] * 6) == 5


def same_line(found: Filter, number: int) -> list[str]:
    """IPv4 sources whose buckets are in the same line, by the hash of the first limit."""
    rule, limit = limits_in(found.loaded.image.ruleset.rules)[0]
    seed = next(iter(found.loaded.image.names.seeds.values()))
    assert rule.action.limit is limit
    wanted = hash_source(seed, limit, ipaddress.ip_address("10.0.0.1")).line

    # hash_source, for many: an address in network order is the low half of a word of this machine.
    address = np.arange(0x0B000000, 0x0B000000 + 8 * number * abi.LIMIT_LINES // 4, dtype=">u4")
    ratio = 0x9E3779B97F4A7C15
    start = np.uint64((seed + 4 * ratio) & 2**64 - 1)
    x = (start ^ address.view("<u4").astype(np.uint64)) * np.uint64(ratio)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(32)
    lines = x & np.uint64(abi.LIMIT_LINES - 1)
    sources = [str(ipaddress.ip_address(int(n))) for n in address[lines == wanted]]
    assert hash_source(seed, limit, ipaddress.ip_address(sources[0])).line == wanted
    return sources[:number]


def test_limit_a_flood_in_its_line_leaves_a_source_what_it_has_spent() -> None:
    with filtering(policy("few limit 1/m burst 5 per source udp")) as found:
        sources = same_line(found, 60)
        assert len(sources) == 60
        good, hot = "10.0.0.1", sources.pop()
        assert found.passes(*[from4(hot)] * 6) == [True] * 5 + [False]
        assert found.passes(*[from4(good)] * 3) == [True] * 3
        # Each is let through, as it would be alone: eight buckets are not room for their debts.
        assert all(found.passes(*[from4(source) for source in sources]))
        assert found.passes(from4(hot)) == [False]
        assert found.passes(*[from4(good)] * 4) == [True, True, False, False]


def test_limit_the_emptiest_bucket_gives_way() -> None:
    with filtering(policy("few limit 1/m burst 5 per source udp")) as found:
        sources = same_line(found, 9)
        for spent, source in enumerate(sources[:8]):
            found.passes(*[from4(source)] * (1 + (3 + spent) % 4))
        emptiest = [source for spent, source in enumerate(sources[:8]) if (3 + spent) % 4 == 0]
        found.passes(from4(sources[8]))
        kept = [source for source in sources if _is_there(found, source)]
        assert len(kept) == 8
        assert set(sources) - set(kept) <= set(emptiest)


def _is_there(found: Filter, source: str) -> bool:
    try:
        found.find(source)
    except StopIteration:
        return False
    return True


def test_limit_writes_down_who_is_over_it() -> None:
    with filtering(policy("few limit 1/m burst 1 per source/24,48 udp")) as found:
        found.passes(*[from4("10.0.5.77")] * 2, from4("10.0.6.1"))
        found.passes(*[from6("2001:db8:7:8::9")] * 2)
        assert found.offenders() == {(4, "10.0.5.0"), (6, "2001:db8:7::")}


def test_limit_writes_down_no_more_sources_than_it_has_room_for() -> None:
    with filtering(policy("few limit 1/m burst 1 per source udp")) as found:
        for n in range(200):
            found.passes(*[from4(f"10.0.5.{n}")] * 2)
        assert 4 <= len(found.offenders()) <= abi.OFFENDERS


def test_follow_gives_later_fragments_the_limit_of_their_first_and_spends_nothing() -> None:
    def pieces(ident: int, family: int) -> tuple[bytes, bytes]:
        whole, head, tail = udp(bytes(64), dport=53), slice(0, 32), slice(32, None)
        if family == 4:
            return (
                eth(ipv4(whole, ident=ident, mf=True, part=head)),
                eth(ipv4(whole, ident=ident, offset=4, part=tail)),
            )
        return (
            eth(ipv6(whole, fragment(more=True, ident=ident), part=head)),
            eth(ipv6(whole, fragment(offset=4, ident=ident), part=tail)),
        )

    with filtering(policy("few limit 1/m burst 2 udp", fragments="follow")) as found:
        good, last, bad = pieces(1, 4), pieces(2, 6), pieces(3, 6)
        assert found.passes(*good, good[1], good[1], *last) == [True] * 6
        assert found.passes(*bad, bad[1]) == [False] * 3
        assert found.counters() == {PASSED: 6, OVER: 3}
        assert found.decided() == {"few": 3}


def test_explain_judges_as_if_every_limit_had_room() -> None:
    rules = ("few limit 1/m burst 1", "web drop udp to port 80")
    with kernel_judge(policy(*rules), "left") as judge:
        frames = [FRAME, FRAME, from4("10.0.0.1", 80), from4("10.0.0.1", 80)]
        found = [(x["verdict"], x["reason"], x["rule"]) for x in outcomes(judge, frames)]
        assert found == [("pass", "default", None)] * 2 + [("drop", "rule", "web")] * 2
        assert judge._loaded.maps["limit_buckets"].lookup(bytes(4)) == bytes(8)


def test_limit_agrees_with_a_model_of_random_limits_and_packets() -> None:
    """Bursts of limits per rule and per source, in list order, against dictionaries."""
    rng = random.Random(6)
    for _ in range(12):
        limits = [
            (rng.randrange(1, 12), rng.choice(["rule", "source/32,64", "source/24,48"]), port)
            for port in rng.choices(("", " to port 53", " to port 54"), k=rng.randrange(1, 6))
        ]
        rules = [
            f"l{n} limit 1/m burst {burst} per {per} udp{port}"
            for n, (burst, per, port) in enumerate(limits)
        ]
        left: Counter[tuple[int, str]] = Counter()
        with filtering(policy(*rules)) as found:
            for _ in range(80):
                host, port = rng.randrange(512), rng.choice((53, 54, 55))
                wanted = True
                for n, (burst, per, asked) in enumerate(limits):
                    if asked and not asked.endswith(str(port)):
                        continue
                    whose = {"rule": "", "source/32,64": f"{host}"}.get(per, f"{host >> 8}")
                    left[n, whose] += 1
                    if left[n, whose] > burst:
                        wanted = False
                        break
                source = f"10.0.{host >> 8}.{host & 255}"
                assert found.passes(from4(source, port)) == [wanted], (rules, source, port)


@pytest.mark.parametrize("per", ["rule", "source"])
def test_limit_two_cores_at_once_spend_no_more_and_no_less(per: str) -> None:
    burst, each, interval_ns = 50_000, 300_000, MINUTE // 1000
    with filtering(policy(f"few limit 1000/m burst {burst} per {per}")) as found:
        begun = time.monotonic_ns()
        start = threading.Barrier(2)

        def ask(cpu: int) -> None:
            os.sched_setaffinity(0, {cpu})  # of this thread
            start.wait()
            found.loaded.programs["left"].test_run(FRAME, each)

        cpus = sorted(os.sched_getaffinity(0))
        threads = [threading.Thread(target=ask, args=(cpus[n % len(cpus)],)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refilled = (time.monotonic_ns() - begun) // interval_ns + 1
        counters = found.counters()
        assert burst <= counters[PASSED] <= burst + refilled
        assert counters[PASSED] + counters[OVER] == 2 * each
