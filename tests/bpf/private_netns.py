"""A network namespace of a test's own: a thread enters a new one, and it ends with the thread."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable

from tests.namespaces import needs_network_namespaces

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def in_netns(body: Callable[[], None]) -> None:
    """Run `body` in a new network namespace and raise what it raises."""
    needs_network_namespaces()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            body()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def ip(words: str) -> None:
    """`ip WORDS` in the namespace of the calling thread."""
    subprocess.run(["ip", *words.split()], check=True)


def open_fds() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
