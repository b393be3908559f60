"""The SSH session that started this process, for the guard (see docs/policy.md)."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from xdpgw.compile import Session
from xdpgw.processes import PROC, ancestors

__all__ = ["find_session", "parse_connection"]


def parse_connection(text: str) -> Session | None:
    """Read the value of SSH_CONNECTION: client, its port, server, its port. None where it is no
    such thing."""
    words = text.split()
    if len(words) != 4 or not (words[1].isdigit() and words[3].isdigit()):
        return None
    client, server = words[0].partition("%")[0], words[2].partition("%")[0]  # fe80::1%eth0
    try:
        if ipaddress.ip_address(client).version != ipaddress.ip_address(server).version:
            return None
    except ValueError:
        return None
    return Session(client, int(words[1]), server, int(words[3]))


def find_session(proc: Path = PROC) -> Session | None:
    """Look for SSH_CONNECTION in this process and the ones that started it.

    The parents count because sudo takes the variable away.

    Args:
        proc: the proc file system.

    Returns:
        The session, None where no ancestor has one or /proc does not tell.
    """
    for pid in (os.getpid(), *ancestors(proc)):
        try:
            environ = (proc / str(pid) / "environ").read_bytes()
        except OSError:
            return None
        for entry in environ.split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == b"SSH_CONNECTION":
                return parse_connection(value.decode(errors="replace"))
    return None
