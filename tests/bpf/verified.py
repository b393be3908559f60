"""What the kernel's verifier pays for each BPF program, and the file of what it paid so far.

    python -m tests.bpf.verified [CLANG ...]

measures on the running kernel, with the Makefile's clang or the named ones, and writes the counts
into verified.json. Counts differ by compiler and by kernel, so the file has a column for each pair
that was measured; commit the new column with the change that made it necessary.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.fastpath.toolchain import ROOT
from xdpgw import config, rules
from xdpgw.compile import Image, Session, compile_rules
from xdpgw.kernel import BpfObject, ProgInfo
from xdpgw.loader import entries_of
from xdpgw.rule_types import Rate
from xdpgw.talkers import sets_for
from xdpgw.tap import Wanted, wanted_bytes

__all__ = [
    "AS_BUILT",
    "CAPTURES",
    "GOLDEN",
    "MATCHES",
    "PROGRAMS",
    "SOURCES",
    "VARIANTS",
    "Column",
    "Variant",
    "clang_major",
    "compiled",
    "image_of",
    "kernel_at_least",
    "kernel_series",
    "load_info",
    "makefile_variable",
    "measure",
    "nearest",
    "one_dimension",
    "program_name",
    "read_golden",
]

GOLDEN = Path(__file__).with_name("verified.json")
SOURCES = tuple(sorted(path.name for path in (ROOT / "bpf").glob("*.bpf.c")))
DATAPATH = "xdpgw.bpf.c"
CAPTURE = "capture.bpf.c"
RULES = 10_000

Column = dict[str, dict[str, int]]
"""Source -> variant -> verified instructions, of one clang and one kernel."""

MATCHES = {
    "on": "on left",
    "vlan": "vlan {n}",
    "ethertype": "ether type 0x{h:04x}",
    "proto": "proto {b}",
    "sport": "udp from port {p}",
    "dport": "tcp to port {p}",
    "tcp_flags": "flags syn,!ack to port {p}",
    "icmp": "icmp type {b} code 1",
    "len": "len {p}",
    "ttl": "ttl {b}",
    "dscp": "dscp {d}",
    "frag": "frag first proto {b}",
    "mac_src": "ether from 02:00:00:00:{x}",
    "mac_dst": "ether to 02:00:00:00:{x}",
    "src": "from {{10.{b}.{d}.0/24, 2001:db8:{h:x}::/48}}",
    "dst": "to {{10.{b}.{d}.0/24, 2001:db8:{h:x}::/48}}",
}
"""A match that looks at one dimension, or at the least that go with it."""


def _lines(matches: list[str], option: str) -> str:
    lines = []
    for n in range(RULES):
        text = matches[n % len(matches)].format(
            n=n % 4096,
            h=0x1000 + n,
            b=n % 256,
            p=1024 + n,
            d=n // 256,
            x=f"{n >> 8:02x}:{n & 255:02x}",
        )
        action = ("pass", "drop", "tx")[n % 3]
        lines.append(f"r{n} {action} {text}{option if n % 2 else ''}")
    return "\n".join(lines)


def _policy(rule_lines: str, *, default: str, sources: str, fragments: str = "rules") -> str:
    return (
        f'[policy]\ndefault = "{default}"\nfragments = "{fragments}"\n'
        f'rules = """\n{rule_lines}\n"""\n[ports.left]\n[log]\nsources = "{sources}"\n'
    )


def one_dimension(name: str) -> str:
    """A policy of 10,000 rules with the match of that name."""
    return _policy(_lines([MATCHES[name]], ""), default="pass", sources="off")


@dataclass(frozen=True, slots=True)
class Variant:
    """A policy and the settings that a program is loaded with."""

    policy: str
    explain: bool = False
    multi_buffer: bool = False
    session: Session | None = None


def kernel_at_least(major: int, minor: int) -> bool:
    """By the running kernel's number; only where there is no probe."""
    return tuple(map(int, kernel_series().split("."))) >= (major, minor)


def kernel_series(release: str | None = None) -> str:
    """6.18 of 6.18.44-amd64."""
    found = re.match(r"\d+\.\d+", release or os.uname().release)
    assert found is not None
    return found[0]


MULTI_BUFFER = kernel_at_least(5, 18)  # bpf_xdp_get_buff_len
_ALL = _lines(list(MATCHES.values()), "")
_LOGGED = _lines(list(MATCHES.values()), " log 10/s sample 1/2")
_SESSION = Session("2001:db8::1", 40000, "2001:db8::2", 22)

VARIANTS: dict[str, Variant] = {
    "empty": Variant(_policy("", default="pass", sources="off")),
    "logs": Variant(_policy("all pass ip log 10/s", default="pass", sources="new")),
    "guard": Variant(_policy("", default="drop", sources="off"), session=_SESSION),
    "follow": Variant(_policy("", default="pass", sources="off", fragments="follow")),
    "full": Variant(_policy(_ALL, default="pass", sources="off")),
    "everything": Variant(
        _policy(
            _LOGGED.replace(" tx ", " af_xdp some else pass ", 1).replace(
                " drop ", " limit 1000/s per source ", 200
            ),
            default="drop",
            sources="new",
            fragments="follow",
        ).replace("[policy]", '[policy]\nallow = ["192.0.2.0/24"]')
        + '[af_xdp.some]\nhandler = "count"\n',
        multi_buffer=MULTI_BUFFER,
        session=_SESSION,
    ),
    "explain": Variant(
        _policy(_LOGGED, default="drop", sources="new"), explain=True, multi_buffer=MULTI_BUFFER
    ),
}


_ANY = _policy("", default="pass", sources="off")
_ONE = _policy(
    "one pass vlan 7 ether type 0x0800 tcp from 10.0.0.0/8 port 80 to 10.1.0.0/16 port 443 flags "
    "syn,!ack len 60-1514 ttl 1-64 dscp 10 frag no\n",
    default="pass",
    sources="off",
)

CAPTURES: dict[str, Variant] = {
    "any packet": Variant(_ANY, multi_buffer=MULTI_BUFFER),
    "a match": Variant(_ONE, multi_buffer=MULTI_BUFFER),
    "before 5.18": Variant(_ONE),
}
"""The same of the program of a capture."""

AS_BUILT = "as built"
"""The one variant of a program that has no policy."""

_OF_SOURCE = {DATAPATH: VARIANTS, CAPTURE: CAPTURES}

PROGRAMS = [
    (source, variant) for source in SOURCES for variant in _OF_SOURCE.get(source, (AS_BUILT,))
]
"""All that is measured: source and variant."""


def makefile_variable(name: str) -> str:
    """What the Makefile would use, so that no flag stands in two places."""
    command = ["make", "-s", "--no-print-directory", f"--eval=print:;@echo $({name})", "print"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@cache
def clang_major(clang: str) -> int:
    """Its major version."""
    done = subprocess.run([clang, "-dumpversion"], check=True, capture_output=True, text=True)
    return int(done.stdout.split(".")[0])


@cache
def compiled(source: str, clang: str) -> bytes:
    """A source of bpf/ as the build compiles it."""
    command = [clang, *makefile_variable("BPF_CFLAGS").split(), "-c", f"bpf/{source}", "-o", "-"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


@cache
def image_of(policy: str) -> Image:
    """A policy, compiled."""
    return compile_rules(rules.resolve(config.loads(policy)))


def load_info(elf: bytes, source: str, variant: str | Variant) -> ProgInfo:
    """Load an object over empty maps, and what the kernel says of its program then.

    Args:
        elf: the object.
        source: the file in bpf/ that it was made of.
        variant: how to load it.
    """
    if isinstance(variant, str) and variant != AS_BUILT:
        variant = _OF_SOURCE[source][variant]
    with BpfObject(elf, name="xdpgw") as obj:
        if isinstance(variant, Variant):
            image = image_of(variant.policy)
            rodata = image.config(
                "left",
                session=variant.session,
                explain=variant.explain,
                multi_buffer=variant.multi_buffer,
                talker_sets=sets_for(image.ruleset.config.sources),
                capture=source == DATAPATH and not variant.explain,
            )
            if source == CAPTURE:
                all_of_it = Wanted("", snaplen=1, count=1, rate=Rate(1, "/s"))
                obj.set_rodata("wanted", wanted_bytes(all_of_it, {}))
            obj.load(rodata=rodata, entries=entries_of(image))
        else:
            obj.load()
        return obj.program(program_name(source)).info()


def program_name(source: str) -> str:
    """The program in a source of bpf/."""
    return "xdpgw" if source == DATAPATH else source.removesuffix(".bpf.c")


def measure(source: str, variant: str, clang: str) -> int:
    """Instructions that the verifier walked."""
    info = load_info(compiled(source, clang), source, variant)
    assert info.verified_insns is not None, "a kernel before 5.16 does not tell"
    return info.verified_insns


def read_golden() -> dict[str, Column]:
    """All columns, by "clang-14 linux-6.18"."""
    columns: dict[str, Column] = json.loads(GOLDEN.read_text())
    return columns


def _numbers(key: str) -> tuple[int, int, int]:
    clang, major, minor = map(int, re.findall(r"\d+", key))
    return clang, major, minor


def nearest(key: str, keys: list[str]) -> str:
    """The column to compare with: the same one, or the nearest clang, then the nearest kernel."""
    clang, major, minor = _numbers(key)

    def distance(other: str) -> tuple[int, int, int]:
        c, a, i = _numbers(other)
        return abs(c - clang), abs(a - major), abs(i - minor)

    return min(keys, key=distance)


def main(clangs: list[str]) -> None:
    """Measure and write."""
    golden = read_golden() if GOLDEN.exists() else {}
    for clang in clangs or [makefile_variable("CLANG")]:
        key = f"clang-{clang_major(clang)} linux-{kernel_series()}"
        column: Column = {}
        for source, variant in PROGRAMS:
            column.setdefault(source, {})[variant] = measure(source, variant, clang)
        golden[key] = column
        print(key, json.dumps(golden[key]))
    ordered = {key: golden[key] for key in sorted(golden, key=_numbers)}
    GOLDEN.write_text(json.dumps(ordered, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
