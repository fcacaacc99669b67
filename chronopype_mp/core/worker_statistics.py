"""WorkerStatistics: the figures of a worker, or of several together."""

from __future__ import annotations

from typing import Any

import msgspec

from chronopype_mp.core.histogram import Histogram

__all__ = ["WorkerStatistics"]

SUMS = (
    "published",
    "run",
    "missed",
    "skipped",
    "lost",
    "restarts",
    "reports_lost",
    "output_lines",
    "frames_dropped",
    "rss",
    "cpu",
    "uptime",
    "connects",
    "connected_seconds",
    "snapshot_bytes",
    "outputs_emitted",
    "outputs_sent",
    "outputs_dropped",
    "messages_received",
    "message_gaps",
)

MAXIMA = ("largest_gap", "lag")

EARLIEST = ("last_heard", "next_attempt", "snapshot_at")

HISTOGRAMS = ("executions", "lateness", "check_latency")


class WorkerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's figures at one moment. Times of day are on the wall clock, in seconds.

    Over all processes of the worker in this run of the clock:

    Attributes:
        published: ticks published while the worker was READY; at the end it is the sum of the
            next four.
        run: ticks executed, successfully or not.
        missed: ticks replaced by a newer one while the worker was busy, or dropped on the way.
        skipped: ticks held back while paused or not connected.
        lost: ticks that a process which died did not account for.
        largest_gap: between the timestamps of two ticks executed in a row by one incarnation,
            seconds; ticks skipped between two make no gap.
        executions: how long the ticks took that succeeded.
        lateness: from the deadline of each tick that was begun to the entry of its hook. Empty in
            free runs, and with a clock on time of its own (`ManualClock`).
        restarts: processes started after the first.
        output_lines: lines that the worker has printed, shown or not.
        last_heard: when the last report of its event loop came in; None before the first.
        check_latency: how long the network checks took, also those that failed or timed out.
        connects: how often the network status has become CONNECTED.
        connected_seconds: how long it was CONNECTED.
        outputs_emitted: calls of ``emit``, whether somebody reads the topic or not.
        outputs_sent: outputs sent to the owner, because somebody reads their topics.
        outputs_dropped: outputs dropped in the worker, because they were not read in time. What a
            reader of the owner has dropped is in its ``dropped``.
        messages_received: messages of other processors for its subscriptions.
        message_gaps: messages that did not arrive, counted where a later one of the same process
            and topic did.
        network_error: the last error of the network; None if there was none.
        network_error_at: when that was reported.
        snapshot_at: when the snapshot was taken that the next process gets; None without one.
        snapshot_bytes: its size.

    Of the present process, which begin again with each one:

    Attributes:
        lag: how late its event loop was at its last beat, seconds.
        reports_lost: reports and log lines that it had to drop.
        frames_dropped: frames that it received and could not decode.
        rss: its resident memory, bytes; 0 with the inline launcher, and without a process.
        cpu: CPU time that it has used, seconds; likewise.
        uptime: since its start, seconds; 0.0 without a process.
        next_attempt: when the next attempt to connect is due; None if one runs, or none is planned.
        network_reason: why the network status is what it is; None before the first report.
        network_since: since when.

    What a process has not reported before it died is not in them: at most what has happened since
    its last beat.
    """

    published: int = 0
    run: int = 0
    missed: int = 0
    skipped: int = 0
    lost: int = 0
    largest_gap: float = 0.0
    executions: Histogram = Histogram()
    lateness: Histogram = Histogram()
    restarts: int = 0
    output_lines: int = 0
    last_heard: float | None = None
    check_latency: Histogram = Histogram()
    connects: int = 0
    connected_seconds: float = 0.0
    outputs_emitted: int = 0
    outputs_sent: int = 0
    outputs_dropped: int = 0
    messages_received: int = 0
    message_gaps: int = 0
    network_error: str | None = None
    network_error_at: float | None = None
    snapshot_at: float | None = None
    snapshot_bytes: int = 0
    lag: float = 0.0
    reports_lost: int = 0
    frames_dropped: int = 0
    rss: int = 0
    cpu: float = 0.0
    uptime: float = 0.0
    next_attempt: float | None = None
    network_reason: str | None = None
    network_since: float | None = None

    def merged(self, other: WorkerStatistics) -> WorkerStatistics:
        """Return the figures of two workers, or groups of workers, together.

        The order does not matter, and ``WorkerStatistics()`` changes nothing. Counts, times and
        memory are added up. Of ``largest_gap`` and ``lag`` it is the larger one, of ``last_heard``,
        ``next_attempt`` and ``snapshot_at`` the earlier one, of the network's error and reason the
        latest one.
        """
        mine, its = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        both: dict[str, Any] = {name: mine[name] + its[name] for name in SUMS}
        both |= {name: max(mine[name], its[name]) for name in MAXIMA}
        both |= {name: mine[name].merged(its[name]) for name in HISTOGRAMS}
        for name in EARLIEST:
            both[name] = min(filter(_is_known, (mine[name], its[name])), default=None)
        for text, at in (
            ("network_error", "network_error_at"),
            ("network_reason", "network_since"),
        ):
            latest = max((mine, its), key=lambda each: _age(each[at], each[text]))
            both |= {text: latest[text], at: latest[at]}
        return WorkerStatistics(**both)


def _is_known(value: object) -> bool:
    return value is not None


def _age(at: float | None, text: str | None) -> tuple[bool, float, str]:
    """Return what orders texts by their times, those without any first."""
    return at is not None, at or 0.0, text or ""
