"""Which sockets and workers serve a policy's AF_XDP targets."""

from __future__ import annotations

import pytest

from xdpgw import _abi as abi
from xdpgw import config, rules
from xdpgw.errors import XdpgwError
from xdpgw.fast_umem import plan_umem
from xdpgw.target_plan import WorkerPlan, plan_targets

BOTH = """
[policy]
rules = \"\"\"
out   af_xdp over else pass  on left udp
back  af_xdp home else drop  on right udp
rest  af_xdp sink else drop  tcp
\"\"\"
[ports.left]
[ports.right]
[ports.third]
[af_xdp.over]
handler = "forward:right"
[af_xdp.home]
handler = "forward:left"
[af_xdp.sink]
handler = "count"
"""


def plan(text: str, **queues: int) -> tuple[WorkerPlan, ...]:
    return plan_targets(rules.resolve(config.loads(text)), queues)


def one_target(handler: str, settings: str = "") -> str:
    return f"""
[policy]
rules = "all af_xdp some else pass"
[ports.left]
{settings}
[af_xdp.some]
handler = "{handler}"
"""


def test_plan_without_targets_has_no_worker() -> None:
    assert plan("[ports.left]", left=4) == ()


def test_plan_gives_each_queue_a_worker() -> None:
    workers = plan(one_target("count"), left=3)
    assert [[x.queue for x in w.sockets] for w in workers] == [[0], [1], [2]]
    assert [w.number for w in workers] == [0, 1, 2]


def test_plan_serves_the_queues_that_are_listed_only() -> None:
    workers = plan(one_target("count", "queues = [2, 0]"), left=3)
    assert [[x.queue for x in w.sockets] for w in workers] == [[2], [0]]


@pytest.mark.parametrize(("handler", "sends"), [("count", False), ("python:some:where", True)])
def test_plan_gives_a_tx_ring_to_who_sends(handler: str, sends: bool) -> None:
    ((socket,),) = [w.sockets for w in plan(one_target(handler), left=1)]
    assert socket.sends is sends


def test_plan_reflects_out_of_a_socket_beside_the_one_that_receives() -> None:
    (worker,) = plan(one_target("reflect"), left=1)
    assert [(x.port, x.queue, x.target, x.sends, x.to, x.beside) for x in worker.sockets] == [
        ("left", 0, "some", False, 1, None),
        ("left", 0, None, True, None, 0),
    ]


def test_plan_of_more_queues_than_the_map_has_room_for_is_an_error() -> None:
    with pytest.raises(XdpgwError, match=f"has {abi.MAX_QUEUES + 1} receive queues"):
        plan(one_target("count"), left=abi.MAX_QUEUES + 1)


def test_plan_of_ports_that_forward_to_each_other_share_workers() -> None:
    workers = plan(BOTH, left=4, right=2, third=1)
    assert [sorted(w.ports) for w in workers] == [["left", "right"], ["left", "right"], ["third"]]


def test_plan_serves_every_queue_and_target_once() -> None:
    sockets = [x for w in plan(BOTH, left=4, right=2, third=1) for x in w.sockets]
    served = [(x.port, x.queue, x.target) for x in sockets if x.target is not None]
    wanted = [("left", q, t) for q in range(4) for t in ("over", "sink")]
    wanted += [("right", q, t) for q in range(2) for t in ("home", "sink")]
    assert sorted(served) == sorted([*wanted, ("third", 0, "sink")])


def test_plan_keeps_a_queue_in_one_worker() -> None:
    workers = plan(BOTH, left=4, right=2, third=1)
    held = [{(x.port, x.queue) for x in w.sockets} for w in workers]
    assert sum(map(len, held)) == len(set().union(*held))


def test_plan_forwards_out_of_the_same_worker() -> None:
    for worker in plan(BOTH, left=4, right=2, third=1):
        for socket in worker.sockets:
            if socket.target in ("over", "home"):
                assert socket.to is not None
                out = worker.sockets[socket.to]
                assert out.sends
                assert out.target is None
                assert out.port == {"over": "right", "home": "left"}[socket.target]


def test_plan_shares_the_rings_of_a_queue_with_its_first_socket() -> None:
    for worker in plan(BOTH, left=4, right=2, third=1):
        for at, socket in enumerate(worker.sockets):
            if socket.beside is None:
                continue
            first = worker.sockets[socket.beside]
            assert socket.beside < at
            assert (first.port, first.queue) == (socket.port, socket.queue)
            assert first.beside is None


def test_plan_sends_out_of_a_port_that_serves_nothing() -> None:
    text = one_target("forward:right").replace("else pass", "else pass on left") + "[ports.right]"
    (worker,) = plan(text, left=1, right=1)
    assert [(x.port, x.target, x.sends, x.to) for x in worker.sockets] == [
        ("left", "some", False, 1),
        ("right", None, True, None),
    ]


@pytest.mark.parametrize(
    ("mtu", "chunk", "multi_buffer"),
    [
        (1500, 2048, False),
        (1770, 2048, False),
        (1771, 4096, False),
        (3506, 4096, False),
        (3507, 4096, True),
        (9000, 4096, True),
    ],
)
def test_plan_umem_chooses_the_chunk_from_the_mtu(mtu: int, chunk: int, multi_buffer: bool) -> None:
    got = plan_umem(mtu)
    assert (got.chunk_bytes, got.multi_buffer) == (chunk, multi_buffer)
