"""The package as others get it: sdist -> wheel -> a fresh environment outside of the tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.frames import eth, ipv4, udp

ROOT = Path(__file__).resolve().parents[2]
POLICY = '[policy]\nrules = """\ndns drop udp to port 53\n"""\n[ports.eth0]\n'


def run(*command: object, cwd: Path) -> str:
    """Run a command; its output."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MAKEFLAGS")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was made from the sdist, not from the tree."""
    out = tmp_path_factory.mktemp("dist")
    # An sdist first, then the wheel from what it unpacks to; with the tools of this environment.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run("env", f"PATH={path}", sys.executable, "-m", "build", "--no-isolation", "-o", out, cwd=ROOT)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; the wheel's dependencies are lent by this one."""
    home = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", home / "env", cwd=home)
    python = home / "env/bin/python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, cwd=home)
    (site,) = (home / "env/lib").glob("python*/site-packages")
    # A path in a .pth file is searched, but the .pth files in it (the editable install's) are not.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def test_sdist_holds_sources_and_nothing_built(wheel: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "bpf/xdpgw.bpf.c" in names
    assert "LICENSES/GPL-2.0-only.txt" in names
    assert not [name for name in names if name.endswith((".o", ".so", "/_abi.py"))]


def test_wheel_is_of_the_stable_abi_and_of_this_platform(wheel: Path) -> None:
    assert "-cp311-abi3-linux_" in wheel.name


def test_wheel_ships_what_was_built_and_no_source_of_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "xdpgw/bpf/xdpgw.bpf.o",
        "xdpgw/bpf/pass.bpf.o",
        "xdpgw/_native.abi3.so",
        "xdpgw/_abi.py",
        "xdpgw/grammar.lark",
        "xdpgw/py.typed",
    ):
        assert wanted in names
    assert any(name.endswith("GPL-2.0-only.txt") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bpf/", "fastpath/"))]


def test_wheel_works_in_a_fresh_environment(fresh: Path) -> None:
    (fresh / "p.toml").write_text(POLICY)
    where = run(fresh / "env/bin/python", "-c", "import xdpgw; print(xdpgw.__file__)", cwd=fresh)
    assert where.startswith(str(fresh))
    assert "1 rule" in run(fresh / "env/bin/xdpgw", "check", "p.toml", cwd=fresh)


def test_wheel_explains_by_the_object_it_ships(fresh: Path) -> None:
    from scapy.utils import RawPcapWriter

    (fresh / "p.toml").write_text(POLICY)
    with RawPcapWriter(str(fresh / "in.pcap"), linktype=1) as pcap:
        pcap.write(eth(ipv4(udp(b"x", dport=53))))
    shown = run(
        fresh / "env/bin/xdpgw", "explain", "p.toml", "--pcap", "in.pcap", "--json", cwd=fresh
    )
    answer = json.loads(shown)
    assert (answer["verdict"], answer["rule"]) == ("drop", "dns")
