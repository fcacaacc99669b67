"""BaseClock: what every clock has, whatever its time is."""

from __future__ import annotations

import abc
import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import ClassVar, Self

import msgspec

from chronopype_mp.clocks.arguments import (
    checked_budget,
    checked_event_loop,
    checked_launcher,
    checked_name,
    checked_state_dir,
    checked_timing,
)
from chronopype_mp.clocks.clock_events import ClockStartEvent, ClockStopEvent, ClockTickEvent
from chronopype_mp.clocks.config import ClockConfig
from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.clocks.publication import Publication
from chronopype_mp.clocks.registry import Member, ProcessorRegistry, ProcessorStats
from chronopype_mp.coordinator.callbacks import callback_problem
from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.dossiers import DossierFiles
from chronopype_mp.coordinator.event_log import log_event
from chronopype_mp.coordinator.failures import ProcessorFailure, failure_of
from chronopype_mp.coordinator.rolling import roll
from chronopype_mp.coordinator.stream import EventStream
from chronopype_mp.coordinator.ticker import Position
from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.checks import positive, whole
from chronopype_mp.core.events import Event, WorkerDied
from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.supervisor import CLOCK_BUDGET
from chronopype_mp.exceptions import ClockContextError, ClockError, ConfigError
from chronopype_mp.launchers import Launcher
from chronopype_mp.timing import SYSTEM_TIME, TimeSource

__all__ = [
    "BaseClock",
    "ClockStartEvent",
    "ClockStopEvent",
    "ClockTickEvent",
    "ProcessorStats",
]

ErrorCallback = Callable[[Member, BaseException], object]

logger = logging.getLogger("chronopype_mp.clock")


class BaseClock(ProcessorRegistry, abc.ABC):
    """A clock is an async context manager; its workers live while it is entered.

    Entering starts the workers. It does not wait for them unless ``config.on_error`` is
    ``"raise"``. Leaving stops them side by side and waits until the last one has ended. All methods
    belong to the thread of the event loop in which the clock is entered.

    Args:
        config: the settings.
        error_callback: called as ``error_callback(processor, exception)`` in the event loop for
            each tick that failed after all retries and for each worker that died. What it raises
            is logged.
        launcher: how workers are started: ``"forkserver"``, ``"spawn"``, ``"inline"``, or a
            launcher. None means the one that the environment variable ``CHRONOPYPE_MP_LAUNCHER``
            names, or forkserver.
        supervision: how workers are supervised, unless ``add_processor`` says otherwise.
        groups: strategies by group name, for ``add_processor(group=…)``: ``"one_for_one"``,
            ``"one_for_all"``, ``"rest_for_one"``.
        restart_budget: limits the restarts of all workers together; restarts over the limit are
            delayed. None means 10 in a second.
        state_dir: a directory for one JSON file per death, the newest 20 of each worker. It is
            created if missing.
        event_loop: the event loop of the workers: ``"asyncio"``, or ``"uvloop"`` with the extra of
            that name. Workers of the inline launcher share the owner's loop.
        name: the clock's name in logs; None means its class name.
        timing: the source of time; for tests.

    Raises:
        ConfigError: an argument is invalid.
        ClockError: the config's mode is not the one of this class.
    """

    start_publication = Publication("clock_start", ClockStartEvent)
    tick_publication = Publication("clock_tick", ClockTickEvent)
    stop_publication = Publication("clock_stop", ClockStopEvent)

    _mode: ClassVar[ClockMode | None] = None
    """The mode that the config must have; None accepts any."""

    _every_tick: ClassVar[bool] = False
    """Whether workers run every tick, however late, and the clock waits for them."""

    def __init__(
        self,
        config: ClockConfig,
        error_callback: ErrorCallback | None = None,
        *,
        launcher: str | Launcher | None = None,
        supervision: Supervision | None = None,
        groups: Mapping[str, GroupStrategy | str] | None = None,
        restart_budget: RestartBudget | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        event_loop: str = "asyncio",
        name: str | None = None,
        timing: TimeSource = SYSTEM_TIME,
    ) -> None:
        owner = type(self).__name__
        if not isinstance(config, ClockConfig):
            raise ConfigError(owner, "config", config, "must be a ClockConfig")
        problem = None if error_callback is None else callback_problem(error_callback)
        if problem is not None:
            raise ConfigError(owner, "error_callback", error_callback, problem)
        super().__init__(supervision, groups)
        self._launcher = checked_launcher(owner, launcher)
        self._restart_budget = checked_budget(owner, restart_budget) or CLOCK_BUDGET
        self._event_loop = checked_event_loop(owner, event_loop)
        self._timing = checked_timing(owner, timing)
        self.name = checked_name(owner, name) or owner
        if self._mode is not None and config.clock_mode is not self._mode:
            wrong = config.clock_mode.name
            raise ClockError(f"{owner} requires {self._mode.name} mode, not {wrong}")
        # Last, because it creates a directory.
        directory = checked_state_dir(owner, state_dir)
        self._dossiers = None if directory is None else DossierFiles(directory)
        self._config = config
        self._error_callback = error_callback
        self._in_context = False
        self._run_over: asyncio.Future[None] | None = None
        self._failure: ProcessorFailure | None = None
        self.events = EventStream()

    # What can be asked

    @property
    def config(self) -> ClockConfig:
        """The settings."""
        return self._config

    @property
    def clock_mode(self) -> ClockMode:
        """The config's ``clock_mode``."""
        return self._config.clock_mode

    @property
    def start_time(self) -> float:
        """The config's ``start_time``, seconds."""
        return self._config.start_time

    @property
    def end_time(self) -> float:
        """The config's ``end_time``, seconds."""
        return self._config.end_time

    @property
    def tick_size(self) -> float:
        """The config's ``tick_size``, seconds."""
        return self._config.tick_size

    @property
    def is_in_context(self) -> bool:
        """Whether the clock is entered."""
        return self._in_context

    @property
    def is_running(self) -> bool:
        """Whether a run is going."""
        return self._run_over is not None

    @property
    def position(self) -> Position:
        """Ticks published since the clock was entered, the last timestamp, boundaries skipped."""
        if self._coordinator is None:
            return Position(0, self._entry_timestamp())
        return self._coordinator.position

    @property
    def tick_counter(self) -> int:
        """Ticks published since the clock was entered."""
        return self.position.seq

    @property
    def current_timestamp(self) -> float:
        """Timestamp of the last tick; before the first, of the boundary before the entry."""
        return self.position.timestamp

    # Entering and leaving

    async def __aenter__(self) -> Self:
        """Start the workers.

        Raises:
            ClockContextError: the clock is entered already.
            ClockError: ``on_error`` is ``"raise"`` and a processor did not start; everything is
                stopped again.
            TransportError: the sockets cannot be bound.
        """
        if self._in_context:
            raise ClockContextError("Clock is already in a context")
        timestamp = self._enter_timestamp()
        rules = TickRules(
            processor_timeout=self._config.processor_timeout,
            max_retries=self._config.max_retries,
            stats_window_size=self._config.stats_window_size,
            every_tick=self._every_tick,
        )
        coordinator = Coordinator(
            self._launcher,
            self._timing,
            rules,
            timestamp,
            self._take,
            self._restart_budget,
            self._event_loop,
        )
        self._coordinator = coordinator
        self._in_context = True
        self._failure = None
        self._subscriptions_changed()
        self._announce(
            self.start_publication,
            ClockStartEvent(
                timestamp=timestamp, mode=self.clock_mode, tick_size=self._config.tick_size
            ),
        )
        for record in self._records:
            # One that a subscriber of the start event has added is started already.
            if not coordinator.has(record):
                self._start(record, coordinator)
        if self._config.on_error == "raise":
            try:
                await self._all_ready()
            except BaseException:
                await self._leave()
                raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the workers and wait for them; after an exception no stop event is published.

        Cancelling this kills what has not stopped yet.

        Raises:
            ClockContextError: the clock is not entered.
        """
        if not self._in_context:
            raise ClockContextError("Clock is not in a context")
        try:
            if exc is None:
                await self.shutdown()
        finally:
            await self._leave()

    async def shutdown(self, timeout: float | None = None) -> None:
        """End the run that is going and stop the workers, side by side; nothing to do is fine.

        Args:
            timeout: seconds after which workers that have not stopped are killed; None leaves each
                its own ``stop_grace``. Cancelling kills at once.
        """
        coordinator = self._coordinator
        if coordinator is None:
            return
        self._end_run(None)
        await coordinator.close(timeout, self._announce_stop)

    def _announce_stop(self) -> None:
        self._announce(
            self.stop_publication,
            ClockStopEvent(
                timestamp=self.current_timestamp,
                total_ticks=self.tick_counter,
                final_states=self.processor_states,
            ),
        )

    async def _leave(self) -> None:
        assert self._coordinator is not None
        try:
            self._end_run(None)
            await self._coordinator.close()
        finally:
            self._in_context = False
            self.events.close()

    async def _all_ready(self) -> None:
        """Wait until every worker is READY; the first failure of one ends that."""
        coordinator = self._coordinator
        assert coordinator is not None
        for record in self._records:
            ready = asyncio.ensure_future(coordinator.wait_ready(record.name, 0))
            try:
                while not ready.done() and self._failure is None:
                    await asyncio.wait(
                        {ready, coordinator.next_event()}, return_when="FIRST_COMPLETED"
                    )
            finally:
                ready.cancel()
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise ClockError(f"Failed to start processor {failure.worker!r}") from failure.error

    async def restart_all(self, *, max_unavailable: int = 1, timeout: float = 60.0) -> None:
        """Restart all workers, a few at a time: each must be back before the next goes.

        Back is READY, and CONNECTED for a `NetworkProcessor`, even if it was not so before. Workers
        that are STOPPED are left alone; those that are down already are restarted first. Cancelling
        stops rolling; a restart that is under way goes on.

        Args:
            max_unavailable: how many may be down at the same time, as in Kubernetes: none that is
                up is restarted while that many are down, for whatever reason.
            timeout: seconds for each to come back, and to wait for others to come back before.

        Raises:
            WorkerError: one did not come back; those that were not restarted yet stay as they are.
            ClockContextError: the clock is not entered.
            ConfigError: ``max_unavailable`` or ``timeout`` is out of range.
        """
        whole("restart_all", "max_unavailable", max_unavailable, 1)
        positive("restart_all", "timeout", timeout)
        if self._coordinator is None or not self._coordinator.is_open:
            raise ClockContextError("Clock must be started in a context")
        await roll(self._coordinator, self._records, max_unavailable, timeout)

    # Running

    @abc.abstractmethod
    async def run(self) -> None:
        """Tick until the end, until cancelled, or until `shutdown`."""

    @abc.abstractmethod
    async def run_til(self, target: float) -> None:
        """Tick until ``target``."""

    @abc.abstractmethod
    def _enter_timestamp(self) -> float:
        """Settle the time scale for this stretch; return the timestamp before the first tick."""

    @abc.abstractmethod
    def _entry_timestamp(self) -> float:
        """Return the timestamp that entering now would give."""

    def _end_run(
        self, error: BaseException | None, over: asyncio.Future[None] | None = None
    ) -> None:
        """End the run that is going, or the one that ``over`` belongs to."""
        over = self._run_over if over is None else over
        if over is None or over.done():
            return
        if error is None:
            over.set_result(None)
        else:
            over.set_exception(error)

    # Events

    def _take(self, event: Event) -> None:
        """Hand one event to all sinks."""
        log_event(self.name, event)
        if self._dossiers is not None and isinstance(event, WorkerDied):
            self._dossiers.write(event)
        self.events.publish(event)
        failure = failure_of(event)
        if failure is None:
            return
        record = next((r for r in self._records if r.name == failure.worker), None)
        if record is not None and self._error_callback is not None:
            try:
                self._error_callback(record.source, failure.error)
            except Exception:
                logger.exception("the error callback failed")
        if self._config.on_error == "raise":
            if self._run_over is not None:
                self._end_run(failure.error)
            elif self._failure is None:
                self._failure = failure

    def _announce(self, publication: Publication, event: Event) -> None:
        assert self._coordinator is not None
        event = msgspec.structs.replace(event, at=self._timing.wall())
        self._coordinator.emit(event)
        self.publish(publication, event)

    def _subscriptions_changed(self) -> None:
        """Have ticks told of only while somebody listens."""
        coordinator = self._coordinator
        if coordinator is None or not coordinator.is_open:
            return
        if not self.has_subscribers(self.tick_publication):
            coordinator.ticker.on_tick = None
            return
        loop = asyncio.get_running_loop()

        def tell(position: Position) -> None:
            loop.call_soon_threadsafe(self._tell_tick, position)

        coordinator.ticker.on_tick = tell

    def _tell_tick(self, position: Position) -> None:
        self.publish(
            self.tick_publication,
            ClockTickEvent(
                at=self._timing.wall(),
                timestamp=position.timestamp,
                tick_counter=position.seq,
                processors=self.get_active_processors(),
            ),
        )
