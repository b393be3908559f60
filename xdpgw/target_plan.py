"""Which sockets serve the AF_XDP targets of a policy, and which worker thread serves which. Pure.

An AF_XDP socket gets the frames of one queue of one port, and a queue can be served from one UMEM
only, by one thread without locks. So:

- a worker has a UMEM of its own, and sockets on queues that no other worker has;
- targets that share a queue are sockets on that queue, of the same worker;
- a target that sends does so out of a socket of the same worker, so that the frame crosses
  without a copy, and out of one that does not receive, because the kernel keeps what it counts of
  received frames on the cache line that sending needs (a flooded reflect sent 1.15 times as much
  so). Ports that forward to each other therefore share their workers, and get as many as the one
  with the fewest queues has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xdpgw import _abi as abi
from xdpgw.config import Config, Target
from xdpgw.errors import XdpgwError
from xdpgw.rules import On, RuleSet

__all__ = ["SocketPlan", "WorkerPlan", "plan_targets"]

BURST_CHUNKS = 64
"""Frames that a worker holds at a time (XG_WORKER_BURST)."""


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """One socket.

    Args:
        port: whose frames it gets, or sends.
        queue: of the port.
        target: whose handler gets its frames; None where it only sends.
        sends: whether it needs a TX ring.
        to: index, in the worker's sockets, of the one that the handler sends out of.
        beside: index of the worker's first socket on the same queue; None if it is that itself.
    """

    port: str
    queue: int
    target: str | None
    sends: bool
    to: int | None = None
    beside: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One thread: its sockets, in the order in which they are opened."""

    number: int
    sockets: tuple[SocketPlan, ...]

    @property
    def ports(self) -> frozenset[str]:
        """The ports that it serves or sends out of."""
        return frozenset(x.port for x in self.sockets)


def plan_targets(ruleset: RuleSet, queues: Mapping[str, int]) -> tuple[WorkerPlan, ...]:
    """Plan the workers of a policy.

    Args:
        ruleset: the policy, resolved.
        queues: how many receive queues each port has.

    Raises:
        XdpgwError: a port has more queues than targets can be served on.
    """
    config, reach = ruleset.config, _reachable(ruleset)
    if not any(reach.values()):
        return ()
    served = {port: _served(config, port, queues[port]) for port in config.ports}
    workers: list[WorkerPlan] = []
    for group in _groups(config, reach):
        width = min(len(served[port]) for port in group)
        for index in range(width):
            mine = {port: served[port][index::width] for port in group}
            workers.append(WorkerPlan(len(workers), _sockets(config, reach, mine)))
    return tuple(workers)


def _reachable(ruleset: RuleSet) -> dict[str, list[Target]]:
    """Port -> targets that some rule may send its packets to."""
    reach: dict[str, list[Target]] = {port: [] for port in ruleset.config.ports}
    for rule in ruleset.rules:
        if rule.action.kind != "af_xdp":
            continue
        on = {x.port for x in rule.predicates if isinstance(x, On)}
        target = ruleset.config.af_xdp[str(rule.action.target)]
        for port in reach:
            if on <= {port} and target not in reach[port]:
                reach[port].append(target)
    return reach


def _served(config: Config, port: str, count: int) -> list[int]:
    wanted = config.ports[port].queues
    if wanted != "all":
        return list(wanted)
    if count > abi.MAX_QUEUES:
        raise XdpgwError(
            f"port {port} has {count} receive queues, and AF_XDP targets serve "
            f"{abi.MAX_QUEUES} of a port at most",
            f"ethtool -L {port} combined {abi.MAX_QUEUES}, or queues = [0, ...] in [ports.{port}]",
        )
    return list(range(count))


def _groups(config: Config, reach: Mapping[str, list[Target]]) -> Iterator[list[str]]:
    """Ports that forward to each other, together; a port that neither gets nor sends is in none."""
    groups: dict[str, set[str]] = {port: {port} for port in config.ports if reach[port]}
    for port, targets in reach.items():
        for target in targets:
            if target.kind == "forward":
                joined = groups[port] | groups.get(target.argument, {target.argument})
                for member in joined:
                    groups[member] = joined
    for port in config.ports:
        if port in groups and port == min(groups[port]):
            yield sorted(groups[port])


def _sockets(
    config: Config, reach: Mapping[str, list[Target]], mine: Mapping[str, list[int]]
) -> tuple[SocketPlan, ...]:
    """The sockets of one worker: those that receive, then those that handlers send out of."""
    receiving = [
        (port, queue, target)
        for port, queues in mine.items()
        for queue in queues
        for target in reach[port]
    ]
    first: dict[tuple[str, int], int] = {}
    for index, (port, queue, _) in enumerate(receiving):
        first.setdefault((port, queue), index)
    senders: dict[tuple[str, int], int] = {}

    def sender(port: str, queue: int, target: Target) -> int | None:
        if target.kind == "forward":
            other = mine[target.argument]
            out = (target.argument, other[mine[port].index(queue) % len(other)])
        elif target.kind == "reflect":
            out = (port, queue)
        else:
            return None
        return senders.setdefault(out, len(receiving) + len(senders))

    plans = [
        SocketPlan(
            port,
            queue,
            target.name,
            target.kind == "python",
            sender(port, queue, target),
            None if first[port, queue] == index else first[port, queue],
        )
        for index, (port, queue, target) in enumerate(receiving)
    ]
    return (*plans, *(SocketPlan(*out, None, True, None, first.get(out)) for out in senders))
