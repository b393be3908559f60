"""The rules: syntax, meaning, printing, and the whole text of every error."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import rule_strategies as some
from tests.unit.error_rows import Row, rows
from xdpgw import config
from xdpgw.errors import ConfigError
from xdpgw.predicates import ICMP_TYPES, Names, resolve_rules
from xdpgw.prefixes import EMPTY, Prefixes
from xdpgw.rule_parser import parse
from xdpgw.rules import (
    Action,
    Addresses,
    Dscp,
    Endpoint,
    Established,
    EtherType,
    Flags,
    Frag,
    IcmpType,
    Kind,
    Length,
    Limit,
    LogOption,
    Mac,
    On,
    Operand,
    Ports,
    Predicate,
    Proto,
    Rate,
    Rule,
    Simple,
    Ttl,
    Vlan,
    Word,
    format_rule,
    format_rules,
    resolve,
)

WORLD = """
[sets]
bad = ["192.0.2.0/24"]
web = [80]
none = []
[ports.eth0]
[af_xdp.overlay]
handler = "count"
"""


def policy(rules: str) -> config.Config:
    return config.loads(f'[policy]\nrules = """\n{rules}"""\n{WORLD}', file="p.toml")


def one(text: str) -> Rule:
    parsed, wrong = parse(text)
    assert not wrong
    (rule,) = parsed
    return rule


def meaning(match: str) -> tuple[Predicate, ...]:
    (rule,) = resolve(policy(f"a pass {match}\n")).rules
    return rule.predicates


@pytest.mark.parametrize("row", rows("rule_errors.txt"), ids=lambda row: row.name)
def test_rule_with_errors_tells_all_of_them(row: Row) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(row.text)
    told = []
    for error in str(caught.value).split("\n"):
        file, line, rest = error.split(":", 2)
        assert file == "p.toml"
        told.append(f"{int(line) - 2}:{rest}")
    assert told == row.errors


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("a pass", Action("pass")),
        ("a drop", Action("drop")),
        ("a reject", Action("reject")),
        ("a tx", Action("tx")),
        ("a forward", Action("forward")),
        ("a redirect eth0", Action("redirect", "eth0")),
        ("a redirect tcp", Action("redirect", "tcp")),
        ("a af_xdp overlay else drop", Action("af_xdp", "overlay", "drop")),
        ("a limit 10/s", Action("limit", limit=Limit(Rate(10, "/s")))),
        ("a limit 10 /m", Action("limit", limit=Limit(Rate(10, "/m")))),
        ("a limit 5Mbit/s per rule", Action("limit", limit=Limit(Rate(5, "Mbit/s")))),
        (
            "a limit 1Gbit/s burst 9 per source",
            Action("limit", limit=Limit(Rate(1, "Gbit/s"), 9, "source", 32, 64)),
        ),
        (
            "a limit 1/s per source/24,48",
            Action("limit", limit=Limit(Rate(1, "/s"), None, "source", 24, 48)),
        ),
    ],
)
def test_action_is_read(text: str, action: Action) -> None:
    assert one(text).action == action


def test_options_are_read_in_any_order() -> None:
    first, second = one("a pass tcp log 5/m sample 1/10"), one("a pass tcp sample 1/10 log 5/m")
    assert first == second
    assert (first.log, first.sample) == (LogOption(Rate(5, "/m")), 10)


def test_lists_by_commas_or_white_space_are_the_same() -> None:
    ports = Operand((Word("80"), Word("90-99"), Word("@web")), negate=True, braces=True)
    for text in ("{80,90-99,@web}", "{ 80 90 - 99 @web }", "{80, 90-99 @web,}"):
        assert one(f"a pass to port not {text}").matches == (Endpoint("to", None, ports),)


def test_comments_and_blank_lines_are_skipped_and_places_are_kept() -> None:
    parsed, wrong = parse("# all\n\n  a pass # why\n\t\nb drop tcp#x\n")
    assert not wrong
    assert [(x.name, x.line, x.column) for x in parsed] == [("a", 3, 3), ("b", 5, 1)]


@pytest.mark.parametrize(
    ("match", "predicates"),
    [
        ("on eth0", (On("eth0"),)),
        ("vlan 7", (Vlan("id", 7),)),
        ("vlan any", (Vlan("any"),)),
        ("vlan none", (Vlan("none"),)),
        ("ether type 0x0800", (EtherType(0x800),)),
        ("ether from 02:00:00:00:00:0A", (Mac("src", bytes([2, 0, 0, 0, 0, 10])),)),
        ("ether to ff:ff:ff:ff:ff:ff", (Mac("dst", b"\xff" * 6),)),
        ("arp", (Kind("arp"),)),
        ("ip", (Kind("ip"),)),
        ("ip6", (Kind("ip6"),)),
        ("tcp", (Proto(6),)),
        ("udp", (Proto(17),)),
        ("icmp", (Proto(1),)),
        ("icmp6", (Proto(58),)),
        ("sctp", (Proto(132),)),
        ("gre", (Proto(47),)),
        ("esp", (Proto(50),)),
        ("ah", (Proto(51),)),
        ("proto 0", (Proto(0),)),
        ("from 10.0.0.1", (Addresses("src", False, Prefixes.of({(4, 0x0A000001, 32)})),)),
        ("to not ::/0", (Addresses("dst", True, Prefixes.of({(6, 0, 0)})),)),
        (
            "from 10.0.0.1-10.0.0.4",
            (
                Addresses(
                    "src",
                    False,
                    Prefixes.of({(4, 0x0A000001, 32), (4, 0x0A000002, 31), (4, 0x0A000004, 32)}),
                ),
            ),
        ),
        (
            "from {@bad ::1} port 22",
            (
                Addresses("src", False, Prefixes.of({(4, 0xC0000200, 24), (6, 1, 128)})),
                Ports("src", False, ((22, 22),)),
            ),
        ),
        ("to port not {@web, 90-99}", (Ports("dst", True, ((80, 80), (90, 99))),)),
        ("flags syn,!ack", (Flags(2, 16),)),
        ("flags !fin, !rst", (Flags(0, 5),)),
        ("flags psh,urg,ece,cwr", (Flags(8 + 32 + 64 + 128, 0),)),
        ("type 8", (IcmpType(((1, 8), (58, 8)), None),)),
        ("type echo-request code 0", (IcmpType(((1, 8), (58, 128)), 0),)),
        ("type neighbor-solicitation", (IcmpType(((58, 135),)),)),
        ("type neighbour-solicitation", (IcmpType(((58, 135),)),)),
        ("len 64", (Length(64, 64),)),
        ("len 0-1500", (Length(0, 1500),)),
        ("ttl 255", (Ttl(255, 255),)),
        ("dscp 46", (Dscp(46),)),
        ("frag no", (Frag("no"),)),
        ("frag any", (Frag("any"),)),
        ("established", (Established(),)),
        ("", ()),
        ("from @none", (Addresses("src", False, EMPTY),)),
    ],
)
def test_match_means(match: str, predicates: tuple[Predicate, ...]) -> None:
    assert meaning(match) == predicates


def test_resolved_rule_keeps_place_text_and_options() -> None:
    (_, rule) = resolve(policy("x drop\n  a   pass tcp   log 1/s sample 1/2\n")).rules
    assert (rule.index, rule.name, rule.line, rule.column) == (1, "a", 4, 3)
    assert rule.text == "a pass tcp log 1/s sample 1/2"
    assert (rule.log, rule.sample) == (LogOption(Rate(1, "/s")), 2)


def test_positions_in_a_string_with_escapes_are_those_of_the_file() -> None:
    text = 'policy.rules = "\\u0061 pass\\nb\\tdorp \\\\"\n'
    with pytest.raises(ConfigError) as caught:
        config.loads(text, file="p.toml")
    assert str(caught.value) == 'p.toml:1:33: unknown action "dorp" (did you mean "drop"?)'


def test_positions_behind_a_folded_line_are_those_of_the_file() -> None:
    text = 'policy.rules = """\\\n   a pass \\\n     tpc"""\n'
    with pytest.raises(ConfigError) as caught:
        config.loads(text, file="p.toml")
    assert str(caught.value) == 'p.toml:3:6: unknown word "tpc" (did you mean "tcp"?)'


def test_resolve_of_a_config_that_was_put_together_by_hand_checks_names() -> None:
    rule = Rule("a", Action("pass"), (Simple("on", Word("eth7")),))
    with pytest.raises(ConfigError, match='unknown port "eth7"'):
        resolve(config.Config(Path("x"), rules=(rule,)))


def test_every_icmp_name_has_types_of_both_or_one_family() -> None:
    for types in ICMP_TYPES.values():
        assert {proto for proto, _ in types} <= {1, 58}
        assert len({proto for proto, _ in types}) == len(types)


def test_format_rules_aligns_columns() -> None:
    parsed, _ = parse("a pass tcp log\nlonger  limit 5/s per source   from {10.0.0.1 ::1}\nc tx\n")
    assert format_rules(parsed) == (
        "a       pass                  tcp                   log\n"
        "longer  limit 5/s per source  from {10.0.0.1, ::1}\n"
        "c       tx\n"
    )
    assert format_rules(()) == ""


@given(some.rules)
def test_parse_of_format_is_the_identity(rule: Rule) -> None:
    assert one(format_rule(rule)) == rule


@given(st.lists(some.rules, max_size=5, unique_by=lambda rule: rule.name))
def test_parse_of_aligned_format_is_the_identity(rules: list[Rule]) -> None:
    assert parse(format_rules(rules)) == (tuple(rules), ())


@given(st.lists(some.rules, max_size=3, unique_by=lambda rule: rule.name))
def test_any_rule_of_the_grammar_resolves(rules: list[Rule]) -> None:
    sets = config.loads('[sets]\nbad = ["::1"]\nweb = [1]\n').sets
    names = Names(sets, [some.PORT], [some.TARGET])
    resolved, wrong = resolve_rules(rules, names, "p.toml")
    assert not wrong
    assert [x.text for x in resolved] == [format_rule(x) for x in rules]


WORDS = st.sampled_from(
    [
        *("a", "pass", "drop", "limit", "1/s", "burst", "per", "source", "redirect", "eth0"),
        *("af_xdp", "t", "else", "tcp", "from", "to", "port", "not", "{", "}", ",", "22", "@bad"),
        *("ether", "type", "code", "len", "1-2", "flags", "syn", "log", "sample", "1/5", "#"),
        *("10.0.0.0/8", "-", "/", "0x0800"),
    ]
)


@given(st.lists(WORDS | st.text(max_size=4), max_size=12).map(" ".join))
def test_any_line_parses_or_tells_one_place_in_it(line: str) -> None:
    parsed, wrong = parse(line)
    lines = line.split("\n")
    for error in wrong:
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1])
        assert error.hint
    for rule in parsed:
        assert one(format_rule(rule)) == rule


def test_a_thousand_rules_parse_in_a_moment() -> None:
    text = "".join(f"r{n} drop tcp from 10.0.0.{n % 256} to port {n}\n" for n in range(1000))
    parse("a pass")
    start = time.perf_counter()
    assert len(parse(text)[0]) == 1000
    assert time.perf_counter() - start < 1  # 0.05 s where it was written
