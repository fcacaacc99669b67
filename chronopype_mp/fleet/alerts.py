"""Which events of a fleet are worth a notification. Pure: the time is an argument."""

from __future__ import annotations

from typing import Literal

import msgspec

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.rate import TokenBucket
from chronopype_mp.core.worker_events import (
    Event,
    NetworkChanged,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStopped,
)

__all__ = ["Alerts", "Notice"]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent.

    Attributes:
        kind: what happened.
        worker: the worker's name.
        text: the same as a sentence.
        suppressed: notices that were not sent since the one before, because there were too many.
    """

    kind: Literal["death", "quarantine", "disconnected", "recovery"]
    worker: str
    text: str
    suppressed: int = 0


class Alerts:
    """Turns events into notices.

    A death, a quarantine and being disconnected for long are each followed by one recovery.

    Args:
        disconnected_after: seconds; None never reports a lost connection.
        per_minute: the most notices in a minute.
        now: the present time, seconds on a clock that does not go back, as in all calls.
    """

    def __init__(self, disconnected_after: float | None, per_minute: int, now: float) -> None:
        self._patience = disconnected_after
        self._bucket = TokenBucket(per_minute / 60.0, now, burst=per_minute)
        self._suppressed = 0
        self._down: set[str] = set()
        self._has_network: set[str] = set()
        self._lost_at: dict[str, float] = {}
        self._reported: set[str] = set()  # as disconnected

    def take(self, event: Event, now: float) -> list[Notice]:
        """Return what an event gives."""
        match event:
            case WorkerDied(worker=worker):
                self._down.add(worker)
                if worker in self._has_network:
                    self._lost_at.setdefault(worker, now)
                return self._notices("death", worker, str(event).splitlines()[0], now)
            case WorkerQuarantined(worker=worker):
                self._down.add(worker)
                text = f"worker {worker!r} is quarantined after {event.restarts} restarts"
                return self._notices("quarantine", worker, text, now)
            case WorkerReady(worker=worker) if worker in self._down:
                self._down.discard(worker)
                return self._notices("recovery", worker, f"worker {worker!r} is ready again", now)
            case WorkerStopped(worker=worker):
                self._down.discard(worker)
                self._connected(worker)
            case NetworkChanged(worker=worker):
                return self._network(event, now)
        return []

    def next_deadline(self) -> float | None:
        """Return when `overdue` may have something; None if never."""
        if self._patience is None:
            return None
        waiting = (at for worker, at in self._lost_at.items() if worker not in self._reported)
        first = min(waiting, default=None)
        return None if first is None else first + self._patience

    def overdue(self, now: float) -> list[Notice]:
        """Return the notices of workers that have not been connected for too long."""
        notices: list[Notice] = []
        while (deadline := self.next_deadline()) is not None and now >= deadline:
            waiting = self._lost_at.keys() - self._reported
            worker = min(waiting, key=lambda name: (self._lost_at[name], name))
            self._reported.add(worker)
            seconds = now - self._lost_at[worker]
            text = f"worker {worker!r} has not been connected for {seconds:.0f} s"
            notices += self._notices("disconnected", worker, text, now)
        return notices

    def suppress(self, notice: Notice) -> None:
        """Count a notice that could not be sent."""
        self._suppressed += 1 + notice.suppressed

    def _network(self, event: NetworkChanged, now: float) -> list[Notice]:
        worker = event.worker
        self._has_network.add(worker)
        if event.after is not NetworkStatus.CONNECTED:
            self._lost_at.setdefault(worker, now)
            return []
        if self._connected(worker):
            return self._notices("recovery", worker, f"worker {worker!r} is connected again", now)
        return []

    def _connected(self, worker: str) -> bool:
        """Forget that a worker was not connected; return whether that was reported."""
        self._lost_at.pop(worker, None)
        was_reported = worker in self._reported
        self._reported.discard(worker)
        return was_reported

    def _notices(
        self,
        kind: Literal["death", "quarantine", "disconnected", "recovery"],
        worker: str,
        text: str,
        now: float,
    ) -> list[Notice]:
        if not self._bucket.take(1, now):
            self._suppressed += 1
            return []
        suppressed, self._suppressed = self._suppressed, 0
        return [Notice(kind=kind, worker=worker, text=text, suppressed=suppressed)]
