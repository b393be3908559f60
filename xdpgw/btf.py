"""Is a BPF object built from the same contract as this package?

A reader of the .BTF section (kernel: Documentation/bpf/btf.rst) that knows as much of the format
as it takes to find the size of a struct and the offsets of its members.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from xdpgw import _abi as abi
from xdpgw.errors import AbiMismatch

__all__ = ["REQUIRED", "check_object", "read_structs"]

Struct = tuple[int, dict[str, int]]
"""Size in bytes, and the offset of each member in bytes."""

REQUIRED = ("config", "row", "rule", "counter", "source", "prefix4", "prefix6", "mac", "event")
"""The structs of bpf/abi.h that the datapath's object must describe."""

_INT, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 3, 4, 5, 6
_FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _ENUM64 = 13, 14, 15, 17, 19
# Bytes behind the 12 of a type's head: so many, and so many for each of its vlen members.
_TAIL = {
    _INT: (4, 0),
    _ARRAY: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    _ENUM: (0, 8),
    _FUNC_PROTO: (0, 8),
    _VAR: (4, 0),
    _DATASEC: (0, 12),
    _DECL_TAG: (4, 0),
    _ENUM64: (0, 12),
}


def _section(elf: bytes, wanted: bytes) -> bytes:
    """A section of a little-endian ELF64 file; b"" where there is none such."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return b""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", elf, 0x3A)
    heads = [struct.unpack_from("<IIQQQQ", elf, table + size * i) for i in range(count)]
    names = heads[names_at]
    for name, _, _, _, offset, length in heads:
        start = names[4] + name
        if elf[start : elf.index(b"\0", start)] == wanted:
            return elf[offset : offset + length]
    return b""


def read_structs(elf: bytes) -> dict[str, Struct]:
    """The named structs that an object's BTF describes; {} where it has no BTF.

    Args:
        elf: the bytes of a .bpf.o.
    """
    raw = _section(elf, b".BTF")
    if not raw:
        return {}
    _, _, _, head, types, types_len, strings, _ = struct.unpack_from("<HBBIIIII", raw)
    text, at, out = head + strings, head + types, {}

    def name_at(offset: int) -> str:
        start = text + offset
        return raw[start : raw.index(b"\0", start)].decode()

    while at < head + types + types_len:
        name, info, size = struct.unpack_from("<III", raw, at)
        kind, vlen, bitfields = info >> 24 & 0x1F, info & 0xFFFF, info >> 31
        at += 12
        if kind == _STRUCT:
            found = [struct.unpack_from("<III", raw, at + 12 * i) for i in range(vlen)]
            bits = [(m, offset & 0xFFFFFF if bitfields else offset) for m, _, offset in found]
            out[name_at(name)] = (size, {name_at(m): offset // 8 for m, offset in bits})
        fixed, each = _TAIL.get(kind, (0, 0))
        at += fixed + each * vlen
    return out


def check_object(elf: bytes, layouts: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Hold the structs of an object against the ones of this package.

    Args:
        elf: the bytes of a .bpf.o.
        layouts: what is wanted, in the form of `_abi.LAYOUTS`; that one if None.

    Raises:
        AbiMismatch: it names every difference.
    """
    found = read_structs(elf)
    differences = []
    for name in REQUIRED:
        layout = (abi.LAYOUTS if layouts is None else layouts)[name]
        members = dict(zip(layout["names"], layout["offsets"], strict=True))
        wanted = (layout["itemsize"], members)
        got = found.get(f"xg_{name}")
        if got != wanted:
            differences.append((f"xg_{name}", wanted, got))
    if differences:
        raise AbiMismatch(
            ", ".join(name for name, _, _ in differences),
            wanted="; ".join(f"{name} {wanted}" for name, wanted, _ in differences),
            got="; ".join(f"{name} {got}" for name, _, got in differences),
        )
