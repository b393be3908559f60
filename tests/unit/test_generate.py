"""The generator's parts that need no port."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from xdpgw.errors import XdpgwError
from xdpgw.generate import Report, Template, _watched, generate


def test_watched_interrupted_twice_waits_for_the_sender() -> None:
    """What the sender works on is closed next: a second Ctrl-C must not leave it behind."""
    stops, ended = threading.Semaphore(0), threading.Event()
    told: list[bool] = []

    def send() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            told.append(stops.acquire(timeout=10))
        ended.set()

    before = signal.getsignal(signal.SIGINT)
    try:
        _watched(send, stop=stops.release, sent=lambda: 0, tell=None)
    except KeyboardInterrupt:
        pytest.fail(f"interrupted; the sender had ended: {ended.is_set()}")
    assert ended.is_set()
    assert told == [True, True]
    assert signal.getsignal(signal.SIGINT) is before


def test_watched_gives_on_what_the_sender_raises() -> None:
    def send() -> None:
        raise XdpgwError("no more")

    with pytest.raises(XdpgwError, match="no more"):
        _watched(send, stop=lambda: None, sent=lambda: 0, tell=None)


def test_watched_ends_the_sender_where_the_progress_fails() -> None:
    stopped = threading.Event()

    def tell(_: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        _watched(lambda: stopped.wait(10) and None, stop=stopped.set, sent=lambda: 0, tell=tell)
    assert stopped.is_set()


def test_watched_by_another_thread_leaves_signals_alone() -> None:
    ran = threading.Event()
    thread = threading.Thread(
        target=_watched, args=(ran.set,), kwargs={"stop": int, "sent": int, "tell": None}
    )
    thread.start()
    thread.join(10)
    assert ran.is_set()
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"engine": "pktgen"}, "no engine pktgen"),
        ({"mode": "native"}, "no mode native"),
        ({"count": -1}, "count -1"),
        ({"rate_pps": float("nan")}, "rate_pps nan"),
        ({"seconds": -0.5}, "seconds -0.5"),
    ],
)
def test_generate_of_what_cannot_be_is_a_sentence(wrong: dict[str, object], what: str) -> None:
    with pytest.raises(XdpgwError, match=what):
        generate("lo", Template().frames(), **wrong)  # type: ignore[arg-type]


def test_generate_of_no_frame_is_a_sentence() -> None:
    with pytest.raises(XdpgwError, match="no frame to send"):
        generate("lo", [])


def test_report_of_nothing_has_no_rate() -> None:
    report = Report(0, 0, 0.0, "afxdp")
    assert (report.pps, report.bits_per_s) == (0.0, 0.0)
