"""Who holds a port: the program on it, its link, and the processes that keep either open.

The kernel tells the program (by netlink) but not whose it is. Processes are found by
looking through /proc/*/fdinfo for the program's id; what only a pin or the port keeps has none.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass

from xdpgw._native import ffi, lib

__all__ = ["Holder", "holder_of", "processes_with"]

_MODES = {1: "native", 2: "generic", 3: "offloaded", 4: "several modes"}  # XDP_ATTACHED_*
_LINK_TYPE_XDP = 6  # BPF_LINK_TYPE_XDP


@dataclass(frozen=True, slots=True)
class Holder:
    """A program on a port."""

    prog_id: int
    prog_name: str | None
    """As the kernel keeps it, 15 bytes at most; None where we may not look."""
    mode: str
    link_id: int | None
    """None: attached by netlink (`ip link`, libxdp), or we may not look."""
    processes: tuple[tuple[int, str], ...]
    """(pid, command) of those that hold it or its link open; other users' only for root."""

    def __str__(self) -> str:
        text = f"program {self.prog_id}"
        if self.prog_name:
            text += f" ({self.prog_name})"
        text += f" in {self.mode} mode"
        if self.link_id is not None:
            text += f", by link {self.link_id}"
        if self.processes:
            text += ", of " + ", ".join(f"{comm} (pid {pid})" for pid, comm in self.processes)
        return text

    def remedy(self, port: str) -> str:
        """What frees the port, as a command where there is one."""
        if self.processes:
            return f"stop {self.processes[0][1]} (pid {self.processes[0][0]}) first"
        if self.link_id is not None:
            return f"if nobody needs it: bpftool link detach id {self.link_id}"
        off = {"native": "xdpdrv", "generic": "xdpgeneric", "offloaded": "xdpoffload"}
        return f"if nobody needs it: ip link set dev {port} {off.get(self.mode, 'xdp')} off"


def holder_of(ifindex: int) -> Holder | None:
    """The program on a port of this network namespace; None: there is none, or we may not look."""
    query = ffi.new("struct xg_xdp_query *")
    if lib.xg_xdp_query(ifindex, query) < 0:
        return None
    ids = (query.prog_id, query.drv_prog_id, query.skb_prog_id, query.hw_prog_id)
    prog_id = next((int(x) for x in ids if x), 0)
    if not prog_id:
        return None
    return Holder(
        prog_id,
        _prog_name(prog_id),
        _MODES.get(int(query.attach_mode), "unknown"),
        _link_id(ifindex, prog_id),
        processes_with(prog_id),
    )


def _prog_name(prog_id: int) -> str | None:
    fd = ffi.new("int *")
    if lib.xg_prog_fd_by_id(prog_id, fd) < 0:
        return None
    try:
        info = ffi.new("struct xg_prog_info *")
        if lib.xg_prog_info(fd[0], info) < 0:
            return None
        name: str = ffi.string(info.name, 16).decode(errors="replace")
        return name
    finally:
        os.close(fd[0])


def _link_id(ifindex: int, prog_id: int) -> int | None:
    """The link by both numbers, as other network namespaces use the same ifindex."""
    at = ffi.new("uint32_t *")
    fd = ffi.new("int *")
    info = ffi.new("struct xg_link_info *")
    while lib.xg_link_next_id(at[0], at) == 0:
        if lib.xg_link_fd_by_id(at[0], fd) < 0:
            continue
        try:
            if lib.xg_link_info(fd[0], info) < 0:
                continue
        finally:
            os.close(fd[0])
        if (info.type, info.ifindex, info.prog_id) == (_LINK_TYPE_XDP, ifindex, prog_id):
            return int(info.id)
    return None


def processes_with(prog_id: int) -> tuple[tuple[int, str], ...]:
    """(pid, command) of those that hold a program or its link open; other users' only for root."""
    wanted = re.compile(rf"^prog_id:\t{prog_id}$", re.MULTILINE)
    found = []
    for pid in sorted(int(x) for x in os.listdir("/proc") if x.isdigit()):
        with suppress(OSError):  # it ended meanwhile, or is another user's
            if any(_matches(pid, fd, wanted) for fd in os.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                    found.append((pid, file.read().strip()))
    return tuple(found)


def _matches(pid: int, fd: str, wanted: re.Pattern[str]) -> bool:
    """A program's fdinfo has its id, and so has that of a link."""
    with suppress(OSError):
        if "bpf" not in os.readlink(f"/proc/{pid}/fd/{fd}"):
            return False
        with open(f"/proc/{pid}/fdinfo/{fd}", encoding="utf-8") as file:
            return wanted.search(file.read()) is not None
    return False
