"""The events of a clock itself."""

from __future__ import annotations

from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.core.worker_events import Event
from chronopype_mp.processors import ProcessorSpec, ProcessorState, TickProcessor

__all__ = ["ClockStartEvent", "ClockStopEvent", "ClockTickEvent"]


class ClockStartEvent(Event, frozen=True, kw_only=True):
    """A clock was entered; published before its processors start.

    Attributes:
        timestamp: the clock's time on entry, seconds.
        mode: the clock's mode.
        tick_size: the clock's tick size, seconds.
    """

    timestamp: float
    mode: ClockMode
    tick_size: float


class ClockTickEvent(Event, frozen=True, kw_only=True):
    """A tick was published.

    Only subscribers of ``tick_publication`` get it; it is not in ``clock.events``.

    Attributes:
        timestamp: the tick's, seconds.
        tick_counter: ticks published since the clock was entered.
        processors: the active processors.
    """

    timestamp: float
    tick_counter: int
    processors: list[TickProcessor | ProcessorSpec]


class ClockStopEvent(Event, frozen=True, kw_only=True):
    """A clock has shut down; published after all its processors have stopped.

    Attributes:
        timestamp: the last tick's, seconds.
        total_ticks: ticks published since the clock was entered.
        final_states: the last reported state of each processor.
    """

    timestamp: float
    total_ticks: int
    final_states: dict[TickProcessor | ProcessorSpec, ProcessorState]
