"""The datapath against the judge of batches, event by event, and what to print of a difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bpf.test_block import blocking
from tests.judges import events, kernel_judge
from tests.reference import parse
from tests.reference_bulk import REASONS, VERDICTS, BulkReference, Judgements, Keys
from xdpgw import _abi as abi
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.explain import Explainer

__all__ = ["Case", "differences", "reproduction"]

_UNKNOWN = -2  # a verdict or reason that the judge of batches has no word for
_VERDICTS = np.array([VERDICTS.index(x.text) for x in Verdict])
_REASONS = np.array([REASONS.index(x.text) if x.text in REASONS else _UNKNOWN for x in Reason])
_FRAGS = np.array([-1 if x is Frag.NOT_IP else x.value for x in Frag])


@dataclass(frozen=True, slots=True)
class Case:
    """A policy, the port that frames come in on, and what else both judges know.

    Args:
        name: how to make it again.
        base: the folder of its netset files.
        blocks: sources that are blocked; the port is `left` then.
    """

    name: str
    text: str
    port: str | None = None
    base: Path = Path()
    blocks: tuple[str, ...] = ()

    @contextmanager
    def kernel(self) -> Iterator[Explainer]:
        """The datapath as a judge."""
        if self.blocks:
            with blocking(self.text) as found:
                found.put(*self.blocks)
                yield found.judge
        else:
            with kernel_judge(self.text, self.port, self.base) as judge:
                yield judge

    def reference(self) -> BulkReference:
        """The judge of batches."""
        return BulkReference.from_text(self.text, self.base, blocks=self.blocks)


def _events_differ(found: NDArray[Any], wanted: Judgements, keys: Keys) -> NDArray[np.bool_]:
    rules = np.where(found["rule"] == abi.NO_RULE, -1, found["rule"].astype(np.int64))
    differ = rules != wanted.rule
    differ |= _VERDICTS[found["verdict"]] != wanted.verdict
    differ |= _REASONS[found["reason"]] != wanted.reason
    # Of a malformed packet, what was read before the fault is the reader's own business.
    return differ | (_keys_differ(found, keys) & ~keys.malformed)


def _keys_differ(found: NDArray[Any], keys: Keys) -> NDArray[np.bool_]:
    columns, has = keys.columns, found["has"]
    told = {
        "family": np.where(found["family"] == 0, -1, found["family"].astype(np.int64)),
        "vlan": np.where(found["vlan"] == abi.VLAN_NONE, -1, found["vlan"].astype(np.int64)),
        "frag": _FRAGS[found["frag"]],
        "len": np.minimum(found["len_bytes"], 65535),
    }
    for flag, names in (
        (Has.PROTO, ("proto", "ttl", "dscp")),
        (Has.PORTS, ("sport", "dport")),
        (Has.TCP_FLAGS, ("tcp_flags",)),
        (Has.ICMP, ("icmp_type", "icmp_code")),
        (Has.ETHERTYPE, ("ethertype",)),
    ):
        for name in names:
            told[name] = np.where(has & flag.value != 0, found[name].astype(np.int64), -1)
    differ = np.zeros(len(found), bool)
    for name, column in told.items():
        differ |= column != columns[name]
    for name, address in (("src", "source"), ("dst", "destination")):
        wanted = keys.addresses[address].view(np.uint8).reshape(len(found), -1)[:, 1:]
        differ |= (found[name] != wanted).any(axis=1)
    return differ


def differences(
    case: Case, frames: Sequence[bytes], keys: Keys
) -> tuple[NDArray[np.intp], Judgements, BulkReference]:
    """Judge frames of 14 bytes at least both ways.

    Returns:
        the frames that are judged in two ways, what was wanted, and the judge that wanted it.
    """
    reference = case.reference()
    wanted = reference.judge(keys, case.port)
    with case.kernel() as judge:
        found = events(judge, frames)
    return np.flatnonzero(_events_differ(found, wanted, keys)), wanted, reference


def reproduction(case: Case, frame: bytes) -> str:
    """One frame that is judged in two ways, under as few rules as do it.

    Of a policy too long to be tried again and again, the rules that decided.
    """
    names, answers = _both(case, frame)
    before, rules, behind = _parts(case)
    chosen = [rule for rule in rules if rule.split(maxsplit=1)[0] in names]
    note = ""
    if len(rules) <= _HALVED_MOST:
        chosen = _fewest(case, frame)
    elif not _differs(_under(case, chosen), frame):
        note = f"(but under all {len(rules)} rules only)\n"
    shown = "\n".join([*before, *chosen, *behind])
    world = f"{case.name} on {case.port}, blocked {list(case.blocks)}, frame {frame.hex()}"
    return f"{world}\n{shown}\n{note}{answers}"


_HALVED_MOST = 200


def _parts(case: Case) -> tuple[list[str], list[str], list[str]]:
    """The lines of a policy: those before its rules, the rules, and the rest."""
    lines = case.text.splitlines()
    first, last = lines.index('rules = """') + 1, lines.index('"""')
    return lines[:first], lines[first:last], lines[last:]


def _under(case: Case, rules: Sequence[str]) -> Case:
    """The case with these rules in place of its own."""
    before, _, behind = _parts(case)
    return replace(case, text="\n".join([*before, *rules, *behind]))


def _fewest(case: Case, frame: bytes) -> list[str]:
    """The rules, halved as long as the two judges differ on the frame."""
    _, rules, _ = _parts(case)
    step = len(rules)
    while step > 1 and rules:
        step = (step + 1) // 2
        at = 0
        while at < len(rules):
            fewer = rules[:at] + rules[at + step :]
            if _differs(_under(case, fewer), frame):
                rules = fewer
            else:
                at += step
    return rules


def _differs(case: Case, frame: bytes) -> bool:
    keys = Keys.of([parse(frame, case.port)])
    return len(differences(case, [frame], keys)[0]) > 0


def _both(case: Case, frame: bytes) -> tuple[set[str | None], str]:
    """The names of the rules that decided, and both answers."""
    key = parse(frame, case.port)
    reference = case.reference()
    wanted = reference.judge(Keys.of([key]), case.port)
    with case.kernel() as judge:
        got = next(judge.explain([frame]))
    rule = reference.rules[wanted.rule[0]].name if wanted.rule[0] >= 0 else None
    verdict, reason = VERDICTS[wanted.verdict[0]], REASONS[wanted.reason[0]]
    told = f"wanted {verdict}, {reason}, {rule}\n       {key}\ngot    {got}"
    return {rule, got["rule"]}, told
