"""The network loop of one processor, as a pure state machine.

Its edge is `chronopype_mp.processors.network_loop`. The edge asks `Connection` what to do, does it,
and hands the outcome back, until `Stopped`::

    STOPPED     ── begin() ─▶ NOT_CONNECTED, Wait until now
    CONNECTING  ── the check says connected ─▶ CONNECTED, Start unless started, NotifyConnected,
                   Wait
                ── it does not, not started, when NEEDED ─▶ Start, Check once more
                ── otherwise ─▶ Stop if started, NOT_CONNECTED or ERROR, Wait
    CONNECTED   ── the check says connected ─▶ Wait
                ── anything else, lose(), silent for stale_after ─▶ DISCONNECTING,
                   NotifyDisconnected, Stop, NOT_CONNECTED or ERROR, Wait
    any         ── end() ─▶ DISCONNECTING, NotifyDisconnected if connected, Stop, STOPPED
    ending      ── begin() ─▶ as before, but then NOT_CONNECTED, Wait until now

What ended an attempt or a connection decides what is shown, and when the next attempt is due:

====================================================  =============  ===========================
a check that says not connected or times out; a loss  NOT_CONNECTED  after a backoff
an expected error of a hook                           NOT_CONNECTED  after a backoff
a check that says ERROR; a start that times out;      ERROR          after a backoff
another error of ``on_connected``
any other error of a check or start                   ERROR          after ``error_wait``
`Failed.retry_after`                                  NOT_CONNECTED  exactly then
`Failed.permanent`                                    ERROR          ``retry_permanent_after``, or
                                                                     never; `reconnect` leaves it
====================================================  =============  ===========================

A wait begins when the cause arises, so what takes the connection down is part of it. Nothing but
`reconnect` shortens it, except that the time after a permanent failure follows
``retry_permanent_after`` whenever that changes. Of several causes the gravest decides: a permanent
failure, then the longest ``retry_after``. The count behind the backoff starts again once a
connection has been ready for ``stable_after``. CONNECTING is shown only while an attempt runs.

Calls from outside (`lose`, `check_now`, `end`, `resume`, `reconnect`) take effect with the outcome
of the operation under way. They return whether the edge should interrupt that. Every hook runs once
for one cause, whatever the hooks themselves call: a NotifyDisconnected or a Stop under way is never
interrupted, and the way goes on from there. A loss while the connection is taken down, or during a
wait for the next attempt, is a loss of that connection. So it counts only if it says when to try
again.

Alternatives considered: chronopype's own order (start only after a successful check) deadlocks
every processor whose check uses the client that its start makes. It is opt-in here
(`StartWhen.CONNECTED`). An `end` that cancels any operation and then orders the way to STOPPED from
its beginning runs the hook from which it was called twice. An operation for the body of a
connection would have to run beside Check and Wait; the edge runs it while the connection is
`ready`.
"""

from __future__ import annotations

import enum
import math
import random

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.checks import at_least, positive
from chronopype_mp.core.connection_counters import ConnectionRecorder
from chronopype_mp.core.operations import (
    Check,
    Failed,
    Interrupted,
    NetworkStatus,
    NotifyConnected,
    NotifyDisconnected,
    Operation,
    Outcome,
    Returned,
    Start,
    Stop,
    Stopped,
    TimedOut,
    Wait,
)
from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import ConfigError

__all__ = [
    "CHECK_RETURNED",
    "CLOSEST_CHECKS",
    "RECONNECT_REQUESTED",
    "STOP_REQUESTED",
    "Connection",
    "ConnectionPolicy",
    "NetworkStatus",
    "StartWhen",
]

CLOSEST_CHECKS = 0.1
"""Seconds from the beginning of a check to one that `Connection.check_now` asks for, or a
`Failed.retry_after` of 0: what asks for another check does not keep the processor busy."""

CHECK_RETURNED = "check_network() returned "
"""How a reason begins that is what a check has returned, and so is reported nowhere else."""

STOP_REQUESTED, RECONNECT_REQUESTED = "stop requested", "reconnect requested"
"""The reasons for which a connection is given up on request."""


class StartWhen(enum.Enum):
    """When ``start_network()`` runs: as soon as a check needs it, or only after one succeeded."""

    NEEDED = "needed"
    CONNECTED = "connected"


class ConnectionPolicy(Settings, frozen=True):
    """The settings of a network loop; all times in seconds.

    Args:
        check_interval: between two checks while connected.
        error_wait: before the next attempt after an unexpected error.
        start_when: when ``start_network()`` runs.
        backoff: the wait before the next attempt otherwise.
        stable_after: a connection that held this long, once it was ready, resets the backoff.
        stale_after: a connection that is silent for longer is lost; None: never.
        retry_permanent_after: before the next attempt after a permanent failure; None: none.

    Raises:
        ConfigError: a value is out of range.
    """

    check_interval: float = 10.0
    error_wait: float = 60.0
    start_when: StartWhen = StartWhen.NEEDED
    backoff: BackoffPolicy = BackoffPolicy()
    stable_after: float = 10.0
    stale_after: float | None = None
    retry_permanent_after: float | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        positive(owner, "check_interval", self.check_interval)
        at_least(owner, "error_wait", self.error_wait, 0.0)
        if not isinstance(self.start_when, StartWhen):
            raise ConfigError(owner, "start_when", self.start_when, "must be a StartWhen")
        if not isinstance(self.backoff, BackoffPolicy):
            raise ConfigError(owner, "backoff", self.backoff, "must be a BackoffPolicy")
        at_least(owner, "stable_after", self.stable_after, 0.0)
        for name in ("stale_after", "retry_permanent_after"):
            if getattr(self, name) is not None:
                positive(owner, name, getattr(self, name))


class Connection:
    """One processor's network loop. All times are on one monotonic clock, seconds.

    Args:
        policy: the settings; assign `policy` to change them.
        rng: the source of jitter.
        recorder: counts checks and connections; None for one of its own.

    Attributes:
        operation: what the edge is to do, or does.
        recorder: what counts checks and connections.
        status: the status to show now.
        reason: why it is what it is.
        started: whether ``start_network()`` has returned, or failed, for this connection.
        failures: consecutive attempts that failed, and connections that did not hold.
        check_timeouts: consecutive checks that timed out.
        heard_at: when the connection was last heard of.
        paused: whether checks and attempts are held.
        ending: whether it is on the way to STOPPED.
    """

    def __init__(
        self,
        policy: ConnectionPolicy,
        rng: random.Random,
        recorder: ConnectionRecorder | None = None,
    ) -> None:
        self.policy = policy
        self.recorder = ConnectionRecorder() if recorder is None else recorder
        self.operation: Operation = Stopped()
        self.status = NetworkStatus.STOPPED
        self.reason = "not started"
        self.started = False
        self.failures = 0
        self.check_timeouts = 0
        self.heard_at = 0.0
        self.paused = False
        self.ending = False
        self._rng = rng
        self._begin_again = False
        self._may_start = False
        self._notified = False
        self._permanent = False
        self._failed_at = 0.0
        self._not_before = 0.0
        self._check_asked = False
        self._at_once = False
        self._loss: Failed | None = None
        self._after_stop = NetworkStatus.NOT_CONNECTED
        self._due = 0.0
        self._excused_until = 0.0
        self._down_since = 0.0
        self._ready_at = math.inf
        self._was_heard = False
        self._checked_at = 0.0
        self._settled_at = 0.0

    @property
    def ready(self) -> bool:
        """Whether ticks may reach the processor: connected, started, notified, and not lost."""
        return (
            self.status is NetworkStatus.CONNECTED
            and self.started
            and self._loss is None
            and not self.ending
            and not isinstance(self.operation, NotifyConnected)
        )

    @property
    def next_attempt(self) -> float | None:
        """When the next attempt is due; None if one runs, or none is planned."""
        if self.ending or self.paused or self.status is NetworkStatus.STOPPED:
            return None
        waits = self.waits and self.status is not NetworkStatus.CONNECTED
        return self._due if (self.is_down or waits) and self._due < math.inf else None

    def downtime(self, now: float) -> float:
        """Return for how long it has tried in vain to become ready, seconds.

        Waits that a server has asked for, permanent failures and pauses do not count.
        """
        is_ready = self._ready_at < math.inf
        if is_ready or self.paused or self.ending or self.status is NetworkStatus.STOPPED:
            return 0.0
        return max(0.0, now - max(self._down_since, self._excused_until))

    # Calls from outside

    def begin(self, now: float) -> Operation:
        """Go from STOPPED to NOT_CONNECTED, at once or when the end under way has come.

        A loop that has begun and is not ending is left as it is.

        Returns:
            The operation to perform, or the one under way.
        """
        if self.ending:
            self._begin_again = True
            self.paused = False
        elif self.status is NetworkStatus.STOPPED:
            self.paused = False
            self._reset(now)
        return self.operation

    def end(self) -> bool:
        """Set out for STOPPED; the outcome of the operation under way leads there.

        Returns:
            Whether to interrupt that operation. If not, it is part of the way.
        """
        self._begin_again = False
        if self.status is NetworkStatus.STOPPED:
            return False
        self.ending = True
        return not self.is_down

    def lose(self, cause: Failed, now: float) -> bool:
        """Take note that the connection is lost, or the attempt under way in vain.

        Without either, only a cause that says when to try again counts.

        Returns:
            Whether to interrupt the operation under way.
        """
        if self.status is NetworkStatus.STOPPED:
            return False
        if self.is_down:
            self._heed(cause, now)
            return False
        if self.waits and self.status is not NetworkStatus.CONNECTED:
            if not self._heed(cause, now):
                return False
            self.status = self._after_stop
            return True
        if self._loss is None or _weight(cause) > _weight(self._loss):
            self._loss = cause
        return True

    def heard(self, now: float) -> None:
        """Take note that the connection was heard of."""
        self.heard_at = now
        self._was_heard = True

    def check_now(self) -> bool:
        """Have a check as soon as possible. A wait for the next attempt is not shortened.

        Returns:
            Whether to interrupt the operation under way.
        """
        self._check_asked = True
        return self.waits

    def pause(self) -> None:
        """Hold checks and attempts. Status and connection stay."""
        self.paused = True

    def resume(self, now: float) -> bool:
        """Go on after a pause, with a check.

        Returns:
            Whether to interrupt the operation under way.
        """
        if not self.paused:
            return False
        self.paused = False
        self.heard_at = now
        self._down_since = max(self._down_since, now)
        return self.check_now()

    def reconnect(self, now: float) -> bool:
        """Give up the connection, or the wait for the next attempt, and make an attempt at once.

        An attempt under way goes on.

        Returns:
            Whether to interrupt the operation under way.
        """
        if self.ending or self.status is NetworkStatus.STOPPED:
            return False
        self.failures = 0
        if self.status is NetworkStatus.CONNECTED:
            self._at_once = True
            self._loss = self._loss or Failed(RECONNECT_REQUESTED)
            return True
        if self.is_down or self.waits:
            self._try_at_once(now)
        return self.waits

    @property
    def waits(self) -> bool:
        """Whether the operation under way is a Wait."""
        return isinstance(self.operation, Wait)

    @property
    def is_down(self) -> bool:
        """Whether the connection is being taken down, or the loop is stopped."""
        return isinstance(self.operation, NotifyDisconnected | Stop | Stopped)

    # Outcomes

    def handle(self, outcome: Outcome, now: float) -> Operation:
        """Take the outcome of the operation returned last; return the next.

        Raises:
            RuntimeError: the loop is stopped, so no operation is under way.
        """
        match self.operation:
            case Stopped():
                raise RuntimeError("the network loop is stopped")
            case NotifyDisconnected():
                self._heed(outcome, now)
                return self._do(Stop())
            case Stop():
                self._heed(outcome, now)
                return self._stop_ended(now)
            case Check() if not isinstance(outcome, Interrupted):
                self.recorder.checked(now - self._checked_at)
                timed_out = isinstance(outcome, TimedOut)
                self.check_timeouts = self.check_timeouts + 1 if timed_out else 0
            case Start():
                self.started = True  # what a failed start has made is for stop_network to clear
        if self.ending:
            self.reason = STOP_REQUESTED
            return self._disconnect(now)
        loss, self._loss = self._loss, None
        if loss is not None and _weight(loss) >= _weight(outcome):
            if self.started or self.status is NetworkStatus.CONNECTED:
                return self._lose(loss, NetworkStatus.NOT_CONNECTED, now)
            outcome = loss  # the check may have seen what was before
        match self.operation:
            case Check():
                return self._checked(outcome, now)
            case Start():
                return self._start_ended(outcome, now)
            case NotifyConnected():
                return self._notify_ended(outcome, now)
            case _:
                return self._wait(now)

    def _do(self, operation: Operation) -> Operation:
        self.operation = operation
        return operation

    def _reset(self, now: float) -> Operation:
        self.ending = self._begin_again = self._permanent = False
        self._check_asked = self._at_once = False
        self.status = NetworkStatus.NOT_CONNECTED
        self.reason = "started"
        self.failures = self.check_timeouts = 0
        self._due = self._down_since = self._excused_until = now
        return self._do(Wait(now))

    def _wait(self, now: float) -> Operation:
        """Wait for what is due next, or do it."""
        if self.paused:
            return self._do(Wait(math.inf))
        if self.status is NetworkStatus.CONNECTED:
            until = self._settled_at + self.policy.check_interval
            if self._check_asked:
                until = min(until, self._checked_at + CLOSEST_CHECKS)
            stale_after = self.policy.stale_after
            if stale_after is not None:
                if self.heard_at + stale_after <= now:
                    reason = f"silent for {stale_after:g} s"
                    if not self._was_heard:
                        reason += "; heard() was not called since it was connected"
                    return self._lose(Failed(reason), NetworkStatus.NOT_CONNECTED, now)
                until = min(until, self.heard_at + stale_after)
        else:
            if self._permanent:
                self._due = self._excused_until = self._due_after_permanent()
            until = self._due
        return self._attempt(now) if until <= now else self._do(Wait(until))

    def _attempt(self, now: float) -> Operation:
        if self.status is not NetworkStatus.CONNECTED:
            self.status = NetworkStatus.CONNECTING
            self.reason = f"attempt {self.failures + 1}"
        self._permanent = self._at_once = False
        self._may_start = not self.started and self.policy.start_when is StartWhen.NEEDED
        return self._check(now)

    def _check(self, now: float) -> Operation:
        self._check_asked = False
        self._checked_at = now
        return self._do(Check())

    def _checked(self, outcome: Outcome, now: float) -> Operation:
        if isinstance(outcome, Returned) and outcome.status is NetworkStatus.CONNECTED:
            return self._check_succeeded(now)
        if self._may_start and not _weight(outcome):
            self._may_start = False
            return self._do(Start())
        match outcome:
            case Failed():
                return self._fail(outcome, now)
            case Returned(status):
                is_error = status is NetworkStatus.ERROR
                shown = NetworkStatus.ERROR if is_error else NetworkStatus.NOT_CONNECTED
                return self._lose(Failed(f"{CHECK_RETURNED}{status.name}"), shown, now)
            case _:
                cause = Failed(outcome.reason if isinstance(outcome, TimedOut) else "interrupted")
                return self._lose(cause, NetworkStatus.NOT_CONNECTED, now)

    def _check_succeeded(self, now: float) -> Operation:
        if self.status is NetworkStatus.CONNECTED:
            return self._settle(now)
        self.status = NetworkStatus.CONNECTED
        self.reason = f"{CHECK_RETURNED}CONNECTED"
        self.recorder.connected(now)
        return self._notify() if self.started else self._do(Start())

    def _start_ended(self, outcome: Outcome, now: float) -> Operation:
        match outcome:
            case Returned():
                return (
                    self._notify() if self.status is NetworkStatus.CONNECTED else self._check(now)
                )
            case Failed():
                return self._fail(outcome, now)
            case _:
                return self._fail_in_time(outcome, now)

    def _notify(self) -> Operation:
        self._notified = True
        return self._do(NotifyConnected())

    def _notify_ended(self, outcome: Outcome, now: float) -> Operation:
        match outcome:
            case Returned():
                self.heard_at = self._ready_at = now
                self._was_heard = False
                return self._settle(now)
            case Failed():
                is_error = not outcome.expected
                shown = NetworkStatus.ERROR if is_error else NetworkStatus.NOT_CONNECTED
                return self._lose(outcome, shown, now)
            case _:
                return self._fail_in_time(outcome, now)

    def _settle(self, now: float) -> Operation:
        self._settled_at = now
        return self._wait(now)

    # What went wrong

    def _fail(self, cause: Failed, now: float) -> Operation:
        """Deal with an error of a check or a start."""
        if cause.expected:
            return self._lose(cause, NetworkStatus.NOT_CONNECTED, now)
        return self._lose(cause, NetworkStatus.ERROR, now, self.policy.error_wait)

    def _fail_in_time(self, outcome: Outcome, now: float) -> Operation:
        reason = outcome.reason if isinstance(outcome, TimedOut) else "interrupted"
        return self._lose(Failed(reason), NetworkStatus.ERROR, now)

    def _lose(
        self, cause: Failed, status: NetworkStatus, now: float, wait: float | None = None
    ) -> Operation:
        """Give up a connection or an attempt; wait None is a backoff."""
        if now - self._ready_at >= self.policy.stable_after:
            self.failures = 0
        self.reason = cause.reason
        self._after_stop = status
        if not self._heed(cause, now):
            self.failures += 1
            if wait is None:
                wait = self.policy.backoff.delay(self.failures, self._rng)
            self._due = now + wait
        if self.started or self._permanent or self.status is NetworkStatus.CONNECTED:
            return self._disconnect(now)
        return self._stop_ended(now)

    def _heed(self, outcome: Outcome, now: float) -> bool:
        """Let a failure that says when to try again decide that; return whether it does."""
        if not isinstance(outcome, Failed) or self.ending:
            return False
        if self._at_once:
            self._try_at_once(now)
            return True
        due = self._due
        if outcome.permanent:
            if not self._permanent:
                self._not_before = due
            self._failed_at = now
            due = self._due_after_permanent()
        elif outcome.retry_after is not None:
            due = max(now + outcome.retry_after, self._checked_at + CLOSEST_CHECKS)
        if not _weight(outcome) or (self._permanent and not outcome.permanent) or due < self._due:
            return False
        self._permanent = outcome.permanent
        self._after_stop = NetworkStatus.ERROR if outcome.permanent else NetworkStatus.NOT_CONNECTED
        self._due = due
        self._excused_until = self._due
        self.reason = outcome.reason
        return True

    def _due_after_permanent(self) -> float:
        """Return when the attempt after a permanent failure is due, by the policy of now."""
        after = self.policy.retry_permanent_after
        return math.inf if after is None else max(self._not_before, self._failed_at + after)

    def _try_at_once(self, now: float) -> None:
        """Have the next attempt now, or when the connection has been taken down."""
        self._at_once = True
        self._permanent = False
        self._due = self._excused_until = now
        self._after_stop = NetworkStatus.NOT_CONNECTED

    def _disconnect(self, now: float) -> Operation:
        if self._ready_at < math.inf:
            self._ready_at = math.inf
            self._down_since = now
        if self.status is NetworkStatus.CONNECTED:
            self.status = NetworkStatus.DISCONNECTING
            self.recorder.disconnected(now)
        notified, self._notified = self._notified, False
        return self._do(NotifyDisconnected() if notified else Stop())

    def _stop_ended(self, now: float) -> Operation:
        self.started = self._check_asked = False
        self._loss = None
        if self._begin_again:
            return self._reset(now)
        if self.ending:
            self.ending = False
            self.status = NetworkStatus.STOPPED
            self.reason = "stopped"
            return self._do(Stopped())
        self.status = self._after_stop
        return self._do(Wait(math.inf if self.paused else self._due))


def _weight(outcome: Outcome) -> float:
    """Rank outcomes by what they say of the next attempt: nothing, a wait, or never."""
    if not isinstance(outcome, Failed):
        return 0.0
    if outcome.permanent:
        return math.inf
    return 0.0 if outcome.retry_after is None else 1.0 + outcome.retry_after
