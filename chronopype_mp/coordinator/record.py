"""The mirror of one worker: what it reported last, and the settings that its owner wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from chronopype_mp.coordinator.failures import is_network_hook
from chronopype_mp.coordinator.owner_view import OwnerView
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.connection_counters import ConnectionCounters
from chronopype_mp.core.histogram import Histogram
from chronopype_mp.core.ledger import Ledger
from chronopype_mp.core.message_counters import MessageCounters
from chronopype_mp.core.messages import (
    Attributes,
    Beat,
    Bye,
    Failure,
    Ready,
    Restoring,
    StatePart,
    Status,
    Uplink,
    WorkerSettings,
)
from chronopype_mp.core.output_counters import OutputCounters
from chronopype_mp.core.outputs import PayloadTypes
from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.core.saved_state import Assembly, SavedState
from chronopype_mp.core.supervisor import WorkerView
from chronopype_mp.core.worker_events import Event, NetworkChanged, ProcessorFailed, WorkerDied
from chronopype_mp.exceptions import AttributeNotSetError, ConfigError
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.processors import ProcessorSpec, ProcessorState, TickProcessor

if TYPE_CHECKING:
    from chronopype_mp.coordinator.incarnation import Incarnation

__all__ = ["NetworkError", "ProcessFigures", "WorkerRecord", "WorkerSnapshot"]

logger = GuardedLogger("chronopype_mp.coordinator")

OF_THE_LOOP = (Ready, Status, Beat, Failure, Bye)
"""Reports that show that the worker's event loop turns."""

RESTORES_TRIED = 3
"""Processes in a row that may end in ``restore()``; the next one gets no snapshot."""

LONGEST_NAME = 100
"""Characters of a worker's name."""


class ProcessFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What each process counts for itself, and a worker adds up."""

    executions: Histogram = Histogram()
    lateness: Histogram = Histogram()
    connection: ConnectionCounters = ConnectionCounters()
    outputs: OutputCounters = OutputCounters()
    messages: MessageCounters = MessageCounters()

    def merged(self, other: ProcessFigures) -> ProcessFigures:
        """Return the figures of both together."""
        mine, its = self.connection, other.connection
        return ProcessFigures(
            executions=self.executions.merged(other.executions),
            lateness=self.lateness.merged(other.lateness),
            connection=ConnectionCounters(
                check_latency=mine.check_latency.merged(its.check_latency),
                connects=mine.connects + its.connects,
                connected_seconds=mine.connected_seconds + its.connected_seconds,
            ),
            outputs=self.outputs.merged(other.outputs),
            messages=self.messages.merged(other.messages),
        )


class NetworkError(NamedTuple):
    """An error of a worker's network: what, when it was reported (wall clock), and by which."""

    text: str
    at: float
    incarnation: int


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reported last; replaced as a whole."""

    state: ProcessorState = ProcessorState()
    figures: ProcessFigures = ProcessFigures()
    network_status: NetworkStatus = NetworkStatus.STOPPED
    network_reason: str | None = None
    network_since: float | None = None
    network_error: NetworkError | None = None
    next_attempt: float | None = None
    last_connected_timestamp: float = math.nan
    last_heard: float | None = None
    largest_gap: float = 0.0
    lag: float = 0.0
    rss: int = 0
    cpu: float = 0.0
    reports_lost: int = 0
    frames_dropped: int = 0


class WorkerRecord:
    """One worker, over all its incarnations.

    Args:
        name: unique in its clock.
        source: what was added.
        payload: the same as bytes.
        policy: how it is supervised.
        changed: called with this record when a setting changed that a running worker must get.
        number: counts the workers of its clock from 0.
        group: the name of its group, if it is in one.
        strategy: the group's.
        env: environment variables for its processes.

    Attributes:
        snapshot: what the worker reported last.
        settings: what the owner wants of it now.
        ledger: the account of its ticks since the clock was entered.
        launched: it has had a process since the clock was entered.
        output_lines: lines printed by processes that have ended.
        last_failure: the dossier of its last death.
        incarnation: its present process, from the launch order to the reaping; None without one.
        is_removed: its owner has removed it; the coordinator forgets it once it is STOPPED.
        last_view: the supervisor's view when the coordinator forgot it; None before.
        is_in_use: its clock is entered and has this worker.
        saved_state: the newest whole snapshot, for the next process.
        on_saved: called with each new snapshot, and with None if the present one is of no use.
        view: the attributes of the worker's processor, as its owner sees them.
    """

    def __init__(
        self,
        name: str,
        source: TickProcessor | ProcessorSpec,
        payload: bytes,
        policy: Supervision,
        changed: Callable[[WorkerRecord], None],
        number: int = 0,
        group: str | None = None,
        strategy: GroupStrategy = GroupStrategy.ONE_FOR_ONE,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.payload = payload
        self.policy = policy
        self.snapshot = WorkerSnapshot()
        self.settings = WorkerSettings()
        self.ledger = Ledger()
        self.launched = False
        self.output_lines = 0
        self.number = number
        self.group = group
        self.strategy = strategy
        self.env = dict(env or {})
        self.last_failure: WorkerDied | None = None
        self.incarnation: Incarnation | None = None
        self.is_removed = False
        self.last_view: WorkerView | None = None
        self._figures_before = ProcessFigures()
        self._changed = changed
        self._attributes_set: set[str] = set()
        self.is_in_use = False
        self.saved_state: SavedState | None = None
        self.on_saved: Callable[[SavedState | None], None] = lambda state: None
        self._assembly = Assembly()
        self._is_restoring = False
        self._ended_in_restore = 0
        self.view = OwnerView(source)

    @property
    def original(self) -> TickProcessor | None:
        """The object that was added; None if it was a spec."""
        return self.source if isinstance(self.source, TickProcessor) else None

    @property
    def processor_type(self) -> type | None:
        """The processor's class; None if only the worker knows it."""
        if isinstance(self.source, TickProcessor):
            return type(self.source)
        target = self.source.target
        return target if isinstance(target, type) else None

    @property
    def payload_types(self) -> PayloadTypes:
        """The declared types of its outputs, as far as its class is loaded in this process."""
        spec = self.source if isinstance(self.source, ProcessorSpec) else None
        made_of = self.source if spec is None else spec.loaded_target()
        try:
            return PayloadTypes(getattr(made_of, "output_types", None))
        except ValueError:
            return PayloadTypes(None)  # the worker refuses them, too

    @property
    def state(self) -> ProcessorState:
        """The processor's state as last reported."""
        return self.snapshot.state

    @property
    def network_status(self) -> NetworkStatus:
        """The network status as last reported; STOPPED without a process."""
        return self.snapshot.network_status

    @property
    def last_connected_timestamp(self) -> float:
        """As last reported; nan if never."""
        return self.snapshot.last_connected_timestamp

    @property
    def figures(self) -> ProcessFigures:
        """What all its processes have counted since the clock was entered."""
        return self._figures_before.merged(self.snapshot.figures)

    @property
    def next_attempt(self) -> float | None:
        """When the next attempt to connect is due; None while paused."""
        return None if self.settings.paused else self.snapshot.next_attempt

    def network_error_of(self, incarnation: int) -> str | None:
        """Return the last error of the network of one process."""
        error = self.snapshot.network_error
        return error.text if error is not None and error.incarnation == incarnation else None

    # What the owner wants

    def begin(self, saved_state: SavedState | None = None) -> None:
        """Reset what the last use of the clock left.

        Args:
            saved_state: the snapshot for the first process; None if there is none.
        """
        self.is_in_use = True
        self.saved_state = saved_state
        self._ended_in_restore = 0
        self.ledger = Ledger()
        self.launched = False
        self._figures_before = ProcessFigures()
        self.snapshot = WorkerSnapshot()
        self.settings = msgspec.structs.replace(self.settings, paused=False)
        self.last_view = None

    def network_setting_changed(self, name: str, value: Any) -> None:
        """Take over a network setting that the owner set on its object."""
        self._change(**{name: math.inf if value is None else value})

    def attribute_set(self, name: str) -> None:
        """Take note that the owner sets an attribute of its object, which the worker does not get.

        It is an error while the worker is in use, and else a warning, once for each attribute. What
        is set on a private attribute is a warning, too: the owner's code may be the class's own.

        Raises:
            AttributeNotSetError: the worker is in use, and the attribute is public.
        """
        what = f"{type(self.source).__name__}.{name}"
        again = "remove the processor, set it and add it again"
        if self.is_in_use and not name.startswith("_"):
            raise AttributeNotSetError(
                self.name,
                name,
                f"{what} cannot be set here, because the worker has its own copy of the processor. "
                f'Set it there, in a method marked @remote: await handle.call("method", value); or '
                f"{again}",
            )
        if name not in self._attributes_set:
            self._attributes_set.add(name)
            logger.warning(
                "worker %r does not get %s, which was set after add_processor(): it has the "
                "processor as it was added. Set it before, or %s",
                *(self.name, what, again),
            )

    def set_outputs(self, patterns: tuple[str, ...]) -> None:
        """Tell the worker which topics of its outputs are read."""
        self._change(outputs=patterns)

    def set_paused(self, paused: bool) -> None:
        """Pause or resume the worker."""
        self._change(paused=paused)
        is_down = self.launched and (self.incarnation is None or not self.incarnation.was_ready)
        self._set_active(not paused and not is_down)

    def _change(self, **values: object) -> None:
        settings = msgspec.structs.replace(self.settings, **values)
        if settings != self.settings:
            self.settings = settings
            self._changed(self)

    # What the worker reports

    def take(self, fact: Uplink, now: float) -> Event | None:
        """Take note of a fact that the session has passed.

        Args:
            fact: a report.
            now: the wall clock, seconds.

        Returns:
            The event to publish, if any.
        """
        if isinstance(fact, OF_THE_LOOP):
            self._update(last_heard=now)
        match fact:
            case Beat():
                self._beat(fact)
            case Status():
                return self._status(fact, now)
            case Ready():
                self.ledger.open(fact.base)
                self._update(state=ProcessorState(is_active=not self.settings.paused))
            case Failure():
                if fact.hook == "restore":
                    self._give_up_state()
                return self._failure(fact, now)
            case StatePart():
                whole = self._assembly.take(fact)
                if whole is not None:
                    self.saved_state = whole
                    self.on_saved(whole)
            case Restoring():
                self._is_restoring = not fact.is_over
                if fact.is_over:
                    self._ended_in_restore = 0
            case Attributes():
                self.view.take(fact)
            case Bye():
                if fact.account is not None:
                    self._count(fact, ProcessorState.of(fact.counters))
        return None

    def restore_ended(self, incarnation: int) -> Event | None:
        """Give up a snapshot if several processes in a row have ended while they restored it.

        Args:
            incarnation: the last of them, which has ended.

        Returns:
            The event to publish.
        """
        if not self._is_restoring:
            return None
        self._is_restoring = False
        self._ended_in_restore += 1
        if self._ended_in_restore < RESTORES_TRIED:
            return None
        self._ended_in_restore = 0
        self._give_up_state()
        return ProcessorFailed(
            worker=self.name,
            incarnation=incarnation,
            hook="restore",
            type_name="SnapshotError",
            message=f"{RESTORES_TRIED} processes in a row ended in it; the worker starts without "
            "the snapshot",
            traceback="",
        )

    def _give_up_state(self) -> None:
        self.saved_state = None
        self.on_saved(None)

    def process_ended(self, incarnation: int, now: float) -> Event | None:
        """Reset what each process counts for itself; return the event to publish."""
        self.view.process_ended()
        self._figures_before = self.figures
        self._update(figures=ProcessFigures(), rss=0, cpu=0.0)
        self._set_active(False)
        if self.network_status is NetworkStatus.STOPPED:
            return None
        error = "the worker's process ended"
        return self._change_network(NetworkStatus.STOPPED, incarnation, now, error, error)

    def _beat(self, beat: Beat) -> None:
        self.view.mirror(beat.mirrored)
        # The beat may be older than what was asked for last.
        self._count(beat, ProcessorState.of(beat.counters, is_active=not self.settings.paused))
        self._update(
            lag=beat.lag,
            rss=beat.rss,
            cpu=beat.cpu,
            reports_lost=beat.reports_lost,
            frames_dropped=beat.frames_dropped,
        )

    def _count(self, report: Beat | Bye, state: ProcessorState) -> None:
        assert report.account is not None
        self.ledger.report(report.account)
        self._update(
            state=state,
            figures=ProcessFigures(
                executions=report.counters.executions,
                lateness=report.counters.lateness,
                connection=report.connection,
                outputs=report.outputs,
                messages=report.messages,
            ),
            largest_gap=max(self.snapshot.largest_gap, report.largest_gap),
        )

    def _status(self, status: Status, now: float) -> Event | None:
        last = status.last_connected
        figures = msgspec.structs.replace(self.snapshot.figures, connection=status.connection)
        self._update(last_connected_timestamp=math.nan if last is None else last, figures=figures)
        if status.error is not None:
            self._update(network_error=NetworkError(status.error, now, status.incarnation))
        return self._change_network(
            status.network,
            status.incarnation,
            now,
            status.error,
            status.reason,
            status.next_attempt,
        )

    def _change_network(
        self,
        status: NetworkStatus,
        incarnation: int,
        now: float,
        error: str | None,
        reason: str | None,
        next_attempt: float | None = None,
    ) -> Event | None:
        before = self.network_status
        self._update(network_reason=reason, next_attempt=next_attempt)
        if status is before:
            return None
        self._update(network_status=status, network_since=now)
        return NetworkChanged(
            worker=self.name,
            incarnation=incarnation,
            before=before,
            after=status,
            error=error,
            reason=reason,
            next_attempt=next_attempt,
        )

    def _failure(self, failure: Failure, now: float) -> Event:
        if is_network_hook(failure.hook):
            text = f"{failure.hook}: {failure.type_name}: {failure.message}".removesuffix(": ")
            self._update(network_error=NetworkError(text, now, failure.incarnation))
        return ProcessorFailed(
            worker=self.name,
            incarnation=failure.incarnation,
            hook=failure.hook,
            type_name=failure.type_name,
            message=failure.message,
            traceback=failure.traceback,
            type_path=failure.type_path,
            timeout=failure.timeout,
            timestamp=failure.timestamp,
            next_attempt=failure.next_attempt,
        )

    def _set_active(self, is_active: bool) -> None:
        self._update(state=msgspec.structs.replace(self.state, is_active=is_active))

    def _update(self, **values: object) -> None:
        self.snapshot = msgspec.structs.replace(self.snapshot, **values)


def checked_name(name: object) -> str:
    """Return a worker's name.

    Raises:
        ConfigError: the name is not a string, is empty or too long, or has a character that a
            terminal cannot show.
    """
    if not isinstance(name, str):
        raise ConfigError("add_processor", "name", name, "must be a str")
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            "add_processor", "name", name, f"must be 1 to {LONGEST_NAME} printable characters"
        )
    return name
