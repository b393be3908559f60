"""The contract: one header, and what was made of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xdpgw import _abi as abi
from xdpgw._native import ffi

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
    seen = np.frombuffer(ffi.buffer(event), abi.event_dtype())[0]
    assert (seen["sport"], seen["verdict"], seen["len_bytes"]) == (4242, abi.Verdict.TX, 9000)
    assert seen["src"][15] == 7


def test_abi_holds_every_struct_and_enum_of_the_header() -> None:
    text = (ROOT / "bpf/abi.h").read_text()
    assert set(re.findall(r"^struct xg_(\w+) \{", text, flags=re.M)) == set(abi.LAYOUTS)
    assert set(re.findall(r"^enum xg_(\w+) \{", text, flags=re.M)) == set(abi.ENUMERATORS)


@pytest.mark.parametrize("name", sorted(abi.LAYOUTS))
def test_abi_dtype_has_the_layout_of_the_c_compiler(name: str) -> None:
    dtype = getattr(abi, f"{name}_dtype")()
    struct = ffi.typeof(f"struct xg_{name}")
    assert dtype.itemsize == ffi.sizeof(struct)
    for member, field in struct.fields:
        assert dtype.fields[member][1] == field.offset
        assert dtype.fields[member][0].itemsize == ffi.sizeof(field.type)


def test_abi_leaves_counts_out_of_enums() -> None:
    for enum, count in (
        (abi.Verdict, abi.VERDICT_COUNT),
        (abi.Action, abi.ACTION_COUNT),
        (abi.Reason, abi.REASON_COUNT),
        (abi.LogCounter, abi.LOG_COUNT),
        (abi.Dim, abi.DIM_COUNT),
    ):
        assert [member.value for member in enum] == list(range(count))
        assert "COUNT" not in enum.__members__


def test_abi_handlers_have_a_row_count_and_no_sentinel() -> None:
    assert [x.text for x in abi.Handler] == ["count", "reflect", "forward", "capture", "python"]
    assert [x.value for x in abi.Handler] == list(range(len(abi.Handler)))


def test_abi_sockets_have_a_slot_for_each_port_target_and_queue() -> None:
    assert abi.XSK_SLOTS == abi.MAX_PORTS * abi.MAX_TARGETS * abi.MAX_QUEUES
    assert abi.NO_TARGET >= abi.MAX_TARGETS


def test_abi_verdicts_are_actions_of_the_same_number() -> None:
    assert all(abi.Action[verdict.name] == verdict for verdict in abi.Verdict)


def test_abi_text_is_the_word_of_the_table() -> None:
    text = (ROOT / "bpf/abi.h").read_text()
    words = dict(re.findall(r"X\((\w+), (\w+), ", text))
    for enum in (abi.Verdict, abi.Action, abi.Reason, abi.LogCounter, abi.Dim):
        assert all(member.text == words[member.name] for member in enum)
    assert abi.Verdict.AF_XDP.text == "af_xdp"
    assert abi.Reason.NO_SOCKET.text == "no_socket"


def test_abi_every_row_has_the_meaning_of_its_own_table() -> None:
    for enum in (abi.Verdict, abi.Action, abi.Reason, abi.LogCounter, abi.Handler):
        assert all(member.meaning for member in enum)
    assert abi.Reason.LIMIT.meaning == "over a rule's rate"
    assert abi.Handler.FORWARD.meaning == "send out of another port"
    assert abi.Action.LIMIT.meaning == "drop what is over the rate, let the rest go on"
