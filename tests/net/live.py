"""A live filter on a test bed, and its books."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.net.process import until
from xdpgw import config, gateway
from xdpgw._abi import Reason, Verdict
from xdpgw.config import Config
from xdpgw.kernel import Map
from xdpgw.pins import Instance, Manifest
from xdpgw.testbed import TestBed
from xdpgw.testing import Books, read_books

__all__ = ["Live", "live", "with_mode"]


def with_mode(policy: str, mode: str) -> str:
    """A policy with this mode on its ports left and right, whatever it says itself."""
    for port in ("left", "right"):
        policy = policy.replace(
            f'[ports.{port}]\nmode = "auto"', f'[ports.{port}]\nmode = "{mode}"'
        )
    return policy


@dataclass(frozen=True, slots=True)
class Grown:
    """By how much books grew: each (verdict, reason) that grew, and every rule."""

    counters: Mapping[tuple[Verdict, Reason], int]
    rules: Mapping[str, int]


@dataclass
class Live:
    """A filter in force on a bed."""

    bed: TestBed
    instance: Instance
    manifest: Manifest
    maps: Mapping[str, Map] = field(default_factory=dict)
    attached_at: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each port: its ifindex, and what the kernel had received on it by the attach."""

    def note_attached(self, ports: Iterable[str]) -> None:
        """Remember where the kernel's own count stands on ports that are attached now."""
        for port in ports:
            self.attached_at[port] = self.bed.ifindex(port), self.bed.received(port)

    def adds_up(self) -> bool:
        """Whether each port's counters sum to what the kernel itself says the port received."""
        return all(
            self.books(port).received == self.bed.received(port) - before
            for port, (ifindex, before) in self.attached_at.items()
            if port in self.manifest.ports and self.manifest.ports[port].ifindex == ifindex
        )

    def apply(self, policy: str | Config) -> gateway.Applied:
        """Put another policy in force."""
        read = config.loads(policy) if isinstance(policy, str) else policy
        with self.bed.gateway.entered():
            applied = gateway.apply(read, self.instance)
        self.manifest = applied.manifest
        self.note_attached(applied.attached)
        return applied

    def books(self, port: str | None = None) -> Books:
        """The books as they stand."""
        return read_books(self.maps, self.manifest, port)

    def wait_for(self, before: Books, packets: int, timeout_s: float = 5.0) -> Books:
        """The books once so many more packets have been received."""
        return before.wait_for(self.maps, self.manifest, packets=packets, timeout_s=timeout_s)

    def send(self, frames: Sequence[bytes]) -> Grown:
        """Send frames to the port left; what they were counted as."""
        with self.bed.wire() as wire:
            before = self.books()
            wire.send(frames)
            after = self.wait_for(before, len(frames))
        grown = {key: n - before.counters.get(key, 0) for key, n in after.counters.items()}
        rules = {name: n - before.rules[name] for name, n in after.rules.items()}
        return Grown({key: n for key, n in grown.items() if n}, rules)


@contextmanager
def live(policy: str, bed: TestBed) -> Iterator[Live]:
    """Put a policy in force on a bed; on leaving, detach, and hold the books to their word."""
    with ExitStack() as stack:
        with bed.gateway.entered():
            instance = Instance()
            stack.callback(gateway.detach, instance)
            manifest = gateway.apply(config.loads(policy), instance).manifest
            maps = stack.enter_context(instance.books())
        found = Live(bed, instance, manifest, maps)
        found.note_attached(manifest.ports)
        yield found
        until(found.adds_up, "received by the kernel = the sum over (verdict, reason)", 5.0)
        assert found.books().log_adds_up
