"""The way to a collector of events: connected when there is something to send, and anew after it
was gone."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Sequence

from xdpgw.sinks import SinkError

__all__ = ["PATIENCE_S", "Collector", "host_and_port", "udp_datagrams", "unix_datagrams"]

WELCOME_MS = 100
"""How long a refusal by UDP may take to come back."""
PATIENCE_S = 2.0
"""How long a collector that takes nothing is waited for before the sink says so."""


class Collector:
    """Sends messages, in order, each whole."""

    def __init__(self, place: str, connect: Callable[[], socket.socket]) -> None:
        """Connect to nothing yet.

        Args:
            place: what a person calls it.
            connect: makes a socket to it, of datagrams or a stream.
        """
        self._place = place
        self._connect = connect
        self._socket: socket.socket | None = None
        self._begun = 0
        """Bytes of the next message that the stream has taken already."""
        self._refused = False
        """The last that was heard by UDP was a refusal."""

    def send(self, messages: Sequence[bytes]) -> None:
        """Send all messages; sent is what the kernel has taken.

        Raises:
            SinkError: those it names as left were not sent.
        """
        try:
            made = self._socket or self._made()
        except OSError as error:
            raise self._failed(error, left=len(messages)) from error
        if made.type == socket.SOCK_STREAM:
            self._stream(made, messages)
        else:
            self._datagrams(made, messages)

    def close(self) -> None:
        """Close the socket; the next message makes another one."""
        made, self._socket = self._socket, None
        self._begun = 0
        if made is not None:
            made.close()

    def _made(self) -> socket.socket:
        self._socket = self._connect()
        self._socket.settimeout(PATIENCE_S)
        return self._socket

    def _datagrams(self, made: socket.socket, messages: Sequence[bytes]) -> None:
        for at, message in enumerate(messages):
            try:
                made.send(message)
                if not at and made.family != socket.AF_UNIX:
                    self._require_welcome(made)
            except OSError as error:
                left = len(messages) - at
                if error.errno == errno.EMSGSIZE:
                    raise self._failed(error, lost=1, left=left - 1) from error
                # What is told now of UDP is that one of the datagrams before was refused.
                refused = error.errno == errno.ECONNREFUSED and made.family != socket.AF_UNIX
                self._refused = self._refused or refused
                raise self._failed(error, lost=int(refused and at > 0), left=left) from error

    def _require_welcome(self, made: socket.socket) -> None:
        """Raise what the first of some UDP datagrams met: at once where the far end is near; after
        a refusal, wait for it a moment."""
        told = select.poll()
        told.register(made, 0)  # POLLERR needs no asking
        if told.poll(WELCOME_MS if self._refused else 0):
            code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        self._refused = False

    def _stream(self, made: socket.socket, messages: Sequence[bytes]) -> None:
        data = memoryview(b"".join(messages))
        done = self._begun
        try:
            _require_peer(made)
            while done < len(data):
                done += made.send(data[done:])
            self._begun = 0
        except OSError as error:
            whole = 0
            while whole < len(messages) and len(messages[whole]) <= done:
                done -= len(messages[whole])
                whole += 1
            self._begun = done
            raise self._failed(error, left=len(messages) - whole) from error

    def _failed(self, error: OSError, *, left: int, lost: int = 0) -> SinkError:
        """What to raise; a collector that is only slow keeps its connection."""
        slow = isinstance(error, TimeoutError) and error.errno is None
        if not slow and error.errno != errno.ENOBUFS:
            self.close()
        why = "it takes nothing" if slow else error.strerror or str(error)
        return SinkError(f"{self._place}: {why}", lost=lost, left=left)


def _require_peer(made: socket.socket) -> None:
    """Refuse a stream that the far end has closed: it would take the next message, and lose it."""
    readable = select.poll()
    readable.register(made, select.POLLIN)
    while readable.poll(0):
        if not made.recv(4096):
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def unix_datagrams(path: str) -> socket.socket:
    """A socket to the UNIX datagram socket at a path."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def udp_datagrams(host: str, port: int) -> socket.socket:
    """A UDP socket to a port of a host."""
    family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    made = socket.socket(family, kind, number)
    try:
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def host_and_port(word: str, example: int = 514) -> tuple[str, int]:
    """HOST:PORT; an IPv6 address stands in brackets.

    Args:
        example: the port in what is said of a word that is none.

    Raises:
        Wrong: it is none.
    """
    from xdpgw.literals import Wrong, number

    host, colon, port = word.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        hint = f'write "192.0.2.1:{example}" or "[2001:db8::1]:{example}"'
        raise Wrong(f'"{word}" is not HOST:PORT', hint)
    return host.removeprefix("[").removesuffix("]"), number(port, 1, 65535, "port")
