"""The policy file as values. `read` tells everything that is wrong with a file at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xdpgw.errors import ConfigError, Diagnostic
from xdpgw.rule_types import Prefix, Rate, ResolvedRule, Rule
from xdpgw.sets import NamedSet

__all__ = [
    "Config",
    "Diagnostic",
    "FastpathSettings",
    "GatewaySettings",
    "LogSettings",
    "Meaning",
    "MetricsSettings",
    "NamedSet",
    "PolicySettings",
    "PortSettings",
    "SinkSettings",
    "SourceSettings",
    "Target",
    "loads",
    "read",
]


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """[policy] without its rules."""

    default: Literal["pass", "drop"] = "pass"
    malformed: Literal["pass", "drop"] = "drop"
    fragments: Literal["rules", "drop", "follow"] = "rules"
    guard: bool = True
    allow: tuple[Prefix, ...] = ()
    """Sources that no block covers, in order."""
    allow_words: tuple[str, ...] = ()
    """What they were told by: addresses, prefixes and @SET."""


@dataclass(frozen=True, slots=True)
class PortSettings:
    """[ports.NAME]; queues is "all" or the numbers of some."""

    name: str
    mode: Literal["auto", "native", "generic"] = "auto"
    queues: Literal["all"] | tuple[int, ...] = "all"


@dataclass(frozen=True, slots=True)
class Target:
    """[af_xdp.NAME]: what takes the frames.

    Args:
        handler: count, reflect, forward:PORT, capture:FILE or python:MODULE:FUNCTION, as typed.
        path: FILE of capture; the directory of the policy file is already before it.
        snaplen: of capture: bytes of a frame that are kept.
        max_bytes: of capture: a file that would be larger is rotated; None for never.
        keep: of capture: old files.
    """

    name: str
    handler: str
    path: Path | None = None
    snaplen: int = 262_144
    max_bytes: int | None = None
    keep: int = 5

    @property
    def kind(self) -> str:
        """The handler without its argument."""
        return self.handler.partition(":")[0]

    @property
    def argument(self) -> str:
        """What stands behind the handler's first colon; "" where there is none."""
        return self.handler.partition(":")[2]


@dataclass(frozen=True, slots=True)
class FastpathSettings:
    """[fastpath]: the sockets and threads of all AF_XDP targets.

    Args:
        ring: descriptors of an RX or TX ring, a power of two.
        busy_poll_us: how long the kernel polls the driver for a sleeping socket; 0 for off.
        busy_budget: packets of one such poll.
        cpus: worker n runs on the n-th of them, round and round; () for wherever it likes.
    """

    mode: Literal["auto", "zerocopy", "copy"] = "auto"
    ring: int = 2048
    busy_poll_us: int = 0
    busy_budget: int = 64
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Where events go.

    Args:
        kind: a file of sinks/.
        path: its file, if it has one; the directory of the policy file is already before it.
        options: what else the policy says of it, by the names in the kind's SPEC.
    """

    kind: str
    path: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[object, ...]:
        """What only one sink can write to."""
        where = self.path or self.options.get("to")
        return (where,) if self.path else (self.kind, where)


_EVENT_RATE = Rate(100_000, "/s")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """[log].

    Args:
        window_ns: after so many nanoseconds a source is new again.
        rate: bounds all events together.
    """

    sources: Literal["off", "new", "every"] = "new"
    window_ns: int = 60_000_000_000
    rate: Rate | None = _EVENT_RATE
    sinks: tuple[SinkSettings, ...] = (SinkSettings("stdout"),)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """[sources]: what each source sent is counted.

    Args:
        slots: sources that each CPU knows at once; a power of two.
        prefix4: bits of an IPv4 address that tell sources apart.
        prefix6: the same of IPv6.
        geoip: databases that know country and AS; the directory of the policy file is already
            before them.
    """

    count: bool = True
    slots: int = 8192
    prefix4: int = 32
    prefix6: int = 128
    geoip: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """[gateway]: on_exit says what happens to the filter, coexist asks for libxdp's dispatcher."""

    on_exit: Literal["keep", "detach"] = "keep"
    coexist: bool = False


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """[metrics].

    Args:
        listen: address and TCP port (0: a free one) of the endpoint; None for none.
        rules: whether there are metrics of each rule.
    """

    listen: tuple[str, int] | None = None
    rules: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """What the rules of a policy mean, kept from when it was checked.

    Args:
        rules: as `rules.resolve` gives them.
        told_from: the very rules, sets, ports and targets that say so.
    """

    rules: tuple[ResolvedRule, ...]
    told_from: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """One policy file.

    Args:
        path: the file as it was named.
        warnings: what is allowed but hardly meant.
        text: the file as it was read.
    """

    path: Path
    policy: PolicySettings = PolicySettings()
    rules: tuple[Rule, ...] = ()
    sets: Mapping[str, NamedSet] = field(default_factory=dict)
    ports: Mapping[str, PortSettings] = field(default_factory=dict)
    af_xdp: Mapping[str, Target] = field(default_factory=dict)
    log: LogSettings = LogSettings()
    gateway: GatewaySettings = GatewaySettings()
    fastpath: FastpathSettings = FastpathSettings()
    sources: SourceSettings = SourceSettings()
    metrics: MetricsSettings = MetricsSettings()
    warnings: tuple[Diagnostic, ...] = ()
    text: str = ""
    _meaning: Meaning | None = field(default=None, repr=False, compare=False)

    @property
    def meaning(self) -> tuple[ResolvedRule, ...] | None:
        """What the rules mean, if that is known of just these rules, sets, ports and targets."""
        parts = (self.rules, self.sets, self.ports, self.af_xdp)
        known = self._meaning
        if known is None or any(a is not b for a, b in zip(parts, known.told_from, strict=True)):
            return None
        return known.rules


def read(path: Path | str) -> Config:
    """Read a policy file.

    Raises:
        ConfigError: with everything that is wrong with the file.
    """
    from xdpgw.config_reader import parse

    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - (error.object.rfind(b"\n", 0, error.start) + 1) + 1
        raise _unreadable(path, "is not UTF-8", "save it as UTF-8", line, column) from error
    except ValueError as error:
        raise _unreadable(path, f"is not a path: {error}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise _unreadable(path, f"cannot be read: {reason}", _OS_HINTS.get(type(error))) from error
    # Absolute, as who reads the policy in force knows it: one place has one name.
    return parse(text, path, path.absolute().parent)


def loads(text: str, *, file: str = "<policy>", base: Path = Path()) -> Config:
    """Read a policy from text.

    Args:
        file: its name for diagnostics.
        base: the directory that paths in it are relative to.

    Raises:
        ConfigError: with everything that is wrong with the text.
    """
    from xdpgw.config_reader import parse

    return parse(text, Path(file), base)


_OS_HINTS: dict[type[OSError], str] = {
    FileNotFoundError: "create it, or correct the path",
    IsADirectoryError: "name the file in it",
    PermissionError: "give the user that runs xdpgw the right to read it",
}


def _unreadable(
    path: Path, message: str, hint: str | None = None, line: int = 0, column: int = 0
) -> ConfigError:
    return ConfigError([Diagnostic(str(path), line, column, f"the policy {message}", hint)])
