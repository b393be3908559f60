"""The objects that were built: they load, on kernels without BTF, too, and hold nothing unused."""

from __future__ import annotations

import struct
from importlib import resources

import pytest

from tests.bpf.verified import (
    MATCHES,
    PROGRAMS,
    SOURCES,
    VARIANTS,
    Variant,
    image_of,
    load_info,
    one_dimension,
    program_name,
)
from tests.fastpath.toolchain import bpf_object
from xdpgw import _abi as abi
from xdpgw import loader
from xdpgw._abi import Dim
from xdpgw.btf import _section as section

XDP, TRACEPOINT = 6, 5  # enum bpf_prog_type
RELOCATED = ("openat.bpf.c",)
"""Objects for kernels with BTF only."""
HEAD_WITH_RELOCATIONS = 32  # struct btf_ext_header with core_relo_off and core_relo_len


def object_of(source: str) -> str:
    return source.removesuffix(".c") + ".o"


def core_relocations(elf: bytes) -> int:
    """Bytes of CO-RE relocations of an object (Documentation/bpf/btf.rst, section 4.2)."""
    raw = section(elf, b".BTF.ext")
    magic, _, _, head = struct.unpack_from("<HBBI", raw)
    assert magic == 0xEB9F
    if head < HEAD_WITH_RELOCATIONS:
        return 0
    _, length = struct.unpack_from("<II", raw, 24)
    return int(length)


def test_every_source_was_built_and_nothing_else_is_there() -> None:
    built = {x.name for x in (resources.files("xdpgw") / "bpf").iterdir()}
    assert built == {object_of(source) for source in SOURCES}


@pytest.mark.parametrize(("source", "variant"), PROGRAMS)
def test_object_loads_and_its_program_has_its_name(source: str, variant: str) -> None:
    info = load_info(loader.artifact(object_of(source)), source, variant)
    kind = TRACEPOINT if source in RELOCATED else XDP
    assert (info.name, info.type) == (program_name(source), kind)


@pytest.mark.parametrize("source", SOURCES)
def test_object_has_core_relocations_where_it_needs_them_only(source: str) -> None:
    found = core_relocations(loader.artifact(object_of(source)))
    assert (found > 0) == (source in RELOCATED)


def test_core_relocations_are_seen_where_there_are_some() -> None:
    assert core_relocations(bpf_object("bpf/relocated.bpf.c")) > 0


def xlated_bytes(variant: str | Variant) -> int:
    return load_info(loader.artifact(loader.DATAPATH), "xdpgw.bpf.c", variant).xlated_bytes


def test_empty_policy_leaves_a_fraction_of_the_program() -> None:
    empty, full = xlated_bytes("empty"), xlated_bytes("full")
    everything = xlated_bytes("everything")
    assert empty * 1.5 < full < everything


def test_full_policy_uses_every_dimension() -> None:
    for name in ("full", "everything", "explain"):
        image = image_of(VARIANTS[name].policy)
        assert all(image.tables.use)
        assert 157 <= image.tables.placement.words <= abi.ROW_WORDS


@pytest.mark.parametrize("match", MATCHES)
def test_field_that_no_rule_names_is_not_in_the_program(match: str) -> None:
    variant = Variant(one_dimension(match))
    used = {dim for dim in Dim if image_of(variant.policy).tables.use[dim]}
    assert any(dim.text.startswith(match) for dim in used)
    assert len(used) <= 3
    assert xlated_bytes("empty") < xlated_bytes(variant)
    # Of what all fields add to the parser, one adds little.
    of_all = xlated_bytes("full") - xlated_bytes("empty")
    assert xlated_bytes(variant) - xlated_bytes("empty") < of_all * 0.35
