"""Which worker to start, kill and start again: stimulus and time in, actions and events out.

::

    STARTING ──ready──▶ READY ──stop asked──▶ STOPPING ──exited──▶ STOPPED
       │ exited, launch failed,  │ exited, loop stalled
       │ start timeout           ▼
       └──────────────────▶ BACKOFF ──delay over──▶ STARTING (incarnation + 1)
                               └─ budget spent ─▶ QUARANTINED ──restart asked──▶ STARTING

A stop asked for while there is no process ends in STOPPED at once; while STARTING the process is
killed, because it has nothing to put in order. A restart asked for goes through STOPPING and is
not charged to the budget.

The coordinator performs the actions. It must report every process it was told to launch as exited
(or as failed to launch) exactly once; a kill does not change a worker's status, the exit does.

A deadline counts only the time in which the coordinator itself was awake: what it slept through
(SIGSTOP, a blocked event loop, a starved machine) is added to all deadlines, because a worker
whose beats were not read is not a worker that does not beat.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from chronopype_mp.core.events import (
    DeathReason,
    Event,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
    WorkerStatus,
    WorkerStopped,
    WorkerStopping,
)
from chronopype_mp.core.policy import Supervision

__all__ = [
    "Action",
    "Added",
    "Beaten",
    "CheckDeadlines",
    "Exited",
    "GotReady",
    "Kill",
    "Launch",
    "LaunchFailed",
    "RestartAsked",
    "SendStop",
    "Stimulus",
    "StopAsked",
    "Supervisor",
    "WorkerView",
]


class Added(msgspec.Struct, frozen=True):
    """A worker is to be run; ``seed`` is for the jitter of its backoff."""

    worker: str
    policy: Supervision
    seed: int | str = 0


class GotReady(msgspec.Struct, frozen=True):
    """An incarnation reported that it is ready."""

    worker: str
    incarnation: int
    pid: int


class Beaten(msgspec.Struct, frozen=True):
    """An incarnation's event loop has turned."""

    worker: str
    incarnation: int


class Exited(msgspec.Struct, frozen=True):
    """An incarnation's process has ended; the rest is as in `WorkerDied`."""

    worker: str
    incarnation: int
    pid: int
    exitcode: int | None
    output: tuple[str, ...] = ()
    error: str | None = None
    ticks_lost: int = 0


class LaunchFailed(msgspec.Struct, frozen=True):
    """No process could be started."""

    worker: str
    incarnation: int
    error: str


class StopAsked(msgspec.Struct, frozen=True):
    """The owner wants the worker stopped for good."""

    worker: str


class RestartAsked(msgspec.Struct, frozen=True):
    """The owner wants a new process."""

    worker: str


class CheckDeadlines(msgspec.Struct, frozen=True):
    """Time has passed; ``lateness`` is how much later than planned this comes, seconds."""

    lateness: float = 0.0


Stimulus = (
    Added | GotReady | Beaten | Exited | LaunchFailed | StopAsked | RestartAsked | CheckDeadlines
)


class Launch(msgspec.Struct, frozen=True):
    """Start a process."""

    worker: str
    incarnation: int


class SendStop(msgspec.Struct, frozen=True):
    """Ask the process to stop in order."""

    worker: str
    incarnation: int


class Kill(msgspec.Struct, frozen=True):
    """Kill the process and its children; if it is still being started, as soon as it is there."""

    worker: str
    incarnation: int


Action = Launch | SendStop | Kill


class WorkerView(msgspec.Struct, frozen=True):
    """What the supervisor knows of a worker."""

    status: WorkerStatus
    incarnation: int
    pid: int | None
    restarts: int


class _Worker:
    """The supervisor's record of one worker."""

    def __init__(self, name: str, policy: Supervision, seed: int | str) -> None:
        self.name = name
        self.policy = policy
        self.rng = random.Random(seed)
        self.status = WorkerStatus.STARTING
        self.incarnation = 0
        self.pid: int | None = None
        self.restarts = 0
        self.history: tuple[float, ...] = ()
        self.failures = 0
        self.launched_at = 0.0
        self.ready_at = 0.0
        self.deadline: float | None = None
        self.killed_for: DeathReason | None = None
        self.killed_on_request = False
        self.restart_after_stop = False


class Supervisor:
    """Decides for all workers of one clock. Every time is on the same monotonic clock, seconds."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}
        self._actions: list[Action] = []
        self._events: list[Event] = []
        self._handlers: dict[type, Callable[..., None]] = {
            GotReady: self._got_ready,
            Beaten: self._beaten,
            Exited: self._exited,
            LaunchFailed: self._launch_failed,
            StopAsked: self._stop_asked,
            RestartAsked: self._restart_asked,
        }

    def view(self, worker: str) -> WorkerView:
        """Return what is known of a worker.

        Raises:
            KeyError: it was never added.
        """
        w = self._workers[worker]
        return WorkerView(w.status, w.incarnation, w.pid, w.restarts)

    def forget(self, worker: str) -> None:
        """Drop a worker that is STOPPED.

        Raises:
            KeyError: it was never added.
            ValueError: it is not STOPPED.
        """
        if self._workers[worker].status is not WorkerStatus.STOPPED:
            raise ValueError(f"worker {worker!r} is {self._workers[worker].status.name}")
        del self._workers[worker]

    def handle(self, stimulus: Stimulus, now: float) -> tuple[list[Action], list[Event]]:
        """Take one stimulus; return what to do and what happened, both in order.

        A stimulus about a worker that is not there, or from an earlier incarnation, changes
        nothing.
        """
        self._actions, self._events = [], []
        if isinstance(stimulus, Added):
            self._added(stimulus, now)
        elif isinstance(stimulus, CheckDeadlines):
            for w in self._workers.values():
                self._check(w, stimulus.lateness, now)
        elif (known := self._workers.get(stimulus.worker)) is not None and getattr(
            stimulus, "incarnation", known.incarnation
        ) == known.incarnation:
            self._handlers[type(stimulus)](known, stimulus, now)
        return self._actions, self._events

    def _added(self, stimulus: Added, now: float) -> None:
        known = self._workers.get(stimulus.worker)
        if known is not None and known.status is not WorkerStatus.STOPPED:
            raise ValueError(f"worker {stimulus.worker!r} is there already")
        w = _Worker(stimulus.worker, stimulus.policy, stimulus.seed)
        if known is not None:
            # So that reports of the one that had the name before stay stale.
            w.incarnation = known.incarnation
        self._workers[w.name] = w
        self._launch(w, now)

    def _launch(self, w: _Worker, now: float) -> None:
        w.status = WorkerStatus.STARTING
        w.incarnation += 1
        w.pid = None
        w.launched_at = now
        w.deadline = now + w.policy.start_timeout
        w.killed_for = None
        w.killed_on_request = False
        w.restart_after_stop = False
        self._actions.append(Launch(w.name, w.incarnation))
        self._events.append(WorkerStarting(worker=w.name, incarnation=w.incarnation))

    def _kill(self, w: _Worker, reason: DeathReason) -> None:
        w.killed_for = reason
        w.deadline = None
        self._actions.append(Kill(w.name, w.incarnation))

    def _got_ready(self, w: _Worker, stimulus: GotReady, now: float) -> None:
        if w.status is not WorkerStatus.STARTING or w.killed_for is not None:
            return
        w.status = WorkerStatus.READY
        w.pid = stimulus.pid
        w.ready_at = now
        w.deadline = now + w.policy.loop_stall_timeout
        self._events.append(
            WorkerReady(
                worker=w.name,
                incarnation=w.incarnation,
                pid=stimulus.pid,
                seconds=now - w.launched_at,
            )
        )

    def _beaten(self, w: _Worker, _: Beaten, now: float) -> None:
        if w.status is WorkerStatus.READY and w.killed_for is None:
            w.deadline = now + w.policy.loop_stall_timeout

    def _check(self, w: _Worker, lateness: float, now: float) -> None:
        if w.deadline is None:
            return
        w.deadline += lateness
        if now < w.deadline:
            return
        match w.status:
            case WorkerStatus.STARTING:
                self._kill(w, DeathReason.START_TIMEOUT)
            case WorkerStatus.READY:
                self._kill(w, DeathReason.LOOP_STALLED)
            case WorkerStatus.STOPPING:
                self._kill(w, DeathReason.STOP_TIMEOUT)
            case WorkerStatus.BACKOFF:
                w.restarts += 1
                self._launch(w, now)

    def _exited(self, w: _Worker, stimulus: Exited, now: float) -> None:
        if w.status not in (WorkerStatus.STARTING, WorkerStatus.READY, WorkerStatus.STOPPING):
            return
        asked = w.status is WorkerStatus.STOPPING
        if not w.killed_on_request and (not asked or stimulus.exitcode != 0):
            if w.killed_for is not None:
                reason = w.killed_for
            elif stimulus.exitcode is not None and stimulus.exitcode < 0:
                reason = DeathReason.SIGNALLED
            else:
                reason = DeathReason.EXITED
            self._events.append(
                WorkerDied(
                    worker=w.name,
                    incarnation=w.incarnation,
                    pid=stimulus.pid,
                    reason=reason,
                    exitcode=stimulus.exitcode,
                    uptime=now - w.launched_at,
                    output=stimulus.output,
                    error=stimulus.error,
                    ticks_lost=stimulus.ticks_lost,
                )
            )
        self._gone(w, asked, now)

    def _launch_failed(self, w: _Worker, stimulus: LaunchFailed, now: float) -> None:
        if w.status not in (WorkerStatus.STARTING, WorkerStatus.STOPPING):
            return
        self._events.append(
            WorkerDied(
                worker=w.name,
                incarnation=w.incarnation,
                pid=None,
                reason=DeathReason.START_FAILED,
                exitcode=None,
                uptime=now - w.launched_at,
                error=stimulus.error,
            )
        )
        self._gone(w, w.status is WorkerStatus.STOPPING, now)

    def _gone(self, w: _Worker, asked: bool, now: float) -> None:
        """Decide what follows the end of a process."""
        ready_for = now - w.ready_at if w.status is WorkerStatus.READY else 0.0
        w.pid = None
        if asked and w.restart_after_stop:
            w.restarts += 1
            self._launch(w, now)
        elif asked:
            self._stopped(w)
        else:
            self._retry(w, ready_for, now)

    def _retry(self, w: _Worker, ready_for: float, now: float) -> None:
        if ready_for >= w.policy.healthy_after:
            w.failures = 0
        w.failures += 1
        delay = w.policy.backoff.delay(w.failures, w.rng)
        history = w.policy.budget.spend(w.history, now)
        if history is None:
            w.status = WorkerStatus.QUARANTINED
            w.deadline = None
            self._events.append(WorkerQuarantined(worker=w.name, restarts=w.restarts))
            return
        w.history = history
        w.status = WorkerStatus.BACKOFF
        w.deadline = now + delay
        self._events.append(WorkerBackingOff(worker=w.name, delay=delay, restarts=w.restarts))

    def _stopped(self, w: _Worker) -> None:
        w.status = WorkerStatus.STOPPED
        w.deadline = None
        self._events.append(WorkerStopped(worker=w.name))

    def _stop_asked(self, w: _Worker, _: StopAsked, now: float) -> None:
        match w.status:
            case WorkerStatus.BACKOFF | WorkerStatus.QUARANTINED:
                self._stopped(w)
            case WorkerStatus.STOPPING:
                w.restart_after_stop = False
            case WorkerStatus.STARTING | WorkerStatus.READY:
                self._begin_stop(w, now)
            case WorkerStatus.STOPPED:
                pass

    def _begin_stop(self, w: _Worker, now: float) -> None:
        was_ready = w.status is WorkerStatus.READY
        w.status = WorkerStatus.STOPPING
        self._events.append(WorkerStopping(worker=w.name, incarnation=w.incarnation))
        if was_ready and w.killed_for is None:
            w.deadline = now + w.policy.stop_grace
            self._actions.append(SendStop(w.name, w.incarnation))
        elif w.killed_for is None:
            w.killed_on_request = True
            w.deadline = None
            self._actions.append(Kill(w.name, w.incarnation))

    def _restart_asked(self, w: _Worker, _: RestartAsked, now: float) -> None:
        match w.status:
            case WorkerStatus.BACKOFF | WorkerStatus.QUARANTINED:
                w.history = ()
                w.failures = 0
                w.restarts += 1
                self._launch(w, now)
            case WorkerStatus.READY:
                self._begin_stop(w, now)
                w.restart_after_stop = True
            case _:
                pass
