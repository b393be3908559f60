"""Is a BPF object built from the same contract as this package?

A reader of the .BTF section (kernel: Documentation/bpf/btf.rst) that knows as much of the format
as it takes to find the sizes of structs, the offsets of their members and the numbers of enums.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from xdpgw import _abi as abi
from xdpgw.errors import AbiMismatch

__all__ = ["REQUIRED", "Types", "check_object", "read_types"]

REQUIRED = (
    *(
        "config",
        "line",
        "leaf",
        "turns",
        "index",
        "path",
        "row",
        "known",
        "rule",
        "counter",
        "source",
    ),
    *("fragment_key", "fragment", "mac", "event"),
    *("block", "block_lengths", "allowed"),
)
"""The structs of bpf/abi.h that the datapath's object must describe."""

_MAGIC, _INT, _ARRAY, _STRUCT, _UNION, _ENUM = 0xEB9F, 1, 3, 4, 5, 6
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


class Types(NamedTuple):
    """The named types of an object.

    Args:
        structs: size in bytes, and the offset of each member in bytes.
        enums: number of each member.
    """

    structs: dict[str, tuple[int, dict[str, int]]]
    enums: dict[str, dict[str, int]]


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


def _read(raw: bytes) -> Types:
    magic, _, _, head, types, types_len, strings, _ = struct.unpack_from("<HBBIIIII", raw)
    if magic != _MAGIC:
        raise ValueError(f"magic {magic:#x}")
    text, at, out = head + strings, head + types, Types({}, {})

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
            out.structs[name_at(name)] = (size, {name_at(m): offset // 8 for m, offset in bits})
        elif kind == _ENUM:
            numbers = [struct.unpack_from("<II", raw, at + 8 * i) for i in range(vlen)]
            out.enums[name_at(name)] = {name_at(m): number for m, number in numbers}
        fixed, each = _TAIL.get(kind, (0, 0))
        at += fixed + each * vlen
    return out


def read_types(elf: bytes) -> Types:
    """The named structs and enums that an object's BTF describes; none where it has no whole BTF.

    Args:
        elf: the bytes of a .bpf.o.
    """
    try:
        return _read(_section(elf, b".BTF"))
    except (struct.error, ValueError, IndexError):
        return Types({}, {})


def _facts(types: Types) -> dict[str, str]:
    """All that is said about the types, a line a fact."""
    out = {}
    for name, (size, members) in types.structs.items():
        out[name] = f"{name} of {size} bytes"
        out |= {f"{name}.{m}": f"{name}.{m} at {offset}" for m, offset in members.items()}
    for numbers in types.enums.values():
        out |= {m: f"{m} {number}" for m, number in numbers.items()}
    return out


def check_object(
    elf: bytes,
    layouts: Mapping[str, Mapping[str, Any]] | None = None,
    enumerators: Mapping[str, Mapping[str, int]] | None = None,
    required: Iterable[str] = REQUIRED,
) -> None:
    """Hold the structs and enums of an object against the ones of this package.

    An enum is compared where the object describes it: clang leaves out those that only serve as
    numbers.

    Args:
        elf: the bytes of a .bpf.o.
        layouts: what is wanted, in the form of `_abi.LAYOUTS`; that one if None.
        enumerators: what is wanted, in the form of `_abi.ENUMERATORS`; that one if None.
        required: structs that have to be there.

    Raises:
        AbiMismatch: it names every difference.
    """
    found, held = read_types(elf), Types({}, {})
    for name, layout in (abi.LAYOUTS if layouts is None else layouts).items():
        if f"xg_{name}" in found.structs:
            offsets = dict(zip(layout["names"], layout["offsets"], strict=True))
            held.structs[f"xg_{name}"] = (layout["itemsize"], offsets)
    for name, numbers in (abi.ENUMERATORS if enumerators is None else enumerators).items():
        if f"xg_{name}" in found.enums:
            held.enums[f"xg_{name}"] = dict(numbers)
    ours = _facts(held)
    ours |= {f"xg_{name}": f"xg_{name}" for name in required if f"xg_{name}" not in ours}
    theirs = _facts(
        Types(
            {name: found.structs[name] for name in held.structs},
            {name: found.enums[name] for name in held.enums},
        )
    )
    wrong = [fact for fact in ours | theirs if ours.get(fact) != theirs.get(fact)]
    if wrong:
        raise AbiMismatch(
            ", ".join(dict.fromkeys(fact.partition(".")[0] for fact in wrong)),
            wanted="; ".join(ours.get(fact, f"no {fact}") for fact in wrong),
            got="; ".join(theirs.get(fact, f"no {fact}") for fact in wrong),
        )
