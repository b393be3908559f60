"""The processes that started this one, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PROC", "ancestors"]

PROC = Path("/proc")


def ancestors(proc: Path = PROC) -> Iterator[int]:
    """Process ids: this one's parent, its parent, ..., as far as /proc tells."""
    pid = os.getppid()
    while pid > 0:
        yield pid
        try:
            status = (proc / str(pid) / "status").read_text()
        except OSError:
            return
        pid = next((int(x.split()[1]) for x in status.splitlines() if x.startswith("PPid:")), 0)
