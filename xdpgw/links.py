"""Links: a program on a port, and why a port may refuse one."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import NoReturn

from xdpgw._native import ffi, lib
from xdpgw.errors import BusyError, KernelError, UnsupportedError
from xdpgw.facts import mtu_of, single_buffer_mtu
from xdpgw.handles import Handle, checked, fail
from xdpgw.holder import holder_of
from xdpgw.progs import Program

__all__ = ["Link", "LinkInfo"]

_MODE_FLAGS = {"native": 1 << 2, "generic": 1 << 1}  # XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
_NOT_FOR_THIS_PORT = (errno.ERANGE, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOSPC)
"""What drivers say of a program that the port takes with another MTU, or other queues, only."""


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What a link ties together."""

    id: int
    prog_id: int
    ifindex: int
    """0: the port is gone."""


class Link(Handle):
    """A program on a port, for as long as the link or a pin of it is held."""

    @classmethod
    def attach(cls, program: Program, ifindex: int, mode: str) -> Link:
        """Put a program on a port of this network namespace.

        Args:
            program: of type XDP.
            ifindex: the port.
            mode: native or generic.

        Raises:
            BusyError: the port has a program already; `holder` names it.
            PrivilegeError: CAP_NET_ADMIN (and CAP_BPF) are missing.
            KernelError: the port is gone, has no native mode, or not with its MTU or queues.
        """
        fd = ffi.new("int *")
        err = lib.xg_link_attach_xdp(program.fileno(), ifindex, _MODE_FLAGS[mode], fd)
        if err < 0:
            _refuse_attach(-err, ifindex, mode)
        return cls(int(fd[0]))

    @classmethod
    def attach_as(
        cls, program: Program, ifindex: int, wanted: str
    ) -> tuple[Link, str, KernelError | None]:
        """Put a program on a port in the mode that is wanted, or, for auto, in the best there is.

        Args:
            program: of type XDP.
            ifindex: the port.
            wanted: native, generic, or auto: native, and generic where the port refuses that.

        Returns:
            the link, the mode it got, and why auto did not get native, if it did not.

        Raises:
            As `attach`; auto does not try generic where the port is held or a privilege missing.
        """
        if wanted != "auto":
            return cls.attach(program, ifindex, wanted), wanted, None
        try:
            return cls.attach(program, ifindex, "native"), "native", None
        except KernelError as error:
            return cls.attach(program, ifindex, "generic"), "generic", error

    @classmethod
    def attach_tracepoint(cls, program: Program, event_id: int, event: str) -> Link:
        """Put a program on a tracepoint, on all CPUs.

        Args:
            program: of type tracepoint.
            event_id: what tracefs says in the file `id` of the event.
            event: its name, for errors.

        Raises:
            PrivilegeError: CAP_PERFMON is missing, or the program reads beyond the event.
            UnsupportedError: a kernel before 5.15.
            KernelError: there is no such event.
        """
        fd = ffi.new("int *")
        err = lib.xg_link_attach_tracepoint(program.fileno(), event_id, fd)
        if err == -errno.EINVAL:
            raise UnsupportedError(
                f"this kernel ({os.uname().release}) has no links on tracepoints",
                "they take kernel 5.15",
                errno.EINVAL,
                feature="links on tracepoints",
                kernel=os.uname().release,
            )
        checked(err, f"attaching a program to the tracepoint {event}")
        return cls(int(fd[0]))

    @classmethod
    def from_id(cls, link_id: int) -> Link:
        """Open a link by the kernel's number for it."""
        fd = ffi.new("int *")
        checked(lib.xg_link_fd_by_id(link_id, fd), f"opening link {link_id}")
        return cls(int(fd[0]))

    def info(self) -> LinkInfo:
        """What the link ties together now."""
        raw = ffi.new("struct xg_link_info *")
        checked(lib.xg_link_info(self.fileno(), raw), "reading a link's description")
        return LinkInfo(raw.id, raw.prog_id, raw.ifindex)

    def update(self, program: Program, expected: Program | None = None) -> None:
        """Change programs between two packets; none goes unfiltered.

        Args:
            program: the new one.
            expected: the one that must be there now; None for any.

        Raises:
            KernelError: ENOLINK: the port is gone; ERANGE and the like: not with its MTU or queues.
            BusyError: another program than `expected` is there.
        """
        old = -1 if expected is None else expected.fileno()
        err = lib.xg_link_update(self.fileno(), program.fileno(), old)
        if err == -errno.ENOLINK:
            raise KernelError("the port of this link is gone", "attach anew", errno.ENOLINK)
        if err == -errno.EPERM and expected is not None and self._runs_another(expected):
            raise BusyError(
                "the port runs another program than expected",
                "another process changed it meanwhile; try again",
                errno.EPERM,
                holder=f"program {self.info().prog_id}",
            )
        if -err in _NOT_FOR_THIS_PORT:
            raise KernelError(
                "the driver does not take the new program in the place of the old one: "
                f"{os.strerror(-err)}",
                "after a change of the port's MTU or queues: xdpgw detach, then start anew",
                -err,
            )
        checked(err, "changing the program of a link")

    def _runs_another(self, expected: Program) -> bool:
        return self.info().prog_id != expected.info().id

    def detach(self) -> None:
        """Take the program off the port now, whoever else holds the link."""
        checked(lib.xg_link_detach(self.fileno()), "detaching a link")


def _refuse_attach(code: int, ifindex: int, mode: str) -> NoReturn:
    try:
        port = socket.if_indextoname(ifindex)
    except OSError:
        raise KernelError(
            f"no interface {ifindex} in this network namespace",
            "xdpgw --netns NAME looks into another one",
            errno.ENODEV,
        ) from None
    generic = 'generic mode takes it: mode = "generic"'
    if code in (errno.EBUSY, errno.EEXIST):
        holder = holder_of(ifindex)
        raise BusyError(
            f"port {port} is held by {holder or 'an XDP program on it or on the bond above it'}",
            holder.remedy(port) if holder else f"bpftool net show dev {port} tells more",
            code,
            holder=str(holder) if holder else None,
        )
    if code in (errno.EPERM, errno.EACCES):
        fail(-code, f"attaching a program to port {port}")
    if code == errno.EOPNOTSUPP and mode == "native":
        raise KernelError(
            f"port {port} has no native XDP, or not with the offloads that it has on",
            f"{generic}; some drivers want: ethtool -K {port} lro off",
            code,
        )
    if mode == "native" and code in (errno.ERANGE, errno.EMSGSIZE, errno.EINVAL):
        mtu, limit = mtu_of(port), single_buffer_mtu()
        if code == errno.ERANGE or mtu > limit:
            raise KernelError(
                f"port {port} or its peer has an MTU (here {mtu}) over what native XDP takes: "
                f"{limit} with pages of {os.sysconf('SC_PAGESIZE')} bytes, in most drivers",
                f"ip link set dev {port} mtu {min(1500, limit)} (veth: both ends), or {generic}",
                code,
            )
    if mode == "native" and code in (errno.ENOSPC, errno.ENOMEM):
        raise KernelError(
            f"port {port} has too few queues for native XDP",
            f"give it some: ethtool -L {port} (veth: rx at least the peer's tx), or {generic}",
            code,
        )
    raise KernelError(
        f"attaching a program to port {port} in {mode} mode failed: {os.strerror(code)}", None, code
    )
