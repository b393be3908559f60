"""From the text of a policy to a `Config`: every key is checked, every fault has its place.

One method a table. A setting that is wrong gets its default, so that the rest can still be checked;
`parse` raises in the end.
"""

from __future__ import annotations

import gc
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from xdpgw.config import (
    Config,
    FastpathSettings,
    GatewaySettings,
    LogSettings,
    Meaning,
    MetricsSettings,
    PolicySettings,
    PortSettings,
    SourceSettings,
    Target,
)
from xdpgw.errors import ConfigError, Diagnostic
from xdpgw.literals import (
    Wrong,
    duration_ns,
    likely,
    listen_address,
    number,
    rate,
)
from xdpgw.predicates import Names, known_port, resolve_rules
from xdpgw.rule_types import Prefix, ResolvedRule, Rule
from xdpgw.set_reader import SetTables
from xdpgw.sets import MAX_ALLOWED, NamedSet, allowed
from xdpgw.shadow import warnings as never_matching
from xdpgw.sink_reader import SinkTables
from xdpgw.toml_positions import Positions
from xdpgw.toml_tables import KeyPath, is_int

__all__ = ["MAX_PORTS", "parse"]

MAX_PORTS = 64
"""Ports of one policy: XG_MAX_PORTS of bpf/abi.h."""

MAX_QUEUE = 4095
"""Highest queue number that is taken for one; no driver has as many."""

MAX_TARGETS = 16
"""AF_XDP targets of one policy: XG_MAX_TARGETS of bpf/abi.h."""

SLOTS_LEAST, SLOTS_MOST = 128, 1 << 22
"""Sources that are counted at once: 72 bytes each, on each CPU."""

MAX_CPU = 8191
"""Highest CPU number that is taken for one: NR_CPUS of the largest kernels, less one."""

_TABLES = ("policy", "sets", "ports", "af_xdp", "log", "gateway", "fastpath", "sources", "metrics")
_CAPTURE_KEYS = ("snaplen", "max_bytes", "keep")
_TOML_HINTS = {
    "Invalid value": "put text in quotes",
    "Cannot overwrite a value": "write each key once",
}
_PORT_NAME = re.compile(r"[^\s/:\0]{1,15}")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


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
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError([Diagnostic(str(path), 0, 0, f"not TOML: {error}")]) from error
    except RecursionError as error:
        raise ConfigError([Diagnostic(str(path), 0, 0, "the policy nests too deeply")]) from error
    reader = _Reader(data, Positions(text), str(path), base)
    with _no_collection():
        config = reader.config(path, text)
    if reader.wrong:
        raise ConfigError(sorted(reader.wrong, key=_order(str(path))))
    return config


@contextmanager
def _no_collection() -> Iterator[None]:
    """Values by the ten thousand, and no garbage among them: looking for some takes a third."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _order(file: str) -> Callable[[Diagnostic], tuple[bool, str, int, int]]:
    """By place; the policy's own before those of the files that it names."""
    return lambda x: (x.file != file, x.file, x.line, x.column)


def _not_toml(text: str, file: str, message: str) -> Diagnostic:
    place = _TOML_PLACE.search(message)
    message = _TOML_PLACE.sub("", message)
    if place is None or place[1] is None:
        lines = text.split("\n")
        line, column = len(lines), len(lines[-1]) + 1
    else:
        line, column = int(place[1]), int(place[2])
    hint = _TOML_HINTS.get(message)
    return Diagnostic(file, line, column, f"not TOML: {message[:1].lower()}{message[1:]}", hint)


class _Reader(SetTables, SinkTables):
    def config(self, path: Path, text: str) -> Config:
        self.check_keys((), self.data, _TABLES)
        for name in _TABLES:
            if not isinstance(self.data.get(name, {}), dict):
                self.say_type((name,), self.data[name], f"a table: [{name}]")
                self.data[name] = {}
        sets = {name: self.named_set(name) for name in self.names(("sets",), "set")}
        policy = self.policy(sets)
        ports = self.ports()
        targets = self.targets(ports)
        names = Names(sets, self.data.get("ports", {}), self.data.get("af_xdp", {}))
        rules, resolved, warnings = self.rules(names)
        log, gateway = self.log(), self.gateway()
        fast, sources, metrics = self.fastpath(), self.sources(), self.metrics()
        if metrics.listen and not ip_address(metrics.listen[0]).is_loopback:
            warnings += (self.open_metrics(),)
        return Config(
            path=path,
            policy=policy,
            rules=rules,
            sets=sets,
            ports=ports,
            af_xdp=targets,
            log=log,
            gateway=gateway,
            fastpath=fast,
            sources=sources,
            metrics=metrics,
            warnings=warnings,
            text=text,
            _meaning=Meaning(resolved, (rules, sets, ports, targets)),
        )

    def policy(self, sets: Mapping[str, NamedSet]) -> PolicySettings:
        keys = ("default", "malformed", "fragments", "guard", "allow", "rules")
        self.table(("policy",), keys)
        verdicts = ("pass", "drop")
        return PolicySettings(
            self.choice(("policy", "default"), verdicts, "pass"),
            self.choice(("policy", "malformed"), verdicts, "drop"),
            self.choice(("policy", "fragments"), ("rules", "drop", "follow"), "rules"),
            self.boolean(("policy", "guard"), True),
            *self.allow(("policy", "allow"), sets),
        )

    def allow(
        self, path: KeyPath, sets: Mapping[str, NamedSet]
    ) -> tuple[tuple[Prefix, ...], tuple[str, ...]]:
        value = self.table(("policy",)).get("allow", [])
        if not isinstance(value, list):
            self.say_type(path, value, 'a list: ["192.0.2.0/24", "@office"]')
            return (), ()
        found: set[Prefix] = set()
        for index, item in enumerate(value):
            at = (*path, index)
            if isinstance(item, str):
                found.update(self.reading(at, partial(allowed, item, sets), []))
            else:
                self.say_type(at, item, "an address, a prefix or @SET in quotes")
        if len(found) > MAX_ALLOWED:
            message = f"allow holds {len(found)} addresses and prefixes"
            self.say_value(path, message, f"write {MAX_ALLOWED} at most")
        return tuple(sorted(found)), tuple(x for x in value if isinstance(x, str))

    def rules(
        self, names: Names
    ) -> tuple[tuple[Rule, ...], tuple[ResolvedRule, ...], tuple[Diagnostic, ...]]:
        path = ("policy", "rules")
        text = self.string(path, "", 'rules, one a line: """..."""')
        if not text:
            return (), (), ()
        from xdpgw.rule_parser import parse as parse_rules

        rules, wrong = parse_rules(text, file=self.file, place=self.at.inside(path))
        resolved, unresolved = resolve_rules(rules, names, self.file)
        self.wrong += (*wrong, *unresolved)
        warnings = () if self.wrong else tuple(never_matching(resolved, self.file))
        return rules, resolved, warnings

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

    def queues(self, path: tuple[str, ...]) -> Any:
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
            at: KeyPath = (*path, index)
            if not is_int(item):
                self.say_type(at, item, "a queue number")
            elif item in queues:
                self.say_value(at, f"queue {item} stands twice", "write it once")
            else:
                read = partial(number, str(item), 0, MAX_QUEUE, "queue")
                queues.append(self.reading(at, read, 0))
        return tuple(queues)

    def targets(self, ports: dict[str, PortSettings]) -> dict[str, Target]:
        targets: dict[str, Target] = {}
        for name in self.names(("af_xdp",), "target"):
            path = ("af_xdp", name)
            if len(targets) == MAX_TARGETS:
                self.say(self.at.key(path), f"more than {MAX_TARGETS} targets", "take some out")
            table = self.table(path, ("handler", *_CAPTURE_KEYS))
            if not isinstance(self.data["af_xdp"][name], dict):
                continue
            if "handler" not in table:
                self.say(self.at.key(path), f'target "{name}" has no handler', f"add {_HANDLERS}")
                continue
            handler = self.string((*path, "handler"), "count", _HANDLERS)
            self.reading((*path, "handler"), partial(_check_handler, handler, ports), None)
            targets[name] = self.target(path, Target(name, handler))
        return targets

    def target(self, path: tuple[str, ...], target: Target) -> Target:
        """A target with its options, which only the handler capture has."""
        table = self.table(path)
        if target.kind != "capture":
            for key in _CAPTURE_KEYS:
                if key in table:
                    message = f"{key} goes with the handler capture, and this is {target.kind}"
                    self.say(self.at.key((*path, key)), message, "take it out")
            return target
        size = table.get("max_bytes")
        return Target(
            target.name,
            target.handler,
            self.base / target.argument,
            self.integer((*path, "snaplen"), table.get("snaplen", target.snaplen), 64, 262_144),
            None if size is None else self.size((*path, "max_bytes"), size),
            self.integer((*path, "keep"), table.get("keep", target.keep), 0, 1000),
        )

    def fastpath(self) -> FastpathSettings:
        keys = ("mode", "ring", "busy_poll", "busy_budget", "cpus")
        table = self.table(("fastpath",), keys)
        ring = self.power_of_two(("fastpath", "ring"), table.get("ring", 2048), 64, 32_768)
        poll = self.string(("fastpath", "busy_poll"), "off", 'a time: "20us", or "off"')
        return FastpathSettings(
            self.choice(("fastpath", "mode"), ("auto", "zerocopy", "copy"), "auto"),
            ring,
            self.reading(
                ("fastpath", "busy_poll"),
                lambda: 0 if poll == "off" else duration_ns(poll, "10us", "10ms", "busy_poll"),
                0,
            )
            // 1000,
            self.integer(("fastpath", "busy_budget"), table.get("busy_budget", 64), 1, 65_535),
            self.cpus(("fastpath", "cpus"), table.get("cpus", [])),
        )

    def power_of_two(self, path: KeyPath, value: object, lo: int, hi: int) -> int:
        found = self.integer(path, value, lo, hi)
        if found & (found - 1):
            near = 1 << found.bit_length()
            hint = f"write {near // 2} or {near}"
            self.say_value(path, f"{path[-1]} {found} is not a power of two", hint)
        return found

    def cpus(self, path: tuple[str, ...], value: object) -> tuple[int, ...]:
        if not isinstance(value, list):
            self.say_type(path, value, "a list of CPU numbers: [2, 3]")
            return ()
        return tuple(self.integer((*path, i), x, 0, MAX_CPU) for i, x in enumerate(value))

    def log(self) -> LogSettings:
        table = self.table(("log",), ("sources", "window", "rate", "sinks"))
        window = self.string(("log", "window"), "60s", 'a time: "60s"')
        speed = self.string(("log", "rate"), "100000/s", 'a rate: "100000/s", or "off"')
        sinks = table.get("sinks", ["stdout"])
        if not isinstance(sinks, list):
            self.say_type(("log", "sinks"), sinks, 'a list: ["stdout"]')
            sinks = []
        return LogSettings(
            self.choice(("log", "sources"), ("off", "new", "every"), "new"),
            self.reading(("log", "window"), lambda: duration_ns(window, "1s", "1d", "window"), 0),
            self.reading(
                ("log", "rate"),
                lambda: None if speed == "off" else rate(speed, counts=True),
                None,
            ),
            self.sinks(("log", "sinks"), sinks),
        )

    def sources(self) -> SourceSettings:
        of, default = ("sources",), SourceSettings()
        table = self.table(of, ("count", "slots", "prefix4", "prefix6", "geoip"))
        slots = table.get("slots", default.slots)
        return SourceSettings(
            self.boolean((*of, "count"), default.count),
            self.power_of_two((*of, "slots"), slots, SLOTS_LEAST, SLOTS_MOST),
            self.integer((*of, "prefix4"), table.get("prefix4", default.prefix4), 0, 32),
            self.integer((*of, "prefix6"), table.get("prefix6", default.prefix6), 0, 128),
            self.files((*of, "geoip"), table.get("geoip", [])),
        )

    def files(self, path: KeyPath, value: object) -> tuple[Path, ...]:
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            self.say_type(path, value, 'a list of files: ["GeoLite2-Country.mmdb"]')
            return ()
        return tuple(self.base / x for x in value)

    def gateway(self) -> GatewaySettings:
        self.table(("gateway",), ("on_exit", "coexist"))
        return GatewaySettings(
            self.choice(("gateway", "on_exit"), ("keep", "detach"), "keep"),
            self.boolean(("gateway", "coexist"), False),
        )

    def metrics(self) -> MetricsSettings:
        path = ("metrics", "listen")
        self.table(("metrics",), ("listen", "rules"))
        word = self.string(path, "off", 'an address: "127.0.0.1:9464", or "off"')
        listen = None
        if word != "off":
            listen = self.reading(path, lambda: listen_address(word), None)
        return MetricsSettings(listen, self.boolean(("metrics", "rules"), True))

    def open_metrics(self) -> Diagnostic:
        message = "metrics tell all who can reach this address about the filter, without a password"
        hint = 'write "127.0.0.1:9464" where they are read on this machine'
        return Diagnostic(self.file, *self.at.value(("metrics", "listen")), message, hint)


_HANDLERS = (
    'handler = "count", "reflect", "forward:PORT", "capture:FILE" or "python:MODULE:FUNCTION"'
)


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
