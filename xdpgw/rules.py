"""The rules of a policy as values: what was typed, and what it means.

Two levels. `Rule` is the syntax: the words as they were typed, so that printing gives them back.
`ResolvedRule` is the meaning: sets are expanded and names are numbers; that is what is compiled.

`format_rule` and the parser (`xdpgw.rule_parser`) are inverse to each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpgw.errors import ConfigError, Diagnostic
from xdpgw.limits import faults as limit_faults
from xdpgw.predicates import Names, resolve_rules
from xdpgw.rule_format import format_rule, format_rules
from xdpgw.rule_types import (
    MAX_RULES,
    Action,
    Addresses,
    Dscp,
    Endpoint,
    Established,
    EtherType,
    Flags,
    Frag,
    Icmp,
    IcmpType,
    Kind,
    Length,
    Limit,
    LogOption,
    Mac,
    Match,
    On,
    Operand,
    Ports,
    Predicate,
    Prefix,
    Proto,
    Rate,
    ResolvedRule,
    Rule,
    Simple,
    Ttl,
    Vlan,
    Word,
)
from xdpgw.toml_positions import Positions

if TYPE_CHECKING:
    from xdpgw.config import Config

__all__ = [
    "MAX_RULES",
    "Action",
    "Addresses",
    "Dscp",
    "Endpoint",
    "Established",
    "EtherType",
    "Flags",
    "Frag",
    "Icmp",
    "IcmpType",
    "Kind",
    "Length",
    "Limit",
    "LogOption",
    "Mac",
    "Match",
    "On",
    "Operand",
    "Ports",
    "Predicate",
    "Prefix",
    "Proto",
    "Rate",
    "ResolvedRule",
    "Rule",
    "RuleSet",
    "Simple",
    "Ttl",
    "Vlan",
    "Word",
    "format_rule",
    "format_rules",
    "resolve",
]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A policy that is ready to be compiled.

    Args:
        unsupported: what the policy asks for and this version does not carry out; the caller
            decides what that means.
    """

    config: Config
    rules: tuple[ResolvedRule, ...]
    unsupported: tuple[Diagnostic, ...] = ()


# What this version reads and checks, and does not carry out: each with what to do instead.
_NOT_YET: dict[str, str] = {
    "action reject": "write drop",
    "action forward": "write pass: the host routes it",
    "action redirect": "write pass: the host routes it",
    "established": "take it out, or match flags ack",
    "coexist = true": "take it out",
}


def resolve(config: Config) -> RuleSet:
    """Expand sets and look up names.

    Raises:
        ConfigError: a rule names something that the policy does not have, or a limit cannot be
            kept.
    """
    resolved = config.meaning
    if resolved is None:
        names = Names(config.sets, config.ports, config.af_xdp)
        resolved, wrong = resolve_rules(config.rules, names, str(config.path))
        if wrong:
            raise ConfigError(wrong)
    if faults := tuple(limit_faults(config.rules, str(config.path))):
        raise ConfigError(faults)
    return RuleSet(config, resolved, tuple(_not_yet(config)))


def _not_yet(config: Config) -> Iterator[Diagnostic]:
    """What the policy asks for in vain, in the order of the file."""
    asked: list[tuple[str, int, int]] = []
    if config.gateway.coexist:
        asked.append(("coexist = true", *_setting(config, "gateway", "coexist")))
    for rule in config.rules:
        asked.append((f"action {rule.action.kind}", rule.line, rule.column))
        for match in rule.matches:
            if isinstance(match, Simple):
                asked.append((match.keyword, match.line, match.column))
    for feature, line, column in sorted(asked, key=lambda x: x[1:]):
        if feature in _NOT_YET:
            message = f"{feature} is not in this version"
            yield Diagnostic(str(config.path), line, column, message, _NOT_YET[feature])


def _setting(config: Config, *path: str) -> tuple[int, int]:
    """Where a setting stands; (0, 0) in a configuration that was not read from text."""
    return Positions(config.text).value(path) if config.text else (0, 0)
