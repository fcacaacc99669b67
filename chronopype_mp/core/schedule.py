"""When ticks are due. Its edge is the ticker thread.

A boundary is a whole multiple of ``tick_size``. Boundary number k lies at k·tick_size, correctly
rounded, so timestamps do not drift. (A running sum of 0.1 is off by a tick after 10,000.)
Boundaries that were missed, for instance while the machine was suspended, are skipped and counted.
Ticks never come in a burst.

Deadlines are on the monotonic clock. Its offset to the timestamps' scale is determined once, when a
run begins, so setting the wall clock moves no tick.
"""

from __future__ import annotations

import math
from fractions import Fraction

from chronopype_mp.core.checks import positive

__all__ = ["SETTLED", "Schedule", "on_loop_time"]

SETTLED = 0.002
"""Seconds after a deadline during which workers receive and run its tick."""


def on_loop_time(start_time: float, wall: float, loop_time: float) -> bool:
    """Return whether a clock runs on the event loop's time instead of wall time.

    Programs set ``start_time`` from either, so the nearer one is chosen. 0.0, the default, means
    wall time.

    Args:
        start_time: as configured, seconds.
        wall: the wall clock, seconds.
        loop_time: the event loop's clock, seconds.
    """
    return start_time != 0.0 and abs(start_time - loop_time) < abs(start_time - wall)


class Schedule:
    """The boundaries of one run.

    Args:
        tick_size: distance between boundaries, seconds. It is taken as the decimal number that it
            is written as, so 0.1 is exactly a tenth.
        offset: timestamp minus monotonic clock, seconds.

    Raises:
        ConfigError: ``tick_size`` is not a finite number above 0.
    """

    __slots__ = ("_denominator", "_numerator", "offset", "tick_size")

    def __init__(self, tick_size: float, offset: float = 0.0) -> None:
        self.tick_size = positive("Schedule", "tick_size", tick_size)
        self.offset = offset
        exact = Fraction(repr(self.tick_size))
        self._numerator = exact.numerator
        self._denominator = exact.denominator

    def timestamp(self, number: int) -> float:
        """Return the timestamp of boundary ``number``, seconds."""
        return number * self._numerator / self._denominator

    def number_at(self, timestamp: float) -> int:
        """Return the number of the last boundary at or before ``timestamp``."""
        exact = Fraction(timestamp)
        number = (exact.numerator * self._denominator) // (exact.denominator * self._numerator)
        # A boundary's timestamp is rounded, so it may be slightly below its exact place.
        return number + 1 if self.timestamp(number + 1) <= timestamp else number

    def snap(self, timestamp: float) -> float:
        """Return the boundary that ``timestamp`` equals up to rounding, else ``timestamp``.

        A sum like ``boundary + 3 * tick_size`` may be off by a rounding error.
        """
        rounding = 4 * math.ulp(timestamp)
        boundary = self.timestamp(self.number_at(timestamp + rounding))
        return boundary if abs(boundary - timestamp) <= rounding else timestamp

    def deadline(self, number: int) -> float:
        """Return when boundary ``number`` is due, seconds on the monotonic clock."""
        return self.timestamp(number) - self.offset

    def first(self, now: float) -> int:
        """Return the number of the first boundary due at or after ``now`` (monotonic seconds)."""
        number = self.number_at(now + self.offset)
        return number if self.deadline(number) >= now else number + 1

    def wait_for_gap(self, now: float, work: float, settled: float = SETTLED) -> float:
        """Return how long to delay work so that it falls between two boundaries, seconds.

        Args:
            now: on the monotonic clock, seconds.
            work: how long the work takes, seconds.
            settled: for how long after a boundary it must not begin, seconds.

        Returns:
            0.0 if it fits now, or fits no gap at all.
        """
        if work + settled > self.tick_size:
            return 0.0
        since = now - self.deadline(self.number_at(now + self.offset))
        if since + work > self.tick_size:
            return self.tick_size - since + settled
        return max(0.0, settled - since)

    def following(self, number: int, now: float) -> tuple[int, int]:
        """Return the boundary to wait for after ``number`` was published, and how many are skipped.

        Args:
            number: the boundary published last.
            now: on the monotonic clock, seconds.

        Returns:
            The number of the next boundary that is not in the past, at least ``number + 1``, and
            how many boundaries lie between the two.
        """
        after = max(number + 1, self.first(now))
        return after, after - number - 1
