"""The AF_XDP handler `python:MODULE:FUNCTION`: the worker's loop stays in C, and calls the function
once a burst.

    def handle(burst: xdpgw.fast.Burst) -> None: ...

What the function does not claim is recycled when it returns. A function that raises is not called
again: its socket leaves the XSKMAP, so that its packets get the verdict after `else`.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from xdpgw._native import ffi
from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from xdpgw.config import Config
    from xdpgw.target_plan import SocketPlan

__all__ = ["PythonHandler", "load_handlers"]

Function = Callable[[Any], object]


def load_handlers(config: Config, names: Iterable[str]) -> dict[str, Function]:
    """Import the functions of the targets that have a Python handler.

    Modules are looked for beside the policy file first, then where Python looks. A module that was
    imported for an earlier policy is read anew, so that a reload takes up its changes.

    Args:
        config: the policy.
        names: of the targets that some rule uses.

    Returns:
        the function of each such target, by the target's name.

    Raises:
        XdpgwError: it cannot be imported, or is not callable.
    """
    wanted = {name: config.af_xdp[name] for name in sorted(names)}
    chosen = {name: x.argument for name, x in wanted.items() if x.kind == "python"}
    if not chosen:
        return {}
    folder = str(config.path.resolve().parent)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        fresh: dict[str, Any] = {}
        return {name: _load(name, text, fresh) for name, text in chosen.items()}
    finally:
        sys.path.remove(folder)


def _load(target: str, text: str, fresh: dict[str, Any]) -> Function:
    module_name, _, function_name = text.partition(":")
    try:
        if module_name not in fresh:
            known = sys.modules.get(module_name)
            fresh[module_name] = (
                importlib.reload(known) if known else importlib.import_module(module_name)
            )
        function = getattr(fresh[module_name], function_name)
    except Exception as error:
        raise XdpgwError(
            f"target {target}: cannot import {text}: {type(error).__name__}: {error}",
            "the module is looked for beside the policy file, then where Python looks",
        ) from error
    if not callable(function):
        raise XdpgwError(f"target {target}: {text} is not a function")
    return function  # type: ignore[no-any-return]


class PythonHandler:
    """One socket's function, as C sees it. Keep it as long as the worker."""

    def __init__(
        self, function: Function, target: str, plan: SocketPlan, note: Callable[[str], None]
    ) -> None:
        from xdpgw.fast import burst_of

        self._function, self._burst_of = function, burst_of
        self._where = f"target {target}, port {plan.port} queue {plan.queue}"
        self._note = note
        self.handle = ffi.new_handle(self)
        """The context to give to C."""

    def call(self, raw: Any) -> int:
        """Handle one burst. Returns 0, or 1 for "do not call me again"."""
        burst = self._burst_of(raw)
        try:
            try:
                self._function(burst)
            finally:
                burst.invalidate()  # BufferError: the function has kept something of a frame
        except Exception:
            self._note(f"{self._where}: the handler raised\n{traceback.format_exc().rstrip()}")
            return 1
        return 0


@ffi.def_extern(name="xg_python_burst", error=1)  # type: ignore[untyped-decorator]
def _python_burst(context: Any, raw: Any) -> int:
    handler: PythonHandler = ffi.from_handle(context)
    return handler.call(raw)
