"""The processes that `bench/afxdp.py` measures, and the one that sends.

    python -m bench.afxdp_subjects KIND NETNS CPU MODE

Each enters the network namespace, pins itself to the CPU, says "ready" on stdout, and from then on
answers each line on stdin with the number of frames it has handled; it ends with its stdin. KIND:

    count reflect forward     a worker of fastpath/ with that handler: no Python in its loop
    bursts reflect-bursts     a loop over FastPort.bursts in Python
    tx tx-other               sends only, by the TX ring of the port that receives, or of the other
    drop                      the filter with a policy that drops all: what the driver's side costs
    af_packet                 recv_into on a raw socket
    scapy                     scapy's sniffer
    generate                  the kernel's live frames, between the lines "go" and "stop"
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdpgw.fast import FastPort

__all__ = ["FRAME_BYTES", "main"]

FRAME_BYTES = 60
PORT, OTHER, PEER = "left", "right", "left-peer"
RING = 2048
LIVE_FRAMES = 2_000_000
"""A run."""

LIVE_THREADS = 2
"""Setting a run up sleeps for some 20 ms, in which the other thread sends."""

Counter = Callable[[], int]


def frame() -> bytes:
    """UDP over IPv4, of 64 bytes with FCS; not to the address of an interface of the bed, so that a
    stack that it reaches drops it at once."""
    from xdpgw.flows import Template

    return Template(lengths=(FRAME_BYTES,)).frames(1)[0]


def serve(count: Counter) -> None:
    """Answer until stdin ends."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(count(), flush=True)


def sender_beside(port: FastPort) -> Any:
    """A socket on the port's queue that only sends."""
    import socket

    from xdpgw._native import ffi, lib

    call, made = ffi.new("const char **"), ffi.new("struct xg_xsk **")
    opts = ffi.new("struct xg_xsk_opts *")
    opts.ifindex, opts.tx = socket.if_nametoindex(port.port), RING
    if lib.xg_xsk_open(port.umem.handle, opts, port.xsk, call, made):
        raise RuntimeError("no socket beside")
    return made[0]


def worker(kind: str, mode: str) -> None:
    """A handler in C."""
    from xdpgw._abi import Handler
    from xdpgw._native import ffi, lib
    from xdpgw.fast import FastPort, Umem

    with ExitStack() as stack:
        umem = stack.enter_context(Umem(10 * RING))
        port = stack.enter_context(FastPort(PORT, ring=RING, umem=umem, attach=mode))  # type: ignore[arg-type]
        opts = ffi.new("struct xg_handler_opts *")
        opts.kind = Handler[kind.upper()]
        if kind == "reflect":  # as the gateway's workers do: see xdpgw/target_plan.py
            opts.to = sender_beside(port)
            stack.callback(lib.xg_xsk_close, opts.to)
        if kind == "forward":
            other = FastPort(OTHER, ring=RING, umem=umem, attach=None)
            opts.to = stack.enter_context(other).xsk
        out = ffi.new("struct xg_worker **")
        if lib.xg_worker_create(out) or lib.xg_worker_add(out[0], port.xsk, opts):
            raise RuntimeError("no worker")
        loop = out[0]
        at = ffi.new("uint32_t *")
        thread = threading.Thread(target=lambda: lib.xg_worker_run(loop, at))
        thread.start()
        try:
            serve(lambda: port.statistics().rx_packets)
        finally:
            lib.xg_worker_stop(loop)
            thread.join()
            lib.xg_worker_free(loop)


def bursts(kind: str, mode: str) -> None:
    """A handler in Python: reads a header of 64 bytes of each frame and decides by numpy."""
    from xdpgw.fast import FastPort

    ended = threading.Event()
    reflect = kind == "reflect-bursts"
    with FastPort(PORT, ring=RING, attach=mode) as port:  # type: ignore[arg-type]

        def answer() -> None:
            serve(lambda: port.statistics().rx_packets)
            ended.set()

        answers = threading.Thread(target=answer)
        answers.start()
        while not ended.is_set():
            for burst in port.bursts(timeout_ms=100):
                header = burst.header(64)
                wanted = header[:, 23] == 17
                if reflect:
                    burst.send(wanted)
                else:
                    burst.drop(wanted)
                if ended.is_set():
                    break
        answers.join()


def tx(kind: str, mode: str) -> None:
    """Sends only: what the kernel's TX path makes of it."""
    from xdpgw._native import ffi, lib
    from xdpgw.fast import FastPort

    data = frame()
    with ExitStack() as stack:
        # The program is there, as with the other subjects: it decides how veth receives.
        port = stack.enter_context(FastPort(PORT, ring=RING, attach=mode))  # type: ignore[arg-type]
        if kind == "tx-other":
            port = stack.enter_context(FastPort(OTHER, ring=RING, attach=None))
        stop, sent = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        opts, result = ffi.new("struct xg_generate_opts *"), ffi.new("struct xg_generate_result *")
        opts.stop, opts.progress = stop, sent
        arguments = (data, ffi.new("size_t[]", [0]), ffi.new("uint32_t[]", [len(data)]), 1)
        thread = threading.Thread(
            target=lambda: lib.xg_generate(port.xsk, *arguments, opts, result)
        )
        thread.start()
        try:
            serve(lambda: int(sent[0]))
        finally:
            stop[0] = 1
            thread.join()


def drop(kind: str, mode: str) -> None:
    """XDP_DROP of all, by the gateway."""
    from xdpgw import config, gateway
    from xdpgw.pins import Instance
    from xdpgw.testing import read_books

    policy = f"""
    [policy]
    default = "drop"
    guard = false
    [ports.{PORT}]
    mode = "{mode}"
    [log]
    sources = "off"
    """
    instance = Instance()
    manifest = gateway.apply(config.loads(policy), instance).manifest
    try:
        with instance.books() as books:
            serve(lambda: read_books(books, manifest).received)
    finally:
        gateway.detach(instance)


def af_packet(kind: str, mode: str) -> None:
    """What a Python programmer writes without a library."""
    import socket

    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((PORT, 3))
    buffer = bytearray(2048)
    counted = [0]

    def loop() -> None:
        udp = 0
        while True:
            raw.recv_into(buffer)
            udp += buffer[23] == 17
            counted[0] += 1

    threading.Thread(target=loop, daemon=True).start()
    serve(lambda: counted[0])


def scapy(kind: str, mode: str) -> None:
    """scapy's sniffer, which dissects each frame."""
    from scapy.config import conf
    from scapy.sendrecv import AsyncSniffer

    conf.use_pcap = False
    counted = [0]

    def see(packet: object) -> None:
        counted[0] += 1

    started = threading.Event()
    sniffer = AsyncSniffer(iface=PORT, prn=see, store=False, started_callback=started.set)
    sniffer.start()
    started.wait(10)
    serve(lambda: counted[0])
    os._exit(0)  # it may wait for a frame that does not come


def generate(kind: str, mode: str) -> None:
    """Live frames that leave the far end of the cable, and arrive at the port."""
    import socket

    import numpy as np

    from xdpgw.kernel import BpfObject
    from xdpgw.loader import artifact

    going, ended = threading.Event(), threading.Event()
    data, ifindex = frame(), socket.if_nametoindex(PEER)

    def loop() -> None:
        with BpfObject(artifact("generate.bpf.o"), name="generate") as obj:
            head = np.zeros((1, 128), np.uint8)
            head[0, : len(data)] = np.frombuffer(data, np.uint8)
            obj.load()
            obj.map("heads").update_many(np.zeros(1, np.uint32), head)
            program = obj.program("generate")
            while not ended.is_set():
                if going.wait(0.1):
                    program.live_frames(data, ifindex, LIVE_FRAMES)

    threads = [threading.Thread(target=loop) for _ in range(LIVE_THREADS)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for line in sys.stdin:
        (going.set if line.strip() == "go" else going.clear)()
        print("0", flush=True)
    going.clear()
    ended.set()
    for thread in threads:
        thread.join()


KINDS: dict[str, Callable[[str, str], None]] = {
    "count": worker,
    "reflect": worker,
    "forward": worker,
    "bursts": bursts,
    "reflect-bursts": bursts,
    "tx": tx,
    "tx-other": tx,
    "drop": drop,
    "af_packet": af_packet,
    "scapy": scapy,
    "generate": generate,
}


def main(args: Iterable[str]) -> None:
    """Be one of them."""
    from xdpgw.netns import enter

    kind, netns, cpu, mode = args
    enter(netns)
    os.sched_setaffinity(0, {int(cpu)})
    KINDS[kind](kind, mode)


if __name__ == "__main__":
    main(sys.argv[1:])
