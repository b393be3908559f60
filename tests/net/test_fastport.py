"""xdpgw.fast over veth: frames in and out of Python, leases, sharing, and what is refused."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import frames as f
from tests.fastpath.toolchain import ROOT
from tests.net.process import running, until
from xdpgw import fast
from xdpgw.errors import BusyError, FastpathError, XdpgwError
from xdpgw.fast import Burst, FastPort, Umem
from xdpgw.kernel import BpfObject, Link, holder_of
from xdpgw.testbed import Namespace, TestBed

QUEUES = 4
WAIT_MS = 5000
"""Only a failure waits so long."""


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left", "right"), queues=QUEUES) as made:
        yield made


@pytest.fixture(autouse=True)
def in_gateway(bed: TestBed) -> Iterator[None]:
    """Each test runs in the gateway's namespace, and leaves neither socket nor program there."""
    with bed.gateway.entered():
        yield
        until(lambda: xsk_sockets() == 0, "no socket", 5.0)  # the kernel takes its time
        for port in bed.ports:
            assert holder_of(bed.ifindex(port)) is None


def xsk_sockets() -> int:
    """AF_XDP sockets of this network namespace."""
    text = Path("/proc/thread-self/net/protocols").read_text()
    return int(next(x.split() for x in text.splitlines() if x.startswith("XDP"))[2])


def numbered(count: int, size: int = 60) -> list[bytes]:
    """Frames of a size, each with its number in bytes 42 to 45, spread over flows."""
    return [
        f.eth(f.ipv4(f.udp(n.to_bytes(4, "big") + bytes(size - 46), sport=1000 + n % 97, dport=9)))
        for n in range(count)
    ]


def number(frame: Any) -> int:
    return int.from_bytes(bytes(frame[42:46]), "big")


def receive(port: FastPort, count: int) -> list[bytes]:
    """So many frames of one port, copied."""
    got: list[bytes] = []
    for burst in port.bursts(timeout_ms=WAIT_MS):
        got += [bytes(burst.frame(i)) for i in range(burst.n)]
        if len(got) >= count:
            break
    return got


def adds_up(umem: Umem) -> None:
    """No chunk is lost, and none is counted twice."""
    ledger = umem.ledger()
    assert ledger.free + ledger.receiving + ledger.held + ledger.sending == ledger.chunks
    assert ledger.held == 0


# Receiving


@pytest.mark.parametrize("size", [60, 64, 128, 594, 1514])
def test_frames_arrive_whole_and_in_order(bed: TestBed, mode: Any, size: int) -> None:
    sent = numbered(1000, size)
    got: list[list[bytes]] = [[] for _ in range(QUEUES)]
    with ExitStack() as stack:
        wire = stack.enter_context(bed.wire())
        ports = [
            stack.enter_context(FastPort("left", queue, attach=mode)) for queue in range(QUEUES)
        ]
        wire.send(sent)
        for port, burst in fast.bursts(*ports, timeout_ms=WAIT_MS):
            assert (burst.length == size).all()
            header = burst.header(46)
            for i in range(burst.n):
                frame = bytes(burst.frame(i))
                assert bytes(header[i]) == frame[:46]
                got[port.queue].append(frame)
            if sum(map(len, got)) == len(sent):
                break
        for port in ports:
            assert port.attached == mode
            assert (port.mode, port.zero_copy) == ("copy", False)
            assert port.statistics().rx_packets == len(got[port.queue])
            assert port.statistics().rx_bytes == size * len(got[port.queue])
            adds_up(port.umem)
    assert sorted((x for queue in got for x in queue), key=number) == sent
    for queue in got:
        assert [number(x) for x in queue] == sorted(number(x) for x in queue)
    assert sum(bool(queue) for queue in got) > 1


def arrives_on(mode: str, queue: int) -> int:
    """Where a frame arrives that left the cable's far end on a queue.

    In generic mode veth does not record the receive queue, and the kernel takes the transmit queue
    for one that was recorded: counted from 1, 0 for none (skb_get_rx_queue).
    """
    return queue if mode == "native" else max(queue - 1, 0)


def test_frame_goes_to_the_socket_of_its_queue(bed: TestBed, mode: Any) -> None:
    frames = numbered(QUEUES)
    with ExitStack() as stack:
        ports = [
            stack.enter_context(FastPort("left", queue, attach=mode)) for queue in range(QUEUES)
        ]
        for queue, frame in enumerate(frames):
            with from_peer(bed, queue=queue) as far:
                assert far.attached is None
                assert far.send([frame]) == 1
                assert far.flush() == 0
            assert receive(ports[arrives_on(mode, queue)], 1) == [frame]


def test_queue_without_a_socket_goes_to_the_stack(bed: TestBed, mode: Any) -> None:
    frames = numbered(2)
    with FastPort("left", 0, attach=mode) as port, bed.host() as host:
        with from_peer(bed, queue=2) as far:
            far.send([frames[1]])
        assert host.receive(1) == [frames[1]]
        with from_peer(bed, queue=0) as far:
            far.send([frames[0]])
        assert receive(port, 1) == [frames[0]]
        assert host.waiting() == []


def test_one_frame_is_handed_out_at_once(bed: TestBed, mode: Any) -> None:
    with FastPort("left", attach=mode) as port, from_peer(bed) as far:
        for frame in numbered(50):
            far.send([frame])
            assert receive(port, 1) == [frame]


@contextmanager
def from_peer(bed: TestBed, port: str = "left", queue: int = 0) -> Iterator[FastPort]:
    """The cable's far end as a FastPort: what it sends arrives on the queue of the same number."""
    with ExitStack() as stack:
        with bed.peer.entered():
            far = stack.enter_context(FastPort(f"{port}-peer", queue, attach=None))
        yield far


@pytest.mark.parametrize("room", [1, 7, 4096])
def test_burst_has_at_most_what_was_asked_for(bed: TestBed, room: int) -> None:
    sent = numbered(100)
    with FastPort("left", burst=room) as port, from_peer(bed) as far:
        far.send(sent)
        far.flush()
        sizes, got = [], []
        for burst in port.bursts(timeout_ms=WAIT_MS):
            sizes.append(burst.n)
            got += burst.header(46)[:, 45].tolist()
            if len(got) == len(sent):
                break
        assert max(sizes) <= room
        assert got == list(range(100))


def test_nothing_is_lost_over_many_rings_full(bed: TestBed) -> None:
    """More frames than the rings have places: each place is used again and again."""
    with FastPort("left", ring=64, burst=32) as port, from_peer(bed) as far:
        for start in range(0, 3200, 32):
            frames = numbered(32)
            far.send(frames)
            assert receive(port, 32) == frames, start
            adds_up(port.umem)
            adds_up(far.umem)
        assert port.statistics().rx_packets == 3200
        assert port.statistics().rx_ring_full == 0


def test_full_ring_counts_what_it_loses(bed: TestBed) -> None:
    with FastPort("left", ring=64) as port, from_peer(bed) as far:
        far.send(numbered(200))
        far.flush()
        until(lambda: port.statistics().rx_ring_full == 200 - 64, "136 lost")
        assert port.levels().rx == port.levels().rx_size == 64
        assert len(receive(port, 64)) == 64


def test_zeros_stand_behind_a_short_frame(bed: TestBed) -> None:
    with FastPort("left") as port, from_peer(bed) as far:
        far.send([b"\xff" * 14])
        for burst in port.bursts(timeout_ms=WAIT_MS):
            # The driver pads to the shortest frame of Ethernet, or does not.
            header = burst.header(100)[0]
            assert bytes(header[:14]) == b"\xff" * 14
            assert not header[int(burst.length[0]) :].any()
            break


# Frames over several chunks


@pytest.fixture(scope="module")
def jumbo() -> Iterator[TestBed]:
    with TestBed(("left",), mtu=9000) as made:
        yield made


@pytest.mark.parametrize("size", [60, 1514, 3840, 3841, 9014])
def test_jumbo_frames_arrive_whole_and_go_back(jumbo: TestBed, mode: Any, size: int) -> None:
    sent = numbered(50, size)
    with (
        jumbo.gateway.entered(),
        FastPort("left", attach=mode) as port,
        jumbo.wire() as wire,
    ):
        assert port.umem.multi_buffer
        wire.send(sent)
        got = []
        for burst in port.bursts(timeout_ms=WAIT_MS):
            got += [bytes(burst.frame(i)) for i in range(burst.n)]
            assert (burst.length == size).all()
            assert [number(x) for x in burst.header(46)] == [number(x) for x in got[-burst.n :]]
            if size > 3840:
                assert burst.frame(0).readonly
            assert burst.send() == burst.n
            if len(got) == len(sent):
                break
        assert got == sent
        assert wire.receive(len(sent)) == sent
        adds_up(port.umem)


def test_jumbo_frames_of_ones_own(jumbo: TestBed, mode: Any) -> None:
    sent = numbered(20, 9014)
    with (
        jumbo.gateway.entered(),
        FastPort("left", attach=mode) as port,
        jumbo.wire() as wire,
    ):
        assert port.send(sent) == 20
        assert port.flush() == 0
        assert wire.receive(20) == sent
        adds_up(port.umem)


# Sending


def test_sent_back_frames_are_the_same(bed: TestBed, mode: Any) -> None:
    sent = numbered(300)
    with FastPort("left", attach=mode) as port, bed.wire() as wire, from_peer(bed) as far:
        far.send(sent)
        count = 0
        for burst in port.bursts(timeout_ms=WAIT_MS):
            count += burst.send()
            if count == len(sent):
                break
        assert wire.receive(300) == sent
        assert port.statistics().tx_packets == 300
        assert port.statistics().dropped == 0


def test_a_mask_chooses_who_is_sent(bed: TestBed, mode: Any) -> None:
    sent = numbered(100)
    with FastPort("left", attach=mode) as port, bed.wire() as wire, from_peer(bed) as far:
        far.send(sent)
        seen = dropped = 0
        for burst in port.bursts(timeout_ms=WAIT_MS):
            numbers = burst.header(46)[:, 45]
            dropped += burst.drop(numbers % 5 == 0)
            burst.send(numbers % 2 == 0)
            seen += burst.n
            if seen == len(sent):
                break
        assert wire.receive(40) == [x for x in sent if number(x) % 2 == 0 and number(x) % 5]
        assert dropped == 20
        until(lambda: port.statistics().dropped == 60, "those dropped, and those unclaimed")
        assert wire.waiting() == []
        adds_up(port.umem)


def test_frame_can_be_changed_in_place_before_it_is_sent(bed: TestBed, mode: Any) -> None:
    sent = numbered(10)
    with FastPort("left", attach=mode) as port, bed.wire() as wire, from_peer(bed) as far:
        far.send(sent)
        seen = 0
        for burst in port.bursts(timeout_ms=WAIT_MS):
            for i in range(burst.n):
                view = burst.frame(i)
                view[0:6], view[6:12] = bytes(view[6:12]), bytes(view[0:6])
            seen += burst.send()
            with pytest.raises(ValueError, match="released"):
                view[0]
            with pytest.raises(ValueError, match="frame 0 was sent"):
                burst.frame(0)
            if seen == len(sent):
                break
        assert wire.receive(10) == [x[6:12] + x[:6] + x[12:] for x in sent]


def test_frames_of_ones_own_go_out_as_bytes_and_as_an_array(bed: TestBed, mode: Any) -> None:
    sent = [*numbered(5), *numbered(5, 1514)]
    block = np.frombuffer(b"".join(numbered(7, 200)), np.uint8).reshape(7, 200)
    with FastPort("left", attach=mode) as port, bed.wire() as wire:
        assert port.send(sent) == 10
        assert port.send(block) == 7
        assert port.send([]) == 0
        assert port.send(np.empty((0, 60), np.uint8)) == 0
        assert wire.receive(17) == [*sent, *numbered(7, 200)]
        assert port.flush() == 0
        assert port.statistics().tx_bytes == 5 * 60 + 5 * 1514 + 7 * 200


@pytest.mark.parametrize("wrong", [b"short", bytes(1793), bytes(5000)])
def test_frame_that_fits_nowhere_is_told_and_those_before_it_are_sent(
    bed: TestBed, wrong: bytes
) -> None:
    sent = numbered(3)
    with FastPort("left") as port, bed.wire() as wire:
        with pytest.raises(ValueError, match=f"frame 3 has {len(wrong)} bytes.* 14 to 1792"):
            port.send([*sent, wrong, *numbered(2)])
        assert wire.receive(3) == sent
        assert port.send(numbered(1)) == 1
        assert wire.receive(1) == numbered(1)
        assert wire.waiting() == []


def test_send_tells_how_many_found_a_place(bed: TestBed) -> None:
    with Umem(256 + 32) as umem, FastPort("left", ring=64, umem=umem) as port:
        # 128 in the fill ring; 160 are left, in a TX ring of 64 that is emptied by kicks.
        assert 0 < port.send(numbered(1000)) <= 1000
        adds_up(umem)
        assert port.flush() == 0


# Forwarding


@pytest.mark.parametrize("shared", [True, False])
def test_frames_cross_from_port_to_port(bed: TestBed, mode: Any, shared: bool) -> None:
    sent = numbered(500)
    with ExitStack() as stack:
        umem = stack.enter_context(Umem(Umem.chunks_for(2, ring=512))) if shared else None
        left = stack.enter_context(FastPort("left", ring=512, umem=umem, attach=mode))
        right = stack.enter_context(FastPort("right", ring=512, umem=umem, attach=mode))
        far = stack.enter_context(from_peer(bed))
        out = stack.enter_context(bed.wire("right"))
        for start in range(0, 500, 100):
            far.send(sent[start : start + 100])
            crossed = 0
            for burst in left.bursts(timeout_ms=WAIT_MS):
                crossed += burst.forward(None, right)
                if crossed == 100:
                    break
            assert out.receive(100) == sent[start : start + 100]
        assert right.statistics().tx_packets == 500
        assert left.statistics().tx_packets == 0
        right.flush()
        adds_up(left.umem)
        adds_up(right.umem)
        if umem is not None:
            left.close()
            right.close()
            assert umem.ledger().free == umem.chunks


def test_both_directions_in_one_loop(bed: TestBed, mode: Any) -> None:
    there, back = numbered(100), numbered(100, 128)
    with ExitStack() as stack:
        umem = stack.enter_context(Umem(Umem.chunks_for(2)))
        left = stack.enter_context(FastPort("left", umem=umem, attach=mode))
        right = stack.enter_context(FastPort("right", umem=umem, attach=mode))
        wires = [stack.enter_context(bed.wire(x)) for x in ("left", "right")]
        far_left = stack.enter_context(from_peer(bed, "left"))
        far_right = stack.enter_context(from_peer(bed, "right"))
        far_left.send(there)
        far_right.send(back)
        crossed = 0
        for port, burst in fast.bursts(left, right, timeout_ms=WAIT_MS):
            crossed += burst.forward(None, right if port is left else left)
            if crossed == 200:
                break
        assert wires[1].receive(100) == there
        assert wires[0].receive(100) == back
        adds_up(umem)


def test_forward_to_a_closed_port_is_told(bed: TestBed) -> None:
    with FastPort("left") as left, from_peer(bed) as far:
        right = FastPort("right")
        right.close()
        far.send(numbered(1))
        for burst in left.bursts(timeout_ms=WAIT_MS):
            with pytest.raises(ValueError, match="queue 0 of port right is closed"):
                burst.forward(None, right)
            break


# Leases


def first(port: FastPort) -> tuple[Iterator[Burst], Burst]:
    loop = port.bursts(timeout_ms=WAIT_MS)
    return loop, next(loop)


def test_next_step_ends_the_burst_and_its_views(bed: TestBed) -> None:
    with FastPort("left", burst=1) as port, from_peer(bed) as far:
        far.send(numbered(2))
        loop, burst = first(port)
        view, header = burst.frame(0), burst.header(46)
        another = next(loop)
        assert another is not burst
        assert burst.ended and not another.ended
        with pytest.raises(ValueError, match="the burst has ended"):
            burst.send()
        with pytest.raises(ValueError, match="released"):
            view[0]
        assert number(header[0]) == 0
        assert number(another.frame(0)) == 1


def test_view_that_is_still_used_stops_the_loop_and_not_the_port(bed: TestBed) -> None:
    with FastPort("left", burst=1) as port, from_peer(bed) as far:
        far.send(numbered(2))
        loop, burst = first(port)
        array = np.frombuffer(burst.frame(0), np.uint8)
        with pytest.raises(BufferError, match="memory of frame 0"):
            next(loop)
        assert burst.ended
        adds_up(port.umem)
        assert [number(x) for x in receive(port, 1)] == [1]
        assert len(array) == 60


def test_leaving_the_loop_ends_the_burst(bed: TestBed) -> None:
    with FastPort("left", burst=1) as port, from_peer(bed) as far:
        far.send(numbered(2))
        for burst in port.bursts(timeout_ms=WAIT_MS):
            view = burst.frame(0)
            break
        assert burst.ended
        with pytest.raises(ValueError, match="released"):
            view[0]
        adds_up(port.umem)
        assert [number(x) for x in receive(port, 1)] == [1]


def test_closing_ends_the_burst(bed: TestBed) -> None:
    with from_peer(bed) as far:
        port = FastPort("left")
        far.send(numbered(1))
        loop, burst = first(port)
        port.close()
        port.close()
        assert burst.ended
        assert list(loop) == []
        for use in (port.statistics, port.levels, port.fileno, port.bursts, port.flush):
            with pytest.raises(ValueError, match="queue 0 of port left is closed"):
                use()
        assert repr(port) == "<FastPort left queue 0, closed>"


def test_an_exception_in_the_loop_is_the_one_that_comes_out(bed: TestBed) -> None:
    """Not the complaint of a view that its traceback keeps alive."""
    with pytest.raises(KeyError, match="mine"), from_peer(bed) as far, FastPort("left") as port:
        far.send(numbered(1))
        for burst in port.bursts(timeout_ms=WAIT_MS):
            array = np.frombuffer(burst.frame(0), np.uint8)
            raise KeyError("mine", array[0])


def test_a_second_loop_takes_over_from_the_first(bed: TestBed) -> None:
    with FastPort("left", burst=1) as port, from_peer(bed) as far:
        far.send(numbered(3))
        one, burst = first(port)
        two, another = first(port)
        assert burst.ended
        del one
        assert not another.ended
        assert number(another.frame(0)) == 1
        del two


# Waiting


@pytest.mark.parametrize("timeout_ms", [0, 30, 250])
def test_loop_ends_when_nothing_came_for_so_long(timeout_ms: int) -> None:
    with FastPort("left") as port:
        start = time.monotonic()
        assert list(port.bursts(timeout_ms=timeout_ms)) == []
        took_ms = (time.monotonic() - start) * 1000
        assert took_ms >= timeout_ms
        assert list(fast.bursts(port, timeout_ms=timeout_ms)) == []
        assert (time.monotonic() - start) * 1000 - took_ms >= timeout_ms


def test_time_without_frames_counts_from_the_last_one(bed: TestBed) -> None:
    with FastPort("left") as port, from_peer(bed) as far:
        loop = port.bursts(timeout_ms=450)
        for n in range(3):
            timer = threading.Timer(0.25, far.send, [numbered(1)])
            timer.start()
            assert next(loop).n == 1, n
            timer.join()
        assert list(loop) == []


@pytest.mark.parametrize("waits", [FastPort.bursts, fast.bursts])
def test_ctrl_c_ends_a_loop_that_waits_for_ever(waits: Any) -> None:
    """Also where the kernel wakes another thread for the signal."""

    def interrupt() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    with FastPort("left") as port:
        timer = threading.Timer(0.05, interrupt)
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(waits(port))
        assert time.monotonic() - start < 1
        timer.join()


def test_signal_handler_may_close_the_port() -> None:
    port = FastPort("left")
    before = signal.signal(signal.SIGUSR1, lambda *_: port.close())
    try:
        timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
        timer.start()
        assert list(port.bursts()) == []
        assert port.closed
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_closing_from_another_thread_ends_the_loop() -> None:
    port = FastPort("left")
    timer = threading.Timer(0.05, port.close)
    timer.start()
    assert list(port.bursts()) == []
    timer.join()
    assert port.closed


def test_second_thread_on_a_port_is_refused() -> None:
    with FastPort("left") as port:
        stop = threading.Event()

        def loop() -> None:
            while not stop.is_set():
                list(port.bursts(timeout_ms=10))

        def refused() -> bool:
            try:
                port.send(numbered(1))
            except RuntimeError as error:
                return "two threads" in str(error)
            return False

        def tolerant() -> None:
            while not stop.is_set():
                try:
                    loop()
                except RuntimeError:
                    continue

        thread = threading.Thread(target=tolerant)
        thread.start()
        try:
            until(refused, "refused")
        finally:
            stop.set()
            thread.join()
        adds_up(port.umem)


@pytest.mark.parametrize("waits", ["bursts", "several", "asyncio"])
def test_port_that_goes_away_is_told(waits: str) -> None:
    async def wait(port: FastPort) -> None:
        async for _ in port:
            pass

    with TestBed() as other, other.gateway.entered(), FastPort("left") as port:
        timer = threading.Timer(0.05, in_namespace, [other.gateway, ["ip", "link", "del", "left"]])
        timer.start()
        with pytest.raises(FastpathError, match="port left is gone") as error:
            if waits == "bursts":
                list(port.bursts(timeout_ms=WAIT_MS))
            elif waits == "several":
                list(fast.bursts(port, timeout_ms=WAIT_MS))
            else:
                asyncio.run(asyncio.wait_for(wait(port), 10))
        assert error.value.errno == errno.ENODEV
        timer.join()


def test_port_that_is_down_for_a_while_is_waited_for(bed: TestBed) -> None:
    with FastPort("right") as port:
        subprocess.run(["ip", "link", "set", "right", "down"], check=True)
        assert list(port.bursts(timeout_ms=120)) == []
        assert port.send(numbered(1)) == 1
        assert port.flush(timeout_ms=10) == 1
        subprocess.run(["ip", "link", "set", "right", "up"], check=True)
        with from_peer(bed, "right") as far:
            until(lambda: far.send(numbered(1)) and receive_now(port), "frames again")
        assert port.flush() == 0


def receive_now(port: FastPort) -> int:
    return sum(burst.n for burst in port.bursts(timeout_ms=10))


def in_namespace(namespace: Namespace, command: list[str]) -> None:
    with namespace.entered():
        subprocess.run(command, check=True)


# asyncio


def test_asyncio_receives(bed: TestBed, mode: Any) -> None:
    sent = numbered(200)

    async def main(port: FastPort, far: FastPort) -> list[bytes]:
        asyncio.get_running_loop().call_later(0.02, far.send, sent[:100])
        asyncio.get_running_loop().call_later(0.05, far.send, sent[100:])
        got: list[bytes] = []
        async for burst in port:
            got += [bytes(burst.frame(i)) for i in range(burst.n)]
            if len(got) == len(sent):
                break
        return got

    with FastPort("left", attach=mode) as port, from_peer(bed) as far:
        assert asyncio.run(asyncio.wait_for(main(port, far), 10)) == sent
        adds_up_after_close = port.umem.ledger().held
        assert adds_up_after_close > 0  # the last burst lasts until the next step, or close()


def test_asyncio_tasks_forward_both_ways(bed: TestBed) -> None:
    there, back = numbered(100), numbered(100, 128)

    async def pump(a: FastPort, b: FastPort) -> None:
        crossed = 0
        async for burst in a:
            crossed += burst.forward(None, b)
            if crossed == 100:
                break

    async def main(left: FastPort, right: FastPort) -> None:
        await asyncio.wait_for(asyncio.gather(pump(left, right), pump(right, left)), 10)

    with ExitStack() as stack:
        umem = stack.enter_context(Umem(Umem.chunks_for(2)))
        left = stack.enter_context(FastPort("left", umem=umem))
        right = stack.enter_context(FastPort("right", umem=umem))
        wires = [stack.enter_context(bed.wire(x)) for x in ("left", "right")]
        stack.enter_context(from_peer(bed, "left")).send(there)
        stack.enter_context(from_peer(bed, "right")).send(back)
        asyncio.run(main(left, right))
        assert wires[1].receive(100) == there
        assert wires[0].receive(100) == back


def test_asyncio_can_be_cancelled_and_goes_on(bed: TestBed) -> None:
    async def main(port: FastPort, far: FastPort) -> int:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(port), 0.05)
        far.send(numbered(1))
        return (await asyncio.wait_for(anext(port), 10)).n

    with FastPort("left") as port, from_peer(bed) as far:
        assert asyncio.run(main(port, far)) == 1


def test_asyncio_loop_ends_when_the_port_is_closed() -> None:
    async def main(port: FastPort) -> list[Burst]:
        asyncio.get_running_loop().call_later(0.02, port.close)
        return [burst async for burst in port]

    with FastPort("left") as port:
        assert asyncio.run(asyncio.wait_for(main(port), 10)) == []


def test_asyncio_second_task_on_a_port_is_refused() -> None:
    async def main(port: FastPort) -> None:
        waiting = asyncio.ensure_future(anext(port))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task waits for frames"):
            await anext(port)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with FastPort("left") as port:
        asyncio.run(main(port))


def test_asyncio_leaves_other_tasks_their_turn(bed: TestBed) -> None:
    """Frames that never cease to come do not keep the loop for themselves."""

    async def main(port: FastPort, far: FastPort) -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        seen = 0
        async for burst in port:
            seen += burst.n
            if seen == 100:
                break
        task.cancel()
        return turns

    with FastPort("left", burst=1) as port, from_peer(bed) as far:
        far.send(numbered(100))
        far.flush()
        until(lambda: port.levels().rx == 100, "all there before the first is taken")
        assert asyncio.run(main(port, far)) >= 100 // 16


# The program


def test_two_ports_on_two_queues_share_the_program(bed: TestBed, mode: Any) -> None:
    ifindex = bed.ifindex()
    with FastPort("left", 0, attach=mode) as zero:
        holder = str(holder_of(ifindex))
        with FastPort("left", 1) as one:
            assert one.attached == mode
            assert str(holder_of(ifindex)) == holder
        assert str(holder_of(ifindex)) == holder
        with from_peer(bed) as far:
            far.send(numbered(1))
            assert receive(zero, 1) == numbered(1)
    assert holder_of(ifindex) is None


def test_last_one_out_removes_the_program_whoever_came_first(bed: TestBed) -> None:
    first, second = FastPort("left", 0), FastPort("left", 1)
    first.close()
    assert holder_of(bed.ifindex()) is not None
    with from_peer(bed, queue=1) as far:
        far.send(numbered(1))
        assert receive(second, 1) == numbered(1)
    second.close()
    assert holder_of(bed.ifindex()) is None


def test_other_mode_than_the_one_that_is_there_is_refused(bed: TestBed) -> None:
    with (
        FastPort("left", 0, attach="generic"),
        pytest.raises(BusyError, match="in generic mode, not in native"),
    ):
        FastPort("left", 1, attach="native")


def test_foreign_program_is_named(bed: TestBed) -> None:
    elf = (ROOT / "xdpgw/bpf/pass.bpf.o").read_bytes()
    with BpfObject(elf, name="pass") as foreign:
        foreign.load()
        with Link.attach(foreign.program("pass"), bed.ifindex(), "native"):
            with pytest.raises(BusyError, match="port left is held by") as error:
                FastPort("left")
            assert "pass" in str(error.value.holder)


def test_death_of_the_process_takes_program_and_socket_along(bed: TestBed) -> None:
    code = (
        "from xdpgw.fast import FastPort\n"
        "port = FastPort('left')\n"
        "print('up', flush=True)\n"
        "for burst in port.bursts(): pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        assert holder_of(bed.ifindex()) is not None
        child.kill()
    until(lambda: holder_of(bed.ifindex()) is None and xsk_sockets() == 0, "nothing left")
    with FastPort("left"):
        pass  # and the queue can be had again


# Refusals


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        ({"ring": 1000}, "ring is a power of two, not 1000", "512 or 1024"),
        ({"ring": 0}, "ring is a power of two from 1 to 65536, not 0", None),
        ({"burst": 0}, "a burst has 1 to 4096 frames, not 0", None),
        ({"burst": 5000}, "a burst has 1 to 4096 frames, not 5000", None),
        ({"mode": "fast"}, "the mode is auto, copy, zerocopy, not fast", None),
        ({"attach": "yes"}, "attach is auto, native, generic or None, not yes", None),
        ({"busy_poll_us": -1}, "busy_poll_us is a time in microseconds", None),
        ({"port": "nowhere"}, "there is no port nowhere in this", "there is left, right"),
        ({"queue": 4}, "port left has no queue 4: it has 4, counted from 0", "ethtool -L left"),
        ({"queue": -1}, "port left has no queue -1", "ethtool -l left"),
        ({"mode": "zerocopy"}, "the driver of port left has no zero-copy", 'mode="copy"'),
    ],
)
def test_wrong_argument_is_a_sentence(
    arguments: dict[str, Any], said: str, hint: str | None
) -> None:
    with pytest.raises(FastpathError) as error:
        FastPort(**({"port": "left"} | arguments))
    assert str(error.value).startswith(said)
    assert error.value.hint is None if hint is None else hint in str(error.value.hint)
    assert error.value.exit_status == 4


def test_port_that_is_down_says_so(bed: TestBed) -> None:
    subprocess.run(["ip", "link", "set", "right", "down"], check=True)
    try:
        with pytest.raises(FastpathError, match="port right is down") as error:
            FastPort("right")
        assert error.value.hint == "ip link set dev right up"
    finally:
        subprocess.run(["ip", "link", "set", "right", "up"], check=True)


def test_held_queue_says_so_and_the_holder_goes_on(bed: TestBed) -> None:
    with FastPort("left", 2) as holder, from_peer(bed, queue=2) as far:
        with pytest.raises(FastpathError, match="queue 2 of port left is held") as error:
            FastPort("left", 2)
        assert error.value.errno == errno.EBUSY
        assert (error.value.port, error.value.queue) == ("left", 2)
        far.send(numbered(1))
        assert receive(holder, 1) == numbered(1)


def test_queue_is_free_again_right_after_it_was_closed() -> None:
    for _ in range(5):
        with FastPort("left", 2):
            pass


def test_second_socket_on_a_queue_with_the_same_umem_is_told_who_serves_it() -> None:
    with Umem(Umem.chunks_for(2)) as umem, FastPort("left", umem=umem):
        with pytest.raises(BusyError, match="another socket serves queue 0 of port left"):
            FastPort("left", umem=umem)
        with FastPort("left", umem=umem, attach=None) as sender:  # to send it is fine
            assert sender.send(numbered(1)) == 1


def test_umem_that_is_too_small_says_what_it_takes() -> None:
    with Umem(1000) as umem:
        with pytest.raises(FastpathError, match="the UMEM of 1000 chunks has too few") as error:
            FastPort("left", umem=umem)
        assert "8448 chunks" in str(error.value.hint)
        assert umem.ledger().free == 1000


def test_umem_is_not_closed_under_a_port() -> None:
    with (
        Umem(Umem.chunks_for(1)) as umem,
        FastPort("left", umem=umem),
        pytest.raises(FastpathError, match="1 ports still use this UMEM"),
    ):
        umem.close()


def test_mtu_beyond_the_chunks_says_what_fits(jumbo: TestBed) -> None:
    with jumbo.gateway.entered(), Umem(Umem.chunks_for(1)) as umem:
        with pytest.raises(FastpathError, match=r"an MTU of 9000, .* MTU up to 1770") as error:
            FastPort("left", umem=umem)
        assert "chunk_bytes=4096" in str(error.value.hint)
        assert "multi_buffer=True" in str(error.value.hint)


def test_target_without_a_policy_says_so() -> None:
    with pytest.raises(XdpgwError, match="target some: no filter of xdpgw is in force"):
        FastPort("left", target="some")


POLICY = """
[policy]
rules = \"\"\"
mine  af_xdp some else drop  udp to port 9
\"\"\"
[ports.left]
[af_xdp.some]
handler = "count"
[log]
sources = "off"
[gateway]
on_exit = "keep"
"""


def test_target_of_the_policy_in_force_is_served(bed: TestBed, tmp_path: Path) -> None:
    """The filter goes on without its process, and Python takes the place of its sockets."""
    path = tmp_path / "edge.toml"
    path.write_text(POLICY)
    with running(bed, tmp_path, "run", path) as run:
        run.said("left: ")
        with pytest.raises(FastpathError, match="queue 0 of port left is held") as held:
            FastPort("left", target="some")
        assert held.value.errno == errno.EBUSY
        assert run.end() == 0
        with pytest.raises(XdpgwError, match="has no AF_XDP target other") as error:
            FastPort("left", target="other")
        assert error.value.hint == "it has some"
        with pytest.raises(XdpgwError, match="does not hold port right") as error:
            FastPort("right", target="some")
        assert error.value.hint == "it holds left"
        with pytest.raises(BusyError, match="port left is held by"):
            FastPort("left")

        wanted = numbered(5)
        other = [f.eth(f.ipv4(f.udp(b"x" * 20, dport=10)))]
        with (
            FastPort("left", target="some") as port,
            from_peer(bed) as far,
            bed.host() as host,
        ):
            assert port.attached == "native"
            far.send(wanted[:2] + other + wanted[2:])
            assert receive(port, 5) == wanted
            assert host.receive(1) == other
        with from_peer(bed) as far, bed.host() as host:
            far.send(wanted + other)
            assert host.receive(1) == other  # the rule says: else drop
            assert host.waiting() == []


def without(capability: str, code: str, *prefix: str) -> str:
    """What a script prints that runs as root, but for one capability."""
    command = [
        *prefix,
        "setpriv",
        f"--bounding-set=-{capability}",
        f"--inh-caps=-{capability}",
        sys.executable,
        "-c",
        "from xdpgw.errors import XdpgwError\nfrom xdpgw.fast import FastPort\n"
        f"try:\n    {code}\nexcept XdpgwError as e:\n"
        "    print(type(e).__name__, e.exit_status, str(e), '|', e.hint)\n",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_cap_net_raw_the_error_names_it() -> None:
    said = without("net_raw", "FastPort('left')")
    assert said.startswith("PrivilegeError 3 no permission for an AF_XDP socket on queue 0 of port")
    assert "CAP_NET_RAW" in said


def test_without_memory_to_lock_the_error_names_limit_and_need() -> None:
    said = without(
        "ipc_lock", "FastPort('left', ring=1024, burst=64)", "prlimit", "--memlock=65536"
    )
    wanted = (4 * 1024 + 64) * 2048
    assert said.startswith(f"FastpathError 4 a UMEM of {wanted:,} bytes is more than this user's")
    assert "of 65,536 bytes" in said
    assert f"ulimit -l {wanted // 1024} " in said


def test_unclosed_port_is_a_warning() -> None:
    with pytest.warns(ResourceWarning) as warned:
        FastPort("left")
    assert any("unclosed <FastPort left queue 0" in str(x.message) for x in warned)
