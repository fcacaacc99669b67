"""The processors of a clock: adding, finding and removing them, and their states."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from typing import NamedTuple, TypedDict, cast

from chronopype_mp.clocks.arguments import (
    checked_env,
    checked_groups,
    checked_policy,
    checked_source,
)
from chronopype_mp.clocks.publication import Publisher
from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.copies import Copies
from chronopype_mp.coordinator.copy_warnings import copy_warnings
from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.coordinator.output_stream import OutputStream
from chronopype_mp.coordinator.payload import pack
from chronopype_mp.coordinator.record import WorkerRecord, checked_name
from chronopype_mp.coordinator.state_files import StateFiles
from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.core.saved_state import SavedState
from chronopype_mp.core.worker_events import ProcessorFailed
from chronopype_mp.exceptions import ClockError, ConfigError, SnapshotError
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.launchers import InlineLauncher, Launcher
from chronopype_mp.processors import ProcessorSpec, ProcessorState, TickProcessor

__all__ = ["Member", "Phase", "ProcessorRegistry", "ProcessorStats"]

logger = GuardedLogger("chronopype_mp.clocks")

Member = TickProcessor | ProcessorSpec
"""What can be added to a clock."""


class ProcessorStats(TypedDict):
    """What ``get_processor_stats`` returns; times in seconds, ``error_rate`` in percent."""

    total_ticks: int
    successful_ticks: int
    failed_ticks: int
    error_count: int
    consecutive_errors: int
    retry_count: int
    max_consecutive_retries: int
    avg_execution_time: float
    max_execution_time: float
    std_dev_execution_time: float
    error_rate: float
    last_error: str | None
    last_error_time: object
    last_success_time: object


class Phase(enum.Enum):
    """The phases of a clock's context."""

    OUTSIDE = "outside"
    """Not entered, or left again."""

    OPEN = "open"
    """Entered; workers live."""

    CLOSED = "closed"
    """Shut down or shutting down, but not left yet."""


class _Worker(NamedTuple):
    """A worker of the clock, as the machinery and as the user knows it."""

    record: WorkerRecord
    handle: WorkerHandle


class ProcessorRegistry(Publisher):
    """Adds, finds and removes processors.

    A processor can be given as the object that was added, by its worker's name, or by its handle.
    All states are those that the workers reported last.
    """

    name: str
    outputs: OutputStream
    _launcher: Launcher

    def __init__(
        self,
        supervision: Supervision | None,
        groups: Mapping[str, GroupStrategy | str] | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        default = Supervision() if supervision is None else supervision
        self._supervision = checked_policy(owner, default)
        self._groups = checked_groups(owner, groups)
        self._added = 0
        self._copies = Copies()
        self._workers: dict[str, _Worker] = {}
        self._processors: list[Member] = []
        self._phase = Phase.OUTSIDE
        self._coordinator: Coordinator | None = None  # the last one, once the clock was left
        self._state_files: StateFiles | None = None

    @property
    def processors(self) -> list[Member]:
        """The processors in the order in which they were added; the live list."""
        return self._processors

    @property
    def workers(self) -> tuple[WorkerHandle, ...]:
        """The handles of all workers, in the same order."""
        return tuple(worker.handle for worker in self._workers.values())

    @property
    def processor_states(self) -> dict[Member, ProcessorState]:
        """The states by processor, a copy; they outlive the clock's context."""
        return {record.source: record.state for record in self._records()}

    def add_processor(
        self,
        processor: Member,
        *,
        name: str | None = None,
        supervision: Supervision | None = None,
        group: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> WorkerHandle:
        """Give a processor a worker. In an entered clock the worker starts at once.

        Args:
            processor: a `TickProcessor`, which is copied to its worker as it is now, or a
                `ProcessorSpec`, from which it is created there. What the worker changes in its
                copy shows in the object after a run and after an orderly stop, as far as msgspec
                encodes it. What is set on the object later does not reach the worker, except for
                the network settings: in an entered clock that is an `AttributeNotSetError`, else it
                is logged as a warning.
            name: the worker's name, unique in the clock, 1 to 100 printable characters; None
                derives one from the class name.
            supervision: how it is supervised; None means as the clock's ``supervision`` says.
            group: one of the clock's ``groups``, whose members are restarted together.
            env: environment variables for its processes, in addition to those of this process.
                Workers of the inline launcher have no process of their own and take none.

        Returns:
            The worker's handle.

        Raises:
            ClockError: the processor is in a clock already, or the name is taken.
            ConfigError: an argument is invalid, a core of ``supervision`` does not exist, or there
                are not enough file descriptors.
            HookError: a hook of the processor cannot work as it is defined, or a name in its class
                is a misspelt hook or setting.
            TransferError: the processor cannot be copied; names the path to what prevents it, such
                as ``Feed.client._lock``.
            TypeError: ``processor`` is not a processor, or is not hashable.
        """
        warnings = self._check_processor(processor)
        if self._phase is Phase.CLOSED:
            raise ClockError("the clock has shut down; leave its context and enter it again")
        coordinator = self._open_coordinator
        if coordinator is not None:
            coordinator.check_room(1)
        policy = checked_policy(
            "add_processor", self._supervision if supervision is None else supervision
        )
        env = checked_env("add_processor", env)
        if env and isinstance(self._launcher, InlineLauncher):
            problem = "the inline launcher has no process for them; set them in this process"
            raise ConfigError("add_processor", "env", sorted(env), problem)
        name = self._free_name(processor, name)
        self._copies.check(processor)
        packed = pack(processor)
        record = WorkerRecord(
            name,
            processor,
            packed.payload,
            policy,
            self._settings_changed,
            number=self._added,
            group=group,
            strategy=self._strategy(group),
            env=env,
        )
        self._copies.add(name, packed.carried)
        self._added += 1
        worker = _Worker(record, WorkerHandle(record))
        self._workers[record.name] = worker
        self._list_processors()
        if isinstance(processor, TickProcessor):
            processor._register(record)
        if coordinator is not None:
            self._start(worker, coordinator)
        if not isinstance(self._launcher, InlineLauncher):
            warnings += copy_warnings(processor)
        for warning in warnings:
            logger.warning("%s: worker %r: %s", self.name, record.name, warning)
        return worker.handle

    def remove_processor(self, processor: Member | WorkerHandle | str) -> None:
        """Remove a processor. Its worker stops gracefully; ``handle.wait_stopped()`` waits for it.

        Its snapshot is forgotten. The file in ``state_dir`` stays, for a processor that is added
        later with the name of this worker.

        Raises:
            ClockError: the processor is not in this clock.
        """
        record = self._record(processor)
        del self._workers[record.name]
        self._copies.drop(record.name)
        self._list_processors()
        if isinstance(record.source, TickProcessor):
            record.source._register(None)
        record.is_in_use = False
        if self._coordinator is not None:
            self._coordinator.remove(record)

    def change_supervision(
        self, processor: Member | WorkerHandle | str, supervision: Supervision
    ) -> None:
        """Supervise a worker in another way from now on, without restarting it.

        Deadlines and waits that have begun keep their length. New limits apply at the next beat.

        Args:
            processor: the processor, its worker's handle or the worker's name.
            supervision: all of the new settings.

        Raises:
            ClockError: the processor is not in this clock.
            ConfigError: a core does not exist, or the settings differ in what the worker's process
                was told when it started: ``stop_grace``, ``resources``, the timeouts of network
                hooks, or how often it has to report, which follows from ``loop_stall_timeout`` and
                ``start_timeout``. For these, remove the processor and add it again.
        """
        record = self._record(processor)
        supervision = checked_policy("change_supervision", supervision)
        if not supervision.fits_process_of(record.policy):
            problem = (
                "its process cannot go on, because stop_grace, resources, a network timeout or how "
                "often it reports would change; remove the processor and add it again"
            )
            raise ConfigError("change_supervision", "processor", record.name, problem)
        record.policy = supervision
        if self._open_coordinator is not None:
            self._open_coordinator.policy_changed(record)

    def pause_processor(self, processor: Member | WorkerHandle | str) -> None:
        """Hold back all ticks that are published from now on. Idempotent.

        The processor's ``pause()`` runs in the worker.

        Raises:
            ClockError: the processor is not in this clock.
        """
        self._record(processor).set_paused(True)

    def resume_processor(self, processor: Member | WorkerHandle | str) -> None:
        """Undo `pause_processor`; the processor's ``resume()`` runs in the worker. Idempotent.

        Raises:
            ClockError: the processor is not in this clock.
        """
        self._record(processor).set_paused(False)

    def get_processor_state(self, processor: Member | WorkerHandle | str) -> ProcessorState | None:
        """Return a processor's state; None if it is not in this clock."""
        record = self._find(processor)
        return None if record is None else record.state

    def get_active_processors(self) -> list[Member]:
        """Return the processors that have started and are not paused, oldest first."""
        return [record.source for record in self._records() if record.state.is_active]

    def get_lagging_processors(self, threshold: float) -> list[Member]:
        """Return the processors whose mean execution time exceeds ``threshold`` seconds."""
        return [
            record.source
            for record in self._records()
            if record.state.execution_times and record.state.avg_execution_time > threshold
        ]

    def get_processor_performance(
        self, processor: Member | WorkerHandle | str
    ) -> tuple[float, float, float]:
        """Return mean, sample deviation and 95th percentile of the execution times, seconds.

        Zeros if there are none, or the processor is not in this clock.
        """
        state = self.get_processor_state(processor) or ProcessorState()
        return (
            state.avg_execution_time,
            state.std_dev_execution_time,
            state.get_execution_percentile(95),
        )

    def get_processor_stats(self, processor: Member | WorkerHandle | str) -> ProcessorStats | None:
        """Return a processor's figures as a dict; None if it is not in this clock."""
        state = self.get_processor_state(processor)
        if state is None:
            return None
        figures = {name: getattr(state, name) for name in ProcessorStats.__annotations__}
        return cast(ProcessorStats, figures)

    @property
    def _open_coordinator(self) -> Coordinator | None:
        """The coordinator while workers can be started, stopped and configured."""
        return self._coordinator if self._phase is Phase.OPEN else None

    def _tell_outputs(self) -> None:
        """Tell the workers which of their outputs are read."""
        if self._open_coordinator is not None:
            for record in self._records():
                record.set_outputs(self.outputs.wanted_of(record.name))

    def _records(self) -> list[WorkerRecord]:
        return [worker.record for worker in self._workers.values()]

    def _list_processors(self) -> None:
        """Update the live list, which keeps its identity."""
        self._processors[:] = [record.source for record in self._records()]

    def _start(self, worker: _Worker, coordinator: Coordinator) -> None:
        name, files = worker.record.name, self._state_files
        saved, broken = None, None
        if files is not None:
            worker.record.on_saved = functools.partial(_keep, files, name)
            try:
                saved = files.load(name)
            except SnapshotError as error:
                broken = ProcessorFailed(
                    worker=name,
                    incarnation=0,
                    hook="restore",
                    type_name=type(error).__name__,
                    message=str(error),
                    traceback="",
                )
        worker.record.begin(saved)
        worker.record.set_outputs(self.outputs.wanted_of(worker.record.name))
        worker.handle.attach(coordinator)
        coordinator.add(worker.record)
        if broken is not None:
            coordinator.emit(broken)

    def _start_all(self, coordinator: Coordinator) -> None:
        """Start all workers of a clock that is being entered.

        Raises:
            ConfigError: there are not enough file descriptors.
        """
        coordinator.check_room(len(self._workers))
        for worker in tuple(self._workers.values()):
            # An event callback may have added and started, or removed, some of them meanwhile.
            present = self._workers.get(worker.record.name) is worker
            if present and not coordinator.has(worker.record):
                self._start(worker, coordinator)

    def _check_processor(self, processor: object) -> list[str]:
        """Check that a processor can be added; return warnings."""
        if not isinstance(processor, TickProcessor | ProcessorSpec):
            hint = ""
            if isinstance(processor, type) and issubclass(processor, TickProcessor):
                hint = f"; pass an instance: {processor.__name__}()"
            for base in type(processor).__mro__:
                if base.__name__ == TickProcessor.__name__:  # chronopype's
                    hint = f"; its TickProcessor is that of {base.__module__}, use chronopype_mp's"
            raise TypeError(f"{processor!r} is neither a TickProcessor nor a ProcessorSpec{hint}")
        if type(processor).__hash__ is None:
            raise TypeError(
                f"{type(processor).__name__} is not hashable, but states are kept by processor; "
                "declare a dataclass with @dataclass(eq=False)"
            )
        warnings = checked_source(processor)
        if self._find(processor) is not None:
            raise ClockError(
                f"{processor!r} is already registered to this clock; add another object, since "
                "each worker has its own"
            )
        if isinstance(processor, TickProcessor) and processor._mirror is not None:
            raise ClockError(f"{processor!r} is already registered to another clock")
        if isinstance(processor, TickProcessor) and processor._host is not None:
            raise ClockError(f"{processor!r} is still stopping; await handle.wait_stopped() first")
        return warnings

    def _strategy(self, group: str | None) -> GroupStrategy:
        if group is None:
            return GroupStrategy.ONE_FOR_ONE
        if not isinstance(group, str) or group not in self._groups:
            known = ", ".join(map(repr, self._groups)) or "none; give the clock groups={...}"
            raise ConfigError("add_processor", "group", group, f"no such group; known are: {known}")
        return self._groups[group]

    def _settings_changed(self, record: WorkerRecord) -> None:
        coordinator = self._open_coordinator
        if coordinator is not None:
            coordinator.settings_changed(record)

    def _free_name(self, processor: Member, name: str | None) -> str:
        if name is not None:
            checked_name(name)
            if self._is_taken(name):
                raise ClockError(
                    f"the name {name!r} is taken by a worker that is not stopped; give each a name "
                    "of its own, or none"
                )
            return name
        if isinstance(processor, ProcessorSpec):
            base = processor.default_name
        else:
            base = type(processor).__name__
        number, name = 1, base
        while self._is_taken(name):
            number += 1
            name = f"{base}-{number}"
        return checked_name(name)

    def _is_taken(self, name: str) -> bool:
        coordinator = self._open_coordinator
        return name in self._workers or (coordinator is not None and coordinator.is_taken(name))

    def _find(self, processor: Member | WorkerHandle | str) -> WorkerRecord | None:
        if isinstance(processor, str):
            worker = self._workers.get(processor)
            return None if worker is None else worker.record
        for record, handle in self._workers.values():
            if record.source is processor or handle is processor:
                return record
        return None

    def _record(self, processor: Member | WorkerHandle | str) -> WorkerRecord:
        record = self._find(processor)
        if record is None:
            known = ", ".join(map(repr, self._workers)) or "none"
            raise ClockError(f"{processor!r} is not in this clock; its workers are: {known}")
        return record


def _keep(files: StateFiles, worker: str, state: SavedState | None) -> None:
    """Write a worker's snapshot to its file; None sets aside the one that is there."""
    if state is None:
        files.set_aside(worker)
    else:
        files.save(worker, state)
