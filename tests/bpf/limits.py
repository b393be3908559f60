"""A filter that judges frames by test runs and spends what its limits have, and its buckets."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from xdpgw import _abi as abi
from xdpgw import config, loader, rules, stats
from xdpgw._abi import Reason, Verdict
from xdpgw.compile import Names, compile_rules, names_of
from xdpgw.limit_state import Address, hash_source
from xdpgw.limits import limit_name, limits_in

__all__ = ["Filter", "filtering", "policy"]

XDP_PASS = 2
WORD = 1 << 64


def policy(*lines: str, fragments: str = "rules", default: str = "pass") -> str:
    """A policy file with these rules and without a log."""
    text = "\n".join(lines)
    return (
        f'[policy]\ndefault = "{default}"\nguard = false\nfragments = "{fragments}"\n'
        f'rules = """\n{text}\n"""\n[ports.left]\n[log]\nsources = "off"\n'
    )


@dataclass
class Filter:
    """A loaded policy. Buckets of sources are those of its first limit."""

    loaded: loader.Loaded

    def passes(self, *frames: bytes) -> list[bool]:
        """Which frames pass, one after the other."""
        found, _ = self.loaded.programs["left"].test_many(frames)
        return [bool(x == XDP_PASS) for x in found]

    def counters(self) -> dict[tuple[Verdict, Reason], int]:
        """Packets so far."""
        (port,) = stats.read_ports(self.loaded.maps["counters"], {"left": 0})
        return {key: count.packets for key, count in port.by.items()}

    def decided(self) -> dict[str, int]:
        """Packets that each rule decided so far, without those that decided none."""
        slots = self.loaded.image.names.rules
        counts = stats.read_rules(self.loaded.maps["rule_counters"], slots)
        return {name: count.packets for name, count in counts.items() if count.packets}

    @property
    def bucket(self) -> int:
        """Of the first limit per rule."""
        raw = self.loaded.maps["limit_buckets"].lookup(bytes(4))
        return int.from_bytes(raw, "little")

    @bucket.setter
    def bucket(self, value: int) -> None:
        self.loaded.maps["limit_buckets"].update(bytes(4), value.to_bytes(8, "little"))

    def find(self, source: str | None) -> tuple[int, int, int]:
        """Line, place in it, and time in ns of the bucket of a source.

        Raises:
            StopIteration: it has none.
        """
        rule, limit = limits_in(self.loaded.image.ruleset.rules)[0]
        seed = self.loaded.image.names.seeds[limit_name(rule)]
        address: Address | None = None if source is None else ipaddress.ip_address(source)
        at = hash_source(seed, limit, address)
        line = self.line(at.line)
        way, time = next(
            (way, time)
            for way, word in enumerate(line)
            if word and (time := (int(word) - at.key) % WORD) < 1 << abi.LIMIT_TIME_BITS + 8
        )
        return at.line, way, time

    def line(self, number: int) -> np.ndarray:
        """The words of a line."""
        raw = self.loaded.maps["limit_lines"].lookup(number.to_bytes(4, "little"))
        return np.frombuffer(raw, np.uint64).copy()

    def move(self, source: str | None, by_ns: int) -> None:
        """Let the time of a source's bucket be another one."""
        number, way, _ = self.find(source)
        words = self.line(number)
        words[way] = (int(words[way]) + by_ns) % WORD
        self.loaded.maps["limit_lines"].update(number.to_bytes(4, "little"), words.tobytes())

    def offenders(self) -> set[tuple[int, str]]:
        """Family and address of who was over the rate of the first limit."""
        raw = self.loaded.maps["limit_offenders"].lookup(bytes(4))
        rows = np.frombuffer(raw, abi.offender_dtype())
        return {
            (int(row["family"]), str(ipaddress.ip_address(bytes(row["addr"])[: 4 * size])))
            for row in rows
            if row["ts_ns"]
            for size in [1 if row["family"] == 4 else 4]
        }


@contextmanager
def filtering(text: str, new_seed: Callable[[int], int] = int) -> Iterator[Filter]:
    """Load a policy that names the port left; new_seed gives a limit's seed from its slot."""
    ruleset = rules.resolve(config.loads(text))
    image = compile_rules(ruleset, names_of(ruleset, Names(), new_seed))
    ports: Sequence[str] = ["left"]
    with loader.load(image, ports) as loaded:
        yield Filter(loaded)
