"""RealtimeClock: ticks as time passes."""

from __future__ import annotations

from chronopype_mp.clocks.base import BaseClock
from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.clocks.runs import OnEnd
from chronopype_mp.coordinator.ticker import Run
from chronopype_mp.core.schedule import Schedule, on_loop_time
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import loop_time

__all__ = ["RealtimeClock"]

logger = GuardedLogger("chronopype_mp.clocks")

WALL_CLOCK_SET = 1.0
"""Seconds; a larger shift of the wall clock means that it was set. A smaller one is the time
between two readings, or a correction that is not worth a tick."""


class RealtimeClock(BaseClock):
    """Publishes a tick at every multiple of ``tick_size``, to workers in processes of their own.

    Boundaries that pass while the machine or the process is suspended are skipped and counted in
    ``position.skipped``; ticks never come in a burst. Times are on wall time, or on the event
    loop's time if the config's ``start_time`` is closer to that. The offset of the time scale to
    the monotonic clock is taken on entry, so setting the wall clock moves no tick.

    The arguments are those of `BaseClock`.

    Raises:
        ClockError: the config's mode is not REALTIME.
        ConfigError: an argument is invalid.
    """

    _mode = ClockMode.REALTIME

    _on_loop_time = False
    """Whether times are on the event loop's time; settled on entry."""

    def _settle_time(self) -> None:
        wall = self._timing.wall()
        self._on_loop_time = on_loop_time(self._config.start_time, wall, loop_time())
        self._schedule = Schedule(self._config.tick_size, self._now() - self._timing.monotonic())

    def _now(self) -> float:
        return loop_time() if self._on_loop_time else self._timing.wall()

    def _check_target(self, owner: str, field: str, target: float) -> None:
        wall, loop = self._timing.wall(), loop_time()
        own, other = (loop, wall) if self._on_loop_time else (wall, loop)
        if abs(target - other) < abs(target - own):
            scale, now = ("the event loop's time", "asyncio.get_running_loop().time()")
            if not self._on_loop_time:
                scale, now = ("wall time", "time.time()")
            problem = (
                f"is not on the scale of this clock, which is {scale}, now {own:.0f}; pass "
                f"{now} + seconds, or set start_time of the config to a time on the other scale"
            )
            raise ConfigError(owner, field, target, problem)
        if self._due(target) < self._timing.monotonic():
            logger.warning(
                "%s: %s.%s = %s: is %.1f s in the past, so nothing is ticked; pass a time to come",
                self.name,
                owner,
                field,
                target,
                own - target,
            )

    def _plan(self, target: float | None, on_end: OnEnd) -> Run | None:
        monotonic = self._timing.monotonic()
        until = None if target is None else self._due(target)
        if until is not None and until < monotonic:
            return None
        start = max(monotonic, self._due(self._config.start_time))
        done = self._schedule.number_at(self.position.timestamp)
        first = max(self._schedule.first(start), done + 1)
        return Run(self._schedule, first, until, on_end)

    def _due(self, timestamp: float) -> float:
        """Return when a time on the clock's scale is due, seconds on the monotonic clock.

        The scale of the ticks is used, to the last bit, so that a boundary and a time equal to it
        are due together. Once the wall clock was set, its own scale is used.
        """
        offset = self._schedule.offset
        if not self._on_loop_time:
            present = self._timing.wall() - self._timing.monotonic()
            if abs(present - offset) > WALL_CLOCK_SET:
                offset = present
        return self._schedule.snap(timestamp) - offset
