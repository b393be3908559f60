"""Can this kernel make network namespaces at all?

A kernel whose networking lock (the RTNL) was left held by a task that died answers nothing that
needs it: who asks waits for ever and cannot even be killed. The tests that need a namespace then
cannot run, and must not hang. Every other reason for which a namespace cannot be made is a
failure of the test that wants it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import cache

import pytest

__all__ = ["needs_network_namespaces", "networking_is_stuck"]

WAIT_S = 20.0
STUCK = "this kernel's networking lock is stuck: no network namespace can be made; reboot it"
_ASK = "import ctypes; ctypes.CDLL(None).unshare(0x40000000)"


@cache
def networking_is_stuck() -> bool:
    """Whether a process that asks for a network namespace gets no answer, neither yes nor no."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", _ASK], dict(os.environ))
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            return True
        pause.wait(0.02)
    return False


def needs_network_namespaces() -> None:
    """Skip the test where the kernel's networking is stuck."""
    if networking_is_stuck():
        pytest.skip(STUCK)
