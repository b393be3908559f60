"""From a rule set to the bytes of the maps that the datapath reads.

Pure: the same policy gives the same `Image`, byte for byte, on every host and without root. What
rules become is in `xdpgw.tables`; here is what goes with it: slots, settings, the rules' actions.
"""

from __future__ import annotations

import errno
import ipaddress
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdpgw import _abi as abi
from xdpgw import rules as r
from xdpgw._abi import Dim
from xdpgw.errors import KernelError, UnsupportedError
from xdpgw.limits import first_jiffy, limit_bytes, limit_name, limit_words, limits_in, netmask

if TYPE_CHECKING:
    from xdpgw.config import Config
    from xdpgw.tables import Tables

__all__ = [
    "Image",
    "Names",
    "Session",
    "compile_rules",
    "compile_tables",
    "names_of",
    "rate_words",
]

SPARE_LEAST, SPARE_SHARE, SPARE_MOST = 4096, 8, 1 << 18
"""Lines to spare for sets that change: some, and an eighth of those in use, but at most 16 MiB."""

_TOLD_SETS = 3

NS = 1_000_000_000
_PER_NS = {"/s": NS, "/m": 60 * NS}


@dataclass(frozen=True, slots=True)
class Names:
    """Which counter slot a rule has, and which slots ports, AF_XDP targets and limits have.

    Slots outlive a reload: a rule that keeps its name keeps its counters, a port its place in the
    books, a target its sockets, a limit (`limits.limit_name`) its buckets. Those of sources are
    found by the limit's seed, so that one that gets a slot anew has nothing of its predecessor's.
    """

    rules: Mapping[str, int] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)

    def renewed(
        self,
        rule_names: Iterable[str],
        port_names: Iterable[str],
        target_names: Iterable[str] = (),
        limit_names: Iterable[str] = (),
        new_seed: Callable[[int], int] = int,
    ) -> Names:
        """The slots of a new policy: old names keep theirs, new ones get free ones, in order.

        A slot that the old policy uses is not given away, even where its name is gone: until the
        swap, packets are still counted there.

        Args:
            new_seed: gives the seed of a new limit, from its slot; for a filter on a network, one
                that nobody can guess.
        """
        limits = _assign("limits", self.limits, limit_names, abi.LIMIT_SLOTS)
        return Names(
            _assign("rules", self.rules, rule_names, abi.RULE_SLOTS),
            _assign("ports", self.ports, port_names, abi.MAX_PORTS),
            _assign("AF_XDP targets", self.targets, target_names, abi.MAX_TARGETS),
            limits,
            {
                name: self.seeds[name] if name in self.limits else new_seed(slot)
                for name, slot in limits.items()
            },
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
    """The bytes of every image map, and what `cfg` says about them."""

    ruleset: r.RuleSet
    names: Names
    tables: Tables
    rules: bytes
    """The structs xg_rule, by the rules' order."""
    limits: bytes
    """The structs xg_limit, by the order of the rules with the action limit."""

    def config(
        self,
        port: str | None,
        *,
        session: Session | None = None,
        explain: bool = False,
        multi_buffer: bool = False,
        capture: bool = False,
        tick_ns: int = 4_000_000,
        talker_sets: int = 0,
        talker_seed: int = 0,
    ) -> bytes:
        """The struct xg_config of one port's program.

        Args:
            port: a port of the policy; None for "no port", where a rule with `on` does not match.
            session: the SSH session that the guard lets through.
            explain: write what was found to the map `explained` instead of logging.
            multi_buffer: a frame may lie in several buffers (kernel 5.18).
            capture: frames may be shown to a capture (`xdpgw.capture`).
            tick_ns: of the kernel that the program is for (`facts.tick_ns`).
            talker_sets: of the map `talkers`, on each CPU (`talkers.sets_for`); 0 where sources are
                not counted.
            talker_seed: of the hash of sources.
        """
        from xdpgw._native import ffi

        config, log = self.ruleset.config, self.ruleset.config.log
        cfg = ffi.new("struct xg_config *")
        cfg.log_window_ns = log.window_ns
        cfg.log_rate.interval_ns, cfg.log_rate.burst_ns = rate_words(log.rate)
        if session is not None:
            _write_session(cfg.session, session)
        _write_tables(cfg, self.tables, port or "")
        cfg.port = 0 if port is None else self.names.ports[port]
        cfg.default_verdict = abi.Verdict[config.policy.default.upper()]
        cfg.malformed_verdict = abi.Verdict[config.policy.malformed.upper()]
        cfg.fragments = abi.Fragments[config.policy.fragments.upper()]
        cfg.guard = config.policy.guard
        cfg.log_rules = any(rule.log is not None for rule in self.ruleset.rules)
        cfg.log_sources = abi.LogSources[log.sources.upper()]
        cfg.explain = explain
        cfg.multi_buffer = multi_buffer
        cfg.capture = capture
        cfg.af_xdp = any(rule.action.kind == "af_xdp" for rule in self.ruleset.rules)
        limits = limits_in(self.ruleset.rules)
        cfg.limits = bool(limits)
        cfg.limit_deepest_ns = max((limit_words(x).deepest_ns for _, x in limits), default=0)
        cfg.tick_ns = tick_ns
        cfg.first_jiffy = first_jiffy(tick_ns)
        cfg.allow = bool(config.policy.allow)
        cfg.talker_sets, cfg.talker_seed = talker_sets, talker_seed
        cfg.talker_mask4 = int.from_bytes(netmask(config.sources.prefix4, 4), sys.byteorder)
        ffi.memmove(cfg.talker_mask6, netmask(config.sources.prefix6, 16), 16)
        return bytes(ffi.buffer(cfg))

    @property
    def fragment_slots(self) -> int:
        """Entries of the table of fragmented packets; 1 where they are not followed."""
        follows = self.ruleset.config.policy.fragments == "follow"
        return abi.FRAGMENT_SLOTS if follows else 1

    @property
    def allowed(self) -> bytes:
        """The structs xg_allowed of the sources that no block covers, back to back."""
        return b"".join(
            (8 + bits).to_bytes(4, "little")
            + bytes((family,))
            + address.to_bytes(4 if family == 4 else 16, "big").ljust(19, b"\0")
            for family, address, bits in self.ruleset.config.policy.allow
        )

    @property
    def line_bytes(self) -> int:
        """Of the map `lines`, with those to spare."""
        return (len(self.tables.lines) + self.spare_lines) * abi.LINE_WORDS * 8

    @property
    def memory_bytes(self) -> int:
        """Payload of the image maps, without the kernel's own overhead."""
        macs = sum(len(pairs) * 12 for pairs in self.tables.macs.values())
        return self.line_bytes + len(self.rules) + len(self.limits) + macs

    @property
    def sizes(self) -> str:
        """What the maps hold and how much it is, for a person."""
        mib = 1 / (1 << 20)
        return (
            f"{self.line_bytes * mib:,.1f} MiB of lines, {len(self.rules) * mib:,.1f} MiB of rules "
            f"({_counts(self.ruleset)})"
        )

    @property
    def spare_lines(self) -> int:
        """Lines behind those of the tables, so that sets can change in place; 0 where none does."""
        if not _changing(self.ruleset.config):
            return 0
        return min(SPARE_LEAST + len(self.tables.lines) // SPARE_SHARE, SPARE_MOST)


def names_of(ruleset: r.RuleSet, before: Names, new_seed: Callable[[int], int] = int) -> Names:
    """The slots of a policy that comes after another one; as `Names.renewed`."""
    return before.renewed(
        (x.name for x in ruleset.rules),
        ruleset.config.ports,
        ruleset.config.af_xdp,
        (limit_name(x) for x in ruleset.rules if x.action.limit is not None),
        new_seed,
    )


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


def compile_tables(ruleset: r.RuleSet) -> Tables:
    """The part of a policy's image that takes long, and needs no slots.

    Raises:
        UnsupportedError: a rule asks for connection state: what this version of the datapath
            cannot judge. Or its sets overlap in too many ways.
        KernelError: ENOMEM.
    """
    _refuse_unjudgeable(ruleset)
    from xdpgw.tables import tables_of

    try:
        return tables_of(ruleset.rules, ruleset.config.ports, _changing(ruleset.config))
    except MemoryError as error:
        raise KernelError(
            f"there is not enough memory to compile the policy ({_counts(ruleset)})",
            "raise the limit of the process, or name fewer prefixes or rules",
            errno.ENOMEM,
        ) from error


def compile_rules(
    ruleset: r.RuleSet, names: Names | None = None, tables: Tables | None = None
) -> Image:
    """Compile a policy.

    Args:
        ruleset: what `rules.resolve` gave.
        names: slots of rules and ports, as `Names.renewed` gives them; fresh ones if None.
        tables: what `compile_tables` made of it before; made here if None.

    Raises:
        UnsupportedError, KernelError: as `compile_tables`.
    """
    if tables is None:
        tables = compile_tables(ruleset)
    if names is None:
        names = names_of(ruleset, Names())
    return Image(
        ruleset=ruleset,
        names=names,
        tables=tables,
        rules=_rule_bytes(ruleset.rules, names),
        limits=limit_bytes(ruleset.rules, names.limits, names.seeds),
    )


def _counts(ruleset: r.RuleSet) -> str:
    """How much a policy names; the largest sets by name."""
    sets = {name: len(x.prefixes) for name, x in ruleset.config.sets.items() if x.prefixes}
    largest = sorted(sets, key=lambda name: -sets[name])
    told = [f"prefixes of {name}: {sets[name]:,}" for name in largest[:_TOLD_SETS]]
    if more := len(sets) - len(told):
        told.append(f"smaller sets: {more}")
    return ", ".join([f"rules: {len(ruleset.rules):,}", *told])


def _changing(config: Config) -> set[str]:
    """The sides of which rules name a set that is to follow its files."""
    names = {
        f"@{name}"
        for name, named in config.sets.items()
        if any(feed.refresh_ns is not None for feed in named.feeds)
    }
    return {
        "src" if match.keyword == "from" else "dst"
        for rule in (config.rules if names else ())
        for match in rule.matches
        if isinstance(match, r.Endpoint) and match.addresses
        if any(word.text in names for word in match.addresses.items)
    }


def _write_tables(out: object, tables: Tables, port: str) -> None:
    from xdpgw._native import ffi

    cfg = ffi.cast("struct xg_config *", out)
    for dim in Dim:
        cfg.root[dim] = tables.root[dim]
        cfg.miss[dim] = tables.miss[dim]
        cfg.none[dim] = tables.none[dim]
        cfg.use[dim] = tables.use[dim]
    if tables.on:
        cfg.none[Dim.ON] = tables.on.get(port, tables.on[""])
    cfg.meta, cfg.order, cfg.known = tables.meta, tables.order, tables.known
    cfg.words, cfg.deciding = tables.placement.words, tables.placement.deciding
    cfg.narrow, cfg.narrow_limits = tables.placement.narrow, tables.placement.narrow_limits
    cfg.dense = tables.placement.dense
    if tables.placement.narrow:
        every = (1 << len(tables.placement.position_of)) - 1
        cfg.narrow_deciding = every & ~tables.placement.narrow_limits
    for word, first in enumerate(tables.placement.first):
        cfg.first[word] = first


def _refuse_unjudgeable(ruleset: r.RuleSet) -> None:
    what = []
    for rule in ruleset.rules:
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
    limit_numbers = {rule.index: number for number, (rule, _) in enumerate(limits_in(rules))}
    for row, rule in zip(out, rules, strict=False):
        row.slot = names.rules[rule.name]
        row.action = abi.Action[rule.action.kind.upper()]
        if rule.action.otherwise is not None:
            row.otherwise = abi.Verdict[rule.action.otherwise.upper()]
            row.target = names.targets[str(rule.action.target)]
        if rule.action.limit is not None:
            row.target = limit_numbers[rule.index]
        row.sample = rule.sample or 0
        if rule.log is not None:
            row.log = 1
            row.log_rate.interval_ns, row.log_rate.burst_ns = rate_words(rule.log.rate)
    return bytes(ffi.buffer(out))
