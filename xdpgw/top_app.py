"""The screen of `xdpgw top`: panels over the tables of `top_tables`, keys, and a way to block.

On a narrow terminal the ports and one more panel are shown, on a wide one all of them. The kernel
is read in a thread, so that keys are answered meanwhile; `Top.take` is all that comes in.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static
from textual.widgets.data_table import CellDoesNotExist, RowDoesNotExist

from xdpgw.errors import XdpgwError
from xdpgw.snapshot import Change, Snapshot
from xdpgw.top_dialogs import BlockDialog, Help, Request
from xdpgw.top_tables import Row, Table, cell_text, headline, policy_line, tables

__all__ = ["Panel", "Top"]

HISTORY = 240
"""Rates of a row of ports that a sparkline is drawn of, at most."""

WIDE, HIGH = 120, 36
"""Columns and lines from which on all panels are shown."""

SHOWN = 500
"""Rows of a panel; the filter finds the others."""

_BARS = "▁▂▃▄▅▆▇█"

Read = Callable[[], "Snapshot | None"]
Block = Callable[[Request], str]


def sparkline(values: list[float]) -> str:
    """The values as bars, the highest one a whole character."""
    most = max(values, default=0.0)
    if not most:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(7, int(8 * value / most))] for value in values)


class Panel(DataTable[Text]):
    """A table that keeps its place while what it shows changes."""

    def __init__(self, name: str) -> None:
        super().__init__(id=name, classes="panel", cursor_type="row", zebra_stripes=False)
        self.table: Table | None = None
        self.order: str | None = None
        self.reverse = False
        self.needle = ""
        self._headings: list[str] = []

    def show(self, table: Table, last: Callable[[Row], str] | None = None) -> None:
        """Show a table.

        Args:
            last: makes the text of one more column.
        """
        if self.table is None:
            self.order = table.order
        self.table = table
        self.last = last
        self.draw()

    def draw(self) -> None:
        """Show the table as it is sorted and filtered now."""
        if self.table is None:
            return
        table, marked, scrolled = self.table, self.marked, self.scroll_y
        headings = [
            column.heading + (("▲" if self.reverse else "▼") if column.key == self.order else "")
            for column in table.columns
        ] + ([""] if self.last else [])
        if headings != self._headings:
            self.clear(columns=True)
            self.add_columns(*headings)
            self._headings = headings
        self.clear()
        rows = table.arranged(self.order, reverse=self.reverse, needle=self.needle)
        for row in rows[:SHOWN]:
            cells = [
                Text(cell_text(cell, column), justify="right" if column.is_number else "left")
                for cell, column in zip(row.cells, table.columns, strict=True)
            ]
            if self.last:
                cells.append(Text(self.last(row)))
            self.add_row(*cells, key=row.key)
        self._mark(marked, scrolled)
        self._entitle(len(rows))

    @property
    def marked(self) -> str | None:
        """Key of the row under the cursor."""
        try:
            return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value
        except CellDoesNotExist:
            return None

    def _mark(self, key: str | None, scrolled: float) -> None:
        try:
            at = self.get_row_index(key) if key is not None else 0
        except RowDoesNotExist:
            at = min(self.cursor_row, max(0, self.row_count - 1))
        self.move_cursor(row=at, animate=False, scroll=False)
        self.scroll_to(y=scrolled, animate=False)

    def _entitle(self, rows: int) -> None:
        assert self.table is not None
        self.border_title = self.table.title
        told = [f"filter: {self.needle}"] if self.needle else []
        if rows == 0:
            told.append("no row has it" if self.needle else self.table.empty)
        if rows > SHOWN:
            told.append(f"{SHOWN} of {rows}")
        self.border_subtitle = Text("; ".join(told))  # not a str, which is taken for markup

    def sort_next(self) -> None:
        """Sort by the next column; behind the last one as the rows come."""
        assert self.table is not None
        keys = [column.key for column in self.table.columns] + [None]
        self.order = keys[(keys.index(self.order) + 1) % len(keys)]
        self.reverse = False
        self.draw()

    def turn(self) -> None:
        """The other way round."""
        self.reverse = not self.reverse
        self.draw()


class Top(App[None]):
    """The application.

    Args:
        read: what the filter tells now; runs in a thread.
        block: blocks what a person asked for; gives what is to be said of it.
        interval_s: between two looks.
    """

    TITLE = "xdpgw top"
    ENABLE_COMMAND_PALETTE = False
    VIEWS = ("ports", "sources", "rules", "reasons", "rings", "log")
    CSS = """
    #headline { height: 1; }
    #headline.alarm { text-style: bold; color: ansi_red; }
    #panels { height: 1fr; }
    .panel {
        display: none; height: 1fr; border: round $foreground 40%; padding: 0 1;
        scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0;
    }
    .panel.active { display: block; border: round $accent; border-title-style: bold; }
    #ports { display: block; height: auto; max-height: 9; }
    #ports.active { height: 1fr; max-height: 100%; }
    #find { display: none; height: 1; border: none; padding: 0; }
    #find.open { display: block; }
    .wide #panels {
        layout: grid; grid-size: 2; grid-columns: 4fr 3fr; grid-rows: auto 2fr 1fr auto;
    }
    .wide .panel { display: block; height: 100%; }
    .wide #ports { column-span: 2; height: auto; max-height: 14; }
    .wide #log { column-span: 2; height: auto; max-height: 13; }
    Top:nocolor .panel.active > .datatable--cursor { text-style: reverse; }
    Top:nocolor Button:focus { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "quit", priority=False),
        Binding("tab", "view(1)", "view", priority=True),
        Binding("shift+tab", "view(-1)", show=False, priority=True),
        *(Binding(f"{n}", f"show('{x}')", show=False) for n, x in enumerate(VIEWS, 1)),
        Binding("s", "sort", "sort"),
        Binding("r", "turn", "reverse", show=False),
        Binding("slash", "find", "filter", key_display="/"),
        Binding("escape", "forget", show=False),
        Binding("p,space", "pause", "pause"),
        Binding("b", "block", "block"),
        Binding("question_mark", "help", "help", key_display="?"),
    ]

    def __init__(self, read: Read, block: Block, interval_s: float = 1.0) -> None:
        # Without colours, textual takes out those of a terminal only, not those it would mix.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self._read, self._block, self._interval_s = read, block, interval_s
        self._before: Snapshot | None = None
        self._change: Change | None = None
        self._history: dict[str, deque[float]] = {}
        self._told = "reading"
        self._alarm = False
        self.paused = False
        self.view = "sources"

    def compose(self) -> ComposeResult:
        yield Static("", id="headline", markup=False)
        with Container(id="panels"):
            for name in self.VIEWS:
                yield Panel(name)
        yield Input(id="find", placeholder="text of a row; Enter keeps it, Escape forgets it")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        if self.no_color or self.console.color_system == "standard":
            self.theme = "ansi-dark"
        self.action_show(self.view)
        self._tell()
        self.run_worker(self._follow(), exclusive=True)

    def on_resize(self, event: Resize) -> None:
        screen = self.screen_stack[0]  # also while a dialog is in front of it
        screen.set_class(event.size.width >= WIDE and event.size.height >= HIGH, "wide")
        screen.update_node_styles(animate=False)

    async def _follow(self) -> None:
        while True:
            found, why = None, "no filter is in force"
            try:
                found = await asyncio.to_thread(self._read)
            except XdpgwError as error:
                why = str(error)
            if len(self.query(Panel)) < len(self.VIEWS):
                return  # the screen is being taken down
            self.take(found, why)
            await asyncio.sleep(self._interval_s)

    def take(self, found: Snapshot | None, why: str = "") -> None:
        """Show what was read; None and why, where nothing could be."""
        before, self._before = self._before, found
        if found is None:
            self._told, self._alarm = f"{why}; looking on", True
            self._tell()
            return
        self._alarm = any(not port.attached for port in found.ports)
        if before is None:
            self._told = "reading"
            self._tell()
            return
        change = Change(before, found)
        shown = tables(change)
        self._remember(shown["ports"])
        if not self.paused:
            self._change, self._told = change, headline(change)
            self._show(shown)
            self.panel("ports").border_subtitle = Text(policy_line(found))
        self._tell()

    def _show(self, shown: dict[str, Table]) -> None:
        for name, table in shown.items():
            self.panel(name).show(table, self._spark if name == "ports" else None)

    def _remember(self, ports: Table) -> None:
        known, self._history = self._history, {}
        at = next(n for n, column in enumerate(ports.columns) if column.kind == "rate")
        for row in ports.rows:
            kept = known.get(row.key) or deque(maxlen=HISTORY)
            rate = row.cells[at]
            assert isinstance(rate, float)
            kept.append(rate)
            self._history[row.key] = kept

    def _spark(self, row: Row) -> str:
        room = max(8, self.size.width - 59)
        return sparkline(list(self._history[row.key])[-room:])

    def _tell(self) -> None:
        line = self.query_one("#headline", Static)
        clock = time.strftime("%H:%M:%S")
        line.update(f"{'PAUSED ' if self.paused else ''}{clock} {self._told}")
        line.set_class(self._alarm, "alarm")

    def panel(self, name: str) -> Panel:
        """The panel of a table."""
        return self.query_one(f"#{name}", Panel)

    @property
    def active(self) -> Panel:
        """The panel that keys are for."""
        return self.panel(self.view)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Behind a dialog, nothing is to be done."""
        behind = isinstance(self.screen, ModalScreen)
        return not behind or action in ("quit", "focus_next", "focus_previous")

    def action_show(self, name: str) -> None:
        """Turn to a panel."""
        self.view = name
        for each in self.VIEWS:
            panel = self.panel(each)
            panel.set_class(each == name, "active")
            panel.show_cursor = each == name
        self.active.focus()

    def action_view(self, step: int) -> None:
        """Turn to the next panel, or the one before."""
        at = self.VIEWS.index(self.view) + step
        self.action_show(self.VIEWS[at % len(self.VIEWS)])

    def action_sort(self) -> None:
        """Sort the panel by another column."""
        if self.active.table:
            self.active.sort_next()

    def action_turn(self) -> None:
        """Sort the panel the other way round."""
        self.active.turn()

    def action_pause(self) -> None:
        """Let what is shown stand still, or go on; the kernel is read all the time."""
        self.paused = not self.paused
        self._tell()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    # Filter

    def action_find(self) -> None:
        """Ask for a text that rows must have."""
        line = self.query_one("#find", Input)
        line.value = self.active.needle
        line.add_class("open")
        line.focus()

    def action_forget(self) -> None:
        """Show all rows again."""
        self._find("")
        self._close_find()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "find" and event.input.has_class("open"):
            self._find(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "find":
            self._close_find()

    def _find(self, needle: str) -> None:
        self.active.needle = needle
        self.active.draw()

    def _close_find(self) -> None:
        self.query_one("#find", Input).remove_class("open")
        self.active.focus()

    # Block

    def action_block(self) -> None:
        """Ask whether to block the marked source."""
        panel = self.panel("sources")
        if self.view != "sources" or panel.marked is None or self._change is None:
            self.notify("mark a source first: key 2, then up and down", severity="warning")
            return
        row = next(x for x in panel.table.rows if x.key == panel.marked) if panel.table else None
        rate = row.cells[1] if row else None
        told = f"{rate:.0f} packets/s" if isinstance(rate, float) else ""
        self.push_screen(BlockDialog(panel.marked, told, self._ask_block))

    async def _ask_block(self, request: Request) -> None:
        """Raises: XdpgwError, Wrong: why not."""
        self.notify(await asyncio.to_thread(self._block, request), markup=False)
