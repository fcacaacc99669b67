"""Collects the history of the demo's workers from the clock's events. Pure."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable

from chronopype_mp.clocks import ClockStopEvent
from chronopype_mp.console.verdict import Death
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import (
    DeathReason,
    Event,
    NetworkChanged,
    ProcessorFailed,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
    WorkerStopped,
    WorkerStopping,
)

__all__ = ["History", "brief", "describe", "worker_of"]

KILLED_BECAUSE = {
    DeathReason.LOOP_BLOCKED: "killed: its event loop was blocked",
    DeathReason.GIL_STUCK: "killed: none of its threads could run Python",
    DeathReason.STOPPED: "killed: its process was stopped",
    DeathReason.UNREACHABLE: "stopped: it was unreachable",
    DeathReason.LIMIT_EXCEEDED: "stopped: it exceeded a limit",
    DeathReason.STOP_TIMEOUT: "killed: it did not stop in time",
    DeathReason.START_FAILED: "could not start",
}


class History:
    """The history of one worker."""

    def __init__(self) -> None:
        self.readies = 0
        self.deaths: list[Death] = []
        self.statuses: list[NetworkStatus] = []

    def take(self, event: Event) -> None:
        """Record an event of this worker."""
        match event:
            case WorkerReady():
                self.readies += 1
            case WorkerDied():
                self.deaths.append(Death(event.reason, event.exitcode))
            case NetworkChanged():
                self.statuses.append(event.after)


def worker_of(event: Event) -> str:
    """Return the name of the worker that an event is about, or ``"clock"``."""
    return str(getattr(event, "worker", "clock"))


def describe(event: Event) -> str:
    """Describe an event in one line, without its time and its worker."""
    match event:
        case WorkerStarting():
            return f"starting process {event.incarnation}"
        case WorkerReady():
            return f"ready after {event.seconds:.2f} s, pid {event.pid}"
        case WorkerDied():
            return _death(event)
        case WorkerBackingOff():
            return f"restarting in {event.delay:.1f} s"
        case WorkerQuarantined():
            return f"quarantined after {event.restarts} restarts"
        case WorkerStopping():
            return "stopping"
        case WorkerStopped():
            return "stopped"
        case NetworkChanged():
            reason = event.error or event.reason
            why = f" ({_first_line(reason)})" if reason else ""
            return f"network {event.before.name} -> {event.after.name}{why}"
        case ProcessorFailed():
            what = f"{event.type_name}: {_first_line(event.message)}".removesuffix(": ")
            return f"{event.hook} failed: {what}"
        case ClockStopEvent():
            return f"stopped after {event.total_ticks} ticks"
        case _:
            return repr(event)


def _death(event: WorkerDied) -> str:
    how = KILLED_BECAUSE.get(event.reason) or f"died: {_exit(event.exitcode)}"
    lost = f"; {event.ticks_lost} ticks lost" if event.ticks_lost else ""
    error = f"; {_last_line(event.error)}" if event.error else ""
    return f"{how}, {event.uptime:.1f} s after its start{lost}{error}"


def _exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def brief(statuses: Iterable[NetworkStatus]) -> str:
    """List each status once, with its number of occurrences: ``CONNECTED x2``."""
    return ", ".join(
        status.name if times == 1 else f"{status.name} x{times}"
        for status, times in Counter(statuses).items()
    )
