"""``chronopype-mp top``: watches a running fleet in the terminal, and operates its workers.

`FleetTop` reads the fleet's status again and again, in one task. What it shows of it, `top_table`
decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from chronopype_mp.console.client import FleetClient
from chronopype_mp.console.status_table import duration
from chronopype_mp.console.top_rows import Heading, RowTable
from chronopype_mp.console.top_screens import Details, Question
from chronopype_mp.console.top_table import (
    COLUMNS,
    CpuMeter,
    TopRow,
    cells,
    chosen,
    details,
    summary,
)
from chronopype_mp.control.messages import Acted, ErrorKind, FleetStatus
from chronopype_mp.exceptions import ControlError
from chronopype_mp.timing import monotonic, wall

__all__ = ["FleetTop"]

T = TypeVar("T")

ANSWER_TIMEOUT = 3.0
"""Seconds without an answer after which a fleet is shown as hung."""

RETRY_PAUSE = 1.0
"""Seconds between two attempts to reach a fleet that does not answer."""

DOWN = ("stopped", "stopping", "quarantined")


class FleetTop(App[None]):
    """Watches and operates one fleet until ``q`` is pressed.

    A fleet that ends or does not answer stays on the screen, dimmed and with the reason. It is
    tried again every second, and may have another process then.

    Args:
        fleet: its name.
        interval: seconds between two readings of its status.
    """

    TITLE = "chronopype-mp top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "quit"),
        Binding("enter", "show_details", "details"),
        Binding("r", "restart", "restart"),
        Binding("p", "pause", "pause/resume"),
        Binding("s", "stop", "stop/start"),
        Binding("c", "reconnect", "reconnect"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "all", "all", show=False),
        Binding("greater_than_sign", "sort(1)", "sort", key_display="< >"),
        Binding("less_than_sign", "sort(-1)", "sort", show=False),
        Binding("i", "invert", "invert"),
    ]
    CSS = """
    #summary { height: 1; background: $primary; color: $text; }
    #problem { height: auto; background: $error; color: $text; display: none; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    """

    def __init__(self, fleet: str, interval: float = 1.0) -> None:
        super().__init__()
        self._fleet = fleet
        self._interval = interval
        self._client: FleetClient | None = None
        self._status: FleetStatus | None = None
        self._read_at = 0.0
        self._problem = ""
        self._meter = CpuMeter()
        self._loads: dict[str, float] = {}
        self._tops: dict[str, TopRow] = {}
        self._words = ""
        self._sorted_by = -1  # the order of the fleet
        self._is_reversed = False

    def compose(self) -> ComposeResult:
        yield Static(f"{self._fleet}: connecting", id="summary", markup=False)
        yield Static("", id="problem", markup=False)
        yield RowTable()
        yield Input(placeholder="show workers with these words", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        self._table.focus()
        self.follow()

    @property
    def fleet_status(self) -> FleetStatus | None:
        """The last status that was read; None before the first."""
        return self._status

    @property
    def _main(self) -> Screen[object]:
        """The screen with the table, whichever is on top of it."""
        return self.screen_stack[0]

    @property
    def _table(self) -> RowTable:
        return self._main.query_one(RowTable)

    # The fleet

    @work
    async def follow(self) -> None:
        """Read the fleet's status until this is cancelled, whatever becomes of the fleet."""
        while True:
            try:
                async with FleetClient(self._fleet, answer_timeout=ANSWER_TIMEOUT) as client:
                    await self._read(client)
            except ControlError as error:
                self._problem = error.problem
            finally:
                self._client = None
            self._show()
            await asyncio.sleep(RETRY_PAUSE)

    async def _read(self, client: FleetClient) -> None:
        while True:
            due = monotonic() + self._interval
            status = await client.status()
            if self._problem:
                self.notify(f"{self._fleet} is back, in process {status.pid}", markup=False)
            self._client, self._status, self._problem = client, status, ""
            self._read_at = monotonic()
            self._loads = self._meter.read(status.workers, self._read_at)
            self._show()
            await asyncio.sleep(max(0.0, due - monotonic()))

    async def _ask(self, ask: Callable[[FleetClient], Awaitable[T]]) -> T | None:
        """Ask the fleet for something; show why there is no answer, and return None then."""
        try:
            if self._client is None:
                problem = f"nothing was done: {self._problem or 'not connected yet'}"
                raise ControlError(ErrorKind.NO_ANSWER.value, problem)
            return await ask(self._client)
        except ControlError as error:
            self.notify(error.problem, severity="error", markup=False)
            return None

    async def _act(self, act: Callable[[FleetClient], Awaitable[list[Acted]]]) -> None:
        for each in await self._ask(act) or ():
            self.notify(f"{each.worker}: {each.did}", markup=False)

    # The screen

    def _show(self) -> None:
        problem = self._main.query_one("#problem", Static)
        problem.display = bool(self._problem)
        if self._status is None:
            problem.update(f"{self._problem}; trying again")
            return
        if self._problem:
            age = duration(monotonic() - self._read_at)
            problem.update(f"{self._problem}; this is what it was {age} ago; trying again")
        else:
            self._main.query_one("#summary", Static).update(summary(self._status, wall()))
        tops = chosen(
            self._status.workers,
            self._loads,
            self._words,
            COLUMNS[self._sorted_by] if self._sorted_by >= 0 else None,
            is_reversed=self._is_reversed,
            is_old=bool(self._problem),
        )
        self._tops = {top.row.worker: top for top in tops}
        self._table.show(self._headings(), [(top.row.worker, cells(top)) for top in tops])

    def _headings(self) -> list[Heading]:
        made = []
        for number, column in enumerate(COLUMNS):
            text, width = column.heading, column.width
            if number == self._sorted_by:
                text += "▼" if column.is_number != self._is_reversed else "▲"
            if width is None:
                width = max(map(len, self._tops), default=0)
            width = max(width, *map(len, text.split("\n")))
            made.append(Heading(text, width, column.is_number))
        return made

    @property
    def _selected(self) -> TopRow | None:
        return self._tops.get(self._table.selected)

    # The keys

    def on_row_table_heading_clicked(self, event: RowTable.HeadingClicked) -> None:
        """Sort by the column that was clicked; the other way round if it is that one already."""
        if event.column == self._sorted_by:
            self.action_invert()
        else:
            self.action_sort(event.column - self._sorted_by)

    def action_sort(self, step: int) -> None:
        """Sort by another column; one of them is the order of the fleet."""
        self._sorted_by = (self._sorted_by + 1 + step) % (len(COLUMNS) + 1) - 1
        self._is_reversed = False
        self._show()
        self._table.reveal()

    def action_invert(self) -> None:
        """Sort the other way round."""
        self._is_reversed = not self._is_reversed
        self._show()
        self._table.reveal()

    def action_filter(self) -> None:
        """Edit the filter."""
        field = self._main.query_one("#filter", Input)
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while the words are typed."""
        self._words = event.value
        self._show()
        self._table.reveal()

    def on_input_submitted(self) -> None:
        """Go back to the table; the filter stays visible while it is in force."""
        self._main.query_one("#filter", Input).display = bool(self._words)
        self.set_focus(self._table)

    def action_all(self) -> None:
        """Remove the filter."""
        field = self._main.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self._table.focus()

    @work
    async def action_show_details(self) -> None:
        """Show all about the selected worker, with its dossiers and their stacks."""
        top = self._selected
        if top is None:
            return
        name = top.row.worker
        dossiers = await self._ask(lambda fleet: fleet.failures(name))
        if dossiers is not None:
            self.push_screen(Details(name, details(top.row, dossiers)))

    @work
    async def action_restart(self) -> None:
        """Restart the selected worker, after a question."""
        top = self._selected
        if top is None:
            return
        worker = top.row.worker
        if await self.push_screen_wait(Question(f"Restart {worker}?")):
            await self._act(lambda fleet: fleet.restart(worker))

    @work
    async def action_stop(self) -> None:
        """Stop the selected worker, after a question; start it if it is down."""
        top = self._selected
        if top is None:
            return
        worker = top.row.worker
        if top.row.status in DOWN:
            await self._act(lambda fleet: fleet.start(worker))
        elif await self.push_screen_wait(Question(f"Stop {worker}?")):
            await self._act(lambda fleet: fleet.stop(worker))

    @work
    async def action_pause(self) -> None:
        """Pause the selected worker, or resume it."""
        top = self._selected
        if top is not None:
            worker, is_paused = top.row.worker, top.row.is_paused
            await self._act(lambda f: f.resume(worker) if is_paused else f.pause(worker))

    @work
    async def action_reconnect(self) -> None:
        """Have the selected worker connect anew."""
        top = self._selected
        if top is not None:
            worker = top.row.worker
            await self._act(lambda fleet: fleet.reconnect(worker))
