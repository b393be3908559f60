"""Compiling what the tests bring along in C."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INCLUDES = (f"-I{ROOT / 'bpf'}", f"-I{ROOT / 'fastpath'}")
WRAP = re.compile(r"\b__wrap_(\w+)\(")
CLANGS = ("clang", *(f"clang-{version}" for version in range(22, 13, -1)))


@cache
def bpf_object(source: str, *defines: str) -> bytes:
    """A BPF source of the tests, by its path under tests/, as the bytes of an ELF object.

    Args:
        defines: macros, NAME or NAME=VALUE.
    """
    clang = next(found for name in CLANGS if (found := shutil.which(name)))
    command = [clang, "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]
    command += [f"-D{define}" for define in defines]
    command += [*INCLUDES, f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
    command += ["-c", str(ROOT / "tests" / source), "-o", "-"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def c_program(
    sources: str | Sequence[str | Path],
    out: Path,
    sanitizers: str,
    *,
    defines: Sequence[str] = (),
    fastpath: Path = ROOT / "fastpath",
) -> Path:
    """C sources of the tests as a program that stops at the first finding of the sanitizers.

    Args:
        sources: one or more, by their paths under tests/ or whole paths. Where one defines
            `__wrap_x()`, all calls of x() lead there.
        out: the program.
        sanitizers: as -fsanitize takes them.
        defines: macros, NAME or NAME=VALUE.
        fastpath: where the headers of fastpath/ are.
    """
    files = [
        ROOT / "tests" / source for source in ([sources] if isinstance(sources, str) else sources)
    ]
    command = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-pthread"]
    command += ["-Wall", "-Wextra", "-Werror", f"-fsanitize={sanitizers}"]
    command += [f"-I{ROOT / 'bpf'}", f"-I{fastpath}", f"-I{ROOT / 'tests/fastpath'}"]
    # gcc warns of fences, which its TSan does not see; clang does not know the warning.
    command += ["-Wno-unknown-warning-option", "-Wno-tsan"]
    command += ["-fno-sanitize-recover=all", "-DXG_MUST_CHECK=__attribute__((warn_unused_result))"]
    command += [f"-D{define}" for define in defines]
    wrapped = {name for file in files for name in WRAP.findall(file.read_text())}
    command += [f"-Wl,--wrap={name}" for name in sorted(wrapped)]
    subprocess.run([*command, *map(str, files), "-o", str(out)], check=True)
    return out
