"""The peers of `bench/rules.py`: the same rules as tables, as nft and iptables have them, and
xdp-filter.

Each gives a policy of `tests.classbench` another form, so all judge by the same rules. What is not
installed is told in a sentence and left out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.classbench import Policy
    from xdpgw.kernel import Program

__all__ = ["LINEAR", "has", "iptables_rules", "linear_table", "nft_rules", "xdp_filter"]

PACKAGES = {"xdp-filter": "xdp-tools", "nft": "nftables", "iptables-restore": "iptables"}

LINEAR = np.dtype(
    [
        ("src", "u4", 2),
        ("dst", "u4", 2),
        ("sport", "u2", 2),
        ("dport", "u2", 2),
        ("any_proto", "u1"),
        ("proto", "u1"),
        ("src_not", "u1"),
        ("dst_not", "u1"),
        ("action", "u4"),
    ]
)
"""struct linear_rule of bench/peers.bpf.c."""

_XDP_DROP, _XDP_PASS = 1, 2
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp"}
_ANY_PORT = [0, 65535]
_ANY_ADDRESS = [0, (1 << 32) - 1]


def has(command: str) -> bool:
    """Whether a peer's command is installed; says so if not."""
    if shutil.which(command):
        return True
    hint = f"apt-get install --no-install-recommends {PACKAGES[command]}"
    print(f"{command} is not installed ({hint}): left out", file=sys.stderr)
    return False


def linear_table(policy: Policy) -> NDArray[Any]:
    """The rules of an IPv4 policy without sets, shape (n,), as bench/peers.bpf.c reads them."""
    rules, out = policy.rules, np.zeros(len(policy.rules), LINEAR)
    if (rules["version"] != 4).any() or (rules["src_set"] >= 0).any():
        raise ValueError("the linear scan knows IPv4, and no sets")
    for side in ("src", "dst"):
        out[side] = rules[side][:, :, 1]
        out[f"{side}_not"] = rules[f"{side}_not"]
        out[f"{side[0]}port"] = rules[f"{side[0]}port"]
    out["any_proto"] = rules["proto"] < 0
    out["proto"] = np.maximum(rules["proto"], 0)
    actions = re.findall(r"^r\d+ (pass|drop) ", policy.text, re.MULTILINE)
    out["action"] = [_XDP_DROP if action == "drop" else _XDP_PASS for action in actions]
    return out


def _prefix(ends: NDArray[Any]) -> str:
    """An IPv4 range that is a prefix, as text."""
    first, last = (int(end) for end in ends[:, 1])
    octets = ".".join(str(first >> shift & 255) for shift in (24, 16, 8, 0))
    return f"{octets}/{32 - (last - first).bit_length()}"


def nft_rules(policy: Policy, device: str) -> str:
    """A netdev ingress chain on a device that drops what a rule matches, and all else."""
    chain = f'type filter hook ingress device "{device}" priority 0; policy drop;'
    lines = [f"{' '.join(_nft_words(rule))} drop" for rule in policy.rules]
    return "\n".join(["table netdev bench {", "chain ingress {", chain, *lines, "}", "}", ""])


def _nft_words(rule: Any) -> Iterator[str]:
    proto = _PROTOCOLS.get(int(rule["proto"]))
    for side, word in (("src", "saddr"), ("dst", "daddr")):
        if rule[side][:, 1].tolist() != _ANY_ADDRESS:
            yield f"ip {word} {_prefix(rule[side])}"
    if proto:
        yield f"ip protocol {proto}"
    for side in ("sport", "dport"):
        if rule[side].tolist() != _ANY_PORT:
            first, last = rule[side].tolist()
            yield f"{proto} {side} {first}-{last}" if first < last else f"{proto} {side} {first}"


def iptables_rules(policy: Policy) -> str:
    """PREROUTING of the table raw, for iptables-restore: as `nft_rules`."""
    lines = [f"-A PREROUTING {' '.join(_iptables_words(rule))} -j DROP" for rule in policy.rules]
    return "\n".join(["*raw", ":PREROUTING DROP [0:0]", *lines, "COMMIT", ""])


def _iptables_words(rule: Any) -> Iterator[str]:
    for side, option in (("src", "-s"), ("dst", "-d")):
        if rule[side][:, 1].tolist() != _ANY_ADDRESS:
            yield f"{option} {_prefix(rule[side])}"
    if proto := _PROTOCOLS.get(int(rule["proto"])):
        yield f"-p {proto}"
    for side in ("sport", "dport"):
        if rule[side].tolist() != _ANY_PORT:
            yield f"--{side} {rule[side][0]}:{rule[side][1]}"


@contextmanager
def xdp_filter(source: str, features: str | None) -> Iterator[Program]:
    """xdp-filter's program with one rule, which drops a source address; on no port any more.

    Args:
        source: an IPv4 address.
        features: what is compiled in, as its option `-f` has it; None for all.
    """
    from xdpgw.holder import holder_of
    from xdpgw.kernel import Program
    from xdpgw.testbed import TestBed

    with TestBed() as bed:
        with bed.gateway.entered():
            _filter("load", *(("-f", features) if features else ()), "left")
            try:
                _filter("ip", "-m", "src", source)
                holder = holder_of(bed.ifindex())
                assert holder is not None
                program = Program.from_id(holder.prog_id)
            finally:
                _filter("unload", "left")
        with program:
            yield program


def _filter(*words: str) -> None:
    _run("xdp-filter", *words)


def _run(*words: str, text: str | None = None) -> None:
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def _installer(*words: str) -> Callable[[str], None]:
    def install(text: str) -> None:
        _run(*words, text=text)

    return install


install_nft = _installer("nft", "-f", "-")
install_iptables = _installer("iptables-restore")
