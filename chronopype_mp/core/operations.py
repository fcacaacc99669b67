"""What the network loop has its edge do, and what it hears of it. See `connection`."""

from __future__ import annotations

import enum

import msgspec

__all__ = [
    "Check",
    "Failed",
    "Interrupted",
    "NetworkStatus",
    "NotifyConnected",
    "NotifyDisconnected",
    "Operation",
    "Outcome",
    "Returned",
    "Start",
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
    """Wait until a time, which may be infinite, or until interrupted."""

    until: float


class Stopped(msgspec.Struct, frozen=True):
    """Nothing more to do."""


Operation = Check | Start | Stop | NotifyConnected | NotifyDisconnected | Wait | Stopped


class Returned(msgspec.Struct, frozen=True):
    """The operation ended; ``status`` is what a check returned."""

    status: NetworkStatus = NetworkStatus.NOT_CONNECTED


class TimedOut(msgspec.Struct, frozen=True):
    """The operation did not end within its timeout."""

    reason: str = "timed out"


class Failed(msgspec.Struct, frozen=True):
    """The operation raised; or why a connection is lost.

    Attributes:
        reason: in words.
        expected: an error that networks have.
        retry_after: seconds until the next attempt, exactly.
        permanent: another attempt would fail as well.
    """

    reason: str = "failed"
    expected: bool = False
    retry_after: float | None = None
    permanent: bool = False


class Interrupted(msgspec.Struct, frozen=True):
    """The operation was given up because a call from outside said so."""


Outcome = Returned | TimedOut | Failed | Interrupted
