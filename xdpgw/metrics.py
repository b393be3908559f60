"""What a filter tells, as Prometheus reads it: a snapshot in, families of metrics out.

Label values are the words of the tables in bpf/abi.h. What must not be missed when it first
happens, such as the reason `error`, is told as 0 before.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from xdpgw import __version__
from xdpgw import _abi as abi
from xdpgw._abi import LogCounter, Reason, Verdict
from xdpgw.stats import Counter
from xdpgw.target_stats import COUNTERS

if TYPE_CHECKING:
    from xdpgw.sink_stats import SinkStats
    from xdpgw.snapshot import PortState, RuleState, Snapshot

__all__ = ["PLAIN", "families", "page"]

PLAIN = "text/plain"
"""What to accept for the text format that every reader knows."""

Read = Callable[[], "Snapshot | None"]

Values = Iterable[tuple[tuple[str, ...], float]]
"""Of labels, in the order of their names, and what is told of them."""

_ALWAYS = frozenset(
    {(verdict, Reason.RULE) for verdict in Verdict}
    | {(verdict, reason) for verdict in (Verdict.PASS, Verdict.DROP) for reason in Reason}
)
"""Pairs that are told of each port, whether they occurred or not."""

_SOCKET = ("target", "port", "queue")


def page(read: Read, accept: str = PLAIN, *, rules: bool = True) -> tuple[str, bytes]:
    """A scrape.

    Args:
        read: gives the snapshot to tell; None where no filter is in force.
        accept: a media type, which chooses the format.
        rules: whether with metrics of each rule.

    Returns:
        content type and text.

    Raises:
        XdpgwError: as `read`.
    """
    registry = CollectorRegistry()
    registry.register(_Once(families(read(), rules=rules)))
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


class _Once(Collector):
    """A registry wants an object to ask."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._found


def families(found: Snapshot | None, *, rules: bool = True) -> Iterator[Metric]:
    """All metrics, in the order of docs/metrics.md."""
    build = {
        "version": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    yield _gauge(
        "xdpgw_build_info",
        "1; which xdpgw tells this, and the kernel that it runs on.",
        build,
        [(tuple(build.values()), 1)],
    )
    yield _gauge("xdpgw_in_force", "Whether a filter is in force.", (), [((), found is not None)])
    if found is None:
        return
    yield from _filter(found)
    yield from _ports(found.ports)
    if rules:
        yield from _rules(found.rules)
    yield _counter(
        "xdpgw_limit_dropped_total",
        "Packets that a limit dropped as they were over its rate.",
        ("rule",),
        (((name,), rule.count.packets) for name, rule in found.limits.items()),
    )
    yield _gauge("xdpgw_blocks", "Sources that are blocked.", (), [((), found.blocks)])
    yield _gauge(
        "xdpgw_blocks_room", "Sources that can be blocked at once.", (), [((), abi.BLOCK_SLOTS)]
    )
    yield from _log(found)
    yield from _sinks(found.sinks)
    yield from _targets(found)


def _filter(found: Snapshot) -> Iterator[Metric]:
    manifest = found.manifest
    yield _gauge(
        "xdpgw_in_charge",
        "Whether a process feeds the log and serves the AF_XDP targets; 0: orphaned.",
        (),
        [((), found.in_charge)],
    )
    yield _gauge(
        "xdpgw_policy_loaded_timestamp_seconds",
        "When the policy came into force.",
        ("file",),
        [((manifest.policy_file,), manifest.loaded_at_ns / 1e9)],
    )
    yield _gauge("xdpgw_rules", "Rules in force.", (), [((), len(found.rules))])


def _ports(ports: Iterable[PortState]) -> Iterator[Metric]:
    yield _gauge(
        "xdpgw_port_mode",
        "1; whether the program runs in the driver (native) or behind it (generic).",
        ("port", "mode"),
        (((x.port, x.mode), 1) for x in ports),
    )
    yield _gauge(
        "xdpgw_port_attached",
        "Whether the interface that was attached is still there.",
        ("port",),
        (((x.port,), x.attached) for x in ports),
    )
    counts = [
        ((port.port, verdict.text, reason.text), port.stats.by.get((verdict, reason), Counter()))
        for port in ports
        for verdict, reason in sorted(_ALWAYS | port.stats.by.keys())
    ]
    labels = ("port", "verdict", "reason")
    yield _counter(
        "xdpgw_packets_total",
        f"Packets received, by what they got: {_meanings(Verdict)}; and why: {_meanings(Reason)}.",
        labels,
        ((key, count.packets) for key, count in counts),
    )
    yield _counter(
        "xdpgw_bytes_total",
        "Bytes of these packets: frames on the wire, without FCS.",
        labels,
        ((key, count.bytes) for key, count in counts),
    )


def _rules(rules: Mapping[str, RuleState]) -> Iterator[Metric]:
    labels = ("rule", "action")
    yield _counter(
        "xdpgw_rule_packets_total",
        "Packets that a rule decided about; of a limit: that it dropped.",
        labels,
        (((name, rule.action), rule.count.packets) for name, rule in rules.items()),
    )
    yield _counter(
        "xdpgw_rule_bytes_total",
        "Bytes of these packets.",
        labels,
        (((name, rule.action), rule.count.bytes) for name, rule in rules.items()),
    )


def _log(found: Snapshot) -> Iterator[Metric]:
    yield _counter(
        "xdpgw_log_events_total",
        f"Events of the log. {_meanings(LogCounter)}. due = written + lost + limited.",
        ("state",),
        (((x.text,), getattr(found.log, x.text)) for x in LogCounter),
    )
    yield _gauge(
        "xdpgw_log_ring_bytes", "Events that nobody drained yet.", (), [((), found.ring.used)]
    )
    yield _gauge(
        "xdpgw_log_ring_size_bytes", "Room in the ring of events.", (), [((), found.ring.size)]
    )


def _sinks(sinks: Iterable[SinkStats]) -> Iterator[Metric]:
    # Two that write to the same place are one here: a series must not be told twice.
    named: dict[str, list[SinkStats]] = {}
    for sink in sinks:
        named.setdefault(sink.name, []).append(sink)
    yield _counter(
        "xdpgw_sink_events_total",
        "Events that the log handed to a sink, by what became of them.",
        ("sink", "state"),
        (
            ((name, state), sum(getattr(x, state) for x in found))
            for name, found in named.items()
            for state in ("written", "lost")
        ),
    )
    yield _gauge(
        "xdpgw_sink_queued_events",
        "Events that wait for a sink.",
        ("sink",),
        (((name,), sum(x.queued for x in found)) for name, found in named.items()),
    )
    yield _gauge(
        "xdpgw_sink_failing",
        "Whether a sink takes nothing now.",
        ("sink",),
        (((name,), any(x.failing for x in found)) for name, found in named.items()),
    )


def _targets(found: Snapshot) -> Iterator[Metric]:
    yield _gauge(
        "xdpgw_target_served",
        "Whether a socket serves the target; 0: its packets get the verdict after else.",
        ("target",),
        (((name,), name not in found.unserved) for name in found.manifest.target_slots),
    )
    octets = tuple(name for name in COUNTERS if name.endswith("_bytes"))
    frames = tuple(name for name in COUNTERS if name not in octets)
    # A port that has left the policy has no name, and its sockets are about to close.
    rows = [row for row in found.sockets if row["port"] is not None]
    yield _counter(
        "xdpgw_target_frames_total",
        "Frames of a socket, by what became of them.",
        (*_SOCKET, "state"),
        _of_sockets(rows, lambda row: {name: row["counters"][name] for name in frames}),
    )
    yield _counter(
        "xdpgw_target_bytes_total",
        "Bytes of its frames.",
        (*_SOCKET, "state"),
        _of_sockets(rows, lambda row: {name: row["counters"][name] for name in octets}),
    )
    yield _counter(
        "xdpgw_target_statistics_total",
        "What the kernel counts of a socket (XDP_STATISTICS of if_xdp.h).",
        (*_SOCKET, "statistic"),
        _of_sockets(rows, lambda row: row["statistics"]),
    )
    yield _gauge(
        "xdpgw_target_ring_descriptors",
        "Descriptors in a ring of a socket now.",
        (*_SOCKET, "ring"),
        _of_sockets(rows, lambda row: {name: x["level"] for name, x in row["rings"].items()}),
    )
    yield _gauge(
        "xdpgw_target_ring_size_descriptors",
        "Descriptors that it has room for.",
        (*_SOCKET, "ring"),
        _of_sockets(rows, lambda row: {name: x["size"] for name, x in row["rings"].items()}),
    )
    yield _gauge(
        "xdpgw_target_chunks_free",
        "Chunks of a socket's memory that hold no frame.",
        _SOCKET,
        ((_socket_labels(row), row["chunks_free"]) for row in rows),
    )


def _of_sockets(
    rows: Iterable[Mapping[str, Any]], values: Callable[[Mapping[str, Any]], Mapping[str, int]]
) -> Values:
    for row in rows:
        for name, value in values(row).items():
            yield (*_socket_labels(row), name), value


def _socket_labels(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A socket that only sends has no target."""
    return row["target"] or "", row["port"], str(row["queue"])


def _meanings(table: type[Verdict] | type[Reason] | type[LogCounter]) -> str:
    return ", ".join(f"{x.text} ({x.meaning})" for x in table)


def _counter(name: str, text: str, labels: Iterable[str], values: Values) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=tuple(labels)), values)


def _gauge(name: str, text: str, labels: Iterable[str], values: Values) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=tuple(labels)), values)


def _filled(family: Any, values: Values) -> Metric:
    for labels, value in values:
        family.add_metric(labels, float(value))
    return family  # type: ignore[no-any-return]
