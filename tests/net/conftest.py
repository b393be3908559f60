"""Live tests: real interfaces in namespaces, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.namespaces import needs_network_namespaces
from xdpgw.state import ENVIRONMENT

PINS = Path("/sys/fs/bpf/xdpgw")
NAMED = Path("/run/netns")


def _left() -> set[str]:
    pins = {str(path) for path in PINS.rglob("*")} if PINS.exists() else set()
    return pins | ({str(path) for path in NAMED.iterdir()} if NAMED.exists() else set())


def _commands() -> list[str]:
    """Commands that run in a namespace of these tests, whoever is their parent by now."""
    ours, found = f"/proc/{os.getpid()}/fd/".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if ours in (line := (process / "cmdline").read_bytes()):
                found.append(line.replace(b"\0", b" ").decode())
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No pin, named namespace or process is there after the tests that was not there before."""
    if os.geteuid() != 0:
        pytest.fail("these tests make network namespaces and load BPF programs: run them as root")
    needs_network_namespaces()
    before = _left()
    yield
    assert _left() <= before
    assert _commands() == []


@pytest.fixture(scope="session", autouse=True)
def state_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the filters of these tests keep is not kept where the machine's own would be."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(ENVIRONMENT, str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(params=["native", "generic"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both XDP modes."""
    chosen: str = request.param
    return chosen
