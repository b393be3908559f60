"""Blocked sources: which packets the datapath drops for them, and which not."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest

from tests import frames as f
from tests.judges import outcomes
from xdpgw import _abi as abi
from xdpgw import blocks, config, loader, rules
from xdpgw.block_journal import Blocked, Journal
from xdpgw.block_table import BlockTable
from xdpgw.compile import Session, compile_rules
from xdpgw.explain import Explainer
from xdpgw.kernel import Map
from xdpgw.literals import addresses
from xdpgw.rule_types import Prefix

POLICY = """
[policy]
default = "pass"
fragments = "rules"
rules = "web tx tcp to port 80"
[ports.left]
"""
HOUR = 3600 * 10**9
BLOCK_MAPS = ("blocks", "block_lengths", "block_filter")
BLOCK = ("drop", "block", None)
DEFAULT = ("pass", "default", None)
WEB = ("tx", "rule", "web")
SEED = 20240229


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def prefix(text: str) -> Prefix:
    (found,) = addresses(text)
    return found


class Blocking:
    """A policy that judges frames, and its table of blocks."""

    def __init__(self, judge: Explainer, maps: dict[str, Map]) -> None:
        self.judge, self.maps = judge, maps
        self.table = BlockTable(maps)

    def put(self, *texts: str, end_ns: int = 0) -> None:
        ends = np.full(len(texts), end_ns, np.uint64)
        assert self.table.put([prefix(x) for x in texts], ends) == len(texts)

    def judged(self, *frames: bytes) -> list[tuple[str, str, str | None]]:
        answers = outcomes(self.judge, frames)
        return [(x["verdict"], x["reason"], x["rule"]) for x in answers]

    def blocked(self, *sources: str) -> list[bool]:
        return [x == BLOCK for x in self.judged(*(udp_from(source) for source in sources))]

    @property
    def lengths(self) -> set[tuple[int, int]]:
        """(family, length) of all that is looked up."""
        (raw,) = np.frombuffer(
            self.maps["block_lengths"].lookup(bytes(4)), abi.block_lengths_dtype()
        )
        words = ((4, 0, raw["v4"]), *((6, 64 * n, word) for n, word in enumerate(raw["v6"])))
        return {(x, first + n) for x, first, word in words for n in range(64) if int(word) >> n & 1}


@contextmanager
def blocking(policy: str = POLICY, session: Session | None = None) -> Iterator[Blocking]:
    image = compile_rules(rules.resolve(config.loads(policy)))
    with ExitStack() as stack:
        # An explanation has a table of one block of its own: it gets that of a whole filter.
        whole = stack.enter_context(loader.load(image, ["left"], session=session))
        books = {name: whole.maps[name] for name in BLOCK_MAPS}
        judge = stack.enter_context(
            loader.load(
                image, ["left"], books=books, session=session, explain=True, multi_buffer=True
            )
        )
        yield Blocking(Explainer(judge, "left"), books)


@pytest.fixture
def at() -> Iterator[Blocking]:
    with blocking() as found:
        yield found


def udp_from(source: str) -> bytes:
    return f.eth((f.ipv6 if ":" in source else f.ipv4)(f.udp(dport=9), src=source))


def test_block_of_nothing_changes_nothing(at: Blocking) -> None:
    assert at.judged(udp_from("10.1.0.1"), udp_from("2001:db8::1"), f.eth(f.arp())) == [DEFAULT] * 3


@pytest.mark.parametrize(
    ("address", "bits"),
    [
        *(("203.0.113.90", bits) for bits in (0, 1, 7, 8, 23, 24, 31, 32)),
        *(("fd00:5a5a:5a5a:5a5a:a5a5::1", bits) for bits in (0, 1, 31, 32, 33, 63, 64)),
        *(("fd00:5a5a:5a5a:5a5a:a5a5::1", bits) for bits in (65, 95, 96, 97, 127, 128)),
    ],
)
def test_block_covers_its_prefix_from_first_to_last(at: Blocking, address: str, bits: int) -> None:
    network = ip_network(f"{address}/{bits}", strict=False)
    first, last = int(network[0]), int(network[-1])
    at.put(str(network))
    assert at.blocked(address, str(network[0]), str(network[-1])) == [True] * 3
    kind = type(network[0])
    outside = [kind(x) for x in (first - 1, last + 1) if 0 <= x < 1 << network.max_prefixlen]
    assert at.blocked(*map(str, outside)) == [False] * len(outside)
    other = "2001:db8::1" if network.version == 4 else "10.1.0.1"
    assert at.blocked(other) == [False]
    assert at.lengths == {(network.version, bits)}


def test_block_decides_before_any_rule(at: Blocking) -> None:
    web = f.eth(f.ipv4(f.tcp(dport=80), src="192.0.2.7"))
    assert at.judged(web) == [WEB]
    at.put("192.0.2.7")
    assert at.judged(web) == [BLOCK]


def test_block_looks_at_the_source_only(at: Blocking) -> None:
    at.put("192.0.2.7", "2001:db8::7")
    to4 = f.eth(f.ipv4(f.udp(), src="10.1.0.1", dst="192.0.2.7"))
    to6 = f.eth(f.ipv6(f.udp(), src="2001:db8::1", dst="2001:db8::7"))
    assert at.judged(to4, to6) == [DEFAULT, DEFAULT]


def test_block_is_over_when_its_time_has_come(at: Blocking) -> None:
    at.put("192.0.2.1", end_ns=now() + HOUR)
    at.put("192.0.2.2", end_ns=now())
    at.put("192.0.2.3", end_ns=1)
    at.put("192.0.2.4", end_ns=(1 << 64) - 1)
    four = [f"192.0.2.{n}" for n in range(1, 5)]
    assert at.blocked(*four) == [True, False, False, True]


def test_block_again_replaces_the_end(at: Blocking) -> None:
    at.put("192.0.2.1", end_ns=now() + HOUR)
    at.put("192.0.2.1", end_ns=1)
    assert at.blocked("192.0.2.1") == [False]
    at.put("192.0.2.1")
    assert at.blocked("192.0.2.1") == [True]
    assert at.table.items() == [(prefix("192.0.2.1"), 0)]


def test_block_that_is_over_does_not_hide_a_wider_or_narrower_one(at: Blocking) -> None:
    at.put("192.0.2.7", "192.0.0.0/16", end_ns=1)
    at.put("192.0.2.0/24")
    assert at.blocked("192.0.2.7", "192.0.2.8", "192.0.3.1") == [True, True, False]


def test_block_agrees_with_a_plain_search(at: Blocking) -> None:
    rng = random.Random(SEED)
    ends = {"4": 32, "6": 128}
    networks = {}
    for _ in range(2000):
        family = rng.choice("46")
        # Few first bits, so that prefixes nest and sources hit.
        bits = rng.randrange(6, ends[family] + 1)
        number = rng.getrandbits(14) << ends[family] - 14
        number |= rng.getrandbits(ends[family]) & rng.getrandbits(ends[family]) >> 14
        kind = type(ip_address("::" if family == "6" else "0.0.0.0"))
        network = ip_network(f"{kind(number)}/{bits}", strict=False)
        networks[network] = rng.choice((0, 1, now() + HOUR))
    for network, end in networks.items():
        at.put(str(network), end_ns=end)
    live = {network for network, end in networks.items() if end != 1}
    sources = []
    for network in rng.sample(sorted(networks, key=str), 500):
        sources += [network[0], network[-1], network[rng.randrange(min(network.num_addresses, 99))]]
    wanted = []
    for source in sources:
        width = source.max_prefixlen
        around = (ip_network(f"{source}/{bits}", strict=False) for bits in range(width + 1))
        wanted.append(any(network in live for network in around))
    assert 200 < sum(wanted) < len(wanted) - 50
    assert at.blocked(*map(str, sources)) == wanted
    assert at.lengths == {(x.version, x.prefixlen) for x in networks}


ALLOWING = POLICY.replace(
    "[policy]", '[policy]\nallow = ["192.0.2.7", "198.51.100.0/24", "@office"]'
) + ('[sets]\noffice = ["2001:db8:0:1::/64"]\n')


def test_allowed_sources_are_never_blocked() -> None:
    with blocking(ALLOWING) as at:
        at.put("0.0.0.0/0", "::/0", "192.0.2.7", "198.51.100.9", "2001:db8:0:1::9")
        allowed = ["192.0.2.7", "198.51.100.0", "198.51.100.255", "2001:db8:0:1::9"]
        assert at.blocked(*allowed) == [False] * 4
        # The bytes of the IPv6 one are those of 192.0.2.7 and zeros.
        around = ["192.0.2.6", "198.51.101.0", "2001:db8:0:2::", "2001:db8::", "c000:207::"]
        assert at.blocked(*around) == [True] * 5
        web = f.eth(f.ipv4(f.tcp(dport=80), src="192.0.2.7"))
        assert at.judged(web) == [WEB]


@pytest.mark.parametrize("guard", ["true", "false"])
@pytest.mark.parametrize(
    ("client", "server"), [("192.0.2.7", "10.2.0.2"), ("2001:db8::7", "2001:db8::2")]
)
def test_session_is_never_blocked(client: str, server: str, guard: str) -> None:
    layer = f.ipv6 if ":" in client else f.ipv4
    policy = POLICY.replace("[policy]", f"[policy]\nguard = {guard}")
    with blocking(policy, Session(client, 40000, server, 22)) as at:
        at.put(client)
        ssh = [
            f.eth(layer(f.tcp(sport=sport, dport=dport), src=src, dst=server))
            for src, sport, dport in (
                (client, 40000, 22),
                (client, 40001, 22),
                (client, 40000, 23),
            )
        ]
        assert at.judged(*ssh) == [DEFAULT, BLOCK, BLOCK]
        assert at.blocked(client) == [True]


def test_block_knows_ip_packets_only(at: Blocking) -> None:
    at.put("0.0.0.0/0", "::/0")
    assert at.judged(f.eth(f.arp()), f.eth(f.raw(0x88CC, bytes(46)))) == [DEFAULT, DEFAULT]
    assert at.judged(f.eth(f.vlan(5), f.ipv4(f.udp())), f.eth(f.ipv6(f.icmp6()))) == [BLOCK] * 2


def test_malformed_comes_before_block(at: Blocking) -> None:
    at.put("192.0.2.7")
    assert at.judged(f.eth(f.ipv4(f.udp(), src="192.0.2.7", ihl=4))) == [
        ("drop", "malformed", None)
    ]


@pytest.mark.parametrize("setting", ["rules", "drop", "follow"])
def test_fragments_of_a_blocked_source_are_blocked(setting: str) -> None:
    data = f.udp(bytes(64), dport=9)
    first4 = f.ipv4(data, src="192.0.2.7", ident=7, mf=True, part=slice(0, 32))
    later4 = f.ipv4(data, src="192.0.2.7", ident=7, offset=4, part=slice(32, None))
    first6 = f.ipv6(data, f.fragment(more=True), src="2001:db8::7", part=slice(0, 32))
    later6 = f.ipv6(data, f.fragment(offset=4), src="2001:db8::7", part=slice(32, None))
    four = [f.eth(x) for x in (first4, later4, first6, later6)]
    with blocking(POLICY.replace('fragments = "rules"', f'fragments = "{setting}"')) as at:
        before = at.judged(*four)
        assert BLOCK not in before
        at.put("192.0.2.7", "2001:db8::7")
        assert at.judged(*four) == [BLOCK] * 4
        # Unblocked, a later fragment of a packet whose first one was blocked is unknown.
        assert at.table.remove([prefix("192.0.2.7"), prefix("2001:db8::7")]) == [True, True]
        assert at.judged(*four) == before


# The table


def test_table_holds_500_000_and_no_more(at: Blocking) -> None:
    rng = random.Random(SEED)
    numbers = rng.sample(range(1 << 31), abi.BLOCK_SLOTS + 400)  # the upper half is not blocked
    inside, beyond = numbers[: abi.BLOCK_SLOTS], numbers[abi.BLOCK_SLOTS :]
    v4 = [(4, number, 32) for number in inside[:250_000]]
    v6 = [(6, 0x20010DB8 << 96 | number, 128) for number in inside[250_000:]]
    full = [*v4, *v6]
    assert at.table.put(full, np.zeros(len(full), np.uint64)) == abi.BLOCK_SLOTS == 500_000
    sample = rng.sample(full, 400)
    assert at.blocked(*map(text_of, sample)) == [True] * 400
    others = [(4, 1 << 31 | number, 32) for number in beyond]
    assert at.blocked(*map(text_of, others)) == [False] * 400
    # Full is full, but what is in can get another end.
    assert at.table.put([sample[0], *others], np.ones(401, np.uint64)) == 1
    assert at.blocked(text_of(sample[0])) == [False]
    assert at.table.sweep(now()) == 1
    assert at.table.put(others[:2], np.zeros(2, np.uint64)) == 1
    assert at.blocked(text_of(others[0]), text_of(others[1])) == [True, False]
    assert at.table.clear() == abi.BLOCK_SLOTS
    assert at.blocked(text_of(sample[1])) == [False]
    assert at.table.items() == []


def text_of(source: Prefix) -> str:
    family, number, _ = source
    return str(ip_address(number if family == 6 else number.to_bytes(4, "big")))


def test_table_looks_up_the_lengths_in_use_only(at: Blocking) -> None:
    assert at.lengths == set()
    at.put("192.0.2.1", "192.0.2.2", "10.0.0.0/8", "::/0", "2001:db8::/64", "2001:db8::1")
    at.put("0.0.0.0/0", end_ns=1)
    assert at.lengths == {(4, 32), (4, 8), (4, 0), (6, 0), (6, 64), (6, 128)}
    assert at.table.sweep(now()) == 1
    assert at.lengths == {(4, 32), (4, 8), (6, 0), (6, 64), (6, 128)}
    gone = [prefix(x) for x in ("192.0.2.1", "10.0.0.0/8", "10.0.0.0/9", "2001:db8::1")]
    assert at.table.remove(gone) == [True, True, False, True]
    assert at.lengths == {(4, 32), (6, 0), (6, 64)}
    assert at.table.clear() == 3
    assert at.lengths == set()


def test_table_is_asked_where_its_filter_says_so(at: Blocking) -> None:
    lines = at.maps["block_filter"]
    at.put("192.0.2.1")
    at.put("192.0.2.2")
    assert sum(int(x).bit_count() for x in lines.array().view(np.uint64).flat) == 4
    at.put(*(f"10.0.{n}.1" for n in range(200)))  # more lines than are written one by one
    many = lines.array()
    assert at.blocked("192.0.2.1", "192.0.2.2", "10.0.7.1") == [True] * 3
    lines.update_many(np.arange(len(many), dtype=np.uint32), np.zeros_like(many))
    assert at.blocked("192.0.2.1", "192.0.2.2", "10.0.7.1") == [False] * 3
    lines.update_many(np.arange(len(many), dtype=np.uint32), many)
    assert at.table.remove([prefix(f"10.0.{n}.1") for n in range(200)]) == [True] * 200
    assert sum(int(x).bit_count() for x in lines.array().view(np.uint64).flat) == 4
    assert at.blocked("192.0.2.1", "192.0.2.2") == [True, True]
    assert at.table.clear() == 2
    assert not lines.array().any()


def test_table_that_is_cleared_in_part_blocks_what_it_holds(
    at: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(table: Map, keys: object) -> None:
        raise KeyboardInterrupt

    at.put("192.0.2.1", "2001:db8::/32")
    with monkeypatch.context() as patched:
        patched.setattr(Map, "delete_many", dies)
        with pytest.raises(KeyboardInterrupt):
            at.table.clear()
    assert len(at.table) == 2
    assert at.blocked("192.0.2.1", "2001:db8::1") == [True, True]


def test_table_tells_what_it_holds_in_order(at: Blocking) -> None:
    at.put("2001:db8::/32", "192.0.2.128/25", "192.0.2.0/24", "::", "192.0.2.0")
    shown = ["192.0.2.0/24", "192.0.2.0", "192.0.2.128/25", "::", "2001:db8::/32"]
    assert [source for source, _ in at.table.items()] == [prefix(x) for x in shown]
    assert prefix("192.0.2.0/24") in at.table
    assert prefix("192.0.2.0/25") not in at.table


# From the file


class Kept:
    """What `blocks.restore` wants of an instance."""

    def __init__(self, state: Path) -> None:
        self.state = state


def restored(at: Blocking, state: Path, kept: Sequence[Blocked]) -> blocks.Restored | None:
    Journal(state / blocks.FILE).rewrite(kept)
    return blocks.restore(Kept(state), at.maps)  # type: ignore[arg-type]


def test_restore_without_a_file_is_nothing(at: Blocking, tmp_path: Path) -> None:
    assert blocks.restore(Kept(tmp_path), at.maps) is None  # type: ignore[arg-type]
    assert at.table.items() == []


def test_restore_gives_blocks_the_time_that_is_left(at: Blocking, tmp_path: Path) -> None:
    wall = time.time_ns()
    done = restored(
        at,
        tmp_path,
        [
            Blocked("192.0.2.1", wall + HOUR, wall - HOUR, ""),
            Blocked("192.0.2.0/24", None, wall - HOUR, "for ever"),
            Blocked("192.0.2.3", wall - 1, wall - HOUR, "over"),
            # The wall clock is behind: it was set back, or there is none before the network is.
            Blocked("2001:db8::1", wall + 9 * HOUR, wall + 8 * HOUR, ""),
        ],
    )
    after = now()
    assert done == blocks.Restored(3, 0, str(tmp_path / "blocks"))
    ends = dict(at.table.items())
    assert ends.pop(prefix("192.0.2.0/24")) == 0
    assert set(ends) == {prefix("192.0.2.1"), prefix("2001:db8::1")}
    assert all(after - HOUR < end - HOUR <= after for end in ends.values())
    assert at.blocked("192.0.2.1", "192.0.2.3", "192.0.3.1") == [True, True, False]


def test_restore_tells_what_it_could_not_read(at: Blocking, tmp_path: Path) -> None:
    wall = time.time_ns()
    lines = [Blocked(x, None, wall, "") for x in ("192.0.2.1", "192.0.2.1/24", "nonsense")]
    done = restored(at, tmp_path, lines)
    assert done == blocks.Restored(1, 2, str(tmp_path / "blocks"))
    assert at.blocked("192.0.2.1", "192.0.2.2") == [True, False]
