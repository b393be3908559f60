"""Calls of `xdpgw snoop` as text: the C formatter against Python's json and os.fsdecode."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fastpath.test_json import number, time_text
from xdpgw import _abi as abi
from xdpgw._abi import Call, OpenHas
from xdpgw._native import ffi, lib
from xdpgw.snoop import json_of, lines_of

AT_FDCWD = 2**32 - 100
TEXTS = st.one_of(
    st.text(max_size=60).map(lambda x: x.encode("utf-8", "surrogatepass").replace(b"\0", b"")),
    st.binary(max_size=abi.PATH_BYTES - 1).map(lambda x: x.replace(b"\0", b"/")),
)
OPENS = st.fixed_dictionaries(
    {
        "ts_ns": st.integers(1, 2**62),
        "took_ns": st.integers(0, 2**64 - 1),
        "flags": st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2**22)),
        "mode": number(32),
        "dirfd": st.one_of(st.just(AT_FDCWD), number(32)),
        "fd": number(32),
        "error": st.one_of(st.just(0), number(32)),
        "pid": number(32),
        "tid": number(32),
        "uid": number(32),
        "call": st.sampled_from([int(x) for x in Call]),
        "has": st.integers(0, 7),
        "comm": TEXTS.map(lambda x: x[: abi.COMM_BYTES - 1]),
        "path": TEXTS.map(lambda x: x[: abi.PATH_BYTES - 1]),
    }
)


def array_of(opens: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    array = np.zeros(len(opens), abi.open_dtype())
    for at, values in enumerate(opens):
        for name, value in values.items():
            if name in ("comm", "path"):
                array[at][name][: len(value)] = np.frombuffer(value, np.uint8)
            else:
                array[at][name] = value
        array[at]["path_bytes"] = len(values["path"])
    return array


def flags_text(flags: int) -> str:
    """By Python's own names; the numbers that it lacks are those of this architecture."""
    text = ["O_RDONLY"] if flags & 3 == 0 else []
    names = "O_WRONLY O_RDWR O_TMPFILE O_SYNC O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK"
    names += (
        " O_DSYNC FASYNC O_DIRECT O_LARGEFILE O_DIRECTORY O_NOFOLLOW O_NOATIME O_CLOEXEC O_PATH"
    )
    lacking = {"FASYNC": 0o20000, "O_LARGEFILE": 0o100000}
    for name in names.split():
        bits = lacking.get(name) or getattr(os, name)
        if flags & bits == bits:
            text.append(name)
            flags &= ~bits
    return "|".join([*text, str(flags)] if flags else text)


def expected(values: dict[str, Any], offset_ns: int) -> dict[str, Any]:
    has, flags = OpenHas(values["has"]), values["flags"]
    known = OpenHas.FLAGS in has
    makes = known and (flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE)
    return {
        "ts": time_text(values["ts_ns"] + offset_ns),
        "pid": values["pid"],
        "tid": values["tid"],
        "uid": values["uid"],
        "comm": os.fsdecode(values["comm"]),
        "call": Call(values["call"]).text,
        "dirfd": values["dirfd"] if values["dirfd"] < 2**31 else None,
        "path": os.fsdecode(values["path"]) if OpenHas.PATH in has else None,
        "cut": OpenHas.CUT_PATH in has,
        "flags": flags_text(flags) if known else None,
        "mode": values["mode"] if makes else None,
        "fd": None if values["error"] else values["fd"],
        "errno": values["error"] or None,
        "took_ns": values["took_ns"],
    }


@given(st.lists(OPENS, min_size=1, max_size=4), st.integers(0, 2**40))
def test_json_lines_of_calls_are_what_python_would_write(
    opens: list[dict[str, Any]], offset_ns: int
) -> None:
    lines = json_of(array_of(opens), offset_ns).decode()
    got = [json.loads(line) for line in lines.removesuffix("\n").split("\n")]
    wanted = [expected(values, offset_ns) for values in opens]
    assert got == wanted
    assert [list(x) for x in got] == [list(x) for x in wanted]  # the order of keys is part of it


def path_of(raw: bytes) -> str:
    array = array_of([{"path": raw, "has": int(OpenHas.PATH), "ts_ns": 1}])
    found: str = json.loads(json_of(array, 0))["path"]
    return found


@given(st.binary(min_size=1, max_size=8).map(lambda x: x.replace(b"\0", b"\x01")))
@example(b"\xed\xa0\x80")  # a surrogate
@example(b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf")  # longer than need be
@example(b"\xf4\x8f\xbf\xbf\xf4\x90\x80\x80\xf5\x80\x80\x80")  # the last character, and beyond
@example(b"\xe2\x82\xac\xe2\x82")  # one cut short
def test_json_of_a_path_gives_back_its_bytes(raw: bytes) -> None:
    assert os.fsencode(path_of(raw)) == raw
    assert path_of(raw) == os.fsdecode(raw)


def longest() -> np.ndarray[Any, Any]:
    array = np.zeros(1, abi.open_dtype())
    for name in array.dtype.names or ():
        array[name] = np.iinfo(array.dtype[name].base).max
    array["dirfd"], array["error"] = 2**31 - 1, 2**32 - 1
    array["call"] = Call.OPENAT2
    return array


def test_json_of_the_longest_call_fits_its_room() -> None:
    assert 1600 < len(json_of(longest(), 0)) <= lib.XG_OPEN_LINE_BYTES


def test_json_of_calls_without_room_is_refused_and_with_some_tells_how_many() -> None:
    array = np.repeat(longest(), 3)
    first = ffi.cast("struct xg_open *", array.ctypes.data)
    out, consumed = ffi.new("char[]", 2 * lib.XG_OPEN_LINE_BYTES), ffi.new("uint32_t *", 7)
    assert lib.xg_opens_json(first, 3, 0, out, lib.XG_OPEN_LINE_BYTES - 1, consumed) == -28
    assert consumed[0] == 7
    n = lib.xg_opens_json(first, 3, 0, out, 2 * lib.XG_OPEN_LINE_BYTES, consumed)
    assert consumed[0] == 2
    assert bytes(ffi.buffer(out, n)).count(b"\n") == 2


@given(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2**22)))
@example(2**64 - 1)
@example(os.O_TMPFILE | os.O_RDWR)
@example(0)
def test_flags_are_those_that_python_knows(flags: int) -> None:
    out = ffi.new("char[]", lib.XG_FLAGS_TEXT_BYTES)
    length = lib.xg_open_flags_text(flags, out)
    assert ffi.string(out).decode() == flags_text(flags)
    assert length == len(flags_text(flags)) < lib.XG_FLAGS_TEXT_BYTES


@pytest.mark.parametrize(
    ("values", "end"),
    [
        ({"error": 13, "path": b"/x"}, "EACCES O_RDONLY /x"),
        ({"error": 512, "path": b"/x"}, "errno 512 O_RDONLY /x"),
        ({"fd": 7, "path": b"x", "dirfd": 5}, "7 O_RDONLY (in 5) x"),
        ({"fd": 7, "path": b"/x", "dirfd": 5}, "7 O_RDONLY /x"),
        ({"fd": 7, "path": b"x", "dirfd": AT_FDCWD, "has": 7}, "7 O_RDONLY x..."),
        ({"has": 4}, "0 O_RDONLY (path could not be read)"),
        ({"path": b"\x1b[2J\x07\n"}, r"0 O_RDONLY \x1b[2J\x07\n"),
        ({"path": b"/x", "has": 1}, "0 ? /x"),
    ],
)
def test_line_of_a_call(values: dict[str, Any], end: str) -> None:
    values = {"has": 5, "path": b"", "ts_ns": 1, "dirfd": AT_FDCWD, **values}
    (line,) = lines_of(array_of([values]), 0)
    assert line.endswith(f" {end}")
    assert "\n" not in line
