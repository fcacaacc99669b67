"""ProcessorState: chronopype's record of a processor's ticks."""

from __future__ import annotations

import msgspec

from chronopype_mp.core.state import TickCounters, TickState, local_time
from chronopype_mp.timing import wall

__all__ = ["ProcessorState"]


class ProcessorState(TickState, frozen=True, kw_only=True):
    """The state of a processor at one moment; every method returns a new one.

    The fields and derived figures are those of `TickState`.
    """

    @classmethod
    def of(cls, counters: TickCounters, **others: object) -> ProcessorState:
        """Return a worker's counters as a ProcessorState.

        Args:
            counters: the worker's.
            others: fields to replace.
        """
        return cls(**(counters.values() | others))  # type: ignore[arg-type]

    def update_execution_time(self, seconds: float, window: int) -> ProcessorState:
        """Return the state after a tick that succeeded.

        Args:
            seconds: how long it took.
            window: how many execution times to keep, at least 1.
        """
        kept = self.execution_times[-(window - 1) :] if window > 1 else ()
        return msgspec.structs.replace(
            self,
            execution_times=(*kept, seconds),
            success_count=self.success_count + 1,
            consecutive_errors=0,
            last_success_time=local_time(wall()),
        )

    def record_error(self, error: Exception, timestamp: float) -> ProcessorState:
        """Return the state after a tick that failed.

        Args:
            error: what it failed with.
            timestamp: the tick's, seconds; kept as naive local time if the calendar has it.
        """
        return msgspec.structs.replace(
            self,
            error_count=self.error_count + 1,
            consecutive_errors=self.consecutive_errors + 1,
            last_error=str(error),
            last_error_time=local_time(timestamp),
        )

    def update_retry_count(self, count: int) -> ProcessorState:
        """Return the state with ``count`` failed attempts in the last tick."""
        return msgspec.structs.replace(
            self,
            retry_count=count,
            max_consecutive_retries=max(self.max_consecutive_retries, count),
        )

    def reset_retries(self) -> ProcessorState:
        """Return the state without failed attempts; their maximum is kept."""
        return msgspec.structs.replace(self, retry_count=0)
