"""The object of `xdpgw snoop openat`: it is relocated to whatever kernel it is loaded on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fastpath.toolchain import ROOT, bpf_object
from xdpgw import snoop
from xdpgw._abi import OpenCounter
from xdpgw.errors import UnsupportedError
from xdpgw.handles import possible_cpus
from xdpgw.snoop import Wanted, load, relocations

FILLED, RAW = "syscall_trace", "trace_event_raw_sys"
"""What the kernel fills in, and what programs commonly name."""


def members(struct: str, first: int) -> dict[str, int]:
    """The members that are read, where arguments and result begin at an offset."""
    arguments = {f"{struct}_enter.args[{i}]": first + 8 * i for i in range(4)}
    return {**arguments, f"{struct}_exit.ret": first}


IN_OBJECT = {**members(FILLED, 16), **members(RAW, 16)}


def offsets(btf: Path | None) -> tuple[dict[str, int], dict[str, int], set[int]]:
    """Where members lie in the object, where in a kernel, and where the loaded `openat` reads."""
    with load(Wanted(), kernel_btf=btf, debug=True) as obj:
        found = relocations(obj.log)
        number = obj.program("openat").info().id
        dump = subprocess.run(
            ["bpftool", "prog", "dump", "xlated", "id", str(number)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    reads = {int(x) for x in re.findall(r"\*\(u64 \*\)\(r\d \+(\d+)\)", dump)}
    before = {x.member: x.in_object for x in found}
    return before, {x.member: x.in_kernel for x in found}, reads


def test_object_reads_where_this_kernel_has_the_arguments() -> None:
    before, after, reads = offsets(None)
    assert before == IN_OBJECT
    shown = subprocess.run(
        ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "-j"],
        check=True,
        capture_output=True,
    )
    types = json.loads(shown.stdout)["types"]
    for struct in (FILLED, RAW):
        (at,) = (
            member["bits_offset"] // 8
            for x in types
            if x["kind"] == "STRUCT" and x["name"] == f"{struct}_enter"
            for member in x["members"]
            if member["name"] == "args"
        )
        wanted = {name: x for name, x in members(struct, at).items() if "enter" in name}
        assert wanted.items() <= after.items()
    assert {x for name, x in after.items() if f"{FILLED}_enter" in name} <= reads


def test_object_reads_where_a_kernel_of_another_layout_has_the_arguments(tmp_path: Path) -> None:
    """One that has a single name for them, as far as this object knows."""
    path = tmp_path / "btf"
    path.write_bytes(bpf_object("bpf/other_kernel.bpf.c"))
    before, after, reads = offsets(path)
    assert before == members(RAW, 16)
    assert after == {**members(RAW, 32), f"{RAW}_exit.ret": 24}
    assert {32, 40, 48, 56} <= reads
    assert 16 not in reads


def test_object_reads_what_a_real_time_kernel_fills_in(tmp_path: Path) -> None:
    """There the common name lies: who goes by it is not attached (EACCES)."""
    path = tmp_path / "btf"
    path.write_bytes(bpf_object("bpf/other_kernel.bpf.c", "REAL_TIME"))
    before, after, reads = offsets(path)
    assert before == IN_OBJECT
    assert after == {**members(FILLED, 16), **members(RAW, 24)}
    assert {16, 24, 32, 40} <= reads
    assert 48 not in reads


def test_relocation_is_told_with_both_offsets() -> None:
    log = (
        "libbpf: prog 'openat': relo #3: <byte_off> [30] struct a.args[1] (0:2:1 @ offset 24)\n"
        "libbpf: prog 'openat': relo #3: matching candidate #0 <byte_off> [7] struct a.args[1] "
        "(0:2:1 @ offset 40)\n"
        "libbpf: prog 'openat': relo #3: patched insn #6 (LDX/ST/STX) off 24 -> 40\n"
    )
    (found,) = relocations(log)
    assert str(found) == "openat: a.args[1] at 24 in the object, at 40 in this kernel"


@pytest.mark.parametrize("content", [None, b"no BTF", b""])
def test_kernel_without_btf_is_unsupported(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "btf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnsupportedError, match=r"BTF.* in /.*/btf") as caught:
        load(Wanted(), kernel_btf=path)
    assert caught.value.feature == "BTF"
    assert caught.value.exit_status == 3


def test_kernel_without_its_own_btf_is_unsupported() -> None:
    """In a mount namespace where there is none."""
    code = (
        "from xdpgw.snoop import Wanted, load\n"
        "from xdpgw.errors import UnsupportedError\n"
        "try: load(Wanted())\n"
        "except UnsupportedError as error: print(error)\n"
    )
    hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hide, sys.executable, code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "/sys/kernel/btf/vmlinux" in done.stdout


def test_btf_without_the_tracepoints_is_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "btf"
    path.write_bytes(bpf_object("bpf/tiny.bpf.c"))
    with pytest.raises(UnsupportedError, match="does not describe") as caught:
        load(Wanted(), kernel_btf=path)
    assert "--btf" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "kept"), [("bash", b"bash"), ("a" * 15, b"a" * 15), ("b" * 40, b"b" * 15)]
)
def test_name_is_what_the_kernel_keeps_of_it(name: str, kept: bytes) -> None:
    raw = Wanted(comm=name).rodata()
    assert kept.ljust(16, b"\0") in raw
    assert b"b" * 16 not in raw


def test_object_s_programs_are_named_after_what_they_are_attached_to() -> None:
    with load(Wanted()) as obj:
        for program, _ in snoop._ATTACHMENTS:
            assert obj.program(program).info().type == 5  # BPF_PROG_TYPE_TRACEPOINT


def test_losses_are_told_while_they_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snoop, "_LOOK_S", 0.0)
    told: list[str] = []
    with load(Wanted()) as obj:
        counters = obj.map("open_counters")
        losses = snoop._Losses(counters, told.append)
        for lost in (0, 3, 3, 5):
            values = lost.to_bytes(8, sys.byteorder) + bytes(8 * (possible_cpus() - 1))
            counters.update(OpenCounter.LOST.to_bytes(4, sys.byteorder), values)
            losses.tell()
    assert told == ["3 calls lost so far", "5 calls lost so far"]
