"""The endpoint of the metrics, which has to live with whoever connects."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tests.net.process import until
from tests.snapshots import moment
from xdpgw import metrics_server
from xdpgw.errors import XdpgwError
from xdpgw.metrics import page
from xdpgw.metrics_server import Server, listen, url_of

LOCAL = ("127.0.0.1", 0)


@contextmanager
def serving(
    make: Callable[[str], tuple[str, bytes]] | None = None, address: tuple[str, int] = LOCAL
) -> Iterator[str]:
    """A server; its URL."""
    listening = listen(address)
    server = Server(listening, make or (lambda accept: page(lambda: moment(1), accept)))
    try:
        yield url_of(listening)
    finally:
        server.close()


def ask(url: str, path: str = "/metrics", **options: Any) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    request = urllib.request.Request(url.replace("/metrics", path), **options)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def connection(url: str) -> socket.socket:
    host, port = url.split("/")[2].split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_endpoint_serves_both_formats() -> None:
    with serving() as url:
        status, kind, body = ask(url)
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert b"xdpgw_packets_total{" in body
        accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        status, kind, body = ask(url, headers={"Accept": accept})
        assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
        assert body.endswith(b"# EOF\n")
        status, _, body = ask(url, method="HEAD")
        assert (status, body) == (200, b"")
        assert ask(url, "/metrics?x=1")[0] == 200


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/", {}, 404),
        ("/metrics/x", {}, 404),
        ("/metrics", {"method": "POST", "data": b"x" * 5000}, 405),
        ("/metrics", {"headers": {"X": "y" * 9000}}, 431),
        ("/metrics", {"headers": {"Accept": "application/openmetrics-text;version=9.x,;;,"}}, 200),
    ],
)
def test_endpoint_answers_what_it_does_not_serve(
    path: str, options: dict[str, Any], status: int
) -> None:
    with serving() as url:
        assert ask(url, path, **options)[0] == status
        assert ask(url)[0] == 200


def test_endpoint_tells_why_a_page_could_not_be_made_and_goes_on() -> None:
    broken: list[Exception] = [XdpgwError("the kernel says no"), ZeroDivisionError("oh")]

    def make(accept: str) -> tuple[str, bytes]:
        if broken:
            raise broken.pop(0)
        return "text/plain", b"well\n"

    with serving(make) as url:
        assert ask(url)[::2] == (503, b"the kernel says no\n")
        assert ask(url)[::2] == (500, b"ZeroDivisionError('oh')\n")
        assert ask(url)[::2] == (200, b"well\n")


def test_endpoint_outlives_bytes_that_are_no_request() -> None:
    with serving() as url:
        for raw in (b"\0\xff" * 3000, b"\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics", b""):
            with connection(url) as client:
                client.sendall(raw)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(10)
                while client.recv(4096):
                    pass
        assert ask(url)[0] == 200


def test_clients_that_say_nothing_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "GRACE_S", 0.0)
    with serving() as url, ExitStack() as stack:
        idle = [stack.enter_context(connection(url)) for _ in range(3 * 8)]
        idle[-1].sendall(b"GET /metrics HTTP/1.1\r\n")
        assert ask(url)[0] == 200
        for client in idle[:8]:
            assert client.recv(1) == b""
        assert sum(x.name == "scrape" for x in threading.enumerate()) <= 2 * 8


def test_clients_beyond_the_places_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "GRACE_S", 3600.0)
    with serving() as url, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connection(url))
        assert ask(url)[0] == 503


def test_a_client_that_asks_byte_by_byte_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "TIMEOUT_S", 0.3)
    with serving() as url, connection(url) as client:
        request, pause = b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 4000, threading.Event()
        with pytest.raises(OSError):
            for byte in request:
                client.sendall(bytes([byte]))
                pause.wait(0.01)


def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "TIMEOUT_S", 0.3)
    huge = b"x" * (64 << 20)
    with serving(lambda accept: ("text/plain", huge)) as url, connection(url) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        until(lambda: any(x.name == "scrape" for x in threading.enumerate()), "asked")
        until(lambda: not any(x.name == "scrape" for x in threading.enumerate()), "cut off")
        got = 0
        with suppress(ConnectionError):
            while chunk := client.recv(1 << 20):
                got += len(chunk)
        assert got < len(huge)


def test_asking_often_makes_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "KEEP_S", 3600.0)
    made: list[str] = []

    def make(accept: str) -> tuple[str, bytes]:
        made.append(accept)
        return "text/plain", b"page\n"

    with serving(make) as url:
        for _ in range(20):
            assert ask(url)[0] == 200
        assert made == ["text/plain"]


def test_an_address_that_is_taken_is_a_sentence() -> None:
    with serving() as url:
        port = int(url.split(":")[2].split("/")[0])
        with pytest.raises(XdpgwError, match=f"listen for metrics on 127.0.0.1:{port}: Address"):
            listen(("127.0.0.1", port))


def test_an_address_of_ipv6_is_listened_on() -> None:
    with serving(lambda accept: ("text/plain", b"six\n"), ("::1", 0)) as url:
        assert url.startswith("http://[::1]:")
        assert ask(url)[2] == b"six\n"


def test_closing_ends_what_is_under_way() -> None:
    listening = listen(LOCAL)
    server = Server(listening, lambda accept: ("text/plain", b""))
    with connection(url_of(listening)) as client:
        until(lambda: any(x.name == "scrape" for x in threading.enumerate()), "taken up")
        server.close()
        server.close()
        assert client.recv(1) == b""
    until(lambda: not any(x.name == "scrape" for x in threading.enumerate()), "ended")
