"""From the tree of a line to the value of its rule."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, NamedTuple, TypeAlias, cast

from xdpgw.literals import Wrong, choice, likely, number, rate
from xdpgw.rule_types import (
    Action,
    ActionKind,
    Endpoint,
    Icmp,
    Limit,
    LogOption,
    Operand,
    Rate,
    Rule,
    Simple,
    Verdict,
    Word,
)

__all__ = ["Builder", "Fault", "Node"]

Fault: TypeAlias = tuple[Word, Wrong]

Node: TypeAlias = tuple[str, Any]
"""Name of a grammar rule and its children: nodes, or (kind, place) of a word of the line."""


class _Leaf(NamedTuple):
    """A word of the line, and what the grammar takes it for."""

    type: str
    value: Word


class Builder:
    """Makes the values of one line; a value that is wrong becomes a fault.

    Each method makes what the rule of its name in grammar.lark stands for, of its parts.
    """

    def __init__(self, words: list[Word], keywords: Container[str]) -> None:
        self.words, self.keywords = words, keywords
        self.faults: list[Fault] = []

    def build(self, node: Node) -> Any:
        """What the node stands for: its words and parts go to the method of its name."""
        name, children = node
        words = self.words
        return getattr(self, name)(
            [_Leaf(x[0], words[x[1]]) if isinstance(x[1], int) else self.build(x) for x in children]
        )

    def start(self, parts: list[Any]) -> Rule:
        name, action, *rest = parts
        matches = tuple(x for x in rest if not isinstance(x, tuple))
        options: dict[str, Any] = {}
        for keyword, value in (x for x in rest if isinstance(x, tuple)):
            if keyword.text in options:
                self.fault(keyword, Wrong(f'"{keyword.text}" stands twice', "write it once"))
            options[keyword.text] = value
        word: Word = name.value
        return Rule(
            word.text, action, matches, options.get("log"), options.get("sample"),
            word.line, word.column,
        )  # fmt: skip

    def action(self, parts: list[Any]) -> Action:
        keyword, *rest = parts
        word: Word = keyword.value
        kind = cast(ActionKind, word.text)
        if kind == "limit":
            limit = self.limit(rest[0].value, dict(rest[1:]))
            return Action(kind, limit=limit, line=word.line, column=word.column)
        if not rest:
            return Action(kind, line=word.line, column=word.column)
        target, *otherwise = (x.value for x in rest)
        verdict = None
        if otherwise:
            verdict = self.value(
                otherwise[1], lambda x: choice(x, ("pass", "drop"), "verdict"), "drop"
            )
        return Action(
            kind, target.text, cast(Verdict, verdict), line=target.line, column=target.column
        )

    def limit(self, amount: Word, more: dict[str, list[Word]]) -> Limit | None:
        speed = self.value(amount, rate, None)
        burst = None
        for word in more.get("burst", ()):
            burst = self.value(word, lambda x: number(x, 1, 10**9, "burst"), 1)
        per, bits = self.bucket(more.get("per", [Word("rule")]))
        return None if speed is None else Limit(speed, burst, per, *bits)

    def bucket(self, words: list[Word]) -> tuple[Any, tuple[int, int]]:
        what, *rest = words
        per, slash, first = what.text.partition("/")
        if per not in ("source", "rule") or (slash and per == "rule"):
            hint = likely(per, ("source", "rule")) or "write source, source/P4,P6 or rule"
            self.fault(what, Wrong(f'"{what.text}" does not stand after "per"', hint))
        elif bool(slash) != bool(rest):
            hint = "write both lengths: source/32,64"
            self.fault(what, Wrong(f'"{what.text}" names one prefix length', hint))
        elif slash:
            bits4 = self.value(what, lambda _: number(first, 0, 32, "prefix length"), 0)
            bits6 = self.value(rest[0], lambda x: number(x, 0, 128, "prefix length"), 0)
            return per, (bits4, bits6)
        return per, (32, 64)

    def burst(self, parts: list[_Leaf]) -> tuple[str, list[Word]]:
        return "burst", [parts[1].value]

    def per(self, parts: list[_Leaf]) -> tuple[str, list[Word]]:
        return "per", [x.value for x in parts[1:] if x.type == "WORD"]

    def simple(self, parts: list[_Leaf]) -> Simple:
        words = [x.value for x in parts]
        first, *rest = words
        keyword = first.text
        if keyword == "ether":
            keyword = f"ether {rest.pop(0).text}"
        value = None
        if rest:
            text = "".join(x.text for x in rest)
            value = Word(text, rest[0].line, rest[0].column)
        return Simple(keyword, value, first.line, first.column)

    def endpoint(self, parts: list[Any]) -> Endpoint:
        keyword, *rest = parts
        addresses = rest[0] if isinstance(rest[0], Operand) else None
        ports = rest[-1][1] if isinstance(rest[-1], tuple) else None
        return Endpoint(keyword.value.text, addresses, ports)

    def ports(self, parts: list[Any]) -> tuple[str, Operand]:
        return "port", parts[1]

    def operand(self, parts: list[_Leaf]) -> Operand:
        kinds = [x.type for x in parts]
        items = tuple(x.value for x in parts if x.type == "WORD")
        return Operand(items, "NOT" in kinds, "LBRACE" in kinds)

    def icmp(self, parts: list[_Leaf]) -> Icmp:
        words = [x.value for x in parts if x.type == "WORD"]
        return Icmp(*words)

    def option(self, parts: list[_Leaf]) -> tuple[Word, Any]:
        keyword, *rest = (x.value for x in parts)
        if keyword.text == "sample":
            return keyword, self.value(rest[0], _one_in, 1)
        if not rest:
            return keyword, LogOption()
        return keyword, LogOption(self.value(rest[0], self.log_rate, None))

    def log_rate(self, word: str) -> Rate:
        if word in self.keywords:
            raise Wrong(f'"{word}" stands after an option', "write matches before log and sample")
        return rate(word, counts=True)

    def value(self, word: Word, read: Callable[[str], Any], instead: Any) -> Any:
        try:
            return read(word.text)
        except Wrong as wrong:
            self.fault(word, wrong)
            return instead

    def fault(self, word: Word, wrong: Wrong) -> None:
        self.faults.append((word, wrong))


def _one_in(word: str) -> int:
    head, _, count = word.partition("/")
    if head != "1" or not count:
        raise Wrong(f'"{word}" is not a share', "write sample 1/N")
    return number(count, 1, 2**32 - 1, "sample")
