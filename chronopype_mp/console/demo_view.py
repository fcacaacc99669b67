"""The demo's views: a live table on a terminal, a line per event elsewhere.

While the clock runs, the coordinator writes the workers' output to stdout and stderr. A view
captures both and shows them as lines of its own, so that they do not break the table.
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
from chronopype_mp.core.worker_events import Event
from chronopype_mp.timing import wall

__all__ = ["DemoView", "LogLines", "PlainView", "TableView", "captured", "make_view"]

SHOWN_EVENTS = 10
"""Lines below the live table."""

PLAIN_WIDTH = 120
"""Columns of the verdict table if the output is not a terminal."""

OURS = "demo"
"""The name in lines that belong to no worker."""


class DemoView:
    """Shows the demo. The base class of both views.

    Args:
        console: the output.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.closed = False

    def line(self, worker: str, text: str, at: float | None = None) -> None:
        """Show a line.

        Args:
            worker: the worker that the line is about.
            text: the text without a newline.
            at: the wall-clock time in seconds; None for now.
        """
        when = datetime.fromtimestamp(wall() if at is None else at)
        self.show(f"{when:%H:%M:%S}.{when.microsecond // 1000:03d}  {worker:<12}  {text}")

    def event(self, event: Event) -> None:
        """Show an event of the clock."""
        self.line(worker_of(event), describe(event), event.at)

    def note(self, text: str) -> None:
        """Show an action of the demo itself."""
        self.line(OURS, text)

    def verdict(self, verdict: Verdict) -> None:
        """Show the verdict."""
        self._print(verdict_table(verdict))
        for line in conclusion(verdict):
            self._print(Text(line))

    def show(self, line: str) -> None:
        """Show a complete line."""
        raise NotImplementedError

    def refresh(self, rows: Iterable[LiveRow], elapsed: float, seconds: float) -> None:
        """Show the state of the workers."""

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the view on the screen, and restore the screen at the end."""
        yield

    def _print(self, what: Table | Text) -> None:
        """Print, unless the reader has gone (``| head``), which must not abort the run."""
        if self.closed:
            return
        try:
            self.console.print(what, soft_wrap=isinstance(what, Text))
            self.console.file.flush()
        except BrokenPipeError:
            self.closed = True
            # The interpreter flushes the rest of the buffer when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class PlainView(DemoView):
    """Prints a line per event."""

    def show(self, line: str) -> None:
        """Print the line."""
        self._print(Text(line))


class TableView(DemoView):
    """Shows a live table with the latest lines below."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._lines: deque[str] = deque(maxlen=SHOWN_EVENTS)
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, line: str) -> None:
        """Keep the line for the next refresh."""
        self._lines.append(line)

    def refresh(self, rows: Iterable[LiveRow], elapsed: float, seconds: float) -> None:
        """Redraw the table."""
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in self._lines]
        self._live.update(Group(live_table(rows, elapsed, seconds), *lines), refresh=True)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the table on the screen until the verdict."""
        with self._live:
            yield


def make_view(plain: bool) -> DemoView:
    """Return the view that fits standard output.

    Args:
        plain: whether the user wants lines even on a terminal.
    """
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty():
        return PlainView(console) if plain else TableView(console)
    console.width = PLAIN_WIDTH
    return PlainView(console)


class _Lines(io.TextIOBase):
    """A stream that passes each line to a function."""

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
    """Show the output on stdout and stderr as lines of a view.

    Args:
        view: the view.
        silent: the workers whose output is omitted, because a crash writes its stack there.
    """
    prefixes = tuple(f"[{worker}] " for worker in silent)

    def take(line: str) -> None:
        if line and not line.startswith(prefixes):
            view.line(OURS, line)

    stream = _Lines(take)
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield


class LogLines(logging.Handler):
    """Shows log records, including those of the workers, as lines of a view."""

    def __init__(self, view: DemoView) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Show a log record."""
        worker = str(getattr(record, "worker", OURS))
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        self._view.line(worker, text, record.created)
