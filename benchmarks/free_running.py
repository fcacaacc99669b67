"""A clock without deadlines. It publishes ticks as fast as the slowest worker runs them."""

from __future__ import annotations

import sys

from chronopype_mp import BaseClock
from chronopype_mp.clocks.runs import OnEnd
from chronopype_mp.coordinator.ticker import FreeRun

__all__ = ["FreeRunningClock"]

WINDOW = 5000
"""Ticks by which the slowest worker may lag, so that frames arrive while it runs others."""


class FreeRunningClock(BaseClock):
    """Ticks at ``tick_size``, 2·``tick_size`` … of its own time, and drops no tick.

    A run returns when all workers have run its ticks. The arguments are those of `BaseClock`.
    """

    _every_tick = True

    def _settle_time(self) -> None:
        pass

    def _now(self) -> float:
        return 0.0

    def _plan(self, target: float | None, on_end: OnEnd) -> FreeRun:
        first = self.position.seq + 1
        last = sys.maxsize if target is None else self._schedule.number_at(target)
        return FreeRun(self._schedule, first, last + 1 - first, WINDOW, on_end)
