"""What sets of prefixes cost: ns a lookup at 1 to 1,000,000 of them, memory, time to build and to
change, against BPF_MAP_TYPE_LPM_TRIE.

Sets are those of `tests/classbench`: `blocklist` is mostly hosts in clusters, `scattered` has hosts
and small networks anywhere, `bgp` the lengths of a routing table. Sources are

    hits      in a member of the set drawn at random, again after 1,048,576 others
    random    anywhere, and never again
    near      IPv6 only: in the /32 of a member, and mostly in none; never again

"xdpgw lookup" is what the match engine calls for an address, "xdpgw verdict" the whole datapath
with the policy `bad drop from @bad`, "LPM_TRIE" the kernel's map with the same prefixes. Times are
net of the harness (bench/harness.py). Before that, all three must find the same sources.

    memory    MiB, as the kernel tells of each map (exact from 6.4 on): all maps of the policy's
              image, and the trie
    build     ms: "read" from the file to the prefixes in memory, "compile" to the bytes of the
              maps, "load" into the kernel; the trie is filled by one system call from an array
    change    us for one element more or one less: in the tables in force (`SetEditor`, from the set
              before and the set after), or by building all anew, as for a change that does not fit

Lookups of several packets overlap in the processor, here as in a driver's loop: a chain of lookups,
each waiting for the one before, would take longer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.run import Plan, Subject, pinned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.harness import Harness, Trace
    from tests.classbench import Policy
    from xdpgw.compile import Image
    from xdpgw.config import Config
    from xdpgw.kernel import Map, Program
    from xdpgw.prefixes import Prefixes

__all__ = ["SIZES", "plan"]

SIZES, QUICK_SIZES = (1, 1000, 100_000, 1_000_000), (1, 1000)
SOURCES, QUICK_SOURCES = 1 << 20, 1024
ROUNDS, QUICK_ROUNDS = 11, 1
CHECKED = 512
"""Sources of each trace on which subjects must agree."""

CHANGES, QUICK_CHANGES = 1000, 10
EDITED = 9
"""Members that are taken out of the tables and put back in a sample."""

SPARE_LINES = 1 << 18
"""For all edits of a run: what they no longer need is not used again."""

BUILT = "blocklist"
"""The kind that is built and changed in each round."""

LOOKUP, VERDICT, TRIE = "xdpgw lookup", "xdpgw verdict", "LPM_TRIE"
RANDOM_AT = 26
"""An IPv4 source address, or the second 32 bits of an IPv6 one."""

_POLICY = """
[policy]
rules = "bad drop from @bad"
[sets]
bad = [{ file = "bad.netset" }]
[log]
sources = "off"
"""


# --- Building -------------------------------------------------------------------------------------


def _read(path: Path) -> Config:
    from xdpgw import config

    return config.read(path)


def _compile(read: Config) -> Image:
    from xdpgw import rules
    from xdpgw.compile import compile_rules

    return compile_rules(rules.resolve(read))


def _trie(prefixes: NDArray[Any]) -> tuple[Map, NDArray[np.uint8]]:
    """The kernel's map of the prefixes, and its keys."""
    import numpy as np

    from xdpgw.kernel import Map

    version, n = int(prefixes["version"][0]), len(prefixes)
    size = 4 if version == 4 else 16
    keys = np.zeros((n, 4 + size), np.uint8)
    keys[:, :4] = prefixes["bits"].astype(np.uint32).view(np.uint8).reshape(n, 4)
    keys[:, 4:] = prefixes["address"].astype(">u8").view(np.uint8).reshape(n, 16)[:, -size:]
    no_prealloc = 1  # BPF_F_NO_PREALLOC
    made = Map.create(
        "lpm_trie", f"lpm{version}", key=4 + size, value=4, entries=n + 1, flags=no_prealloc
    )
    made.update_many(keys, np.ones(n, np.uint32))
    return made, keys


def _timed(work: Callable[[], Any], scale: float = 1e3) -> Callable[[], float]:
    """A sampler of how long it takes, in ms unless scaled otherwise; what it opens is closed."""

    def sample() -> float:
        start = time.perf_counter()
        done = work()
        took = time.perf_counter() - start
        if hasattr(done, "close"):
            done.close()
        return took * scale

    return sample


def _always(value: float) -> Callable[[], float]:
    return lambda: value


# --- One set --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Set:
    """A set in the kernel, in both forms."""

    title: str
    version: int
    prefixes: NDArray[Any]
    path: Path
    image: Image
    maps: dict[str, Map]
    trie: Map
    keys: NDArray[np.uint8]
    programs: dict[str, Program]


class _Bench:
    """Sets in the kernel, and the subjects that they make."""

    def __init__(self, undo: ExitStack, quick: bool) -> None:
        from bench.harness import Harness

        self._undo, self._quick = undo, quick
        self._anywhere: dict[int, NDArray[np.uint8]] = {}
        self._sources = QUICK_SOURCES if quick else SOURCES
        self._harness: Harness = Harness(undo, CHECKED, self._sources)
        self._folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="bench-sets-")))

    def subjects(self, kind: str, version: int, size: int) -> Iterator[Subject]:
        """All cases of one set."""
        found = self._set(kind, version, size)
        for name, trace in self._traces(found):
            self._must_agree(f"{found.title}, {name}", found, trace)
            for subject, program in found.programs.items():
                sample = self._harness.sampler(program, trace, self._quick)
                yield Subject(f"{found.title}, {name}", subject, sample)
        yield from self._memory(found)
        if kind == BUILT:
            yield from self._build(found)
            yield from self._change(found)

    def _set(self, kind: str, version: int, size: int) -> _Set:
        from tests import classbench

        title = f"IPv{version} {kind}, {size:,}"
        prefixes = classbench.prefixes(kind, size, version=version)
        folder = self._folder / title.replace(" ", "-")
        folder.mkdir()
        (folder / "bad.netset").write_text("\n".join(classbench.prefix_text(prefixes)))
        path = folder / "policy.toml"
        path.write_text(_POLICY)
        image = _compile(_read(path))
        obj, maps = self._harness.datapath(image)
        trie, keys = _trie(prefixes)
        self._undo.enter_context(trie)
        peer = self._harness.peers({}, reuse={f"lpm{version}": trie})
        programs = {
            LOOKUP: obj.program(f"prefix{version}"),
            TRIE: peer.program(f"trie{version}"),
            VERDICT: obj.program("verdict"),
        }
        return _Set(title, version, prefixes, path, image, dict(maps), trie, keys, programs)

    def _traces(self, found: _Set) -> Iterator[tuple[str, Trace]]:
        import numpy as np

        from bench.harness import Trace
        from tests import classbench

        rule = np.zeros(1, classbench.RULE)
        rule["version"], rule["proto"], rule["src_set"], rule["dst_set"] = found.version, 17, 0, -1
        members = classbench.Policy("", rule, (found.prefixes,))
        heads = Trace.of(classbench.frames(classbench.headers(members, "random", CHECKED))).heads
        hits = self._drawn(members, "match")
        yield "hits", Trace(heads, 0, hits)
        if found.version == 6:
            yield "near", Trace(heads, RANDOM_AT, hits)
        if found.version not in self._anywhere:
            self._anywhere[found.version] = self._drawn(members, "random")
        yield "random", Trace(heads, RANDOM_AT, self._anywhere[found.version])

    def _drawn(self, members: Policy, kind: str) -> NDArray[np.uint8]:
        """Source addresses of a trace."""
        import numpy as np

        from tests import classbench

        found = classbench.headers(members, kind, self._sources)
        size = 4 if found["version"][0] == 4 else 16
        octets = found["src"].astype(">u8").view(np.uint8).reshape(-1, 16)
        return np.ascontiguousarray(octets[:, -size:])

    def _must_agree(self, what: str, found: _Set, trace: Trace) -> None:
        """A subject that finds others would be measured for nothing."""
        drops = {
            name: self._harness.drops(program, trace, CHECKED)
            for name, program in found.programs.items()
        }
        if len(set(drops.values())) > 1:
            raise RuntimeError(f"{what}: of {CHECKED} sources, found are {drops}")
        if what.endswith("hits") and drops[TRIE] != CHECKED:
            raise RuntimeError(f"{what}: only {drops[TRIE]} of {CHECKED} are hits")

    def _memory(self, found: _Set) -> Iterator[Subject]:
        from bench.harness import memory_bytes

        for name, maps in (("xdpgw", found.maps), (TRIE, {"lpm": found.trie})):
            taken = _always(memory_bytes(maps) / (1 << 20))
            yield Subject(f"{found.title}, memory", name, taken, "MiB", "xdpgw")

    def _build(self, found: _Set) -> Iterator[Subject]:
        from xdpgw import loader

        read = _read(found.path)
        works: dict[str, Callable[[], Any]] = {
            "read": lambda: _read(found.path),
            "compile": lambda: _compile(read),
            "load": lambda: loader.load(found.image, [None]),
            TRIE: lambda: _trie(found.prefixes)[0],
        }
        for name, work in works.items():
            yield Subject(f"{found.title}, build", name, _timed(work), "ms", TRIE)

    def _change(self, found: _Set) -> Iterator[Subject]:
        from xdpgw import loader

        case, read = f"{found.title}, change", _read(found.path)
        count = QUICK_CHANGES if self._quick else CHANGES

        def trie() -> float:
            """Take members out and put them back, in turn."""
            chosen = [bytes(found.keys[n % len(found.keys)]) for n in range(0, 7919 * count, 7919)]
            start = time.perf_counter()
            for key in chosen:
                found.trie.delete(key)
                found.trie.update(key, b"\1\0\0\0")
            return (time.perf_counter() - start) / (2 * count) * 1e6

        def rebuild() -> Any:
            return loader.load(_compile(read), [None])

        yield Subject(case, TRIE, trie, "us", TRIE)
        edited = self._edits(found)
        if edited is not None:
            yield Subject(case, "xdpgw, edited", edited, "us", TRIE)
        yield Subject(case, "xdpgw, built anew", _timed(rebuild, 1e6), "us", TRIE)

    def _edits(self, found: _Set) -> Callable[[], float] | None:
        """A sampler of us an edit; None for a set so small that it must be built anew."""
        import numpy as np

        from xdpgw.kernel import Map
        from xdpgw.prefixes import Prefixes
        from xdpgw.set_edits import NeedsRebuild, SetEditor

        tables = found.image.tables
        mmapable = 1 << 10  # BPF_F_MMAPABLE
        entries = len(tables.lines) + SPARE_LINES
        table = self._undo.enter_context(
            Map.create("array", "lines", key=4, value=64, entries=entries, flags=mmapable)
        )
        words = self._undo.enter_context(table.memory()).view(np.uint64).reshape(-1, 8)
        words[: len(tables.lines)] = tables.lines
        editor, whole = SetEditor(tables, words), _members(found.image)
        step = max(1, len(whole) // EDITED)
        chosen = list(whole)[step // 2 :: step][:EDITED]  # in the order of addresses
        less = [whole.difference(Prefixes.of([member]))[1] for member in chosen]

        def edit() -> float:
            start = time.perf_counter()
            for rest in less:
                editor.replace(whole, rest)
                editor.replace(rest, whole)
            return (time.perf_counter() - start) / (2 * len(less)) * 1e6

        try:
            edit()
        except NeedsRebuild:
            return None
        return edit


def _members(image: Image) -> Prefixes:
    """The set of the policy's rule."""
    from xdpgw.rule_types import Addresses

    (asked,) = image.ruleset.rules[0].predicates
    assert isinstance(asked, Addresses)
    return asked.prefixes


@contextmanager
def plan(quick: bool) -> Iterator[Plan]:
    """All sets, loaded; they are gone at the end."""
    from tests import classbench

    with pinned(), ExitStack() as undo:
        bench = _Bench(undo, quick)
        subjects: list[Subject] = []
        for version in (4, 6):
            for kind in (BUILT,) if quick else classbench.PREFIX_KINDS:
                for size in QUICK_SIZES if quick else SIZES:
                    subjects += bench.subjects(kind, version, size)
        yield Plan("sets", "ns/lookup", LOOKUP, QUICK_ROUNDS if quick else ROUNDS, subjects)
