"""What `[metrics]` of the policy in force asks for: a socket, and the process that serves it.

The socket belongs to the process in charge, so that an address that cannot be had is told at once,
and a client that comes while the server starts or is started again waits instead of being refused.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from xdpgw.config import MetricsSettings
from xdpgw.errors import XdpgwError
from xdpgw.metrics_server import listen, url_of

__all__ = ["Endpoint"]

AGAIN_S = 1.0
"""Before a server that ended is started again."""

_CODE = "from xdpgw.metrics_server import main; main()"


class Endpoint:
    """Serves metrics as long as the context lasts."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._settings = MetricsSettings()
        self._listening: socket.socket | None = None
        self._serving: _Serving | None = None

    def serve(self, settings: MetricsSettings) -> None:
        """Listen where these settings say; where they said so before already, go on.

        Raises:
            XdpgwError: the address cannot be had; what was served before still is.
        """
        if settings == self._settings:
            return
        before, now = self._listening, self._listening
        if settings.listen != self._settings.listen:
            now = None if settings.listen is None else listen(settings.listen)
        self._stop()
        if before is not None and before is not now:
            before.close()
        if now is not None:
            self._serving = _Serving(now, settings.rules, self._note)
            if now is not before:
                self._note(f"metrics: {url_of(now)}")
        self._listening, self._settings = now, settings

    def follow(self, settings: MetricsSettings) -> None:
        """As `serve`; what goes wrong is told."""
        try:
            self.serve(settings)
        except XdpgwError as error:
            still = "none are" if self._listening is None else f"{url_of(self._listening)} still is"
            self._note(f"{error}\n{error.hint}\nmetrics: {still} served")

    def _stop(self) -> None:
        if self._serving is not None:
            self._serving.close()
            self._serving = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._listening is not None:
            self._listening.close()


class _Serving:
    """A server, started again where it ends by itself."""

    def __init__(self, listening: socket.socket, rules: bool, note: Callable[[str], None]) -> None:
        self._fd = listening.fileno()
        self._rules = "rules" if rules else "no rules"
        self._note = note
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, name="metrics", daemon=True)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        package = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, str(self._fd), self._rules],
            stdin=subprocess.PIPE,  # it ends where this does, however this process ends
            stdout=subprocess.DEVNULL,
            pass_fds=(self._fd,),
            start_new_session=True,  # Ctrl-C is for this process
            env={**os.environ, "PYTHONPATH": path},
        )

    def _keep(self) -> None:
        while True:
            status = self._process.wait()
            _let_go(self._process)
            if self._closed.wait(AGAIN_S):
                return
            self._note(f"the server of the metrics ended with {status}: it is started again")
            with self._lock:
                if self._closed.is_set():
                    return
                self._process = self._start()

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            self._process.kill()
        self._thread.join()


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
