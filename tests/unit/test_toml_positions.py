"""Where keys and values stand in a TOML file."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpgw.toml_positions import Positions

TEXT = '''\
top = 1  # not = a key
"quoted key".'x' = [ 1, # one
  { a.b = "}", c = [[]] },
]
[table.sub]
multi = """
line ""quoted"" \\""" end
"""
after = 'lit#eral'
date = 1979-05-27 07:32:00
[[list]]
k = 1
[[list]]
k = 2
[list.child]
v = \'\'\'it's ''two\'\'\'\'\'
'''


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("top",), (1, 1), (1, 7)),
        (("quoted key",), (2, 1), (2, 1)),
        (("quoted key", "x"), (2, 14), (2, 20)),
        (("quoted key", "x", 0), (2, 22), (2, 22)),
        (("quoted key", "x", 1), (3, 3), (3, 3)),
        (("quoted key", "x", 1, "a", "b"), (3, 7), (3, 11)),
        (("quoted key", "x", 1, "c"), (3, 16), (3, 20)),
        (("quoted key", "x", 1, "c", 0), (3, 21), (3, 21)),
        (("table",), (5, 2), (5, 2)),
        (("table", "sub"), (5, 8), (5, 8)),
        (("table", "sub", "multi"), (6, 1), (6, 9)),
        (("table", "sub", "after"), (9, 1), (9, 9)),
        (("table", "sub", "date"), (10, 1), (10, 8)),
        (("list",), (11, 3), (11, 3)),
        (("list", 0, "k"), (12, 1), (12, 5)),
        (("list", 1, "k"), (14, 1), (14, 5)),
        (("list", 1, "child", "v"), (16, 1), (16, 5)),
        (("table", "missing"), (5, 2), (5, 2)),
        (("missing",), (1, 1), (1, 1)),
    ],
)
def test_key_and_value_are_found(path: Any, key: Any, value: Any) -> None:
    tomllib.loads(TEXT)
    at = Positions(TEXT)
    assert (at.key(path), at.value(path)) == (key, value)


STRINGS = st.lists(
    st.sampled_from(
        ["a", "b", " ", "é", "#", "\\n", "\\t", '\\"', "\\\\", "\\u00e9", "\\U0001F600", "\n"]
    )
    | st.sampled_from(["\\\n", "\\  \n \t\n  "])
)


@pytest.mark.parametrize("first", ["", "\n"])
@given(pieces=STRINGS)
def test_inside_a_string_every_character_has_its_place(first: str, pieces: list[str]) -> None:
    text = f'x = 1\nkey = """{first}{"".join(pieces)}~"""\n'
    value = tomllib.loads(text)["key"]
    at = Positions(text)
    inside = at.inside(("key",))
    for index, character in enumerate(value):
        line, column = inside(index)
        found = text.split("\n")[line - 1][column - 1 :]
        if character == "\n":
            assert found == "" or found.startswith("\\n")
        else:
            assert found.startswith((character, "\\"))
    line, column = inside(len(value) - 1)
    assert text.split("\n")[line - 1][column - 1] == "~"


KEYS = st.text("ab-_ é.\"'#=[]{}", min_size=1, max_size=4)
VALUES = st.recursive(
    st.integers() | st.booleans() | st.text("ab#\"'\\[]{},=\n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def quoted(text: str) -> str:
    return '"' + "".join(f"\\u{ord(x):04x}" if x in '"\\\n' else x for x in text) + '"'


def dumped(value: Any, path: tuple[Any, ...], out: dict[tuple[Any, ...], int], at: int) -> str:
    """TOML of a value; notes in `out` where it and what is in it begin."""
    out[path] = at
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    text = "[ " if isinstance(value, list) else "{ "
    items = enumerate(value) if isinstance(value, list) else value.items()
    for number, (key, item) in enumerate(items):
        text += ", " if number else ""
        if isinstance(value, dict):
            text += quoted(key) + " = "
        text += dumped(item, (*path, key), out, at + len(text))
    return text + (" ]" if isinstance(value, list) else " }")


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_document_has_all_its_values_found(data: dict[str, Any]) -> None:
    text, out = "", {}
    for key, value in data.items():
        text += quoted(key) + " = "
        text += dumped(value, (key,), out, len(text)) + "  # note = 1\n"
    assert tomllib.loads(text) == data
    at = Positions(text)
    assert {path: at.value(path) for path in out} == {x: at.place(n) for x, n in out.items()}
