"""Which worker to start, kill and start again: stimulus and time in, actions and events out.

::

    STARTING ──ready──▶ READY ──stop asked──▶ STOPPING ──exited──▶ STOPPED
       │ exited, launch failed,  │ exited, not heard of, limit exceeded (by way of STOPPING)
       │ start timeout           ▼
       └──────────────────▶ BACKOFF ──delay over──▶ STARTING (incarnation + 1)
                               ├─ budget spent ─▶ QUARANTINED ──restart asked, probation──▶ STARTING
                               └─ restart type says never ─▶ STOPPED

A worker that is not heard of for ``loop_stall_timeout`` is probed; `liveness.classify` says why.
One that hangs is killed; one that lives but cannot be heard, or exceeds a limit, is stopped in
order first. A stop asked for while there is no process ends in STOPPED at once; while STARTING the
process is killed, because it has nothing to put in order. A restart asked for is not charged.

Groups: when a member dies, those that the strategy names are stopped in order, and all start again
together once the last of them has ended. They share the fate of the one that died: if that is
quarantined or not restarted, so are they.

The whole clock has a budget too. A restart beyond it is put off, not refused.

The coordinator performs the actions. It must report every process it was told to launch as exited
(or as failed to launch) exactly once; a kill does not change a worker's status, the exit does.

A deadline counts only the time in which the coordinator itself was awake: what it slept through
(SIGSTOP, a blocked event loop, a starved machine) is added to the deadlines of all processes,
because a worker whose beats were not read is not a worker that does not beat.
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
    WorkerUnkillable,
)
from chronopype_mp.core.limits import Excess, LimitWatch
from chronopype_mp.core.liveness import Signs, classify
from chronopype_mp.core.policy import RestartType
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.stimuli import (
    Action,
    Added,
    Beaten,
    CheckDeadlines,
    Evidence,
    Exited,
    GotReady,
    GuardBeaten,
    Kill,
    Launch,
    LaunchFailed,
    Probe,
    Probed,
    RestartAsked,
    SendStop,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.supervised import PROCESS, Supervised, affected

__all__ = ["CLOCK_BUDGET", "Supervisor", "WorkerView"]

CLOCK_BUDGET = RestartBudget(max_restarts=10, window=1.0)
"""Restarts of all workers together: one outage cannot restart a hundred in the same second."""

REAP_TIMEOUT = 5.0
"""Seconds from a kill to the end of the process, after which it counts as unkillable."""

PROBE_TIMEOUT = 1.0
"""Seconds for the answer to a probe."""


class WorkerView(msgspec.Struct, frozen=True):
    """What the supervisor knows of a worker."""

    status: WorkerStatus
    incarnation: int
    pid: int | None
    restarts: int


class Supervisor:
    """Decides for all workers of one clock. Every time is on the same monotonic clock, seconds.

    Args:
        budget: the restarts of all workers together.
    """

    def __init__(self, budget: RestartBudget = CLOCK_BUDGET) -> None:
        self._budget = budget
        self._history: tuple[float, ...] = ()
        self._rng = random.Random(0)
        self._workers: dict[str, Supervised] = {}
        self._actions: list[Action] = []
        self._events: list[Event] = []
        self._handlers: dict[type, Callable[..., None]] = {
            GotReady: self._got_ready,
            Beaten: self._beaten,
            GuardBeaten: self._guard_beaten,
            Probed: self._probed,
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

    def next_deadline(self) -> float | None:
        """Return when `CheckDeadlines` has something to do next; None if never."""
        deadlines = [w.deadline for w in self._workers.values() if w.deadline is not None]
        return min(deadlines, default=None)

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
                if w.deadline is not None and w.status in PROCESS:
                    w.deadline += stimulus.lateness
                self._check(w, now)
        elif (known := self._workers.get(stimulus.worker)) is not None and getattr(
            stimulus, "incarnation", known.incarnation
        ) == known.incarnation:
            self._handlers[type(stimulus)](known, stimulus, now)
        return self._actions, self._events

    # Starting

    def _added(self, stimulus: Added, now: float) -> None:
        known = self._workers.get(stimulus.worker)
        if known is not None and known.status is not WorkerStatus.STOPPED:
            raise ValueError(f"worker {stimulus.worker!r} is there already")
        w = Supervised(stimulus)
        if known is not None:
            # So that reports of the one that had the name before stay stale.
            w.incarnation = known.incarnation
        # A worker added anew comes last in its group.
        self._workers.pop(w.name, None)
        self._workers[w.name] = w
        self._launch(w, now)

    def _launch(self, w: Supervised, now: float) -> None:
        w.reset(now)
        w.status = WorkerStatus.STARTING
        w.incarnation += 1
        w.leader = None
        w.deadline = now + w.policy.start_timeout
        self._actions.append(Launch(w.name, w.incarnation))
        self._events.append(WorkerStarting(worker=w.name, incarnation=w.incarnation))

    def _launch_again(self, w: Supervised, now: float) -> None:
        """Launch a worker, and those of its group that wait for it, in the order of adding."""
        for member in [m for m in self._workers.values() if m is w or m.leader == w.name]:
            if member.status in (WorkerStatus.BACKOFF, WorkerStatus.QUARANTINED):
                member.restarts += 1
                self._launch(member, now)

    def _got_ready(self, w: Supervised, stimulus: GotReady, now: float) -> None:
        if w.status is not WorkerStatus.STARTING or w.ending is not None or w.kill_sent:
            return
        w.status = WorkerStatus.READY
        w.pid = stimulus.pid
        w.ready_at = w.guard_at = now
        w.deadline = now + w.policy.loop_stall_timeout
        w.limits = LimitWatch(w.policy.limits, now, w.rng)
        self._events.append(
            WorkerReady(
                worker=w.name,
                incarnation=w.incarnation,
                pid=stimulus.pid,
                seconds=now - w.launched_at,
            )
        )

    # Being heard of

    def _beaten(self, w: Supervised, stimulus: Beaten, now: float) -> None:
        w.rss, w.cpu = stimulus.rss, stimulus.cpu
        if w.status is not WorkerStatus.READY or w.ending is not None:
            return
        w.probing = False
        w.stalled = 0.0
        w.deadline = now + w.policy.loop_stall_timeout
        assert w.limits is not None
        excess = w.limits.expired(now) or w.limits.sample(now, stimulus.rss, stimulus.cpu)
        if excess is not None:
            self._exceeded(w, excess, now)

    def _exceeded(self, w: Supervised, excess: Excess, now: float) -> None:
        w.uncharged = not excess.charged
        self._end_in_order(w, DeathReason.LIMIT_EXCEEDED, excess.detail, now)

    def _guard_beaten(self, w: Supervised, stimulus: GuardBeaten, now: float) -> None:
        w.guard_at = now
        w.stalled = stimulus.stalled

    def _probed(self, w: Supervised, stimulus: Probed, now: float) -> None:
        if not w.probing or w.status is not WorkerStatus.READY or w.ending is not None:
            return
        reason = classify(
            Signs(
                process_stopped=stimulus.process_stopped,
                stacks_written=stimulus.stacks_written,
                guard_silent=now - w.guard_at,
                guard_interval=w.policy.beat_interval,
                stalled=w.stalled,
            )
        )
        timeout = f"loop_stall_timeout of {w.policy.loop_stall_timeout:g} s"
        if reason is DeathReason.UNREACHABLE:
            detail = f"no beat within the {timeout}, though the process runs"
            self._end_in_order(w, reason, detail, now)
        else:
            detail = {
                DeathReason.STOPPED: "the process was stopped (SIGSTOP, or a debugger)",
                DeathReason.LOOP_BLOCKED: f"the event loop did not turn within the {timeout}",
                DeathReason.GIL_STUCK: f"no thread could run Python within the {timeout}",
            }[reason]
            self._kill(w, reason, detail, now)

    # Deadlines

    def _check(self, w: Supervised, now: float) -> None:
        if w.deadline is None or now < w.deadline:
            return
        match w.status:
            case WorkerStatus.BACKOFF:
                self._end_backoff(w, now)
            case WorkerStatus.QUARANTINED:
                w.on_probation = True
                self._launch_again(w, now)
            case _ if w.kill_sent:
                w.deadline = None
                self._events.append(
                    WorkerUnkillable(worker=w.name, incarnation=w.incarnation, pid=w.pid)
                )
            case WorkerStatus.STARTING:
                detail = f"not ready within the start_timeout of {w.policy.start_timeout:g} s"
                self._kill(w, DeathReason.START_FAILED, detail, now)
            case WorkerStatus.STOPPING:
                detail = f"did not stop within the stop_grace of {w.policy.stop_grace:g} s"
                self._kill(w, w.ending or DeathReason.STOP_TIMEOUT, w.detail or detail, now)
            case WorkerStatus.READY if not w.probing:
                w.probing = True
                w.deadline = now + PROBE_TIMEOUT
                self._actions.append(Probe(w.name, w.incarnation))
            case WorkerStatus.READY:
                detail = "no beat, and nothing could be found out about the process"
                self._kill(w, DeathReason.UNREACHABLE, detail, now)

    def _end_backoff(self, w: Supervised, now: float) -> None:
        if any(m.leader == w.name and m.status in PROCESS for m in self._workers.values()):
            w.deadline = None  # the last of them to end comes back here
            return
        history = self._budget.spend(self._history, now)
        if history is None:
            oldest = self._history[-self._budget.max_restarts] if self._history else now
            spread = self._rng.uniform(0.0, self._budget.window / 10)
            w.deadline = oldest + self._budget.window + spread
            return
        self._history = history
        self._launch_again(w, now)

    # Ending a process

    def _kill(
        self, w: Supervised, reason: DeathReason | None, detail: str | None, now: float
    ) -> None:
        w.ending, w.detail = reason, detail
        w.kill_sent = True
        w.deadline = now + REAP_TIMEOUT
        self._actions.append(Kill(w.name, w.incarnation))

    def _end_in_order(
        self, w: Supervised, reason: DeathReason | None, detail: str | None, now: float
    ) -> None:
        """Stop a READY worker in order, for ``reason`` or because it was asked for."""
        w.ending, w.detail = reason, detail
        w.status = WorkerStatus.STOPPING
        w.deadline = now + w.policy.stop_grace
        self._actions.append(SendStop(w.name, w.incarnation))
        self._events.append(WorkerStopping(worker=w.name, incarnation=w.incarnation, detail=detail))

    def _begin_stop(self, w: Supervised, now: float) -> None:
        """Stop a worker that has a process; what follows is in ``wanted`` or ``leader``."""
        if w.kill_sent:
            w.status = WorkerStatus.STOPPING
            self._events.append(WorkerStopping(worker=w.name, incarnation=w.incarnation))
        elif w.status is WorkerStatus.READY:
            self._end_in_order(w, None, None, now)
        elif w.status is WorkerStatus.STARTING:
            w.status = WorkerStatus.STOPPING
            w.killed_on_request = True
            self._events.append(WorkerStopping(worker=w.name, incarnation=w.incarnation))
            self._kill(w, None, None, now)

    # The end of a process

    def _exited(self, w: Supervised, stimulus: Exited, now: float) -> None:
        if w.status not in PROCESS:
            return
        evidence = stimulus.evidence
        asked = w.status is WorkerStatus.STOPPING and w.ending is None
        if not w.killed_on_request and not (asked and evidence.exitcode == 0):
            self._died(w, self._reason(w, evidence.exitcode), evidence, now)
        self._gone(w, evidence.exitcode, now)

    def _reason(self, w: Supervised, exitcode: int | None) -> DeathReason:
        if w.ending is not None:
            return w.ending
        if w.status is WorkerStatus.STARTING:
            return DeathReason.START_FAILED
        if exitcode is not None and exitcode < 0:
            return DeathReason.SIGNALLED
        return DeathReason.EXITED

    def _launch_failed(self, w: Supervised, stimulus: LaunchFailed, now: float) -> None:
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
                detail="no process could be started",
                error=stimulus.error,
            )
        )
        self._gone(w, None, now)

    def _died(self, w: Supervised, reason: DeathReason, evidence: Evidence, now: float) -> None:
        self._events.append(
            WorkerDied(
                worker=w.name,
                incarnation=w.incarnation,
                reason=reason,
                uptime=now - w.launched_at,
                detail=w.detail,
                rss=w.rss,
                cpu=w.cpu,
                **{name: getattr(evidence, name) for name in Evidence.__struct_fields__},
            )
        )

    def _gone(self, w: Supervised, exitcode: int | None, now: float) -> None:
        """Decide what follows the end of a process."""
        w.pid = None
        w.deadline = None
        if w.wanted is StopAsked:
            self._stopped(w, now)
        elif w.wanted is RestartAsked:
            w.restarts += 1
            self._launch(w, now)
        elif w.leader is not None:
            self._follow(w, now)
        else:
            self._retry(w, exitcode, now)

    def _retry(self, w: Supervised, exitcode: int | None, now: float) -> None:
        if not self._is_restarted(w, exitcode):
            self._stopped(w, now)
            return
        if w.ready_at is not None and now - w.ready_at >= w.policy.healthy_after:
            w.failures, w.history, w.on_probation = 0, (), False
        followers = self._take_along(w, now)
        history = w.policy.budget.spend(w.history, now)
        if not w.uncharged and (history is None or w.on_probation):
            self._quarantine(w, now)
            return
        if not w.uncharged:
            w.history = history or ()
            w.failures += 1
        delay = 0.0 if w.failures <= 1 else w.policy.backoff.delay(w.failures - 1, w.rng)
        w.status = WorkerStatus.BACKOFF
        w.deadline = now + delay
        self._events.append(WorkerBackingOff(worker=w.name, delay=delay, restarts=w.restarts))
        if not followers:
            self._check(w, now)

    def _is_restarted(self, w: Supervised, exitcode: int | None) -> bool:
        if w.policy.restart is RestartType.TEMPORARY:
            return False
        if w.ending is not None:
            return True
        if exitcode in w.policy.no_restart_exit_codes:
            return False
        normal = exitcode == 0 and w.ready_at is not None
        return not (normal and w.policy.restart is RestartType.TRANSIENT)

    def _quarantine(self, w: Supervised, now: float) -> None:
        w.status = WorkerStatus.QUARANTINED
        interval = w.policy.probation_interval
        w.deadline = None if interval is None else now + interval
        self._events.append(WorkerQuarantined(worker=w.name, restarts=w.restarts))
        for member in self._workers.values():
            if member.leader == w.name and member.status is WorkerStatus.BACKOFF:
                self._follow(member, now)

    def _stopped(self, w: Supervised, now: float) -> None:
        w.status = WorkerStatus.STOPPED
        w.deadline = None
        leader, w.leader = w.leader, None
        self._events.append(WorkerStopped(worker=w.name))
        for member in self._workers.values():
            if member.leader == w.name and member.status not in PROCESS:
                self._follow(member, now)
        self._leader_may_go_on(leader, now)

    # Groups

    def _take_along(self, w: Supervised, now: float) -> bool:
        """Stop those that are restarted with a member that died; return whether there are any."""
        followers = affected(w, self._workers.values())
        for member in followers:
            member.leader = w.name
            self._begin_stop(member, now)
        return bool(followers)

    def _follow(self, w: Supervised, now: float) -> None:
        """Share the fate of the leader; ``w`` has no process."""
        assert w.leader is not None
        leader = self._workers.get(w.leader)
        status = None if leader is None else leader.status
        if status is WorkerStatus.QUARANTINED:
            w.status = WorkerStatus.QUARANTINED
            w.deadline = None
            self._events.append(WorkerQuarantined(worker=w.name, restarts=w.restarts))
        elif status is WorkerStatus.BACKOFF:
            w.status = WorkerStatus.BACKOFF
            w.deadline = None  # starts with its leader
            self._leader_may_go_on(w.leader, now)
        else:
            # The owner has stopped or restarted the leader meanwhile.
            w.leader = None
            w.status = WorkerStatus.BACKOFF
            w.deadline = now

    def _leader_may_go_on(self, name: str | None, now: float) -> None:
        """Let a leader whose backoff is over start, if the last of its followers has ended."""
        leader = None if name is None else self._workers.get(name)
        if leader is not None and leader.status is WorkerStatus.BACKOFF:
            if leader.leader is None and leader.deadline is None:
                leader.deadline = now
            self._check(leader, now)

    # What the owner asks for

    def _stop_asked(self, w: Supervised, _: StopAsked, now: float) -> None:
        match w.status:
            case WorkerStatus.BACKOFF | WorkerStatus.QUARANTINED:
                self._stopped(w, now)
            case WorkerStatus.STOPPING:
                w.wanted = StopAsked
            case WorkerStatus.STARTING | WorkerStatus.READY:
                w.wanted = StopAsked
                self._begin_stop(w, now)
            case WorkerStatus.STOPPED:
                pass

    def _restart_asked(self, w: Supervised, _: RestartAsked, now: float) -> None:
        match w.status:
            case WorkerStatus.BACKOFF | WorkerStatus.QUARANTINED:
                first = w if w.leader is None else self._workers.get(w.leader, w)
                if any(
                    m.leader == first.name and m.status in PROCESS for m in self._workers.values()
                ):
                    return  # its group is being restarted, and so will it be
                for member in (first, w):
                    member.history, member.failures, member.on_probation = (), 0, False
                self._launch_again(first, now)
            case WorkerStatus.READY:
                w.wanted = RestartAsked
                self._begin_stop(w, now)
            case _:
                pass
