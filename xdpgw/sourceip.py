"""`xdpgw sourceip`: the source address of every packet of an interface.

The same datapath under a policy that lets everything pass and tells every packet, attached for as
long as the command runs. The events come through the ring buffer; what the ring had no room for
is counted and told.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from xdpgw import config, loader, rules, stats
from xdpgw.compile import compile_rules
from xdpgw.errors import XdpgwError
from xdpgw.events import EventBatch, EventReader, Names
from xdpgw.kernel import Link
from xdpgw.service import WAIT_MS, Signals
from xdpgw.sinks.stdout import STYLES

__all__ = ["watch"]

POLICY = """
[policy]
default = "pass"
malformed = "pass"
[sources]
count = false
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
        signals = stack.enter_context(Signals().caught(printing=True))
        loaded = stack.enter_context(loader.load(image, [None]))
        reader = stack.enter_context(EventReader(loaded.maps["events"]))
        link, _, why = Link.attach_as(loaded.programs[None], ifindex, mode)
        stack.enter_context(link)
        if why is not None:
            note(f"{port}: generic mode, as native failed: {why}")
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


def _print(batch: Any, port: str, as_json: bool) -> None:
    lines = list(STYLES["sourceip"](EventBatch(batch, Names(), 0)))
    if as_json:
        import msgspec

        lines = [
            msgspec.json.encode(
                {"port": port, "family": 6 if ":" in text else 4, "src": text}
            ).decode()
            for text in lines
        ]
    if lines:
        sys.stdout.write("\n".join([*lines, ""]))
        sys.stdout.flush()
