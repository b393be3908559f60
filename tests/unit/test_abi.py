"""The contract: one header, and what was made of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xdpgw import _abi as abi
from xdpgw import btf, loader
from xdpgw._native import ffi
from xdpgw.errors import AbiMismatch

ROOT = Path(__file__).resolve().parents[2]


def test_abi_module_is_what_the_header_makes(tmp_path: Path) -> None:
    fresh = tmp_path / "_abi.py"
    command = [sys.executable, str(ROOT / "fastpath/gen_abi.py"), str(fresh)]
    subprocess.run(command, check=True)
    assert fresh.read_text() == (ROOT / "xdpgw/_abi.py").read_text()


@pytest.mark.parametrize("name", sorted(abi.LAYOUTS))
def test_abi_struct_has_no_hidden_padding(name: str) -> None:
    struct = ffi.typeof(f"struct xg_{name}")
    at = 0
    for _, field in struct.fields:
        assert field.offset == at
        at += ffi.sizeof(field.type)
    assert at == ffi.sizeof(struct)


def test_abi_dtype_reads_what_c_writes() -> None:
    event = ffi.new("struct xg_event *")
    event.sport, event.verdict, event.len_bytes = 4242, abi.Verdict.TX, 9000
    event.src[15] = 7
    seen = __import__("numpy").frombuffer(ffi.buffer(event), abi.event_dtype())[0]
    assert (seen["sport"], seen["verdict"], seen["len_bytes"]) == (4242, abi.Verdict.TX, 9000)
    assert seen["src"][15] == 7


def test_abi_every_row_has_a_meaning() -> None:
    for enum in (abi.Verdict, abi.Reason, abi.LogCounter):
        assert all(abi.MEANINGS[member.name] for member in enum)


@pytest.mark.parametrize("name", [loader.DATAPATH, loader.DATAPATH_RX_VLAN])
def test_object_agrees_with_package(name: str) -> None:
    btf.check_object(loader.artifact(name))


def test_object_of_another_contract_is_refused_with_all_differences() -> None:
    wrong = {name: dict(layout) for name, layout in abi.LAYOUTS.items()}
    wrong["rule"]["itemsize"] += 8
    wrong["counter"]["offsets"] = [8, 0]
    with pytest.raises(AbiMismatch) as caught:
        btf.check_object(loader.artifact(loader.DATAPATH), wrong)
    assert "xg_rule" in str(caught.value)
    assert "xg_counter" in str(caught.value)
    assert "xg_event" not in str(caught.value)
    assert caught.value.exit_status == 5


@pytest.mark.parametrize("elf", [b"", b"\x7fELF", b"not an object at all"])
def test_object_without_btf_is_refused(elf: bytes) -> None:
    with pytest.raises(AbiMismatch):
        btf.check_object(elf)
