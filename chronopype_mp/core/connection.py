"""The network loop of one processor, as a pure state machine. Its edge is `NetworkProcessor`.

The edge asks `Connection` what to do, does it, and hands the outcome back, until `Stopped`::

    status STOPPED ──begin()──▶ NOT_CONNECTED, Wait(0) ─▶ CONNECTING, Check
    CONNECTING  ── the check says connected ─▶ CONNECTED, NotifyConnected, Start unless started,
                                               Wait(interval)
                ── it does not, not started, when NEEDED ─▶ Start, Check once more
                ── otherwise ─▶ Stop if started, NOT_CONNECTED or ERROR, Wait(backoff)
                ── it raises ─▶ Stop if started, ERROR, Wait(network_error_wait_time)
    CONNECTED   ── the check says connected ─▶ Wait(interval)
                ── anything else ─▶ DISCONNECTING, NotifyDisconnected, Stop,
                                    NOT_CONNECTED or ERROR, Wait
    any         ── end() ─▶ DISCONNECTING, NotifyDisconnected if connected, Stop, STOPPED
    ending      ── begin() ─▶ as before, but then NOT_CONNECTED, Wait(0)

A start that fails or times out ends in Stop, ERROR and a retry after a backoff: often the server is
just not up yet. CONNECTING is shown only while an attempt runs.

Every hook runs once for one cause, whatever the hooks themselves call. So `end` interrupts only
what it makes useless, a Check, a Start or a Wait. A notification or a Stop that is under way
finishes, and the way to STOPPED goes on from there.

Alternatives considered: chronopype's own order (start only after a successful check) deadlocks
every processor whose check uses the client that its start makes. It is opt-in here
(`StartWhen.CONNECTED`). An `end` that cancels any operation and then orders the way to STOPPED from
its beginning runs the hook from which it was called twice.
"""

from __future__ import annotations

import enum
import random

import msgspec

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.settings import Settings

__all__ = [
    "Check",
    "Connection",
    "ConnectionPolicy",
    "Failed",
    "Interrupted",
    "NetworkStatus",
    "NotifyConnected",
    "NotifyDisconnected",
    "Operation",
    "Outcome",
    "Returned",
    "Start",
    "StartWhen",
    "Stop",
    "Stopped",
    "TimedOut",
    "Wait",
]


class NetworkStatus(enum.Enum):
    """How a `NetworkProcessor` stands with its network."""

    STOPPED = 0
    NOT_CONNECTED = 1
    CONNECTING = 2
    CONNECTED = 3
    DISCONNECTING = 4
    ERROR = 5


class StartWhen(enum.Enum):
    """When ``start_network()`` runs: as soon as a check needs it, or only after one succeeded."""

    NEEDED = "needed"
    CONNECTED = "connected"


class ConnectionPolicy(Settings, frozen=True):
    """The settings of a network loop; all times in seconds. The defaults are chronopype's."""

    check_interval: float = 10.0
    error_wait: float = 60.0
    start_when: StartWhen = StartWhen.NEEDED
    backoff: BackoffPolicy = BackoffPolicy()


class Check(msgspec.Struct, frozen=True):
    """Call ``check_network()``; hand back its status."""


class Start(msgspec.Struct, frozen=True):
    """Call ``start_network()``."""


class Stop(msgspec.Struct, frozen=True):
    """Call ``stop_network()``."""


class NotifyConnected(msgspec.Struct, frozen=True):
    """Call ``on_connected()``."""


class NotifyDisconnected(msgspec.Struct, frozen=True):
    """Call ``on_disconnected()``."""


class Wait(msgspec.Struct, frozen=True):
    """Wait ``seconds`` before the next check."""

    seconds: float


class Stopped(msgspec.Struct, frozen=True):
    """Nothing more to do."""


Operation = Check | Start | Stop | NotifyConnected | NotifyDisconnected | Wait | Stopped


class Returned(msgspec.Struct, frozen=True):
    """The operation ended; ``status`` is what a check returned."""

    status: NetworkStatus = NetworkStatus.NOT_CONNECTED


class TimedOut(msgspec.Struct, frozen=True):
    """The operation did not end within its timeout."""


class Failed(msgspec.Struct, frozen=True):
    """The operation raised."""


class Interrupted(msgspec.Struct, frozen=True):
    """The operation was given up because `Connection.end` said so."""


Outcome = Returned | TimedOut | Failed | Interrupted


class Connection:
    """One processor's network loop.

    Args:
        policy: the settings; assign `policy` to change them.
        rng: the source of jitter.

    Attributes:
        status: the status to show now.
        started: whether ``start_network()`` has returned for this connection.
        failures: consecutive attempts that failed.
        ending: whether it is on the way to STOPPED.
    """

    def __init__(self, policy: ConnectionPolicy, rng: random.Random) -> None:
        self.policy = policy
        self.status = NetworkStatus.STOPPED
        self.started = False
        self.failures = 0
        self.ending = False
        self._begin_again = False
        self._rng = rng
        self._operation: Operation = Stopped()
        self._retry_start_allowed = False
        self._after_stop = NetworkStatus.NOT_CONNECTED
        self._wait_after_stop = 0.0

    @property
    def ready(self) -> bool:
        """Whether ticks may reach the processor: connected, notified, started, and not ending."""
        return (
            self.status is NetworkStatus.CONNECTED
            and self.started
            and not self.ending
            and not isinstance(self._operation, NotifyConnected)
        )

    def begin(self) -> Operation:
        """Go from STOPPED to NOT_CONNECTED, at once or when the end under way has come.

        A loop that has begun and is not ending is left as it is.

        Returns:
            The operation to perform, or the one under way.
        """
        if self.ending:
            self._begin_again = True
        elif self.status is NetworkStatus.STOPPED:
            self._reset()
        return self._operation

    def end(self) -> bool:
        """Set out for STOPPED; the outcome of the operation under way leads there.

        Returns:
            Whether to interrupt that operation. If not, it is part of the way.
        """
        self._begin_again = False
        if self.status is NetworkStatus.STOPPED:
            return False
        self.ending = True
        return isinstance(self._operation, Check | Start | Wait)

    def handle(self, outcome: Outcome) -> Operation:
        """Take the outcome of the operation returned last; return the next.

        Raises:
            RuntimeError: the loop is stopped, so no operation is under way.
        """
        match self._operation:
            case NotifyDisconnected():
                return self._do(Stop())
            case Stop():
                return self._stop_ended()
            case Stopped():
                raise RuntimeError("the network loop is stopped")
        if self.ending:
            return self._disconnect()
        match self._operation:
            case Check():
                return self._checked(outcome)
            case NotifyConnected():
                if not isinstance(outcome, Returned):
                    return self._lose(NetworkStatus.ERROR, self._backoff())
                return self._settle() if self.started else self._do(Start())
            case Start():
                return self._start_ended(outcome)
            case Wait():
                return self._attempt()

    def _do(self, operation: Operation) -> Operation:
        self._operation = operation
        return operation

    def _reset(self) -> Operation:
        self.ending = self._begin_again = False
        self.status = NetworkStatus.NOT_CONNECTED
        self.failures = 0
        return self._do(Wait(0.0))

    def _attempt(self) -> Operation:
        if self.status is not NetworkStatus.CONNECTED:
            self.status = NetworkStatus.CONNECTING
        self._retry_start_allowed = not self.started and self.policy.start_when is StartWhen.NEEDED
        return self._do(Check())

    def _checked(self, outcome: Outcome) -> Operation:
        if isinstance(outcome, Returned) and outcome.status is NetworkStatus.CONNECTED:
            if self.status is NetworkStatus.CONNECTED:
                return self._settle()
            self.status = NetworkStatus.CONNECTED
            return self._do(NotifyConnected())
        if self._retry_start_allowed:
            self._retry_start_allowed = False
            return self._do(Start())
        if isinstance(outcome, Failed):
            self.failures += 1
            return self._lose(NetworkStatus.ERROR, self.policy.error_wait)
        error = isinstance(outcome, Returned) and outcome.status is NetworkStatus.ERROR
        status = NetworkStatus.ERROR if error else NetworkStatus.NOT_CONNECTED
        return self._lose(status, self._backoff())

    def _start_ended(self, outcome: Outcome) -> Operation:
        if not isinstance(outcome, Returned):
            # What a failed start has made is for stop_network to clear away.
            self.started = True
            return self._lose(NetworkStatus.ERROR, self._backoff())
        self.started = True
        if self.status is NetworkStatus.CONNECTED:
            return self._settle()
        return self._do(Check())

    def _settle(self) -> Operation:
        self.failures = 0
        return self._do(Wait(self.policy.check_interval))

    def _backoff(self) -> float:
        self.failures += 1
        return self.policy.backoff.delay(self.failures, self._rng)

    def _lose(self, status: NetworkStatus, wait: float) -> Operation:
        self._after_stop = status
        self._wait_after_stop = wait
        if self.status is NetworkStatus.CONNECTED or self.started:
            return self._disconnect()
        return self._stop_ended()

    def _disconnect(self) -> Operation:
        if self.status is NetworkStatus.CONNECTED:
            self.status = NetworkStatus.DISCONNECTING
            return self._do(NotifyDisconnected())
        return self._do(Stop())

    def _stop_ended(self) -> Operation:
        self.started = False
        if self._begin_again:
            return self._reset()
        if self.ending:
            self.ending = False
            self.status = NetworkStatus.STOPPED
            return self._do(Stopped())
        self.status = self._after_stop
        return self._do(Wait(self._wait_after_stop))
