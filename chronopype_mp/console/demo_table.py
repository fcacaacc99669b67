"""The demo's live table and verdict table. Pure: values in, renderables out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from chronopype_mp.console.demo_record import brief
from chronopype_mp.console.verdict import TROUBLE_DUE, Judgement, Role, Verdict, WorkerRecord
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import WorkerStatus

__all__ = ["LiveRow", "conclusion", "live_table", "verdict_table"]

COUNTS = ("due", "run", "missed", "skipped", "lost")


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one worker at one moment."""

    worker: str
    role: Role
    status: WorkerStatus
    network: NetworkStatus
    due: int
    run: int
    missed: int
    skipped: int
    lost: int
    largest_gap: float
    restarts: int


def live_table(rows: Iterable[LiveRow], elapsed: float, seconds: float) -> Table:
    """Return the table shown while the demo runs.

    Args:
        rows: one row per worker.
        elapsed: seconds since the start of the run.
        seconds: the duration of the run.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,  # to fit into 80 columns
        show_edge=False,
        title=f"chronopype-mp demo, {min(elapsed, seconds):.0f} of {seconds:g} s",
        title_justify="left",
    )
    for name in ("worker", "process", "network"):
        table.add_column(name, no_wrap=True)
    for name in (*COUNTS, "gap", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.worker,
            Text(row.status.value, "" if row.status is WorkerStatus.READY else "red"),
            Text(row.network.name, "green" if row.network is NetworkStatus.CONNECTED else "yellow"),
            *(str(getattr(row, name)) for name in COUNTS),
            f"{row.largest_gap:.2f}",
            str(row.restarts),
        )
    return table


def verdict_table(verdict: Verdict) -> Table:
    """Return the table that is shown at the end, with the result of each worker."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="Verdict", title_justify="left")
    table.add_column("worker", no_wrap=True)
    for name in (*COUNTS, "gap s", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for judgement in verdict.judgements:
        record = judgement.record
        table.add_row(
            record.worker,
            *(str(getattr(record, name)) for name in COUNTS),
            f"{record.largest_gap:.3f}",
            str(record.restarts),
            _word(judgement, verdict.trouble_due),
        )
    return table


def _word(judgement: Judgement, trouble_due: bool) -> Text:
    if judgement.problems:
        return Text("BAD", "bold red")
    if judgement.record.role is Role.HEALTHY or trouble_due:
        return Text("good", "green")
    return Text("not judged", "yellow")


def conclusion(verdict: Verdict) -> list[str]:
    """Return the verdict as lines of text."""
    healthy = _names(verdict, Role.HEALTHY)
    lines = ["The role of each worker, and the states of its network or what it did:"]
    lines += [
        f"  {record.worker}: {_part(record)}: "
        f"{record.summary or brief(record.statuses) or 'nothing'}"
        for record in (judgement.record for judgement in verdict.judgements)
    ]
    lines += [
        f"Expected healthy: {healthy}. A healthy worker misses and loses no tick, is not restarted "
        "and stays connected. It may skip ticks before its first connection.",
        "gap: the longest time between two consecutive ticks of one process. Ticks that are held "
        "back while not connected do not count.",
    ]
    if verdict.unpublished:
        lines.append(
            f"The machine was too busy for the clock: {verdict.unpublished} ticks were never "
            "published."
        )
    if not verdict.trouble_due:
        lines.append(
            f"The faults were not judged, because that takes a full run of {TROUBLE_DUE:g} s or "
            "more."
        )
    lines += [
        f"BAD: {judgement.record.worker} ({judgement.record.role.value}): {problem}"
        for judgement in verdict.judgements
        for problem in judgement.problems
    ]
    if verdict.ok and verdict.trouble_due:
        lines.append(
            "GOOD: all faulty workers recovered, and no healthy worker was affected. All feeds of "
            "the exchange came back. The strategy kept its positions."
        )
    elif verdict.ok and not any(judgement.record.due for judgement in verdict.judgements):
        lines.append("No tick was due, so there is nothing to judge.")
    elif verdict.ok:
        lines.append("GOOD: no healthy worker was affected.")
    return lines


def _part(record: WorkerRecord) -> str:
    """Return a worker's role; if trouble is scripted, that."""
    return record.role.value if record.trouble is None else f"scripted trouble: {record.trouble}"


def _names(verdict: Verdict, role: Role) -> str:
    records = [judgement.record for judgement in verdict.judgements]
    return ", ".join(record.worker for record in records if record.role is role)
