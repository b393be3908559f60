"""A place at the program of a port, from where each packet can be seen once it is judged.

The program has an array of one slot, `captures`, and calls what is in there (bpf/capture.h). Nobody
pins the array, so the kernel empties it when the process that has it open is gone.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress

from xdpgw.errors import BusyError, UnsupportedError
from xdpgw.holder import processes_with
from xdpgw.kernel import BpfObject, Map, Program

__all__ = ["Seat"]

_SLOT = bytes(4)
_NOBODY = bytes(4)
_NEEDED = {"captures": "captures", "judgements": "judgements", "xdpgw.bss": "flag"}
"""The maps of a port's program, as the kernel calls them, and as we do."""

_EMPTYING_S = 1.0
"""The kernel takes milliseconds to empty the slot of a process that was killed."""


class Seat:
    """A port's program, and after `take` our own that it calls."""

    def __init__(self, port: str, prog_id: int) -> None:
        """Open what the program shares.

        Args:
            port: for errors.
            prog_id: the program on it.

        Raises:
            UnsupportedError: another version of xdpgw loaded it.
        """
        self.port, self.prog_id = port, prog_id
        self._object: BpfObject | None = None
        self._ours = 0
        with ExitStack() as opened:
            program = opened.enter_context(Program.from_id(prog_id))
            maps: dict[str, Map] = {}
            for number in program.map_ids():
                found = opened.enter_context(Map.from_id(number))
                if (name := _NEEDED.get(found.info().name)) is not None:
                    maps[name] = found
            if len(maps) < len(_NEEDED):
                raise UnsupportedError(
                    f"the program on port {port} does not show packets to others",
                    "another version of xdpgw loaded it: xdpgw reload",
                    feature="captures",
                )
            self._slot, self._flag, self.judgements = (
                maps[name] for name in ("captures", "flag", "judgements")
            )
            self._opened = opened.pop_all()

    def require_free(self) -> None:
        """Wait for the slot of a process that has just died.

        Raises:
            BusyError: somebody has the seat.
        """
        deadline = time.monotonic() + _EMPTYING_S
        while (there := self._in_slot()) is not None:
            who = processes_with(there)
            if who or time.monotonic() > deadline:
                names = ", ".join(f"{name} (pid {pid})" for pid, name in who) or f"program {there}"
                raise BusyError(
                    f"another capture or trace looks on at port {self.port}",
                    f"a port has one at a time; end this one first: {names}",
                    holder=names,
                )
            time.sleep(0.01)

    def take(self, obj: BpfObject) -> None:
        """Have the port's program call the program `capture` of an object, which becomes the seat's
        own, in the place of an earlier one.

        Raises:
            KernelError: EINVAL: the port's program takes frames of several buffers, and this one
                does not, or the other way round.
        """
        program = obj.program("capture")
        self._slot.update(_SLOT, program.fileno().to_bytes(4, "little"))
        self._ours = program.info().id
        before, self._object = self._object, obj
        if before is not None:
            before.close()
        # A number of our own, which the program does not take for that of a dead process.
        self._flag.update(_SLOT, os.getpid().to_bytes(4, "little"))

    def keep(self) -> None:
        """Take the seat again where we were put out of it: the kernel may empty the slot late, and
        the program forgets who is not in it."""
        if self._object is None:
            return
        if self._in_slot() is None:
            fd = self._object.program("capture").fileno()
            self._slot.update(_SLOT, fd.to_bytes(4, "little"))
        if self._flag.lookup(_SLOT) == _NOBODY:
            self._flag.update(_SLOT, os.getpid().to_bytes(4, "little"))

    def close(self) -> None:
        """Leave; twice is fine."""
        if self._object is not None:
            self._flag.update(_SLOT, _NOBODY)
            if self._in_slot() == self._ours:
                with suppress(KeyError):
                    self._slot.delete(_SLOT)
            self._object.close()
            self._object = None
        self._opened.close()

    def _in_slot(self) -> int | None:
        try:
            return int.from_bytes(self._slot.lookup(_SLOT), "little")
        except KeyError:
            return None
