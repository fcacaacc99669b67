"""ProcessorState: chronopype's record of a processor's ticks."""

from __future__ import annotations

import msgspec

from chronopype_mp.core.error_text import message_of
from chronopype_mp.core.state import TickCounters, TickState, local_time
from chronopype_mp.timing import wall

__all__ = ["ProcessorState"]


class ExecutionTimes(tuple[float, ...]):
    """Execution times in seconds; chronopype's are a list, so they equal one."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, tuple(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


class ProcessorState(TickState, frozen=True, kw_only=True):
    """The state of a processor at one moment; every method returns a new one.

    The fields and derived figures are those of `TickState`. As in chronopype, a state that is made
    from execution times alone counts each of them as a successful tick, and they equal a list.
    """

    def __post_init__(self) -> None:
        times = ExecutionTimes(self.execution_times)
        msgspec.structs.force_setattr(self, "execution_times", times)
        count = max(self.success_count, len(times))
        msgspec.structs.force_setattr(self, "success_count", count)

    @classmethod
    def of(cls, counters: TickCounters, **others: object) -> ProcessorState:
        """Return a worker's counters as a ProcessorState.

        Args:
            counters: the worker's.
            others: fields to replace.
        """
        return cls(**(counters.values() | others))  # type: ignore[arg-type]

    def update_execution_time(self, execution_time: float, window_size: int) -> ProcessorState:
        """Return the state after a tick that succeeded.

        Args:
            execution_time: how long it took, seconds.
            window_size: how many execution times to keep, at least 1.
        """
        kept = self.execution_times[-(window_size - 1) :] if window_size > 1 else ()
        return msgspec.structs.replace(
            self,
            execution_times=(*kept, execution_time),
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
            last_error=message_of(error),
            last_error_time=local_time(timestamp),
        )

    def update_retry_count(self, retry_count: int) -> ProcessorState:
        """Return the state with ``retry_count`` failed attempts in the last tick."""
        return msgspec.structs.replace(
            self,
            retry_count=retry_count,
            max_consecutive_retries=max(self.max_consecutive_retries, retry_count),
        )

    def reset_retries(self) -> ProcessorState:
        """Return the state without failed attempts; their maximum is kept."""
        return msgspec.structs.replace(self, retry_count=0)
