"""The reader of files of addresses, under sanitizers."""

import random
import subprocess
from pathlib import Path

import pytest

from tests.fastpath.toolchain import ROOT, c_program

CASES = 40_000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("netset") / "fuzz"
    sources = ["fastpath/netset_fuzz.c", ROOT / "fastpath/netset.c"]
    return c_program(sources, out, "address,undefined")


def test_reader_keeps_to_its_columns_whatever_the_text_is(program: Path) -> None:
    seed = random.randrange(1, 1 << 63)  # another one each time; the message names it
    done = subprocess.run(
        [program, str(CASES), str(seed)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{CASES} cases\n"), f"seed {seed}: {done.stderr}"
