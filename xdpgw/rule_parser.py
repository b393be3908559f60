"""From the text of the rules to values of `xdpgw.rules.Rule`, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from xdpgw.errors import Diagnostic
from xdpgw.literals import NAME, NAME_RULE, Wrong, choice, likely, number, one_of, rate
from xdpgw.rule_types import (
    MAX_RULES,
    Action,
    ActionKind,
    Endpoint,
    Icmp,
    Limit,
    LogOption,
    Operand,
    Rule,
    Simple,
    Verdict,
    Word,
)
from xdpgw.toml_positions import Place, places

if TYPE_CHECKING:
    from lark import Lark

__all__ = ["ACTIONS", "parse"]

ACTIONS = ("pass", "drop", "reject", "tx", "forward", "redirect", "af_xdp", "limit")

# A lone dash joins what stands around it, and a unit belongs to the number before it.
_ATOM = r"[^\s{},#]+"
_WORD = re.compile(rf"[{{}},]|{_ATOM}(?:\s+(?:-\s+{_ATOM}|(?:/s|/m|[MG]bit/s)(?![^\s{{}},#])))?")

_MARKS = {"{": "LBRACE", "}": "RBRACE", ",": "COMMA"}

_WANTS = {
    "redirect": "write redirect PORT",
    "af_xdp": "write af_xdp TARGET else pass",
    "else": "write else pass or else drop",
    "limit": "write limit N/s",
    "burst": "write burst N",
    "per": "write per source or per rule",
    "on": "write on PORT",
    "vlan": "write vlan ID, vlan any or vlan none",
    "ether": "write ether type 0x0800, ether from MAC or ether to MAC",
    "proto": "write proto N",
    "from": "write from ADDRESS, from port N or both",
    "to": "write to ADDRESS, to port N or both",
    "port": "write port N, port N-N, port {N, N} or port @SET",
    "not": "write not and then a value",
    "flags": "write flags syn,!ack",
    "type": "write type echo-request or type N",
    "code": "write code N",
    "len": "write len N or len N-N",
    "ttl": "write ttl N or ttl N-N",
    "dscp": "write dscp N",
    "frag": "write frag no, first, later or any",
    "sample": "write sample 1/N",
    "{": "close the list with }",
    ",": "write one more, or take the comma away",
}
"""What to write where the word behind one of these is missing or wrong."""

_BELONGS = {
    "code": "write type ICMPTYPE code N",
    "port": "write from port N or to port N",
    "burst": "write limit RATE burst N",
    "per": "write limit RATE per source",
    "else": "write af_xdp TARGET else pass",
    "not": "write from not ADDRESS or port not N",
    "{": "write from {A, B} or port {N, N}",
    "@": "write from @SET, to @SET or port @SET",
}
"""What to write for words that only stand behind certain others."""


class _Bad(Exception):
    """A word that may not stand where it does."""

    def __init__(self, word: Word, message: str, hint: str | None) -> None:
        super().__init__(message)
        self.word, self.message, self.hint = word, message, hint


_Fault: TypeAlias = tuple[Word, Wrong]

_Node: TypeAlias = tuple[str, Any]
"""Name of a grammar rule and its children: nodes, or (kind, place) of a word of the line."""


def parse(
    text: str, *, file: str = "<rules>", place: Callable[[int], Place] | None = None
) -> tuple[tuple[Rule, ...], tuple[Diagnostic, ...]]:
    """Parse rules, one a line.

    Args:
        file: for diagnostics.
        place: from an offset in the text to line and column of the file; the text's own if None.

    Returns:
        The rules without a fault of their own, and what is wrong with the others.
    """
    place = place or places(text)
    out: list[Rule] = []
    wrong: list[Diagnostic] = []
    seen: dict[str, int] = {}

    def say(word: Word, message: str, hint: str | None) -> None:
        wrong.append(Diagnostic(file, word.line, word.column, message, hint))

    for index, words in enumerate(_lines(text, place)):
        name = words[0]
        if index == MAX_RULES:
            say(name, f"more than {MAX_RULES} rules", "gather addresses and ports in sets")
        try:
            rule, faults = _parse_line(words)
        except _Bad as bad:
            say(bad.word, bad.message, bad.hint)
        else:
            if not faults:
                out.append(rule)
            for word, fault in faults:
                say(word, fault.message, fault.hint)
        if name.text in seen:
            message = f'rule name "{name.text}" is taken by the rule on line {seen[name.text]}'
            say(name, message, "give each rule a name of its own")
        seen.setdefault(name.text, name.line)
    return tuple(out), tuple(wrong)


def _lines(text: str, place: Callable[[int], Place]) -> Iterator[list[Word]]:
    start = 0
    for line in text.split("\n"):
        found = list(_WORD.finditer(line.partition("#")[0]))
        if found:
            row, column = place(start)
            plain = place(start + len(line)) == (row, column + len(line))  # no escapes in it
        words = [
            Word(
                "".join(match[0].split()),
                *((row, column + match.start()) if plain else place(start + match.start())),
            )
            for match in found
        ]
        start += len(line) + 1
        if words:
            yield words


def _parse_line(words: list[Word]) -> tuple[Rule, list[_Fault]]:
    _check_name(words[0])
    if len(words) == 1:
        message = f'rule "{words[0].text}" has nothing after its name'
        raise _Bad(words[0], message, f"write an action: {one_of(ACTIONS)}")
    keywords = _keywords()
    tree = _tree(tuple([keywords.get(word.text, "WORD") for word in words]))
    if isinstance(tree, _Stop):
        raise _misplaced(words, *tree) if tree.at < len(words) else _unfinished(words)
    builder = _Builder(words)
    return cast(Rule, builder.build(tree)), builder.faults


class _Stop(NamedTuple):
    """Where a line stops being one, its length if it only ends too early, and what could follow."""

    at: int
    accepted: frozenset[str]


@lru_cache(4096)
def _tree(kinds: tuple[str, ...]) -> _Node | _Stop:
    """The tree of a line, with the places of its words as leaves.

    The grammar sees kinds of words, and policies have few shapes of lines: lark parses each once.
    """
    from lark import Token

    run: Any = _parser().parse_interactive()
    marks = _MARKS.values()
    for at, kind in enumerate(kinds):
        accepted = run.choices()
        if kind not in accepted:
            if "WORD" not in accepted or kind in marks:
                return _Stop(at, frozenset(accepted))
            kind = "WORD"
        token = Token(kind, "")
        token.value = at
        run.feed_token(token)
    if "$END" not in run.choices():
        return _Stop(len(kinds), frozenset())
    return _node(run.feed_eof())


def _node(tree: Any) -> _Node:
    return str(tree.data), tuple(
        _node(x) if hasattr(x, "data") else (str(x.type), x.value) for x in tree.children
    )


def _check_name(word: Word) -> None:
    if word.text in ACTIONS:
        message = f'"{word.text}" is an action and cannot name a rule'
        raise _Bad(word, message, f"write NAME {word.text} ...")
    if not NAME.fullmatch(word.text):
        raise _Bad(word, f'"{word.text}" is not a name for a rule', NAME_RULE)


def _misplaced(words: list[Word], at: int, accepted: Any) -> _Bad:
    """Say why this word may not stand here."""
    word, before = words[at], words[at - 1].text
    text = word.text
    if at == 1:
        hint = likely(text, ACTIONS) or f"write {one_of(ACTIONS)}"
        return _Bad(word, f'unknown action "{text}"', hint)
    takes_match, takes_option = "TCP" in accepted, "SAMPLE" in accepted
    if not takes_option:  # inside a match or an action
        if "ELSE" in accepted:
            return _Bad(word, f'"{text}" stands where "else" must', _WANTS["af_xdp"])
        if "RBRACE" in accepted and text == "{":
            return _Bad(word, "a list stands inside a list", "write one list, or a set")
        if before == "{" and text == "}":
            return _Bad(word, "the list is empty", "write at least one value, or take it away")
        if before == "ether":
            hint = likely(text, ("type", "from", "to")) or _WANTS["ether"]
            return _Bad(word, f'"{text}" does not stand after "ether"', hint)
        return _Bad(word, f'"{text}" does not stand after "{before}"', _WANTS.get(before))
    if text in _BELONGS or text[:1] in _BELONGS:
        hint = _BELONGS.get(text) or _BELONGS[text[:1]]
        return _Bad(word, f'"{text}" does not stand after "{before}"', hint)
    if text in _keywords() and not takes_match and text not in ACTIONS:
        hint = "write matches before log and sample"
        return _Bad(word, f'"{text}" stands after an option', hint)
    if text in ACTIONS:
        return _Bad(word, "a rule has one action", f'take "{text}" away, or begin a new line')
    if text in _MARKS:
        return _Bad(word, f'"{text}" does not stand after "{before}"', "take it away")
    known = [x for x in (*_BELONGS, *_keywords()) if x not in ACTIONS and x not in _MARKS]
    hint = likely(text, known) or (
        "write a match such as tcp or from ADDRESS, or log or sample"
        if takes_match
        else "write log, sample 1/N or nothing"
    )
    return _Bad(word, f'unknown word "{text}"', hint)


def _unfinished(words: list[Word]) -> _Bad:
    last = words[-1]
    open_brace = next((x for x in reversed(words) if x.text in "{}"), None)
    if open_brace is not None and open_brace.text == "{":
        return _Bad(open_brace, "the list is not closed", "close it with }")
    if len(words) > 2 and words[-2].text == "af_xdp":
        return _Bad(last, 'af_xdp has no "else"', _WANTS["af_xdp"])
    if len(words) > 2 and words[-2].text == "ether":
        hint = "write a number such as 0x0800" if last.text == "type" else "write a MAC address"
        return _Bad(last, f'nothing stands after "ether {last.text}"', hint)
    return _Bad(last, f'nothing stands after "{last.text}"', _WANTS.get(last.text))


@cache
def _parser() -> Lark:
    from lark import Lark

    grammar = resources.files("xdpgw").joinpath("grammar.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", lexer="basic")


@cache
def _keywords() -> dict[str, str]:
    """Each keyword and mark, and the name of its terminal."""
    return {str(x.pattern.value): x.name for x in _parser().terminals if x.pattern is not None}


class _Leaf(NamedTuple):
    """A word of the line, and what the grammar takes it for."""

    type: str
    value: Word


class _Builder:
    """Makes the values of one line; a value that is wrong becomes a fault."""

    def __init__(self, words: list[Word]) -> None:
        self.words = words
        self.faults: list[_Fault] = []

    def build(self, node: _Node) -> Any:
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
        return keyword, LogOption(self.value(rest[0], _log_rate, None))

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


def _log_rate(word: str) -> Any:
    if word in _keywords():
        raise Wrong(f'"{word}" stands after an option', "write matches before log and sample")
    return rate(word, counts=True)
