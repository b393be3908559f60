"""Any rule of the grammar, as a value, for hypothesis."""

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import strategies as st

from xdpgw.predicates import ICMP_TYPES
from xdpgw.rule_parser import ACTIONS
from xdpgw.rules import (
    Action,
    Endpoint,
    Icmp,
    Limit,
    LogOption,
    Match,
    Operand,
    Rate,
    Rule,
    Simple,
    Word,
)
from xdpgw.words import FLAGS, PROTOCOLS

PORT, TARGET, ADDRESS_SET, PORT_SET = "eth0.1", "tcp", "bad", "web"


def words(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Word]:
    return texts.map(Word)


def numbers(lo: int, hi: int) -> st.SearchStrategy[str]:
    return st.integers(lo, hi).map(str)


def spans(lo: int, hi: int) -> st.SearchStrategy[str]:
    pairs = st.tuples(st.integers(lo, hi), st.integers(lo, hi)).map(sorted)
    return numbers(lo, hi) | pairs.map(lambda x: f"{x[0]}-{x[1]}")


def _prefix(cls: type, bits: int) -> st.SearchStrategy[str]:
    return st.tuples(st.integers(0, 2**bits - 1), st.integers(0, bits)).map(
        lambda x: str(ip_network((cls(x[0]), x[1]), strict=False))
    )


def _range(cls: type, bits: int) -> st.SearchStrategy[str]:
    ends = st.tuples(st.integers(0, 2**bits - 1), st.integers(0, 2**bits - 1)).map(sorted)
    return ends.map(lambda x: f"{cls(x[0])}-{cls(x[1])}")


addresses = words(
    st.ip_addresses().map(str)
    | _prefix(IPv4Address, 32)
    | _prefix(IPv6Address, 128)
    | _range(IPv4Address, 32)
    | _range(IPv6Address, 128)
    | st.just("@" + ADDRESS_SET)
)
ports = words(spans(0, 65535) | st.just("@" + PORT_SET))
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,31}", fullmatch=True).filter(
    lambda x: x not in ACTIONS
)
macs = words(st.binary(min_size=6, max_size=6).map(lambda x: x.hex(":")))


@st.composite
def operands(draw: st.DrawFn, items: st.SearchStrategy[Word]) -> Operand:
    braces = draw(st.booleans())
    most = 4 if braces else 1
    some = tuple(draw(st.lists(items, min_size=1, max_size=most)))
    return Operand(some, draw(st.booleans()), braces)


@st.composite
def endpoints(draw: st.DrawFn) -> Endpoint:
    which = draw(st.sampled_from(("addresses", "ports", "both")))
    return Endpoint(
        draw(st.sampled_from(("from", "to"))),
        None if which == "ports" else draw(operands(addresses)),
        None if which == "addresses" else draw(operands(ports)),
    )


@st.composite
def flags(draw: st.DrawFn) -> Word:
    some = draw(st.lists(st.sampled_from(sorted(FLAGS)), min_size=1, unique=True))
    return Word(",".join(draw(st.sampled_from(("", "!"))) + flag for flag in some))


def simple(keyword: str, value: st.SearchStrategy[Word]) -> st.SearchStrategy[Match]:
    return st.builds(Simple, st.just(keyword), value)


matches: st.SearchStrategy[Match] = st.one_of(
    st.sampled_from(["arp", "ip", "ip6", "established", *PROTOCOLS]).map(Simple),
    simple("on", words(st.just(PORT))),
    simple("vlan", words(numbers(0, 4095) | st.sampled_from(("any", "none")))),
    simple("ether type", words(st.integers(0, 65535).map(lambda x: f"0x{x:04x}"))),
    simple("ether from", macs),
    simple("ether to", macs),
    simple("proto", words(numbers(0, 255))),
    simple("flags", flags()),
    simple("len", words(spans(0, 65535))),
    simple("ttl", words(spans(0, 255))),
    simple("dscp", words(numbers(0, 63))),
    simple("frag", words(st.sampled_from(("no", "first", "later", "any")))),
    endpoints(),
    st.builds(
        Icmp,
        words(st.sampled_from(sorted(ICMP_TYPES)) | numbers(0, 255)),
        st.none() | words(numbers(0, 255)),
    ),
)

log_rates = st.builds(Rate, st.integers(1, 10**9), st.sampled_from(("/s", "/m")))
rates = log_rates | st.builds(Rate, st.integers(1, 1000), st.sampled_from(("Mbit/s", "Gbit/s")))
limits = st.builds(Limit, rates, st.none() | st.integers(1, 10**9), st.just("rule")) | st.builds(
    Limit,
    rates,
    st.none() | st.integers(1, 10**9),
    st.just("source"),
    st.integers(0, 32),
    st.integers(0, 128),
)
verdicts = st.sampled_from(("pass", "drop"))
actions = st.one_of(
    st.sampled_from(("pass", "drop", "reject", "tx", "forward")).map(Action),
    st.just(Action("redirect", PORT)),
    verdicts.map(lambda x: Action("af_xdp", TARGET, x)),
    limits.map(lambda x: Action("limit", limit=x)),
)
rules = st.builds(
    Rule,
    names,
    actions,
    st.lists(matches, max_size=5).map(tuple),
    st.none() | st.builds(LogOption, st.none() | log_rates),
    st.none() | st.integers(1, 2**32 - 1),
)
