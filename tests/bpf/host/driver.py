"""Building the datapath for the host, and talking to it.

A `Script` is a list of commands for `main.c`; running it gives the answers. One process judges
under many policies, one behind the other.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.fastpath.toolchain import ROOT
from xdpgw import _abi as abi
from xdpgw._abi import Dim, Reason, Verdict
from xdpgw.block_table import lengths_of, lines_of
from xdpgw.compile import Image, Session
from xdpgw.explain import key_of

__all__ = ["END", "Answer", "SanitizerReport", "Script", "build", "run"]

HERE = Path(__file__).resolve().parent
END = -1
CPUS, TALKER_SETS = 2, 4
"""Few sets of sources on each CPU, so that these give way to others."""

_ANSWER = struct.Struct("<iI")
_DECIDED_BY_RULE = (Reason.RULE, Reason.LIMIT, Reason.NO_SOCKET)
_MACS = {"mac_src": Dim.MAC_SRC, "mac_dst": Dim.MAC_DST}


class SanitizerReport(Exception):
    """The program did not reach its end; the text is what it said."""


def build(out: Path, *, bpf: Path = ROOT / "bpf") -> Path:
    """Compile the datapath for the host.

    Args:
        out: the program to write.
        bpf: the folder of its sources.
    """
    command = [os.environ.get("CC", "cc"), "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]
    # Of clang's pragma and the helper's declared type gcc has another opinion than clang.
    command += ["-Wno-unknown-pragmas", "-Wno-sign-compare"]
    # BPF reads packets unaligned wherever it runs.
    command += ["-fsanitize=address,undefined", "-fno-sanitize=alignment"]
    command += ["-fno-sanitize-recover=all", '-DXG_SOURCE="xdpgw.bpf.c"']
    command += [f"-I{HERE / 'shim'}", f"-I{HERE}", f"-I{bpf}"]
    subprocess.run([*command, *map(str, sorted(HERE.glob("*.c"))), "-o", str(out)], check=True)
    return out


@dataclass(frozen=True, slots=True)
class Answer:
    """What the program made of a frame."""

    action: int
    """enum xdp_action; END behind the last answer of the fuzzer."""
    event: Any
    """struct xg_event, a numpy record."""
    length: int
    """Bytes of the frame; runs of the fuzzer at its end."""
    image: Image
    frame: bytes | None = None
    """Of a sample of the fuzzer."""

    def outcome(self) -> dict[str, Any]:
        """In the words of `xdpgw explain`."""
        reason = Reason(int(self.event["reason"]))
        rule = None
        if reason in _DECIDED_BY_RULE:
            rule = self.image.ruleset.rules[int(self.event["rule"])]
        return {
            "verdict": Verdict(int(self.event["verdict"])).text,
            "reason": reason.text,
            "rule": rule.name if rule else None,
            "target": rule.action.target if rule else None,
            "key": key_of(self.event),
        }


class Script:
    """Commands for the program, and what is needed to read its answers."""

    def __init__(self) -> None:
        self._commands: list[bytes] = []
        self._asked: list[tuple[Image, bool]] = []  # commands that are answered; many times?

    def policy(
        self,
        image: Image,
        port: str | None,
        *,
        session: Session | None = None,
        multi_buffer: bool = True,
    ) -> None:
        """Judge by this policy from here on, with an empty corpus."""
        self._image = image
        self._add(
            "C",
            image.config(
                port,
                session=session,
                explain=True,
                multi_buffer=multi_buffer,
                talker_sets=TALKER_SETS,
            ),
        )
        sets = CPUS * TALKER_SETS
        self._add("A", _name("talkers"), bytes(sets * abi.LAYOUTS["talker_set"]["itemsize"]))
        self._add("A", _name("lines"), image.tables.lines.tobytes())
        self._add("A", _name("rules"), image.rules)
        self._add("A", _name("limits"), image.limits)
        for name, dim in _MACS.items():
            pairs = image.tables.macs.get(dim, ())
            self._add("T", _name(name), *(key + struct.pack("<I", found) for key, found in pairs))
        size = abi.LAYOUTS["allowed"]["itemsize"]
        allowed = (image.allowed[at : at + size] for at in range(0, len(image.allowed), size))
        self._add("T", _name("allowed"), *(key + bytes(4) for key in allowed))

    def blocks(self, keys: Any, ends_ns: Sequence[int]) -> None:
        """Block sources from here to the next policy.

        Args:
            keys: struct xg_block, shape (n,).
            ends_ns: of each; 0 for none, and the clock starts at 1 and goes on while it fuzzes.
        """
        ends = np.array(ends_ns, "<u8")
        pairs = (k.tobytes() + end.tobytes() for k, end in zip(keys, ends, strict=True))
        self._add("T", _name("blocks"), *pairs)
        size = abi.LAYOUTS["block_lengths"]["itemsize"]
        self._add("A", _name("block_lengths"), lengths_of(keys).to_bytes(size, "little"))
        self._add("A", _name("block_filter"), lines_of(keys).tobytes())

    def frame(self, frame: bytes, *, linear: int | None = None) -> None:
        """Judge a frame; one answer.

        Args:
            frame: of any length.
            linear: how many of its bytes lie in the first buffer; all of them if None.
        """
        size = len(frame) if linear is None else linear
        self._add("F", struct.pack("<I", size), frame)
        self._asked.append((self._image, False))

    def corpus(self, frame: bytes) -> None:
        """A frame for the fuzzer to start from."""
        self._add("S", frame)

    def fuzz(self, seed: int, runs: int, sample_every: int) -> None:
        """Fuzz; an answer for each sample and one with the action END at the end."""
        self._add("Z", struct.pack("<QII", seed & (1 << 64) - 1, runs, sample_every))
        self._asked.append((self._image, True))

    def _add(self, what: str, *parts: bytes) -> None:
        body = b"".join(parts)
        self._commands.append(struct.pack("<II", ord(what), len(body)) + body)

    def answers(self, raw: bytes) -> Iterator[Answer]:
        """Read what the program wrote, in the order of the commands."""
        dtype = abi.event_dtype()
        at = 0
        for image, many in self._asked:
            while True:
                action, length = _ANSWER.unpack_from(raw, at)
                event = np.frombuffer(raw, dtype, 1, at + _ANSWER.size)[0]
                at += _ANSWER.size + dtype.itemsize
                frame = raw[at : at + length] if many and action != END else None
                at += len(frame or b"")
                yield Answer(action, event, length, image, frame)
                if not many or action == END:
                    break

    def input(self) -> bytes:
        """All commands, as the program reads them."""
        return b"".join(self._commands)


def _name(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def run(program: Path, script: Script) -> list[Answer]:
    """Run a script.

    Raises:
        SanitizerReport: a sanitizer had a finding, or a check of the fuzzer failed.
    """
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run(
        [program], input=script.input(), capture_output=True, env=env, check=False
    )
    if done.returncode or done.stderr:
        raise SanitizerReport(done.stderr.decode(errors="replace"))
    return list(script.answers(done.stdout))
