"""A clock without deadlines: its ticks go out as fast as the slowest worker runs them."""

from __future__ import annotations

import asyncio
import sys

from chronopype_mp import BaseClock, ClockError
from chronopype_mp.coordinator.ticker import FreeRun
from chronopype_mp.core.schedule import Schedule

__all__ = ["FreeRunningClock"]

WINDOW = 5000
"""Ticks that the slowest worker may be behind: while it runs one batch, the next ones arrive."""


class FreeRunningClock(BaseClock):
    """Ticks at ``tick_size``, 2·``tick_size`` … of a time of its own; no tick is lost.

    The arguments are those of `BaseClock`.
    """

    _every_tick = True

    async def run(self) -> None:
        """Tick until cancelled."""
        await self.run_til(sys.maxsize * self.tick_size)

    async def run_til(self, target: float) -> None:
        """Publish the ticks up to ``target``, and return when all workers have run them.

        Args:
            target: on the clock's own time, which begins at 0, seconds.
        """
        coordinator = self._coordinator
        if coordinator is None:
            raise ClockError("the clock is not entered")
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._run_over = over

        def on_end(error: BaseException | None) -> None:
            loop.call_soon_threadsafe(self._end_run, error, over)

        first = coordinator.position.seq + 1
        count = self._schedule.number_at(target) + 1 - first
        coordinator.ticker.begin(FreeRun(self._schedule, first, count, WINDOW, on_end))
        try:
            await over
        finally:
            coordinator.ticker.end()
            self._run_over = None

    def _enter_timestamp(self) -> float:
        self._schedule = Schedule(self._config.tick_size)
        return 0.0

    def _entry_timestamp(self) -> float:
        return 0.0
