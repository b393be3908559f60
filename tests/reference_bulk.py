"""The judge of packets once more, in numpy: many keys at a time, thousands of rules, large sets.

Written from docs/policy.md like tests.reference, for what takes the plain judge too long, and held
against it by tests/unit/test_reference_bulk.py. As in an explanation, every limit has room.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference import EAPOL, LLDP, SLOW, TCP, UDP
from tests.reference_columns import FRAGS, AddressRanges, Batch, Keys, Mask, Reader, all_of, between
from tests.reference_rules import Rule, read_rules
from tests.reference_words import ARP, ICMP6, expanded, read_set

__all__ = ["REASONS", "VERDICTS", "BulkReference", "Judgements", "Keys"]

VERDICTS = ("pass", "drop", "reject", "tx", "redirect", "forward", "af_xdp")
REASONS = ("rule", "default", "malformed", "block", "fragment", "guard")


@dataclass(frozen=True, slots=True)
class Judgements:
    """What many packets get, a column each: the number of the rule or -1, and the places of verdict
    and reason in VERDICTS and REASONS."""

    rule: NDArray[np.int64]
    verdict: NDArray[np.int64]
    reason: NDArray[np.int64]

    def decide(self, where: Any, verdict: str, reason: str) -> None:
        """Set what no rule decides."""
        self.rule[where] = -1
        self.verdict[where] = VERDICTS.index(verdict)
        self.reason[where] = REASONS.index(reason)


@dataclass(frozen=True, slots=True)
class BulkReference:
    """A policy that judges batches of keys, in the order in which they come."""

    default: str
    malformed: str
    fragments: str
    guard: bool
    rules: tuple[Rule, ...]
    ssh: tuple[str, int, str, int] | None
    blocks: AddressRanges
    allow: AddressRanges
    firsts: dict[object, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def from_text(
        cls,
        toml_text: str,
        base: Path = Path("."),
        ssh: tuple[str, int, str, int] | None = None,
        blocks: Sequence[str] = (),
    ) -> BulkReference:
        """The judge of a policy; arguments as those of tests.reference.Reference.from_text."""
        document = tomllib.loads(toml_text)
        policy = document.get("policy", {})
        sets = {
            name: list(read_set(members, base))
            for name, members in document.get("sets", {}).items()
        }
        rules = tuple(read_rules(policy.get("rules", ""), sets, Reader(sets).readers()))
        return cls(
            default=policy.get("default", "pass"),
            malformed=policy.get("malformed", "drop"),
            fragments=policy.get("fragments", "rules"),
            guard=policy.get("guard", True),
            rules=rules,
            ssh=ssh,
            blocks=AddressRanges.of(blocks),
            allow=AddressRanges.of(expanded(policy.get("allow", ()), sets)),
        )

    def judge(self, keys: Keys, port: str | None = None) -> Judgements:
        """What the packets get when they come in on `port`."""
        batch = Batch(keys, port)
        out = Judgements(*(np.full(len(keys), -1, np.int64) for _ in range(3)))
        out.decide(slice(None), self.default, "default")
        if self.guard and self.default == "drop":
            out.decide(self._guarded(batch), "pass", "guard")
        self._judge_by_rules(batch, out)
        frag = batch.columns["frag"]
        if self.fragments == "drop":
            out.decide(frag > 0, "drop", "fragment")
        spared = batch.within("source", self.allow) | self._of_session(batch)
        blocked = batch.within("source", self.blocks) & ~spared
        out.decide(blocked, "drop", "block")
        out.decide(keys.malformed, self.malformed, "malformed")
        if self.fragments == "follow":
            self._follow(np.flatnonzero((frag > 0) & ~blocked & ~keys.malformed), keys, out)
        return out

    def _judge_by_rules(self, batch: Batch, out: Judgements) -> None:
        verdicts = np.array([VERDICTS.index(rule.verdict) for rule in self.rules], np.int64)
        undecided = np.ones(batch.size, bool)
        for number, rule in enumerate(self.rules):
            if rule.limit:
                continue
            mask = undecided.copy()
            for ask in rule.matches:
                mask &= batch.holds(ask)
            out.rule[mask] = number
            undecided &= ~mask
        decided = ~undecided
        out.verdict[decided] = verdicts[out.rule[decided]]
        out.reason[decided] = REASONS.index("rule")

    def _guarded(self, batch: Batch) -> Mask:
        columns = batch.columns
        kind, proto, ports = columns["ethertype"], columns["proto"], ("sport", "dport")
        mask = np.isin(kind, (ARP, SLOW, LLDP, EAPOL))
        mask |= (
            (columns["family"] == 6)
            & (proto == ICMP6)
            & between(columns["icmp_type"], ((133, 137),))
            & (columns["ttl"] == 255)
        )
        for pair in ((67, 68), (547, 546)):
            same = (columns[name] == number for name, number in zip(ports, pair, strict=True))
            mask |= (proto == UDP) & all_of(batch.size, same)
        return mask | self._of_session(batch)

    def _of_session(self, batch: Batch) -> Mask:
        if not self.ssh:
            return np.zeros(batch.size, bool)
        client, client_port, server, server_port = self.ssh
        return (
            (batch.columns["proto"] == TCP)
            & (batch.columns["sport"] == client_port)
            & (batch.columns["dport"] == server_port)
            & batch.within("source", AddressRanges.of([client]))
            & batch.within("destination", AddressRanges.of([server]))
        )

    def _follow(self, fragments: NDArray[np.intp], keys: Keys, out: Judgements) -> None:
        """Have later fragments take over what their first ones got."""
        for n in fragments.tolist():
            if keys.columns["frag"][n] == FRAGS.index("first"):
                self.firsts[keys.datagrams[n]] = out.rule[n], out.verdict[n], out.reason[n]
            elif keys.datagrams[n] in self.firsts:
                out.rule[n], out.verdict[n], out.reason[n] = self.firsts[keys.datagrams[n]]
            else:
                out.decide(n, "drop", "fragment")
