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

IN_OBJECT = {
    "trace_event_raw_sys_enter.args[0]": 16,
    "trace_event_raw_sys_enter.args[1]": 24,
    "trace_event_raw_sys_enter.args[2]": 32,
    "trace_event_raw_sys_enter.args[3]": 40,
    "trace_event_raw_sys_exit.ret": 16,
}
ELSEWHERE = {name: offset + (16 if "enter" in name else 8) for name, offset in IN_OBJECT.items()}
"""In tests/bpf/other_kernel.bpf.c."""


@pytest.fixture
def other_kernel(tmp_path: Path) -> Path:
    path = tmp_path / "btf"
    path.write_bytes(bpf_object("bpf/other_kernel.bpf.c"))
    return path


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
    (enter,) = (
        {m["name"]: m["bits_offset"] // 8 for m in x["members"]}
        for x in types
        if x["kind"] == "STRUCT" and x["name"] == "trace_event_raw_sys_enter"
    )
    wanted = {f"trace_event_raw_sys_enter.args[{i}]": enter["args"] + 8 * i for i in range(4)}
    assert {name: at for name, at in after.items() if "enter" in name} == wanted
    assert set(wanted.values()) <= reads


def test_object_reads_where_another_kernel_has_the_arguments(other_kernel: Path) -> None:
    before, after, reads = offsets(other_kernel)
    assert before == IN_OBJECT
    assert after == ELSEWHERE
    assert {at for name, at in ELSEWHERE.items() if "enter" in name} <= reads
    assert IN_OBJECT["trace_event_raw_sys_enter.args[0]"] not in reads


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
