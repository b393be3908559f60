"""Collectors that listen: real sockets, a thread each, that can go and come back."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

__all__ = ["Counted", "Listener", "UdpDatagrams", "UnixDatagrams"]


class Listener:
    """Keeps each message that it hears."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        """Listen where it has always listened."""
        self._stopping.clear()
        self._socket = self._bound()
        self._socket.settimeout(0.02)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Hear what was sent, then be gone. Twice is fine."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join()
        self._thread = None
        self._socket.close()

    def _bound(self) -> socket.socket:
        raise NotImplementedError

    def _run(self) -> None:
        while True:
            try:
                self._hear()
            except TimeoutError:
                if self._stopping.is_set():
                    return

    def _hear(self) -> None:
        self.heard.append(self._socket.recv(65536))


class UnixDatagrams(Listener):
    """On a UNIX socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__()

    def _bound(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path.unlink(missing_ok=True)
        made.bind(str(self._path))
        return made


class UdpDatagrams(Listener):
    """On UDP, at a port of the kernel's choice, which it keeps."""

    def __init__(self) -> None:
        self.port = 0
        super().__init__()

    def _bound(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        made.bind(("127.0.0.1", self.port))
        self.port = made.getsockname()[1]
        return made


class Counted(Listener):
    """On TCP, at a port of the kernel's choice, which it keeps; messages come with their length.

    Hears one connection at a time.
    """

    def __init__(self) -> None:
        self.port = 0
        self._peer: socket.socket | None = None
        self._data = b""
        super().__init__()

    def stop(self) -> None:
        super().stop()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer, self._data = None, b""

    def _bound(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", self.port))
        made.listen()
        self.port = made.getsockname()[1]
        return made

    def _hear(self) -> None:
        if self._peer is None:
            self._peer, _ = self._socket.accept()
            self._peer.settimeout(0.02)
        data = self._peer.recv(65536)
        if not data:
            self._hang_up()
            return
        self._data += data
        while b" " in self._data:
            length, _, rest = self._data.partition(b" ")
            if len(rest) < int(length):
                return
            self.heard.append(rest[: int(length)])
            self._data = rest[int(length) :]
