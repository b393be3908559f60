"""What the buckets of the limits in force hold, read from the books of the datapath.

A bucket of a source knows no address (see bpf/limit.h). So sources are told where the datapath
wrote them down as they were over the rate, a few of each limit, or where somebody asks for one.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xdpgw import _abi as abi
from xdpgw import facts, stats
from xdpgw.limits import (
    LimitWords,
    burst_of,
    counts_bytes,
    first_jiffy,
    limit_name,
    limit_words,
    netmask,
)
from xdpgw.rule_parser import parse
from xdpgw.rule_types import Limit

if TYPE_CHECKING:
    from xdpgw.kernel import Map
    from xdpgw.pins import Instance, Manifest

__all__ = ["Address", "Hash", "hash_source", "limits_of", "source_hash", "ticks_ns"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_WORD = (1 << 64) - 1
_GOLDEN_RATIO = 0x9E3779B97F4A7C15
"""Of 2^64, odd: as bpf/limit.h has it."""

_TIME = (1 << abi.LIMIT_TIME_BITS) - 1


@dataclass(frozen=True, slots=True)
class Hash:
    """Where the bucket of a source is, and whose it is."""

    key: int
    line: int


def hash_source(seed: int, limit: Limit, source: Address | None) -> Hash:
    """As bpf/limit.h has it; None is what all packets that are not IP have in common."""
    x = source_hash(seed, source, limit.prefix4, limit.prefix6)
    return Hash(x & ~_TIME, x & (abi.LIMIT_LINES - 1))


def source_hash(seed: int, source: Address | None, prefix4: int, prefix6: int) -> int:
    """The 64 bits of hash_source() of bpf/limit.h, of a source less what lies behind a prefix."""
    family, bits = 0, 0
    if source is not None:
        family = source.version
        bits = prefix4 if family == 4 else prefix6
    address = b"" if source is None else source.packed
    masked = bytes(a & b for a, b in zip(address, netmask(bits, len(address)), strict=True))
    first, rest = (
        int.from_bytes(half, sys.byteorder) for half in (masked[:8].ljust(8, b"\0"), masked[8:])
    )
    x = ((seed + family * _GOLDEN_RATIO & _WORD) ^ first) * _GOLDEN_RATIO & _WORD
    x ^= x >> 32
    x = (x ^ rest) * 0xBF58476D1CE4E5B9 & _WORD
    x ^= x >> 32
    x = x * 0x94D049BB133111EB & _WORD
    return x ^ x >> 32


def limits_of(
    instance: Instance, manifest: Manifest, addresses: Sequence[Address] = ()
) -> dict[str, Any]:
    """All that can be said of the limits of the filter in force.

    Args:
        addresses: sources to look up in each limit per source.

    Returns:
        `limits`, a row a rule with the action limit: its words; `over`, packets and bytes dropped
        by it since its counters began; `spent`, packets or bytes of its burst, of a limit per rule;
        `sources`, of a limit per source, those of `addresses` and some that were over the rate in
        the last minute, with what each has spent and when it was over. And `table`: buckets of
        sources, and how many are not empty. None is what this kernel does not tell.
    """
    rules, _ = parse(manifest.rules_text)
    now = _Clocks.read()
    with instance.books() as books:
        counts = stats.read_rules(books["rule_counters"], manifest.rule_slots)
        found = []
        deepest = 0
        for rule in rules:
            limit = rule.action.limit
            if limit is None:
                continue
            name = limit_name(rule)
            state = _State(
                limit,
                limit_words(limit),
                manifest.limit_slots[name],
                manifest.limit_seeds[name],
                now,
                books,
            )
            deepest = max(deepest, state.words.deepest_ns)
            count = counts[rule.name]
            found.append(
                {
                    "rule": rule.name,
                    "rate": str(limit.rate),
                    "burst": burst_of(limit),
                    "unit": "bytes" if counts_bytes(limit.rate) else "packets",
                    "per": _per(limit),
                    "over": {"packets": count.packets, "bytes": count.bytes},
                    "spent": state.spent() if limit.per == "rule" else None,
                    "sources": list(state.sources(addresses)) if limit.per == "source" else [],
                }
            )
        table = {
            "buckets": abi.LIMIT_LINES * abi.LIMIT_WAYS,
            "in_use": _in_use(books["limit_lines"], now.ticks_ns, deepest),
        }
    return {"limits": found, "table": table}


def _per(limit: Limit) -> str:
    return f"source/{limit.prefix4},{limit.prefix6}" if limit.per == "source" else "rule"


@dataclass(frozen=True, slots=True)
class _Clocks:
    """The two clocks of bpf/limit.h, in ns."""

    exact_ns: int
    ticks_ns: int | None

    @classmethod
    def read(cls) -> _Clocks:
        return cls(time.monotonic_ns(), ticks_ns())


def ticks_ns() -> int | None:
    """The clock of the datapath that goes by ticks; None: this kernel does not tell."""
    tick_ns, jiffies = facts.tick_ns(), facts.jiffies()
    return None if jiffies is None else (jiffies - first_jiffy(tick_ns)) * tick_ns


@dataclass(frozen=True, slots=True)
class _State:
    """One limit and the books that its buckets are in."""

    limit: Limit
    words: LimitWords
    slot: int
    seed: int
    clocks: _Clocks
    books: Mapping[str, Map]

    @property
    def now(self) -> int | None:
        return self.clocks.exact_ns if self.words.exact else self.clocks.ticks_ns

    def spent(self) -> int | None:
        """Of the rule's own bucket."""
        raw = self.books["limit_buckets"].lookup(self.slot.to_bytes(4, "little"))
        return self._amount(int.from_bytes(raw, sys.byteorder))

    def _amount(self, empty_at: int) -> int | None:
        """Packets or bytes that a bucket holds which will be empty at that time."""
        if self.now is None:
            return None
        # Rounded up: the part of a packet that has drained makes no room for one.
        ahead = max(0, empty_at - self.now) << abi.LIMIT_FRACTION_BITS
        return min(burst_of(self.limit), -(-ahead // self.words.cost))

    def sources(self, asked: Iterable[Address]) -> Iterator[dict[str, Any]]:
        """The ones asked for, then those last over the rate, the latest first."""
        yield from (self._source(address, None) for address in asked)
        for over_s, address in sorted(self._offenders(), key=lambda x: x[0]):
            yield self._source(address, over_s)

    def _source(self, address: Address | None, over_s: float | None) -> dict[str, Any]:
        shown = None
        if address is not None:
            bits = self.limit.prefix4 if address.version == 4 else self.limit.prefix6
            network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
            shown = str(network.network_address if bits == address.max_prefixlen else network)
        return {"source": shown, "spent": self._spent_by(address), "over_s": over_s}

    def _spent_by(self, address: Address | None) -> int | None:
        if self.now is None:
            return None
        at = hash_source(self.seed, self.limit, address)
        line = self.books["limit_lines"].lookup(at.line.to_bytes(4, "little"))
        for start in range(0, len(line), 8):
            bucket = int.from_bytes(line[start : start + 8], sys.byteorder)
            ahead = (bucket - at.key - self.now + (_TIME >> 1)) & _WORD
            if not ahead >> abi.LIMIT_TIME_BITS:
                return self._amount(self.now + ahead - (_TIME >> 1))
        return 0

    def _offenders(self) -> Iterator[tuple[float, Address | None]]:
        """Seconds since each was over the rate, and who."""
        import numpy as np

        if self.now is None:
            return
        raw = self.books["limit_offenders"].lookup(self.slot.to_bytes(4, "little"))
        for row in np.frombuffer(raw, abi.offender_dtype()):
            ago_s = max(0, self.now - int(row["ts_ns"])) / 1e9
            if not row["ts_ns"] or row["busy"] or ago_s > RECENT_S:
                continue
            size = {0: 0, 4: 4, 6: 16}[int(row["family"])]
            yield ago_s, ipaddress.ip_address(bytes(row["addr"])[:size]) if size else None


RECENT_S = 60.0
"""Who was last over the rate before that is not told."""


def _in_use(lines: Map, now: int | None, deepest: int) -> int | None:
    """Buckets that are not empty."""
    import numpy as np

    if now is None:
        return None
    words = lines.array().view(np.uint64)
    ahead = (words - np.uint64(now & _WORD)) & np.uint64(_TIME)
    return int(np.count_nonzero((ahead > 0) & (ahead <= deepest)))
