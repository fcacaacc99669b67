"""RealtimeClock: ticks as time passes."""

from __future__ import annotations

import asyncio
from typing import Any

from chronopype_mp.clocks.base import BaseClock
from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.coordinator.ticker import Run
from chronopype_mp.core.checks import finite
from chronopype_mp.core.schedule import Schedule, on_loop_time
from chronopype_mp.exceptions import ClockContextError, ClockError

__all__ = ["RealtimeClock"]

WALL_CLOCK_SET = 1.0
"""Seconds; a smaller shift is the time between two readings, or a correction not worth a tick."""


class RealtimeClock(BaseClock):
    """Publishes a tick at every multiple of ``tick_size``, to workers in processes of their own.

    A boundary that nobody was awake for is skipped and counted in ``position.skipped``; ticks
    never come in a burst. Times are on wall time, or on the event loop's time if the config's
    ``start_time`` lies nearer to that; how the scale lies to the monotonic clock is settled on
    entry, so that setting the wall clock moves no tick.

    The arguments are those of `BaseClock`.

    Raises:
        ClockError: the config's mode is not REALTIME.
        ConfigError: an argument is none of what it may be.
    """

    _mode = ClockMode.REALTIME

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_loop_time = False
        self._schedule = Schedule(self._config.tick_size)

    async def run(self) -> None:
        """Tick until ``end_time``, or for ever: until cancelled, or until `shutdown`.

        Cancelling ends the ticks and leaves the workers running.

        Raises:
            ClockError: a run is going already.
            ClockContextError: the clock is not entered.
            BaseException: with ``on_error="raise"``, the first failure of a processor.
        """
        await self._run(None)

    async def run_til(self, target: float) -> None:
        """Tick until ``target``, a boundary at ``target`` included; one in the past does nothing.

        Args:
            target: on the time scale of ``start_time``, seconds.

        Raises:
            ConfigError: ``target`` is no finite number.
            Others as `run`.
        """
        await self._run(finite("run_til", "target", target))

    async def _run(self, target: float | None) -> None:
        if self._run_over is not None:
            raise ClockError("Clock is already running")
        coordinator = self._coordinator
        if not self._in_context or coordinator is None or not coordinator.is_open:
            raise ClockContextError("Clock must be started in a context")
        self._raise_failure()
        end = self._config.end_time or None
        if end is not None:
            target = end if target is None else min(target, end)
        monotonic = self._timing.monotonic()
        until = None if target is None else self._due(target)
        if until is not None and until < monotonic:
            return
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._run_over = over

        def on_end(error: BaseException | None) -> None:
            # Not whichever run is going by then: this one may have been cancelled meanwhile.
            loop.call_soon_threadsafe(self._end_run, error, over)

        start = max(monotonic, self._due(self._config.start_time))
        done = self._schedule.number_at(coordinator.position.timestamp)
        first = max(self._schedule.first(start), done + 1)
        try:
            coordinator.ticker.begin(Run(self._schedule, first, until, on_end))
            await over
        finally:
            coordinator.ticker.end()
            self._run_over = None

    def _raise_failure(self) -> None:
        """Raise what failed between two runs."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure.error

    def _due(self, timestamp: float) -> float:
        """Return when a time on the clock's scale comes, seconds on the monotonic clock.

        The scale is the one of the ticks, to the last bit, so that a boundary and a time that
        lies on it come together; unless the wall clock was set since: then it is the wall clock's.
        """
        offset = self._schedule.offset
        if not self._on_loop_time:
            now = self._timing.wall() - self._timing.monotonic()
            if abs(now - offset) > WALL_CLOCK_SET:
                offset = now
        return self._schedule.snap(timestamp) - offset

    def _now(self) -> float:
        """Return the time on the clock's scale."""
        return asyncio.get_running_loop().time() if self._on_loop_time else self._timing.wall()

    def _enter_timestamp(self) -> float:
        loop_time = asyncio.get_running_loop().time()
        self._on_loop_time = on_loop_time(self._config.start_time, self._timing.wall(), loop_time)
        self._schedule = Schedule(self._config.tick_size, self._now() - self._timing.monotonic())
        return self._entry_timestamp()

    def _entry_timestamp(self) -> float:
        now = self._now() if self._on_loop_time else self._timing.wall()
        return self._schedule.timestamp(self._schedule.number_at(now))
