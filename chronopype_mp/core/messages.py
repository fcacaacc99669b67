"""What travels between coordinator and workers: a closed union in each direction.

Every report carries the worker's name, the incarnation and that incarnation's token. So a report of
an earlier process, or of somebody else, can be told from one of the present process.
"""

from __future__ import annotations

import msgspec

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.connection_counters import ConnectionCounters
from chronopype_mp.core.message_counters import MessageCounters
from chronopype_mp.core.output_counters import OutputCounters
from chronopype_mp.core.state import TickAccount, TickCounters

__all__ = [
    "LOADING",
    "PROTOCOL",
    "AskRetained",
    "AttributeValue",
    "Attributes",
    "Beat",
    "Bye",
    "Call",
    "CallAsked",
    "CallDone",
    "Command",
    "CommandDone",
    "Configure",
    "Downlink",
    "Failure",
    "GuardBeat",
    "Hello",
    "LogLine",
    "Outcome",
    "Ready",
    "Reconnect",
    "Rehearse",
    "Reply",
    "Report",
    "Restoring",
    "SendAttributes",
    "StatePart",
    "Status",
    "Stop",
    "Tick",
    "TickDone",
    "Ticks",
    "Uplink",
    "Welcome",
    "WorkerSettings",
]

PROTOCOL = 3
"""Version of everything in this module. `Hello` carries it; golden bytes in the tests keep it."""


class Tick(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A tick for all workers; ``seq`` rises by one each time."""

    seq: int
    timestamp: float


class Ticks(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Ticks of a free run, in a row; ``seq`` is the number of the first."""

    seq: int
    timestamps: list[float]


class WorkerSettings(msgspec.Struct, frozen=True):
    """What the owner can change while a worker runs.

    The attributes but the first two are settings of a `NetworkProcessor`. None leaves the
    processor's own value; infinity stands for a setting of None.

    Attributes:
        paused: ticks are held back.
        outputs: the patterns of the topics that somebody reads in the owner.
    """

    paused: bool = False
    outputs: tuple[str, ...] = ()
    check_network_interval: float | None = None
    check_network_timeout: float | None = None
    network_error_wait_time: float | None = None
    start_network_timeout: float | None = None
    stop_network_timeout: float | None = None
    network_backoff: BackoffPolicy | None = None
    stable_after: float | None = None
    stale_after: float | None = None
    retry_permanent_after: float | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """The base of what is sent to one worker.

    Whoever gives an order leaves these fields alone. The session fills in the first three, the
    ticker thread the position.

    Attributes:
        incarnation: for which process it is.
        id: counts the commands of a session from 1; 0 for a `Welcome`.
        oldest: commands with a lower id are acknowledged or withdrawn; the worker forgets them.
        seq: the last tick that was published before this frame.
        timestamp: that tick's timestamp, seconds.
    """

    incarnation: int = 0
    id: int = 0
    oldest: int = 0
    seq: int = 0
    timestamp: float = 0.0


class Welcome(Command, frozen=True, kw_only=True, tag=2):
    """The answer to `Hello`; its arrival shows that the worker's subscription works."""

    settings: WorkerSettings


class Configure(Command, frozen=True, kw_only=True, tag=3):
    """The settings, complete."""

    settings: WorkerSettings


class Stop(Command, frozen=True, kw_only=True, tag=4):
    """Stop gracefully after tick ``seq``."""


class Rehearse(Command, frozen=True, kw_only=True, tag=5):
    """Carry out a fault, so that people can see what comes of it; see `testing.faults`."""

    fault: str
    amount: float


class Reconnect(Command, frozen=True, kw_only=True, tag=7):
    """Make the processor's connection anew, now."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call; `core.call_outcome` makes and reads it.

    Attributes:
        result: what the method returned, in msgpack.
        error: the name of a class in `exceptions`; "" after a result.
        message: the error's.
        type_name, type_path, traceback: of what the method raised, see `Failure`.
    """

    result: bytes = b""
    error: str = ""
    message: str = ""
    type_name: str = ""
    type_path: str = ""
    traceback: str = ""


class Call(Command, frozen=True, kw_only=True, tag=8):
    """Call a method of the processor between two ticks; answered by `CallDone`.

    Attributes:
        call: counts the calls of an incarnation from 1.
        method: its name.
        arguments: positional and keyword ones, in msgpack.
        timeout: how long the caller still waits, seconds.
    """

    call: int
    method: str
    arguments: bytes
    timeout: float


class Reply(Command, frozen=True, kw_only=True, tag=40):
    """The answer to `CallAsked`."""

    call: int
    outcome: Outcome


class SendAttributes(Command, frozen=True, kw_only=True, tag=50):
    """Report the processor's attributes between two ticks; the answer has the same ``request``."""

    request: int


Downlink = Welcome | Configure | Stop | Rehearse | Reconnect | Call | Reply | SendAttributes


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The base of what workers send; ``token`` is known to this incarnation alone."""

    worker: str
    incarnation: int
    token: int


class Hello(Report, frozen=True, kw_only=True, tag=1):
    """A worker lives; repeated until welcomed.

    Attributes:
        pid: its process id.
        protocol: its version of this module.
        package: its version of chronopype_mp.
        python: its version of Python.
    """

    pid: int
    protocol: int = PROTOCOL
    package: str = ""
    python: str = ""


class Ready(Report, frozen=True, kw_only=True, tag=2):
    """The processor has started; the worker's account opens after tick ``base``."""

    base: int


class Status(Report, frozen=True, kw_only=True, tag=3):
    """The network status changed, or its reason, or the time of the next attempt.

    Attributes:
        network: the status.
        revision: counts the changes of this incarnation from 1.
        error: why, where the status is an error.
        last_connected: when it was last CONNECTED, wall clock in seconds; None if never.
        reason: why it is what it is.
        next_attempt: when the next attempt to connect is due, wall clock in seconds; None if one
            runs, or none is planned.
        connection: the figures of the connection in this incarnation.
    """

    network: NetworkStatus
    revision: int
    error: str | None = None
    last_connected: float | None = None
    reason: str | None = None
    next_attempt: float | None = None
    connection: ConnectionCounters = ConnectionCounters()


class AttributeValue(msgspec.Struct, frozen=True, array_like=True):
    """The value of an attribute; see `chronopype_mp.core.attributes`.

    Attributes:
        kind: where its type is defined, ``"package.module:Class"``; "" for plain data.
        data: the value.
    """

    kind: str
    data: msgspec.Raw


class Beat(Report, frozen=True, kw_only=True, tag=4):
    """The event loop turns. A beat stands in for a `Ready` or a `Status` that was lost.

    Attributes:
        serial: counts this incarnation's beats, so that an older one does not count.
        account: what became of the ticks.
        counters: the processor's.
        largest_gap: between the timestamps of two consecutive ticks, seconds; deliberately skipped
            ticks make no gap.
        lag: how late this beat was, seconds.
        network: the network status.
        revision: of that status, see `Status`.
        last_connected, reason, next_attempt, connection: see `Status`.
        downtime: for how long the processor has tried to connect in vain, seconds.
        check_timeouts: network checks that timed out in a row.
        rss: resident memory, bytes.
        cpu: CPU time used so far, seconds.
        reports_lost: reports dropped, log lines included: the coordinator did not read, or there
            were more than the worker may send.
        frames_dropped: frames received that did not decode.
        mirrored: the attributes that the processor's class lists there.
        outputs: the counts of its outputs.
        messages: the counts of the messages for it.
    """

    serial: int
    account: TickAccount
    counters: TickCounters
    largest_gap: float
    lag: float
    network: NetworkStatus = NetworkStatus.STOPPED
    revision: int = 0
    last_connected: float | None = None
    reason: str | None = None
    next_attempt: float | None = None
    connection: ConnectionCounters = ConnectionCounters()
    downtime: float = 0.0
    check_timeouts: int = 0
    rss: int = 0
    cpu: float = 0.0
    reports_lost: int = 0
    frames_dropped: int = 0
    mirrored: dict[str, AttributeValue] = {}
    outputs: OutputCounters = OutputCounters()
    messages: MessageCounters = MessageCounters()


class GuardBeat(Report, frozen=True, kw_only=True, tag=5):
    """The guard thread runs.

    ``stalled`` is how long the event loop has not turned, in seconds.
    """

    stalled: float


class CommandDone(Report, frozen=True, kw_only=True, tag=6):
    """Command ``id`` has arrived and is carried out; ``seq`` is the one in its frame."""

    id: int
    seq: int


LOADING = "loading the processor"
"""The hook that a `Failure` names if no incarnation can load the payload."""


class Failure(Report, frozen=True, kw_only=True, tag=7):
    """A hook of the processor failed.

    Attributes:
        hook: which, such as ``"async_tick"``; ``"task NAME"`` for a spawned task.
        serial: counts this incarnation's failures.
        type_path: where its type is defined, ``"package.module:Class"``; "" if nobody can know.
        fatal: the process ends because of it.
        timeout: it ran into a timeout of the framework.
        timestamp: the tick's, where it was a tick.
        next_attempt: after a failure of the network, see `Status`.
    """

    hook: str
    serial: int
    type_name: str
    message: str
    traceback: str
    type_path: str = ""
    fatal: bool = False
    timeout: bool = False
    timestamp: float | None = None
    next_attempt: float | None = None


class LogLine(Report, frozen=True, kw_only=True, tag=8):
    """A log record of the worker; the fields that are not listed are those of `logging.LogRecord`.

    Attributes:
        function: its ``funcName``.
        thread: its ``threadName``.
        thread_id: its ``thread``.
        task: its ``taskName``.
        process: the worker's process id.
        exception: the traceback, as formatted in the worker.
        stack: its ``stack_info``.
        extra: the fields that the program has added, each encoded on its own.
    """

    logger: str
    level: int
    message: str
    created: float
    pathname: str = ""
    lineno: int = 0
    function: str | None = None
    thread: str | None = None
    thread_id: int | None = None
    task: str | None = None
    process: int | None = None
    exception: str | None = None
    stack: str | None = None
    extra: dict[str, msgspec.Raw] = {}


class Bye(Report, frozen=True, kw_only=True, tag=9):
    """The last report.

    Attributes:
        account: what became of the ticks; None if the processor never started.
        counters: the processor's.
        largest_gap, connection: as in `Beat`.
        stopped_at: ``seq`` of the `Stop` that ended this incarnation; None without one.
        outputs: the counts of its outputs, which are on their way by other sockets.
        messages: the counts of the messages for it.
    """

    account: TickAccount | None
    counters: TickCounters
    largest_gap: float = 0.0
    connection: ConnectionCounters = ConnectionCounters()
    stopped_at: int | None = None
    outputs: OutputCounters = OutputCounters()
    messages: MessageCounters = MessageCounters()


class TickDone(Report, frozen=True, kw_only=True, tag=10):
    """All ticks up to ``seq`` are finished; sent only in free runs."""

    seq: int


class CallDone(Report, frozen=True, kw_only=True, tag=40):
    """What became of a `Call`."""

    call: int
    outcome: Outcome


class CallAsked(Report, frozen=True, kw_only=True, tag=41):
    """The processor calls a method of another worker; answered by `Reply`.

    Attributes:
        call: counts the calls that this incarnation makes from 1.
        callee: the other worker's name.
        method, arguments, timeout: see `Call`.
    """

    call: int
    callee: str
    method: str
    arguments: bytes
    timeout: float


class StatePart(Report, frozen=True, kw_only=True, tag=50):
    """A part of a snapshot; see `chronopype_mp.core.saved_state`.

    Attributes:
        serial: counts this incarnation's snapshots from 1.
        index: counts the parts of this one from 0.
        count: how many there are.
        version: the class's ``snapshot_version``.
        taken_at: when it was taken, wall clock in seconds.
        data: a piece of what ``snapshot()`` returned, in msgpack.
    """

    serial: int
    index: int
    count: int
    version: int
    taken_at: float
    data: bytes


class Restoring(Report, frozen=True, kw_only=True, tag=51):
    """The call of ``restore()`` begins, or is over."""

    is_over: bool


class Attributes(Report, frozen=True, kw_only=True, tag=52):
    """Some of the processor's public attributes.

    Attributes:
        request: which `SendAttributes` it answers; 0 at the end of an orderly stop.
        values: by name.
        left_out: why the others do not travel, by name; only in the last message of an answer.
        is_last: no more of them follow.
    """

    request: int
    values: dict[str, AttributeValue]
    left_out: dict[str, str]
    is_last: bool


class AskRetained(Report, frozen=True, kw_only=True, tag=60):
    """The processor has subscribed; the answer comes among its messages.

    Attributes:
        request: counts the requests of this incarnation; only the last one is waited for.
        patterns: of the topics whose retained messages it needs.
    """

    request: int
    patterns: tuple[str, ...]


Uplink = (
    Hello
    | Ready
    | Status
    | Beat
    | GuardBeat
    | CommandDone
    | Failure
    | LogLine
    | Bye
    | TickDone
    | CallDone
    | CallAsked
    | StatePart
    | Restoring
    | Attributes
    | AskRetained
)
