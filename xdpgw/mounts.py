"""File systems of the kernel, looked for where this process would not see them, and mounted where
they are missing.

`ip netns exec` gives a command a /sys of its own, without what is mounted in it and gone with the
command. The processes that started it still see the real one, so a file system is looked for, and
mounted, there.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xdpgw.errors import KernelError, PrivilegeError
from xdpgw.processes import ancestors

__all__ = ["KernelFs"]


@dataclass(frozen=True, slots=True)
class KernelFs:
    """A file system that the kernel makes.

    Args:
        kind: as mount(8) takes it.
        name: what it is called in errors.
        here: where it is mounted by custom.
        is_it: whether a path lies on it.
    """

    kind: str
    name: str
    here: Path
    is_it: Callable[[Path], bool]

    def ensure(self) -> tuple[Path, bool]:
        """Find the one that outlives this process, or mount it.

        Returns:
            its root, `here` or the same seen through a process that started this one; and whether
            it was mounted by this call.

        Raises:
            PrivilegeError: there is none, and mounting one takes root.
            KernelError: there is none, and mounting one failed.
        """
        complaints = []
        if found := self._find():
            return found, False
        for command in self._mount_commands():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if found := self._find():
                return found, done.returncode == 0
            complaints.append(done.stderr.strip() or f"{command[0]}: exit status {done.returncode}")
        hint = f"mount it: mount -t {self.kind} {self.kind} {self.here}"
        if os.geteuid() != 0:
            raise PrivilegeError(
                f"no {self.name} is mounted at {self.here}", hint + " (as root)", errno=errno.EPERM
            )
        raise KernelError(
            f"no {self.name} could be mounted at {self.here}: {'; '.join(complaints)}",
            hint,
            errno=errno.ENODEV,
        )

    def _find(self) -> Path | None:
        paths = (self.here, *(Path(f"/proc/{pid}/root{self.here}") for pid in ancestors()))
        return next((path for path in paths if self.is_it(path)), None)

    def _mount_commands(self) -> list[list[str]]:
        """Ways to mount, best first: in the mount namespace that lives longest."""
        mount = ["mount", "-t", self.kind, self.kind, str(self.here)]
        pids = reversed([*ancestors()])
        enter = [["nsenter", f"--mount=/proc/{pid}/ns/mnt", *mount] for pid in pids]
        return [command for command in (*enter, mount) if shutil.which(command[0])]
