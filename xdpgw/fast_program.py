"""The program that hands a port's frames to AF_XDP, shared by all FastPorts of this process on it.

It comes with the first of them and goes with the last. Also: the entry of a policy's target, where
the port's program is the gateway's.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

from xdpgw._abi import MAX_QUEUES
from xdpgw.errors import BusyError, KernelError, XdpgwError
from xdpgw.fast_errors import wrong
from xdpgw.kernel import XDP_HAS_FRAGS, BpfObject, Link, Map, netns_inode

__all__ = ["Entry", "FrameEntry", "TargetEntry", "port_program", "target_entry"]

_NOEXIST = 1  # BPF_NOEXIST


class Entry(Protocol):
    """A place in an XSKMAP, and the program that reads it."""

    @property
    def attached(self) -> str:
        """The mode of the port's program: native or generic."""

    def remove(self) -> None:
        """The program no longer hands frames to the socket; twice is fine."""

    def close(self) -> None:
        """Let go of map and program; twice is fine."""


@dataclass(slots=True)
class _Shared:
    """One port's program."""

    key: tuple[int, int]
    object: BpfObject
    link: Link
    mode: str
    users: int = 0


_programs: dict[tuple[int, int], _Shared] = {}
_lock = threading.Lock()


class FrameEntry:
    """A queue of the program of bpf/frames.bpf.c."""

    def __init__(self, shared: _Shared, key: bytes) -> None:
        self._shared: _Shared | None = shared
        self._map = shared.object.map("xsks")
        self._key: bytes | None = key
        self.attached = shared.mode

    def remove(self) -> None:
        """The queue's packets go to the stack from here on."""
        key, self._key = self._key, None
        if key is not None:
            _delete(self._map, key)

    def close(self) -> None:
        """The last one takes the program off the port."""
        self.remove()
        shared, self._shared = self._shared, None
        if shared is None:
            return
        with _lock:
            shared.users -= 1
            if shared.users == 0:
                _drop(shared)


def port_program(
    port: str, ifindex: int, queue: int, fd: int, wanted: str, *, frags: bool
) -> FrameEntry:
    """Have the program hand a queue's frames to a socket; put it on the port if it is not there.

    The socket is in the map before the program is on the port: from its first packet on, none goes
    past the socket.

    Args:
        port: name of the port, in this network namespace.
        ifindex: of the port.
        queue: whose frames are wanted.
        fd: of the socket.
        wanted: native, generic or auto.
        frags: whether frames may lie in several buffers, which takes kernel 5.18.

    Raises:
        BusyError: another program is on the port, or ours in another mode; or another FastPort of
            this process serves the queue.
        KernelError, PrivilegeError: as `Link.attach_as` and `BpfObject.load`.
        FastpathError: the queue is beyond what the program's map holds.
    """
    if queue >= MAX_QUEUES:
        raise wrong(
            f"the program for frames serves queues 0 to {MAX_QUEUES - 1} of a port, not {queue}",
            f"ethtool -L {port} combined {MAX_QUEUES}; or attach=None and a program of your own",
        )
    place = (queue.to_bytes(4, "little"), fd, f"queue {queue} of port {port}")
    with _lock:
        shared = _known((netns_inode(), ifindex))
        if shared is None:
            shared = _attach((netns_inode(), ifindex), place, wanted, frags)
        elif wanted not in ("auto", shared.mode):
            raise BusyError(
                f"this process has its program on port {port} in {shared.mode} mode, "
                f"not in {wanted}",
                'attach="auto" takes what is there',
                holder="this process",
            )
        else:
            _insert(shared.object.map("xsks"), *place)
        shared.users += 1
        return FrameEntry(shared, place[0])


def _known(key: tuple[int, int]) -> _Shared | None:
    shared = _programs.get(key)
    if shared is not None and shared.link.info().ifindex != key[1]:
        _drop(shared)  # its port is gone, and another has the number
        return None
    return shared


def _attach(
    key: tuple[int, int], place: tuple[bytes, int, str], wanted: str, frags: bool
) -> _Shared:
    elf = (resources.files("xdpgw") / "bpf" / "frames.bpf.o").read_bytes()
    with ExitStack() as undo:
        program = undo.enter_context(BpfObject(elf, name="frames"))
        program.load(prog_flags={"frames": XDP_HAS_FRAGS} if frags else None)
        _insert(program.map("xsks"), *place)
        link, mode, _ = Link.attach_as(program.program("frames"), key[1], wanted)
        undo.pop_all()
    shared = _programs[key] = _Shared(key, program, link, mode)
    return shared


def _drop(shared: _Shared) -> None:
    if _programs.get(shared.key) is shared:
        del _programs[shared.key]
    shared.link.close()
    shared.object.close()


class TargetEntry:
    """A queue of an AF_XDP target of the policy in force; the port's program is the gateway's."""

    def __init__(self, xsks: Map, key: bytes, attached: str, what: str) -> None:
        self._map, self._wanted, self._what = xsks, key, what
        self._key: bytes | None = None
        self.attached = attached

    def put(self, fd: int) -> None:
        """Have the gateway hand the target's packets to a socket.

        Raises:
            BusyError: another socket serves the target on this queue.
        """
        _insert(self._map, self._wanted, fd, self._what)
        self._key = self._wanted

    def remove(self) -> None:
        """The packets get the verdict after `else` from here on."""
        key, self._key = self._key, None
        if key is not None:
            _delete(self._map, key)

    def close(self) -> None:
        """Let go of the map."""
        self.remove()
        self._map.close()


def target_entry(port: str, queue: int, target: str) -> TargetEntry:
    """The place of an AF_XDP target of the policy in force in this network namespace.

    Raises:
        XdpgwError: no policy is in force, or it has no such target or port.
    """

    from xdpgw.pins import Instance, xsk_key

    instance = Instance()
    manifest = instance.manifest()
    if manifest is None:
        raise XdpgwError(
            f"target {target}: no filter of xdpgw is in force in this network namespace",
            "xdpgw run POLICY starts one; without target= FastPort brings a program of its own",
        )
    if target not in manifest.target_slots:
        raise XdpgwError(
            f"the policy in force has no AF_XDP target {target}",
            _there("it has", manifest.target_slots),
        )
    if port not in manifest.ports:
        raise XdpgwError(
            f"the policy in force does not hold port {port}", _there("it holds", manifest.ports)
        )
    if queue >= MAX_QUEUES:
        raise wrong(f"targets are served on queues 0 to {MAX_QUEUES - 1}, not {queue}")
    key = xsk_key(manifest.port_slots[port], manifest.target_slots[target], queue)
    return TargetEntry(
        Map.from_pin(instance.path / "xsks"),
        key,
        manifest.ports[port].mode,
        f"target {target} on queue {queue} of port {port}",
    )


def _there(verb: str, names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return f"{verb} {listed}" if listed else f"{verb} none"


def _insert(xsks: Map, key: bytes, fd: int, what: str) -> None:
    try:
        xsks.update(key, fd.to_bytes(4, "little"), _NOEXIST)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
        raise BusyError(
            f"another socket serves {what}",
            "a queue's frames go to one socket: close that one, or take another queue",
            errno.EEXIST,
        ) from None


def _delete(xsks: Map, key: bytes) -> None:
    # Of a port that is gone the kernel has emptied the place.
    with suppress(KeyError, KernelError):
        xsks.delete(key)
