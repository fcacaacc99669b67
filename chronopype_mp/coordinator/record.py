"""What the coordinator knows of one worker, and what it was asked to tell it."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from chronopype_mp.coordinator.output import WorkerOutput
from chronopype_mp.coordinator.starts import Place
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.events import WorkerDied
from chronopype_mp.core.histogram import Histogram
from chronopype_mp.core.ledger import Ledger
from chronopype_mp.core.messages import Failure, Ready, WorkerSettings
from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.launchers import WorkerProcess
from chronopype_mp.processors import ProcessorSpec, ProcessorState, TickProcessor

__all__ = ["Life", "WorkerRecord", "WorkerSnapshot"]

LONGEST_NAME = 100
"""Characters of a worker's name."""


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reported last; replaced whole."""

    state: ProcessorState = ProcessorState()
    executions: Histogram = Histogram()
    network_status: NetworkStatus = NetworkStatus.STOPPED
    last_connected_timestamp: float = math.nan
    largest_gap: float = 0.0
    lag: float = 0.0
    reports_lost: int = 0
    frames_dropped: int = 0


class Life:
    """One incarnation's process, from the order to launch it to its end.

    Attributes:
        place: among the starts side by side.
        stop_asked_at: when it was told to stop, monotonic.
        process: once it is there.
        kill_asked: it is to be killed as soon as it is there.
        output: reads its pipes.
        fatal: the failure that it said it ends with.
        refused: it speaks another version of the protocol; its start will time out.
        ready: it has reported that it is ready.
        through: the last tick that it is known to be through with, where each is to run.
        early_ready: that report, if it came before the launcher had returned the process.
        stopping: it was told to stop.
        stop_begun: it has confirmed that.
        welcomed_with: the version of the settings that it was welcomed with first.
        settings_done: the version of the settings that it has confirmed.
    """

    def __init__(self, incarnation: int, place: Place) -> None:
        self.incarnation = incarnation
        self.place = place
        self.stop_asked_at = 0.0
        self.process: WorkerProcess | None = None
        self.kill_asked = False
        self.output: WorkerOutput | None = None
        self.fatal: Failure | None = None
        self.refused = False
        self.ready = False
        self.through = 0
        self.early_ready: Ready | None = None
        self.stopping = False
        self.stop_begun = False
        self.welcomed_with: int | None = None
        self.settings_done = 0

    def terminate(self) -> None:
        """Ask for an orderly stop by SIGTERM."""
        if self.process is not None:
            self.process.terminate()


class WorkerRecord:
    """One worker, over all its incarnations.

    Args:
        name: unique in its clock.
        source: what was added.
        payload: the same as bytes.
        policy: how it is supervised.
        number: counts the workers of its clock from 0.
        group: the name of its group, if it is in one.
        strategy: the group's.
        changed: called with this record when a setting changed that a running worker must hear of.

    Attributes:
        snapshot: what the worker reported last.
        settings: what the owner wants of it now.
        version: counts the changes of ``settings``.
        ledger: the account of its ticks since the clock was entered.
        launched: it has had a process since the clock was entered.
        executions_before: the execution times of processes that have ended.
        output_lines: lines printed by processes that have ended.
        network_error: the last error of its network, of the present process.
        last_failure: the dossier of its last death.
        life: its present process, if there is one.
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
    ) -> None:
        self.name = name
        self.source = source
        self.payload = payload
        self.policy = policy
        self.snapshot = WorkerSnapshot()
        self.settings = WorkerSettings()
        self.version = 1
        self.ledger = Ledger()
        self.launched = False
        self.executions_before = Histogram()
        self.output_lines = 0
        self.number = number
        self.group = group
        self.strategy = strategy
        self.network_error: str | None = None
        self.last_failure: WorkerDied | None = None
        self.life: Life | None = None
        self._changed = changed

    @property
    def original(self) -> TickProcessor | None:
        """The object that was added, if it was one and not a spec."""
        return self.source if isinstance(self.source, TickProcessor) else None

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

    def begin(self) -> None:
        """Forget what an earlier stretch of the clock has left."""
        self.ledger = Ledger()
        self.launched = False
        self.executions_before = Histogram()
        self.snapshot = WorkerSnapshot()
        self.settings = msgspec.structs.replace(self.settings, paused=False)

    def network_setting_changed(self, name: str, value: float) -> None:
        """The owner set a network setting on its object: tell the worker."""
        self._change(**{name: value})

    def set_paused(self, paused: bool) -> None:
        """Have the worker paused, or resumed."""
        self._change(paused=paused)
        down = self.launched and (self.life is None or not self.life.ready)
        active = not paused and not down
        self.update(state=msgspec.structs.replace(self.state, is_active=active))

    @property
    def executions(self) -> Histogram:
        """The execution times of all ticks since the clock was entered."""
        return self.executions_before.merged(self.snapshot.executions)

    def process_ended(self) -> None:
        """Begin anew to count what each process counts for itself."""
        self.executions_before = self.executions
        self.update(executions=Histogram())
        self.network_error = None

    def update(self, **values: object) -> None:
        """Replace the snapshot by one with some values changed."""
        self.snapshot = msgspec.structs.replace(self.snapshot, **values)

    def _change(self, **values: object) -> None:
        settings = msgspec.structs.replace(self.settings, **values)
        if settings != self.settings:
            self.settings = settings
            self.version += 1
            self._changed(self)


def checked_name(name: object) -> str:
    """Return a worker's name.

    Raises:
        ConfigError: it is no text, empty, too long, or has characters that no terminal shows.
    """
    if not isinstance(name, str):
        raise ConfigError("add_processor", "name", name, "must be a str")
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            "add_processor", "name", name, f"must be 1 to {LONGEST_NAME} printable characters"
        )
    return name
