"""The table of ``chronopype-mp status``. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from chronopype_mp.control.messages import FleetStatus, WorkerRow

__all__ = ["duration", "status_lines"]

HEADINGS = ("worker", "status", "network", "heard", "uptime", "run", "missed", "restarts", "rss")
LONGEST_ERROR = 100


def duration(seconds: float | None) -> str:
    """Return seconds as the two largest units that fit, such as ``"3m12s"``; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 10.0:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, size, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller}{below}"
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


def status_lines(status: FleetStatus) -> Iterator[str]:
    """Yield the lines of a table, with the reasons and errors below their workers."""
    state = "stopping" if status.is_stopping else "running"
    yield (
        f"fleet {status.fleet!r}: {state}, pid {status.pid}, {status.ticks} ticks of "
        f"{status.tick_size:g} s, chronopype_mp {status.version}"
    )
    rows = [HEADINGS, *(_cells(row) for row in status.workers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row, worker in zip(rows, (None, *status.workers), strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if worker is not None:
            yield from _notes(worker)


def _cells(row: WorkerRow) -> tuple[str, ...]:
    return (
        row.worker,
        "paused" if row.is_paused else row.status,
        row.network_status,
        duration(row.heard),
        duration(row.uptime),
        str(row.run),
        str(row.missed),
        str(row.restarts),
        f"{row.rss / 1e6:.0f} MB" if row.rss else "-",
    )


def _notes(row: WorkerRow) -> Iterator[str]:
    if row.network_reason and row.network_status not in ("CONNECTED", "STOPPED"):
        yield f"    {row.network_reason}"
    if row.last_error:
        line = row.last_error.splitlines()[0]
        yield f"    last error: {line[:LONGEST_ERROR]}"
