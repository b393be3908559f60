"""From rules back to text: the inverse of `xdpgw.rule_parser`."""

from __future__ import annotations

from collections.abc import Iterable

from xdpgw.rule_types import Action, Icmp, Match, Operand, Rule, Simple

__all__ = ["format_action", "format_rule", "format_rules"]


def format_rule(rule: Rule) -> str:
    """One rule in canonical spacing."""
    return " ".join(filter(None, _columns(rule)))


def format_rules(rules: Iterable[Rule]) -> str:
    """Rules in canonical spacing, a line each, columns aligned; "" for none."""
    rows = [_columns(rule) for rule in rules]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width)
        for row in rows
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def _columns(rule: Rule) -> tuple[str, str, str, str]:
    """Name, action, matches, options."""
    options = []
    if rule.log is not None:
        options.append("log" if rule.log.rate is None else f"log {rule.log.rate}")
    if rule.sample is not None:
        options.append(f"sample 1/{rule.sample}")
    matches = " ".join(map(_format_match, rule.matches))
    return rule.name, format_action(rule.action), matches, " ".join(options)


def format_action(action: Action) -> str:
    """An action in canonical spacing."""
    words: list[object] = [action.kind]
    if action.target is not None:
        words.append(action.target)
    if action.otherwise is not None:
        words += ["else", action.otherwise]
    if action.limit is not None:
        limit = action.limit
        words.append(limit.rate)
        if limit.burst is not None:
            words += ["burst", limit.burst]
        if limit.per == "source":
            lengths = (limit.prefix4, limit.prefix6)
            words += ["per", "source" + ("" if lengths == (32, 64) else "/{},{}".format(*lengths))]
    return " ".join(map(str, words))


def _format_match(match: Match) -> str:
    if isinstance(match, Simple):
        return match.keyword if match.value is None else f"{match.keyword} {match.value.text}"
    if isinstance(match, Icmp):
        code = "" if match.code is None else f" code {match.code.text}"
        return f"type {match.type.text}{code}"
    words: list[str] = [match.keyword]
    if match.addresses is not None:
        words.append(_format_operand(match.addresses))
    if match.ports is not None:
        words += ["port", _format_operand(match.ports)]
    return " ".join(words)


def _format_operand(operand: Operand) -> str:
    text = ", ".join(word.text for word in operand.items)
    return ("not " if operand.negate else "") + (f"{{{text}}}" if operand.braces else text)
