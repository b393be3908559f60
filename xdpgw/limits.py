"""The action `limit` in the numbers of the datapath, and which limits cannot be kept.

Pure. What buckets hold at the moment is `xdpgw.limit_state`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from xdpgw import _abi as abi
from xdpgw.errors import Diagnostic
from xdpgw.rule_format import format_action
from xdpgw.rule_types import Action, Limit, Rate, ResolvedRule, Rule

__all__ = [
    "LimitWords",
    "burst_of",
    "counts_bytes",
    "faults",
    "first_jiffy",
    "limit_bytes",
    "limit_name",
    "limit_words",
    "limits_in",
    "netmask",
]

NS = 1_000_000_000
_PER_NS = {"/s": NS, "/m": 60 * NS}
_BITS = {"Mbit/s": 10**6, "Gbit/s": 10**9}
_FRACTION = 1 << abi.LIMIT_FRACTION_BITS

DEEPEST_NS = 3600 * NS
"""No bucket is fuller, so that times of `abi.LIMIT_TIME_BITS` are told from each other."""

EXACT_NS = 40_000_000
"""A burst that lasts less is timed by the exact clock: four of the longest ticks (100 Hz)."""

LONGEST_BYTES = 65535
"""Of a frame: `len` tells no more."""

LEAST_BURST_BYTES = 65536
"""What a rate in bits lets through at once, at the least, where no burst is said."""


@dataclass(frozen=True, slots=True)
class LimitWords:
    """The numbers of a struct xg_limit."""

    cost: int
    """Of a packet or a byte, in ns * 2^LIMIT_FRACTION_BITS."""
    depth_ns: int
    cost_most_ns: int
    """Of the longest frame."""
    exact: bool

    @property
    def deepest_ns(self) -> int:
        """No bucket is fuller."""
        return self.depth_ns + self.cost_most_ns


def counts_bytes(rate: Rate) -> bool:
    """Whether a rate is of bits, so that its burst is in bytes; else both are of packets."""
    return rate.unit in _BITS


def burst_of(limit: Limit) -> int:
    """Packets, or bytes for a rate in bits, that may come at once.

    Where it was not said: of packets what the rate gives in its unit of time, as for `log`; of
    bytes what it gives in a tenth of a second, but 64 KiB at least.
    """
    if limit.burst is not None:
        return limit.burst
    if not counts_bytes(limit.rate):
        return limit.rate.amount
    return max(LEAST_BURST_BYTES, limit.rate.amount * _BITS[limit.rate.unit] // 80)


def limit_words(limit: Limit) -> LimitWords:
    """The numbers that the datapath keeps of a limit.

    Of packets, as many as the burst pass at once: the bucket is over the rate when it is ahead by
    more than all of them but one; a little more takes up what is rounded. Of bytes, frames
    pass until the burst is spent, so that the last one may go over it, and a frame longer than the
    burst passes, too.
    """
    cost, burst = _cost(limit.rate), burst_of(limit)
    if counts_bytes(limit.rate):
        depth = cost * burst - 1
    else:
        depth = cost * (burst - 1) + min(cost // 2, 1000 * _FRACTION)
    depth_ns = depth // _FRACTION
    most = cost * (LONGEST_BYTES if counts_bytes(limit.rate) else 1) // _FRACTION + 1
    return LimitWords(cost, depth_ns, most, depth_ns < EXACT_NS)


def _cost(rate: Rate) -> int:
    if counts_bytes(rate):
        bits = rate.amount * _BITS[rate.unit]
        return (8 * NS * _FRACTION + bits // 2) // bits
    return (_PER_NS[rate.unit] * _FRACTION + rate.amount // 2) // rate.amount


def limits_in(rules: Iterable[ResolvedRule]) -> list[tuple[ResolvedRule, Limit]]:
    """The rules with the action limit, in order: the n-th is limit n to the datapath."""
    return [(rule, rule.action.limit) for rule in rules if rule.action.limit is not None]


def limit_bytes(
    rules: Iterable[ResolvedRule], slots: Mapping[str, int], seeds: Mapping[str, int]
) -> bytes:
    """The structs xg_limit of a policy; one that nobody asks for where it has no limit.

    Args:
        slots: of each limit, by `limit_name`.
        seeds: the same.
    """
    from xdpgw._native import ffi

    limits = limits_in(rules)
    out = ffi.new("struct xg_limit[]", max(1, len(limits)))
    for row, (rule, limit) in zip(out, limits, strict=False):
        name, words = limit_name(rule), limit_words(limit)
        row.seed, row.slot = seeds[name], slots[name]
        row.cost, row.depth_ns, row.exact = words.cost, words.depth_ns, words.exact
        row.bytes = counts_bytes(limit.rate)
        row.per_source = limit.per == "source"
        ffi.memmove(row.mask6, netmask(limit.prefix6, 16), 16)
        row.mask4 = int.from_bytes(netmask(limit.prefix4, 4), sys.byteorder)
    return bytes(ffi.buffer(out))


def netmask(bits: int, size: int) -> bytes:
    """A netmask of so many bits, `size` bytes in network order."""
    return ((1 << 8 * size) - (1 << 8 * size - bits)).to_bytes(size, "big")


def first_jiffy(tick_ns: int) -> int:
    """What a kernel's jiffies are when it starts: INITIAL_JIFFIES of linux/jiffies.h."""
    return 2**32 - 300 * round(NS / tick_ns)


def limit_name(rule: Rule | ResolvedRule) -> str:
    """What a limit's buckets go by over a reload: the rule's name and all that it says of the
    limit. With another rate, the buckets are new ones."""
    return f"{rule.name} {format_action(rule.action)}"


def faults(rules: Iterable[Rule], file: str) -> Iterator[Diagnostic]:
    """What is wrong with limits that are well-formed by themselves."""
    count = 0
    for rule in rules:
        limit = rule.action.limit
        if limit is None:
            continue
        count += 1
        if count == abi.MAX_LIMITS + 1:
            message = f"more than {abi.MAX_LIMITS:,} rules with the action limit"
            yield _at(rule.action, file, message, "let one rule with a set stand for several")
        most = _longest_burst(limit)
        if burst_of(limit) > most:
            message = f"burst {burst_of(limit)} lasts for over an hour at {limit.rate}"
            yield _at(rule.action, file, message, f"write burst {most} or less")


def _longest_burst(limit: Limit) -> int:
    return DEEPEST_NS * _FRACTION // _cost(limit.rate)


def _at(action: Action, file: str, message: str, hint: str) -> Diagnostic:
    return Diagnostic(file, action.line, action.column, message, hint)
