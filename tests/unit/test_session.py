"""The SSH session that the guard spares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xdpgw.compile import Session
from xdpgw.session import find_session, parse_connection


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.1 1 192.0.2.2",
        "a 1 b 2",
        "192.0.2.1 x 192.0.2.2 22",
        "192.0.2.1 1 2001:db8::1 22",
    ],
)
def test_connection_that_is_none_is_none(text: str) -> None:
    assert parse_connection(text) is None


def test_connection_of_link_local_addresses_loses_the_interface() -> None:
    assert parse_connection("fe80::1%eth0 5000 fe80::2%eth0 22") == Session(
        "fe80::1", 5000, "fe80::2", 22
    )


def fake_process(proc: Path, pid: int, parent: int, environ: bytes) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "environ").write_bytes(environ)
    (proc / str(pid) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")


def test_session_is_found_behind_sudo(tmp_path: Path) -> None:
    fake_process(tmp_path, os.getpid(), os.getppid(), b"PATH=/bin\0")
    fake_process(tmp_path, os.getppid(), 77, b"SUDO_UID=1\0")
    fake_process(tmp_path, 77, 1, b"A=b\0SSH_CONNECTION=192.0.2.1 5000 192.0.2.2 22\0")
    assert find_session(tmp_path) == Session("192.0.2.1", 5000, "192.0.2.2", 22)


def test_session_none_where_no_ancestor_has_one(tmp_path: Path) -> None:
    fake_process(tmp_path, os.getpid(), os.getppid(), b"")
    fake_process(tmp_path, os.getppid(), 0, b"")
    assert find_session(tmp_path) is None


def test_session_none_where_proc_does_not_tell(tmp_path: Path) -> None:
    assert find_session(tmp_path / "nothing") is None
