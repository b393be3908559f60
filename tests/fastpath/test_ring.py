"""The ring protocol of fastpath/events.c in plain memory: ring_test.c under sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.fastpath.toolchain import ROOT, c_program

SOURCE = "fastpath/ring_test.c"
CASES = re.findall(r"^\tCASE\((\w+)\),$", (ROOT / "tests" / SOURCE).read_text(), re.MULTILINE)


@pytest.fixture(scope="module", params=["address,undefined", "thread"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = (SOURCE, ROOT / "fastpath/pcapng.c")
    return c_program(sources, tmp_path_factory.mktemp("ring") / "ring_test", request.param)


@pytest.mark.parametrize("case", CASES)
def test_ring(program: Path, case: str) -> None:
    done = subprocess.run([program, case], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_ring_runs_every_case_that_there_is(program: Path) -> None:
    listed = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert listed == CASES
    assert len(CASES) > 10
