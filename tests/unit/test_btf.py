"""The BTF reader, on objects made by hand and on the datapath built from a changed contract."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from xdpgw import _abi as abi
from xdpgw import btf, loader
from xdpgw.errors import AbiMismatch

ROOT = Path(__file__).resolve().parents[2]


class Btf:
    """Writes a .BTF section, type by type."""

    def __init__(self) -> None:
        self.strings, self.types = b"\0", b""

    def name(self, text: str) -> int:
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(
        self, kind: int, name: str, size: int, rows: list[tuple[int, ...]], flag: int = 0
    ) -> Btf:
        info = flag << 31 | kind << 24 | len(rows)
        self.types += struct.pack("<III", self.name(name), info, size)
        for row in rows:
            self.types += struct.pack(f"<{len(row)}I", *row)
        return self

    def elf(self, magic: int = 0xEB9F) -> bytes:
        """An object with this section, as the third."""
        head = struct.pack("<HBBIIIII", magic, 1, 0, 24, 0, len(self.types), len(self.types), 0)
        raw = head[:-4] + struct.pack("<I", len(self.strings)) + self.types + self.strings
        names = b"\0.strtab\0.BTF\0"
        body = names + raw
        sections = struct.pack("<IIQQQQIIQQ", *[0] * 10)
        sections += struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, 64, len(names), 0, 0, 1, 0)
        sections += struct.pack("<IIQQQQIIQQ", 9, 1, 0, 0, 64 + len(names), len(raw), 0, 0, 1, 0)
        elf = b"\x7fELF\x02\x01\x01" + bytes(9)
        elf += struct.pack("<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, 3, 1)
        return elf + body + sections


def as_object(without: str = "", numbers: dict[str, int] | None = None) -> bytes:
    """An object that says what `_abi` says, but for a struct, and some numbers of xg_verdict."""
    made = Btf()
    for name, layout in abi.LAYOUTS.items():
        if name != without:
            members = zip(layout["names"], layout["offsets"], strict=True)
            rows = [(made.name(member), 0, offset * 8) for member, offset in members]
            made.add(4, f"xg_{name}", layout["itemsize"], rows)
    verdicts = abi.ENUMERATORS["verdict"] | (numbers or {})
    made.add(6, "xg_verdict", 4, [(made.name(name), value) for name, value in verdicts.items()])
    return made.elf()


def test_reader_steps_over_every_kind_of_type() -> None:
    made = Btf().add(1, "int", 4, [])
    made.types += struct.pack("<I", 32)
    made.add(2, "", 1, []).add(3, "", 0, [])
    made.types += struct.pack("<III", 1, 1, 4)
    made.add(5, "u", 4, [(0, 1, 0)]).add(7, "f", 0, []).add(8, "t", 1, []).add(9, "", 1, [])
    made.add(10, "", 1, []).add(11, "", 1, []).add(12, "main", 13, []).add(13, "", 1, [(0, 1)])
    made.add(14, "v", 1, [])
    made.types += struct.pack("<I", 1)
    made.add(15, ".rodata", 4, [(14, 0, 4)]).add(16, "float", 4, []).add(17, "tag", 1, [])
    made.types += struct.pack("<I", 0xFFFFFFFF)
    made.add(18, "type_tag", 1, []).add(19, "wide", 8, [(made.name("W"), 1, 1)])
    made.add(4, "last", 8, [(made.name("a"), 1, 0), (made.name("b"), 1, 32)])
    assert btf.read_types(made.elf()) == ({"last": (8, {"a": 0, "b": 4})}, {})


def test_reader_takes_the_offset_without_the_width_of_a_bit_field() -> None:
    made = Btf()
    made.add(4, "s", 4, [(made.name("a"), 1, 8 << 24 | 16)], flag=1)
    assert btf.read_types(made.elf()).structs == {"s": (4, {"a": 2})}


def test_check_takes_an_object_of_the_same_contract() -> None:
    btf.check_object(as_object())


@pytest.mark.parametrize("name", btf.REQUIRED)
def test_check_refuses_an_object_without_a_required_struct(name: str) -> None:
    with pytest.raises(AbiMismatch) as caught:
        btf.check_object(as_object(without=name))
    assert caught.value.struct == f"xg_{name}"
    assert caught.value.got == f"no xg_{name}"


def test_check_takes_an_object_without_a_struct_that_is_not_required() -> None:
    assert "rate" not in btf.REQUIRED
    btf.check_object(as_object(without="rate"))


def test_check_names_every_number_that_differs() -> None:
    with pytest.raises(AbiMismatch) as caught:
        btf.check_object(as_object(numbers={"XG_VERDICT_PASS": 1, "XG_VERDICT_DROP": 0}))
    assert caught.value.wanted == "XG_VERDICT_PASS 0; XG_VERDICT_DROP 1"
    assert caught.value.got == "XG_VERDICT_PASS 1; XG_VERDICT_DROP 0"


def test_check_names_a_number_that_only_the_object_has() -> None:
    with pytest.raises(AbiMismatch) as caught:
        btf.check_object(as_object(numbers={"XG_VERDICT_MIRROR": 8}))
    assert caught.value.wanted == "no XG_VERDICT_MIRROR"
    assert caught.value.got == "XG_VERDICT_MIRROR 8"


def test_check_names_every_struct_and_member_that_differs() -> None:
    layouts: dict[str, dict[str, Any]] = {name: dict(x) for name, x in abi.LAYOUTS.items()}
    layouts["counter"]["offsets"] = [8, 0]
    layouts["mac"]["itemsize"] = 10
    layouts["index"]["names"] = ["ends"]
    with pytest.raises(AbiMismatch) as caught:
        btf.check_object(as_object(), layouts)
    assert caught.value.struct.split(", ") == ["xg_index", "xg_counter", "xg_mac"]
    assert str(caught.value.wanted).split("; ") == [
        "xg_index.ends at 0",
        "xg_counter.packets at 8",
        "xg_counter.bytes at 0",
        "xg_mac of 10 bytes",
        "no xg_index.end",
    ]
    assert str(caught.value.got).split("; ") == [
        "no xg_index.ends",
        "xg_counter.packets at 0",
        "xg_counter.bytes at 8",
        "xg_mac of 8 bytes",
        "xg_index.end at 0",
    ]


def test_object_cut_short_is_refused_not_a_crash() -> None:
    elf = as_object()
    unread = 24  # the rest of the last section's head
    for end in range(0, len(elf) - unread):
        with pytest.raises(AbiMismatch):
            btf.check_object(elf[:end])


@pytest.mark.parametrize("elf", [b"", b"\x7fELF", b"not an object at all"])
def test_what_is_no_object_is_refused(elf: bytes) -> None:
    with pytest.raises(AbiMismatch):
        btf.check_object(elf)


def test_object_with_the_magic_of_another_byte_order_is_refused() -> None:
    with pytest.raises(AbiMismatch):
        btf.check_object(Btf().elf(magic=0x9FEB))


def test_built_object_agrees_with_the_package() -> None:
    btf.check_object((ROOT / "xdpgw/bpf" / loader.DATAPATH).read_bytes())


def test_mismatch_ends_the_command_with_its_own_status() -> None:
    with pytest.raises(AbiMismatch) as caught:
        btf.check_object(b"")
    assert caught.value.exit_status == 5
    assert caught.value.struct.split(", ") == [f"xg_{name}" for name in btf.REQUIRED]


@pytest.mark.parametrize(
    ("old", "new", "struct_name", "wanted", "got"),
    [
        pytest.param(
            "xg_counter {\n\t__u64 packets;\n\t__u64 bytes;",
            "xg_counter {\n\t__u64 bytes;\n\t__u64 packets;",
            "xg_counter",
            "xg_counter.packets at 0; xg_counter.bytes at 8",
            "xg_counter.packets at 8; xg_counter.bytes at 0",
            id="two members of a struct change places",
        ),
        pytest.param(
            'X(PASS, pass, "the host\'s network stack") \\\n\tX(DROP, drop, "nothing")',
            'X(DROP, drop, "nothing") \\\n\tX(PASS, pass, "the host\'s network stack")',
            "XG_VERDICT_PASS, XG_VERDICT_DROP, XG_ACTION_PASS, XG_ACTION_DROP",
            "XG_VERDICT_PASS 0; XG_VERDICT_DROP 1; XG_ACTION_PASS 0; XG_ACTION_DROP 1",
            "XG_VERDICT_PASS 1; XG_VERDICT_DROP 0; XG_ACTION_PASS 1; XG_ACTION_DROP 0",
            id="two verdicts change numbers",
        ),
        pytest.param(
            "XG_NO_RULE = 0xffff",
            "XG_NO_RULE = 0xfffe",
            "XG_NO_RULE",
            "XG_NO_RULE 65535",
            "XG_NO_RULE 65534",
            id="a limit changes",
        ),
    ],
)
def test_datapath_of_a_changed_header_is_refused(
    old: str, new: str, struct_name: str, wanted: str, got: str, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "bpf", tmp_path / "bpf")
    shutil.copy(ROOT / "Makefile", tmp_path)
    header = tmp_path / "bpf/abi.h"
    assert header.read_text().count(old) == 1
    header.write_text(header.read_text().replace(old, new))
    subprocess.run(
        ["make", f"xdpgw/bpf/{loader.DATAPATH}"], cwd=tmp_path, check=True, capture_output=True
    )
    with pytest.raises(AbiMismatch) as caught:
        btf.check_object((tmp_path / "xdpgw/bpf" / loader.DATAPATH).read_bytes())
    seen = caught.value
    assert (seen.struct, seen.wanted, seen.got) == (struct_name, wanted, got)


def test_objects_describe_every_enum_of_the_contract() -> None:
    objects = (ROOT / "xdpgw/bpf").glob("*.bpf.o")
    described = {name for path in objects for name in btf.read_types(path.read_bytes()).enums}
    assert {f"xg_{name}" for name in abi.ENUMERATORS} <= described


def test_built_object_of_the_snoop_agrees_with_the_package() -> None:
    elf = (ROOT / "xdpgw/bpf/openat.bpf.o").read_bytes()
    btf.check_object(elf, required=loader.REQUIRED["openat.bpf.o"])
    with pytest.raises(AbiMismatch):
        btf.check_object(elf)
