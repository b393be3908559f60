"""What a policy may say of a sink: each file of sinks/ lists its options in `SPEC`.

    { jsonl = { path = "events.jsonl", max_age = "1h", gzip = true } }
    { jsonl = "events.jsonl" }        the same as { path = "events.jsonl" }: path is its main option
    "stdout"                          a sink that needs no option

`sink_reader` reads them by these descriptions; `SinkSettings` holds what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

__all__ = ["COMMON", "Choice", "Count", "File", "Flag", "Option", "Size", "Spec", "Text", "Time"]


@dataclass(frozen=True, slots=True)
class File:
    """A path, relative to the policy; it becomes `SinkSettings.path`."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string.

    Args:
        wanted: what it is, with an example.
        check: raises `literals.Wrong` at one that will not do.
    """

    wanted: str
    check: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """A number."""

    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes, or text such as "100MiB"; read as bytes."""

    lo: int = 4096
    hi: int = 2**50


@dataclass(frozen=True, slots=True)
class Time:
    """Text such as "1h"; read as nanoseconds."""

    lo: str
    hi: str


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


Option = File | Text | Choice | Count | Size | Time | Flag


@dataclass(frozen=True, slots=True)
class Spec:
    """What there is to say of one kind of sink.

    Args:
        options: by name.
        main: the option that is meant where there is one value only.
        needed: the main option cannot be left out.
        example: of the sink with its main option, as it stands in a policy.
    """

    options: Mapping[str, Option] = field(default_factory=dict)
    main: str | None = None
    needed: bool = False
    example: str = ""

    def with_options(self, more: Mapping[str, Option]) -> Spec:
        """The same with some options more."""
        return replace(self, options={**self.options, **more})


COMMON: Mapping[str, Option] = {"queue": Count(1, 10_000_000), "retry": Time("100ms", "1h")}
"""Of every sink: events that may wait for it, and the longest wait between two attempts."""
