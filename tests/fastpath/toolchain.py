"""Compiling what the tests bring along in C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INCLUDES = (f"-I{ROOT / 'bpf'}", f"-I{ROOT / 'fastpath'}")
CLANGS = ("clang", *(f"clang-{version}" for version in range(22, 13, -1)))


@cache
def bpf_object(source: str) -> bytes:
    """A BPF source of the tests, by its path under tests/, as the bytes of an ELF object."""
    clang = next(found for name in CLANGS if (found := shutil.which(name)))
    command = [clang, "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]
    command += [*INCLUDES, f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
    command += ["-c", str(ROOT / "tests" / source), "-o", "-"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def c_program(source: str, out: Path, sanitizers: str) -> Path:
    """A C source of the tests as a program that stops at the first finding of the sanitizers."""
    command = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-pthread"]
    command += ["-Wall", "-Wextra", "-Werror", f"-fsanitize={sanitizers}", *INCLUDES]
    command += ["-fno-sanitize-recover=all", "-DXG_MUST_CHECK=__attribute__((warn_unused_result))"]
    subprocess.run([*command, str(ROOT / "tests" / source), "-o", str(out)], check=True)
    return out
