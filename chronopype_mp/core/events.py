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
    "WorkerUnkillable",
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

    EXITED and SIGNALLED are its own doing or somebody else's. It was killed for LOOP_BLOCKED (its
    event loop stood still, other threads ran), GIL_STUCK (even the guard thread did not get the
    GIL), STOPPED (by SIGSTOP or a debugger), STOP_TIMEOUT (it did not stop within its grace). It
    was asked to stop, and killed if it did not, for UNREACHABLE (it lives, but is not heard of) and
    LIMIT_EXCEEDED.
    START_FAILED: there was no process, or it ended or ran out of time before it was READY.
    """

    EXITED = "exited"
    SIGNALLED = "signalled"
    LOOP_BLOCKED = "loop_blocked"
    GIL_STUCK = "gil_stuck"
    STOPPED = "stopped"
    UNREACHABLE = "unreachable"
    START_FAILED = "start_failed"
    LIMIT_EXCEEDED = "limit_exceeded"
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
    """A worker's process ended without having been asked to, or had to be killed: its dossier.

    ``str()`` of it is for people.

    Attributes:
        reason: the class of the failure.
        detail: what exactly, where that says more.
        exitcode: the exit status; negative for a signal; None if there was no process, or nobody
            knows.
        signal: the signal's name, such as ``"SIGKILL"``, where one ended it.
        uptime: from the start of the process to its end, seconds.
        last_tick: timestamp of the last tick that it reported to have run.
        loop_lag: how late its event loop was at the last beat, seconds.
        rss: its resident memory at the last beat, bytes.
        cpu: the CPU time it had used by then, seconds.
        network_status: of its processor, before the end.
        network_error: the last error of its network.
        output: its last lines on stdout and stderr, oldest first.
        error: the traceback of the exception that ended it, where there was one.
        error_type: the name of that exception's type.
        error_message: what it said.
        exception: itself, where it never left this process (inline launcher); not in the files.
        stacks: the Python stacks of all its threads when its loop stood still or a fatal signal
            came.
        ticks_lost: ticks published while it was READY that it never accounted for.
    """

    worker: str
    incarnation: int
    pid: int | None
    reason: DeathReason
    exitcode: int | None
    uptime: float
    detail: str | None = None
    signal: str | None = None
    last_tick: float | None = None
    loop_lag: float = 0.0
    rss: int = 0
    cpu: float = 0.0
    network_status: NetworkStatus = NetworkStatus.STOPPED
    network_error: str | None = None
    output: tuple[str, ...] = ()
    error: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    exception: BaseException | None = None
    stacks: str | None = None
    ticks_lost: int = 0

    def __str__(self) -> str:
        if self.signal is not None:
            how = f", {self.signal}"
        else:
            how = "" if self.exitcode is None else f", exit status {self.exitcode}"
        lines = [
            f"worker {self.worker!r} (incarnation {self.incarnation}, pid {self.pid}) died after "
            f"{self.uptime:.1f} s: {self.reason.value}{how}"
        ]
        if self.detail:
            lines.append(f"  {self.detail}")
        if self.last_tick is not None or self.ticks_lost or self.rss:
            lines.append(
                f"  last tick {self.last_tick!r}, {self.ticks_lost} ticks lost, "
                f"loop lag {self.loop_lag:.3f} s, RSS {self.rss / 1e6:.1f} MB, "
                f"CPU {self.cpu:.2f} s"
            )
        if self.network_status is not NetworkStatus.STOPPED or self.network_error:
            error = f", last error: {self.network_error}" if self.network_error else ""
            lines.append(f"  network {self.network_status.name}{error}")
        for title, text in (("traceback", self.error), ("stacks", self.stacks)):
            if text:
                lines += [f"  {title}:", *("  | " + line for line in text.rstrip().splitlines())]
        if self.output:
            lines += ["  last output:", *("  | " + line for line in self.output)]
        return "\n".join(lines)


class WorkerUnkillable(Event, frozen=True, kw_only=True):
    """A killed process does not end (it hangs in the kernel); it is waited for, nothing else is."""

    worker: str
    incarnation: int
    pid: int | None


class WorkerBackingOff(Event, frozen=True, kw_only=True):
    """A worker will be started again after ``delay`` seconds."""

    worker: str
    delay: float
    restarts: int


class WorkerQuarantined(Event, frozen=True, kw_only=True):
    """A worker's restart budget is spent; it stays down until ``handle.restart()`` or a probation.

    ``restarts`` counts all so far.
    """

    worker: str
    restarts: int


class WorkerStopping(Event, frozen=True, kw_only=True):
    """A worker was asked to stop; ``detail`` is why, where it was not the owner."""

    worker: str
    incarnation: int
    detail: str | None = None


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
