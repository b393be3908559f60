"""The MATCH of `xdpgw capture` and `xdpgw trace`: the words behind the action of a rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpgw import config, rules
from xdpgw.compile import Image, Names, compile_rules
from xdpgw.config import Config, PolicySettings, PortSettings
from xdpgw.errors import ConfigError, Diagnostic
from xdpgw.rule_parser import parse

if TYPE_CHECKING:
    from xdpgw.pins import Manifest
    from xdpgw.rule_types import Rule

__all__ = ["compile_match", "uses_sets"]

FILE = "MATCH"
"""What errors call it: MATCH:1:5 is its fifth character."""

_NAME = "capture"
_HEAD = f"{_NAME} pass "


def uses_sets(match: str) -> bool:
    """Whether what a match means depends on the policy in force."""
    return "@" in match


def compile_match(match: str, manifest: Manifest) -> Image:
    """A policy of one rule, which has this match; of none where the match is empty.

    Args:
        match: as in a rule, with sets of the policy in force.
        manifest: the policy in force; files of its sets are read again if `match` names one.

    Raises:
        ConfigError: the match is wrong.
        UnsupportedError: its sets are too much.
    """
    policy = _policy(match, manifest)
    ruleset = rules.resolve(replace(policy, rules=_rules(match)))
    if ruleset.unsupported:
        raise ConfigError(ruleset.unsupported)
    return compile_rules(ruleset, Names(rules={_NAME: 0}, ports=manifest.port_slots))


def _policy(match: str, manifest: Manifest) -> Config:
    """The names that a match may use."""
    path = Path(manifest.policy_file)
    ports = {port: PortSettings(port) for port in manifest.ports}
    empty = Config(Path(FILE), PolicySettings(), ports=ports)
    if not uses_sets(match):
        return empty
    known = config.loads(manifest.policy_text, file=manifest.policy_file, base=path.parent)
    return replace(empty, sets=known.sets)


def _rules(match: str) -> tuple[Rule, ...]:
    if not match.strip():
        return ()
    found, wrong = parse(
        _HEAD + match, file=FILE, place=lambda offset: (1, offset + 1 - len(_HEAD))
    )
    if not wrong and (found[0].log is not None or found[0].sample is not None):
        message = "log and sample are options of a rule, not matches"
        wrong = (Diagnostic(FILE, 1, 1, message, "take them away"),)
    if wrong:
        raise ConfigError(map(_without_options, wrong))
    return found


def _without_options(found: Diagnostic) -> Diagnostic:
    """What to write instead, in a place where no option may stand."""
    return replace(found, hint=found.hint and found.hint.removesuffix(", or log or sample"))
