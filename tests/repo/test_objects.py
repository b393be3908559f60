"""The BPF objects as files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = sorted(path.name for path in (ROOT / "xdpgw/bpf").glob("*.bpf.o"))


def test_every_source_has_its_object() -> None:
    sources = sorted(path.stem for path in (ROOT / "bpf").glob("*.bpf.c"))
    assert [name.removesuffix(".o") for name in OBJECTS] == sources


@pytest.mark.parametrize("name", OBJECTS)
def test_object_is_the_same_bytes_from_every_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "some" / "folder of another depth"
    shutil.copytree(ROOT / "bpf", folder / "bpf")
    shutil.copy(ROOT / "Makefile", folder)
    subprocess.run(["make", f"xdpgw/bpf/{name}"], cwd=folder, check=True, capture_output=True)
    assert (folder / "xdpgw/bpf" / name).read_bytes() == (ROOT / "xdpgw/bpf" / name).read_bytes()


@pytest.mark.parametrize("name", OBJECTS)
def test_object_holds_no_debug_sections_and_no_path(name: str) -> None:
    raw = (ROOT / "xdpgw/bpf" / name).read_bytes()
    assert b".debug_info" not in raw
    assert str(ROOT).encode() not in raw


def test_datapath_needs_no_kernel_btf() -> None:
    """A kfunc would, which is an extern in a section of its own."""
    raw = (ROOT / "xdpgw/bpf/xdpgw.bpf.o").read_bytes()
    assert b".ksyms" not in raw
