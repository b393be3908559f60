"""`xdpgw run`: the process in charge of a filter, and what can be read of any filter."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from xdpgw import _abi as abi
from xdpgw import blocks, gateway, rules, stats
from xdpgw import config as configs
from xdpgw.config import Config
from xdpgw.errors import XdpgwError
from xdpgw.events import EventReader, Names, Pump
from xdpgw.feeds import Feeds, Renewed
from xdpgw.live_sets import LiveSets
from xdpgw.metrics_endpoint import Endpoint
from xdpgw.pins import Instance, Manifest
from xdpgw.render import applied_text
from xdpgw.session import find_session
from xdpgw.sink_stats import SinkBoard
from xdpgw.snapshot import PortState, Snapshot
from xdpgw.targets import Prepared, Targets, prepare

__all__ = ["rules_of_file", "rules_of_filter", "serve", "status_of"]

WAIT_MS = 200
"""How long the log may sleep before the process looks at its signals and at files that are due."""

PATIENCE_S = 1.0
"""After it, a second signal ends who waits for a reader. timeout(1) sends each signal twice."""

Note = Callable[[str], None]


class Signals:
    """What the process was told by signals, to be looked at between two batches."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._stopped_at = 0.0

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop = True

    def _stop_printing(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.stop:
            self.stop, self._stopped_at = True, now
        elif now - self._stopped_at > PATIENCE_S:
            raise KeyboardInterrupt

    def _reload(self, signum: int, frame: FrameType | None) -> None:
        self.reload = True

    @contextmanager
    def caught(self, *, printing: bool = False) -> Iterator[Signals]:
        """Catch SIGINT and SIGTERM (stop) and SIGHUP (reload) instead of dying of them.

        Args:
            printing: SIGHUP, of a terminal that is gone, means stop, and nothing under nohup. A
                later signal raises KeyboardInterrupt, as nobody may read what is being printed.
        """
        stop = self._stop_printing if printing else self._stop
        handlers = {signal.SIGINT: stop, signal.SIGTERM: stop}
        if not printing:
            handlers[signal.SIGHUP] = self._reload
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handlers[signal.SIGHUP] = stop
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(policy: Config, *, note: Note, instance: Instance | None = None) -> None:
    """Put a policy in force, feed its log to its sinks until told to stop.

    Args:
        policy: as read from its file, which SIGHUP reads again.
        note: takes what a person should know, a line or a few at a time.
        instance: where the filter's pins are; this network namespace's if None.

    Raises:
        XdpgwError: it could not be put in force; what was in force before still is.
    """
    instance = instance or Instance()
    session = find_session()
    prepared, existed, names = prepare(policy), instance.exists, EventNames(instance)
    with (
        Signals().caught() as signals,
        LiveSets() as live,
        Pump(on_error=note) as pump,
        Endpoint(note) as metrics,
        gateway.take_charge(
            policy,
            instance,
            session=session,
            live=live,
            first=partial(_begin, policy, pump, names, metrics),
        ) as applied,
        Targets(instance, note) as targets,
        blocks.sweeping(instance, note),
        closing(SinkBoard(instance)) as board,
    ):
        feeds = Feeds(note)
        try:
            targets.serve(policy, applied.manifest, prepared)
        except BaseException:
            if not existed:  # a start is whole or not at all
                gateway.detach(instance)
            raise
        note(applied_text(applied))
        while not signals.stop:
            feeds.follow(policy)
            metrics.follow(policy.metrics)
            changed = _pump(
                policy, instance, signals, note, targets, feeds, live, pump, names, board
            )
            if not changed:
                break
            policy = changed
        _close(pump, board, note)


class EventNames:
    """What slots in events are called, by the policies that were in force when they were written.

    A slot goes to another rule only two reloads later, so the names of before stand in for those
    that are gone.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._read_at: tuple[int | None, int | None] | None = None
        self._names = Names()

    def now(self) -> Names:
        """For events that were drained before this is called, whoever replaces the policy."""
        at = self._instance.generation, self._instance.announced
        if at != self._read_at:
            for manifest in self._instance.manifests():
                found = Names.of(ports=manifest.port_slots, rules=manifest.rule_slots)
                self._names = found.over(self._names)
            self._read_at = at
        return self._names


def _begin(policy: Config, pump: Pump, names: EventNames, metrics: Endpoint) -> None:
    """What can fail for want of a file or an address, before anything in the kernel changes."""
    names.now()  # of an orphaned filter, whose events are still in the ring
    pump.change(policy.log.sinks)
    metrics.serve(policy.metrics)


def _serve_targets(
    policy: Config,
    manifest: Manifest,
    targets: Targets,
    note: Note,
    prepared: Prepared | None = None,
) -> None:
    """Take up a policy that is in force already: what cannot be served gets `else`."""
    try:
        targets.serve(policy, manifest, prepared or prepare(policy))
    except XdpgwError as error:
        note(f"{error}\nuntil the next reload, packets for a target get the verdict after else")


def _pump(
    policy: Config,
    instance: Instance,
    signals: Signals,
    note: Note,
    targets: Targets,
    feeds: Feeds,
    live: LiveSets,
    pump: Pump,
    names: EventNames,
    board: SinkBoard,
) -> Config | None:
    """Move events to the policy's sinks. Returns the next policy, None when it is time to stop."""
    manifest = instance.manifest()
    if manifest is None:
        return None
    with ExitStack() as stack:
        books = stack.enter_context(instance.books())
        reader = stack.enter_context(EventReader(books["events"]))
        while True:
            _move(reader, names, pump, timeout_ms=WAIT_MS)
            targets.publish()
            board.publish(pump.stats)
            if signals.stop:
                # Sockets go before the program: some drivers take the other order badly.
                targets.close()
                if manifest.on_exit == "detach":
                    gateway.detach(instance)
                _drain(reader, names, pump)
                _tell_log(stats.read_log(books["log_counters"]), note)
                return None
            if (generation := instance.generation) != live.generation:
                live.let_go(generation)
                current = instance.manifest()
                if current is None:
                    note("the filter was detached by another process")
                    targets.close()
                    _drain(reader, names, pump)
                    return None
                note("the policy was replaced by another process")
                replaced = _replaced(current, note)
                if replaced is None:
                    manifest = current
                    feeds.rest()  # or the policy of before came back with them
                    continue
                _serve_targets(replaced, current, targets, note)
                pump.change(replaced.log.sinks, strict=False)
                return replaced
            if signals.reload:
                signals.reload = False
                renewed = _reload(policy, instance, note, targets, live, pump)
                if renewed is not None:
                    return renewed
            fresh = feeds.poll()
            if fresh is not None:
                renewed = _refresh(fresh, instance, note, targets, live, pump)
                if renewed is not None:
                    return renewed


def _replaced(manifest: Manifest, note: Note) -> Config | None:
    """The policy that another process put in force; None where this one cannot read it, as when a
    file of a set is gone by now."""
    file = manifest.policy_file
    try:
        return configs.loads(manifest.policy_text, file=file, base=Path(file).parent)
    except XdpgwError as error:
        note(
            f"{error}\nthat policy is in force; sinks and targets here stay as they were, and no "
            "file of a set is looked at, until the next reload"
        )
        return None


def _move(reader: EventReader, names: EventNames, pump: Pump, *, timeout_ms: int) -> int:
    """Drain once and hand over what came. Returns the number of events."""
    events = reader.drain(timeout_ms)
    return pump.hand_over(events, names.now())


def _drain(reader: EventReader, names: EventNames, pump: Pump) -> None:
    """Read what is in the ring now; a filter that stays may go on filling it for ever."""
    left = reader.used_bytes
    while left > 0:
        moved = _move(reader, names, pump, timeout_ms=0)
        if not moved:
            return
        left -= moved * abi.event_dtype().itemsize


def _close(pump: Pump, board: SinkBoard, note: Note) -> None:
    pump.close()
    board.publish(pump.stats, now=True)
    for sink in pump.stats:
        if sink.lost:
            note(f"the sink {sink.name} lost {sink.lost} of {sink.written + sink.lost} events")


def _tell_log(log: stats.LogStats, note: Note) -> None:
    if log.lost or log.limited:
        note(
            f"log: events due {log.due} = written {log.written} + lost {log.lost} "
            f"+ over the rate {log.limited}"
        )


def _reload(
    policy: Config,
    instance: Instance,
    note: Note,
    targets: Targets,
    live: LiveSets,
    pump: Pump,
) -> Config | None:
    apply = partial(gateway.apply, live=live)
    return _put(lambda: configs.read(policy.path), apply, instance, note, targets, pump)


def _refresh(
    fresh: Renewed,
    instance: Instance,
    note: Note,
    targets: Targets,
    live: LiveSets,
    pump: Pump,
) -> Config | None:
    note(fresh.text)
    update = partial(gateway.update_sets, live=live)
    return _put(lambda: fresh.policy, update, instance, note, targets, pump)


def _put(
    read: Callable[[], Config],
    apply: Callable[..., gateway.Applied],
    instance: Instance,
    note: Note,
    targets: Targets,
    pump: Pump,
) -> Config | None:
    """Put another policy in force; None where it cannot be, which is told."""
    try:
        renewed = read()
        prepared = prepare(renewed)  # before anything in force changes
        with pump.opening(renewed.log.sinks) as opened:
            applied = apply(renewed, instance, session=find_session())
            pump.take(opened)
    except XdpgwError as error:
        note(f"{error}\nthe policy in force stays in force")
        return None
    note(applied_text(applied))
    _serve_targets(renewed, applied.manifest, targets, note, prepared)
    return renewed


def status_of(found: Snapshot) -> dict[str, Any]:
    """All that can be said of a filter, from its pins alone; counters in packets, bytes and
    events."""
    manifest = found.manifest
    return {
        "policy_file": manifest.policy_file,
        "loaded_at_ns": manifest.loaded_at_ns,
        "version": manifest.version,
        "in_charge": found.in_charge,
        "pins": found.pins,
        "on_exit": manifest.on_exit,
        "ports": [_port_status(port) for port in found.ports],
        "log": {
            "sources": manifest.log_sources,
            **asdict(found.log),
            "sinks": [msgspec.structs.asdict(sink) for sink in found.sinks],
        },
        "blocks": found.blocks,
    }


def _port_status(port: PortState) -> dict[str, Any]:
    return {
        "port": port.port,
        "ifindex": port.ifindex,
        "mode": port.mode,
        "notes": list(port.notes),
        "attached": port.attached,
        "received": asdict(port.stats.received),
        "counters": [
            {"verdict": verdict.text, "reason": reason.text, **asdict(count)}
            for (verdict, reason), count in port.stats.by.items()
        ],
    }


def rules_of_file(policy: Config) -> list[dict[str, Any]]:
    """The rules of a policy, as `rules_of_filter` gives those in force, without counters."""
    lines = rules.format_rules(policy.rules).splitlines()
    return [
        {"name": rule.name, "text": line, "packets": None, "bytes": None}
        for rule, line in zip(policy.rules, lines, strict=True)
    ]


def rules_of_filter(instance: Instance, manifest: Manifest) -> list[dict[str, Any]]:
    """The rules in force, in order, with what each decided."""
    with instance.books() as books:
        counts = stats.read_rules(books["rule_counters"], manifest.rule_slots)
    return [
        {
            "name": line.split()[0],
            "text": line,
            "packets": counts[line.split()[0]].packets,
            "bytes": counts[line.split()[0]].bytes,
        }
        for line in manifest.rules_text.splitlines()
    ]
