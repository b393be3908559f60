"""Reads the files of rows "text in, errors out"."""

from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    name: str
    text: str
    errors: list[str]


def rows(file: str) -> list[Row]:
    """The rows of a file beside this one."""
    text = Path(__file__).with_name(file).read_text()
    out = []
    for part in text.split("\n--- ")[1:]:
        name, *lines = part.rstrip("\n").split("\n")
        errors = [line[3:] for line in lines if line.startswith("=> ")]
        source = "".join(line + "\n" for line in lines if not line.startswith("=> "))
        out.append(Row(name, source, errors))
    return out
