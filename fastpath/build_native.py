"""Builds `xdpgw._native`: all C of fastpath/ and a cffi binding of all that fastpath/xg.h declares.

    python fastpath/build_native.py OUT.abi3.so

cffi's parser wants plain C, so the header goes through the preprocessor first, with empty files
in the place of the system's headers. API mode: the compiler checks every layout that the parser
believes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cffi

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_HEADERS = ("linux/types.h", "stddef.h", "stdint.h")
KERNEL_TYPES = """
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
"""
# Python functions that C may call: of struct xg_handler_opts.
CALLBACKS = 'extern "Python" int xg_python_burst(void *context, struct xg_burst *burst);'
CFLAGS = (
    "-std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -Wmissing-prototypes -fvisibility=hidden"
)


def declarations(scratch: Path) -> str:
    """What xg.h declares, preprocessed, as cffi's cdef takes it."""
    for header in SYSTEM_HEADERS:
        (scratch / header).parent.mkdir(parents=True, exist_ok=True)
        (scratch / header).touch()
    command = [os.environ.get("CC", "cc"), "-E", "-P", "-nostdinc", f"-I{scratch}"]
    command += [f"-I{ROOT / 'bpf'}", str(ROOT / "fastpath/xg.h")]
    return KERNEL_TYPES + subprocess.run(command, check=True, capture_output=True, text=True).stdout


def pkg_config(what: str) -> list[str]:
    """Compiler or linker words for libbpf."""
    command = ["pkg-config", what, "libbpf"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def build(out: Path) -> None:
    """Compile the sources by themselves, strictly, and then cffi's generated code around them."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        includes = [f"-I{ROOT / 'fastpath'}", f"-I{ROOT / 'bpf'}"]
        objects = []
        for source in sorted((ROOT / "fastpath").rglob("*.c")):
            objects.append(str(scratch / f"{source.stem}.o"))
            command = [os.environ.get("CC", "cc"), *CFLAGS.split(), "-fPIC", *includes]
            command += [*pkg_config("--cflags"), "-c", str(source), "-o", objects[-1]]
            subprocess.run(command, check=True)
        ffi = cffi.FFI()
        ffi.cdef(declarations(scratch / "empty"))
        ffi.cdef(CALLBACKS)
        ffi.set_source(
            "_native",
            '#include "xg.h"',
            include_dirs=[str(ROOT / "fastpath"), str(ROOT / "bpf")],
            extra_objects=objects,
            extra_link_args=pkg_config("--libs"),
            py_limited_api=True,
        )
        built = ffi.compile(tmpdir=str(scratch), target="_native.abi3.so")
        shutil.copyfile(built, out.with_suffix(".new"))
        out.with_suffix(".new").replace(
            out
        )  # never a half-written one, never one that a process runs


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(Path(sys.argv[1]))
