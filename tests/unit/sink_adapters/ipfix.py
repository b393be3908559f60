"""A collector of IPFIX by UDP."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from tests.ipfix import Reading
from tests.net.process import until
from xdpgw.config import SinkSettings

from ..listeners import UdpDatagrams
from . import Reader


class Ipfix:
    def __init__(self, folder: Path, stdout: Reader) -> None:
        self._listener = UdpDatagrams()
        self._read = 0
        self.reading = Reading()
        self.settings = SinkSettings("ipfix", None, {"to": f"127.0.0.1:{self._listener.port}"})

    def sources(self, count: int) -> list[str]:
        until(lambda: self._take() >= count, f"{count} records")
        assert self.reading.sequence_errors == 0
        raws = (x.get(8, x.get(27, b"")) for x in self.reading.records)
        return [str(ipaddress.ip_address(raw)) if raw else "" for raw in raws]

    def _take(self) -> int:
        for datagram in self._listener.heard[self._read :]:
            self._read += 1
            self.reading.take(datagram)
        return len(self.reading.records)

    def close(self) -> None:
        self._listener.stop()


ADAPTERS = {"udp": Ipfix}
