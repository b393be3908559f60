"""A textual application without a terminal: driven by keys, read as text."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from textual.app import App
from textual.pilot import Pilot

__all__ = ["driven", "seen", "text_of"]

DEADLINE_S = 30.0


def text_of(app: App[Any]) -> str:
    """The cells of the screen as lines; times of day as hh:mm:ss."""
    strips = app.screen._compositor.render_strips()
    text = "\n".join(strip.text.rstrip() for strip in strips)
    return re.sub(r"\d\d:\d\d:\d\d", "hh:mm:ss", text)


async def seen(pilot: Pilot[Any], text: str) -> str:
    """The screen, once this is on it."""
    while text not in (now := text_of(pilot.app)):
        await pilot.pause(0.02)  # `driven` ends it
    return now


def driven(
    app: App[Any],
    drive: Callable[[Pilot[Any]], Coroutine[Any, Any, None]],
    size: tuple[int, int] = (80, 24),
) -> None:
    """Run an application on a terminal of so many columns and lines, and drive it."""

    app.animation_level = "none"

    async def run() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await pilot.pause()
                    await drive(pilot)
            except TimeoutError:
                raise AssertionError(
                    f"not in {DEADLINE_S} s; on the screen:\n{text_of(app)}"
                ) from None

    asyncio.run(run())
