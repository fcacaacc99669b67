"""Which worker to start, kill and restart: stimulus and time in, actions and events out.

::

    STARTING ──ready──▶ READY ──stop──▶ STOPPING ──exited──▶ STOPPED ──start asked──▶ STARTING
       │ exited, launch failed,  │ exited, no beat, limit exceeded (via STOPPING)
       │ start timeout           ▼
       └──────────────────▶ BACKOFF ──delay over──▶ STARTING (incarnation + 1)
                               ├─ budget spent ─▶ QUARANTINED ──restart asked, probation──▶ STARTING
                               └─ restart type says never ─▶ STOPPED

A worker that sends no beat for ``loop_stall_timeout``, or does not start or stop in time, is
probed. `liveness.classify` finds the reason. A worker that hangs is killed. A worker that runs but
cannot be heard, or exceeds a limit, is stopped gracefully first. A stop requested while there is no
process ends in STOPPED at once. A stop requested while STARTING kills the process, which has no
work to finish. A requested start or restart is not charged. A start that is requested while the
worker is being stopped follows the stop. A worker that cannot load its payload is quarantined at
once, without probation.

Groups: when a member dies and is restarted, the members that the strategy names are stopped
gracefully. All of them restart together once the last one has ended (a `Restart`). They share the
backoff and the quarantine of the member that died. Members that are about to start join them. If
the owner stops the member that died, the others start without it.

The whole clock has a budget, too. A restart that exceeds it is delayed, not refused. Every process
counts; a group larger than the budget takes all of it.

The coordinator performs the actions. It reports every process that it was told to launch as exited
(or as failed to launch) exactly once. A kill does not change a worker's status; the exit does. Only
a process that outlives its kill becomes STOPPING, so that no worker stays READY without a process.

A deadline counts only time in which the coordinator itself was awake. Time that it slept through
(SIGSTOP, a blocked event loop, a starved machine) is added to the deadlines of all processes,
because unread beats are not missing beats.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from chronopype_mp.core.limits import Excess, LimitWatch
from chronopype_mp.core.liveness import Signs, classify
from chronopype_mp.core.policy import RestartType, Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.stimuli import (
    Action,
    Added,
    BeatReceived,
    Begun,
    CheckDeadlines,
    Deferred,
    Evidence,
    Exited,
    GotReady,
    GuardBeatReceived,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    PolicyChanged,
    Probe,
    Probed,
    RestartAsked,
    SendStop,
    StartAsked,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.supervised import PROCESS, Restart, Supervised, affected
from chronopype_mp.core.worker_events import (
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

__all__ = ["CLOCK_BUDGET", "Supervisor", "WorkerView"]

OWN_FIELDS = ("killed", "unloadable", "trouble")

DOSSIER_FIELDS = [name for name in Evidence.__struct_fields__ if name not in OWN_FIELDS]

CLOCK_BUDGET = RestartBudget(max_restarts=10, window=1.0)
"""Restarts of all workers together: one outage cannot restart a hundred in the same second."""

REAP_TIMEOUT = 5.0
"""Seconds from a kill to the end of the process, after which it counts as unkillable."""

PROBE_TIMEOUT = 1.0
"""Seconds for the answer to a probe."""

UNLOADABLE = "it cannot load its processor, and another attempt would fail in the same way"

WAS_STOPPED = "the process was stopped (SIGSTOP, or a debugger)"


class WorkerView(msgspec.Struct, frozen=True):
    """What the supervisor knows of a worker.

    ``launched_at`` is when the present process was started, on the supervisor's clock; None without
    a process.
    """

    status: WorkerStatus
    incarnation: int
    pid: int | None
    restarts: int
    launched_at: float | None


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
        self._restarts: list[Restart] = []
        self._actions: list[Action] = []
        self._events: list[Event] = []
        self._handlers: dict[type, Callable[..., None]] = {
            Deferred: self._deferred,
            Begun: self._begun,
            Launched: self._launched,
            GotReady: self._got_ready,
            BeatReceived: self._beat_received,
            GuardBeatReceived: self._guard_beat_received,
            Probed: self._probed,
            Exited: self._exited,
            LaunchFailed: self._launch_failed,
            StopAsked: self._stop_asked,
            StartAsked: self._start_asked,
            RestartAsked: self._restart_asked,
            PolicyChanged: self._policy_changed,
        }

    def view(self, worker: str) -> WorkerView:
        """Return what is known of a worker.

        Raises:
            KeyError: it was never added.
        """
        w = self._workers[worker]
        launched_at = None if w.pid is None else w.launched_at
        return WorkerView(w.status, w.incarnation, w.pid, w.restarts, launched_at)

    def next_deadline(self) -> float | None:
        """Return when `CheckDeadlines` has something to do next; None if never."""
        deadlines = [w.deadline for w in self._workers.values()]
        deadlines += [restart.deadline for restart in self._restarts]
        return min((at for at in deadlines if at is not None), default=None)

    def forget(self, worker: str) -> None:
        """Drop the record of a worker that is STOPPED.

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
                if w.deadline is not None:
                    w.deadline += stimulus.lateness
                self._check(w, now)
            for restart in list(self._restarts):
                self._go_on(restart, now)
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
            # So that reports of the worker that had the name before stay stale.
            w.incarnation = known.incarnation
        # A worker added again comes last in its group.
        self._workers.pop(w.name, None)
        self._workers[w.name] = w
        self._launch(w, now)

    def _launch(self, w: Supervised, now: float) -> None:
        w.reset(now)
        w.status = WorkerStatus.STARTING
        w.incarnation += 1
        w.deadline = now + w.policy.start_timeout
        self._actions.append(Launch(w.name, w.incarnation))
        self._events.append(WorkerStarting(worker=w.name, incarnation=w.incarnation))

    def _deferred(self, w: Supervised, _: Deferred, now: float) -> None:
        if w.status is WorkerStatus.STARTING and not w.kill_sent:
            w.deadline = None

    def _begun(self, w: Supervised, _: Begun, now: float) -> None:
        if w.status is WorkerStatus.STARTING and not w.kill_sent:
            w.launched_at = now
            w.deadline = now + w.policy.start_timeout

    def _launched(self, w: Supervised, stimulus: Launched, now: float) -> None:
        w.pid = stimulus.pid

    def _got_ready(self, w: Supervised, _: GotReady, now: float) -> None:
        if w.status is not WorkerStatus.STARTING or w.ending is not None or w.kill_sent:
            return
        w.status = WorkerStatus.READY
        w.probing = False
        w.ready_at = now
        w.deadline = now + w.policy.loop_stall_timeout
        w.limits = LimitWatch(w.policy.limits, now, w.rng)
        assert w.pid is not None
        self._events.append(
            WorkerReady(
                worker=w.name,
                incarnation=w.incarnation,
                pid=w.pid,
                seconds=now - w.launched_at,
            )
        )

    def _policy_changed(self, w: Supervised, stimulus: PolicyChanged, now: float) -> None:
        """Deadlines that run already stay; the limits of the process count from its READY."""
        changed = w.policy.limits != stimulus.policy.limits
        w.policy = stimulus.policy
        if changed and w.limits is not None and w.ready_at is not None:
            w.limits = LimitWatch(w.policy.limits, w.ready_at, w.rng)

    # Beats

    def _beat_received(self, w: Supervised, stimulus: BeatReceived, now: float) -> None:
        w.rss, w.cpu = stimulus.rss, stimulus.cpu
        if w.status is not WorkerStatus.READY or w.ending is not None:
            return
        w.probing = False
        w.deadline = now + w.policy.loop_stall_timeout
        assert w.limits is not None
        excess = (
            w.limits.expired(now)
            or w.limits.sample(now, stimulus.rss, stimulus.cpu)
            or _network_excess(w.policy, stimulus)
        )
        if excess is not None:
            self._exceeded(w, excess, now)

    def _exceeded(self, w: Supervised, excess: Excess, now: float) -> None:
        w.uncharged = not excess.charged
        self._end_gracefully(w, DeathReason.LIMIT_EXCEEDED, excess.detail, now)

    def _guard_beat_received(self, w: Supervised, stimulus: GuardBeatReceived, now: float) -> None:
        w.guard_at = now
        w.stalled = stimulus.stalled

    def _probed(self, w: Supervised, stimulus: Probed, now: float) -> None:
        if not w.probing:
            return
        w.probing = False
        if w.status is not WorkerStatus.READY:
            self._kill_overdue(w, stimulus, now)
            return
        reason = classify(
            Signs(
                process_stopped=stimulus.process_stopped,
                stacks_written=stimulus.stacks_written,
                python_runs=stimulus.python_runs,
                guard_silent=now - w.guard_at,
                guard_interval=w.policy.beat_interval,
                stalled=w.stalled,
            )
        )
        timeout = f"loop_stall_timeout of {w.policy.loop_stall_timeout:g} s"
        if reason is DeathReason.UNREACHABLE:
            detail = f"no beat within the {timeout}, though the process runs"
            self._end_gracefully(w, reason, detail, now)
        else:
            detail = {
                DeathReason.STOPPED: WAS_STOPPED,
                DeathReason.LOOP_BLOCKED: f"the event loop did not turn within the {timeout}",
                DeathReason.GIL_STUCK: (
                    f"the event loop did not turn within the {timeout}, and the guard thread did "
                    "not get the GIL"
                ),
            }[reason]
            self._kill(w, reason, detail, now, stacks=_needs_asking(stimulus))

    # Deadlines

    def _check(self, w: Supervised, now: float) -> None:
        if w.deadline is None or now < w.deadline:
            return
        if w.kill_sent:
            w.deadline = None
            w.status = WorkerStatus.STOPPING
            self._events.append(
                WorkerUnkillable(worker=w.name, incarnation=w.incarnation, pid=w.pid)
            )
        elif not w.probing:
            w.probing = True
            w.deadline = now + PROBE_TIMEOUT
            self._actions.append(Probe(w.name, w.incarnation))
        elif w.status is WorkerStatus.READY:
            detail = "no beat, and the process could not be inspected"
            self._kill(w, DeathReason.UNREACHABLE, detail, now)
        else:
            self._kill_overdue(w, None, now)

    # Ending a process

    def _kill_overdue(self, w: Supervised, probed: Probed | None, now: float) -> None:
        """Kill a process that did not start or stop in time; None: the probe had no answer."""
        if w.status is WorkerStatus.STARTING:
            reason = DeathReason.START_FAILED
            detail = f"not ready within the start_timeout of {w.policy.start_timeout:g} s"
        else:
            reason = w.ending or DeathReason.STOP_TIMEOUT
            detail = w.detail or f"did not stop within the stop_grace of {w.policy.stop_grace:g} s"
        if probed is not None and probed.process_stopped:
            detail += f"; {WAS_STOPPED}"
            reason = w.ending or DeathReason.STOPPED
        stacks = probed is not None and _needs_asking(probed)
        self._kill(w, reason, detail, now, stacks=stacks)

    def _kill(
        self,
        w: Supervised,
        reason: DeathReason | None,
        detail: str | None,
        now: float,
        *,
        stacks: bool = False,
    ) -> None:
        w.ending, w.detail = reason, detail
        w.probing = False
        w.kill_sent = True
        w.deadline = now + REAP_TIMEOUT
        self._actions.append(Kill(w.name, w.incarnation, stacks))

    def _end_gracefully(
        self, w: Supervised, reason: DeathReason | None, detail: str | None, now: float
    ) -> None:
        """Stop a READY worker gracefully, for ``reason`` or on request."""
        w.ending, w.detail = reason, detail
        w.probing = False
        w.status = WorkerStatus.STOPPING
        w.deadline = now + w.policy.stop_grace
        self._actions.append(SendStop(w.name, w.incarnation))
        self._events.append(WorkerStopping(worker=w.name, incarnation=w.incarnation, detail=detail))

    def _begin_stop(self, w: Supervised, now: float) -> None:
        """Stop a worker that runs; ``wanted`` or its restart says what follows."""
        if w.status is WorkerStatus.READY and not w.kill_sent:
            self._end_gracefully(w, None, None, now)
        elif w.status in (WorkerStatus.STARTING, WorkerStatus.READY):
            w.status = WorkerStatus.STOPPING
            self._events.append(WorkerStopping(worker=w.name, incarnation=w.incarnation))
            if not w.kill_sent:
                w.killed_on_request = True
                self._kill(w, None, None, now)

    # The end of a process

    def _exited(self, w: Supervised, stimulus: Exited, now: float) -> None:
        if w.status not in PROCESS:
            return
        evidence = stimulus.evidence
        if evidence.trouble is not None:
            w.detail = "; ".join(filter(None, (w.detail, evidence.trouble)))
        w.unloadable = evidence.unloadable
        asked = w.status is WorkerStatus.STOPPING and w.ending is None
        if not w.killed_on_request and not (asked and evidence.exitcode == 0):
            if asked and evidence.killed:
                w.ending, w.detail = DeathReason.STOP_TIMEOUT, "killed when the clock was shut down"
            elif evidence.exitcode is None and w.detail is None:
                w.detail = (
                    "its exit status is unknown: the forkserver has died, or the owner ignores "
                    "SIGCHLD or reaps all its children"
                )
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
        if w.killed_on_request:
            self._gone(w, None, now)
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
                ticks_lost=stimulus.ticks_lost,
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
                **{name: getattr(evidence, name) for name in DOSSIER_FIELDS},
            )
        )

    def _gone(self, w: Supervised, exitcode: int | None, now: float) -> None:
        """Decide what follows the end of a process."""
        w.pid = None
        w.deadline = None
        restart = self._restart_of(w)
        if w.wanted is StopAsked or not self._is_restarted(w, exitcode, restart):
            self._stopped(w, now)
        elif restart is None and w.wanted is RestartAsked:
            w.restarts += 1
            self._launch(w, now)
        else:
            w.status = WorkerStatus.BACKOFF
            restart = restart or self._retry(w, now)
        if restart is not None:
            self._go_on(restart, now)

    def _is_restarted(self, w: Supervised, exitcode: int | None, restart: Restart | None) -> bool:
        if w.wanted is RestartAsked:
            return True
        if w.policy.restart is RestartType.TEMPORARY:
            return False
        if w.ending is not None or restart is not None:
            return True
        if exitcode in w.policy.no_restart_exit_codes:
            return False
        normal = exitcode == 0 and w.ready_at is not None
        return not (normal and w.policy.restart is RestartType.TRANSIENT)

    def _stopped(self, w: Supervised, now: float) -> None:
        restart = self._leave(w)
        if restart is not None and restart.cause is w:
            # The others start without it; with the next look at the deadlines, not at once,
            # because they may be stopped next.
            restart.quarantined = False
            restart.due = now
        w.status = WorkerStatus.STOPPED
        self._events.append(WorkerStopped(worker=w.name))

    # Restarts, of one worker or of a group

    def _retry(self, w: Supervised, now: float) -> Restart:
        """Charge the restart of a worker that died, and stop those that are restarted with it."""
        if w.ready_at is not None and now - w.ready_at >= w.policy.healthy_after:
            w.failures, w.history, w.on_probation = 0, (), False
        members = affected(w, self._workers.values(), self._restarts)
        for member in members:
            self._leave(member)
            self._begin_stop(member, now)
        restart = Restart(w, members, now)
        self._restarts.append(restart)
        if w.unloadable:
            restart.due = None
            restart.quarantined = True
            restart.detail = UNLOADABLE
            return restart
        delay = 0.0
        if not w.uncharged:
            history = w.policy.budget.spend(w.history, now)
            if history is None or w.on_probation:
                interval = w.policy.probation_interval
                restart.due = None if interval is None else now + interval
                restart.quarantined = True
                return restart
            w.history = history
            w.failures += 1
            if w.failures > 1:
                delay = w.policy.backoff.delay(w.failures - 1, w.rng)
        restart.due = now + delay
        self._events.append(WorkerBackingOff(worker=w.name, delay=delay, restarts=w.restarts))
        return restart

    def _restart_of(self, w: Supervised) -> Restart | None:
        return next((restart for restart in self._restarts if w in restart.members), None)

    def _leave(self, w: Supervised) -> Restart | None:
        """Take a worker out of the restart it is in, if any; return that if others are left."""
        restart = self._restart_of(w)
        if restart is None:
            return None
        restart.members.remove(w)
        if restart.members:
            return restart
        self._restarts.remove(restart)
        return None

    def _go_on(self, restart: Restart, now: float) -> None:
        """Show what its members wait for; start them if it is time and the last has ended."""
        status = WorkerStatus.QUARANTINED if restart.quarantined else WorkerStatus.BACKOFF
        for member in restart.members:
            if member.status not in PROCESS and member.status is not status:
                member.status = status
                if restart.quarantined:
                    event = WorkerQuarantined(
                        worker=member.name, restarts=member.restarts, detail=restart.detail
                    )
                    self._events.append(event)
        if not restart.members or restart.deadline is None or now < restart.deadline:
            return
        count = min(len(restart.members), max(1, self._budget.max_restarts))
        history = self._budget.spend(self._history, now, count)
        if history is None:
            spread = self._rng.uniform(0.0, self._budget.window / 10)
            restart.due = self._budget.room_at(self._history, now, count) + spread
            return
        self._history = history
        restart.cause.on_probation |= restart.quarantined
        self._start_together(restart, now)

    def _start_together(self, restart: Restart, now: float) -> None:
        self._restarts.remove(restart)
        for member in restart.members:
            member.restarts += 1
            self._launch(member, now)

    # What the owner asks for

    def _stop_asked(self, w: Supervised, _: StopAsked, now: float) -> None:
        if w.status in PROCESS:
            w.wanted = StopAsked
            self._begin_stop(w, now)
        elif w.status is not WorkerStatus.STOPPED:
            self._stopped(w, now)

    def _start_asked(self, w: Supervised, _: StartAsked, now: float) -> None:
        if w.status is WorkerStatus.STOPPED:
            w.history, w.failures, w.on_probation = (), 0, False
            w.restarts += 1
            self._launch(w, now)
        elif w.status is WorkerStatus.QUARANTINED:
            self._hasten(w, now)
        elif (w.status is WorkerStatus.STOPPING or w.kill_sent) and (
            w.wanted is StopAsked or w.policy.restart is RestartType.TEMPORARY
        ):
            w.wanted = RestartAsked  # when the process has ended
            self._hasten(w, now)

    def _restart_asked(self, w: Supervised, _: RestartAsked, now: float) -> None:
        if w.wanted is StopAsked or w.status in (WorkerStatus.STARTING, WorkerStatus.STOPPED):
            return
        if w.status in PROCESS:
            w.wanted = RestartAsked
            self._begin_stop(w, now)
        self._hasten(w, now)

    def _hasten(self, w: Supervised, now: float) -> None:
        """Let the restart that a worker is in, if any, wait for no time and no probation."""
        restart = self._restart_of(w)
        if restart is None:
            return
        for member in (restart.cause, w):
            member.history, member.failures, member.on_probation = (), 0, False
        restart.quarantined = False
        restart.due = now
        if restart.deadline is None:
            self._go_on(restart, now)  # once the last has ended
        else:
            self._start_together(restart, now)


def _network_excess(policy: Supervision, beat: BeatReceived) -> Excess | None:
    """Return why a worker needs a new process to connect.

    The server may be what is down, so the restart is not charged.
    """
    if policy.max_downtime is not None and beat.downtime > policy.max_downtime:
        detail = f"not connected for {beat.downtime:.1f} s, max_downtime = {policy.max_downtime:g}"
        return Excess(detail=detail, charged=False)
    limit = policy.max_check_timeouts
    if limit is not None and beat.check_timeouts >= limit:
        detail = f"{beat.check_timeouts} checks timed out in a row, max_check_timeouts = {limit}"
        return Excess(detail=detail, charged=False)
    return None


def _needs_asking(probed: Probed) -> bool:
    """Whether a process writes its stacks only when asked: Python does not run in it."""
    return not probed.python_runs and not probed.process_stopped
