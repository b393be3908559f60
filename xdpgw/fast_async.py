"""`async for burst in port`: the asynchronous half of a FastPort."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from xdpgw.fast_receive import Receiver

if TYPE_CHECKING:
    from xdpgw.fast_burst import Burst

__all__ = ["AsyncBursts"]

TURNS = 16
"""Bursts in a row after which other tasks get a turn, when frames never cease to come."""

RETRY_S = 0.001
"""When to try again to send what a busy device has left in the TX ring."""

CHECK_S = 1.0
"""How often to look whether the port is still there."""


class AsyncBursts(Receiver):
    """Waits for frames by the running event loop. Each step ends the burst before it."""

    _waiter: asyncio.Future[None] | None = None
    _turns = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Burst:
        self._turns += 1
        if self._turns % TURNS == 0:
            await asyncio.sleep(0)
        while True:
            burst = self._take()
            if burst is not None:
                return burst
            if self.closed:
                raise StopAsyncIteration
            self._check_port()
            await self._readable()

    async def _readable(self) -> None:
        if self._waiter is not None:
            raise RuntimeError(f"another task waits for frames of {self!r}: one loop a port")
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        fd = self.fileno()
        timer = loop.call_later(RETRY_S if self._before_sleep() else CHECK_S, _done, waiter)
        loop.add_reader(fd, _done, waiter)
        self._waiter = waiter
        try:
            await waiter
        finally:
            timer.cancel()
            if self._waiter is waiter:
                self._waiter = None
                loop.remove_reader(fd)

    def _wake(self) -> None:
        """The descriptor goes: nobody may wait for it any more."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.get_loop().remove_reader(self.fileno())
            _done(waiter)


def _done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
