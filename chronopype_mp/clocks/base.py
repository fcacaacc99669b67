"""BaseClock: the context, the runs and the events of every clock, whatever its time is.

A kind of clock is defined by its time alone, see `BaseClock._settle_time`, `BaseClock._now` and
`BaseClock._plan`.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import ClassVar, NoReturn, Self

import msgspec

from chronopype_mp.clocks.arguments import (
    checked_bool,
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
from chronopype_mp.clocks.registry import Member, Phase, ProcessorRegistry, ProcessorStats
from chronopype_mp.clocks.runs import OnEnd, Runs
from chronopype_mp.coordinator.callbacks import callback_problem
from chronopype_mp.coordinator.coordinator import Coordinator
from chronopype_mp.coordinator.descriptor_budget import raise_soft_limit
from chronopype_mp.coordinator.dossiers import DossierFiles
from chronopype_mp.coordinator.event_log import log_event
from chronopype_mp.coordinator.failures import failure_of
from chronopype_mp.coordinator.output_stream import OutputStream
from chronopype_mp.coordinator.rolling import roll
from chronopype_mp.coordinator.state_files import StateFiles
from chronopype_mp.coordinator.stream import EventStream
from chronopype_mp.coordinator.ticker import FreeRun, Position, Run
from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.checks import finite, positive, whole
from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.schedule import Schedule
from chronopype_mp.core.supervisor import CLOCK_BUDGET
from chronopype_mp.core.worker_events import Event, WorkerDied
from chronopype_mp.exceptions import ClockContextError, ClockError, ConfigError, WorkerError
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.launchers import Launcher
from chronopype_mp.timing import SYSTEM_TIME, SystemTime, TimeSource

__all__ = [
    "BaseClock",
    "ClockStartEvent",
    "ClockStopEvent",
    "ClockTickEvent",
    "ProcessorStats",
]

logger = GuardedLogger("chronopype_mp.clocks")

ErrorCallback = Callable[[Member, BaseException], object]


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
        state_dir: a directory for one JSON file per death, the newest 20 of each worker, and for
            the workers' snapshots, which then survive this program. It is created if missing.
        event_loop: the event loop of the workers: ``"asyncio"``, or ``"uvloop"`` with the extra of
            that name. Workers of the inline launcher share the owner's loop.
        raise_descriptor_limit: whether entering the clock raises this process's soft limit of open
            files to the hard one, up to 65,536. It stays raised. Workers keep the limit of before.
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
        raise_descriptor_limit: bool = True,
        name: str | None = None,
        timing: TimeSource = SYSTEM_TIME,
    ) -> None:
        owner = type(self).__name__
        if not isinstance(config, ClockConfig):
            raise ConfigError(owner, "config", config, "must be a ClockConfig")
        if error_callback is not None:
            problem = callback_problem(error_callback, "processor", "exception")
            if problem is not None:
                raise ConfigError(owner, "error_callback", error_callback, problem)
        super().__init__(supervision, groups)
        self._launcher = checked_launcher(owner, launcher)
        self._restart_budget = checked_budget(owner, restart_budget) or CLOCK_BUDGET
        self._event_loop = checked_event_loop(owner, event_loop)
        self._raises_limit = checked_bool(owner, "raise_descriptor_limit", raise_descriptor_limit)
        self._timing = checked_timing(owner, timing)
        self.name = checked_name(owner, owner if name is None else name)
        if self._mode is not None and config.clock_mode is not self._mode:
            wrong = config.clock_mode.name
            raise ClockError(f"{owner} requires {self._mode.name} mode, not {wrong}")
        # Last, because it creates a directory.
        directory = checked_state_dir(owner, state_dir)
        self._dossiers = None if directory is None else DossierFiles(directory)
        self._state_files = None if directory is None else StateFiles(directory)
        self._config = config
        self._error_callback = error_callback
        self._schedule = Schedule(config.tick_size)
        self._runs: Runs  # made on entry
        self.events = EventStream(self._guard)
        self.outputs = OutputStream(self._guard, config.outputs, self._tell_outputs)

    # Properties

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
        return self._phase is not Phase.OUTSIDE

    @property
    def is_running(self) -> bool:
        """Whether a run is in progress."""
        return self.is_in_context and self._runs.is_running

    @property
    def position(self) -> Position:
        """Ticks published since the clock was entered, the last timestamp, boundaries skipped."""
        if self._coordinator is None:
            return Position(0, self._boundary_before_now())
        return self._coordinator.position

    @property
    def tick_counter(self) -> int:
        """Ticks published since the clock was entered."""
        return self.position.seq

    @property
    def current_timestamp(self) -> float:
        """Timestamp of the last tick; before the first, of the boundary before the entry."""
        return self.position.timestamp

    # The time of a kind of clock

    @abc.abstractmethod
    def _settle_time(self) -> None:
        """Settle the time scale on entry: set ``_schedule`` if it depends on the present time."""

    @abc.abstractmethod
    def _now(self) -> float:
        """Return the present time on the clock's scale, seconds."""

    @abc.abstractmethod
    def _plan(self, target: float | None, on_end: OnEnd) -> Run | FreeRun | None:
        """Return what the ticker has to do in a run; None if the run is over already.

        Args:
            target: when the run ends, on the clock's scale, seconds; None for never.
            on_end: for the run.
        """

    @property
    def _has_deadlines(self) -> bool:
        """Whether ticks are due at times that workers can read from their own clock."""
        return not self._every_tick and isinstance(self._timing, SystemTime)

    def _boundary_before_now(self) -> float:
        return self._schedule.timestamp(self._schedule.number_at(self._now()))

    def _check_target(self, owner: str, field: str, target: float) -> None:
        """Check that the end of a run is on the clock's scale; a kind of clock may know more.

        Raises:
            ConfigError: it is not.
        """

    # Entering and leaving

    async def __aenter__(self) -> Self:
        """Start the workers.

        Raises:
            ClockContextError: the clock is entered already.
            ClockError: ``on_error`` is ``"raise"`` and a processor did not start. All workers are
                stopped again.
            TransportError: the sockets cannot be bound, or hardly any file descriptors are left.
            ConfigError: there are not enough file descriptors for all workers.
        """
        if self._phase is not Phase.OUTSIDE:
            raise ClockContextError("Clock is already in a context")
        self._entered_by = os.getpid()
        self._settle_time()
        timestamp = self._boundary_before_now()
        rules = TickRules(
            processor_timeout=self._config.processor_timeout,
            max_retries=self._config.max_retries,
            stats_window_size=self._config.stats_window_size,
            every_tick=self._every_tick,
            tick_size=0.0 if self._every_tick else self._config.tick_size,
            offset=self._schedule.offset if self._has_deadlines else None,
        )
        if self._raises_limit:
            raise_soft_limit()
        self._runs = Runs()
        self._guard.reset()
        coordinator = Coordinator(
            self._launcher,
            self._timing,
            rules,
            timestamp,
            self._take,
            self._machinery_failed,
            self._restart_budget,
            self._event_loop,
            self._guard,
            self.outputs,
            self._config.outputs,
        )
        self._coordinator = coordinator
        self._phase = Phase.OPEN
        try:
            self._subscriptions_changed()
            self._announce(
                self.start_publication,
                ClockStartEvent(
                    timestamp=timestamp, mode=self.clock_mode, tick_size=self._config.tick_size
                ),
            )
            self._start_all(coordinator)
            if self._config.on_error == "raise":
                await self._runs.wait_until(self._all_ready(coordinator))
        except BaseException:
            await self._leave()
            raise
        return self

    def __enter__(self) -> NoReturn:
        """Refuse a plain ``with``.

        Raises:
            TypeError: always.
        """
        name = type(self).__name__
        raise TypeError(f"use `async with {name}(config) as clock` in a coroutine, not `with`")

    def __exit__(self, *details: object) -> None:
        """Never called; Python looks for it before `__enter__`."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the workers and wait for them; after an exception no stop event is published.

        Cancelling this kills the workers that have not stopped yet.

        Raises:
            ClockContextError: the clock is not entered.
        """
        if self._phase is Phase.OUTSIDE:
            raise ClockContextError("Clock is not in a context")
        if os.getpid() != self._entered_by:
            return  # in a forked process; the workers are its parent's
        try:
            if exc is None:
                await self.shutdown()
        finally:
            await self._leave()

    async def shutdown(self, timeout: float | None = None) -> None:
        """End the run and stop the workers side by side. Does nothing outside the context.

        Args:
            timeout: seconds after which workers that have not stopped are killed; None leaves each
                its own ``stop_grace``. Cancelling kills at once.
        """
        if self._phase is not Phase.OUTSIDE:
            await self._close(timeout, self._announce_stop)

    async def _leave(self) -> None:
        try:
            await self._close()
        finally:
            self._phase = Phase.OUTSIDE
            self.events.close()
            for record in self._records():
                record.is_in_use = False
            if self._state_files is not None:
                await self._state_files.close()
            self.outputs.close()

    async def _close(
        self, timeout: float | None = None, last: Callable[[], None] | None = None
    ) -> None:
        assert self._coordinator is not None
        self._phase = Phase.CLOSED
        self._runs.end()
        await self._coordinator.close(timeout, last)

    def _announce_stop(self) -> None:
        self._announce(
            self.stop_publication,
            ClockStopEvent(
                timestamp=self.current_timestamp,
                total_ticks=self.tick_counter,
                final_states=self.processor_states,
            ),
        )

    async def _all_ready(self, coordinator: Coordinator) -> None:
        awaited: set[str] = set()
        # Event callbacks may add and remove workers meanwhile.
        while names := [name for name in self._workers if name not in awaited]:
            awaited.add(names[0])
            with contextlib.suppress(WorkerError):  # it failed, which is noticed, or was removed
                await coordinator.wait_ready(names[0], 0)

    async def restart_all(self, *, max_unavailable: int = 1, timeout: float = 60.0) -> None:
        """Restart all workers, a few at a time: each must be back before the next is restarted.

        A worker is back when it is READY and, if it hosts a `NetworkProcessor`, CONNECTED, even if
        it was not connected before. Workers that are STOPPED are left alone. Workers that are down
        are restarted first. Cancelling this restarts no further worker; a restart in progress
        continues.

        Args:
            max_unavailable: how many workers may be down at a time, for whatever reason, as in
                Kubernetes.
            timeout: seconds for each worker to come back, and to wait until it may be restarted.

        Raises:
            WorkerError: a worker did not come back; no further one is restarted.
            ClockContextError: the clock is not entered.
            ConfigError: ``max_unavailable`` or ``timeout`` is out of range.
        """
        whole("restart_all", "max_unavailable", max_unavailable, 1)
        positive("restart_all", "timeout", timeout)
        await roll(self._opened(), self._records, max_unavailable, timeout)

    # Runs

    async def run(self) -> None:
        """Tick until ``end_time``, or for ever: until cancelled, or until `shutdown`.

        After its end the processors show the public attributes of their workers.

        Cancelling ends the ticks and leaves the workers running.

        Raises:
            ClockError: a run is in progress.
            ClockContextError: the clock is not entered.
            BaseException: with ``on_error="raise"``, the first failure of a processor; with any
                ``on_error``, an error that ended the clock's own machinery, and the `SystemExit` or
                `KeyboardInterrupt` of a callback.
        """
        end = self._config.end_time or None
        self._opened()
        if end is not None:
            self._check_target(type(self._config).__name__, "end_time", end)
        await self._run(end)

    async def run_til(self, target_time: float) -> None:
        """Tick until ``target_time``, including a boundary at ``target_time``.

        A target in the past does nothing, and is warned of.

        Args:
            target_time: on the time scale of ``start_time``, seconds.

        Raises:
            ConfigError: ``target_time`` is not a finite number, or evidently on another time scale:
                a duration, or the event loop's time for a clock on wall time.
            Others as `run`.
        """
        target = finite("run_til", "target_time", target_time)
        self._opened()
        self._check_target("run_til", "target_time", target)
        end = self._config.end_time
        await self._run(min(target, end) if end else target)

    async def _run(self, target: float | None) -> None:
        if self.is_running:
            raise ClockError("Clock is already running")
        ticker = self._opened().ticker
        if not self._workers and not self.has_subscribers(self.tick_publication):
            logger.warning(
                "%s: the run begins without processors, so nobody is ticked; call add_processor()",
                self.name,
            )
        await self._runs.run(ticker, lambda on_end: self._plan(target, on_end))
        if self._open_coordinator is not None:
            await self._open_coordinator.fetch_attributes()

    def _opened(self) -> Coordinator:
        coordinator = self._open_coordinator
        if coordinator is None:
            raise ClockContextError(
                "Clock must be started in a context; run it inside of "
                f"`async with {type(self).__name__}(config) as clock`"
            )
        return coordinator

    def _machinery_failed(self, error: BaseException) -> None:
        """End the run with an error of the machinery; every further run raises it, too.

        Called in the event loop when a task or thread that supervises the workers has ended
        unexpectedly. The clock must not tick on unsupervised, whatever ``on_error`` is.
        """
        self._runs.break_down(error)

    def _exit(self, error: BaseException) -> bool:
        """Let the run raise a callback's exit, so that the context is left in an orderly way."""
        return self.is_in_context and self._runs.end(error)

    # Events

    def _take(self, event: Event) -> None:
        """Pass an event to all sinks; a failing sink does not affect the others."""
        self._guard.call("the event log", log_event, self.name, event)
        if self._dossiers is not None and isinstance(event, WorkerDied):
            self._guard.call("the dossier writer", self._dossiers.write, event)
        self.events.publish(event)
        failure = failure_of(event)
        if failure is None:
            return
        worker = self._workers.get(failure.worker)
        if worker is not None and self._error_callback is not None:
            source = worker.record.source
            self._guard.call("the error callback", self._error_callback, source, failure.error)
        if self._config.on_error == "raise":
            self._runs.fail(failure)

    def _announce(self, publication: Publication, event: Event) -> None:
        assert self._coordinator is not None
        event = msgspec.structs.replace(event, at=self._timing.wall())
        self._coordinator.emit(event)
        self.publish(publication, event)

    def _subscriptions_changed(self) -> None:
        """Forward ticks only while there are subscribers."""
        coordinator = self._open_coordinator
        if coordinator is None:
            return
        if not self.has_subscribers(self.tick_publication):
            coordinator.ticker.on_tick = None
            return
        loop = asyncio.get_running_loop()

        def forward(position: Position) -> None:
            loop.call_soon_threadsafe(self._publish_tick, position)

        coordinator.ticker.on_tick = forward

    def _publish_tick(self, position: Position) -> None:
        self.publish(
            self.tick_publication,
            ClockTickEvent(
                at=self._timing.wall(),
                timestamp=position.timestamp,
                tick_counter=position.seq,
                processors=self.get_active_processors(),
            ),
        )
