"""From an `Image` to programs in the kernel: one per port, all over the same maps.

Loading attaches nothing. Whatever fails here leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from xdpgw import _abi as abi
from xdpgw import btf
from xdpgw._abi import Dim
from xdpgw.compile import Image, Session
from xdpgw.errors import KernelError, UnsupportedError, VerifierError, XdpgwError
from xdpgw.facts import single_buffer_mtu, tick_ns
from xdpgw.kernel import XDP_HAS_FRAGS, BpfObject, Map, Program, possible_cpus
from xdpgw.talkers import sets_for

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np

__all__ = ["CAPTURE", "DATAPATH", "Loaded", "artifact", "entries_of", "fill", "load"]

DATAPATH = "xdpgw.bpf.o"
CAPTURE = "capture.bpf.o"
REQUIRED = {
    DATAPATH: btf.REQUIRED,
    CAPTURE: btf.REQUIRED,
    "openat.bpf.o": ("snoop", "open"),
}
"""The structs of bpf/abi.h that objects must describe."""

_OF_A_PORT = "captures"
"""The map that programs do not share: programs with and without frames of several buffers do not go
into one."""

_MACS = (Dim.MAC_SRC, Dim.MAC_DST)
"""The dimensions that have a map of their own; its name is theirs."""

_RULE_BYTES: int = abi.LAYOUTS["rule"]["itemsize"]
_LIMIT_BYTES: int = abi.LAYOUTS["limit"]["itemsize"]
_ALLOWED_BYTES: int = abi.LAYOUTS["allowed"]["itemsize"]


_NO_ROOM = (errno.ENOMEM, errno.E2BIG, errno.ENOSPC)


@cache
def artifact(name: str) -> bytes:
    """The bytes of a BPF object that was built with the package, checked against what Python
    holds of its ABI.

    Raises:
        XdpgwError: it was not built.
        AbiMismatch: it was built from another `bpf/abi.h`.
    """
    try:
        elf = (resources.files("xdpgw") / "bpf" / name).read_bytes()
    except FileNotFoundError as error:
        raise XdpgwError(f"the BPF object {name} is not there", "build it: make build") from error
    if name in REQUIRED:
        btf.check_object(elf, required=REQUIRED[name])
    return elf


class Loaded:
    """Programs and maps of one image, by port and by name.

    Closing it lets go of them; what is pinned or attached lives on.
    """

    def __init__(
        self,
        image: Image,
        programs: Mapping[str | None, Program],
        maps: Mapping[str, Map],
        owner: ExitStack,
        shows: bool = False,
    ) -> None:
        self.image = image
        self.shows = shows
        """Whether its programs show frames to a capture."""
        self.programs = programs
        self.maps = maps
        self._owner = owner

    def close(self) -> None:
        """Close all file descriptors."""
        self._owner.close()

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def load(
    image: Image,
    ports: Sequence[str | None],
    *,
    books: Mapping[str, Map] | None = None,
    session: Session | None = None,
    explain: bool = False,
    multi_buffer: bool = False,
    jumbo: Collection[str] = (),
    talker_seed: int = 0,
) -> Loaded:
    """Load the datapath for some ports.

    Args:
        image: the compiled policy.
        ports: a program each; None for a program that belongs to no port.
        books: maps to take over (`pins.BOOKS`); new ones if None.
        session: the SSH session that the guard lets through.
        explain: programs that write their findings to the map `explained` and log nothing.
        multi_buffer: programs that take a frame's length over all of its buffers (kernel 5.18).
        jumbo: ports whose frames may lie in several buffers: their programs say so to the driver.
        talker_seed: of the hash of sources, in the books to take over, or in the new ones.

    Raises:
        UnsupportedError: a kernel before 5.18, and a port of `jumbo`.
        PrivilegeError, VerifierError, KernelError: as the kernel says.
    """

    def attempt(capture: bool) -> Loaded:
        return _load(
            image, ports, books, session, explain, multi_buffer, jumbo, talker_seed, capture
        )

    try:
        return attempt(capture=not explain)
    except VerifierError as error:
        # Without a JIT, and on arm64 before 6.0, a program with functions may not call another one.
        if explain or "tail_call" not in error.log:
            raise
        return attempt(capture=False)


def _load(
    image: Image,
    ports: Sequence[str | None],
    books: Mapping[str, Map] | None,
    session: Session | None,
    explain: bool,
    multi_buffer: bool,
    jumbo: Collection[str],
    talker_seed: int,
    capture: bool,
) -> Loaded:
    elf = artifact(DATAPATH)
    entries = entries_of(image)
    sets = 0 if explain else sets_for(image.ruleset.config.sources)
    entries["talkers"] = max(1, sets * possible_cpus())
    if explain:  # a policy is explained by itself, without what is blocked now
        entries |= {"blocks": 1, "block_filter": 1}
    programs: dict[str | None, Program] = {}
    shared: dict[str, Map] = dict(books or {})
    with ExitStack() as undo:
        for port in ports:
            obj = undo.enter_context(BpfObject(elf, name="xdpgw"))
            frags = port is not None and port in jumbo
            rodata = image.config(
                port,
                session=session,
                explain=explain,
                multi_buffer=multi_buffer or frags,
                capture=capture,
                tick_ns=tick_ns(),
                talker_sets=sets,
                talker_seed=talker_seed,
            )
            with _told_of_size(image), _told_of_frags(port if frags else None):
                obj.load(
                    rodata=rodata,
                    entries={name: n for name, n in entries.items() if name not in shared},
                    reuse=shared,
                    prog_flags={"xdpgw": XDP_HAS_FRAGS} if frags else None,
                )
            if not programs:
                with _told_of_size(image):
                    fill(image, obj)
                shared = {name: obj.map(name) for name in obj.map_names() if name != _OF_A_PORT}
            programs[port] = obj.program("xdpgw")
        return Loaded(image, programs, shared, undo.pop_all(), shows=capture)


def entries_of(image: Image) -> dict[str, int]:
    """How many entries each image map needs, by its name; 1 at least."""
    return {
        "lines": len(image.tables.lines) + image.spare_lines,
        "rules": len(image.rules) // _RULE_BYTES,
        "limits": len(image.limits) // _LIMIT_BYTES,
        "known": abi.KNOWN_SLOTS if image.tables.known else 1,
        "fragments": image.fragment_slots,
        "allowed": max(1, len(image.allowed) // _ALLOWED_BYTES),
        **{dim.text: max(1, len(image.tables.macs.get(dim, ()))) for dim in _MACS},
    }


@contextmanager
def _told_of_frags(port: str | None) -> Iterator[None]:
    """A kernel that does not know the flag says EINVAL, and nothing more."""
    try:
        yield
    except KernelError as error:
        if port is None or error.errno != errno.EINVAL:
            raise
        raise UnsupportedError(
            f"port {port} has an MTU over {single_buffer_mtu()}, and this kernel "
            f"({os.uname().release}) does not take a program for frames of several buffers",
            f'it takes kernel 5.18; or mode = "generic", or: ip link set dev {port} mtu 1500',
            error.errno,
            feature="multi-buffer XDP",
            kernel=os.uname().release,
        ) from error


@contextmanager
def _told_of_size(image: Image) -> Iterator[None]:
    """What was too big, where the kernel has no room."""
    try:
        yield
    except KernelError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise KernelError(
            f"there is no room for the policy: {error}; it takes {image.sizes}",
            "free memory, raise the limit of the control group, or name fewer prefixes or rules",
            error.errno,
        ) from error


def fill(image: Image, obj: BpfObject) -> None:
    """Write an image into the maps of a loaded object."""
    import numpy as np

    with obj.map("lines").memory() as lines:
        raw = image.tables.lines.view(np.uint8).reshape(-1)
        lines[: len(raw)] = raw
    for name, structs, size in (
        ("rules", image.rules, _RULE_BYTES),
        ("limits", image.limits, _LIMIT_BYTES),
    ):
        rows = np.frombuffer(structs, np.uint8).reshape(-1, size)
        obj.map(name).update_many(np.arange(len(rows), dtype=np.uint32), rows)
    for dim, pairs in image.tables.macs.items():
        obj.map(dim.text).update_many(*_columns(pairs))
    allowed = np.frombuffer(image.allowed, np.uint8).reshape(-1, _ALLOWED_BYTES)
    obj.map("allowed").update_many(allowed, np.zeros(len(allowed), np.uint32))


def _columns(
    pairs: Sequence[tuple[bytes, int]],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    import numpy as np

    keys = np.frombuffer(b"".join(key for key, _ in pairs), np.uint8).reshape(len(pairs), -1)
    return keys, np.array([row for _, row in pairs], np.uint32)
