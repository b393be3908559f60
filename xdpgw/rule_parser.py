"""From the text of the rules to values of `xdpgw.rules.Rule`, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from xdpgw.errors import Diagnostic
from xdpgw.literals import NAME, NAME_RULE, likely, one_of
from xdpgw.rule_builder import Builder, Fault, Node
from xdpgw.rule_types import (
    MAX_RULES,
    Rule,
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


def _parse_line(words: list[Word]) -> tuple[Rule, list[Fault]]:
    _check_name(words[0])
    if len(words) == 1:
        message = f'rule "{words[0].text}" has nothing after its name'
        raise _Bad(words[0], message, f"write an action: {one_of(ACTIONS)}")
    keywords = _keywords()
    tree = _tree(tuple([keywords.get(word.text, "WORD") for word in words]))
    if isinstance(tree, _Stop):
        raise _misplaced(words, *tree) if tree.at < len(words) else _unfinished(words)
    builder = Builder(words, keywords)
    return cast(Rule, builder.build(tree)), builder.faults


class _Stop(NamedTuple):
    """Where a line stops being one, its length if it only ends too early, and what could follow."""

    at: int
    accepted: frozenset[str]


@lru_cache(4096)
def _tree(kinds: tuple[str, ...]) -> Node | _Stop:
    """The tree of a line, with the places of its words as leaves.

    The grammar sees kinds of words, and policies have few shapes of lines: lark parses each once.
    """
    from lark import Token, UnexpectedToken

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
        try:
            run.feed_token(token)
        except UnexpectedToken:  # accepted behind another operand than this one
            return _Stop(at, frozenset(accepted))
    if "$END" not in run.choices():
        return _Stop(len(kinds), frozenset())
    return _node(run.feed_eof())


def _node(tree: Any) -> Node:
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
