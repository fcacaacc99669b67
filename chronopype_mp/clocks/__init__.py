"""What the user holds: clocks, their settings and events."""

from __future__ import annotations

from chronopype_mp.clocks.base import (
    BaseClock,
    ClockStartEvent,
    ClockStopEvent,
    ClockTickEvent,
    ProcessorStats,
)
from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.clocks.realtime import RealtimeClock

__all__ = [
    "CLOCK_REGISTRY",
    "BaseClock",
    "ClockMode",
    "ClockStartEvent",
    "ClockStopEvent",
    "ClockTickEvent",
    "ProcessorStats",
    "RealtimeClock",
    "get_clock_class",
]

CLOCK_REGISTRY: dict[ClockMode, type[BaseClock]] = {ClockMode.REALTIME: RealtimeClock}
"""The clock class of each mode."""


def get_clock_class(mode: ClockMode) -> type[BaseClock]:
    """Return the clock class of a mode.

    Raises:
        ValueError: no clock class is registered for ``mode``.
    """
    if mode not in CLOCK_REGISTRY:
        raise ValueError(f"No clock implementation for {mode!r}")
    return CLOCK_REGISTRY[mode]
