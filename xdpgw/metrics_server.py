"""The server of the metrics: a few requests at a time, each bounded in size and time.

It is a process of its own, at a low priority, so that neither a scrape nor who asks for one takes
anything from the thread that drains the log. It ends with the process that started it.

Who connects and says nothing, asks byte by byte or does not read the answer holds one of
`CONNECTIONS` places for `TIMEOUT_S` at most, and loses it sooner where another one waits.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from xdpgw.errors import XdpgwError

__all__ = ["Server", "listen", "main", "url_of"]

CONNECTIONS = 8
"""Served at once."""

TIMEOUT_S = 10.0
"""For a whole request and its answer. Prometheus gives up after as long, unless told otherwise."""

BACKLOG = 64
"""May wait for a place, also while the process starts."""

GRACE_S = 1.0
"""A place that was held for so long goes to who waits for one."""

HEAD_BYTES = 8192
"""A request's head, at most."""

KEEP_S = 0.25
"""Who asks sooner after another one gets the same page, so that asking often costs little."""

Page = Callable[[str], tuple[str, bytes]]


def listen(address: tuple[str, int]) -> socket.socket:
    """Listen.

    Args:
        address: numeric, and the port; 0 for a free one.

    Raises:
        XdpgwError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise XdpgwError(
            f"cannot listen for metrics on {_text(address)}: {error.strerror}",
            "correct listen of [metrics]; port 0 picks a free port, and ip link set lo up "
            "brings up loopback",
        ) from error


def url_of(listening: socket.socket) -> str:
    """Where to ask."""
    return f"http://{_text(listening.getsockname())}/metrics"


class Server:
    """Answers GET /metrics on a TCP port until closed."""

    def __init__(self, listening: socket.socket, page: Page) -> None:
        """Begin to answer.

        Args:
            listening: this object's from here on.
            page: from a media type to the content type and the text; one call at a time.
        """
        self._socket = listening
        self._page = page
        self._open: dict[socket.socket, float] = {}
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._kept: dict[str, tuple[float, tuple[str, bytes]]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and end what is under way; twice is fine."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):  # wakes accept(2), which a close does not
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        with self._lock:
            for connection in self._open:
                _hang_up(connection)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if not self._closed:
                    time.sleep(0.05)  # out of descriptors: it is not ours to end for that
                continue
            if self._has_place(connection):
                self._start(connection)
            else:
                with connection, suppress(OSError):  # too little to wait for room to send it
                    connection.send(_response("503 Service Unavailable", b"too many at once\n"))

    def _start(self, connection: socket.socket) -> None:
        serve = threading.Thread(target=self._serve, args=(connection,), name="scrape", daemon=True)
        try:
            serve.start()
        except RuntimeError:  # out of threads
            with self._lock:
                self._open.pop(connection, None)
            connection.close()

    def _has_place(self, connection: socket.socket) -> bool:
        now = time.monotonic()
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                oldest, since = next(iter(self._open.items()))
                if now - since < GRACE_S:
                    return False
                del self._open[oldest]
                _hang_up(oldest)
            self._open[connection] = now
            return True

    def _serve(self, connection: socket.socket) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        try:
            with connection, suppress(OSError):
                answer = self._answer(_read_head(connection, deadline))
                connection.settimeout(_left(deadline))
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                _let_read(connection, deadline)
        finally:
            with self._lock:
                self._open.pop(connection, None)

    def _answer(self, head: bytes | None) -> bytes:
        if head is None:
            return _response("431 Request Header Fields Too Large", b"the head is too long\n")
        line, _, rest = head.decode("latin-1").partition("\r\n")
        method, _, target = line.partition(" ")
        path = target.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", b"GET it\n", ("Allow: GET, HEAD",))
        if path != "/metrics":
            return _response("404 Not Found", b"see /metrics\n")
        try:
            content_type, body = self._made(_header(rest, "accept"))
        except XdpgwError as error:
            return _response("503 Service Unavailable", f"{error}\n".encode())
        except Exception as error:  # whatever it is, the filter goes on, and the next scrape comes
            return _response("500 Internal Server Error", f"{error!r}\n".encode())
        return _response("200 OK", body, kind=content_type, head_only=method == "HEAD")

    def _made(self, accept: str) -> tuple[str, bytes]:
        # One of two, whatever a client makes up.
        openmetrics = "application/openmetrics-text"
        accept = openmetrics if openmetrics in accept else "text/plain"
        with self._making:
            made = self._kept.get(accept)
            if made is None or time.monotonic() - made[0] > KEEP_S:
                made = time.monotonic(), self._page(accept)
                self._kept[accept] = made
            return made[1]


def _text(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _left(deadline: float) -> float:
    """Seconds; a timeout of 0 would mean not to wait at all."""
    return max(0.001, deadline - time.monotonic())


def _hang_up(connection: socket.socket) -> None:
    """Ends what another thread waits for on it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _read_head(connection: socket.socket, deadline: float) -> bytes | None:
    """A request up to its empty line; None where that does not come in `HEAD_BYTES`.

    Raises:
        OSError: it did not come in time, or at all.
    """
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) >= HEAD_BYTES:
            return None
        connection.settimeout(_left(deadline))
        more = connection.recv(HEAD_BYTES - len(head))
        if not more or time.monotonic() > deadline:
            raise ConnectionResetError
        head += more
    return head


def _let_read(connection: socket.socket, deadline: float) -> None:
    """Wait for the other end to close: what it sent and nobody read would reset the answer."""
    while time.monotonic() < deadline:
        connection.settimeout(_left(deadline))
        if not connection.recv(HEAD_BYTES):
            return


def _header(head: str, name: str) -> str:
    for line in head.split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _response(
    status: str,
    body: bytes,
    more: tuple[str, ...] = (),
    *,
    kind: str = "text/plain; charset=utf-8",
    head_only: bool = False,
) -> bytes:
    lines = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *more,
    )
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (b"" if head_only else body)


def main() -> None:
    """Serve on the descriptor of argument 1 until stdin ends; argument 2: with rules or without."""
    from xdpgw.metrics import page
    from xdpgw.pins import Instance
    from xdpgw.snapshot import Reader

    os.nice(10)
    listening = socket.socket(fileno=int(sys.argv[1]))
    make = partial(page, Reader(Instance()).read, rules=sys.argv[2] == "rules")
    server = Server(listening, make)
    sys.stdin.read()
    server.close()
