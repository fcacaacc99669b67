"""What travels over a fleet's control socket, in msgpack. Its version is `PROTOCOL`.

A request names a command and has its arguments, which are a struct of this module. The envelope,
`Request` and `Answer`, is the same in all versions, so that a client of another version gets an
error that it understands.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "PROTOCOL",
    "Acted",
    "Add",
    "Answer",
    "Call",
    "ErrorKind",
    "Events",
    "EventsRead",
    "FleetStatus",
    "Named",
    "Nothing",
    "Problem",
    "Reload",
    "Remove",
    "Request",
    "RestartAll",
    "Started",
    "WorkerRow",
]

PROTOCOL = 1

Timeout = Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)]
Wait = Literal["ready", "connected", "stopped"]


class ErrorKind(enum.Enum):
    """Why a command has no result.

    - UNKNOWN_WORKER: no worker has this name.
    - NOT_SUPPORTED: there is no such command, or the worker has no such method.
    - TIMEOUT: it took too long. What was asked for may still happen.
    - WRONG_STATE: the worker is in a state in which it cannot be done.
    - BAD_ARGUMENTS: the arguments do not fit the command.
    - BAD_FILE: a fleet file has mistakes, or changes that only a new run can apply.
    - VERSION: the client and the fleet have different versions of the protocol.
    - BUSY: the fleet has too many requests in progress.
    - FAILED: it was tried and failed.
    - NOT_RUNNING: no such fleet runs, or it has ended meanwhile.
    - NO_ANSWER: the fleet runs and does not answer.
    """

    UNKNOWN_WORKER = "unknown-worker"
    NOT_SUPPORTED = "not-supported"
    TIMEOUT = "timeout"
    WRONG_STATE = "wrong-state"
    BAD_ARGUMENTS = "bad-arguments"
    BAD_FILE = "bad-file"
    VERSION = "version"
    BUSY = "busy"
    FAILED = "failed"
    NOT_RUNNING = "not-running"
    NO_ANSWER = "no-answer"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A command.

    Attributes:
        protocol: the client's `PROTOCOL`.
        id: unique; a repeated request has the id of the first, and gets the same answer.
        command: its name.
        arguments: its arguments by name.
    """

    protocol: int
    id: Annotated[str, msgspec.Meta(max_length=100)]
    command: Annotated[str, msgspec.Meta(max_length=100)]
    arguments: msgspec.Raw = msgspec.Raw(b"\x80")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no result. The kind is a string, since other versions may have others."""

    kind: str
    message: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the request with this id: a result or an error.

    Attributes:
        protocol: the fleet's `PROTOCOL`.
        id: the request's.
        result: depends on the command.
        error: None if there is a result.
    """

    protocol: int
    id: str
    result: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: Problem | None = None


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all arguments."""


class Nothing(Arguments, frozen=True, kw_only=True):
    """No arguments."""


class Named(Arguments, frozen=True, kw_only=True):
    """Workers by their names or by globs; none means all, where that is allowed."""

    workers: tuple[str, ...] = ()


class Started(Named, frozen=True, kw_only=True):
    """Workers, and the state in which they must be before the answer is sent.

    Attributes:
        wait: None does not wait.
        timeout: seconds for all of them together.
    """

    wait: Wait | None = None
    timeout: Timeout = 60.0


class RestartAll(Arguments, frozen=True, kw_only=True):
    """All workers.

    Attributes:
        rolling: each must be back before the next one is restarted.
        timeout: seconds; with ``rolling``, for each worker.
    """

    rolling: bool = False
    timeout: Timeout = 60.0


class Reload(Started, frozen=True, kw_only=True):
    """A reload of the fleet's files. It waits for the workers that it starts and restarts.

    Attributes:
        dry_run: only tell what would be done.
    """

    dry_run: bool = False


class Add(Started, frozen=True, kw_only=True):
    """A file whose workers are to be added.

    Attributes:
        file: its absolute path.
        save: whether to append it to the fleet's last file.
    """

    file: Annotated[str, msgspec.Meta(min_length=1)]
    save: bool = False


class Remove(Started, frozen=True, kw_only=True):
    """Workers to be removed.

    Attributes:
        save: whether to delete them from the fleet's files.
    """

    save: bool = False


class Call(Arguments, frozen=True, kw_only=True):
    """A call of a method of one worker. Its result is what the method returned."""

    worker: str
    method: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    timeout: Timeout = 5.0


class Events(Arguments, frozen=True, kw_only=True):
    """A read of events.

    Attributes:
        after: the number of the last event that the client knows; 0 for all that the fleet has
            kept; None for those from now on.
        wait: seconds to wait for an event if there is none.
    """

    after: Annotated[int, msgspec.Meta(ge=0)] | None = None
    wait: Annotated[float, msgspec.Meta(ge=0.0, le=60.0)] = 0.0


class EventsRead(msgspec.Struct, frozen=True, kw_only=True):
    """Events.

    Attributes:
        events: each with the name of its class as ``event``, and its fields.
        last: the number of the last one; what the next read is to come ``after``.
        missed: events between ``after`` and these that the fleet has not kept.
    """

    events: tuple[dict[str, Any], ...]
    last: int
    missed: int = 0


class Acted(msgspec.Struct, frozen=True, kw_only=True):
    """What a command did with a worker, such as ``"stopping"`` or ``"was stopped already"``."""

    worker: str
    did: str


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker at one moment. The units are seconds and bytes; times of day are on the wall clock.

    Attributes:
        worker: its name.
        status: of its `WorkerStatus`, the value.
        network_status: of its `NetworkStatus`, the name.
        network_reason: why.
        next_attempt: when the next attempt to connect is due; None if none is planned.
        pid: of its process; None without one.
        incarnation: the number of its process, from 1.
        restarts: processes started after the first.
        is_paused: whether its processor is not active while it is READY.
        uptime: of its process.
        heard: since its last report; None before the first.
        published, run, missed, skipped, lost: its account of ticks.
        lateness_p50, lateness_p99: of its ticks.
        check_p50, check_p99: the duration of its network checks.
        connects: how often it has connected.
        lag: of its event loop at the last beat.
        rss: resident memory.
        cpu: CPU time that its process has used.
        last_error: the last error of a tick, of the network, or the last death, whichever there is.
    """

    worker: str
    status: str
    network_status: str
    network_reason: str | None = None
    next_attempt: float | None = None
    pid: int | None = None
    incarnation: int = 0
    restarts: int = 0
    is_paused: bool = False
    uptime: float = 0.0
    heard: float | None = None
    published: int = 0
    run: int = 0
    missed: int = 0
    skipped: int = 0
    lost: int = 0
    lateness_p50: float = 0.0
    lateness_p99: float = 0.0
    check_p50: float = 0.0
    check_p99: float = 0.0
    connects: int = 0
    lag: float = 0.0
    rss: int = 0
    cpu: float = 0.0
    last_error: str | None = None


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet at one moment.

    Attributes:
        fleet: its name.
        pid: of its coordinator.
        version: of chronopype_mp.
        ticks: published since its start.
        tick_size: seconds.
        is_stopping: whether it has been told to stop.
        workers: in the order in which they were added.
    """

    fleet: str
    pid: int
    version: str
    ticks: int
    tick_size: float
    is_stopping: bool
    workers: tuple[WorkerRow, ...]
