"""The action `limit` in numbers, without a kernel."""

from __future__ import annotations

import ipaddress
from collections import Counter
from fractions import Fraction
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rule_strategies import limits
from xdpgw import _abi as abi
from xdpgw import config, rules
from xdpgw._abi import Dim
from xdpgw._native import ffi
from xdpgw.compile import Names, compile_rules, names_of
from xdpgw.errors import ConfigError
from xdpgw.limit_state import hash_source
from xdpgw.limits import (
    DEEPEST_NS,
    LONGEST_BYTES,
    burst_of,
    counts_bytes,
    faults,
    limit_words,
    netmask,
)
from xdpgw.rule_parser import parse
from xdpgw.rule_types import Limit, Rate

NS = 1_000_000_000
FRACTION = 1 << abi.LIMIT_FRACTION_BITS


def resolved(*lines: str) -> rules.RuleSet:
    text = "\n".join(lines)
    return rules.resolve(config.loads(f'[policy]\nrules = """\n{text}\n"""\n[ports.left]\n'))


def rows(ruleset: rules.RuleSet, names: Names | None = None) -> list:
    """The structs xg_limit of a policy."""
    raw = compile_rules(ruleset, names).limits
    return list(ffi.from_buffer("struct xg_limit[]", raw))


def per_second(rate: Rate) -> Fraction:
    """Packets or bytes."""
    unit = {"/s": Fraction(1), "/m": Fraction(1, 60), "Mbit/s": 125_000, "Gbit/s": 125_000_000}
    return rate.amount * Fraction(unit[rate.unit])


@given(limits)
def test_words_hold_rate_and_burst(limit: Limit) -> None:
    words = limit_words(limit)
    cost_ns = Fraction(words.cost, FRACTION)
    assert abs(cost_ns * per_second(limit.rate) / NS - 1) < Fraction(1, 10**5)
    if counts_bytes(limit.rate):
        # Ahead by less than the burst: one more frame passes.
        assert words.depth_ns < cost_ns * burst_of(limit) <= words.depth_ns + 1 + cost_ns
    else:
        # Ahead by all but one packet: one more passes; by a whole one more: none.
        before, full = cost_ns * (burst_of(limit) - 1), cost_ns * burst_of(limit)
        assert before - 1 < words.depth_ns < full


@given(limits)
def test_words_fit_their_members_for_the_longest_frame(limit: Limit) -> None:
    words = limit_words(limit)
    longest = LONGEST_BYTES if counts_bytes(limit.rate) else 1
    assert words.cost * longest + FRACTION <= 2**64
    assert words.cost_most_ns >= Fraction(words.cost * longest, FRACTION)


@given(limits)
def test_limits_that_are_taken_keep_times_apart(limit: Limit) -> None:
    text = f"a limit {limit.rate}" + ("" if limit.burst is None else f" burst {limit.burst}")
    try:
        resolved(text)
    except ConfigError:
        assert Fraction(burst_of(limit)) / per_second(limit.rate) > Fraction(DEEPEST_NS, NS) * (
            1 - Fraction(1, 10**5)
        )
    else:
        assert 2 * limit_words(limit).deepest_ns < 1 << abi.LIMIT_TIME_BITS


@pytest.mark.parametrize(
    ("text", "burst"),
    [
        ("a limit 1000/s", 1000),
        ("a limit 30/m", 30),
        ("a limit 30/m burst 2", 2),
        ("a limit 1Mbit/s", 65536),
        ("a limit 5Mbit/s", 65536),
        ("a limit 100Mbit/s", 1_250_000),
        ("a limit 10Gbit/s", 125_000_000),
        ("a limit 10Gbit/s burst 9000", 9000),
    ],
)
def test_burst_where_none_is_said(text: str, burst: int) -> None:
    limit = resolved(text).rules[0].action.limit
    assert limit is not None
    assert burst_of(limit) == burst


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("a limit 1000/s", False),
        ("a limit 1000/s burst 39", True),
        ("a limit 1000/s burst 42", False),
        ("a limit 1/m burst 1", True),
        ("a limit 1Gbit/s burst 9000", True),
        ("a limit 1Gbit/s", False),
    ],
)
def test_a_burst_too_short_for_ticks_is_timed_exactly(text: str, exact: bool) -> None:
    assert bool(rows(resolved(text))[0].exact) == exact


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("a limit 1/m burst 61", 3, "burst 61 lasts for over an hour at 1/m (write burst 60 or"),
        ("a limit 10/s burst 36001 per source udp", 3, "at 10/s (write burst 36000 or less)"),
        ("a limit 1Mbit/s burst 450000001", 3, "at 1Mbit/s (write burst 450000000 or less)"),
    ],
)
def test_a_burst_of_over_an_hour_is_an_error(text: str, column: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved("ok pass udp", text)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.line, diagnostic.column) == (4, column)
    assert message in str(diagnostic)


def test_more_limits_than_there_is_room_for_are_an_error() -> None:
    lines = "\n".join(f"l{n} limit 1/s" for n in range(abi.MAX_LIMITS))
    found, wrong = parse(lines)
    assert not wrong
    assert not list(faults(found, "f"))
    (fault,) = faults([*found, *found[:9]], "f")
    assert "more than 1,024 rules with the action limit" in str(fault)


def test_rows_hold_what_the_rules_say() -> None:
    ruleset = resolved(
        "ok pass tcp",
        "a limit 1000/s burst 5 per source/24,48 udp",
        "web drop udp",
        "b limit 8Mbit/s",
    )
    first, second = rows(ruleset)
    assert (first.per_source, first.bytes, first.exact) == (1, 0, 1)
    assert first.cost == 1_000_000 * FRACTION
    assert bytes(ffi.buffer(first.mask6)) == netmask(48, 16)
    assert first.mask4.to_bytes(4, "little") == netmask(24, 4)
    assert (second.per_source, second.bytes, second.exact) == (0, 1, 0)
    assert second.cost == 1000 * FRACTION
    assert first.slot != second.slot
    targets = ffi.from_buffer("struct xg_rule[]", compile_rules(ruleset).rules)
    assert (targets[1].target, targets[3].target) == (0, 1)


@pytest.mark.parametrize(
    ("bits", "size", "mask"),
    [
        (0, 4, "00000000"),
        (1, 4, "80000000"),
        (20, 4, "fffff000"),
        (32, 4, "ffffffff"),
        (64, 16, "ffffffffffffffff0000000000000000"),
        (0, 0, ""),
    ],
)
def test_netmask(bits: int, size: int, mask: str) -> None:
    assert netmask(bits, size).hex() == mask


def test_a_limit_that_stays_keeps_slot_and_seed() -> None:
    seeds = iter(range(100, 200))

    def after(before: Names, *lines: str) -> Names:
        return names_of(resolved(*lines), before, lambda _: next(seeds))

    first = after(Names(), "a limit 5/s", "b limit 6/s per source", "c limit 7/s")
    assert list(first.seeds.values()) == [100, 101, 102]
    # In another place, with another match: the same limit.
    second = after(first, "c limit 7/s udp", "b limit 6/s per source tcp")
    for name in ("b limit 6/s per source", "c limit 7/s"):
        assert (second.limits[name], second.seeds[name]) == (first.limits[name], first.seeds[name])
    # Another name, another rate, and one that was away are new ones, whatever slot they get.
    third = after(second, "x limit 7/s", "b limit 9/s per source", "a limit 5/s")
    assert sorted(third.seeds.values()) == [103, 104, 105]
    assert not set(third.limits.values()) & set(second.limits.values())


def test_longest_frame_is_the_longest_that_a_packet_tells() -> None:
    assert abi.VALUES[Dim.LEN] - 1 == LONGEST_BYTES


@pytest.mark.parametrize("step", [1, 1 << 8, 1 << 64, 1 << 80])
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_hash_spreads_neighbours_over_lines_and_keys(step: int, seed: int) -> None:
    limit = Limit(Rate(1, "/s"), None, "source", 32, 128)
    first = int(ipaddress.ip_address("2001:db8::"))
    addresses = islice(count(first, step), 8192)
    found = [hash_source(seed, limit, ipaddress.ip_address(n)) for n in addresses]
    assert len(set(found)) == 8192
    lines = Counter(at.line * 256 // abi.LIMIT_LINES for at in found)
    keys = Counter(at.key >> 56 for at in found)
    for spread in (lines, keys):
        assert len(spread) == 256
        assert max(spread.values()) < 72  # 32 in the mean: seven deviations


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_hash_looks_at_the_bits_of_the_prefix_only(address: int, bits: int) -> None:
    limit = Limit(Rate(1, "/s"), None, "source", bits, 64)
    here = ipaddress.ip_address(address)
    network = ipaddress.ip_network((address, bits), strict=False)
    assert hash_source(7, limit, here) == hash_source(7, limit, network.network_address)
    assert hash_source(7, limit, here) == hash_source(7, limit, network.broadcast_address)
    if bits:
        other = ipaddress.ip_address(address ^ 1 << 32 - bits)
        assert hash_source(7, limit, here) != hash_source(7, limit, other)
