"""From the text of a policy to a `Config`: every key is checked, every fault has its place.

One function a table; `_Reader` has the steps that they share. A setting that is wrong gets its default, so
that the rest can still be checked; `parse` raises in the end.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from xdpgw.config import (
    Config,
    GatewaySettings,
    LogSettings,
    PolicySettings,
    PortSettings,
    SinkSettings,
    Target,
)
from xdpgw.errors import ConfigError, Diagnostic
from xdpgw.literals import (
    NAME,
    NAME_RULE,
    Wrong,
    addresses,
    choice,
    duration_ns,
    likely,
    number,
    one_of,
    port_range,
    rate,
    size_bytes,
)
from xdpgw.predicates import Names, known_port, resolve_rules
from xdpgw.rules import Prefix, Rule
from xdpgw.sets import NamedSet, read_netset
from xdpgw.toml_positions import Path as KeyPath
from xdpgw.toml_positions import Place, Positions

__all__ = ["MAX_PORTS", "parse"]

MAX_PORTS = 64
"""Ports of one policy: XG_MAX_PORTS of bpf/abi.h."""

MAX_QUEUE = 4095
"""Highest queue number that is taken for one; no driver has as many."""

_TABLES = ("policy", "sets", "ports", "af_xdp", "log", "gateway")
_SINKS = {"stdout": (), "jsonl": ("path", "max_bytes", "keep")}
_PORT_NAME = re.compile(r"[^\s/:\0]{1,15}")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_T = TypeVar("_T")


def parse(text: str, path: Path, base: Path) -> Config:
    """Read a policy.

    Args:
        path: the name of the file.
        base: the directory that paths in it are relative to.

    Raises:
        ConfigError: with everything that is wrong with the text.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_not_toml(text, str(path), str(error))]) from error
    except RecursionError as error:
        raise ConfigError([Diagnostic(str(path), 0, 0, "the policy nests too deeply")]) from error
    reader = _Reader(data, Positions(text), str(path), base)
    config = reader.config(path, text)
    if reader.wrong:
        raise ConfigError(sorted(reader.wrong, key=lambda x: (x.file != str(path), x.file, x.line,
                                                               x.column)))
    return config


def _not_toml(text: str, file: str, message: str) -> Diagnostic:
    place = _TOML_PLACE.search(message)
    message = _TOML_PLACE.sub("", message)
    if place is None or place[1] is None:
        lines = text.split("\n")
        line, column = len(lines), len(lines[-1]) + 1
    else:
        line, column = int(place[1]), int(place[2])
    hint = "put text in quotes" if message == "Invalid value" else None
    return Diagnostic(file, line, column, f"not TOML: {message[:1].lower()}{message[1:]}", hint)


def _named(value: object) -> str:
    """What kind of value this is, in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    kinds: tuple[tuple[type, str], ...] = (
        (str, "a string"),
        (int, "a number"),
        (float, "a fraction"),
        (list, "a list"),
        (dict, "a table"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "a date or time")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Reader:
    """One document while it is read."""

    def __init__(self, data: dict[str, Any], at: Positions, file: str, base: Path) -> None:
        self.data, self.at, self.file, self.base = data, at, file, base
        self.wrong: list[Diagnostic] = []

    # Telling what is wrong.

    def say(self, place: Place, message: str, hint: str | None) -> None:
        self.wrong.append(Diagnostic(self.file, *place, message, hint))

    def say_value(self, path: KeyPath, message: str, hint: str | None) -> None:
        self.say(self.at.value(path), message, hint)

    def say_type(self, path: KeyPath, value: object, wanted: str) -> None:
        what = ".".join(map(str, (x for x in path if isinstance(x, str))))
        self.say_value(path, f"{what} is {_named(value)}", f"write {wanted}")

    def reading(self, path: KeyPath, read: Callable[[], _T], instead: _T) -> _T:
        try:
            return read()
        except Wrong as wrong:
            self.say_value(path, wrong.message, wrong.hint)
            return instead

    # Reading values.

    def table(self, path: KeyPath, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """The table at a path, {} if there is none; only these keys may be in it."""
        value: Any = self.data
        for key in path:
            value = value.get(key, {})
        if not isinstance(value, dict):
            self.say_type(path, value, f"a table: [{'.'.join(map(str, path))}]")
            return {}
        if keys is not None:
            self.check_keys(path, value, tuple(keys))
        return value

    def check_keys(self, path: KeyPath, table: dict[str, Any], keys: tuple[str, ...]) -> None:
        where = f" in [{'.'.join(map(str, path))}]" if path else ""
        for key, value in table.items():
            if key in keys:
                continue
            hint = likely(key, keys) or f"write {one_of(keys)}"
            if path[:1] == ("ports",) and isinstance(value, dict):
                hint = f'write [ports."{path[-1]}.{key}"]'
            self.say(self.at.key((*path, key)), f'unknown key "{key}"{where}', hint)

    def string(self, path: KeyPath, instead: str, wanted: str = "a string") -> str:
        """The string at a path, or the default if it is missing or something else."""
        value = self.table(path[:-1]).get(path[-1], instead) if len(path) > 1 else instead
        if isinstance(value, str):
            return value
        self.say_type(path, value, wanted)
        return instead

    def choice(self, path: KeyPath, choices: tuple[str, ...], instead: str) -> Any:
        quoted = one_of(f'"{x}"' for x in choices)
        value = self.string(path, instead, quoted)
        return self.reading(path, lambda: choice(value, choices, str(path[-1])), instead)

    def boolean(self, path: KeyPath, instead: bool) -> bool:
        value = self.table(path[:-1]).get(path[-1], instead)
        if isinstance(value, bool):
            return value
        self.say_type(path, value, "true or false")
        return instead

    def names(self, path: KeyPath, what: str) -> Iterable[str]:
        """Keys of a table that are names; tells about the others."""
        for name in self.table(path):
            if NAME.fullmatch(name):
                yield name
            else:
                message = f'"{name}" is not a name for a {what}'
                self.say(self.at.key((*path, name)), message, NAME_RULE)

    # The tables.

    def config(self, path: Path, text: str) -> Config:
        self.check_keys((), self.data, _TABLES)
        for name in _TABLES:
            if not isinstance(self.data.get(name, {}), dict):
                self.say_type((name,), self.data[name], f"a table: [{name}]")
                self.data[name] = {}
        policy = self.policy()
        sets = {name: self.named_set(name) for name in self.names(("sets",), "set")}
        ports = self.ports()
        targets = self.targets(ports)
        rules = self.rules(Names(sets, self.data.get("ports", {}), self.data.get("af_xdp", {})))
        log, gateway = self.log(), self.gateway()
        return Config(path, policy, rules, sets, ports, targets, log, gateway, (), text)

    def policy(self) -> PolicySettings:
        self.table(("policy",), ("default", "malformed", "fragments", "guard", "rules"))
        verdicts = ("pass", "drop")
        return PolicySettings(
            self.choice(("policy", "default"), verdicts, "pass"),
            self.choice(("policy", "malformed"), verdicts, "drop"),
            self.choice(("policy", "fragments"), ("rules", "drop", "follow"), "rules"),
            self.boolean(("policy", "guard"), True),
        )

    def rules(self, names: Names) -> tuple[Rule, ...]:
        path = ("policy", "rules")
        text = self.string(path, "", 'rules, one a line: """..."""')
        if not text:
            return ()
        from xdpgw.rule_parser import parse as parse_rules

        rules, wrong = parse_rules(text, file=self.file, place=self.at.inside(path))
        _, unresolved = resolve_rules(rules, names, self.file)
        self.wrong += (*wrong, *unresolved)
        return rules

    def named_set(self, name: str) -> NamedSet:
        path = ("sets", name)
        value = self.data["sets"][name]
        if not isinstance(value, list):
            wanted = 'a list: ["192.0.2.0/24", { file = "feed.netset" }] or [80, "8000-8100"]'
            self.say_type(path, value, wanted)
            return NamedSet(name, None)
        prefixes: list[Prefix] = []
        ranges: list[tuple[int, int]] = []
        files: list[Path] = []
        kind: Any = None
        for index, item in enumerate(value):
            at = (*path, index)
            found = self.set_item(at, item, prefixes, ranges, files)
            if kind and found and found != kind:
                message = f'set "{name}" holds {kind}, and this is one of {found}'
                self.say_value(at, message, "make two sets of it")
            kind = kind or found
        return NamedSet(name, kind, frozenset(prefixes), tuple(ranges), tuple(files))

    def set_item(
        self,
        path: KeyPath,
        item: object,
        prefixes: list[Prefix],
        ranges: list[tuple[int, int]],
        files: list[Path],
    ) -> str | None:
        """Add one element of a set; gives the kind of it."""
        if isinstance(item, dict):
            self.check_keys(path, item, ("file",))
            if not isinstance(item.get("file"), str):
                self.say_type(path, item, '{ file = "feed.netset" }')
                return None
            files.append(self.base / item["file"])
            prefixes += self.set_file((*path, "file"), files[-1])
            return "addresses"
        if _is_int(item):
            ranges += [self.reading(path, lambda: port_range(str(item)), (0, 0))]
            return "ports"
        if not isinstance(item, str):
            self.say_type(path, item, 'an address, a port or { file = "feed.netset" }')
            return None
        word = "".join(item.split())
        if "." in word or ":" in word:
            prefixes += self.reading(path, lambda: addresses(word), [])
            return "addresses"
        if word[:1].isdigit():
            ranges += [self.reading(path, lambda: port_range(word), (0, 0))]
            return "ports"
        hint = 'write "192.0.2.0/24", "8000-8100" or { file = "feed.netset" }'
        self.say_value(path, f'"{item}" is neither an address nor a port', hint)
        return None

    def set_file(self, path: KeyPath, file: Path) -> list[Prefix]:
        try:
            prefixes, wrong = read_netset(file)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            hint = "create it, or correct the path"
            self.say_value(path, f"{file} cannot be read: {reason}", hint)
            return []
        self.wrong += wrong
        return prefixes

    def ports(self) -> dict[str, PortSettings]:
        ports: dict[str, PortSettings] = {}
        for name in self.table(("ports",)):
            path = ("ports", name)
            if len(ports) == MAX_PORTS:
                self.say(self.at.key(path), f"more than {MAX_PORTS} ports", "take some out")
            if not _PORT_NAME.fullmatch(name) or name in (".", ".."):
                message = f'"{name}" is not a name for an interface'
                self.say(self.at.key(path), message, "write 1 to 15 characters, no / : or space")
            self.table(path, ("mode", "queues"))
            if isinstance(self.data["ports"][name], dict):
                mode = self.choice((*path, "mode"), ("auto", "native", "generic"), "auto")
                ports[name] = PortSettings(name, mode, self.queues((*path, "queues")))
        return ports

    def queues(self, path: KeyPath) -> Any:
        value = self.table(path[:-1]).get("queues", "all")
        if value == "all":
            return value
        if not isinstance(value, list):
            self.say_type(path, value, '"all" or a list of queue numbers')
            return "all"
        if not value:
            self.say_value(path, "the list of queues is empty", 'write "all" or at least one')
        queues: list[int] = []
        for index, item in enumerate(value):
            at = (*path, index)
            if not _is_int(item):
                self.say_type(at, item, "a queue number")
            elif item in queues:
                self.say_value(at, f"queue {item} stands twice", "write it once")
            else:
                queues.append(
                    self.reading(at, lambda x=item: number(str(x), 0, MAX_QUEUE, "queue"), 0)  # type: ignore[misc]
                )
        return tuple(queues)

    def targets(self, ports: dict[str, PortSettings]) -> dict[str, Target]:
        targets = {}
        for name in self.names(("af_xdp",), "target"):
            path = ("af_xdp", name)
            table = self.table(path, ("handler",))
            if not isinstance(self.data["af_xdp"][name], dict):
                continue
            if "handler" not in table:
                self.say(self.at.key(path), f'target "{name}" has no handler', f"add {_HANDLERS}")
                continue
            handler = self.string((*path, "handler"), "count", _HANDLERS)
            self.reading((*path, "handler"), lambda h=handler: _check_handler(h, ports), None)  # type: ignore[misc]
            targets[name] = Target(name, handler)
        return targets

    def log(self) -> LogSettings:
        table = self.table(("log",), ("sources", "window", "rate", "sinks"))
        window = self.string(("log", "window"), "60s", 'a time: "60s"')
        speed = self.string(("log", "rate"), "100000/s", 'a rate: "100000/s"')
        sinks = table.get("sinks", ["stdout"])
        if not isinstance(sinks, list):
            self.say_type(("log", "sinks"), sinks, 'a list: ["stdout"]')
            sinks = []
        return LogSettings(
            self.choice(("log", "sources"), ("off", "new", "every"), "new"),
            self.reading(("log", "window"), lambda: duration_ns(window, "1s", "1d", "window"), 0),
            self.reading(("log", "rate"), lambda: rate(speed, counts=True), None),
            tuple(filter(None, (self.sink(("log", "sinks", i), x) for i, x in enumerate(sinks)))),
        )

    def sink(self, path: KeyPath, item: object) -> SinkSettings | None:
        if item == "stdout":
            return SinkSettings("stdout")
        if isinstance(item, str):
            hint = 'write { jsonl = "FILE" }' if item == "jsonl" else likely(item, _SINKS)
            self.say_value(path, f'unknown sink "{item}"', hint or 'write "stdout" or { jsonl = "FILE" }')
            return None
        if not isinstance(item, dict) or len(item) != 1:
            self.say_type(path, item, '"stdout" or { jsonl = "FILE" }')
            return None
        ((kind, value),) = item.items()
        if kind != "jsonl":
            hint = likely(kind, ["jsonl"]) or 'write { jsonl = "FILE" }'
            hint = 'write "stdout"' if kind == "stdout" else hint
            self.say(self.at.key((*path, kind)), f'unknown sink "{kind}"', hint)
            return None
        path = (*path, kind)
        if isinstance(value, str):
            return SinkSettings(kind, self.base / value)
        if not isinstance(value, dict):
            self.say_type(path, value, 'a file, or { path = "FILE", max_bytes = "100MiB", keep = 5 }')
            return None
        self.check_keys(path, value, _SINKS[kind])
        if not isinstance(value.get("path"), str):
            self.say_type(path, value, '{ path = "FILE" }')
            return None
        options = {}
        if "max_bytes" in value:
            options["max_bytes"] = self.max_bytes((*path, "max_bytes"), value["max_bytes"])
        if "keep" in value:
            options["keep"] = self.integer((*path, "keep"), value["keep"], 0, 1000)
        return SinkSettings(kind, self.base / value["path"], options)

    def max_bytes(self, path: KeyPath, value: object) -> int:
        if isinstance(value, str):
            value = self.reading(path, lambda: size_bytes(cast(str, value), "max_bytes"), 4096)
        return self.integer(path, value, 4096, 2**50)

    def integer(self, path: KeyPath, value: object, lo: int, hi: int) -> int:
        if not _is_int(value):
            self.say_type(path, value, f"a number, {lo} to {hi}")
            return lo
        return self.reading(path, lambda: number(str(value), lo, hi, str(path[-1])), lo)

    def gateway(self) -> GatewaySettings:
        self.table(("gateway",), ("on_exit", "coexist"))
        return GatewaySettings(
            self.choice(("gateway", "on_exit"), ("keep", "detach"), "keep"),
            self.boolean(("gateway", "coexist"), False),
        )


_HANDLERS = 'handler = "count", "reflect", "forward:PORT", "capture:FILE" or "python:MODULE:FUNCTION"'


def _check_handler(handler: str, ports: Iterable[str]) -> None:
    kind, _, argument = handler.partition(":")
    if kind in ("count", "reflect") and ":" not in handler:
        return
    if kind == "forward" and argument:
        known_port(argument, ports)
        return
    if kind == "capture" and argument:
        return
    if kind == "python":
        module, _, function = argument.partition(":")
        if function.isidentifier() and all(x.isidentifier() for x in module.split(".")):
            return
    near = likely(kind, ("count", "reflect", "forward", "capture", "python"))
    hint = near if near and f'"{kind}"' not in near else f"write {_HANDLERS}"
    raise Wrong(f'unknown handler "{handler}"', hint)
