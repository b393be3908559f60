"""A file of JSON lines."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from tests.net.process import until
from xdpgw.config import SinkSettings

from . import Reader


class InFolder:
    """A file in a folder that can be moved away."""

    def __init__(self, kind: str, folder: Path, options: dict[str, Any]) -> None:
        self._folder = folder / "logs"
        self._away = folder / "away"
        self._folder.mkdir()
        self.path = self._folder / "events"
        self.settings = SinkSettings(kind, self.path, options)

    def break_(self) -> None:
        self._folder.rename(self._away)

    def mend(self) -> None:
        self._away.rename(self._folder)

    def close(self) -> None:
        pass


class Jsonl(InFolder):
    def __init__(self, options: dict[str, Any], folder: Path, stdout: Reader) -> None:
        super().__init__("jsonl", folder, options)

    def sources(self, count: int) -> list[str]:
        until(lambda: self.path.read_bytes().count(b"\n") >= count, f"{count} lines")
        return [json.loads(line)["src"] or "" for line in self.path.read_bytes().splitlines()]


ADAPTERS = {"plain": partial(Jsonl, {}), "gzip": partial(Jsonl, {"gzip": True})}
