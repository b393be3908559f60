"""Writes `xdpgw/_abi.py`: the contract of bpf/abi.h as Python enums, constants and numpy dtypes.

    python fastpath/gen_abi.py OUT.py

Names and numbers come from the header as the binding parsed it, offsets and sizes from the C
compiler that built the binding. What a row means comes from the X-macro tables of the header's
text.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# C enum -> Python name, kind of enum, prefix of its members.
ENUMS = {
    "xg_verdict": ("Verdict", "IntEnum", "XG_VERDICT_"),
    "xg_action": ("Action", "IntEnum", "XG_ACTION_"),
    "xg_reason": ("Reason", "IntEnum", "XG_REASON_"),
    "xg_log_counter": ("LogCounter", "IntEnum", "XG_LOG_"),
    "xg_dim": ("Dim", "IntEnum", "XG_DIM_"),
    "xg_kind": ("Kind", "IntEnum", "XG_KIND_"),
    "xg_frag": ("Frag", "IntEnum", "XG_FRAG_"),
    "xg_fragments": ("Fragments", "IntEnum", "XG_FRAGMENTS_"),
    "xg_capture_counter": ("CaptureCounter", "IntEnum", "XG_CAPTURE_"),
    "xg_log_sources": ("LogSources", "IntEnum", "XG_SOURCES_"),
    "xg_handle": ("Handler", "IntEnum", "XG_HANDLE_"),
    "xg_use": ("Use", "IntEnum", "XG_USE_"),
    "xg_ref": ("Ref", "IntEnum", "XG_REF_"),
    "xg_has": ("Has", "IntFlag", "XG_HAS_"),
    "xg_open_counter": ("OpenCounter", "IntEnum", "XG_OPEN_"),
    "xg_call": ("Call", "IntEnum", "XG_CALL_"),
    "xg_open_has": ("OpenHas", "IntFlag", "XG_OPEN_HAS_"),
}
STRUCTS = (
    "rate",
    "session",
    "config",
    "line",
    "leaf",
    "turns",
    "index",
    "path",
    "row",
    "known",
    "rule",
    "limit",
    "limit_line",
    "offender",
    "counter",
    "talker",
    "talker_set",
    "fragment_key",
    "fragment",
    "block",
    "block_lengths",
    "allowed",
    "source",
    "mac",
    "event",
    "judged",
    "wanted",
    "capture_tally",
    "socket_stats",
    "snoop",
    "open",
)
HEAD = '''"""Made from bpf/abi.h by fastpath/gen_abi.py: change the header, not this file."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
'''
TEXT = """
    @property
    def text(self) -> str:
        \"\"\"The word of the policy language.\"\"\"
        return self.name.lower()
"""
MEANING = """
    @property
    def meaning(self) -> str:
        \"\"\"What the row of the table says about it.\"\"\"
        return MEANINGS["{name}"][self.name]
"""
DTYPE = '''

@cache
def {name}_dtype() -> np.dtype[Any]:
    """struct xg_{name} as numpy holds it."""
    import numpy as np

    made: np.dtype[Any] = np.dtype(LAYOUTS["{name}"])
    return made
'''


def native(path: Path) -> Any:
    """The built binding, without importing the package around it."""
    loader = importlib.machinery.ExtensionFileLoader("_native", str(path))
    spec = importlib.util.spec_from_loader("_native", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def members(ffi: Any, name: str) -> list[tuple[str, int]]:
    """The enumerators, by number."""
    return sorted(ffi.typeof(f"enum {name}").relements.items(), key=lambda item: item[1])


def meanings() -> dict[str, dict[str, str]]:
    """Enum without `xg_` -> NAME -> meaning, of all enums whose tables give one to their rows."""
    text = (ROOT / "bpf/abi.h").read_text()
    tables = {
        name: dict(re.findall(r'X\((\w+), \w+, "([^"]*)"\)', rows))
        for name, rows in re.findall(r"#define (XG_\w+)\(X\)((?:.*\\\n)*.*)", text)
    }
    found: dict[str, dict[str, str]] = {}
    for name, body in re.findall(r"^enum xg_(\w+) \{([^}]*)\}", text, flags=re.M):
        for table in re.findall(r"(\w+)\(XG_ENUM_\w+\)", body):
            if tables[table]:
                found.setdefault(name, {}).update(tables[table])
    return found


def enum_text(ffi: Any, name: str) -> str:
    """One enum as a class, and its count."""
    python, kind, prefix = ENUMS[name]
    lines, count = ["", "", f"class {python}({kind}):", f'    """enum {name}."""', ""], None
    for member, value in members(ffi, name):
        short = member.removeprefix(prefix)
        if not member.startswith(prefix):  # XG_HANDLES: there is a row COUNT
            continue
        if short == "COUNT" and value:
            count = value
        else:
            lines.append(f"    {short} = {value}")
    text = "\n".join(lines) + "\n"
    if kind == "IntEnum":
        text += TEXT
    if name.removeprefix("xg_") in meanings():
        text += MEANING.format(name=name.removeprefix("xg_"))
    if count is not None:
        text += f"\n\n{prefix.removeprefix('XG_')}COUNT = {count}\n"
    return text


def kind_of(ctype: Any, ffi: Any) -> Any:
    """numpy's format of a C type."""
    if ctype.kind == "primitive":
        return f"<u{ffi.sizeof(ctype)}"
    if ctype.kind == "array":
        return (kind_of(ctype.item, ffi), (ctype.length,))
    return layout(ctype, ffi)


def layout(ctype: Any, ffi: Any) -> dict[str, Any]:
    """A struct in the form that numpy.dtype takes."""
    return {
        "names": [name for name, _ in ctype.fields],
        "formats": [kind_of(field.type, ffi) for _, field in ctype.fields],
        "offsets": [field.offset for _, field in ctype.fields],
        "itemsize": ffi.sizeof(ctype),
    }


def literal(value: Any, indent: int = 0, room: int = 100) -> str:
    """A value as Python's source, laid out as ruff lays it out: on one line where that fits."""
    if not isinstance(value, dict | list):
        return json.dumps(value) if isinstance(value, str) else repr(value).replace("'", '"')
    is_dict = isinstance(value, dict)
    opening, closing = "{}" if is_dict else "[]"
    rows = (
        [(literal(k) + ": ", v) for k, v in value.items()] if is_dict else [("", v) for v in value]
    )
    line = opening + ", ".join(key + literal(item, 0, 10**6) for key, item in rows) + closing
    if len(line) <= room:
        return line
    inner = " " * (indent + 4)
    text = opening + "\n"
    for key, item in rows:
        text += inner + key + literal(item, indent + 4, 99 - len(inner) - len(key)) + ",\n"
    return text + " " * indent + closing


def table(name: str, kind: str, value: dict[str, Any]) -> str:
    """A dictionary of the module, a row a line."""
    return f"\n{name}: dict[{kind}] = {literal(value, room=0)}\n"


def enumerators(ffi: Any, names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Enums as C has them, sentinels and prefixes too: what a BPF object is compared with."""
    return {name.removeprefix("xg_"): dict(members(ffi, name)) for name in names}


def generate(ffi: Any) -> str:
    """The text of the module."""
    parts = [HEAD, "\n"]
    numbers = (*members(ffi, "xg_limits"), *members(ffi, "xg_steps"))
    parts += [f"{n.removeprefix('XG_')} = {v}\n" for n, v in numbers]
    parts += [enum_text(ffi, name) for name in ENUMS]
    parts.append("\n\nVALUES: dict[Dim, int] = {\n")
    values = ffi.typeof("enum xg_values").relements
    for name, _ in members(ffi, "xg_dim"):
        if name != "XG_DIM_COUNT":
            short = name.removeprefix("XG_DIM_")
            parts.append(f"    Dim.{short}: {values['XG_VALUES_' + short]},\n")
    parts.append("}\n")
    parts.append(table("MEANINGS", "str, dict[str, str]", meanings()))
    every = enumerators(ffi, (*ENUMS, "xg_limits", "xg_steps", "xg_values"))
    parts.append(table("ENUMERATORS", "str, dict[str, int]", every))
    layouts = {name: layout(ffi.typeof(f"struct xg_{name}"), ffi) for name in STRUCTS}
    parts.append(table("LAYOUTS", "str, Any", layouts))
    parts += [DTYPE.format(name=name) for name in STRUCTS]
    return "".join(parts)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    Path(sys.argv[1]).write_text(generate(native(ROOT / "xdpgw/_native.abi3.so").ffi))
