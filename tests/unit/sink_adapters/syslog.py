"""Collectors of syslog by each of the three ways."""

from __future__ import annotations

import re
from pathlib import Path

from tests.net.process import until
from xdpgw.config import SinkSettings

from ..listeners import Counted, Listener, UdpDatagrams, UnixDatagrams
from . import Reader

MESSAGE = re.compile(
    r"<(?P<priority>\d+)>1 (?P<time>\S+) (?P<host>\S+) xdpgw (?P<pid>\d+) event "
    r'\[xdpgw@32473(?P<data>(?: [a-z_]+="(?:[^"\\\]]|\\["\\\]])*")*)\] (?P<text>.*)'
)
"""RFC 5424, as far as the sink uses it."""


def data_of(message: bytes | bytearray) -> dict[str, str]:
    """The structured data of a message."""
    found = MESSAGE.fullmatch(message.decode())
    assert found is not None, message
    return dict(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', found["data"]))


class Syslog:
    def __init__(self, listener: Listener, to: str, **options: str) -> None:
        self._listener = listener
        self.settings = SinkSettings("syslog", None, {"to": to, **options})

    def messages(self, count: int) -> list[bytes]:
        """What it was sent, once there is so much."""
        heard = self._listener.heard
        until(lambda: len(heard) >= count, f"{count} messages")
        return heard

    def sources(self, count: int) -> list[str]:
        return [data_of(x).get("src", "") for x in self.messages(count)]

    def close(self) -> None:
        self._listener.stop()


class Lossless(Syslog):
    """By a way that tells the sender who is gone."""

    def break_(self) -> None:
        self._listener.stop()

    def mend(self) -> None:
        self._listener.start()


def unix(folder: Path, stdout: Reader) -> Syslog:
    return Lossless(UnixDatagrams(folder / "log"), str(folder / "log"), format="rfc5424")


def udp(folder: Path, stdout: Reader) -> Syslog:
    listener = UdpDatagrams()
    return Lossless(listener, f"udp:127.0.0.1:{listener.port}")


def tcp(folder: Path, stdout: Reader) -> Syslog:
    listener = Counted()
    return Lossless(listener, f"tcp:127.0.0.1:{listener.port}")


ADAPTERS = {"unix": unix, "udp": udp, "tcp": tcp}
