"""A clock's own events."""

from __future__ import annotations

from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.core.events import Event
from chronopype_mp.processors import ProcessorSpec, ProcessorState, TickProcessor

__all__ = ["ClockStartEvent", "ClockStopEvent", "ClockTickEvent"]


class ClockStartEvent(Event, frozen=True, kw_only=True):
    """A clock was entered; comes before its processors start. ``timestamp`` is the clock's."""

    timestamp: float
    mode: ClockMode
    tick_size: float


class ClockTickEvent(Event, frozen=True, kw_only=True):
    """A tick was published.

    Only for subscribers of ``tick_publication``; it is not in ``clock.events``.

    Attributes:
        timestamp: the tick's.
        tick_counter: ticks published since the clock was entered.
        processors: those that are active.
    """

    timestamp: float
    tick_counter: int
    processors: list[TickProcessor | ProcessorSpec]


class ClockStopEvent(Event, frozen=True, kw_only=True):
    """A clock has shut down; comes after all its processors have stopped.

    Attributes:
        timestamp: of the last tick.
        total_ticks: ticks published since the clock was entered.
        final_states: by processor, as last reported.
    """

    timestamp: float
    total_ticks: int
    final_states: dict[TickProcessor | ProcessorSpec, ProcessorState]
