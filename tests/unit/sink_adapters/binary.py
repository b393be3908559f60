"""A segment of records."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from tests.net.process import until
from xdpgw.sinks import binary

from . import Reader
from .jsonl import InFolder


class Binary(InFolder):
    def __init__(self, folder: Path, stdout: Reader) -> None:
        super().__init__("binary", folder, {})

    def sources(self, count: int) -> list[str]:
        found: list[Any] = []

        def enough() -> bool:
            found[:] = binary.read(self.path)
            return len(found) >= count

        until(enough, f"{count} records")
        return [_address(int(x["family"]), x["src"].tobytes()) for x in found]


def _address(family: int, raw: bytes) -> str:
    return str(ipaddress.ip_address(raw[:4] if family == 4 else raw)) if family else ""


ADAPTERS = {"plain": Binary}
