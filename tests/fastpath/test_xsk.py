"""The C half of AF_XDP over a kernel in plain memory (fake_xdp.h), under sanitizers.

`xsk_ledger` does random things and checks the books after each one; `xsk_cases` is made of
situations. Both are linked with fastpath/ as it is. The planted faults show that they would notice.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from scapy.utils import RawPcapNgReader

from tests.fastpath.toolchain import ROOT, c_program
from xdpgw._abi import Handler

SEED = int(os.environ.get("XDPGW_SEED", "1"))
STEPS = 125_000
SEEDS = range(SEED, SEED + 8)
SANITIZERS = "address,undefined"
HERE = ROOT / "tests/fastpath"
FAKE = ("fake_xdp.c", "fake_rings.c", "fake_path.c", "fake_libc.c", "xsk_world.c")
CASE_FILES = sorted(path.name for path in HERE.glob("cases_*.c"))
HANDLERS = [f"handler_{handler.name.lower()}" for handler in Handler]
CASES = HANDLERS + [
    case
    for name in CASE_FILES
    for case in re.findall(r"^\tCASE\((\w+)\),$", (HERE / name).read_text(), re.MULTILINE)
]
THREADED = "worker_is_watched_and_stopped_by_another_thread"
PORTS = ("left", "right0", None)


def build(
    main: str,
    out: Path,
    *,
    fastpath: Path = ROOT / "fastpath",
    defines: tuple[str, ...] = (),
    sanitizers: str = SANITIZERS,
) -> Path:
    """A program of the tests over all of fastpath/ that has to do with AF_XDP."""
    ours = [*FAKE, f"{main}.c", *(CASE_FILES if main == "xsk_cases" else ())]
    under_test = [x for x in sorted(fastpath.rglob("*.c")) if "xsk_internal.h" in x.read_text()]
    under_test.append(fastpath / "pcapng.c")
    sources = [*(HERE / name for name in ours), *under_test]
    return c_program(sources, out, sanitizers, defines=defines, fastpath=fastpath)


def run(program: Path, *args: object) -> tuple[int, str]:
    """Exit status and the report."""
    command = [str(program), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("xsk_ledger", tmp_path_factory.mktemp("xsk") / "ledger", defines=("XG_DEBUG",))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("xsk_cases", tmp_path_factory.mktemp("xsk") / "cases", defines=("XG_DEBUG",))


@pytest.mark.parametrize("seed", SEEDS)
def test_xsk_ledger_adds_up_after_every_random_step(ledger: Path, seed: int) -> None:
    assert run(ledger, seed, STEPS) == (0, "")


@pytest.mark.parametrize("case", CASES)
def test_xsk(cases: Path, case: str, tmp_path: Path) -> None:
    assert run(cases, case, tmp_path / "file") == (0, "")


def test_xsk_runs_every_case_that_there_is(cases: Path) -> None:
    listed = subprocess.run([cases], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted(CASES)
    assert len(CASES) > 50


def test_xsk_worker_shares_no_memory_unawares(tmp_path: Path) -> None:
    program = build("xsk_cases", tmp_path / "cases", sanitizers="thread")
    assert run(program, THREADED, tmp_path / "file") == (0, "")


# ---- What the capture handler writes ----------------------------------------------------------


class Captured(NamedTuple):
    port: str
    queue: int
    length: int
    kept: bytes


def expected(lines: str) -> list[Captured]:
    """What a case says that must be in its file."""
    return [
        Captured(PORTS[int(port)] or "", int(queue), int(length), bytes.fromhex(kept))
        for port, queue, length, kept in map(str.split, lines.splitlines())
    ]


def queues(path: Path) -> Iterator[int]:
    """The option epb_queue of each frame, which scapy does not read. The file is whole blocks."""
    rest = path.read_bytes()
    while rest:
        kind, size = struct.unpack_from("=II", rest)
        assert size % 4 == 0
        assert struct.unpack_from("=I", rest, size - 4) == (size,)
        if kind == 6:
            code, length, queue, end, last = struct.unpack_from("=HHIHH", rest, size - 16)
            assert (code, length, end, last) == (6, 4, 0, 0)
            yield queue
        rest = rest[size:]


def captured(path: Path) -> list[Captured]:
    """What is in a file."""
    with RawPcapNgReader(str(path)) as reader:
        frames = [(bytes(data), meta) for data, meta in reader]
    for _, meta in frames:
        assert meta.linktype == 1
        assert meta.tsresol == 10**9
    return [
        Captured((meta.ifname or b"").decode(), queue, meta.wirelen, data)
        for (data, meta), queue in zip(frames, queues(path), strict=True)
    ]


def capture(program: Path, case: str, path: Path) -> str:
    """Run a case that writes a file. What it says on stdout."""
    command = [str(program), case, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_xsk_capture_is_read_back_at_each_snap_length(cases: Path, tmp_path: Path) -> None:
    said = capture(cases, "capture_keeps_frames_up_to_the_snap_length", tmp_path / "x")
    wanted = [expected(part) for part in said.strip("\n").split("\n\n")]
    for snaplen, frames in zip((14, 61, 256, 65535), wanted, strict=True):
        got = captured(tmp_path / f"x-{snaplen}")
        assert got == frames
        assert max(len(frame.kept) for frame in got) == min(
            snaplen, max(frame.length for frame in got)
        )
        assert {(frame.port, frame.queue) for frame in got} == {("left", 0), ("right0", 1)}


def test_xsk_capture_rotates_into_whole_files(cases: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    wanted = expected(capture(cases, "capture_rotates_a_file_that_is_full", path))
    names = ["x.pcapng.2", "x.pcapng.1", "x.pcapng"]
    assert sorted(x.name for x in tmp_path.iterdir()) == sorted(names)
    files = [captured(tmp_path / name) for name in names]
    assert all(files)
    got = [frame for file in files for frame in file]
    assert got == wanted[-len(got) :]
    assert len(got) < len(wanted)


def test_xsk_capture_keeps_no_old_file_where_none_is_wanted(cases: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    wanted = expected(capture(cases, "capture_keeps_no_old_file_where_none_is_wanted", path))
    assert [x.name for x in tmp_path.iterdir()] == ["x.pcapng"]
    got = captured(path)
    assert got
    assert got == wanted[-len(got) :]


def test_xsk_capture_on_a_full_disk_stays_whole(cases: Path, tmp_path: Path) -> None:
    path, case = tmp_path / "x", "capture_on_a_full_disk_counts_what_it_lost_and_goes_on"
    wanted = expected(capture(cases, case, path))
    assert wanted
    assert captured(path) == wanted  # what was lost is not in it, and not announced
    before = path.read_bytes()
    capture(cases, case, path)
    assert (tmp_path / "x.1").read_bytes() == before  # a file that was there is rotated


def test_xsk_capture_that_lost_its_file_begins_a_whole_one(cases: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    wanted = expected(capture(cases, "capture_that_lost_its_file_begins_another", path))
    got = captured(tmp_path / "x.1") + captured(path)
    assert len(got) >= 40
    assert got == wanted[-len(got) :]


# ---- Planted faults ---------------------------------------------------------------------------
FAULTS = {
    "a frame that is sent is recycled, too": (
        "burst.c",
        "\t\tif (burst->fate[i] == XG_SENT)\n\t\t\tcontinue;\n",
        "",
        "given twice",
    ),
    "a chunk that was sent is forgotten": (
        "send.c",
        "ring_give_back(&queue->completion, n);\n\thand_over(umem, OWNER_SENDING, OWNER_FREE, n);",
        "ring_give_back(&queue->completion, n);\n\thand_over(umem, OWNER_SENDING, OWNER_HELD, n);",
        "said.held == held_of",
    ),
    "one chunk too few is taken back from the completion ring": (
        "send.c",
        "ring_give_back(&queue->completion, n);",
        "ring_give_back(&queue->completion, n - 1);",
        "said.sending == truth.sending",
    ),
    "indices are compared, not subtracted": (
        "ring.h",
        "return ring->cached_producer - ring->cached_consumer;",
        "return ring->cached_producer > ring->cached_consumer ?\n"
        "\t\tring->cached_producer - ring->cached_consumer : 0;",
        "n > 0 || !waiting",
    ),
    "the producer runs over the consumer": (
        "ring.h",
        "return ring->cached_consumer + ring->size - ring->cached_producer;\n}",
        "return ring->cached_consumer + ring->size + 1 - ring->cached_producer;\n}",
        "a producer runs over the consumer",
    ),
    "parts of a frame are sent as frames": (
        "send.c",
        "i + 1 < n ? XDP_PKT_CONTD : 0",
        "0",
        r"log->n_out <= log->n_given|log->given\[",
    ),
    "a frame is sent from its chunk's beginning": (
        "send.c",
        "ring_put_desc(&to->tx, parts[i].addr,",
        "ring_put_desc(&to->tx, parts[i].addr & ~1023ull,",
        r"log->given\[",
    ),
    "a frame is written to after it was sent": (
        "send.c",
        "\t\txsk_kick(to);\n\t}\n\txg_debug_ledger",
        "\t\txsk_kick(to);\n\t\tburst->area[burst->addr[0]]++;\n\t}\n\txg_debug_ledger",
        "changed before it was completed|use-after-poison",
    ),
    "a chunk of the fill ring is written to": (
        "send.c",
        "\tring_publish(fill);\n",
        "\tring_publish(fill);\n\tumem->area[ring_addr_at(fill, 0)] = 0;\n",
        "use-after-poison",
    ),
    "a mapping outlives its socket": (
        "xsk.c",
        "\ttake_back_rx(xsk);\n\tunmap_ring(&xsk->tx);\n",
        "\ttake_back_rx(xsk);\n",
        "fake_open_things",
    ),
    "a frame's last part is not recycled": (
        "burst.c",
        "for (k = 0; k < n; k++) {\n\t\txg_debug_hand(umem, parts[k].addr, OWNER_HELD",
        "for (k = 0; k < (n > 1 ? n - 1 : n); k++) {\n"
        "\t\txg_debug_hand(umem, parts[k].addr, OWNER_HELD",
        "given twice",
    ),
    "frames that did not fit are not counted": (
        "send.c",
        "bump(&to->tx_full, full);",
        "bump(&to->tx_full, 1);",
        "is.tx_full == seat->want.tx_full",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_xsk_ledger_finds(fault: str, tmp_path: Path) -> None:
    file, right, wrong, report = FAULTS[fault]
    shutil.copytree(ROOT / "fastpath", tmp_path / "fastpath")
    text = (tmp_path / "fastpath" / file).read_text()
    assert text.count(right) == 1
    (tmp_path / "fastpath" / file).write_text(text.replace(right, wrong))
    # Without the ledger that fastpath/ keeps of itself: the fake's is to find it.
    program = build("xsk_ledger", tmp_path / "ledger", fastpath=tmp_path / "fastpath")
    reports = [run(program, seed, STEPS // 10) for seed in SEEDS]
    found = [text for status, text in reports if status]
    assert found
    assert any(re.search(report, text) for text in found), found[0][:1000]


def test_xsk_worker_race_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fastpath", tmp_path / "fastpath")
    header = tmp_path / "fastpath/xsk_internal.h"
    right = "atomic_store_explicit(counter, was + by, memory_order_relaxed);"
    text = header.read_text()
    assert text.count(right) == 2
    header.write_text(text.replace(right, "*(volatile __typeof__(was) *)counter = was + by;"))
    program = build(
        "xsk_cases", tmp_path / "cases", fastpath=tmp_path / "fastpath", sanitizers="thread"
    )
    status, report = run(program, THREADED, tmp_path / "file")
    assert status
    assert "data race" in report
