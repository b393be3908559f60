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

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xdpgw import _abi as abi
from xdpgw._abi import Handler
from xdpgw._native import ffi, lib
from xdpgw.config import Config, FastpathSettings, Target
from xdpgw.errors import FastpathError
from xdpgw.facts import mtu_of, receive_queues
from xdpgw.fast_errors import Wanted, refuse_socket
from xdpgw.kernel import Map
from xdpgw.python_handler import PythonHandler, load_handlers
from xdpgw.rules import resolve
from xdpgw.target_plan import BURST_CHUNKS, SocketPlan, WorkerPlan, plan_targets, plan_umem

if TYPE_CHECKING:
    from xdpgw.pins import Instance, Manifest

__all__ = ["Targets", "prepare", "xsk_key"]

MODES = {"auto": lib.XG_XSK_AUTO, "copy": lib.XG_XSK_COPY, "zerocopy": lib.XG_XSK_ZERO_COPY}
PUBLISH_S = 0.2
"""Between two publications of the counters."""

RETRY_MS = 2000
"""How long a queue may stay busy after another process let go of it."""

Note = Callable[[str], None]


def xsk_key(port_slot: int, target_slot: int, queue: int) -> bytes:
    """The key of the map `xsks`, as bpf/verdict.h computes it."""
    at = (port_slot * abi.MAX_TARGETS + target_slot) * abi.MAX_QUEUES + queue
    return at.to_bytes(4, "little")


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
        self._workers: list[_Worker] = []
        self._captures: dict[str, Any] = {}
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
            worker = _Worker(plan, config, manifest, books["xsks"], self._note)
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
        self.publish()
        self._instance.pin_sockets(self._table)
        for worker in self._workers:
            worker.start()

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
        counters = ffi.new("struct xg_capture_counters *")
        for name, capture in self._captures.items():
            lib.xg_capture_counters(capture, counters)
            if counters.error != self._told.get(name, 0):
                self._told[name] = counters.error
                self._note(
                    f"target {name}: the capture goes on"
                    if not counters.error
                    else f"target {name}: cannot write the capture: "
                    f"{os.strerror(-counters.error)}; frames are lost to it until that ends, "
                    f"{counters.lost} so far"
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
) -> dict[str, Any]:
    slots = {slot: port for port, slot in manifest.port_slots.items()}
    ports = [ffi.new("char[]", slots.get(at, "").encode()) for at in range(max(slots) + 1)]
    listed = ffi.new("char *[]", ports)
    captures = {}
    for name in sorted(names):
        target = config.af_xdp[name]
        if target.path is None:
            continue
        path = ffi.new("char[]", os.fsencode(target.path))
        opts = ffi.new("struct xg_capture_opts *")
        opts.path, opts.snaplen, opts.keep = path, target.snaplen, target.keep
        opts.max_bytes = target.max_bytes or 0
        opts.ports, opts.n_ports = ffi.cast("const char *const *", listed), len(ports)
        out = ffi.new("struct xg_capture **")
        err = lib.xg_capture_open(opts, out)
        if err < 0:
            raise FastpathError(
                f"target {name}: cannot write {target.path}: {os.strerror(-err)}",
                "correct the path after capture: in the policy",
                -err,
            )
        captures[name] = out[0]
        stack.callback(lib.xg_capture_close, out[0])
    return captures


@dataclass(slots=True)
class _Socket:
    plan: SocketPlan
    xsk: Any
    key: bytes | None
    """In the XSKMAP; None for a socket that only sends, or whose handler gave up."""
    alive: bool = True


class _Worker:
    """A thread, its UMEM and its sockets."""

    def __init__(
        self, plan: WorkerPlan, config: Config, manifest: Manifest, xsks: Map, note: Note
    ) -> None:
        self.plan = plan
        self.sockets: list[_Socket] = []
        self._config, self._manifest = config, manifest
        self._xsks, self._note = xsks, note
        self._umem: Any = None
        self._multi_buffer = False
        self._worker: Any = None
        self._thread: threading.Thread | None = None
        self._keep: list[PythonHandler] = []
        self._lock = threading.Lock()  # of the keys: the thread withdraws one, control all

    # Opening, on the main thread.

    def open(
        self, captures: Mapping[str, Any], functions: Mapping[str, Callable[..., object]]
    ) -> None:
        """Make the UMEM and the sockets.

        Raises:
            FastpathError: with the sentence for what the kernel refused.
        """
        mode = self._config.fastpath.mode
        try:
            self._open_sockets(mode)
        except FastpathError:
            # A port without zero-copy cannot share the UMEM of one that has it: then all copy.
            if mode != "auto" or len(self.plan.ports) < 2:
                raise
            self._close_sockets()
            self._open_sockets("copy")
        out = ffi.new("struct xg_worker **")
        _done(lib.xg_worker_create(out), "starting a worker")
        self._worker = out[0]
        for at in self.sockets:
            if at.plan.target is not None:
                self._add(at, captures, functions)

    def _open_sockets(self, mode: str) -> None:
        settings = self._config.fastpath
        umem = plan_umem(max(mtu_of(port) for port in self.plan.ports))
        chunks = _chunks(self.plan, settings)
        out = ffi.new("struct xg_umem **")
        err = lib.xg_umem_create(chunks, umem.chunk_bytes, out)
        _done(err, f"mapping a UMEM of {chunks} chunks of {umem.chunk_bytes} bytes")
        self._umem, self._multi_buffer = out[0], umem.multi_buffer
        for plan in self.plan.sockets:
            opts = _options(self.plan, plan, settings, mode)
            opts.ifindex = self._manifest.ports[plan.port].ifindex
            opts.multi_buffer = umem.multi_buffer
            beside = ffi.NULL if plan.beside is None else self.sockets[plan.beside].xsk
            call, made = ffi.new("const char **"), ffi.new("struct xg_xsk **")
            err = lib.xg_xsk_open(self._umem, opts, beside, call, made)
            if err < 0:
                wanted = Wanted(
                    settings.ring,
                    umem.chunk_bytes,
                    chunks * umem.chunk_bytes,
                    mode,
                    umem.multi_buffer,
                )
                said = ffi.string(call[0]).decode()
                refuse_socket(err, said, port=plan.port, queue=plan.queue, wanted=wanted)
            key = None
            if plan.target is not None:
                key = xsk_key(
                    self._manifest.port_slots[plan.port],
                    self._manifest.target_slots[plan.target],
                    plan.queue,
                )
            self.sockets.append(_Socket(plan, made[0], key))

    def _add(
        self,
        at: _Socket,
        captures: Mapping[str, Any],
        functions: Mapping[str, Callable[..., object]],
    ) -> None:
        target = self._target(at)
        opts = ffi.new("struct xg_handler_opts *")
        opts.kind = Handler[target.kind.upper()]
        opts.port = self._manifest.port_slots[at.plan.port]
        if at.plan.to is not None:
            opts.to = self.sockets[at.plan.to].xsk
        if target.kind == "capture":
            opts.capture = captures[target.name]
        if target.kind == "python":
            handler = PythonHandler(functions[target.name], target.name, at.plan, self._note)
            self._keep.append(handler)
            opts.call, opts.context = lib.xg_python_burst, handler.handle
        _done(lib.xg_worker_add(self._worker, at.xsk, opts), f"adding the handler {target.handler}")

    def _target(self, at: _Socket) -> Target:
        return self._config.af_xdp[str(at.plan.target)]

    def start(self) -> None:
        """Start the thread, and let the program hand it frames."""
        self._thread = threading.Thread(
            target=self._run, name=f"xdpgw-worker-{self.plan.number}", daemon=True
        )
        self._thread.start()
        for at in self.sockets:
            if at.key is not None:
                fd = lib.xg_xsk_fd(at.xsk)
                self._xsks.update(at.key, fd.to_bytes(4, "little"))

    # On the thread.

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        cpus = self._config.fastpath.cpus
        if cpus:
            cpu = cpus[self.plan.number % len(cpus)]
            try:
                os.sched_setaffinity(0, {cpu})
            except OSError as error:
                self._note(f"worker {self.plan.number} cannot run on CPU {cpu}: {error.strerror}")
        at = ffi.new("uint32_t *")
        while (err := lib.xg_worker_run(self._worker, at)) < 0:
            if err not in (-errno.ECANCELED, -errno.ENETDOWN):
                self._note(f"worker {self.plan.number} stopped: {os.strerror(-err)}")
                self.withdraw()
                return
            served = [x for x in self.sockets if x.plan.target is not None]
            self._give_up(served[at[0]], "its port is gone; " if err == -errno.ENETDOWN else "")

    def _give_up(self, at: _Socket, why: str) -> None:
        with self._lock:
            if not at.alive:
                return
            if at.key is not None:
                self._delete(at.key)
            at.key, at.alive = None, False
        if at.plan.target is None:
            return
        self._note(
            f"target {at.plan.target} no longer serves queue {at.plan.queue} of port "
            f"{at.plan.port}: {why}its packets get the verdict after else until "
            "xdpgw reload or SIGHUP"
        )

    # Stopping, on the main thread.

    def withdraw(self) -> None:
        """Take the sockets out of the XSKMAP: from here on packets get the verdict after `else`."""
        with self._lock:
            for at in self.sockets:
                if at.key is not None:
                    self._delete(at.key)
                    at.key = None

    def _delete(self, key: bytes) -> None:
        # A closed socket, or one whose port is gone, has left the map already.
        lib.xg_map_delete(self._xsks.fileno(), key)

    def stop(self) -> None:
        """End the thread once it has handled what its rings hold, and close the sockets."""
        if self._worker is not None:
            lib.xg_worker_stop(self._worker)
        if self._thread is not None:
            self._thread.join()
        if self._worker is not None:
            lib.xg_worker_free(self._worker)
            self._worker = None
        self._close_sockets()

    def _close_sockets(self) -> None:
        for at in reversed(self.sockets):
            lib.xg_xsk_close(at.xsk)
        self.sockets = []
        if self._umem is not None:
            lib.xg_umem_free(self._umem)
            self._umem = None

    # Telling, on the main thread.

    def check(self) -> None:
        """Give up sockets whose port is gone."""
        for at in self.sockets:
            if lib.xg_xsk_error(at.xsk) == -errno.ENETDOWN:
                self._give_up(at, "its port is gone; ")

    def stats(self) -> list[bytes]:
        """The struct xg_socket_stats of each socket."""
        ledger = ffi.new("struct xg_ledger *")
        lib.xg_umem_ledger(self._umem, ledger)
        return [self._row(at, ledger.free) for at in self.sockets]

    def _row(self, at: _Socket, chunks_free: int) -> bytes:
        row = ffi.new("struct xg_socket_stats *")
        counters, kernel = (
            ffi.new("struct xg_xsk_counters *"),
            ffi.new("struct xg_xdp_statistics *"),
        )
        levels = ffi.new("struct xg_ring_levels *")
        lib.xg_xsk_counters(at.xsk, counters)
        lib.xg_xsk_levels(at.xsk, levels)
        if lib.xg_xsk_statistics(at.xsk, kernel) < 0:
            kernel = ffi.new("struct xg_xdp_statistics *")
        for source in (counters, kernel, levels):
            for name, _ in ffi.typeof(source).item.fields:
                setattr(row, name, getattr(source, name))
        row.ts_ns = time.monotonic_ns()
        row.queue, row.chunks_free = at.plan.queue, chunks_free
        row.port = self._manifest.port_slots[at.plan.port]
        row.target = abi.NO_TARGET
        row.handler = abi.NO_TARGET
        if at.plan.target is not None:
            row.target = self._manifest.target_slots[at.plan.target]
            row.handler = Handler[self._target(at).kind.upper()]
        row.multi_buffer = self._multi_buffer
        row.zero_copy = lib.xg_xsk_zero_copy(at.xsk)
        row.alive = at.alive
        return bytes(ffi.buffer(row))


def _options(worker: WorkerPlan, plan: SocketPlan, settings: FastpathSettings, mode: str) -> Any:
    beside = sum((x.port, x.queue) == (plan.port, plan.queue) for x in worker.sockets)
    opts = ffi.new("struct xg_xsk_opts *")
    opts.queue = plan.queue
    opts.rx = 0 if plan.target is None else settings.ring
    opts.tx = settings.ring if plan.sends else 0
    opts.fill = 2 * settings.ring
    opts.completion = 1 << (settings.ring * beside - 1).bit_length()
    opts.mode = MODES[mode]
    opts.busy_poll_us, opts.busy_budget = settings.busy_poll_us, settings.busy_budget
    opts.retry_ms = RETRY_MS
    return opts


def _chunks(worker: WorkerPlan, settings: FastpathSettings) -> int:
    """Enough for all rings to be full at once."""
    queues = len({(x.port, x.queue) for x in worker.sockets})
    senders = sum(x.sends for x in worker.sockets)
    return queues * 2 * settings.ring + senders * settings.ring + BURST_CHUNKS


def _done(err: int, doing: str) -> None:
    if err < 0:
        raise FastpathError(f"{doing} failed: {os.strerror(-err)}", None, -err)
