"""The events of ``clock.events``, for `isinstance` and for subscriptions."""

from __future__ import annotations

from chronopype_mp.clocks.clock_events import ClockStartEvent, ClockStopEvent, ClockTickEvent
from chronopype_mp.core.worker_events import (
    DeathReason,
    Event,
    FramesDropped,
    NetworkChanged,
    ProcessorFailed,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
    WorkerStatus,
    WorkerStopped,
    WorkerStopping,
    WorkerUnkillable,
)

__all__ = [
    "ClockStartEvent",
    "ClockStopEvent",
    "ClockTickEvent",
    "DeathReason",
    "Event",
    "FramesDropped",
    "NetworkChanged",
    "ProcessorFailed",
    "WorkerBackingOff",
    "WorkerDied",
    "WorkerQuarantined",
    "WorkerReady",
    "WorkerStarting",
    "WorkerStatus",
    "WorkerStopped",
    "WorkerStopping",
    "WorkerUnkillable",
]
