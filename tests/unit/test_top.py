"""`xdpgw top` over fixed snapshots: what is on the screen, and what keys do.

The screens are kept as text in tests/unit/screens; WRITE_SCREENS=1 writes them anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tests.screens import driven, seen, text_of
from tests.snapshots import moment
from xdpgw.errors import XdpgwError
from xdpgw.literals import Wrong
from xdpgw.snapshot import Snapshot
from xdpgw.top_app import SHOWN, Top, sparkline
from xdpgw.top_dialogs import Request

SCREENS = Path(__file__).parent / "screens"
SMALL, LARGE = (80, 24), (200, 50)


def no_block(request: Request) -> str:
    raise AssertionError(f"nobody asked to block {request}")


def top(block: Callable[[Request], str] = no_block) -> Top:
    """One that reads nothing by itself before a test is over."""
    return Top(lambda: None, block, 3600.0)


async def shown(pilot: Pilot[Any], *snapshots: Snapshot) -> str:
    """The screen, after these came in."""
    app = pilot.app
    assert isinstance(app, Top)
    for found in snapshots:
        app.take(found)
    await pilot.pause()
    return text_of(app)


def same(name: str, text: str) -> None:
    path = SCREENS / f"{name}.txt"
    if "WRITE_SCREENS" in os.environ:
        path.write_text(text + "\n")
    assert text.splitlines() == path.read_text().splitlines()


@pytest.mark.parametrize(("name", "size"), [("small", SMALL), ("large", LARGE)])
def test_screen_of_a_filter(name: str, size: tuple[int, int]) -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        same(name, await shown(pilot, moment(0), moment(1), moment(3)))

    driven(top(), drive, size)


@pytest.mark.parametrize("size", [SMALL, LARGE, (40, 12), (119, 50), (120, 36)])
def test_no_line_is_longer_than_the_screen(size: tuple[int, int]) -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        text = await shown(pilot, moment(0), moment(1))
        lines = text.splitlines()
        assert len(lines) == size[1]
        assert max(map(len, lines)) <= size[0]
        assert "pass 1.00k/s" in lines[0]
        assert ("top rules" in text) == (size[0] >= 120)

    driven(top(), drive, size)


@pytest.mark.parametrize("number", range(1, 7))
def test_each_panel_at_80_by_24(number: int) -> None:
    titles = ("ports", "top sources", "top rules", "verdicts and reasons", "AF_XDP rings", "log")

    async def drive(pilot: Pilot[Any]) -> None:
        await pilot.press(str(number))
        text = await shown(pilot, moment(0), moment(1))
        for n, title in enumerate(titles, 1):
            assert (f"╭─ {title} ─" in text) == (n in (1, number))

    driven(top(), drive)


def test_tab_goes_round_the_panels() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        seen = []
        for _ in range(6):
            await pilot.press("tab")
            seen.append(app.view)
        await pilot.press("shift+tab")
        assert seen == ["rules", "reasons", "rings", "log", "ports", "sources"]
        assert app.view == "ports"

    driven(top(), drive)


def test_sort_goes_through_the_columns_and_turns() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        await shown(pilot, moment(0), moment(1))
        await pilot.press("3")

        def order() -> list[str]:
            panel = app.panel("rules")
            return [str(panel.get_row_at(n)[0]) for n in range(panel.row_count)]

        assert order() == ["web", "bad", "mirror", "dns"]
        await pilot.press("r")
        assert order() == ["dns", "mirror", "bad", "web"]
        assert "pkt/s▲" in text_of(app)
        await pilot.press("s", "s", "s")  # bit/s, packets, as the rules are written
        assert order() == ["dns", "web", "bad", "mirror"]
        await pilot.press("s")
        assert order() == ["bad", "dns", "mirror", "web"]
        assert "rule▼" in text_of(app)

    driven(top(), drive)


def test_keys_before_anything_was_read_do_nothing() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        await pilot.press("s", "r", "slash", "x", "enter", "b", "down", "p", "p", "escape")
        assert "reading" in text_of(pilot.app) or "no filter" in text_of(pilot.app)

    driven(top(), drive)


def test_filter_shows_rows_with_a_text_until_escape() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        await pilot.press("slash", *"db8", "enter")
        text = await shown(pilot, moment(2))  # what comes in is filtered, too
        assert "2001:db8:1234" in text
        assert "198.51.100" not in text
        assert "filter: db8" in text
        await pilot.press("slash", *"zz")
        assert "no row has it" in text_of(pilot.app)
        await pilot.press("escape")
        assert "198.51.100.20" in text_of(pilot.app)

    driven(top(), drive)


def test_pause_lets_the_screen_stand_still() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        await pilot.press("p")
        text = await shown(pilot, moment(50))
        assert "PAUSED" in text
        assert re.search(r"received +1.25k +1.00M +1250 ", text)
        await pilot.press("space")
        text = await shown(pilot, moment(51))
        assert "PAUSED" not in text
        assert re.search(r"received +1.25k +1.00M +63750 ", text)

    driven(top(), drive)


def test_the_mark_stays_with_its_source() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        first, second = {"192.0.2.1": 50, "192.0.2.2": 9}, {"192.0.2.1": 60, "192.0.2.2": 900}
        await shown(pilot, moment(0, sources={}), moment(1, sources=first))
        await pilot.press("down")
        assert app.panel("sources").marked == "192.0.2.2"
        await shown(pilot, moment(2, sources=second))
        assert app.panel("sources").cursor_row == 0
        assert app.panel("sources").marked == "192.0.2.2"
        await shown(pilot, moment(3, sources={"192.0.2.9": 1}))  # it is gone
        assert app.panel("sources").marked == "192.0.2.9"
        await shown(pilot, moment(4, sources={}))
        assert app.panel("sources").marked is None

    driven(top(), drive)


def test_more_rows_than_are_shown_are_told_and_found() -> None:
    many = {f"10.0.{n // 256}.{n % 256}": n + 1 for n in range(3 * SHOWN)}

    async def drive(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        rules = {f"r{n:04}": moment(0).rules["bad"] for n in range(SHOWN + 7)}
        await shown(pilot, moment(0, sources=many), moment(1, sources=many, rules=rules))
        await pilot.press("3")
        assert app.panel("rules").row_count == SHOWN
        assert f"{SHOWN} of {SHOWN + 7}" in text_of(app)
        await pilot.press("slash", *f"r{SHOWN + 6:04}")
        assert app.panel("rules").row_count == 1

    driven(top(), drive)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_help_tells_all_keys(size: tuple[int, int]) -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        await pilot.press("question_mark")
        await pilot.pause()
        if size == SMALL:
            same("help", text_of(pilot.app))
        await pilot.press("escape")
        await pilot.pause()
        assert "keys of xdpgw top" not in text_of(pilot.app)

    driven(top(), drive, size)


# What changes meanwhile


def test_what_comes_in_behind_a_dialog_is_shown_behind_it() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        await pilot.press("question_mark")
        await pilot.resize_terminal(160, 44)
        await shown(pilot, moment(2))
        assert "keys of xdpgw top" in await seen(pilot, "top rules")
        await pilot.press("escape")
        assert "keys of xdpgw top" not in await seen(pilot, " 2500 ")

    driven(top(), drive)


def test_filter_that_goes_and_comes_back_is_told() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        await shown(pilot, moment(0), moment(1))
        app.take(None, "no permission")
        assert "no permission; looking on" in await shown(pilot)
        assert "reading" in await shown(pilot, moment(2, epoch=2))
        assert "pass 1.00k/s" in await shown(pilot, moment(3, epoch=2))

    driven(top(), drive)


def test_port_that_is_gone_and_filter_without_a_process_are_told() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        text = await shown(pilot, moment(0), moment(1, gone=("wan",), in_charge=False))
        assert "gone: wan" in text.splitlines()[0]
        assert "orphaned" in text.splitlines()[0]
        text = await shown(pilot, moment(2, ports=("eth0",)))
        assert "wan" not in text

    driven(top(), drive, LARGE)


def test_sources_that_are_not_counted_are_said_to_be() -> None:
    from tests.snapshots import manifest

    async def drive(pilot: Pilot[Any]) -> None:
        uncounted = manifest(counted=None)
        text = await shown(pilot, moment(0), moment(1, sources={}, manifest=uncounted))
        assert "the policy says count = false in [sources]" in text

    driven(top(), drive)


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([0, 0], "▁▁"),
        ([0, 1, 2, 4, 8, 16], "▁▁▂▃▅█"),
        ([5, 5], "██"),
        ([1e9, 1], "█▁"),
    ],
)
def test_sparkline(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


# Block


def test_block_asks_first_and_passes_on_what_was_typed() -> None:
    asked: list[Request] = []

    def block(request: Request) -> str:
        asked.append(request)
        return "done [and] dusted"

    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        await pilot.press("down", "b")
        await pilot.pause()
        same("block", text_of(pilot.app))
        assert asked == []
        await pilot.press("end", "backspace", "h", "enter")
        await pilot.pause()
        assert asked == []  # Enter leads to the button
        await pilot.press("enter")
        text = await seen(pilot, "done [and] dusted")
        assert asked == [Request("198.51.100.19", "10h", "top: 1900 packets/s")]
        assert "drop all packets from" not in text

    driven(top(block), drive)


@pytest.mark.parametrize("leave", [("escape",), ("tab", "tab", "tab", "enter")])
def test_block_that_is_given_up_blocks_nothing(leave: tuple[str, ...]) -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        await pilot.press("b")
        await pilot.pause()
        await pilot.press(*leave)
        await pilot.pause()
        assert "drop all packets from" not in text_of(pilot.app)

    driven(top(), drive)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (XdpgwError("the policy allows it", "allow is in [policy]"), "allow is in [policy]"),
        (Wrong('time "x" is not a time', "write 10m"), "write 10m"),
    ],
)
def test_block_that_is_refused_says_why_and_stays(error: Exception, told: str) -> None:
    def block(request: Request) -> str:
        raise error

    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        await pilot.press("b")
        await pilot.pause()
        await pilot.press("enter", "enter")
        assert str(error) in await seen(pilot, told)
        assert pilot.app.screen.query_one("#source", Input).value == "198.51.100.20"

    driven(top(block), drive)


def test_block_without_a_marked_source_says_what_to_do() -> None:
    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        await pilot.press("3", "b")
        await seen(pilot, "mark a source first")

    driven(top(), drive)


# Colours


def test_without_colours_none_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def drive(pilot: Pilot[Any]) -> None:
        await shown(pilot, moment(0), moment(1))
        strips = pilot.app.screen._compositor.render_strips()
        filtered = [
            strip.apply_filter(each, pilot.app.screen.background_colors[1])
            for strip in strips
            for each in pilot.app.get_line_filters()[-1:]
        ]
        styles = [segment.style for strip in filtered for segment in strip if segment.style]
        assert {str(style.color.name) for style in styles if style.color} == {"default"}
        assert any(style.reverse for style in styles)  # the mark is still seen

    driven(top(), drive)


@pytest.mark.parametrize(("term", "theme"), [("xterm", "ansi-dark"), ("xterm-256color", None)])
def test_sixteen_colours_are_the_terminals_own(
    monkeypatch: pytest.MonkeyPatch, term: str, theme: str | None
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLORTERM", raising=False)

    async def drive(pilot: Pilot[Any]) -> None:
        assert pilot.app.theme == (theme or "textual-dark")

    driven(top(), drive)
