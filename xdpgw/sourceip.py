"""`xdpgw sourceip`: the source address of every packet of an interface.

The same datapath under a policy that lets everything pass and tells every packet, attached for as
long as the command runs. The events come through the ring buffer; what the ring had no room for
is counted and told.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

from xdpgw import config, loader, rules, stats
from xdpgw.compile import compile_rules
from xdpgw.errors import BusyError, KernelError, PrivilegeError, XdpgwError
from xdpgw.events import EventReader
from xdpgw.kernel import Link, Program
from xdpgw.service import WAIT_MS, Signals

__all__ = ["watch"]

POLICY = """
[policy]
default = "pass"
malformed = "pass"
[log]
sources = "every"
rate = "off"
"""


def watch(
    port: str, *, mode: str, count: int | None, as_json: bool, note: Callable[[str], None]
) -> None:
    """Print source addresses until told to stop.

    Args:
        port: the interface.
        mode: auto, native or generic.
        count: stop after so many packets; None for never.
        as_json: print JSON lines instead of addresses.
        note: takes what a person should know.

    Raises:
        XdpgwError: no such interface, or the kernel does not let us.
    """
    try:
        ifindex = socket.if_nametoindex(port)
    except OSError as error:
        here = ", ".join(name for _, name in socket.if_nameindex())
        raise XdpgwError(f"no such interface: {port}", f"there is {here}") from error
    image = compile_rules(rules.resolve(config.loads(POLICY, file="sourceip")))
    with ExitStack() as stack:
        signals = stack.enter_context(Signals().caught())
        loaded = stack.enter_context(loader.load(image, [None]))
        reader = stack.enter_context(EventReader(loaded.maps["events"]))
        stack.enter_context(_attached(loaded.programs[None], port, ifindex, mode, note))
        printed = 0
        while not signals.stop and (count is None or printed < count):
            batch = reader.drain(timeout_ms=WAIT_MS)
            if count is not None:
                batch = batch[: count - printed]
            printed += len(batch)
            _print(batch, port, as_json)
        lost = stats.read_log(loaded.maps["log_counters"]).lost
    if lost:
        note(f"{printed} addresses printed; {lost} lost: they came faster than they were printed")


def _attached(
    program: Program, port: str, ifindex: int, mode: str, note: Callable[[str], None]
) -> Link:
    if mode == "auto":
        try:
            return Link.attach(program, ifindex, "native")
        except (BusyError, PrivilegeError):
            raise
        except KernelError as error:
            note(f"{port}: generic mode, as native failed: {error}")
            mode = "generic"
    return Link.attach(program, ifindex, mode)


@lru_cache(maxsize=65536)
def _text(family: int, raw: bytes) -> str:
    return str(ipaddress.ip_address(raw[:4] if family == 4 else raw))


def _print(batch: Any, port: str, as_json: bool) -> None:
    if not len(batch):
        return
    told = batch[batch["family"] != 0]
    texts = [
        _text(family, raw.tobytes())
        for family, raw in zip(told["family"].tolist(), told["src"], strict=True)
    ]
    if as_json:
        import msgspec

        lines = [
            msgspec.json.encode({"port": port, "family": family, "src": text}).decode()
            for family, text in zip(told["family"].tolist(), texts, strict=True)
        ]
    else:
        lines = texts
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()
