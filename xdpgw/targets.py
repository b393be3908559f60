"""The AF_XDP targets of a policy in force: sockets, worker threads, and what they tell.

`Targets` is what `xdpgw run` holds: it opens the sockets that `target_plan` asks for, starts a
thread a worker, and puts the sockets into the pinned XSKMAP, from where on the program hands them
frames. Stopping goes the other way: out of the XSKMAP first, then the threads, which handle what
is in the rings, then the sockets. If the process dies instead, the kernel does the first step: a
closed socket leaves the XSKMAP, and the program falls back to what the rule says with `else`.

What the sockets count is published a few times a second in a pinned map, `sockets`, a row a
socket, which `xdpgw targets` reads without asking the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdpgw import _abi as abi
from xdpgw.config import Config
from xdpgw.errors import FastpathError
from xdpgw.facts import receive_queues
from xdpgw.kernel import Map
from xdpgw.pcapng import PcapngFile
from xdpgw.python_handler import load_handlers
from xdpgw.rules import resolve
from xdpgw.target_plan import WorkerPlan, plan_targets
from xdpgw.target_worker import Note, Worker

if TYPE_CHECKING:
    from xdpgw.pins import Instance, Manifest

__all__ = ["Prepared", "Targets", "prepare"]

PUBLISH_S = 0.2
"""Between two publications of the counters."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that can go wrong with a policy's targets before anything in the kernel changes."""

    workers: tuple[WorkerPlan, ...]
    functions: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    """Of the targets with a Python handler, by name."""


def prepare(config: Config) -> Prepared:
    """Plan the workers of a policy and import its Python handlers.

    Raises:
        XdpgwError: a port has too many queues, or a handler cannot be imported.
    """
    ruleset = resolve(config)
    if not any(rule.action.kind == "af_xdp" for rule in ruleset.rules):
        return Prepared(())
    queues = {port: receive_queues(port) or 1 for port in config.ports}
    workers = plan_targets(ruleset, queues)
    used = {x.target for worker in workers for x in worker.sockets if x.target is not None}
    return Prepared(workers, load_handlers(config, used))


class Targets:
    """The sockets and threads that serve a policy's targets. Close it before the filter goes."""

    def __init__(self, instance: Instance, note: Note) -> None:
        self._instance = instance
        self._note = note
        self._workers: list[Worker] = []
        self._captures: dict[str, PcapngFile] = {}
        self._stack = ExitStack()
        self._table: Map | None = None
        self._served: object = None
        self._told: dict[str, int] = {}
        self._published = 0.0

    def serve(self, config: Config, manifest: Manifest, prepared: Prepared) -> None:
        """Serve the targets of the policy that is in force now; what is served already goes on.

        Raises:
            FastpathError: a socket could not be had; no target is served then.
        """
        wanted = (
            prepared.workers,
            {name: config.af_xdp[name] for name in sorted(_names(prepared.workers))},
            config.fastpath,
            {port: at.ifindex for port, at in manifest.ports.items()},
            {name: manifest.target_slots[name] for name in sorted(_names(prepared.workers))},
            [id(x) for x in prepared.functions.values()],
        )
        if wanted == self._served:
            return
        self.close()
        if not prepared.workers:
            self._served = wanted
            return
        try:
            self._open(config, manifest, prepared)
        except BaseException:
            self.close()
            raise
        self._served = wanted

    def _open(self, config: Config, manifest: Manifest, prepared: Prepared) -> None:
        books = self._stack.enter_context(self._instance.books())
        self._captures = _open_captures(config, manifest, _names(prepared.workers), self._stack)
        for plan in prepared.workers:
            worker = Worker(plan, config, manifest, books["xsks"], self._note)
            self._workers.append(worker)
            worker.open(self._captures, prepared.functions)
        rows = sum(len(worker.sockets) for worker in self._workers)
        self._table = self._stack.enter_context(
            Map.create(
                "array",
                "sockets",
                key=4,
                value=abi.LAYOUTS["socket_stats"]["itemsize"],
                entries=rows,
            )
        )
        for worker in self._workers:
            worker.start()
        self.publish()
        self._instance.pin_sockets(self._table)

    def publish(self) -> None:
        """Write down what the sockets counted; tell what went wrong since the last time."""
        now = time.monotonic()
        if self._table is None or now - self._published < PUBLISH_S:
            return
        self._published = now
        for worker in self._workers:
            worker.check()
        rows = [row for worker in self._workers for row in worker.stats()]
        for at, row in enumerate(rows):
            self._table.update(at.to_bytes(4, "little"), row)
        self._tell_captures()

    def _tell_captures(self) -> None:
        for name, capture in self._captures.items():
            written = capture.written
            if written.errno != self._told.get(name, 0):
                self._told[name] = written.errno
                self._note(
                    f"target {name}: the capture goes on"
                    if not written.errno
                    else f"target {name}: cannot write the capture: "
                    f"{os.strerror(written.errno)}; frames are lost to it until that ends, "
                    f"{written.lost} so far"
                )

    def close(self) -> None:
        """Stop: out of the XSKMAP, then the threads, then the sockets. Twice is fine."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.withdraw()
        for worker in workers:
            worker.stop()
        if self._table is not None:
            self._instance.unpin_sockets()
            self._table = None
        self._stack.close()
        self._captures = {}
        self._told = {}
        self._served, self._published = None, 0.0

    def __enter__(self) -> Targets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _names(workers: Sequence[WorkerPlan]) -> set[str]:
    return {x.target for worker in workers for x in worker.sockets if x.target is not None}


def _open_captures(
    config: Config, manifest: Manifest, names: set[str], stack: ExitStack
) -> dict[str, PcapngFile]:
    captures = {}
    for name in sorted(names):
        target = config.af_xdp[name]
        if target.path is None:
            continue
        try:
            captures[name] = PcapngFile(
                target.path,
                manifest.port_slots,
                snaplen=target.snaplen,
                keep=target.keep,
                max_bytes=target.max_bytes or 0,
            )
        except OSError as error:
            raise FastpathError(
                f"target {name}: cannot write {target.path}: {error.strerror}",
                "correct the path after capture: in the policy",
                error.errno,
            ) from error
        stack.callback(captures[name].close)
    return captures
