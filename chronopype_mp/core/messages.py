"""What travels between coordinator and workers: a closed union in each direction.

Every report carries the worker's name and incarnation, so that what an earlier process of the
worker sent can be told from what the present one sends.
"""

from __future__ import annotations

import msgspec

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.state import TickAccount, TickCounters

__all__ = [
    "PROTOCOL",
    "STOP_ID",
    "Beat",
    "Bye",
    "Command",
    "CommandDone",
    "Configure",
    "Failure",
    "GuardBeat",
    "Hello",
    "LogLine",
    "Ready",
    "Rehearse",
    "Report",
    "Status",
    "Stop",
    "Tick",
    "TickDone",
    "Ticks",
    "Uplink",
    "Welcome",
    "WorkerSettings",
]

STOP_ID = 0
"""What `CommandDone` calls a `Stop`; settings count from 1."""

PROTOCOL = 1
"""Version of everything in this module; the first message of a worker carries it."""


class Tick(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A tick for all workers; ``seq`` rises by one each time."""

    seq: int
    timestamp: float


class Ticks(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Ticks of a free run, in a row; ``seq`` is the number of the first."""

    seq: int
    timestamps: list[float]


class WorkerSettings(msgspec.Struct, frozen=True):
    """What the owner can change while a worker runs; None leaves the processor's own value."""

    paused: bool = False
    check_network_interval: float | None = None
    check_network_timeout: float | None = None
    network_error_wait_time: float | None = None


class Welcome(msgspec.Struct, frozen=True, tag=2):
    """The answer to `Hello`; that it arrives shows that the worker's subscription works."""

    incarnation: int
    seq: int
    timestamp: float
    settings: WorkerSettings


class Configure(msgspec.Struct, frozen=True, tag=3):
    """The settings, whole; repeated until done. One with a lower ``id`` than the last is old."""

    incarnation: int
    id: int
    settings: WorkerSettings


class Stop(msgspec.Struct, frozen=True, tag=4):
    """Stop in order; ``seq`` is the last tick that was published before. Done as `STOP_ID`."""

    incarnation: int
    seq: int


class Rehearse(msgspec.Struct, frozen=True, tag=5):
    """Do yourself harm, so that people can see what comes of it; see `testing.faults`."""

    incarnation: int
    fault: str
    amount: float


Command = Welcome | Configure | Stop | Rehearse


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The base of what workers send."""

    worker: str
    incarnation: int


class Hello(Report, frozen=True, kw_only=True, tag=1):
    """A worker lives; repeated until welcomed."""

    pid: int
    protocol: int = PROTOCOL


class Ready(Report, frozen=True, kw_only=True, tag=2):
    """The processor has started; the worker's account opens after tick ``base``."""

    base: int


class Status(Report, frozen=True, kw_only=True, tag=3):
    """The network status changed.

    ``error`` is why, where it is an error; ``at`` is the wall clock.
    """

    network: NetworkStatus
    at: float
    error: str | None = None
    last_connected: float | None = None


class Beat(Report, frozen=True, kw_only=True, tag=4):
    """The event loop turns.

    Attributes:
        account: what became of the ticks.
        counters: the processor's.
        largest_gap: between the timestamps of two ticks run in a row, seconds; ticks held back
            on purpose between two make no gap.
        lag: how late this beat was, seconds.
        rss: resident memory, bytes.
        cpu: CPU time used so far, seconds.
        reports_lost: reports dropped because the coordinator did not read, log lines included.
        frames_dropped: frames received that did not decode.
    """

    account: TickAccount
    counters: TickCounters
    largest_gap: float
    lag: float
    rss: int = 0
    cpu: float = 0.0
    reports_lost: int = 0
    frames_dropped: int = 0


class GuardBeat(Report, frozen=True, kw_only=True, tag=5):
    """The guard thread runs; ``stalled`` is for how long the event loop has not turned, seconds."""

    stalled: float


class CommandDone(Report, frozen=True, kw_only=True, tag=6):
    """Settings ``id`` are in force, or (`STOP_ID`) a stop has begun."""

    id: int


class Failure(Report, frozen=True, kw_only=True, tag=7):
    """A hook of the processor failed.

    Attributes:
        hook: which, such as ``"async_tick"``.
        serial: counts this incarnation's failures.
        fatal: the process ends because of it.
        timeout: it ran into a timeout of the framework.
        timestamp: the tick's, where it was a tick.
    """

    hook: str
    serial: int
    type_name: str
    message: str
    traceback: str
    fatal: bool = False
    timeout: bool = False
    timestamp: float | None = None


class LogLine(Report, frozen=True, kw_only=True, tag=8):
    """A log record of the worker."""

    logger: str
    level: int
    message: str
    created: float
    pathname: str = ""
    lineno: int = 0
    function: str | None = None
    thread: str | None = None


class Bye(Report, frozen=True, kw_only=True, tag=9):
    """The last report; ``account`` is None if the processor never started."""

    account: TickAccount | None
    counters: TickCounters
    largest_gap: float = 0.0


class TickDone(Report, frozen=True, kw_only=True, tag=10):
    """All ticks up to ``seq`` are over; sent where the coordinator waits for that."""

    seq: int


Uplink = (
    Hello | Ready | Status | Beat | GuardBeat | CommandDone | Failure | LogLine | Bye | TickDone
)
