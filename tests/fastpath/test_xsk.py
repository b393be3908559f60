"""The C half of AF_XDP over a kernel in plain memory (fake_xdp.h), under ASan and UBSan.

`xsk_ledger` does random things and checks the books after each one; `xsk_cases` is made of
situations. Both are linked with fastpath/ as it is. The planted faults show that they would notice.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fastpath.toolchain import ROOT, c_program

SEED = int(os.environ.get("XDPGW_SEED", "1"))
STEPS = 125_000
SEEDS = range(SEED, SEED + 8)
SANITIZERS = "address,undefined"
HERE = ROOT / "tests/fastpath"
FAKE = [f"fastpath/{name}.c" for name in ("fake_xdp", "fake_path", "fake_libc", "xsk_world")]
CASES = re.findall(r"^\tCASE\((\w+)\),$", (HERE / "xsk_cases.c").read_text(), re.MULTILINE)


def build(
    main: str, out: Path, *, fastpath: Path = ROOT / "fastpath", defines: tuple[str, ...] = ()
) -> Path:
    """A program of the tests over all of fastpath/ that has to do with AF_XDP."""
    under_test = [x for x in sorted(fastpath.rglob("*.c")) if "xsk_internal.h" in x.read_text()]
    sources: list[str | Path] = [*FAKE, f"fastpath/{main}.c", *under_test]
    return c_program(sources, out, SANITIZERS, defines=defines, fastpath=fastpath)


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
def test_xsk(cases: Path, case: str) -> None:
    assert run(cases, case) == (0, "")


def test_xsk_runs_every_case_that_there_is(cases: Path) -> None:
    listed = subprocess.run([cases], capture_output=True, text=True, check=True).stdout.split()
    assert listed == CASES
    assert len(CASES) > 20


FAULTS = {
    "a frame that is sent is recycled, too": (
        "burst.c",
        "\t\tif (burst->fate[i] == XG_SENT)\n\t\t\tcontinue;\n",
        "",
        "given twice",
    ),
    "a chunk that was sent is forgotten": (
        "burst.c",
        "ring_give_back(&queue->completion, n);\n\thand_over(umem, OWNER_SENDING, OWNER_FREE, n);",
        "ring_give_back(&queue->completion, n);\n\thand_over(umem, OWNER_SENDING, OWNER_HELD, n);",
        "said.held == held_of",
    ),
    "one chunk too few is taken back from the completion ring": (
        "burst.c",
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
        "burst.c",
        "i + 1 < n ? XDP_PKT_CONTD : 0",
        "0",
        r"log->n_out <= log->n_given|log->given\[",
    ),
    "a frame is sent from its chunk's beginning": (
        "burst.c",
        "ring_put_desc(&to->tx, parts[i].addr,",
        "ring_put_desc(&to->tx, parts[i].addr & ~1023ull,",
        r"log->given\[",
    ),
    "a frame is written to after it was sent": (
        "burst.c",
        "\t\txsk_kick(to);\n\t}\n\txg_debug_ledger",
        "\t\txsk_kick(to);\n\t\tburst->area[burst->addr[0]]++;\n\t}\n\txg_debug_ledger",
        "changed before it was completed|use-after-poison",
    ),
    "a chunk of the fill ring is written to": (
        "burst.c",
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
    "frames that did not fit are not counted": (
        "burst.c",
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
