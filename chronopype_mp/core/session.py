"""The conversation between the coordinator and one process of a worker: both roles, pure.

::

    CoordinatorSession                            WorkerSession

    WAITING     ◀──────── Hello ────────────────  WAITING    Hello every 5 to 50 ms
       │ ───────────────── Welcome ────────────▶     │ deed: Welcome (start the processor)
    WELCOMED                                      WELCOMED
       │ ◀── Ready(base), or any Beat ───────────    │ started(base)
    READY                                         READY      beats, status, failures
       │ ── Configure, Call, Stop … (id) ──────▶     │ deed: the command, once for its id
       │ ◀──────── CommandDone(id) ──────────────    │
    STOPPING    (a Stop is ordered)               STOPPING   (its deed; then the process ends)
       │ ◀──────── Bye ──────────────────────────    │

    WAITING ── Hello of another protocol ──▶ REFUSED: nothing is answered, the start times out

The wire may drop, repeat, delay and reorder frames. Each step is therefore repeated until the other
side has shown that it took place:

- `Hello` is repeated until a `Welcome` arrives, and every `Hello` of this protocol is answered.
- `Ready` is sent once; each `Beat` stands in for it, and for a lost `Status`.
- A command has an id and is repeated until its `CommandDone` arrives. The worker carries an id out
  once. It acknowledges a command before it carries it out: the deed may block or end the process.
- A `SendAttributes` is sent once: its answer is of use only while somebody waits for it.
- A `Configure` withdraws earlier ones, a `Stop` withdraws everything and is the last command. The
  worker ignores a withdrawn command that arrives late.

A report is matched to its session by incarnation and token before it gets here. The edges are
`chronopype_mp.coordinator.incarnation` and `chronopype_mp.worker.host`.

A new command is a message type in `messages`, a deed in the host, and whoever orders it.
"""

from __future__ import annotations

import enum
import platform
from typing import Any, NamedTuple

import msgspec

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.connection_counters import ConnectionCounters
from chronopype_mp.core.message_counters import MessageCounters
from chronopype_mp.core.messages import (
    PROTOCOL,
    AskRetained,
    Beat,
    Bye,
    CommandDone,
    Configure,
    Downlink,
    GuardBeat,
    Hello,
    Ready,
    SendAttributes,
    Status,
    Stop,
    TickDone,
    Uplink,
    Welcome,
    WorkerSettings,
)
from chronopype_mp.core.output_counters import OutputCounters
from chronopype_mp.core.state import TickAccount, TickCounters
from chronopype_mp.core.stimuli import BeatReceived, GotReady, GuardBeatReceived, Stimulus

__all__ = [
    "Answer",
    "CoordinatorSession",
    "Due",
    "SessionState",
    "WorkerAnswer",
    "WorkerSession",
]

REPEAT_AFTER = 0.1
"""Seconds without an acknowledgement after which a command is sent again."""

LONGEST_REPEAT = 1.0
"""Seconds, at most, between two repetitions. They double from `REPEAT_AFTER`, so that calls of a
worker that does not read fill no queue. A `Configure` or `Stop`, of which there is one, keeps
`REPEAT_AFTER`."""

UNHEARD_AFTER = 1.0
"""Seconds without an acknowledgement after which a stop is also asked for by a signal."""

OF_STATUS = ("network", "reason", "next_attempt")
"""What of a network status is reported when it changes."""

FIRST_HELLO_INTERVAL = 0.005
HELLO_INTERVAL = 0.05
"""Seconds between two hellos; doubled each time up to this. The first welcomes may be sent before
the worker's subscription works."""


class SessionState(enum.Enum):
    """How far a session is."""

    WAITING = "waiting"
    REFUSED = "refused"
    WELCOMED = "welcomed"
    READY = "ready"
    STOPPING = "stopping"


class Due(msgspec.Struct, frozen=True):
    """Time has passed: repeat what needs repeating."""


class Answer(NamedTuple):
    """What the coordinator does with a report.

    Attributes:
        commands: to send to the worker.
        stimuli: for the supervisor.
        facts: what the mirror of the worker takes note of; a report that was lost is made up from
            the one that stands in for it.
    """

    commands: list[Downlink]
    stimuli: list[Stimulus]
    facts: list[Uplink]


class _Pending:
    """A command that is not acknowledged."""

    def __init__(self, command: Downlink, now: float) -> None:
        self.command = command
        self.ordered_at = self.sent_at = now
        self._wait = REPEAT_AFTER

    def is_overdue(self, now: float) -> bool:
        return now >= self.sent_at + self._wait

    def repeated(self, now: float) -> Downlink:
        """Return the command, which is repeated less and less often, unless it is urgent."""
        self.sent_at = now
        if not isinstance(self.command, Configure | Stop):
            self._wait = min(2 * self._wait, LONGEST_REPEAT)
        return self.command


class CoordinatorSession:
    """The coordinator's role, for one incarnation.

    Args:
        worker: its name.
        incarnation: which process of the worker.
        settings: what the owner wants of the worker.

    Attributes:
        state: how far it is.
        through: the last tick that the worker has reported as finished, in free runs.
        stopped_at: the last tick before the stop that the worker has confirmed; None before.
    """

    def __init__(self, worker: str, incarnation: int, settings: WorkerSettings) -> None:
        self._worker = worker
        self._incarnation = incarnation
        self._settings = settings
        self._welcomes_differ = False
        self._refused = False
        self._pending: dict[int, _Pending] = {}
        self._next_id = 1
        self._beats = 0
        self._revision = 0
        self.state = SessionState.WAITING
        self.through = 0
        self.stopped_at: int | None = None

    @property
    def was_ready(self) -> bool:
        """Whether the worker has been READY."""
        return self.state in (SessionState.READY, SessionState.STOPPING)

    @property
    def settled(self) -> bool:
        """Whether every command is acknowledged."""
        return not self._pending

    def stop_is_unheard(self, now: float) -> bool:
        """Whether a stop was ordered long ago and is not acknowledged."""
        return any(
            isinstance(each.command, Stop) and now >= each.ordered_at + UNHEARD_AFTER
            for each in self._pending.values()
        )

    def handle(self, received: Uplink | Due, now: float) -> Answer:
        """Take a report of this incarnation, or note that time has passed."""
        answer = Answer([], [], [])
        match received:
            case Due():
                answer.commands.extend(self._repeated(now))
            case Hello():
                self._greeted(received, answer)
            case Ready():
                self._got_ready(received, answer, now)
            case Beat():
                self._beat(received, answer, now)
            case Status():
                self._status(received, answer)
            case GuardBeat():
                stimulus = GuardBeatReceived(self._worker, self._incarnation, received.stalled)
                answer.stimuli.append(stimulus)
            case CommandDone():
                self._done(received)
            case TickDone():
                self.through = max(self.through, received.seq)
            case Bye():
                if received.stopped_at is not None:
                    self.stopped_at = received.stopped_at
                answer.facts.append(received)
            case AskRetained():
                pass  # whoever keeps the retained messages answers it
            case _:
                answer.facts.append(received)
        return answer

    def configure(self, settings: WorkerSettings, now: float) -> list[Downlink]:
        """Return what brings the owner's present settings to the worker."""
        self._settings = settings
        if self.state is SessionState.WELCOMED:
            self._welcomes_differ = True  # from those to come; nobody knows which one arrives
        return self.order(Configure(settings=settings), now)

    def order(self, command: Downlink, now: float) -> list[Downlink]:
        """Give a READY worker an order; return what to send.

        It is repeated until acknowledged, unless it is a `SendAttributes`: a worker that is blocked
        would run a tick before each repetition. Before READY and after a `Stop` nothing is sent.
        """
        if self.state is not SessionState.READY:
            return []
        withdrawn = object if isinstance(command, Stop) else Configure
        if isinstance(command, Stop | Configure):
            self._pending = {
                id: each
                for id, each in self._pending.items()
                if not isinstance(each.command, withdrawn)
            }
        if isinstance(command, Stop):
            self.state = SessionState.STOPPING
        command = msgspec.structs.replace(
            command,
            incarnation=self._incarnation,
            id=self._next_id,
            oldest=min(self._pending, default=self._next_id),
        )
        if not isinstance(command, SendAttributes):
            self._pending[self._next_id] = _Pending(command, now)
        self._next_id += 1
        return [command]

    def _repeated(self, now: float) -> list[Downlink]:
        return [each.repeated(now) for each in self._pending.values() if each.is_overdue(now)]

    def _greeted(self, hello: Hello, answer: Answer) -> None:
        if hello.protocol != PROTOCOL:
            if not self._refused:
                self._refused = True
                answer.facts.append(hello)
            if self.state is SessionState.WAITING:
                self.state = SessionState.REFUSED
            return
        if self.state is SessionState.WAITING:
            self.state = SessionState.WELCOMED
        welcome = Welcome(incarnation=self._incarnation, settings=self._settings)
        answer.commands.append(welcome)

    def _got_ready(self, ready: Ready, answer: Answer, now: float) -> None:
        if self.state not in (SessionState.WAITING, SessionState.WELCOMED):
            return
        self.state = SessionState.READY
        self.through = max(self.through, ready.base)
        answer.facts.append(ready)
        answer.stimuli.append(GotReady(self._worker, self._incarnation))
        if self._welcomes_differ:
            answer.commands.extend(self.configure(self._settings, now))

    def _beat(self, beat: Beat, answer: Answer, now: float) -> None:
        ready = Ready(
            worker=beat.worker,
            incarnation=beat.incarnation,
            token=beat.token,
            base=beat.account.base,
        )
        self._got_ready(ready, answer, now)
        if beat.serial <= self._beats:
            return
        self._beats = beat.serial
        if beat.revision > self._revision:
            lost = Status(
                worker=beat.worker,
                incarnation=beat.incarnation,
                token=beat.token,
                network=beat.network,
                revision=beat.revision,
                error=beat.reason if beat.network is NetworkStatus.ERROR else None,
                last_connected=beat.last_connected,
                reason=beat.reason,
                next_attempt=beat.next_attempt,
                connection=beat.connection,
            )
            self._status(lost, answer)
        answer.facts.append(beat)
        answer.stimuli.append(
            BeatReceived(
                self._worker,
                self._incarnation,
                beat.rss,
                beat.cpu,
                beat.downtime,
                beat.check_timeouts,
            )
        )

    def _status(self, status: Status, answer: Answer) -> None:
        if status.revision > self._revision:
            self._revision = status.revision
            answer.facts.append(status)

    def _done(self, done: CommandDone) -> None:
        pending = self._pending.pop(done.id, None)
        if pending is not None and isinstance(pending.command, Stop):
            self.stopped_at = done.seq


class WorkerAnswer(NamedTuple):
    """What the worker does with a command.

    Attributes:
        reports: to send, before the deeds.
        deeds: commands to carry out now, each handed out once.
    """

    reports: list[Uplink]
    deeds: list[Downlink]


class WorkerSession:
    """The worker's role.

    Args:
        boot: which incarnation this is.
        pid: to report.
        package: the version of chronopype_mp, to report.

    Attributes:
        state: how far it is; READY from `started` on.
        has_started: whether the processor has started and the account of its ticks is open.
        next_due: when `Due` has something to do, on the caller's clock in seconds; None for never.
        newest_tick: the last tick that has arrived, for the caller to set.
    """

    def __init__(self, boot: WorkerBoot, pid: int, package: str) -> None:
        self._boot = boot
        self._hello = boot.report(Hello, pid=pid, package=package, python=platform.python_version())
        self._interval = FIRST_HELLO_INTERVAL
        self._carried_out: dict[int, int] = {}
        self._oldest = 0
        self._configured = 0
        self._beats = 0
        self._status: dict[str, Any] = {"network": NetworkStatus.STOPPED, "revision": 0}
        self._through = 0
        self._stops_at = 0
        self._stop_confirmed = False
        self.state = SessionState.WAITING
        self.has_started = False
        self.next_due: float | None = 0.0
        self.newest_tick = 0

    @property
    def stopped_at(self) -> int | None:
        """The last tick before the stop that the coordinator has asked for; None before that."""
        return self._stops_at if self._stop_confirmed else None

    def handle(self, received: Downlink | Due, now: float) -> WorkerAnswer:
        """Take a command, or note that time has passed."""
        if isinstance(received, Due):
            return WorkerAnswer(self._greet(now), [])
        if received.incarnation != self._boot.incarnation:
            return WorkerAnswer([], [])
        if isinstance(received, Welcome):
            return WorkerAnswer([], self._welcomed(received))
        if self.state in (SessionState.WAITING, SessionState.WELCOMED):
            return WorkerAnswer([], [])  # it comes again
        return self._take(received)

    # What the worker reports

    def started(self, base: int) -> list[Uplink]:
        """Return what reports that the processor has started; its account opens after ``base``."""
        self.has_started = True
        self._through = base
        if self.state is not SessionState.STOPPING:
            self.state = SessionState.READY
        return [self._boot.report(Ready, base=base)]

    def stop(self) -> list[Downlink]:
        """Stop without a command; return the deed, once. Later commands are only acknowledged."""
        if self.state is SessionState.STOPPING:
            return []
        self.state = SessionState.STOPPING
        self._stops_at = self.newest_tick
        return [Stop(seq=self.newest_tick)]

    def network_changed(
        self, network: NetworkStatus, error: str | None = None, **details: object
    ) -> list[Uplink]:
        """Return what reports the network status, if anything of it has changed; see `Status`.

        Args:
            network: the status.
            error: why, where that is an error.
            details: the other fields that a `Beat` has, too.
        """
        status = {"network": network, **details}
        if all(self._status.get(name) == status.get(name) for name in OF_STATUS):
            return []
        revision = self._status["revision"] + 1
        self._status = {**status, "revision": revision}
        return [self._boot.report(Status, error=error, **self._status)]

    def beat(self, **figures: object) -> list[Uplink]:
        """Return a beat with the figures of `Beat`; nothing before the processor has started."""
        if not self.has_started:
            return []
        self._beats += 1
        return [self._boot.report(Beat, serial=self._beats, **{**self._status, **figures})]

    def progressed(self, through: int) -> list[Uplink]:
        """Return what reports that all ticks up to ``through`` are finished, if that is new."""
        if not self.has_started or through <= self._through:
            return []
        self._through = through
        return [self._boot.report(TickDone, seq=through)]

    def bye(
        self,
        account: TickAccount,
        counters: TickCounters,
        largest_gap: float,
        connection: ConnectionCounters,
        outputs: OutputCounters = OutputCounters(),  # noqa: B008 – frozen
        messages: MessageCounters = MessageCounters(),  # noqa: B008 – frozen
    ) -> list[Uplink]:
        """Return the last report."""
        return [
            self._boot.report(
                Bye,
                account=account if self.has_started else None,
                counters=counters,
                largest_gap=largest_gap,
                connection=connection,
                stopped_at=self.stopped_at,
                outputs=outputs,
                messages=messages,
            )
        ]

    # What the coordinator says

    def _greet(self, now: float) -> list[Uplink]:
        if self.next_due is None or now < self.next_due:
            return []
        self.next_due = now + self._interval
        self._interval = min(2 * self._interval, HELLO_INTERVAL)
        return [self._hello]

    def _welcomed(self, welcome: Welcome) -> list[Downlink]:
        if self.state is not SessionState.WAITING:
            return []
        self.state = SessionState.WELCOMED
        self.next_due = None
        return [welcome]

    def _take(self, command: Downlink) -> WorkerAnswer:
        if command.oldest > self._oldest:
            self._oldest = command.oldest
            self._carried_out = {
                id: seq for id, seq in self._carried_out.items() if id >= command.oldest
            }
        # A frame that was overtaken by ticks was sent before them.
        command = msgspec.structs.replace(command, seq=max(command.seq, self.newest_tick))
        deeds = [command] if self._is_wanted(command) else []
        seq = command.seq
        if isinstance(command, Stop):
            self._stop_confirmed = True
            seq = self._stops_at
        seq = self._carried_out.setdefault(command.id, seq)
        return WorkerAnswer([self._boot.report(CommandDone, id=command.id, seq=seq)], deeds)

    def _is_wanted(self, command: Downlink) -> bool:
        """Whether a command has arrived for the first time and is not withdrawn."""
        if command.id < self._oldest or command.id in self._carried_out:
            return False
        if self.state is SessionState.STOPPING:
            return False
        if isinstance(command, Stop):
            self.state = SessionState.STOPPING
            self._stops_at = command.seq
        elif isinstance(command, Configure):
            if command.id < self._configured:
                return False
            self._configured = command.id
        return True
