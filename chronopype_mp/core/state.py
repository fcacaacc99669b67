"""The state of a processor's ticks: counters, the last error, execution times."""

from __future__ import annotations

import math
import statistics
from array import array
from collections.abc import Callable
from datetime import datetime

import msgspec

from chronopype_mp.core.histogram import BUCKETS, Durations, Histogram, bucket_of

__all__ = ["TickAccount", "TickCounters", "TickRecorder", "TickState", "local_time"]


def local_time(timestamp: float) -> datetime | None:
    """Return a timestamp as naive local time, or None if it is outside the calendar's range.

    Timestamps need not be seconds since 1970: a backtest may use milliseconds.
    """
    try:
        return datetime.fromtimestamp(timestamp)
    except (ValueError, OverflowError, OSError):
        return None


class TickAccount(msgspec.Struct, frozen=True, array_like=True):
    """The account of the ticks published while one incarnation was READY.

    Attributes:
        base: the sequence number of the last tick before the account.
        run: ticks executed, successfully or not.
        missed: ticks replaced by a newer one, or dropped by the socket.
        skipped: ticks held back while the processor was paused or not connected.
    """

    base: int = 0
    run: int = 0
    missed: int = 0
    skipped: int = 0

    @property
    def through(self) -> int:
        """The sequence number of the last tick in the account."""
        return self.base + self.run + self.missed + self.skipped


class TickState(msgspec.Struct, frozen=True, kw_only=True):
    """A processor's state at one moment.

    Attributes:
        last_timestamp: of the last tick executed, or of the start before any tick; else None.
        is_active: started and not paused.
        retry_count: failed attempts of the last tick.
        max_consecutive_retries: the most failed attempts seen in one tick.
        execution_times: of the last successful ticks, seconds, oldest first.
        success_count: ticks that succeeded, ever.
        error_count: ticks that failed for good, ever.
        consecutive_errors: ticks that failed since the last success.
        last_error: the last failure's message.
        last_error_time: its tick's timestamp, as naive local time.
        last_success_time: when the last successful tick ended, as naive local time.
    """

    last_timestamp: float | None = None
    is_active: bool = False
    retry_count: int = 0
    max_consecutive_retries: int = 0
    execution_times: tuple[float, ...] = ()
    success_count: int = 0
    error_count: int = 0
    consecutive_errors: int = 0
    last_error: str | None = None
    last_error_time: datetime | None = None
    last_success_time: datetime | None = None

    @property
    def successful_ticks(self) -> int:
        """Ticks that succeeded, ever."""
        return self.success_count

    @property
    def failed_ticks(self) -> int:
        """Ticks that failed for good, ever."""
        return self.error_count

    @property
    def total_ticks(self) -> int:
        """Ticks that ended, ever."""
        return self.success_count + self.error_count

    @property
    def total_execution_time(self) -> float:
        """Sum of the execution times in the window, seconds."""
        return math.fsum(self.execution_times)

    @property
    def avg_execution_time(self) -> float:
        """Mean of the execution times in the window, seconds; 0.0 without any."""
        return statistics.fmean(self.execution_times) if self.execution_times else 0.0

    @property
    def max_execution_time(self) -> float:
        """Largest execution time in the window, seconds; 0.0 without any."""
        return max(self.execution_times, default=0.0)

    @property
    def std_dev_execution_time(self) -> float:
        """Standard deviation of the execution times, seconds; 0.0 with fewer than two samples."""
        return statistics.stdev(self.execution_times) if len(self.execution_times) > 1 else 0.0

    @property
    def error_rate(self) -> float:
        """Failed ticks in percent of all; 0.0 without any."""
        return 100.0 * self.error_count / self.total_ticks if self.total_ticks else 0.0

    def get_execution_percentile(self, percentile: float) -> float:
        """Return a percentile of the execution times, linearly interpolated.

        Args:
            percentile: 0 to 100.

        Returns:
            Seconds; 0.0 without samples.

        Raises:
            ValueError: ``percentile`` is out of range.
        """
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile = {percentile!r}: must be between 0 and 100")
        if not self.execution_times:
            return 0.0
        ordered = sorted(self.execution_times)
        place = percentile / 100 * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


class TickCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reports about its processor's ticks: a `TickState` on the wire, and more.

    Attributes:
        recent: the execution times of the last successful ticks, nanoseconds, oldest first, as
            unsigned 64-bit integers in native byte order.
        executions: the execution times of all successful ticks of the incarnation.
        lateness: from the deadline of each tick that was begun to the entry of its hook.
        last_error_at: the timestamp of the tick that failed last.
        last_success_at: when the last successful tick ended, wall clock, seconds.

    The other attributes are those of `TickState`.
    """

    last_timestamp: float | None = None
    is_active: bool = False
    retry_count: int = 0
    max_consecutive_retries: int = 0
    recent: bytes = b""
    executions: Histogram = Histogram()
    lateness: Histogram = Histogram()
    success_count: int = 0
    error_count: int = 0
    consecutive_errors: int = 0
    last_error: str | None = None
    last_error_at: float | None = None
    last_success_at: float | None = None

    def values(self) -> dict[str, object]:
        """Return the fields of the corresponding `TickState`."""
        recent = array("Q")
        recent.frombytes(self.recent[: len(self.recent) // recent.itemsize * recent.itemsize])
        error_at, success_at = self.last_error_at, self.last_success_at
        return {
            "last_timestamp": self.last_timestamp,
            "is_active": self.is_active,
            "retry_count": self.retry_count,
            "max_consecutive_retries": self.max_consecutive_retries,
            "execution_times": tuple([nanoseconds / 1e9 for nanoseconds in recent]),
            "success_count": self.success_count,
            "error_count": self.error_count,
            "consecutive_errors": self.consecutive_errors,
            "last_error": self.last_error,
            "last_error_time": None if error_at is None else local_time(error_at),
            "last_success_time": None if success_at is None else local_time(success_at),
        }


class TickRecorder:
    """Counts ticks in the process that executes them, in constant time per tick.

    Args:
        window: how many execution times are kept.
        wall: returns the wall clock, seconds.
        offset: timestamp minus monotonic clock, seconds; None if ticks have no deadlines here.

    Attributes:
        last_timestamp: of the last tick that ended, seconds.
        begun: for each tick that was begun, its timestamp in seconds, then when its hook was
            entered first, monotonic nanoseconds; None if ticks have no deadlines. The list is flat,
            because a list of pairs would keep the garbage collector busy. It is emptied with each
            look at the counters.
        unrecorded: durations of ticks that succeeded at the first attempt and are not in the
            counters yet, nanoseconds. Code that executes ticks in batches appends to it.
        is_active: started and not paused.
        consecutive_errors: ticks that failed since the last success.
    """

    def __init__(self, window: int, wall: Callable[[], float], offset: float | None = None) -> None:
        self._window = window
        self._wall = wall
        self._offset = offset
        self._lateness = Durations()
        self.begun: list[float] | None = None if offset is None else []
        self.unrecorded: list[int] = []
        self._recent = array("Q", bytes(8 * window))
        self._counts = [0] * BUCKETS
        self._total = 0
        self._largest = 0
        self.last_timestamp: float | None = None
        self.is_active = False
        self._retry_count = 0
        self._max_retries = 0
        self._successes = 0
        self._errors = 0
        self.consecutive_errors = 0
        self._last_error: str | None = None
        self._last_error_at: float | None = None
        self._last_success_at: float | None = None

    def succeeded(self, timestamp: float, nanoseconds: int, retries: int) -> None:
        """Count a tick that succeeded.

        Args:
            timestamp: the tick's, seconds.
            nanoseconds: duration of the attempt that succeeded.
            retries: attempts that failed before it.
        """
        self.last_timestamp = timestamp
        if retries > self._max_retries:
            self._max_retries = retries
        self.unrecorded.append(nanoseconds)
        self.record()

    def record(self) -> None:
        """Add what is `unrecorded` to the counters. Those ticks count as having ended now."""
        if not self.unrecorded:
            return
        recent, window, counts = self._recent, self._window, self._counts
        successes, total, largest = self._successes, self._total, self._largest
        for nanoseconds in self.unrecorded:
            recent[successes % window] = nanoseconds
            successes += 1
            total += nanoseconds
            bucket = bucket_of(nanoseconds)
            if bucket < BUCKETS:
                counts[bucket] += 1
            else:
                counts[-1] += 1
            if nanoseconds > largest:
                largest = nanoseconds
        self.unrecorded.clear()
        self._successes, self._total, self._largest = successes, total, largest
        self.consecutive_errors = self._retry_count = 0
        self._last_success_at = self._wall()

    def failed(self, timestamp: float, error: str, attempts: int) -> None:
        """Count a tick whose last attempt failed.

        Args:
            timestamp: the tick's, seconds.
            error: the failure's message.
            attempts: attempts that failed.
        """
        self.record()
        self._errors += 1
        self.consecutive_errors += 1
        self._retry_count = attempts
        self._max_retries = max(self._max_retries, attempts)
        self._last_error = error
        self._last_error_at = timestamp
        self.last_timestamp = timestamp

    def _count_lateness(self) -> None:
        if self.begun:
            assert self._offset is not None
            pairs = iter(self.begun)
            for timestamp, entered in zip(pairs, pairs, strict=True):
                self._lateness.add(round(entered - (timestamp - self._offset) * 1e9))
            self.begun.clear()

    @property
    def counters(self) -> TickCounters:
        """The counters now."""
        self.record()
        self._count_lateness()
        oldest = self._successes % self._window if self._successes >= self._window else 0
        recent = self._recent[oldest:] + self._recent[:oldest]
        return TickCounters(
            last_timestamp=self.last_timestamp,
            is_active=self.is_active,
            retry_count=self._retry_count,
            max_consecutive_retries=self._max_retries,
            recent=recent[: self._successes].tobytes(),
            executions=Histogram(
                {bucket: count for bucket, count in enumerate(self._counts) if count},
                self._total / 1e9,
                self._largest / 1e9,
            ),
            lateness=self._lateness.histogram,
            success_count=self._successes,
            error_count=self._errors,
            consecutive_errors=self.consecutive_errors,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
            last_success_at=self._last_success_at,
        )
