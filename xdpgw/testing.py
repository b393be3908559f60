"""For tests of policies: judge frames without attaching anything, read a live filter's books.

    with judge('[policy]\\nrules = "web drop tcp to port 80"') as verdict_of:
        assert verdict_of(frame)["verdict"] == "drop"

`judge` needs root (BPF_PROG_TEST_RUN), but no interface. For frames on real interfaces see
`xdpgw.testbed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpgw import config, stats
from xdpgw._abi import Reason, Verdict
from xdpgw.errors import XdpgwError
from xdpgw.explain import Explanation, explainer

if TYPE_CHECKING:
    from xdpgw.kernel import Map
    from xdpgw.pins import Manifest

__all__ = ["Books", "judge", "read_books"]


@contextmanager
def judge(policy: str, port: str | None = None) -> Iterator[Callable[[bytes], Explanation]]:
    """A function from a frame to its explanation, under a policy.

    Args:
        policy: the text of a policy file.
        port: the port that frames come in on; the policy's first one if None.

    Raises:
        ConfigError: the policy is wrong.
        PrivilegeError: it takes root.
    """
    with explainer(config.loads(policy), port) as found:
        yield lambda frame: next(found.explain([frame]))


@dataclass(frozen=True, slots=True)
class Books:
    """The books of a filter: packets by (verdict, reason) and by rule, and the log's."""

    counters: Mapping[tuple[Verdict, Reason], int]
    rules: Mapping[str, int]
    log: stats.LogStats

    @property
    def received(self) -> int:
        """Packets of all ports."""
        return sum(self.counters.values())

    @property
    def log_adds_up(self) -> bool:
        """due = written + lost + limited."""
        return self.log.due == self.log.written + self.log.lost + self.log.limited

    def wait_for(
        self, maps: Mapping[str, Map], manifest: Manifest, *, packets: int, timeout_s: float = 5.0
    ) -> Books:
        """The books when so many more packets than in these have been received.

        Raises:
            XdpgwError: they did not come in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            now = read_books(maps, manifest)
            if now.received >= self.received + packets:
                # Again: a packet is counted for its port first, then for its rule, then logged.
                return read_books(maps, manifest)
            if time.monotonic() > deadline:
                raise XdpgwError(
                    f"{now.received - self.received} of {packets} packets were received "
                    f"in {timeout_s} s"
                )

    def only_new(self, before: Books) -> tuple[str, str, str | None]:
        """Verdict, reason and rule of the one packet that came since other books.

        Raises:
            XdpgwError: it was not one.
        """
        new = [
            key for key, n in self.counters.items() for _ in range(n - before.counters.get(key, 0))
        ]
        rules = [x for x, n in self.rules.items() for _ in range(n - before.rules.get(x, 0))]
        if len(new) != 1 or len(rules) > 1:
            raise XdpgwError(f"not one packet, but {len(new)}, decided by rules {rules}")
        return new[0][0].text, new[0][1].text, rules[0] if rules else None


def read_books(maps: Mapping[str, Map], manifest: Manifest, port: str | None = None) -> Books:
    """Read the books of a live filter.

    Args:
        maps: `pins.Instance.books`.
        manifest: what the filter says of itself.
        port: packets of this port only; of all if None.
    """
    counters: dict[tuple[Verdict, Reason], int] = {}
    for each in stats.read_ports(maps["counters"], manifest.port_slots):
        if port in (None, each.port):
            for key, count in each.by.items():
                counters[key] = counters.get(key, 0) + count.packets
    rules = stats.read_rules(maps["rule_counters"], manifest.rule_slots)
    return Books(
        counters,
        {name: count.packets for name, count in rules.items()},
        stats.read_log(maps["log_counters"]),
    )
