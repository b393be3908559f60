"""`xdpgw` as a process of its own in a test bed's gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT
from typing import Any

from xdpgw.testbed import TestBed

__all__ = ["Running", "data", "running", "until", "xdpgw"]

TIMEOUT_S = 60.0
"""Only a failure waits for it; a start takes over ten seconds on an emulated processor."""


def until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait until a condition holds; what it gave. Waits between two looks for other threads."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        pause.wait(0.01)
    return found


def _command(bed: TestBed, *args: object) -> list[str]:
    return [sys.executable, "-m", "xdpgw", "--netns", bed.gateway.path, *map(str, args)]


def xdpgw(bed: TestBed, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        _command(bed, *args), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def data(bed: TestBed, *args: object) -> Any:
    """What a command prints with --json."""
    done = xdpgw(bed, *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Running:
    """A command that goes on."""

    def __init__(self, bed: TestBed, folder: Path, *args: object) -> None:
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        with self.out.open("a") as out, self.err.open("a") as err:
            self.process = subprocess.Popen(_command(bed, *args), stdout=out, stderr=err)

    def said(self, text: str) -> None:
        """Wait until it has said this on stderr."""
        until(
            lambda: text in self.err.read_text() or self.process.poll() is not None,
            f"{text!r} in {self.err.read_text()!r}",
        )
        assert text in self.err.read_text()

    def printed(self, lines: int) -> list[str]:
        """Wait until so many lines are on stdout."""
        until(lambda: self.out.read_text().count("\n") >= lines, f"{lines} lines")
        return self.out.read_text().splitlines()

    def tell(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self, number: int = SIGINT) -> int:
        """Tell it to end; its exit status."""
        self.tell(number)
        return self.process.wait(TIMEOUT_S)


@contextmanager
def running(bed: TestBed, folder: Path, *args: object) -> Iterator[Running]:
    """A command that is killed at the end, if it is still there, and whose filter is detached."""
    command = Running(bed, folder, *args)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait(TIMEOUT_S)
        xdpgw(bed, "detach")
