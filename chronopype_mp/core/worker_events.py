"""Events: frozen records in one stream. Logs, callbacks and the command line are its sinks."""

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
    """The state of a worker, as the supervisor sees it."""

    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    QUARANTINED = "quarantined"
    STOPPING = "stopping"
    STOPPED = "stopped"


class DeathReason(enum.Enum):
    """Why a worker's process ended.

    The process ended, and the supervisor did not cause it:

    - EXITED: it exited.
    - SIGNALLED: a signal ended it.

    The supervisor killed it:

    - LOOP_BLOCKED: its event loop was blocked while other threads ran.
    - GIL_STUCK: not even the guard thread got the GIL.
    - STOPPED: SIGSTOP or a debugger had stopped it.
    - STOP_TIMEOUT: it did not stop within ``stop_grace``.

    The supervisor stopped it gracefully, and killed it if that took too long:

    - UNREACHABLE: it was running, but no reports arrived.
    - LIMIT_EXCEEDED: it exceeded one of its `Limits`.

    START_FAILED: no process could be started, or it ended or timed out before it was READY.
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
    """The base of all events; ``at`` is the wall-clock time of its publication, seconds."""

    at: float = 0.0


class WorkerStarting(Event, frozen=True, kw_only=True):
    """A process is being started for a worker."""

    worker: str
    incarnation: int


class WorkerReady(Event, frozen=True, kw_only=True):
    """A worker's processor has started. Every later tick reaches it or is accounted for.

    ``seconds`` is the time since the start of the process.
    """

    worker: str
    incarnation: int
    pid: int
    seconds: float


class WorkerDied(Event, frozen=True, kw_only=True):
    """The dossier of a worker's process that ended unexpectedly or had to be killed.

    ``str()`` returns a readable report.

    Attributes:
        reason: the class of the failure.
        detail: more about the reason, if there is more to say.
        exitcode: the exit status, negative for a signal. None if there was no process or the
            status is unknown.
        signal: the name of the signal that ended it, such as ``"SIGKILL"``.
        uptime: from the start of the process to its end, seconds.
        last_tick: the timestamp of the last tick that it reported as run.
        loop_lag: how late its event loop was at the last beat, seconds.
        rss: its resident memory at the last beat, bytes.
        cpu: its CPU time until the last beat, seconds.
        network_status: the last status of the processor's network.
        network_error: the last error of the processor's network.
        output: its last lines on stdout and stderr, oldest first.
        error: the traceback of the exception that ended it, if one did.
        error_type: the name of that exception's type.
        error_type_path: where that type is defined, ``"package.module:Class"``.
        error_message: the message of that exception.
        exception: the exception itself, only with the inline launcher. Dossier files omit it.
        stacks: the Python stacks of all threads when the loop was blocked or a fatal signal
            arrived.
        ticks_lost: the ticks that were published while it was READY and are not accounted for.
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
    error_type_path: str = ""
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
    """A killed process does not end, because it hangs in the kernel. Only its own worker waits."""

    worker: str
    incarnation: int
    pid: int | None


class WorkerBackingOff(Event, frozen=True, kw_only=True):
    """A worker will be restarted after ``delay`` seconds."""

    worker: str
    delay: float
    restarts: int


class WorkerQuarantined(Event, frozen=True, kw_only=True):
    """A worker's restart budget is spent. It is down until ``handle.restart()`` or a probation.

    ``restarts`` counts all restarts so far. ``detail`` is the reason if it is not the budget: a
    payload that cannot be loaded, which has no probation.
    """

    worker: str
    restarts: int
    detail: str | None = None


class WorkerStopping(Event, frozen=True, kw_only=True):
    """A worker was asked to stop. ``detail`` says why, unless the owner requested it."""

    worker: str
    incarnation: int
    detail: str | None = None


class WorkerStopped(Event, frozen=True, kw_only=True):
    """A worker has no process and will not be restarted."""

    worker: str


class NetworkChanged(Event, frozen=True, kw_only=True):
    """A processor's network status changed.

    Attributes:
        error: why, if the new status is an error.
        reason: why.
        next_attempt: when the next attempt to connect is due, wall clock in seconds; None if one
            runs, or none is planned.
    """

    worker: str
    incarnation: int
    before: NetworkStatus
    after: NetworkStatus
    error: str | None = None
    reason: str | None = None
    next_attempt: float | None = None


class ProcessorFailed(Event, frozen=True, kw_only=True):
    """A hook of a processor failed. The processor continues.

    Attributes:
        hook: the name of the hook, such as ``"async_tick"`` or ``"start_network"``. That of a task
            which the processor has spawned is ``"task NAME"``.
        type_name: the name of the exception's type.
        type_path: where that type is defined, ``"package.module:Class"``.
        message: the exception's message.
        traceback: the traceback, as formatted in the worker; empty for an error that networks
            are expected to have.
        timeout: whether it exceeded ``processor_timeout``.
        timestamp: the timestamp of the tick, if the hook is a tick.
        exception: the exception itself, only with the inline launcher.
        next_attempt: when the next attempt to connect is due, wall clock in seconds; None if none
            is planned, or it is no matter of the network.
    """

    worker: str
    incarnation: int
    hook: str
    type_name: str
    message: str
    traceback: str
    type_path: str = ""
    timeout: bool = False
    timestamp: float | None = None
    exception: BaseException | None = None
    next_attempt: float | None = None


class FramesDropped(Event, frozen=True, kw_only=True):
    """Frames were dropped. There is at most one such event per second.

    Each number counts the frames since the previous event.

    Attributes:
        garbage: frames that did not decode.
        foreign: reports of an unknown worker.
        stale: reports of an earlier incarnation.
        forged: reports that name a present incarnation and carry another token.
    """

    garbage: int
    foreign: int
    stale: int
    forged: int = 0
