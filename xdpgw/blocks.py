"""Sources that are blocked: put in, taken out, listed, and kept while no filter is in force.

In force is what the maps hold (`block_table`); a file (`block_journal`) has what a fresh filter
starts with, and what only people want to know: since when, and why. Both change under the lock
`Instance.changing`: first the maps, then the file.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpgw import _abi as abi
from xdpgw.accepts import merged
from xdpgw.block_journal import Blocked, Journal, Unblocked
from xdpgw.block_table import BlockTable
from xdpgw.errors import XdpgwError
from xdpgw.literals import Wrong, addresses, prefix_text

if TYPE_CHECKING:
    from xdpgw.kernel import Map
    from xdpgw.pins import Instance
    from xdpgw.rule_types import Prefix

__all__ = ["Block", "Restored", "add", "allowed_part", "clear", "count", "listed", "remove",
           "restore", "sweeping", "tidy"]  # fmt: skip

TIDY_S = 60.0
"""So often `xdpgw run` takes blocks that are over out of the table."""

FILE = "blocks"


@dataclass(frozen=True, slots=True)
class Block:
    """A source that is blocked."""

    source: Prefix
    left_ns: int | None
    """None: no end."""
    since_ns: int | None
    """CLOCK_REALTIME; None where the file does not tell."""
    reason: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What a fresh filter took from the file."""

    blocks: int
    lost: int
    """Lines that could not be read, and blocks for which the table had no room."""
    file: str


def add(
    instance: Instance, sources: Sequence[Prefix], *, for_ns: int | None, reason: str = ""
) -> None:
    """Block sources. One that is blocked gets the new end and reason.

    Args:
        instance: of a filter in force.
        sources: without host bits.
        for_ns: how long from now; None for no end.
        reason: a line for people.

    Raises:
        XdpgwError: the table is full: says how many are blocked now. Or they are blocked, but the
            file cannot be written.
    """
    import numpy as np

    sources = list(dict.fromkeys(sources))
    with _open(instance) as (table, journal):
        since, now = time.time_ns(), _now()
        ends = np.full(len(sources), 0 if for_ns is None else now + for_ns, np.uint64)
        done = table.put(sources, ends)
        if done < len(sources) and table.sweep(now):
            done += table.put(sources[done:], ends[done:])
        until = None if for_ns is None else since + for_ns
        is_full = done < len(sources) and len(table) >= abi.BLOCK_SLOTS
        journal.append(
            [Blocked(prefix_text(source), until, since, reason) for source in sources[:done]]
        )
    if done < len(sources):
        why = "the table is full" if is_full else "the kernel is out of memory for blocks"
        raise XdpgwError(
            f"{why}: {abi.BLOCK_SLOTS} addresses and prefixes can be blocked at once; "
            f"{done} of these {len(sources)}, from the first on, are blocked now",
            "unblock some, or block prefixes in place of their addresses",
        )


def remove(instance: Instance, sources: Sequence[Prefix]) -> list[Prefix]:
    """Unblock sources; those that were not blocked."""
    sources = list(dict.fromkeys(sources))
    with _open(instance) as (table, journal):
        table.sweep(_now())
        found = table.remove(sources)
        journal.append(
            [Unblocked(prefix_text(x)) for x, was in zip(sources, found, strict=True) if was]
        )
    return [x for x, was in zip(sources, found, strict=True) if not was]


def clear(instance: Instance) -> int:
    """Unblock all; how many there were."""
    with _open(instance) as (table, journal):
        table.sweep(_now())
        count = table.clear()
        if journal.path.exists():
            journal.rewrite(())
    return count


def listed(instance: Instance) -> list[Block]:
    """What is blocked, by family, address and length."""
    with _open(instance) as (table, journal):
        now = _now()
        table.sweep(now)
        items = table.items()
        known, _ = journal.read()
    out = []
    for source, end in items:
        kept = known.get(prefix_text(source))
        out.append(
            Block(
                source,
                end - now if end else None,
                kept.since_ns if kept else None,
                kept.reason if kept else "",
            )
        )
    return out


def count(books: Mapping[str, Map]) -> int:
    """How many sources are blocked now; keeps nobody from changing that meanwhile."""
    return BlockTable(books).blocking(_now())


def covering(instance: Instance, source: Prefix) -> Prefix | None:
    """A block, wider than the source, that covers it."""
    family, address, bits = source
    width = 32 if family == 4 else 128
    with _open(instance) as (table, _):
        for length in range(bits - 1, -1, -1):
            wider = family, address >> width - length << width - length, length
            if wider in table:
                return wider
    return None


def restore(instance: Instance, maps: Mapping[str, Map]) -> Restored | None:
    """Fill the maps of a fresh filter, before it is attached; None where there is no file.

    The lock is the caller's. A block never gets more time than it was given, whatever the wall
    clock says.

    Raises:
        XdpgwError: the file cannot be read.
    """
    import numpy as np

    journal = Journal(instance.state / FILE)
    if not journal.path.exists():
        return None
    known, lost = journal.read()
    since, now = time.time_ns(), _now()
    sources: list[Prefix] = []
    ends = []
    for text, kept in known.items():
        try:
            (source,) = addresses(text)
        except (Wrong, ValueError):
            lost += 1
            continue
        sources.append(source)
        ends.append(
            0
            if kept.until_ns is None
            else now + max(1, min(kept.until_ns - since, kept.until_ns - kept.since_ns))
        )
    done = BlockTable(maps).put(sources, np.array(ends, np.uint64)) if sources else 0
    return Restored(done, lost + len(sources) - done, str(journal.path))


def tidy(instance: Instance) -> int:
    """Take blocks that are over out of the table; how many."""
    if not instance.exists:
        return 0
    with _open(instance) as (table, _):
        return table.sweep(_now())


@contextmanager
def sweeping(
    instance: Instance, note: Callable[[str], None], every_s: float = TIDY_S
) -> Iterator[None]:
    """Tidy every so often, in a thread of its own, as long as the context lasts."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(every_s):
            try:
                tidy(instance)
            except XdpgwError as error:
                note(f"blocks that are over stay in the table: {error}")

    thread = threading.Thread(target=work, name="blocks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def allowed_part(
    sources: Iterable[Prefix], allow: Sequence[Prefix]
) -> Iterator[tuple[Prefix, bool]]:
    """Sources of which `allow` has a part, and whether it has the whole."""
    allowed = {family: merged(_span(x) for x in allow if x[0] == family) for family in (4, 6)}
    for source in sources:
        first, last = _span(source)
        spans = allowed[source[0]]
        at = bisect_right(spans, (last, 1 << 128)) - 1
        if at >= 0 and spans[at][1] >= first:
            yield source, spans[at][0] <= first and last <= spans[at][1]


def _span(source: Prefix) -> tuple[int, int]:
    family, address, bits = source
    return address, address | (1 << (32 if family == 4 else 128) - bits) - 1


@contextmanager
def _open(instance: Instance) -> Iterator[tuple[BlockTable, Journal]]:
    with instance.changing(), instance.books() as books:
        if not books:
            raise XdpgwError(
                "no filter is in force in this network namespace", "xdpgw run FILE starts one"
            )
        yield BlockTable(books), Journal(instance.state / FILE)


def _now() -> int:
    """The clock of the datapath's ends."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
