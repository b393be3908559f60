"""Test beds: a gateway and its peer in network namespaces of their own, joined by veth pairs.

    namespace "gateway"                      namespace "peer"
        left   02:00:00:00:00:02 <--veth--> left-peer   02:00:00:00:00:01
        right  02:00:00:00:01:02 <--veth--> right-peer  02:00:00:00:01:01

What a peer sends on `left-peer` arrives at the gateway's port `left`, as from a cable. Frames go
in and come out as bytes, through raw sockets that were opened before anything is sent.

Namespaces are anonymous: a descriptor keeps each alive, so that nothing is left behind whatever
happens to the process. `up` and `down` make and remove named ones, for the command line.

The beds are quiet (no IPv6, no addresses) unless asked otherwise, because a test that counts
packets wants no others. They are set up for what makes XDP on veth behave like XDP on a NIC:
checksums are whole, VLAN tags stay in the bytes, and the peer's end runs a program that lets all
pass, without which frames that a native program sends back stay in its ring.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xdpgw.errors import PrivilegeError, XdpgwError
from xdpgw.facts import single_buffer_mtu
from xdpgw.netns import CLONE_NEWNET, NAMED

__all__ = ["Namespace", "PacketSocket", "TestBed", "describe", "down", "up"]

PORTS = ("left", "right")
SUBNETS = {"left": ("192.0.2", "2001:db8:0:2"), "right": ("198.51.100", "2001:db8:0:64")}
"""The first three bytes and first 64 bits of each side's networks (RFC 5737, RFC 3849)."""

_libc = ctypes.CDLL(None, use_errno=True)


def mac(port: str, *, peer: bool = False) -> str:
    """The MAC address of a port's end."""
    return f"02:00:00:00:{PORTS.index(port):02x}:{1 if peer else 2:02x}"


class Namespace:
    """A network namespace, kept alive by a descriptor of it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def anonymous(cls) -> Namespace:
        """Make one that has no name and ends with its last descriptor.

        Raises:
            PrivilegeError: CAP_SYS_ADMIN is missing.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.unshare(CLONE_NEWNET):
                raise PrivilegeError("cannot make a network namespace", "run it as root")
            made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _set(home)
        finally:
            os.close(home)
        return cls(made)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run this thread, and what it starts, in the namespace while the context lasts."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set(self.fd)
            try:
                yield
            finally:
                _set(home)
        finally:
            os.close(home)

    @property
    def path(self) -> str:
        """A path to the namespace, for `xdpgw --netns`, as long as this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Let go of it; twice is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _set(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        err = ctypes.get_errno()
        raise XdpgwError(f"cannot enter a network namespace: {os.strerror(err)}", "run it as root")


class PacketSocket:
    """A raw socket on one interface: sends frames as they are, hands out those that arrive.

    A tag that the kernel took out of an arriving frame is put back.
    """

    _ALL = 0x0003  # ETH_P_ALL
    _SOL_PACKET, _AUXDATA, _IGNORE_OUTGOING = 263, 8, 23
    _VLAN_VALID, _TPID_VALID = 1 << 4, 1 << 6
    _RCVBUFFORCE = 33  # as root beyond net.core.rmem_max
    _RING_BYTES = 16 << 20

    def __init__(self, namespace: Namespace, interface: str) -> None:
        with namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(self._SOL_PACKET, self._AUXDATA, 1)
            self._socket.setsockopt(self._SOL_PACKET, self._IGNORE_OUTGOING, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, self._RCVBUFFORCE, self._RING_BYTES)
            self._socket.bind((interface, self._ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, frames: Iterable[bytes]) -> int:
        """Send frames as they are, 15 bytes each at least. Returns how many."""
        count = 0
        for count, frame in enumerate(frames, 1):  # noqa: B007
            while True:
                try:
                    self._socket.send(frame)
                    break
                except (BlockingIOError, InterruptedError):
                    select.select([], [self._socket], [], 1.0)
        return count

    def receive(self, count: int, timeout_s: float = 2.0) -> list[bytes]:
        """The next frames that arrived, fewer where the time runs out."""
        frames: list[bytes] = []
        deadline = time.monotonic() + timeout_s
        while len(frames) < count:
            left = deadline - time.monotonic()
            if not select.select([self._socket], [], [], max(0.0, left))[0]:
                break
            frames.append(self._one())
        return frames

    def waiting(self) -> list[bytes]:
        """All frames that have arrived by now."""
        frames = []
        while select.select([self._socket], [], [], 0)[0]:
            frames.append(self._one())
        return frames

    def _one(self) -> bytes:
        frame, extra, _, _ = self._socket.recvmsg(65600, 64)
        for level, kind, data in extra:
            if (level, kind) == (self._SOL_PACKET, self._AUXDATA):
                # struct tpacket_auxdata, linux/if_packet.h
                status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", data[:20])
                if status & self._VLAN_VALID:
                    kind_of_tag = tpid if status & self._TPID_VALID else 0x8100
                    tag = struct.pack("!HH", kind_of_tag, tci)
                    frame = frame[:12] + tag + frame[12:]
        return frame


class TestBed:
    """A gateway and a peer. Context manager; leaving it removes all of it."""

    __test__ = False  # pytest: this is no test class

    def __init__(
        self,
        ports: Sequence[str] = ("left",),
        *,
        queues: int = 1,
        mtu: int = 1500,
        quiet: bool = True,
        offloads: bool = False,
    ) -> None:
        """Make the bed.

        Args:
            ports: left, right or both.
            queues: receive and transmit queues of each end.
            mtu: of all ends, bytes.
            quiet: no addresses and no IPv6, so that the kernels send nothing of their own.
            offloads: leave checksum and VLAN offloads as they come.

        Raises:
            PrivilegeError: it takes root.
        """
        self.ports = tuple(ports)
        with ExitStack() as undo:
            self.gateway = Namespace.anonymous()
            undo.callback(self.gateway.close)
            self.peer = Namespace.anonymous()
            undo.callback(self.peer.close)
            _furnish(self.gateway, self.peer, self.ports, queues, mtu, quiet, offloads)
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo.close()

    def wire(self, port: str = "left") -> PacketSocket:
        """The cable's far end: sends to the port, receives what the port sends."""
        return PacketSocket(self.peer, f"{port}-peer")

    def host(self, port: str = "left") -> PacketSocket:
        """What the gateway's own stack is handed on the port."""
        return PacketSocket(self.gateway, port)

    def ifindex(self, port: str = "left") -> int:
        """Of the port, in the gateway's namespace."""
        with self.gateway.entered():
            return socket.if_nametoindex(port)

    def peer_ifindex(self, port: str = "left") -> int:
        """Of the cable's far end, in the peer's namespace."""
        with self.peer.entered():
            return socket.if_nametoindex(f"{port}-peer")

    def received(self, port: str = "left") -> int:
        """Frames that the kernel says the port received since it was made, dropped ones included.

        veth counts them before XDP judges them, in native and in generic mode: a witness of the
        filter's counters that is not one of them.
        """
        return _received(self.gateway, port)

    def peer_received(self, port: str = "left") -> int:
        """Frames that the kernel says the cable's far end received since it was made."""
        return _received(self.peer, f"{port}-peer")


def _received(namespace: Namespace, interface: str) -> int:
    from pyroute2 import IPRoute

    with namespace.entered(), IPRoute() as ip:
        (link,) = ip.get_links(socket.if_nametoindex(interface))
        return int(link.get_attr("IFLA_STATS64")["rx_packets"])


def _furnish(
    gateway: Namespace,
    peer: Namespace,
    ports: Sequence[str],
    queues: int,
    mtu: int,
    quiet: bool,
    offloads: bool,
) -> None:
    for namespace in (gateway, peer):
        with namespace.entered():
            if quiet:
                for scope in ("all", "default"):
                    _sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")
            else:
                _sysctl("net/ipv6/conf/default/accept_dad", "0")
            _configure([("lo", None, None, ())])
    for port in ports:
        _make_pair(gateway, peer, port, queues, mtu)
        v4, v6 = SUBNETS[port]
        for number, namespace, name in ((1, gateway, port), (2, peer, f"{port}-peer")):
            addresses = () if quiet else ((f"{v4}.{number}", 24), (f"{v6}::{number}", 64))
            with namespace.entered():
                if not offloads:
                    _command("ethtool", "-K", name, "tx", "off", "rxvlan", "off", "txvlan", "off")
                _configure([(name, mac(port, peer=namespace is peer), mtu, addresses)])
                if namespace is peer:
                    _let_pass(name, "xdp" if mtu <= single_buffer_mtu() else "xdp.frags")
    for port in ports:
        _wait_for_carrier(gateway, port)


def _let_pass(interface: str, section: str) -> None:
    """Attach a program that stays with the interface, by netlink."""
    with resources.as_file(resources.files("xdpgw") / "bpf" / "pass.bpf.o") as path:
        words = ("xdpdrv", "object", str(path), "sec", section)
        _command("ip", "link", "set", "dev", interface, *words)


def _make_pair(gateway: Namespace, peer: Namespace, port: str, queues: int, mtu: int) -> None:
    from pyroute2 import IPRoute

    with gateway.entered(), IPRoute() as ip:
        ip.link(
            "add",
            ifname=port,
            kind="veth",
            num_tx_queues=queues,
            num_rx_queues=queues,
            mtu=mtu,
            peer={
                "ifname": f"{port}-peer",
                "num_tx_queues": queues,
                "num_rx_queues": queues,
                "mtu": mtu,
                "net_ns_fd": peer.fd,
            },
        )


def _configure(
    links: Iterable[tuple[str, str | None, int | None, Iterable[tuple[str, int]]]],
) -> None:
    """Set up interfaces of the current namespace: name, MAC address, MTU, addresses."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        for name, address, mtu, addresses in links:
            index = socket.if_nametoindex(name)
            settings: dict[str, Any] = {"state": "up"}
            if address is not None:
                settings["address"] = address
            if mtu is not None:
                settings["mtu"] = mtu
            ip.link("set", index=index, **settings)
            for text, prefix in addresses:
                ip.addr("add", index=index, address=text, prefixlen=prefix)


def _command(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise XdpgwError(
            f"{words[0]} is not installed", "apt-get install ethtool iproute2"
        ) from error
    if done.returncode:
        raise XdpgwError(f"{' '.join(words)}: {done.stderr.strip()}")


def _sysctl(name: str, value: str) -> None:
    """Of the thread's network namespace. A kernel without IPv6 has nothing to turn off."""
    path = Path("/proc/sys", name)
    if path.exists():
        path.write_text(value)


def _wait_for_carrier(namespace: Namespace, port: str, timeout_s: float = 5.0) -> None:
    from pyroute2 import IPRoute

    deadline = time.monotonic() + timeout_s
    with namespace.entered(), IPRoute() as ip:
        index = socket.if_nametoindex(port)
        while time.monotonic() < deadline:
            if ip.get_links(index)[0].get_attr("IFLA_OPERSTATE") == "UP":
                return
    raise XdpgwError(f"port {port} of the test bed did not come up in {timeout_s} s")


# The command line's beds, by name.


def _names(name: str) -> tuple[str, str]:
    return f"{name}-gw", f"{name}-peer"


@contextmanager
def _by_root(what: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise PrivilegeError(f"cannot {what} network namespaces", "run it as root") from error


@contextmanager
def _named(name: str) -> Iterator[Namespace]:
    namespace = Namespace(os.open(NAMED / name, os.O_RDONLY | os.O_CLOEXEC))
    try:
        yield namespace
    finally:
        namespace.close()


def up(name: str) -> dict[str, Any]:
    """Make the namespaces NAME-gw and NAME-peer with two pairs, and leave them; fine if they exist.

    Returns:
        what was made: namespaces, ports and addresses.

    Raises:
        PrivilegeError: it takes root.
        XdpgwError: one of the two names is taken by something else.
    """
    from pyroute2 import netns

    names = _names(name)
    there = [(NAMED / each).exists() for each in names]
    if any(there) and not all(there):
        raise XdpgwError(
            f"there is a network namespace {names[there.index(True)]}, but not its twin",
            f"xdpgw testbed down --name {name} removes it; or choose another --name",
        )
    if not all(there):
        with ExitStack() as undo:
            for each in names:
                with _by_root("make"):
                    netns.create(each)
                undo.callback(netns.remove, each)
            gateway, peer = (undo.enter_context(_named(each)) for each in names)
            _furnish(gateway, peer, PORTS, queues=2, mtu=1500, quiet=False, offloads=False)
            undo.pop_all()
            gateway.close()
            peer.close()
    return {
        "gateway": names[0],
        "peer": names[1],
        "made": not all(there),
        "ports": [
            {
                "port": port,
                "peer": f"{port}-peer",
                "addresses": [f"{v4}.1/24", f"{v6}::1/64"],
                "peer_addresses": [f"{v4}.2/24", f"{v6}::2/64"],
            }
            for port, (v4, v6) in SUBNETS.items()
        ],
    }


def down(name: str) -> list[str]:
    """Remove what `up` made. Returns the namespaces that were there."""
    from pyroute2 import netns

    removed = [each for each in _names(name) if (NAMED / each).exists()]
    for each in removed:
        with _by_root("remove"):
            netns.remove(each)
    return removed


def describe(made: dict[str, Any]) -> str:
    """What `up` made, and what to type next."""
    gateway, peer = made["gateway"], made["peer"]
    lines = [f"{'made' if made['made'] else 'there already'}: {gateway} and {peer}"]
    for port in made["ports"]:
        ours, theirs = ", ".join(port["addresses"]), ", ".join(port["peer_addresses"])
        lines.append(f"  {port['port']} ({ours}) <-> {port['peer']} ({theirs})")
    lines += [
        "next:",
        f"  xdpgw --netns {gateway} run edge.toml     # with [ports.left] and [ports.right]",
        f"  ip netns exec {peer} ping 192.0.2.1",
        f"  xdpgw testbed down{'' if gateway == 'xdpgw-gw' else ' --name ' + gateway[:-3]}",
    ]
    return "\n".join(lines)
