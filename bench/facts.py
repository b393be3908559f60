"""What a figure depends on beside the code: the machine that it was taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

__all__ = ["ROOT", "compile_bpf", "host_facts", "makefile_variable"]

ROOT = Path(__file__).resolve().parent.parent
VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _make(name: str) -> str | None:
    return _output("make", "-s", "--no-print-directory", f"--eval=p:;@echo $({name})", "p")


def makefile_variable(name: str) -> str:
    """What the Makefile builds with, so that no flag stands in two places."""
    value = _make(name)
    if not value:
        raise RuntimeError(f"the Makefile has no {name}")
    return value


def compile_bpf(source: Path) -> bytes:
    """A BPF source, as the build compiles its own."""
    command = [makefile_variable("CLANG"), *makefile_variable("BPF_CFLAGS").split()]
    command += ["-c", str(source), "-o", "-"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def _cpu() -> str | None:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None


def _mitigations() -> dict[str, str]:
    """Of the processor's faults that cost at each call or return."""
    names = ("spectre_v2", "retbleed", "spec_rstack_overflow", "indirect_target_selection")
    found = ((name, _text(VULNERABILITIES / name)) for name in names)
    return {name: text for name, text in found if text and text != "Not affected"}


def _clang() -> str | None:
    version = _output("sh", "-c", f"{_make('CLANG') or 'clang'} --version")
    return version.partition("\n")[0] if version else None


def host_facts() -> dict[str, object]:
    """Kernel, processor, compiler and versions; None for what the machine does not tell."""
    from xdpgw import __version__

    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "hypervisor": _output("systemd-detect-virt", "--vm"),
        "mitigations": _mitigations(),
        "bpf_jit": _text("/proc/sys/net/core/bpf_jit_enable"),
        "bpf_jit_harden": _text("/proc/sys/net/core/bpf_jit_harden"),
        "load": os.getloadavg()[0],
        "clang": _clang(),
        "python": platform.python_version(),
        "xdpgw": __version__,
        "commit": _output("git", "describe", "--always", "--dirty"),
    }
