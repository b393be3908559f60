"""A policy in force: attach, adopt, swap, let go.

`apply` is the whole way from a `Config` to packets judged by it, and the same for a first start,
for the adoption of an orphaned filter and for a reload:

    lock -> read what is in force -> compile -> load beside the old -> attach new ports -> announce
         -> switch the links of old ports -> confirm -> detach ports that the policy no longer names

Until the first link is switched nothing that judges packets has changed, and whatever fails is
undone in reverse: the policy in force stays in force. Switching a link is one pointer in the
kernel, so a packet meets the old programs with the old maps, or the new with the new, and no
packet meets none.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from xdpgw import __version__, blocks, loader, rules, talkers
from xdpgw import _abi as abi
from xdpgw._abi import Dim
from xdpgw.compile import Image, Names, Session, compile_rules, compile_tables, names_of
from xdpgw.config import Config, PortSettings
from xdpgw.errors import BusyError, UnsupportedError, XdpgwError
from xdpgw.facts import mtu_of, receive_queues, single_buffer_mtu
from xdpgw.kernel import Link, Map, Program
from xdpgw.live_sets import LiveSets
from xdpgw.pins import BOOKS, Attached, Counted, Instance, Manifest

if TYPE_CHECKING:
    from xdpgw.tables import Tables

__all__ = ["Applied", "apply", "detach", "require_supported", "take_charge", "update_sets"]

TALKERS = "talkers"
"""The book of what each source sent; its size is the policy's."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` or `update_sets` did."""

    manifest: Manifest
    attached: tuple[str, ...]
    """Ports that had no program before."""
    switched: tuple[str, ...]
    """Ports that went from the old policy to the new one."""
    detached: tuple[str, ...]
    restored: blocks.Restored | None = None
    """Blocks that a fresh filter took from their file."""
    edited: int | None = None
    """Prefixes that `update_sets` changed in the tables in force; None where all was made anew."""
    rebuilt: str | None = None
    """Why it had to be, where `update_sets` made all anew."""
    forgets: bool = False
    """What sources sent so far: they are counted by other settings, or no longer."""


def require_supported(ruleset: rules.RuleSet) -> None:
    """Refuse a policy that asks for what this version does not do.

    Raises:
        UnsupportedError: names all of it.
    """
    if ruleset.unsupported:
        raise UnsupportedError(
            "\n".join(str(x) for x in ruleset.unsupported),
            "the policy in force, if any, stays in force",
            feature=ruleset.unsupported[0].message,
        )


@contextmanager
def take_charge(
    config: Config,
    instance: Instance,
    *,
    session: Session | None = None,
    live: LiveSets | None = None,
    first: Callable[[], object] = lambda: None,
) -> Iterator[Applied]:
    """Be the process in charge of the filter for as long as the context lasts.

    On leaving, the filter stays or goes as the policy in force says (`on_exit`), also after an
    error.

    Args:
        live: as for `apply`.
        first: is called by the process in charge before anything in the kernel changes.

    Raises:
        BusyError: another process is in charge, or a foreign program holds a port.
    """
    existed = instance.exists
    with instance.charge():
        try:
            first()
            applied = apply(config, instance, session=session, live=live)
        except BaseException:
            if not existed:
                instance.remove()
            raise
        try:
            yield applied
        finally:
            manifest = instance.manifest()
            if manifest is not None and manifest.on_exit == "detach":
                detach(instance)


def detach(instance: Instance) -> list[str]:
    """Detach all ports and remove all pins. Returns the ports."""
    if not instance.path.exists():
        return []
    with instance.changing():
        return instance.remove()


def apply(
    config: Config,
    instance: Instance,
    *,
    session: Session | None = None,
    live: LiveSets | None = None,
) -> Applied:
    """Put a policy in force on its ports, in place of the one before, if any.

    Args:
        live: is given what it takes to change sets later, by `update_sets`.

    Raises:
        UnsupportedError: the policy asks for what this version does not do.
        KernelError: and its kinds, with the policy in force unchanged.
    """
    ruleset = rules.resolve(config)
    require_supported(ruleset)
    tables = compile_tables(ruleset)  # takes long: others need not wait for it
    with instance.changing():
        return _apply(ruleset, tables, instance, session, live)


def _apply(
    ruleset: rules.RuleSet,
    tables: Tables,
    instance: Instance,
    session: Session | None,
    live: LiveSets | None,
) -> Applied:
    """As `apply`, for who keeps others from changing the pins."""
    config = ruleset.config
    ifindexes = _ifindexes(config)
    _require_queues(config)
    with ExitStack() as held:
        before = instance.manifest()
        books = held.enter_context(instance.books())
        names = names_of(ruleset, _names(before), lambda _: secrets.randbits(63))
        image = compile_rules(ruleset, names, tables)
        counted, recounts = _counted(config, before, books)
        kept = {name: book for name, book in books.items() if not (recounts and name == TALKERS)}
        loaded = held.enter_context(
            loader.load(
                image,
                list(config.ports),
                books=kept,
                session=session,
                jumbo=_jumbo(config),
                talker_seed=counted.seed if counted else 0,
            )
        )
        restored = None
        if books:
            _clear(books, _names(before), names)
        else:
            restored = blocks.restore(instance, loaded.maps)
            instance.pin_books(loaded.maps)

        with ExitStack() as undo:
            if not books:
                undo.callback(_unpin_books, instance)
            old, new = _sort_ports(config, instance, ifindexes, before)
            attached = dict(old)
            for port in new:
                attached[port] = _attach(
                    instance, config.ports[port], ifindexes[port], loaded, undo
                )
            for port, was in old.items():
                program = loaded.programs[port]
                attached[port] = Attached(was.ifindex, was.mode, program.info().id, was.note)
            manifest = _manifest(image, attached, counted, loaded.shows)
            undo.callback(instance.withdraw)
            anew = {name: loaded.maps[name] for name in books if name not in kept}
            instance.announce(manifest, anew)
            for port in old:
                _switch(instance, port, loaded.programs[port], held, undo)
            instance.confirm()
            undo.pop_all()
        if live is not None:
            live.hold(image, loaded.maps["lines"], instance.generation)

        gone = [port for port in instance.linked_ports() if port not in config.ports]
        for port in gone:
            instance.drop_link(port)
    forgets = recounts and before is not None and before.counted is not None
    return Applied(manifest, tuple(new), tuple(old), tuple(gone), restored, forgets=forgets)


def update_sets(
    config: Config, instance: Instance, *, session: Session | None = None, live: LiveSets
) -> Applied:
    """Put a policy in force that differs from the one in force in some sets only: by changing the
    tables in force, or where these cannot be, as `apply`.

    Raises:
        BusyError: another process put a policy in force.
        ConfigError: a rule cannot do with the sets as they are now.
        UnsupportedError, KernelError: as `apply`; the policy in force is unchanged.
    """
    from xdpgw.set_edits import NeedsRebuild

    ruleset = rules.resolve(config)
    with instance.changing():
        before = _unchanged(instance, live)
        try:
            return _edit(ruleset, before, instance, live)
        except (NeedsRebuild, MemoryError) as error:
            why = str(error)
    tables = compile_tables(ruleset)
    with instance.changing():
        _unchanged(instance, live)
        return replace(_apply(ruleset, tables, instance, session, live), rebuilt=why)


def _unchanged(instance: Instance, live: LiveSets) -> Manifest:
    """What is in force, if that is what this process put there."""
    before = instance.manifest()
    if before is None or instance.generation != live.generation:
        raise BusyError("another process changed the filter meanwhile")
    return before


def _edit(ruleset: rules.RuleSet, before: Manifest, instance: Instance, live: LiveSets) -> Applied:
    """Change the tables in force; in force is a new state of them, which the manifest tells."""
    from xdpgw.set_edits import NeedsRebuild

    if ruleset.config.policy.allow != before.allow:
        raise NeedsRebuild("what no block covers changes, too")
    manifest = msgspec.structs.replace(before, loaded_at_ns=time.time_ns())
    with ExitStack() as undo:
        undo.callback(instance.withdraw)
        instance.announce(manifest)
        edited = live.replace(ruleset.rules)
        instance.confirm()
        undo.pop_all()
    live.generation = instance.generation
    return Applied(manifest, (), (), (), edited=edited)


def _ifindexes(config: Config) -> dict[str, int]:
    if not config.ports:
        raise XdpgwError(
            f"{config.path} names no port to attach to", "add a table such as [ports.eth0]"
        )
    found, missing = {}, []
    for port in config.ports:
        try:
            found[port] = socket.if_nametoindex(port)
        except OSError:
            missing.append(port)
    if missing:
        here = ", ".join(name for _, name in socket.if_nameindex())
        raise XdpgwError(
            f"no such interface: {', '.join(missing)}",
            f"this network namespace has {here}; xdpgw --netns NAME looks into another one",
        )
    return found


def _counted(
    config: Config, before: Manifest | None, books: Mapping[str, Map]
) -> tuple[Counted | None, bool]:
    """How sources are counted, and whether that begins anew."""
    known = before.counted if before else None
    entries = books[TALKERS].info().max_entries if books else None
    found = talkers.counted(config.sources, known, entries)
    return found, before is None or found != known


def _jumbo(config: Config) -> set[str]:
    """Ports whose driver may lay a frame over several buffers.

    Generic mode makes one buffer of a frame for a program that does not ask for several.
    """
    limit = single_buffer_mtu()
    return {
        port.name
        for port in config.ports.values()
        if port.mode != "generic" and mtu_of(port.name) > limit
    }


def _require_queues(config: Config) -> None:
    """Refuse a list of queues with one that the port does not have."""
    for port in config.ports.values():
        if port.queues == "all":
            continue
        there = receive_queues(port.name)
        missing = [] if there is None else [queue for queue in port.queues if queue >= there]
        if missing:
            raise XdpgwError(
                f"port {port.name} has no queue {', '.join(map(str, missing))}",
                f"it has {there}, which count from 0: correct queues in [ports.{port.name}]",
            )


def _names(manifest: Manifest | None) -> Names:
    if manifest is None:
        return Names()
    return Names(
        manifest.rule_slots,
        manifest.port_slots,
        manifest.target_slots,
        manifest.limit_slots,
        manifest.limit_seeds,
    )


def _manifest(
    image: Image, ports: Mapping[str, Attached], counted: Counted | None, shows: bool
) -> Manifest:
    config, names = image.ruleset.config, image.names
    return Manifest(
        version=__version__,
        policy_file=str(config.path.absolute()),
        policy_text=config.text,
        rules_text=rules.format_rules(config.rules),
        loaded_at_ns=time.time_ns(),
        rule_slots=dict(names.rules),
        port_slots=dict(names.ports),
        target_slots=dict(names.targets),
        limit_slots=dict(names.limits),
        limit_seeds=dict(names.seeds),
        ports=dict(ports),
        on_exit=config.gateway.on_exit,
        log_sources=config.log.sources,
        reads_vlan=bool(image.tables.use[Dim.VLAN]),
        allow=config.policy.allow,
        counted=counted,
        geoip=tuple(os.path.abspath(path) for path in config.sources.geoip),
        shows=shows,
    )


def _clear(books: Mapping[str, Map], old: Names, new: Names) -> None:
    """Zero the books of slots that are given out anew; the kept ones go on."""

    def fresh(before: Mapping[str, int], now: Mapping[str, int]) -> list[int]:
        return [slot for name, slot in now.items() if name not in before]

    size = abi.VERDICT_COUNT * abi.REASON_COUNT
    rule_slots, limit_slots = fresh(old.rules, new.rules), fresh(old.limits, new.limits)
    ports = [at * size + n for at in fresh(old.ports, new.ports) for n in range(size)]
    for book, slots in (
        ("rule_counters", rule_slots),
        ("log_buckets", rule_slots),
        ("limit_buckets", limit_slots),
        ("limit_offenders", limit_slots),
        ("counters", ports),
    ):
        books[book].zero(slots)


def _unpin_books(instance: Instance) -> None:
    for name in BOOKS:
        (instance.path / name).unlink(missing_ok=True)


def _sort_ports(
    config: Config, instance: Instance, ifindexes: Mapping[str, int], before: Manifest | None
) -> tuple[dict[str, Attached], list[str]]:
    """Ports whose link can be switched, and ports to attach."""
    old, new = {}, []
    for port, settings in config.ports.items():
        link = instance.link(port)
        if link is None:
            new.append(port)
            continue
        with link:
            at = link.info().ifindex
        was = before.ports.get(port) if before else None
        if at != ifindexes[port] or was is None:
            # The interface went away and came back under its name, or a start died half-way.
            instance.drop_link(port)
            new.append(port)
        elif settings.mode not in ("auto", was.mode):
            raise XdpgwError(
                f"port {port} is attached in {was.mode} mode and the policy wants {settings.mode}",
                "xdpgw detach, then start anew; nothing is filtered in between",
            )
        else:
            old[port] = was
    return old, new


def _attach(
    instance: Instance,
    settings: PortSettings,
    ifindex: int,
    loaded: loader.Loaded,
    undo: ExitStack,
) -> Attached:
    port = settings.name
    link, mode, why = Link.attach_as(loaded.programs[port], ifindex, settings.mode)
    with link:
        link.pin(instance.link_path(port))
    undo.callback(instance.drop_link, port)
    note = None if why is None else f"not native: {why}"
    return Attached(ifindex, mode, loaded.programs[port].info().id, note)


def _switch(
    instance: Instance, port: str, program: Program, held: ExitStack, undo: ExitStack
) -> None:
    link = instance.link(port)
    if link is None:
        raise XdpgwError(f"the link of port {port} was removed meanwhile", "try again")
    held.enter_context(link)
    old = held.enter_context(Program.from_id(link.info().prog_id))
    link.update(program)
    undo.callback(link.update, old)
