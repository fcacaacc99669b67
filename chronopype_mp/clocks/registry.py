"""The processors of a clock: who is in it, under which name, in which state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from chronopype_mp.clocks.arguments import checked_groups, checked_policy
from chronopype_mp.clocks.publication import Publisher
from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.coordinator.payload import pack
from chronopype_mp.coordinator.record import WorkerRecord, checked_name
from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.exceptions import ClockError, ConfigError
from chronopype_mp.processors import ProcessorSpec, ProcessorState, TickProcessor

__all__ = ["Member", "ProcessorRegistry", "ProcessorStats"]

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


class ProcessorRegistry(Publisher):
    """Adds, finds and removes processors.

    Where a processor is asked for, the object that was added will do, its name, or its handle.
    What is told of its state is what its worker reported last.
    """

    def __init__(
        self,
        supervision: Supervision | None,
        groups: Mapping[str, GroupStrategy | str] | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self._groups = checked_groups(owner, groups)
        self._added = 0
        self._supervision = checked_policy(owner, supervision) or Supervision()
        self._records: list[WorkerRecord] = []
        self._handles: dict[str, WorkerHandle] = {}
        self._processors: list[Member] = []
        self._coordinator: Coordinator | None = None
        self._in_context = False

    @property
    def processors(self) -> list[Member]:
        """What was added and not removed, in that order; the live list."""
        return self._processors

    @property
    def workers(self) -> tuple[WorkerHandle, ...]:
        """The handles of all workers, in the same order."""
        return tuple(self._handles[record.name] for record in self._records)

    @property
    def processor_states(self) -> dict[Member, ProcessorState]:
        """The states by processor, a copy; survives the clock's end."""
        return {record.source: record.state for record in self._records}

    def add_processor(
        self,
        processor: Member,
        *,
        name: str | None = None,
        supervision: Supervision | None = None,
        group: str | None = None,
    ) -> WorkerHandle:
        """Give a processor a worker; in an entered clock the worker is started at once.

        Args:
            processor: a `TickProcessor`, which travels to its worker as it is now, or a
                `ProcessorSpec`, from which it is made there.
            name: the worker's, unique in the clock; None makes one of the class name.
            supervision: how it is supervised; None is the clock's way.
            group: one of the clock's ``groups``, whose members are restarted together.

        Returns:
            The worker's handle.

        Raises:
            ClockError: it is in a clock already, or the name is taken.
            ConfigError: the name, ``supervision`` or ``group`` is none, or a core is not there.
            TransferError: it cannot travel; says which attribute stops it.
            TypeError: it is no processor, or cannot be hashed.
        """
        if not isinstance(processor, TickProcessor | ProcessorSpec):
            hint = ""
            if isinstance(processor, type) and issubclass(processor, TickProcessor):
                hint = f"; make one: {processor.__name__}()"
            raise TypeError(f"{processor!r} is neither a TickProcessor nor a ProcessorSpec{hint}")
        if type(processor).__hash__ is None:
            raise TypeError(
                f"{type(processor).__name__} cannot be hashed, but states are kept by processor; "
                "a dataclass wants @dataclass(eq=False)"
            )
        if any(record.source is processor for record in self._records):
            raise ClockError(f"{processor!r} is already registered to this clock")
        if isinstance(processor, TickProcessor) and processor._mirror is not None:
            raise ClockError(f"{processor!r} is already registered to another clock")
        if isinstance(processor, TickProcessor) and processor._host is not None:
            raise ClockError(f"{processor!r} is still stopping; await handle.wait_stopped() first")
        if self._in_context and self._coordinator is not None and not self._coordinator.is_open:
            raise ClockError("the clock has shut down; leave its context and enter it again")
        policy = checked_policy(
            "add_processor", self._supervision if supervision is None else supervision
        )
        assert policy is not None
        record = WorkerRecord(
            self._free_name(processor, name),
            processor,
            pack(processor),
            policy,
            self._settings_changed,
            number=self._added,
            group=group,
            strategy=self._strategy(group),
        )
        self._added += 1
        handle = WorkerHandle(record)
        self._records.append(record)
        self._handles[record.name] = handle
        self._processors.append(processor)
        if isinstance(processor, TickProcessor):
            processor._mirror = record
        if self._coordinator is not None and self._coordinator.is_open:
            self._start(record, self._coordinator)
        return handle

    def remove_processor(self, processor: Member | WorkerHandle | str) -> None:
        """Take a processor out. Its worker stops in order; ``handle.wait_stopped()`` waits for it.

        Raises:
            ClockError: it is not in this clock.
        """
        record = self._record(processor)
        self._records.remove(record)
        del self._handles[record.name]
        self._processors[:] = [member for member in self._processors if member is not record.source]
        if isinstance(record.source, TickProcessor):
            record.source._mirror = None
        if self._coordinator is not None and self._coordinator.is_open:
            self._coordinator.stop(record.name)

    def pause_processor(self, processor: Member | WorkerHandle | str) -> None:
        """Let no tick that is published from now on reach a processor. Idempotent.

        Its ``pause()`` runs in the worker.

        Raises:
            ClockError: it is not in this clock.
        """
        self._record(processor).set_paused(True)

    def resume_processor(self, processor: Member | WorkerHandle | str) -> None:
        """Undo `pause_processor`; its ``resume()`` runs in the worker. Idempotent.

        Raises:
            ClockError: it is not in this clock.
        """
        self._record(processor).set_paused(False)

    def get_processor_state(self, processor: Member | WorkerHandle | str) -> ProcessorState | None:
        """Return a processor's state; None if it is not in this clock."""
        record = self._find(processor)
        return None if record is None else record.state

    def get_active_processors(self) -> list[Member]:
        """Return the processors that have started and are not paused, in the order of adding."""
        return [record.source for record in self._records if record.state.is_active]

    def get_lagging_processors(self, threshold: float) -> list[Member]:
        """Return the processors whose mean execution time is above ``threshold`` seconds."""
        return [
            record.source
            for record in self._records
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
        return ProcessorStats(
            total_ticks=state.total_ticks,
            successful_ticks=state.successful_ticks,
            failed_ticks=state.failed_ticks,
            error_count=state.error_count,
            consecutive_errors=state.consecutive_errors,
            retry_count=state.retry_count,
            max_consecutive_retries=state.max_consecutive_retries,
            avg_execution_time=state.avg_execution_time,
            max_execution_time=state.max_execution_time,
            std_dev_execution_time=state.std_dev_execution_time,
            error_rate=state.error_rate,
            last_error=state.last_error,
            last_error_time=state.last_error_time,
            last_success_time=state.last_success_time,
        )

    def _start(self, record: WorkerRecord, coordinator: Coordinator) -> None:
        """Start a worker in a clock that is being entered, or was."""
        record.begin()
        self._handles[record.name].attach(coordinator)
        coordinator.add(record)

    def _strategy(self, group: str | None) -> GroupStrategy:
        if group is None:
            return GroupStrategy.ONE_FOR_ONE
        if not isinstance(group, str) or group not in self._groups:
            known = ", ".join(map(repr, self._groups)) or "none; give the clock groups={...}"
            raise ConfigError("add_processor", "group", group, f"no such group; known are: {known}")
        return self._groups[group]

    def _settings_changed(self, record: WorkerRecord) -> None:
        if self._coordinator is not None and self._coordinator.is_open:
            self._coordinator.settings_changed(record)

    def _free_name(self, processor: Member, name: str | None) -> str:
        if name is not None:
            checked_name(name)
            if self._is_taken(name):
                raise ClockError(f"the name {name!r} is taken by a worker that is not stopped")
            return name
        if isinstance(processor, ProcessorSpec):
            base = processor.default_name
        else:
            base = type(processor).__name__
        number, name = 1, base
        while self._is_taken(name):
            number += 1
            name = f"{base}-{number}"
        return name

    def _is_taken(self, name: str) -> bool:
        return name in self._handles or (
            self._coordinator is not None
            and self._coordinator.is_open
            and self._coordinator.is_taken(name)
        )

    def _find(self, processor: Member | WorkerHandle | str) -> WorkerRecord | None:
        for record in self._records:
            if (
                record.source is processor
                or record.name == processor
                or self._handles[record.name] is processor
            ):
                return record
        return None

    def _record(self, processor: Member | WorkerHandle | str) -> WorkerRecord:
        record = self._find(processor)
        if record is None:
            known = ", ".join(repr(record.name) for record in self._records) or "none"
            raise ClockError(f"{processor!r} is not in this clock; its workers are: {known}")
        return record
