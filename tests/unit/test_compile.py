"""The compiler: from rules to bits, without a kernel."""

from __future__ import annotations

import errno
import ipaddress
import random
from pathlib import Path

import pytest

from tests.unit.lookups import look, rules_of
from xdpgw import _abi as abi
from xdpgw import config, rules
from xdpgw._abi import Dim, Ref, Use
from xdpgw._native import ffi
from xdpgw.compile import SPARE_LEAST, Image, Names, Session, compile_rules, rate_words
from xdpgw.errors import KernelError, UnsupportedError
from xdpgw.rules import Rate


def image(text: str, more: str = "", names: Names | None = None) -> Image:
    """Compile rules, a line each."""
    policy = config.loads(
        f'[policy]\nrules = """\n{text}\n"""\n[ports.left]\n[ports.right]\n{more}'
    )
    return compile_rules(rules.resolve(policy), names)


def direct(found: Image, dim: Dim, value: int) -> int:
    """The rules that a value satisfies in a dimension of one stride, a bit each."""
    tables = found.tables
    return rules_of(tables, {dim: look(tables.lines, tables.root[dim], value, 1)})


def longest(found: Image, dim: Dim, address: str) -> int:
    """The rules that an address satisfies."""
    packed, tables = ipaddress.ip_address(address).packed, found.tables
    value = int.from_bytes(packed, "big")
    return rules_of(tables, {dim: look(tables.lines, tables.root[dim], value, len(packed) // 2)})


def lacking(found: Image, dim: Dim) -> int:
    """The rules that a packet without the field satisfies."""
    return rules_of(found.tables, {dim: found.tables.none[dim]})


def test_compile_same_policy_gives_same_bytes() -> None:
    text = (
        "a drop from {10.0.0.0/8 192.0.2.0/24} to port {1 2 3}\nb pass tcp flags syn,!ack\nc tx arp"
    )
    first, second = image(text), image(text)
    assert (first.tables.lines == second.tables.lines).all()
    assert (first.rules, first.tables.macs) == (second.rules, second.tables.macs)
    assert first.config("left") == second.config("left")


def test_compile_no_rules_uses_no_dimension() -> None:
    found = image("")
    assert found.tables.placement.words == 0
    assert not any(found.tables.use)


def test_compile_uses_only_dimensions_that_a_rule_names() -> None:
    found = image("a drop udp to port 53")
    assert {Dim(n) for n, used in enumerate(found.tables.use) if used} == {Dim.PROTO, Dim.DPORT}


def test_compile_port_borders_are_exact() -> None:
    found = image("a drop to port 80-90\nb drop to port not 80-90\nc drop tcp")
    assert direct(found, Dim.DPORT, 79) == 0b110
    assert direct(found, Dim.DPORT, 80) == 0b101
    assert direct(found, Dim.DPORT, 90) == 0b101
    assert direct(found, Dim.DPORT, 91) == 0b110
    assert lacking(found, Dim.DPORT) == 0b100


def test_compile_two_matches_in_one_dimension_must_both_hold() -> None:
    found = image("a drop tcp udp\nb drop ip proto 17")
    udp4, udp6 = abi.Kind.IP * 256 + 17, abi.Kind.IP6 * 256 + 17
    assert direct(found, Dim.PROTO, udp4) == 0b10
    assert direct(found, Dim.PROTO, udp6) == 0


def test_compile_nested_prefixes_and_negation() -> None:
    found = image(
        "a drop from 10.0.0.0/8\nb drop from not 10.1.0.0/16\nc drop from {10.1.2.0/24 192.0.2.1}"
    )
    assert longest(found, Dim.SRC4, "11.0.0.1") == 0b010
    assert longest(found, Dim.SRC4, "10.0.0.1") == 0b011
    assert longest(found, Dim.SRC4, "10.1.0.1") == 0b001
    assert longest(found, Dim.SRC4, "10.1.2.3") == 0b101
    assert longest(found, Dim.SRC4, "192.0.2.1") == 0b110
    assert longest(found, Dim.SRC6, "2001:db8::1") == 0b010
    assert lacking(found, Dim.SRC4) == 0


def test_compile_addresses_agree_with_a_walk_over_the_rules() -> None:
    rng = random.Random(7)
    for _ in range(30):
        lines, wanted = [], []
        for number in range(20):
            nets = [
                ipaddress.ip_network((rng.getrandbits(32), bits), strict=False)
                for bits in rng.choices(range(0, 33), k=rng.randrange(1, 4))
            ]
            negate = rng.random() < 0.4
            lines.append(
                f"r{number} drop from {'not ' if negate else ''}{{{' '.join(map(str, nets))}}}"
            )
            wanted.append((nets, negate))
        found = image("\n".join(lines))
        for _ in range(40):
            near = int(rng.choice(rng.choice(wanted)[0]).network_address)
            address = ipaddress.ip_address(near ^ rng.getrandbits(rng.randrange(1, 33)) >> 1)
            bits = sum(
                1 << number
                for number, (nets, negate) in enumerate(wanted)
                if any(address in net for net in nets) != negate
            )
            assert longest(found, Dim.SRC4, str(address)) == bits


def test_compile_each_port_has_its_rules() -> None:
    tables = image("a drop on left\nb drop on right\nc drop").tables
    assert rules_of(tables, {Dim.ON: tables.on["left"]}) == 0b101
    assert rules_of(tables, {Dim.ON: tables.on["right"]}) == 0b110
    assert rules_of(tables, {Dim.ON: tables.on[""]}) == 0b100


UDP = abi.Kind.IP * 256 + 17


def satisfied(found: Image, values: dict[Dim, int]) -> int:
    """The rules that a packet with these values satisfies, a bit each."""
    tables = found.tables
    refs = {dim: look(tables.lines, tables.root[dim], at, 1) for dim, at in values.items()}
    return rules_of(tables, refs)


@pytest.mark.parametrize("count", [31, 32, 64, 65, 128, 4097, abi.MAX_RULES])
def test_compile_each_of_many_rules_has_its_bit(count: int) -> None:
    found = image("\n".join(f"r{n} drop udp to port {n}" for n in range(count)))
    assert found.tables.placement.narrow == (count <= abi.NARROW_RULES)
    for n in {0, 1, count // 2, count - 1}:
        assert satisfied(found, {Dim.PROTO: UDP, Dim.DPORT: n}) == 1 << n
    assert satisfied(found, {Dim.PROTO: UDP, Dim.DPORT: count}) == 0
    assert satisfied(found, {Dim.PROTO: UDP + 1, Dim.DPORT: 0}) == 0


def test_compile_folds_what_tells_few_packets_apart() -> None:
    lines = [f"r{n} drop udp to port {n % 8} ttl {n % 5}" for n in range(40)]
    found = image("\n".join(lines))
    used = {Dim(n): Use(use) for n, use in enumerate(found.tables.use) if use}
    assert used == dict.fromkeys((Dim.PROTO, Dim.DPORT, Dim.TTL), Use.META)
    for port in range(9):
        for ttl in range(6):
            wanted = sum(1 << n for n in range(40) if n % 8 == port and n % 5 == ttl)
            values = {Dim.PROTO: UDP, Dim.DPORT: port, Dim.TTL: ttl}
            assert satisfied(found, values) == wanted


@pytest.mark.parametrize(
    ("text", "more", "what"),
    [
        ("a pass established", "", "established"),
    ],
)
def test_compile_refuses_what_it_cannot_judge(text: str, more: str, what: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{what} is not in this version"):
        image(text, more)


def test_config_holds_what_the_policy_says() -> None:
    policy = config.loads(
        '[policy]\ndefault="drop"\nmalformed="pass"\nfragments="drop"\nguard=false\n'
        '[ports.a]\n[ports.b]\n[log]\nsources="every"\nwindow="10s"\nrate="50/s"\n'
    )
    found = compile_rules(rules.resolve(policy))
    session = Session("192.0.2.1", 50000, "192.0.2.2", 22)
    cfg = ffi.from_buffer("struct xg_config *", found.config("b", session=session))
    assert (cfg.port, cfg.default_verdict, cfg.malformed_verdict) == (1, abi.Verdict.DROP, 0)
    assert (cfg.fragments, cfg.guard) == (abi.Fragments.DROP, 0)
    assert cfg.log_sources == abi.LogSources.EVERY
    assert (cfg.log_window_ns, cfg.log_rate.interval_ns) == (10 * 10**9, 20_000_000)
    assert (cfg.session.client_port, cfg.session.server_port, cfg.session.family) == (50000, 22, 4)
    assert bytes(ffi.buffer(cfg.session.client))[:4] == bytes([192, 0, 2, 1])


def test_rate_words_burst_is_one_unit_of_time() -> None:
    assert rate_words(None) == (0, 0)
    assert rate_words(Rate(1, "/s")) == (10**9, 0)
    assert rate_words(Rate(10, "/m")) == (6 * 10**9, 54 * 10**9)


def test_names_kept_rules_keep_slots_and_old_slots_are_not_given_away() -> None:
    old = Names().renewed(["a", "b", "c"], ["left"])
    new = old.renewed(["c", "x", "a"], ["right", "left"])
    assert new.rules == {"c": old.rules["c"], "x": 3, "a": old.rules["a"]}
    assert new.ports == {"right": 1, "left": 0}


def test_names_full_change_of_the_largest_policy_fits() -> None:
    old = Names().renewed([f"a{n}" for n in range(abi.MAX_RULES)], [])
    new = old.renewed([f"b{n}" for n in range(abi.MAX_RULES)], [])
    assert not set(old.rules.values()) & set(new.rules.values())
    assert max(new.rules.values()) < abi.RULE_SLOTS


def test_names_targets_keep_their_slots_by_name() -> None:
    old = Names().renewed([], [], ["over", "echo"])
    new = old.renewed([], [], ["echo", "third"])
    assert new.targets == {"echo": old.targets["echo"], "third": 2}


@pytest.mark.parametrize(
    ("room", "what"),
    [
        (abi.RULE_SLOTS, "rules"),
        (abi.MAX_PORTS, "ports"),
        (abi.MAX_TARGETS, "AF_XDP targets"),
    ],
)
def test_names_old_and_new_beyond_the_room_is_a_sentence(room: int, what: str) -> None:
    def names(prefix: str, count: int) -> tuple[list[str], ...]:
        every = [f"{prefix}{n}" for n in range(count)]
        return tuple(every if what == kind else [] for kind in ("rules", "ports", "AF_XDP targets"))

    old = Names().renewed(*names("a", room))
    with pytest.raises(UnsupportedError, match=f"no room for 1 new {what}") as caught:
        old.renewed(*names("b", 1))
    assert "xdpgw detach" in (caught.value.hint or "")
    assert old.renewed(*names("a", room)) == old


TARGETS = '[af_xdp.over]\nhandler = "count"\n[af_xdp.echo]\nhandler = "reflect"\n'


def test_compile_rule_holds_the_slot_of_its_target_and_its_else() -> None:
    text = "a af_xdp echo else drop tcp\nb af_xdp over else pass\nc drop"
    names = Names({"a": 5, "b": 6, "c": 7}, {"left": 0, "right": 1}, {"over": 3, "echo": 9})
    found = image(text, TARGETS, names)
    rows = ffi.from_buffer("struct xg_rule[]", found.rules)
    assert [(x.slot, x.action, x.target) for x in rows[0:2]] == [
        (5, abi.Action.AF_XDP, 9),
        (6, abi.Action.AF_XDP, 3),
    ]
    assert [x.otherwise for x in rows[0:2]] == [abi.Verdict.DROP, abi.Verdict.PASS]


@pytest.mark.parametrize(("text", "wanted"), [("a drop", 0), ("a af_xdp echo else pass", 1)])
def test_config_prunes_af_xdp_where_no_rule_has_it(text: str, wanted: int) -> None:
    found = image(text, TARGETS)
    assert ffi.from_buffer("struct xg_config *", found.config("left")).af_xdp == wanted


@pytest.mark.parametrize(
    ("rule", "refresh", "dims"),
    [
        ("bad drop from @bad", ', refresh = "5m"', {Dim.SRC4, Dim.SRC6}),
        ("bad drop to not @bad", ', refresh = "5m"', {Dim.DST4, Dim.DST6}),
        ("bad drop from @bad", "", set()),
        ("bad drop from 192.0.2.1", ', refresh = "5m"', set()),
    ],
)
def test_compile_gives_room_where_a_set_may_change(
    tmp_path: Path, rule: str, refresh: str, dims: set[Dim]
) -> None:
    (tmp_path / "feed").write_text("192.0.2.1\n")
    text = f'policy.rules = "{rule}"\n[sets]\nbad = [{{ file = "feed"{refresh} }}]\n'
    found = compile_rules(rules.resolve(config.loads(text, base=tmp_path)))
    root = found.tables.root
    assert {dim for dim in Dim if root[dim] & Ref.KIND == Ref.DIRECT} == dims
    lines = len(found.tables.lines)
    assert found.spare_lines == (SPARE_LEAST + lines // 8 if dims else 0)
    structs = len(found.rules) + len(found.limits)
    assert found.memory_bytes == (lines + found.spare_lines) * 64 + structs


def test_compile_without_memory_says_how_large_the_policy_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("xdpgw.tables.tables_of", none_left)
    with pytest.raises(KernelError, match=r"\(rules: 1, prefixes of bad: 2\)") as caught:
        image("bad drop from @bad", '[sets]\nbad = ["192.0.2.1", "192.0.2.7"]\nnone = []')
    assert caught.value.errno == errno.ENOMEM
