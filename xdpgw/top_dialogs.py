"""What `xdpgw top` asks and tells in front of its panels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from xdpgw.errors import XdpgwError
from xdpgw.literals import Wrong

__all__ = ["BlockDialog", "Help", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks to be blocked, as it was typed.

    Args:
        source: address or prefix.
        duration: "" for no end.
        reason: a line of text.
    """

    source: str
    duration: str
    reason: str


class BlockDialog(ModalScreen[None]):
    """Asks what to block, for how long and why; closes when that is done or given up.

    Args:
        source: what was marked.
        told: what is known of it.
        ask: does it; raises XdpgwError or Wrong, which is shown, and the dialog stays.
    """

    CSS = """
    BlockDialog { align: center middle; }
    #dialog { width: 66; height: auto; max-height: 100%; border: round $accent; padding: 0 1; }
    #dialog Horizontal { height: auto; }
    #dialog Label { width: 9; }
    #dialog Input { width: 1fr; height: 1; border: none; padding: 0; }
    #dialog Button { margin: 1 2 0 0; }
    #wrong { height: auto; color: ansi_red; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "cancel"),
    ]

    def __init__(self, source: str, told: str, ask: Callable[[Request], Awaitable[None]]) -> None:
        super().__init__()
        self._source, self._told, self._ask = source, told, ask

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog") as box:
            box.border_title = "block: drop all packets from"
            for name, value, hint in (
                ("source", self._source, "address or prefix"),
                ("for", "10m", "10m, 12h, 1d; empty: no end"),
                ("reason", f"top: {self._told}" if self._told else "top", "why"),
            ):
                with Horizontal():
                    yield Label(name)
                    yield Input(value, placeholder=hint, id=name, select_on_focus=False)
            yield Static("", id="wrong", markup=False)
            with Horizontal():
                yield Button("Block", id="block", variant="error", compact=True)
                yield Button("Cancel", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one("#for", Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter goes to the button, which is the confirmation."""
        event.stop()
        self.query_one("#block", Button).focus()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "cancel":
            self.dismiss()
            return
        source, duration, reason = (
            self.query_one(f"#{name}", Input).value.strip() for name in ("source", "for", "reason")
        )
        try:
            await self._ask(Request(source, duration, reason))
        except Wrong as wrong:
            self._say(wrong.message, wrong.hint)
        except XdpgwError as error:
            self._say(str(error), error.hint)
        else:
            self.dismiss()

    def _say(self, message: str, hint: str | None) -> None:
        self.query_one("#wrong", Static).update(f"{message}\n{hint}" if hint else message)


HELP = """\
Tab, Shift+Tab   the next panel, the one before
1 to 6           ports, sources, rules, reasons, rings, log
Up, Down, PgUp, PgDn, Home, End   mark a row
s                sort by the next column
r                the other way round
/                only rows with a text; Escape: all again
p, Space         let it stand still; go on
b                block the marked source, after a question
q                end

Rates are of the last interval. Bars: the rate's past, the
highest one a whole character."""


class Help(ModalScreen[None]):
    """The keys."""

    CSS = """
    Help { align: center middle; }
    #keys { width: 64; height: auto; border: round $accent; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,space,tab", "dismiss", "close"),
    ]

    def compose(self) -> ComposeResult:
        text = Static(HELP, id="keys", markup=False)
        text.border_title = "keys of xdpgw top"
        yield text
