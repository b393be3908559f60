"""The lock of a gateway's pins, on any folder."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.net.process import until
from xdpgw.pins import Instance


def test_changing_after_a_detach_holds_the_folder_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "net-1"
    found: list[bool] = []

    def waits() -> None:
        with Instance(path).changing():
            found.append(path.exists())

    waiting = threading.Thread(target=waits)
    with Instance(path).changing():
        waiting.start()
        until(lambda: _waiters(path), "a wait for the lock")
        Instance(path).remove()
    waiting.join(10)
    assert found == [True]


def _waiters(path: Path) -> bool:
    """Whether somebody waits for the lock of a folder."""
    inode = f":{path.stat().st_ino} "
    return any("->" in x and inode in x for x in Path("/proc/locks").read_text().splitlines())
