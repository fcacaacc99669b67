"""The network loop of one processor, as a pure state machine. The worker's host is its edge.

The host asks `Connection` what to do, does it, and hands the outcome back, until it stops::

    status STOPPED ──begin()──▶ NOT_CONNECTED, Wait(0) ─▶ CONNECTING, Check
    CONNECTING  ── check says connected ─▶ CONNECTED, hook, Start unless started, Wait(interval)
                ── it does not, not started, when NEEDED ─▶ Start, Check once more
                ── otherwise ─▶ Stop if started, NOT_CONNECTED or ERROR, Wait(backoff)
                ── it raises ─▶ Stop if started, ERROR, Wait(network_error_wait_time)
    CONNECTED   ── check says connected ─▶ Wait(interval)
                ── anything else ─▶ DISCONNECTING, hook, Stop, NOT_CONNECTED or ERROR, Wait
    any         ── end() ─▶ DISCONNECTING and hook if connected, Stop, STOPPED

A start that fails or times out ends in Stop, ERROR and a retry after a backoff: the server is
often just not there yet. CONNECTING is shown only while an attempt runs.

What did not work: chronopype's own order (start only after a successful check) deadlocks every
processor whose check looks at the client that its start makes, so it is opt-in here
(`StartWhen.CONNECTED`).
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


Outcome = Returned | TimedOut | Failed


class Connection:
    """One processor's network loop.

    Args:
        policy: the settings; assign `policy` to change them for what follows.
        rng: the source of jitter.

    Attributes:
        status: the status to show now.
        started: whether ``start_network()`` has returned for this connection.
        failures: attempts failed in a row.
    """

    def __init__(self, policy: ConnectionPolicy, rng: random.Random) -> None:
        self.policy = policy
        self.status = NetworkStatus.STOPPED
        self.started = False
        self.failures = 0
        self._rng = rng
        self._operation: Operation = Stopped()
        self._retry_start_allowed = False
        self._after_stop = NetworkStatus.NOT_CONNECTED
        self._wait_after_stop = 0.0

    @property
    def ready(self) -> bool:
        """Whether ticks may reach the processor: connected, told so, and its network started."""
        return (
            self.status is NetworkStatus.CONNECTED
            and self.started
            and not isinstance(self._operation, NotifyConnected)
        )

    def begin(self) -> Operation:
        """Go from STOPPED to NOT_CONNECTED; return the first operation, a wait for nothing.

        Raises:
            RuntimeError: the loop has begun already.
        """
        if self.status is not NetworkStatus.STOPPED:
            raise RuntimeError(f"the network loop has begun already (status {self.status.name})")
        self.status = NetworkStatus.NOT_CONNECTED
        self.failures = 0
        return self._do(Wait(0.0))

    def end(self) -> Operation:
        """Return the first operation of the way to STOPPED; an operation under way is dropped."""
        self._after_stop = NetworkStatus.STOPPED
        if isinstance(self._operation, NotifyDisconnected | Stop):
            return self._operation
        if self.status is NetworkStatus.CONNECTED:
            self.status = NetworkStatus.DISCONNECTING
            return self._do(NotifyDisconnected())
        if self.status is NetworkStatus.STOPPED:
            return self._do(Stopped())
        return self._do(Stop())

    def handle(self, outcome: Outcome) -> Operation:
        """Take the outcome of the operation handed out last; return the next.

        Raises:
            RuntimeError: the loop is stopped, so nothing can have ended.
        """
        match self._operation:
            case Check():
                return self._checked(outcome)
            case NotifyConnected():
                if isinstance(outcome, Returned):
                    return self._settle() if self.started else self._do(Start())
                return self._lose(NetworkStatus.ERROR, self._backoff())
            case Start():
                return self._start_ended(outcome)
            case NotifyDisconnected():
                return self._do(Stop())
            case Stop():
                return self._stop_ended()
            case Wait():
                return self._attempt()
            case _:
                raise RuntimeError("the network loop is stopped")

    def _do(self, operation: Operation) -> Operation:
        self._operation = operation
        return operation

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
        if self.status is NetworkStatus.CONNECTED:
            self.status = NetworkStatus.DISCONNECTING
            return self._do(NotifyDisconnected())
        if self.started:
            return self._do(Stop())
        return self._stop_ended()

    def _stop_ended(self) -> Operation:
        self.started = False
        self.status = self._after_stop
        if self.status is NetworkStatus.STOPPED:
            return self._do(Stopped())
        return self._do(Wait(self._wait_after_stop))
