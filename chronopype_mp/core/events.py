"""What happened, as frozen records. Logs, callbacks, the command line are sinks of one stream."""

from __future__ import annotations

import enum

import msgspec

from chronopype_mp.core.connection import NetworkStatus

__all__ = [
    "DeathReason",
    "Event",
    "FramesDropped",
    "NetworkChanged",
    "ProcessorFailed",
    "WorkerBackingOff",
    "WorkerDied",
    "WorkerQuarantined",
    "WorkerReady",
    "WorkerStarting",
    "WorkerStatus",
    "WorkerStopped",
    "WorkerStopping",
]


class WorkerStatus(enum.Enum):
    """How a worker stands with its supervisor."""

    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    QUARANTINED = "quarantined"
    STOPPING = "stopping"
    STOPPED = "stopped"


class DeathReason(enum.Enum):
    """Why a worker's process ended.

    EXITED and SIGNALLED are its own doing or somebody else's; for the others the supervisor
    killed it, or it could not be started.
    """

    EXITED = "exited"
    SIGNALLED = "signalled"
    START_FAILED = "start_failed"
    START_TIMEOUT = "start_timeout"
    LOOP_STALLED = "loop_stalled"
    STOP_TIMEOUT = "stop_timeout"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all events; ``at`` is the wall clock when it was published, seconds."""

    at: float = 0.0


class WorkerStarting(Event, frozen=True, kw_only=True):
    """A process is being started for a worker."""

    worker: str
    incarnation: int


class WorkerReady(Event, frozen=True, kw_only=True):
    """A worker's processor has started; every tick from now on reaches it or is accounted for.

    ``seconds`` is the time from the start of the process.
    """

    worker: str
    incarnation: int
    pid: int
    seconds: float


class WorkerDied(Event, frozen=True, kw_only=True):
    """A worker's process ended without having been asked to, or had to be killed.

    Attributes:
        exitcode: the exit status; negative for a signal; None if the process never was.
        uptime: from the start of the process to its end, seconds.
        output: its last lines on stdout and stderr, oldest first.
        error: the traceback of the error that ended it, where it could report one.
        ticks_lost: ticks published while it was READY that it never accounted for.
    """

    worker: str
    incarnation: int
    pid: int | None
    reason: DeathReason
    exitcode: int | None
    uptime: float
    output: tuple[str, ...] = ()
    error: str | None = None
    ticks_lost: int = 0

    def __str__(self) -> str:
        how = "" if self.exitcode is None else f", exit status {self.exitcode}"
        head = (
            f"worker {self.worker!r} (incarnation {self.incarnation}, pid {self.pid}) died after "
            f"{self.uptime:.1f} s: {self.reason.value}{how}"
        )
        lines = [head]
        if self.error:
            lines += ["  " + line for line in self.error.rstrip().splitlines()]
        if self.output:
            lines += ["  last output:", *("  | " + line for line in self.output)]
        return "\n".join(lines)


class WorkerBackingOff(Event, frozen=True, kw_only=True):
    """A worker will be started again after ``delay`` seconds."""

    worker: str
    delay: float
    restarts: int


class WorkerQuarantined(Event, frozen=True, kw_only=True):
    """A worker's restart budget is spent; it stays down until ``handle.restart()``."""

    worker: str
    restarts: int


class WorkerStopping(Event, frozen=True, kw_only=True):
    """A worker was asked to stop."""

    worker: str
    incarnation: int


class WorkerStopped(Event, frozen=True, kw_only=True):
    """A worker has no process any more and gets none."""

    worker: str


class NetworkChanged(Event, frozen=True, kw_only=True):
    """A processor's network status changed; ``error`` is why, where it is an error."""

    worker: str
    incarnation: int
    before: NetworkStatus
    after: NetworkStatus
    error: str | None = None


class ProcessorFailed(Event, frozen=True, kw_only=True):
    """A hook of a processor failed; the processor goes on.

    Attributes:
        hook: which, such as ``"async_tick"`` or ``"start_network"``.
        timeout: it ran into ``processor_timeout``.
        timestamp: the tick's, where it was a tick.
        traceback: as printed in the worker.
        exception: the exception itself, where it never left this process (inline launcher).
    """

    worker: str
    incarnation: int
    hook: str
    type_name: str
    message: str
    traceback: str
    timeout: bool = False
    timestamp: float | None = None
    exception: BaseException | None = None


class FramesDropped(Event, frozen=True, kw_only=True):
    """Frames came in that are no reports of present workers; at most one event a second.

    Attributes:
        garbage: did not decode, since the last such event.
        foreign: named a worker that is not there.
        stale: came from an earlier incarnation.
    """

    garbage: int
    foreign: int
    stale: int
