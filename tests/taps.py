"""A filter for test runs, on no port, and who looks on at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from xdpgw import config, gateway, loader, rules
from xdpgw._abi import Reason, Verdict
from xdpgw.compile import compile_rules
from xdpgw.events import EventReader
from xdpgw.explain import read_frames
from xdpgw.kernel import LinkInfo, Program
from xdpgw.pcapng import PcapngFile
from xdpgw.pins import Attached, Manifest
from xdpgw.tap import Tap, Wanted

__all__ = ["Filter", "filtering", "judgements", "kept_frames", "tapping"]

RING_BYTES = 1 << 22


class _Link(nullcontext[None]):
    """As of a port."""

    def __init__(self, prog_id: int) -> None:
        super().__init__()
        self._prog_id = prog_id

    def info(self) -> LinkInfo:
        return LinkInfo(1, self._prog_id, 1)


class Filter:
    """Stands in for `pins.Instance`: its links are programs that no port runs."""

    generation = 1
    exists = True

    def __init__(self, loaded: loader.Loaded) -> None:
        self.loaded = loaded
        ports = {port: Attached(1, "native", 0) for port in loaded.programs if port is not None}
        self.current = gateway._manifest(loaded.image, ports, None, loaded.shows)

    def changing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def manifest(self) -> Manifest:
        return self.current

    def link(self, port: str) -> _Link:
        return _Link(self.program(port).info().id)

    def program(self, port: str = "left") -> Program:
        return self.loaded.programs[port]


@contextmanager
def filtering(policy: str, ports: tuple[str, ...] = ("left",)) -> Iterator[Filter]:
    """A policy, loaded as for ports."""
    image = compile_rules(rules.resolve(config.loads(policy)))
    with loader.load(image, ports) as loaded:
        yield Filter(loaded)


@contextmanager
def tapping(
    at: Filter, match: str = "", *, port: str = "left", ring_bytes: int = RING_BYTES, **wanted: Any
) -> Iterator[tuple[Tap, EventReader]]:
    """A tap on a port of it, and the reader of its ring."""
    told: list[str] = []
    with ExitStack() as stack:
        tap = stack.enter_context(
            Tap(
                at,  # type: ignore[arg-type]
                at.current,
                [port],
                Wanted(match, **wanted),
                ring_bytes=ring_bytes,
                note=told.append,
            )
        )
        yield tap, stack.enter_context(EventReader(tap.ring))
    assert told == []


def judgements(tap: Tap, reader: EventReader) -> list[tuple[str, str, str | None]]:
    """Verdict, reason and rule of the records in the ring."""
    return [
        (
            Verdict(int(event["verdict"])).text,
            Reason(int(event["reason"])).text,
            tap.names.rule(int(event["rule"])),
        )
        for event in reader.drain()
    ]


def kept_frames(tap: Tap, reader: EventReader, path: Path, snaplen: int) -> list[bytes]:
    """The frames in the ring, by way of a file."""
    with PcapngFile(path, {"left": 0}, snaplen=snaplen) as file:
        while reader.capture(file, tap.names, 100):
            pass
    return list(read_frames(path))
