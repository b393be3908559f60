"""Policies by family, as text and as arrays.

`acl`, `fw` and `ipc` follow ClassBench (tests.classbench.seeds), with prefixes that nest and come
again. `ports`, `hosts`, `ranges`, `negated` and `stripes` each take away what some engine lives on.
`sets` asks for named sets of prefixes. A plain name is IPv4; with `6` behind it IPv6, with `46`
rule by rule one or the other: `acl46`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.classbench import seeds
from tests.classbench.prefixes import distinct, prefix_text, prefixes
from tests.frames import ESP, GRE, ICMP, ICMP6, TCP, UDP

__all__ = ["FAMILIES", "KINDS", "RULE", "Policy", "policy"]

KINDS = ("acl", "fw", "ipc", "ports", "hosts", "ranges", "negated", "stripes", "sets")
FAMILIES = tuple(kind + version for kind in KINDS for version in ("", "6", "46"))

RULE = np.dtype(
    [
        ("version", "u1"),  # of its addresses; a rule without any holds for both
        ("proto", "i2"),  # -1 for any
        ("src", "u8", (2, 2)),  # first and last address, each as its high and low 64 bits
        ("dst", "u8", (2, 2)),
        ("sport", "u2", 2),  # first and last; 0 to 65535 asks nothing
        ("dport", "u2", 2),
        ("src_not", "?"),
        ("dst_not", "?"),
        ("src_set", "i2"),  # number of a named set in place of `src`, -1 for none
        ("dst_set", "i2"),
    ]
)
"""A rule as ranges."""

_NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", GRE: "gre", ESP: "esp", ICMP6: "icmp6"}
_WIDTH = {4: 32, 6: 128}
_LOW = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy file, the files of its sets, and both as arrays.

    Args:
        text: the policy file; it passes by default and logs nothing.
        rules: shape (n,) of RULE, in order; the verdict is in the text only.
        sets: PREFIX arrays by number; set n is called `sN`.
        files: netset files that the text names, by name.
    """

    text: str
    rules: NDArray[Any]
    sets: tuple[NDArray[Any], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Put all files into a folder; the path of the policy file."""
        for name, lines in self.files.items():
            (folder / name).write_text(lines)
        path = folder / "policy.toml"
        path.write_text(self.text)
        return path


# --- One rule -------------------------------------------------------------------------------------

_Range = tuple[int, int]
_ANY_PORT: _Range = (0, 65535)


@dataclass(slots=True)
class _Draft:
    """A rule while it is made; None is "any"."""

    version: int
    proto: int | None = None
    src: _Range | None = None
    dst: _Range | None = None
    sport: _Range = _ANY_PORT
    dport: _Range = _ANY_PORT
    src_not: bool = False
    dst_not: bool = False
    src_set: int = -1
    dst_set: int = -1

    @property
    def has_ports(self) -> bool:
        return self.proto in (TCP, UDP)

    @property
    def breadth(self) -> float:
        """0 for two hosts to 1 for any addresses."""
        bits = [
            _WIDTH[self.version] if ends is None else (ends[1] - ends[0] + 1).bit_length() - 1
            for ends in (self.src, self.dst)
        ]
        return sum(bits) / (2 * _WIDTH[self.version])

    def words(self) -> str:
        """The matches as a policy says them."""
        out = []
        if self.proto is not None:
            out.append(_NAMES[self.proto])
        for side, addresses, member, port, wanted in (
            ("from", self.src, self.src_set, self.sport, self.src_not),
            ("to", self.dst, self.dst_set, self.dport, self.dst_not),
        ):
            parts = []
            if addresses is not None or member >= 0:
                found = f"@s{member}" if member >= 0 else _range_text(addresses, self.version)
                parts.append(f"not {found}" if wanted else found)
            if port != _ANY_PORT and self.has_ports:
                first, last = port
                parts.append(f"port {first}" if first == last else f"port {first}-{last}")
            if parts:
                out.append(f"{side} {' '.join(parts)}")
        return " ".join(out)

    def row(self) -> tuple[Any, ...]:
        """The rule as RULE has it."""
        whole = (0, (1 << _WIDTH[self.version]) - 1)
        src, dst = self.src or whole, self.dst or whole
        return (
            self.version,
            -1 if self.proto is None else self.proto,
            [_halves(end) for end in src],
            [_halves(end) for end in dst],
            self.sport,
            self.dport,
            self.src_not,
            self.dst_not,
            self.src_set,
            self.dst_set,
        )


def _halves(address: int) -> tuple[int, int]:
    return address >> 64, address & _LOW


def _text(address: int, version: int) -> str:
    return str(IPv4Address(address) if version == 4 else IPv6Address(address))


def _range_text(ends: _Range | None, version: int) -> str:
    assert ends is not None
    first, last = ends
    size = last - first + 1
    if size & size - 1 or first & size - 1:
        return f"{_text(first, version)}-{_text(last, version)}"
    bits = _WIDTH[version] - size.bit_length() + 1
    return _text(first, version) if size == 1 else f"{_text(first, version)}/{bits}"


def _prefix(address: int, bits: int, version: int) -> _Range:
    room = _WIDTH[version] - bits
    first = address >> room << room
    return first, first + (1 << room) - 1


# --- Families -------------------------------------------------------------------------------------


def _weighted(rng: random.Random, table: tuple[tuple[int, Any], ...]) -> Any:
    return rng.choices([value for _, value in table], [weight for weight, _ in table])[0]


def _anywhere(rng: random.Random, version: int) -> int:
    """An address in 1.0.0.0 to 223.255.255.255 or 2000::/3."""
    if version == 4:
        return rng.randrange(1 << 24, 224 << 24)
    return 1 << 125 | rng.getrandbits(125)


class _Networks:
    """Addresses that nest: most lie in a network that was given before, on any side, and some are
    given again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._given: dict[int, list[_Range]] = {4: [], 6: []}
        self._wide: dict[int, list[_Range]] = {4: [], 6: []}

    def draw(self, length: int, version: int) -> _Range | None:
        """A prefix of about that length; None for length 0."""
        bits, rng = seeds.LENGTHS6[length] if version == 6 else length, self._rng
        given, wide = self._given[version], self._wide[version]
        if not bits:
            return None
        if given and rng.random() < 0.1:
            return rng.choice(given)
        address = _anywhere(rng, version)
        if wide and rng.random() < 0.7:
            address = rng.randint(*rng.choice(wide))
        prefix = _prefix(address, bits, version)
        given.append(prefix)
        if length <= 24:
            wide.append(prefix)
        return prefix


def _port_range(rng: random.Random, kind: str) -> _Range:
    if kind == "wc":
        return _ANY_PORT
    if kind == "hi":
        return 1024, 65535
    if kind == "lo":
        return 0, 1023
    if kind == "em":
        port = rng.choice(seeds.SERVICES) if rng.random() < 0.7 else rng.randrange(1024, 65536)
        return port, port
    first = rng.randrange(1024, 65000)
    return first, min(65535, first + rng.choice((1, 9, 99, 499, 9999)))


_Make = Callable[[random.Random, int, Callable[[int], int]], Iterator[_Draft]]
"""From a generator, a number of rules and the version of rule n to the rules."""


def _like(kind: str) -> _Make:
    def draft(rng: random.Random, networks: _Networks, version: int) -> _Draft:
        out = _Draft(version, _weighted(rng, seeds.PROTOCOLS[kind]))
        if out.proto == ICMP and version == 6:
            out.proto = ICMP6
        out.src = networks.draw(_weighted(rng, seeds.LENGTHS[kind]["src"]), version)
        out.dst = networks.draw(_weighted(rng, seeds.LENGTHS[kind]["dst"]), version)
        if out.has_ports:
            out.sport = _port_range(rng, _weighted(rng, seeds.PORT_KINDS[kind]["sport"]))
            out.dport = _port_range(rng, _weighted(rng, seeds.PORT_KINDS[kind]["dport"]))
        return out

    def make(rng: random.Random, count: int, version_of: Callable[[int], int]) -> Iterator[_Draft]:
        networks, found = _Networks(rng), dict[str, _Draft]()
        while len(found) < count:
            one = draft(rng, networks, version_of(len(found)))
            if one.src or one.dst or one.dport[0] == one.dport[1]:
                found.setdefault(one.words(), one)
        # As in ClassBench, what is narrow mostly comes before what is wide.
        return iter(sorted(found.values(), key=lambda one: rng.random() + one.breadth))

    return make


def _distinct(rng: random.Random, count: int, version: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(_anywhere(rng, version))
    return rng.sample(sorted(found), count)


def _ports(rng: random.Random, count: int, version_of: Callable[[int], int]) -> Iterator[_Draft]:
    for n, port in enumerate(rng.sample(range(1, 65536), count)):
        yield _Draft(version_of(n), UDP, dport=(port, port))


def _hosts(rng: random.Random, count: int, version_of: Callable[[int], int]) -> Iterator[_Draft]:
    hosts = {version: _distinct(rng, count, version) for version in (4, 6)}
    for n in range(count):
        address = hosts[version_of(n)][n]
        yield _Draft(version_of(n), src=(address, address))


def _some_range(rng: random.Random, version: int) -> _Range:
    size = 1 << rng.randrange(4, _WIDTH[version] - 8)
    first = _anywhere(rng, version)
    last = min(first + rng.randrange(size // 2, size), (1 << _WIDTH[version]) - 1)
    return first, last


def _ranges(rng: random.Random, count: int, version_of: Callable[[int], int]) -> Iterator[_Draft]:
    for n in range(count):
        draft = _Draft(version_of(n), rng.choice((TCP, UDP)))
        draft.src, draft.dst = (_some_range(rng, draft.version) for _ in range(2))
        first = rng.randrange(1, 60000)
        draft.dport = first, first + rng.randrange(1, 5000)
        yield draft


def _negated(rng: random.Random, count: int, version_of: Callable[[int], int]) -> Iterator[_Draft]:
    """Ports that differ, as otherwise the first rule would match nearly everything."""
    networks = _Networks(rng)
    for n, port in enumerate(rng.sample(range(1, 65536), count)):
        draft = _Draft(version_of(n), rng.choice((TCP, UDP)), src_not=True, dst_not=True)
        draft.src = networks.draw(rng.choice((8, 16, 24, 32)), draft.version)
        draft.dst = networks.draw(rng.choice((8, 16, 24, 32)), draft.version)
        draft.dport = port, port
        yield draft


def _stripes(rng: random.Random, count: int, version_of: Callable[[int], int]) -> Iterator[_Draft]:
    """No two neighbours have a dimension in common."""
    networks = _Networks(rng)
    for n in range(count):
        draft = _Draft(version_of(n // 2))
        prefix = networks.draw(rng.choice((16, 24, 24, 32)), draft.version)
        if n % 2:
            draft.src = prefix
        else:
            draft.dst, draft.proto = prefix, TCP
            draft.dport = _port_range(rng, "em")
        yield draft


_SETS_MOST = 8


def _with_sets(
    rng: random.Random, count: int, version_of: Callable[[int], int]
) -> Iterator[_Draft]:
    """Most rules name a set on one side, some on both, some "not"."""
    like, sets = list(_like("fw")(rng, count, version_of)), min(count, _SETS_MOST)
    for n, draft in enumerate(like):
        if rng.random() < 0.7:
            draft.src, draft.src_set, draft.src_not = None, rng.randrange(sets), n % 16 == 5
        if rng.random() < 0.2:
            draft.dst, draft.dst_set, draft.dst_not = None, rng.randrange(sets), n % 16 == 9
        if (
            draft.dport[0] != draft.dport[1]
        ):  # else a set of networks would leave nothing to the rest
            draft.proto, draft.dport = rng.choice((TCP, UDP)), _port_range(rng, "em")
        yield draft


_MAKERS: dict[str, _Make] = {
    **{kind: _like(kind) for kind in ("acl", "fw", "ipc")},
    "ports": _ports,
    "hosts": _hosts,
    "ranges": _ranges,
    "negated": _negated,
    "stripes": _stripes,
    "sets": _with_sets,
}


def policy(
    family: str, rules: int, seed: int = 1, *, prefixes_in_sets: int = 1000, inline: bool = False
) -> Policy:
    """A policy of a family.

    Args:
        family: one of FAMILIES.
        rules: how many, up to 65,535.
        seed: other policies of the same kind.
        prefixes_in_sets: of `sets`: distinct prefixes of all named sets together.
        inline: of `sets`: members in the policy file, not in netset files.
    """
    kind, versions = family.rstrip("46"), family.lstrip("abcdefghijklmnopqrstuvwxyz") or "4"
    rng = random.Random(f"{family} {rules} {seed}")
    version_of = (lambda n: 4 if n % 3 else 6) if versions == "46" else (lambda _: int(versions))
    drafts = list(_MAKERS[kind](rng, rules, version_of))
    lines = [
        f"r{n} {rng.choice(('pass', 'drop'))} {draft.words()}" for n, draft in enumerate(drafts)
    ]
    rows = np.array([draft.row() for draft in drafts], RULE)
    text = '[policy]\ndefault = "pass"\nrules = """\n' + "\n".join(lines) + '\n"""\n'
    text += '[log]\nsources = "off"\n'
    if kind != "sets":
        return Policy(text, rows)
    sets = _named_sets(prefixes_in_sets, min(rules, _SETS_MOST), versions, seed)
    members = {f"s{n}": prefix_text(members) for n, members in enumerate(sets)}
    if inline:
        body = "".join(f"{name} = {found}\n" for name, found in members.items())
        return Policy(f"{text}[sets]\n{body}", rows, sets)
    body = "".join(f'{name} = [{{ file = "{name}.netset" }}]\n' for name in members)
    files = {f"{name}.netset": "\n".join(found) + "\n" for name, found in members.items()}
    return Policy(f"{text}[sets]\n{body}", rows, sets, files)


def _named_sets(count: int, sets: int, versions: str, seed: int) -> tuple[NDArray[Any], ...]:
    """Each set but the last twice as large as the next, all of them overlapping."""
    per_version = count // len(versions)
    drawn = [prefixes("blocklist", per_version, seed, int(version)) for version in versions]
    found = []
    for n in range(sets):
        # Prefix 2^n - 1 and each 2^(n+1)-th from there on; the last set takes the rest.
        step = 1 << min(n + 1, sets - 1)
        parts = [some[(1 << n) - 1 :: step] for some in drawn]
        shared = [some[:: 16 << n] for some in drawn]
        found.append(distinct(np.concatenate([*parts, *shared])))
    return tuple(found)
