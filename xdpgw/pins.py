"""What outlives a process: the pins of one gateway under bpffs, and the manifest that explains
them.

One gateway per network namespace, in a folder named after it:

    /sys/fs/bpf/xdpgw/net-4026531840/
        counters rule_counters log_counters log_buckets ...    the books
        link-eth0 ...          the attachments, one a port
        manifest               the policy in force, and the slots
        manifest-next          only while a swap is under way
        sockets                what the sockets of AF_XDP targets count, while some are served
        sinks                  the books of the log's sinks, as they stood last
        run/                   locked by the process in charge

All state lives in the kernel, next to what it describes, so that none can be stale: a reboot that
takes the filter away takes its description, too. (But for blocks, which are to outlive it; see
`xdpgw.blocks`.) Only the manifest needs care: it is written
beside the old one, the links are switched, then it takes the old one's name. Who finds both (a
process died in between) takes the one that names the program that the links run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from xdpgw import _abi as abi
from xdpgw.errors import AbiMismatch, BusyError, KernelError, XdpgwError
from xdpgw.facts import takes_vlan_tags
from xdpgw.kernel import Link, Map, ensure_bpffs, netns_inode
from xdpgw.rule_types import Prefix
from xdpgw.state import state_folder

__all__ = ["BOOKS", "Attached", "Counted", "Instance", "Manifest", "notes", "xsk_key"]

BOOKS = (
    "counters",
    "rule_counters",
    "log_counters",
    "log_buckets",
    "limit_buckets",
    "limit_lines",
    "limit_offenders",
    "talkers",
    "sources",
    "events",
    "xsks",
    "blocks",
    "block_lengths",
    "block_filter",
)
"""The maps that a new program takes over from the old one."""

LOOKING_TRIES, LOOKING_S = 5, 0.01
"""Who looks whether some process is in charge holds the lock for a moment, too."""

_PART_BYTES = 1 << 16
"""The manifest is kept in parts: kernel 5.15 has no value of more than 4 MiB."""


class Attached(msgspec.Struct, frozen=True):
    """A port as it was attached."""

    ifindex: int
    mode: str
    """native or generic: what it got, not what was asked for."""
    prog_id: int
    note: str | None = None
    """Why `auto` did not get native."""


class Counted(msgspec.Struct, frozen=True):
    """How sources are counted. With other settings, the counts begin anew."""

    sets: int
    """Of the map `talkers`, on each CPU."""
    prefix4: int
    prefix6: int
    seed: int


class Manifest(msgspec.Struct, frozen=True):
    """The policy in force: enough to show it, and to replace it, without the file it came from."""

    version: str
    policy_file: str
    policy_text: str
    rules_text: str
    loaded_at_ns: int
    """CLOCK_REALTIME."""
    rule_slots: dict[str, int]
    port_slots: dict[str, int]
    target_slots: dict[str, int]
    limit_slots: dict[str, int]
    limit_seeds: dict[str, int]
    ports: dict[str, Attached]
    on_exit: str
    log_sources: str
    reads_vlan: bool = False
    """Some rule looks at VLAN tags."""
    allow: tuple[Prefix, ...] = ()
    """Sources that no block covers."""
    counted: Counted | None = None
    """None: sources are not counted."""
    geoip: tuple[str, ...] = ()
    """Databases that know where sources are."""
    shows: bool = False
    """Its programs show frames to a capture."""
    abi: int = abi.MANIFEST_VERSION


class _Version(msgspec.Struct, frozen=True):
    """What every version of a manifest has."""

    abi: int


def notes(manifest: Manifest, port: str) -> list[str]:
    """What a person should know about a port, as it stands now."""
    found = [note for note in (manifest.ports[port].note,) if note]
    if manifest.reads_vlan and takes_vlan_tags(port):
        found.append(
            "the driver takes VLAN tags out of frames, so that rules do not see them: "
            f"ethtool -K {port} rxvlan off"
        )
    return found


def xsk_key(port_slot: int, target_slot: int, queue: int) -> bytes:
    """The key of the map `xsks`, as bpf/verdict.h computes it."""
    at = (port_slot * abi.MAX_TARGETS + target_slot) * abi.MAX_QUEUES + queue
    return at.to_bytes(4, "little")


class Instance:
    """The pins of the gateway of one network namespace. Opening it creates nothing."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            path = ensure_bpffs() / "xdpgw" / f"net-{netns_inode()}"
        self.path = path
        self.state = state_folder()
        """The folder for what outlives the filter; it may not be there yet."""

    @property
    def exists(self) -> bool:
        """Whether there is a filter, in the charge of a process or orphaned."""
        return (self.path / "manifest").exists()

    def create(self) -> None:
        """Make the folder, readable by root only."""
        (self.path / "run").mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def charge(self) -> Iterator[None]:
        """Be the one process in charge of the filter (`xdpgw run`).

        Raises:
            BusyError: another process is.
        """
        self.create()
        with _locked(self.path / "run", wait=False, tries=LOOKING_TRIES) as got:
            if not got:
                who = _who(self.path)
                raise BusyError(
                    "another xdpgw run is in charge of the filter of this network namespace",
                    f"stop it first, or give it a new policy with xdpgw reload{who}",
                    holder=who.strip(" ()"),
                )
            yield

    @property
    def in_charge(self) -> bool:
        """Whether some process is in charge now; an orphaned filter has none."""
        try:
            with _locked(self.path / "run", wait=False, kind=fcntl.LOCK_SH) as got:
                return not got
        except XdpgwError:
            if (self.path / "run").exists():
                raise
            return False

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other processes from changing the pins meanwhile; waits for who does."""
        while True:
            self.create()
            with _locked(self.path, wait=True) as got:
                if got:  # else who was waited for removed it
                    yield
                    return

    # The books

    @contextmanager
    def books(self) -> Iterator[dict[str, Map]]:
        """The pinned books, open while the context lasts; {} where there are none."""
        with ExitStack() as stack:
            there = (self.path / BOOKS[0]).exists()
            yield {
                name: stack.enter_context(Map.from_pin(self.path / name))
                for name in (BOOKS if there else ())
            }

    def pin_books(self, maps: Mapping[str, Map]) -> None:
        """Pin books that are not pinned yet."""
        for name in BOOKS:
            if not (self.path / name).exists():
                maps[name].pin(self.path / name)

    # What the process in charge publishes

    def pin_map(self, name: str, table: Map) -> None:
        """Publish a map, in the place of an earlier one."""
        fresh = self.path / f"{name}-next"
        fresh.unlink(missing_ok=True)
        table.pin(fresh)
        os.rename(fresh, self.path / name)

    def pinned_map(self, name: str) -> Map | None:
        """A published map, the caller's to close; None where there is none."""
        path = self.path / name
        return Map.from_pin(path) if path.exists() else None

    def pin_sockets(self, table: Map) -> None:
        """Publish the map of struct xg_socket_stats."""
        self.pin_map("sockets", table)

    def unpin_sockets(self) -> None:
        """No socket serves a target any more."""
        (self.path / "sockets").unlink(missing_ok=True)

    def sockets(self) -> Map | None:
        """The map of struct xg_socket_stats, the caller's to close; None where none was served."""
        return self.pinned_map("sockets")

    # The attachments

    def link_path(self, port: str) -> Path:
        # bpffs keeps names with a dot for itself; a port's name may have one (eth0.7), but never
        # a colon.
        return self.path / f"link-{port.replace('.', ':')}"

    def linked_ports(self) -> list[str]:
        """Ports that have a pinned link."""
        if not self.path.exists():
            return []
        names = sorted(x.name for x in self.path.iterdir() if x.name.startswith("link-"))
        return [name.removeprefix("link-").replace(":", ".") for name in names]

    def link(self, port: str) -> Link | None:
        """The pinned link of a port."""
        path = self.link_path(port)
        return Link.from_pin(path) if path.exists() else None

    def drop_link(self, port: str) -> None:
        """Detach a port: its packets meet no program from here on."""
        link = self.link(port)
        if link is not None:
            with link:
                link.detach()
            self.link_path(port).unlink()

    # The manifest

    @property
    def generation(self) -> int | None:
        """A number that another one follows when the manifest is replaced; None without a filter.

        It is the inode of the pin, so asking is one stat(2), while `manifest` reads the policy.
        """
        return self._inode("manifest")

    @property
    def announced(self) -> int | None:
        """As `generation`, of what is about to come into force; None mostly."""
        return self._inode("manifest-next")

    def _inode(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_ino
        except FileNotFoundError:
            return None

    def manifests(self) -> list[Manifest]:
        """The descriptions of the policy in force and, behind it, of one that is announced.

        Raises:
            AbiMismatch: another version of xdpgw wrote one.
        """
        # In this order, as the one becomes the other.
        announced, current = (self._read(self.path / x) for x in ("manifest-next", "manifest"))
        return [x for x in (current, announced) if x is not None]

    def manifest(self) -> Manifest | None:
        """The description of the policy that the links run; None where there is no filter.

        Raises:
            AbiMismatch: another version of xdpgw wrote it.
        """
        known = self.manifests()
        if len(known) < 2:
            return known[0] if known and (self.path / "manifest").exists() else None
        running = set()
        for port in self.linked_ports():
            link = self.link(port)
            if link is not None:
                with link:
                    running.add(link.info().prog_id)
        newer = {x.prog_id for x in known[1].ports.values()}
        return known[1] if running & newer else known[0]

    def _read(self, path: Path) -> Manifest | None:
        if not path.exists():
            return None
        try:
            with Map.from_pin(path) as blob:
                raw = blob.array().tobytes().rstrip(b"\0")
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            return None  # it was renamed or withdrawn under our hands
        try:
            version = msgspec.json.decode(raw, type=_Version).abi
            if version == abi.MANIFEST_VERSION:
                return msgspec.json.decode(raw, type=Manifest)
            got = f"version {version}"
        except msgspec.DecodeError as error:
            got = str(error)
        raise AbiMismatch(
            "manifest",
            wanted=f"version {abi.MANIFEST_VERSION}",
            got=got,
            hint="another version of xdpgw put the filter in force: xdpgw detach, then start anew; "
            "nothing is filtered in between",
        )

    def announce(self, manifest: Manifest, books: Mapping[str, Map] | None = None) -> None:
        """Write down what is about to come into force.

        Args:
            books: those that the new programs do not take over, but have anew.
        """
        import numpy as np

        self.withdraw()
        for name, book in (books or {}).items():
            book.pin(self._next(name))
        raw = msgspec.json.encode(manifest)
        parts = -(-len(raw) // _PART_BYTES)
        rows = np.frombuffer(raw.ljust(parts * _PART_BYTES, b"\0"), np.uint8)
        with Map.create("array", "xdpgw_manifest", key=4, value=_PART_BYTES, entries=parts) as blob:
            blob.update_many(np.arange(parts, dtype=np.uint32), rows.reshape(parts, -1))
            blob.pin(self._next("manifest"))

    def confirm(self) -> None:
        """What was announced is in force."""
        for name in ("manifest", *BOOKS):
            if name == "manifest" or self._next(name).exists():
                os.rename(self._next(name), self.path / name)

    def withdraw(self) -> None:
        """What was announced did not come into force."""
        for name in ("manifest", *BOOKS):
            self._next(name).unlink(missing_ok=True)

    def _next(self, name: str) -> Path:
        return self.path / f"{name}-next"

    def remove(self) -> list[str]:
        """Detach all ports and remove all pins. Returns the ports that were detached."""
        ports = self.linked_ports()
        for port in ports:
            self.drop_link(port)
        if self.path.exists():
            for pin in self.path.iterdir():
                if not pin.is_dir():
                    pin.unlink(missing_ok=True)
            for folder in (self.path / "run", self.path, self.path.parent):
                with suppress(OSError):  # the parent holds other namespaces' gateways
                    folder.rmdir()
        return ports


@contextmanager
def _locked(path: Path, *, wait: bool, kind: int = fcntl.LOCK_EX, tries: int = 1) -> Iterator[bool]:
    """False: another process has it; or, after a wait, the folder was removed meanwhile."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise XdpgwError(f"cannot open {path}: {error.strerror}", "run it as root") from error
    try:
        if wait:
            fcntl.flock(fd, kind)
            yield _is_at(fd, path)
        else:
            yield any(_try_lock(fd, kind, again=at + 1 < tries) for at in range(tries))
    finally:
        os.close(fd)


def _try_lock(fd: int, kind: int, *, again: bool) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if again:
            time.sleep(LOOKING_S)
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _who(path: Path) -> str:
    """The processes that hold the folder `run` open, as " (pid 12)", or nothing."""
    wanted = os.stat(path / "run")
    pids = []
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit() or int(proc.name) == os.getpid():
            continue
        with suppress(OSError):
            for fd in (proc / "fd").iterdir():
                with suppress(OSError):
                    seen = fd.stat()
                    if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino):
                        pids.append(proc.name)
                        break
    return f" (pid {', '.join(pids)})" if pids else ""
