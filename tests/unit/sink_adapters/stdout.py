"""Standard output."""

from __future__ import annotations

import re
from pathlib import Path

from tests.net.process import until
from xdpgw.config import SinkSettings

from . import Reader

_SOURCE = re.compile(r"(?P<src>\S+) > ")


class Stdout:
    settings = SinkSettings("stdout")

    def __init__(self, folder: Path, stdout: Reader) -> None:
        self._stdout = stdout
        self._data = b""

    def sources(self, count: int) -> list[str]:
        def enough() -> bool:
            self._data += self._stdout()
            return self._data.count(b"\n") >= count

        until(enough, f"{count} lines")
        return [_source(line) for line in self._data.decode().splitlines()]

    def close(self) -> None:
        pass


def _source(line: str) -> str:
    found = _SOURCE.search(line)
    if found is None:
        return ""
    source = found["src"]
    if source.startswith("["):
        return source[1 : source.index("]")]
    return source if source.count(":") > 1 else source.partition(":")[0]


ADAPTERS = {"line": Stdout}
