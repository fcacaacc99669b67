"""How the demo shows what happens: a live table on a terminal, a line for each event elsewhere.

While the clock runs, the workers' output comes out of the coordinator's stdout and stderr. A
view takes their place and lets it through as lines of its own, so that the table stays whole.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chronopype_mp.console.demo_record import describe, worker_of
from chronopype_mp.console.demo_table import LiveRow, conclusion, live_table, verdict_table
from chronopype_mp.console.verdict import Verdict
from chronopype_mp.core.events import Event
from chronopype_mp.timing import wall

__all__ = ["DemoView", "LogLines", "PlainView", "TableView", "captured", "make_view"]

SHOWN_EVENTS = 12
"""Lines below the live table."""

PLAIN_WIDTH = 120
"""Columns of the verdict's table where no terminal says how many there are."""

OURS = "demo"
"""Who speaks in lines that are of no worker."""


class DemoView:
    """Shows the demo; the base of the two ways.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.closed = False

    def line(self, worker: str, text: str, at: float | None = None) -> None:
        """Show a line.

        Args:
            worker: whom it is about.
            text: without a line's end.
            at: when, wall clock; None for now.
        """
        when = datetime.fromtimestamp(wall() if at is None else at)
        self.show(f"{when:%H:%M:%S}.{when.microsecond // 1000:03d}  {worker:<12}  {text}")

    def event(self, event: Event) -> None:
        """Show an event of the clock's."""
        self.line(worker_of(event), describe(event), event.at)

    def note(self, text: str) -> None:
        """Show what the demo itself does."""
        self.line(OURS, text)

    def verdict(self, verdict: Verdict) -> None:
        """Show the end."""
        self._print(verdict_table(verdict))
        for line in conclusion(verdict):
            self._print(Text(line))

    def show(self, line: str) -> None:
        """Show a finished line."""
        raise NotImplementedError

    def refresh(self, rows: Iterable[LiveRow], elapsed: float, seconds: float) -> None:
        """Show how the workers stand."""

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Be on the screen; what takes a screen is undone in the end."""
        yield

    def _print(self, what: Table | Text) -> None:
        """Print, unless nobody reads any more (``| head``): that must not end the run midway."""
        if self.closed:
            return
        try:
            self.console.print(what, soft_wrap=isinstance(what, Text))
            self.console.file.flush()
        except BrokenPipeError:
            self.closed = True
            # What is still buffered must have somewhere to go when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class PlainView(DemoView):
    """A line for each event."""

    def show(self, line: str) -> None:
        """Print it."""
        self._print(Text(line))


class TableView(DemoView):
    """A live table, with the latest lines below."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._lines: deque[str] = deque(maxlen=SHOWN_EVENTS)
        self._table: Table | None = None
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, line: str) -> None:
        """Keep it for the next refresh."""
        self._lines.append(line)

    def refresh(self, rows: Iterable[LiveRow], elapsed: float, seconds: float) -> None:
        """Draw anew."""
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in self._lines]
        self._live.update(Group(live_table(rows, elapsed, seconds), *lines), refresh=True)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the table on the screen; it goes when the verdict comes."""
        with self._live:
            yield


def make_view(plain: bool) -> DemoView:
    """Return the view that fits standard output.

    Args:
        plain: whether lines are asked for in any case.
    """
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty():
        return PlainView(console) if plain else TableView(console)
    console.width = PLAIN_WIDTH
    return PlainView(console)


class _Lines(io.TextIOBase):
    """A stream whose lines go to a function."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)


@contextlib.contextmanager
def captured(view: DemoView, silent: Iterable[str]) -> Iterator[None]:
    """Show as lines of a view what is written to stdout and stderr.

    Args:
        view: where to.
        silent: workers whose output is left out, for a crash writes its stack there.
    """
    prefixes = tuple(f"[{worker}] " for worker in silent)

    def take(line: str) -> None:
        if line and not line.startswith(prefixes):
            view.line(OURS, line)

    stream = _Lines(take)
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield


class LogLines(logging.Handler):
    """Shows log records, of the workers too, as lines of a view."""

    def __init__(self, view: DemoView) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        worker = str(getattr(record, "worker", OURS))
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        self._view.line(worker, text, record.created)
