"""A socket of datagrams in the place of journald's."""

from __future__ import annotations

from pathlib import Path

from tests.net.process import until
from xdpgw.config import SinkSettings

from ..listeners import Listener, UnixDatagrams
from . import Reader


def entry(datagram: bytes) -> dict[str, str]:
    """The fields of a datagram of the native protocol, where none holds a newline."""
    lines = datagram.decode().split("\n")
    assert lines.pop() == ""
    fields = [line.partition("=") for line in lines]
    assert all(mark for _, mark, _ in fields)
    return {name: value for name, _, value in fields}


class Journal:
    def __init__(self, folder: Path, stdout: Reader) -> None:
        self._listener: Listener = UnixDatagrams(folder / "socket")
        self.settings = SinkSettings("journald", folder / "socket")

    def entries(self, count: int) -> list[dict[str, str]]:
        """What it was sent, once there is so much."""
        heard = self._listener.heard
        until(lambda: len(heard) >= count, f"{count} datagrams")
        return [entry(x) for x in heard]

    def sources(self, count: int) -> list[str]:
        return [x.get("XDPGW_SRC", "") for x in self.entries(count)]

    def break_(self) -> None:
        self._listener.stop()

    def mend(self) -> None:
        self._listener.start()

    def close(self) -> None:
        self._listener.stop()


ADAPTERS = {"socket": Journal}
