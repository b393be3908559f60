"""One worker of the AF_XDP targets: a thread with a UMEM and sockets of its own.

Opened, started, stopped and asked on the main thread; in between, `fastpath/worker.c` runs on its
own. See `targets` for the order of things.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xdpgw import _abi as abi
from xdpgw._abi import Handler
from xdpgw._native import ffi, lib
from xdpgw.config import Config, FastpathSettings, Target
from xdpgw.errors import FastpathError
from xdpgw.facts import mtu_of
from xdpgw.fast_errors import Wanted
from xdpgw.fast_open import MODES, open_xsk
from xdpgw.fast_umem import plan_umem
from xdpgw.kernel import Map
from xdpgw.pcapng import PcapngFile
from xdpgw.pins import Manifest, xsk_key
from xdpgw.python_handler import PythonHandler
from xdpgw.target_plan import BURST_CHUNKS, SocketPlan, WorkerPlan

__all__ = ["Note", "Worker"]

RETRY_MS = 2000
"""How long a queue may stay busy after another process let go of it."""

Note = Callable[[str], None]


@dataclass(slots=True)
class Socket:
    plan: SocketPlan
    xsk: Any
    key: bytes | None
    """In the XSKMAP; None for a socket that only sends, or whose handler gave up."""
    alive: bool = True


class Worker:
    """A thread, its UMEM and its sockets."""

    def __init__(
        self, plan: WorkerPlan, config: Config, manifest: Manifest, xsks: Map, note: Note
    ) -> None:
        self.plan = plan
        self.sockets: list[Socket] = []
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
        self, captures: Mapping[str, PcapngFile], functions: Mapping[str, Callable[..., object]]
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
        wanted = Wanted(
            settings.ring, umem.chunk_bytes, chunks * umem.chunk_bytes, mode, umem.multi_buffer
        )
        for plan in self.plan.sockets:
            opts = _options(self.plan, plan, settings, mode)
            opts.ifindex = self._manifest.ports[plan.port].ifindex
            opts.multi_buffer = umem.multi_buffer
            beside = ffi.NULL if plan.beside is None else self.sockets[plan.beside].xsk
            xsk = open_xsk(self._umem, opts, port=plan.port, wanted=wanted, beside=beside)
            key = None
            if plan.target is not None:
                key = xsk_key(
                    self._manifest.port_slots[plan.port],
                    self._manifest.target_slots[plan.target],
                    plan.queue,
                )
            self.sockets.append(Socket(plan, xsk, key))

    def _add(
        self,
        at: Socket,
        captures: Mapping[str, PcapngFile],
        functions: Mapping[str, Callable[..., object]],
    ) -> None:
        target = self._target(at)
        opts = ffi.new("struct xg_handler_opts *")
        opts.kind = Handler[target.kind.upper()]
        opts.port = self._manifest.port_slots[at.plan.port]
        if at.plan.to is not None:
            opts.to = self.sockets[at.plan.to].xsk
        if target.kind == "capture":
            opts.capture = captures[target.name].handle
        if target.kind == "python":
            handler = PythonHandler(functions[target.name], target.name, at.plan, self._note)
            self._keep.append(handler)
            opts.call, opts.context = lib.xg_python_burst, handler.handle
        _done(lib.xg_worker_add(self._worker, at.xsk, opts), f"adding the handler {target.handler}")

    def _target(self, at: Socket) -> Target:
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

    def _give_up(self, at: Socket, why: str) -> None:
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

    def _row(self, at: Socket, chunks_free: int) -> bytes:
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
