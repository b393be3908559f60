"""What happens to the files of sinks, really: a full disk, a lost permission, a removed folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.net.process import until
from xdpgw import sinks
from xdpgw.events import Pump

from .batches import numbered
from .sink_adapters import Adapter, Make, adapters

FILES = [
    kind for kind in sinks.kinds() if sinks.spec(kind).main == "path" and sinks.spec(kind).needed
]
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and other users take root")


def makers(*kinds: str) -> list[object]:
    return [
        pytest.param(make, id=f"{kind}-{variant}")
        for kind in kinds
        for variant, make in adapters(kind).items()
    ]


@contextmanager
def tmpfs(size: str) -> Iterator[Path]:
    """A small file system."""
    folder = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "t", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def nothing() -> bytes:
    return b""


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass


@needs_root
@pytest.mark.parametrize("make", makers(*FILES))
def test_full_disk_is_told_once_and_loses_nothing_that_the_queue_holds(make: Make) -> None:
    said: list[str] = []
    with tmpfs("2m") as folder:
        adapter = make(folder, nothing)
        with Pump.of([adapter.settings], on_error=said.append) as pump:
            pump.put(numbered(1))
            until(lambda: pump.stats[0].written == 1, "an event")
            fill(folder / "filler")
            put = 1
            while not pump.stats[0].failing:
                pump.put(numbered(*[put % 250] * 100))
                put += 100
                until(lambda: pump.stats[0].failing or not pump.stats[0].queued, "an end")
            for _ in range(10):
                pump.put(numbered(7))
            put += 10
            (books,) = pump.stats
            assert books.written + books.queued == put
            (folder / "filler").unlink()
            until(lambda: not pump.stats[0].queued, "all written")
        (books,) = pump.stats
        assert (books.written, books.lost) == (put, 0)
        assert len(adapter.sources(put)) == put
        adapter.close()
    begins, ends = said
    assert "fails; events wait for it: " in begins
    assert ends.endswith("is well again; it has lost 0 events so far")


@needs_root
@pytest.mark.parametrize("make", makers(*FILES))
def test_full_disk_at_the_end_loses_what_waits_and_says_how_much(make: Make) -> None:
    said: list[str] = []
    with tmpfs("2m") as folder:
        adapter = make(folder, nothing)
        put = 0
        with Pump.of([adapter.settings], on_error=said.append) as pump:
            fill(folder / "filler")
            while not pump.stats[0].failing:
                pump.put(numbered(*[put % 250] * 100))
                put += 100
                until(lambda: pump.stats[0].failing or not pump.stats[0].queued, "an end")
            for _ in range(100):
                pump.put(numbered(7))
            put += 100
        (books,) = pump.stats
        assert books.written + books.lost == put
        assert books.lost >= 100
        (folder / "filler").unlink()
        assert len(adapter.sources(books.written)) == books.written
        adapter.close()


@needs_root
@pytest.mark.parametrize("make", makers("binary", "jsonl"))
def test_permission_that_is_lost_and_given_again_loses_nothing(make: Make) -> None:
    said: list[str] = []
    folder = Path(tempfile.mkdtemp())
    adapter = make(folder, nothing)
    logs = folder / "logs"
    for path in (folder, logs):
        path.chmod(0o777)
    try:
        os.seteuid(NOBODY)
        with Pump.of([adapter.settings], on_error=said.append) as pump:
            pump.put(numbered(1))
            until(lambda: pump.stats[0].written == 1, "an event")
            os.seteuid(0)
            logs.chmod(0)
            os.seteuid(NOBODY)
            pump.put(numbered(2))
            until(lambda: pump.stats[0].failing, "a complaint")
            pump.put(numbered(3))
            os.seteuid(0)
            logs.chmod(0o777)
            os.seteuid(NOBODY)
            until(lambda: pump.stats[0].written == 3, "all written")
    finally:
        os.seteuid(0)
    assert adapter.sources(3) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    adapter.close()
    shutil.rmtree(folder)
    begins, ends = said
    assert "Permission denied" in begins
    assert "well again" in ends


@pytest.mark.parametrize("make", makers("binary", "jsonl"))
def test_folder_that_is_removed_and_made_again_gets_what_comes_then(
    make: Make, tmp_path: Path
) -> None:
    said: list[str] = []
    adapter: Adapter = make(tmp_path, nothing)
    with Pump.of([adapter.settings], on_error=said.append) as pump:
        pump.put(numbered(1))
        until(lambda: pump.stats[0].written == 1, "an event")
        shutil.rmtree(tmp_path / "logs")
        pump.put(numbered(2))
        until(lambda: pump.stats[0].failing, "a complaint")
        (tmp_path / "logs").mkdir()
        until(lambda: pump.stats[0].written == 2, "the next event")
    assert adapter.sources(1) == ["192.0.2.2"]
    assert len(said) == 2
