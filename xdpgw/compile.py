"""From a rule set to the bytes of the maps that the datapath reads.

Pure: the same policy gives the same `Image`, byte for byte, on every host and without root.

The engine (`bpf/match.h`) ANDs one row of bits per dimension, a bit a rule. So compiling is, for
each dimension that some rule looks at: which values does each rule accept there, which values do
all rules treat alike (a class), and which rules does a class satisfy (its row). A mask here is a
Python int whose bit n is rule n.

- Dimensions with a small domain (ports, VLAN, protocol, ...) are painted: a rule's accepted
  values are intervals, its bit toggles at their borders, and between two borders all values share
  a row.
- MAC addresses are few and exact: a row an address, and one for all others.
- Prefixes nest: the longest prefix that holds an address tells all that hold it. A prefix whose
  row is that of the prefix around it is left out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from xdpgw import _abi as abi
from xdpgw import rules as r
from xdpgw._abi import Dim
from xdpgw.accepts import PAINTED, Accepts, Interval, both, merged
from xdpgw.errors import UnsupportedError

__all__ = ["Image", "Names", "Session", "compile_rules", "rate_words"]

NS = 1_000_000_000
_PER_NS = {"/s": NS, "/m": 60 * NS}


@dataclass(frozen=True, slots=True)
class Names:
    """Which counter slot a rule has, and which slots ports and AF_XDP targets have.

    Slots outlive a reload: a rule that keeps its name keeps its counters, a port its place in the
    books, a target its sockets.
    """

    rules: Mapping[str, int] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)

    def renewed(
        self,
        rule_names: Iterable[str],
        port_names: Iterable[str],
        target_names: Iterable[str] = (),
    ) -> Names:
        """The slots of a new policy: old names keep theirs, new ones get free ones, in order.

        A slot that the old policy uses is not given away, even where its name is gone: until the
        swap, packets are still counted there.
        """
        return Names(
            _assign("rules", self.rules, rule_names, abi.RULE_SLOTS),
            _assign("ports", self.ports, port_names, abi.MAX_PORTS),
            _assign("AF_XDP targets", self.targets, target_names, abi.MAX_TARGETS),
        )


def _assign(what: str, old: Mapping[str, int], names: Iterable[str], room: int) -> dict[str, int]:
    taken = set(old.values())
    free = [slot for slot in range(room) if slot not in taken]
    wanted = list(names)
    new = [name for name in wanted if name not in old]
    if len(new) > len(free):
        raise UnsupportedError(
            f"there is no room for {len(new)} new {what} beside the {len(taken)} in force: "
            f"{room} names of both together at most",
            "change them in two steps, or xdpgw detach and start anew",
            feature=what,
        )
    slots = dict(zip(new, free, strict=False))
    return {name: old[name] if name in old else slots[name] for name in wanted}


@dataclass(frozen=True, slots=True)
class Session:
    """The TCP connection that the guard lets through.

    Addresses as text of one family, ports as numbers.
    """

    client: str
    client_port: int
    server: str
    server_port: int


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of every image map, and what `cfg` says about them.

    `tries` and `macs` hold (key, row number) pairs in the order of their keys; keys are struct
    xg_prefix4, xg_prefix6 or xg_mac. `classes` is a little-endian u32 per class, `rows` 128 bytes
    a row, `rules` the structs xg_rule.
    """

    ruleset: r.RuleSet
    names: Names
    words: int
    use: tuple[bool, ...]
    base: tuple[int, ...]
    miss: tuple[int, ...]
    none: tuple[int, ...]
    on_row: Mapping[str, int]
    classes: bytes
    rows: bytes
    rules: bytes
    tries: Mapping[Dim, tuple[tuple[bytes, int], ...]]
    macs: Mapping[Dim, tuple[tuple[bytes, int], ...]]

    def config(
        self,
        port: str | None,
        *,
        session: Session | None = None,
        explain: bool = False,
        multi_buffer: bool = False,
    ) -> bytes:
        """The struct xg_config of one port's program.

        Args:
            port: a port of the policy; None for "no port", where a rule with `on` does not match.
            session: the SSH session that the guard lets through.
            explain: write what was found to the map `explained` instead of logging.
            multi_buffer: a frame may lie in several buffers (kernel 5.18).
        """
        from xdpgw._native import ffi

        config, log = self.ruleset.config, self.ruleset.config.log
        cfg = ffi.new("struct xg_config *")
        cfg.log_window_ns = log.window_ns
        cfg.log_rate.interval_ns, cfg.log_rate.burst_ns = rate_words(log.rate)
        if session is not None:
            _write_session(cfg.session, session)
        for dim in Dim:
            cfg.base[dim], cfg.miss[dim], cfg.none[dim] = (
                self.base[dim],
                self.miss[dim],
                self.none[dim],
            )
            cfg.use[dim] = self.use[dim]
        cfg.none[Dim.ON] = self.on_row.get(port or "", self.on_row[""])
        cfg.words = self.words
        cfg.port = 0 if port is None else self.names.ports[port]
        cfg.default_verdict = abi.Verdict[config.policy.default.upper()]
        cfg.malformed_verdict = abi.Verdict[config.policy.malformed.upper()]
        cfg.fragments = abi.Fragments[config.policy.fragments.upper()]
        cfg.guard = config.policy.guard
        cfg.log_rules = any(rule.log is not None for rule in self.ruleset.rules)
        cfg.log_sources = abi.LogSources[log.sources.upper()]
        cfg.explain = explain
        cfg.multi_buffer = multi_buffer
        cfg.af_xdp = any(rule.action.kind == "af_xdp" for rule in self.ruleset.rules)
        return bytes(ffi.buffer(cfg))

    @property
    def fragment_slots(self) -> int:
        """Entries of the table of fragmented packets; 1 where they are not followed."""
        follows = self.ruleset.config.policy.fragments == "follow"
        return abi.FRAGMENT_SLOTS if follows else 1

    @property
    def memory_bytes(self) -> int:
        """Payload of the image maps, without the kernel's own overhead."""
        entries = (*self.tries.values(), *self.macs.values())
        keyed = sum(len(key) + 4 for pairs in entries for key, _ in pairs)
        return 2 * len(self.classes) + len(self.rows) + len(self.rules) + keyed


def rate_words(rate: r.Rate | None) -> tuple[int, int]:
    """(interval_ns, burst_ns) of struct xg_rate for events; (0, 0), no bound, for None.

    The burst is what the rate lets through in its unit of time: 100/s may come at once, once a
    second.
    """
    if rate is None:
        return 0, 0
    interval = max(1, _PER_NS[rate.unit] // rate.amount)
    return interval, (rate.amount - 1) * interval


def _write_session(out: object, session: Session) -> None:
    from xdpgw._native import ffi

    client, server = ipaddress.ip_address(session.client), ipaddress.ip_address(session.server)
    view = ffi.cast("struct xg_session *", ffi.addressof(out))
    ffi.memmove(view.client, client.packed, len(client.packed))
    ffi.memmove(view.server, server.packed, len(server.packed))
    view.client_port, view.server_port = session.client_port, session.server_port
    view.family = client.version


def compile_rules(ruleset: r.RuleSet, names: Names | None = None) -> Image:
    """Compile a policy.

    Args:
        ruleset: what `rules.resolve` gave.
        names: slots of rules and ports, as `Names.renewed` gives them; fresh ones if None.

    Raises:
        UnsupportedError: a rule limits or asks for connection state: what this version of the
            datapath cannot judge.
    """
    _refuse_unjudgeable(ruleset)
    if names is None:
        names = Names().renewed(
            (x.name for x in ruleset.rules), ruleset.config.ports, ruleset.config.af_xdp
        )
    build = _Builder(ruleset.rules)
    for dim, accept in PAINTED.items():
        build.paint(dim, accept)
    for dim, side in ((Dim.MAC_SRC, "src"), (Dim.MAC_DST, "dst")):
        build.hash_macs(dim, side)
    for side, dims in (("src", (Dim.SRC4, Dim.SRC6)), ("dst", (Dim.DST4, Dim.DST6))):
        build.nest(side, dims)
    on_row = build.ports(ruleset.config.ports)
    return Image(
        ruleset=ruleset,
        names=names,
        words=-(-len(ruleset.rules) // 64),
        use=tuple(build.use),
        base=tuple(build.base),
        miss=tuple(build.miss),
        none=tuple(build.none),
        on_row=on_row,
        classes=build.classes(),
        rows=build.rows(),
        rules=_rule_bytes(ruleset.rules, names),
        tries=build.tries,
        macs=build.macs,
    )


def _refuse_unjudgeable(ruleset: r.RuleSet) -> None:
    what = []
    for rule in ruleset.rules:
        if rule.action.kind == "limit":
            what.append(f"rule {rule.name}: limit")
        if any(isinstance(p, r.Established) for p in rule.predicates):
            what.append(f"rule {rule.name}: established")
    if what:
        raise UnsupportedError(
            f"{what[0]} is not in this version" + (f" ({len(what) - 1} more)" if what[1:] else ""),
            "take it out of the policy, or use a version that has it",
            feature=what[0],
        )


def _rule_bytes(rules: Sequence[r.ResolvedRule], names: Names) -> bytes:
    from xdpgw._native import ffi

    out = ffi.new("struct xg_rule[]", max(1, len(rules)))
    for row, rule in zip(out, rules, strict=False):
        row.slot = names.rules[rule.name]
        row.action = abi.Action[rule.action.kind.upper()]
        if rule.action.otherwise is not None:
            row.otherwise = abi.Verdict[rule.action.otherwise.upper()]
            row.target = names.targets[str(rule.action.target)]
        row.sample = rule.sample or 0
        if rule.log is not None:
            row.log = 1
            row.log_rate.interval_ns, row.log_rate.burst_ns = rate_words(rule.log.rate)
    return bytes(ffi.buffer(out))


class _Builder:
    """Collects rows, and per dimension how a value finds its row."""

    def __init__(self, rules: Sequence[r.ResolvedRule]) -> None:
        self.rule_list = rules
        self.all = (1 << len(rules)) - 1
        self.row_numbers: dict[int, int] = {self.all: 0}
        self.use = [False] * abi.DIM_COUNT
        self.base = [0] * abi.DIM_COUNT
        self.miss = [0] * abi.DIM_COUNT
        self.none = [0] * abi.DIM_COUNT
        self.painted: list[tuple[int, int]] = []  # (count of values, row number)
        self.classes_used = 0
        self.tries: dict[Dim, tuple[tuple[bytes, int], ...]] = {}
        self.macs: dict[Dim, tuple[tuple[bytes, int], ...]] = {}

    def row(self, mask: int) -> int:
        return self.row_numbers.setdefault(mask, len(self.row_numbers))

    def classes(self) -> bytes:
        import numpy as np

        if not self.painted:
            return bytes(4)
        counts, numbers = zip(*self.painted, strict=True)
        return np.repeat(np.array(numbers, "<u4"), counts).tobytes()

    def rows(self) -> bytes:
        return b"".join(mask.to_bytes(abi.ROW_WORDS * 8, "little") for mask in self.row_numbers)

    def paint(self, dim: Dim, accepts: Accepts) -> None:
        toggles: dict[int, int] = {}
        unconcerned = self.all
        for rule in self.rule_list:
            accepted: list[Interval] | None = None
            for predicate in rule.predicates:
                intervals = accepts(predicate)
                if intervals is not None:
                    tidy = merged(intervals)
                    accepted = tidy if accepted is None else both(accepted, tidy)
            if accepted is None:
                continue
            bit = 1 << rule.index
            unconcerned &= ~bit
            for lo, hi in accepted:
                toggles[lo] = toggles.get(lo, 0) ^ bit
                toggles[hi + 1] = toggles.get(hi + 1, 0) ^ bit
        if unconcerned == self.all:
            return
        self.use[dim] = True
        self.base[dim] = self.classes_used
        mask, last = unconcerned, abi.CLASSES[dim]
        borders = sorted({0, last, *(at for at in toggles if at < last)})
        for at, following in pairwise(borders):
            mask ^= toggles.get(at, 0)
            self.painted.append((following - at, self.row(mask)))
        self.classes_used += last

    def ports(self, names: Iterable[str]) -> dict[str, int]:
        """Row of each port; "" stands for no port."""
        wanted: dict[int, set[str]] = {}
        for rule in self.rule_list:
            for predicate in rule.predicates:
                if isinstance(predicate, r.On):
                    wanted.setdefault(rule.index, set()).add(predicate.port)
        self.use[Dim.ON] = bool(wanted)
        rows = {}
        for name in ("", *names):
            refused = sum(1 << index for index, ports in wanted.items() if ports != {name})
            rows[name] = self.row(self.all & ~refused)
        return rows

    def hash_macs(self, dim: Dim, side: str) -> None:
        wanted: dict[int, set[bytes]] = {}
        for rule in self.rule_list:
            for predicate in rule.predicates:
                if isinstance(predicate, r.Mac) and predicate.side == side:
                    wanted.setdefault(rule.index, set()).add(predicate.mac)
        if not wanted:
            return
        self.use[dim] = True
        others = self.all & ~sum(1 << index for index in wanted)
        masks: dict[bytes, int] = {}
        for index, macs in wanted.items():
            if len(macs) == 1:  # no frame has two sources
                (mac,) = macs
                masks[mac] = masks.get(mac, others) | 1 << index
        self.miss[dim] = self.row(others)
        self.macs[dim] = tuple((mac + bytes(2), self.row(masks[mac])) for mac in sorted(masks))

    def nest(self, side: str, dims: tuple[Dim, Dim]) -> None:
        sets: dict[tuple[frozenset[r.Prefix], bool], int] = {}  # -> mask of the rules that ask it
        concerned = 0
        for rule in self.rule_list:
            for p in rule.predicates:
                if isinstance(p, r.Addresses) and p.side == side:
                    key = (p.prefixes, p.negate)
                    sets[key] = sets.get(key, 0) | 1 << rule.index
                    concerned |= 1 << rule.index
        if not sets:
            return
        asked = [(prefixes, negate, mask) for (prefixes, negate), mask in sets.items()]
        none = self.row(self.all & ~concerned)
        for family, dim in zip((4, 6), dims, strict=True):
            self.use[dim] = True
            self.none[dim] = none
            self.miss[dim], self.tries[dim] = self._nest_family(family, asked)

    def _nest_family(
        self, family: int, asked: Sequence[tuple[frozenset[r.Prefix], bool, int]]
    ) -> tuple[int, tuple[tuple[bytes, int], ...]]:
        holders: dict[tuple[int, int], int] = {}  # (address, bits) -> mask of the sets that list it
        for number, (prefixes, _, _) in enumerate(asked):
            for version, address, bits in prefixes:
                if version == family:
                    at = (address, bits)
                    holders[at] = holders.get(at, 0) | 1 << number
        known: dict[int, int] = {}

        def row_inside(inside: int) -> int:
            """Row of an address that lies inside these sets and outside all others."""
            number = known.get(inside)
            if number is None:
                mask = self.all
                for at, (_, negate, concerned) in enumerate(asked):
                    if bool(inside >> at & 1) == negate:
                        mask &= ~concerned
                number = known[inside] = self.row(mask)
            return number

        width = 32 if family == 4 else 128
        size = width // 8
        miss = row_inside(0)
        pairs = []
        around: list[tuple[int, int, int]] = []  # enclosing prefixes: (last address, sets, row)
        for (address, bits), listed in sorted(holders.items()):
            while around and around[-1][0] < address:
                around.pop()
            inside = listed | (around[-1][1] if around else 0)
            outer_row = around[-1][2] if around else miss
            row = row_inside(inside)
            around.append((address | (1 << width - bits) - 1, inside, row))
            if row != outer_row:
                pairs.append((bits.to_bytes(4, "little") + address.to_bytes(size, "big"), row))
        return miss, tuple(pairs)
