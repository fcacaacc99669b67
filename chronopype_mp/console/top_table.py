"""The rows, columns and texts of ``chronopype-mp top``. Pure; `top` shows them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from chronopype_mp.console.status_table import duration
from chronopype_mp.control.messages import FleetStatus, WorkerRow

__all__ = ["COLUMNS", "Column", "CpuMeter", "TopRow", "cells", "chosen", "details", "summary"]

STALE_AFTER = 3.0
"""Seconds after which a worker that has not been heard is dimmed. It reports every second."""

CPU_READINGS = 6
"""Readings over which the CPU load of a worker is averaged: the last five intervals."""

GOOD = ("ready", "CONNECTED")
BAD = ("quarantined", "ERROR")
IDLE = ("stopped", "STOPPED", "paused")


class TopRow(NamedTuple):
    """A worker as it is shown.

    Attributes:
        row: what the fleet says of it.
        load: CPU load of its process in percent of a core; None until there are two readings.
        is_old: whether the fleet has not answered since.
    """

    row: WorkerRow
    load: float | None
    is_old: bool = False

    @property
    def status(self) -> str:
        """Its status; a worker that is paused has that one."""
        return "paused" if self.row.is_paused else self.row.status

    @property
    def is_stale(self) -> bool:
        """Whether it has not been heard for some time."""
        return self.is_old or self.row.heard is None or self.row.heard > STALE_AFTER


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        heading: its heading, of up to two lines.
        width: in characters; None for that of the longest cell.
        text: returns the text of a cell.
        order: returns what the rows are sorted by.
        is_number: whether it is aligned to the right, and sorted from the largest down.
    """

    heading: str
    width: int | None
    text: Callable[[TopRow], str]
    order: Callable[[TopRow], Any]
    is_number: bool = False


def _number(heading: str, width: int, value: Callable[[WorkerRow], float]) -> Column:
    return Column(
        heading, width, lambda top: f"{value(top.row):,}", lambda top: value(top.row), True
    )


def _milliseconds(heading: str, value: Callable[[WorkerRow], float]) -> Column:
    def text(top: TopRow) -> str:
        seconds = value(top.row)
        return f"{seconds * 1e3:.1f}" if seconds < 10.0 else f"{seconds * 1e3:.0f}"

    return Column(heading, 8, text, lambda top: value(top.row), True)


def _first_line(text: str | None) -> str:
    return text.strip().splitlines()[0] if text and text.strip() else ""


def _reason(top: TopRow) -> str:
    is_fine = top.row.network_status in ("CONNECTED", "STOPPED")
    return "" if is_fine else _first_line(top.row.network_reason)


COLUMNS = (
    Column("worker", None, lambda top: top.row.worker, lambda top: top.row.worker),
    Column("status", 11, lambda top: top.status, lambda top: top.status),
    Column("network", 13, lambda top: top.row.network_status, lambda top: top.row.network_status),
    Column("reason", 24, _reason, _reason),
    Column(
        "heard",
        6,
        lambda top: duration(top.row.heard),
        lambda top: float("inf") if top.row.heard is None else top.row.heard,
        True,
    ),
    Column("uptime", 6, lambda top: duration(top.row.uptime), lambda top: top.row.uptime, True),
    _number("run", 10, lambda row: row.run),
    _number("missed", 7, lambda row: row.missed),
    _milliseconds("lateness\np50 ms", lambda row: row.lateness_p50),
    _milliseconds("lateness\np99 ms", lambda row: row.lateness_p99),
    _milliseconds("check\np50 ms", lambda row: row.check_p50),
    _number("restarts", 8, lambda row: row.restarts),
    Column(
        "CPU\n%",
        5,
        lambda top: "-" if top.load is None else f"{top.load:.1f}",
        lambda top: top.load or 0.0,
        True,
    ),
    Column(
        "RSS\nMB",
        5,
        lambda top: f"{top.row.rss / 1e6:.0f}" if top.row.rss else "-",
        lambda top: top.row.rss,
        True,
    ),
    Column(
        "last error",
        60,
        lambda top: _first_line(top.row.last_error),
        lambda top: _first_line(top.row.last_error),
    ),
)


class CpuMeter:
    """Makes CPU loads of the CPU times that a fleet reports."""

    def __init__(self) -> None:
        self._readings: dict[str, deque[tuple[int | None, float, float]]] = {}

    def read(self, rows: Iterable[WorkerRow], now: float) -> dict[str, float]:
        """Return the loads of the workers with two readings of one process, in percent.

        Args:
            rows: the workers. Others are forgotten.
            now: when they were read, seconds.
        """
        before, loads = self._readings, {}
        self._readings = {}
        for row in rows:
            readings = before.get(row.worker, deque(maxlen=CPU_READINGS))
            if readings and readings[-1][0] != row.pid:
                readings.clear()
            readings.append((row.pid, now, row.cpu))
            self._readings[row.worker] = readings
            _, since, cpu = readings[0]
            if now > since and row.pid is not None:
                loads[row.worker] = max(0.0, row.cpu - cpu) / (now - since) * 100.0
        return loads


def chosen(
    rows: Sequence[WorkerRow],
    loads: Mapping[str, float],
    words: str,
    column: Column | None,
    *,
    is_reversed: bool = False,
    is_old: bool = False,
) -> list[TopRow]:
    """Return the rows to show, in their order.

    Args:
        rows: all workers.
        loads: what `CpuMeter` has returned.
        words: a row is shown if each word of it is in its name, status, network status, reason or
            last error. Case is ignored.
        column: by which they are sorted; None leaves them in the order of the fleet. Equal ones
            stay in that order.
        is_reversed: whether to sort the other way round.
        is_old: whether the fleet does not answer any more.
    """
    found = [TopRow(row, loads.get(row.worker), is_old) for row in rows]
    found = [top for top in found if _matches(top, words.lower().split())]
    if column is not None:
        found.sort(key=column.order, reverse=column.is_number != is_reversed)
    elif is_reversed:
        found.reverse()
    return found


def _matches(top: TopRow, words: Sequence[str]) -> bool:
    row = top.row
    parts = (row.worker, top.status, row.network_status, row.network_reason, row.last_error)
    text = "\n".join(part for part in parts if part).lower()
    return all(word in text for word in words)


def cells(top: TopRow) -> list[tuple[str, str]]:
    """Return the text and the style of each cell of a row; those of a stale one are dim."""
    texts = [(column.heading, column.text(top)) for column in COLUMNS]
    return [(text, "dim" if top.is_stale else _style(heading, text)) for heading, text in texts]


def _style(heading: str, text: str) -> str:
    if heading == "missed":
        return "" if text == "0" else "yellow"
    if heading not in ("status", "network"):
        return ""
    if text in GOOD:
        return "green"
    if text in BAD:
        return "bold red"
    return "" if text in IDLE else "yellow"


def summary(status: FleetStatus, at: float) -> str:
    """Return the line about the whole fleet.

    Args:
        status: of it.
        at: when it was read, on the wall clock.
    """
    tops = [TopRow(row, None) for row in status.workers]
    states = Counter(top.status for top in tops)
    networks = Counter(top.row.network_status for top in tops)
    parts = [
        f"{status.fleet}{' is stopping' if status.is_stopping else ''}",
        f"{len(tops)} workers: {_counted(states)}",
    ]
    networks.pop("STOPPED", None)  # those without a network, mostly
    if networks:
        parts.append(f"network: {_counted(networks)}")
    parts.append(f"{status.ticks:,} ticks of {status.tick_size:g} s")
    return "  ".join((*parts, f"pid {status.pid}", f"{datetime.fromtimestamp(at):%H:%M:%S}"))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name.lower()}" for name, count in counts.most_common()) or "none"


def details(row: WorkerRow, dossiers: Sequence[Mapping[str, Any]]) -> str:
    """Return the page about one worker: what the table has no room for, and its deaths.

    Args:
        row: the worker.
        dossiers: of its deaths, oldest first. The page has the newest first.
    """
    lines = [
        f"status       {row.status}{' (paused)' if row.is_paused else ''}, pid {row.pid or '-'}, "
        f"process {row.incarnation}",
        f"network      {row.network_status}, connected {row.connects} times"
        + (f": {row.network_reason}" if row.network_reason else ""),
        f"ticks        {row.published:,} published, {row.run:,} run, {row.missed:,} missed, "
        f"{row.skipped:,} skipped, {row.lost:,} lost",
        f"lateness     p50 {row.lateness_p50 * 1e3:.1f} ms, p99 {row.lateness_p99 * 1e3:.1f} ms; "
        f"event loop {row.lag * 1e3:.1f} ms",
        f"checks       p50 {row.check_p50 * 1e3:.1f} ms, p99 {row.check_p99 * 1e3:.1f} ms",
        f"last error   {row.last_error or '-'}",
        "",
        "Deaths, newest first:" if dossiers else "It has not died since the fleet's start.",
    ]
    for dossier in reversed(dossiers):
        at = datetime.fromtimestamp(float(dossier["at"]))
        lines += ["", f"{at:%Y-%m-%d %H:%M:%S} {dossier['report']}"]
    return "\n".join(lines)
