"""A clock that ticks processors over ZeroMQ, each in its own worker process.

Public names are loaded on first use, because every worker imports this package and needs only a
part of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chronopype_mp.clocks import (
        BaseClock,
        ClockMode,
        ClockStartEvent,
        ClockStopEvent,
        ClockTickEvent,
        ProcessorStats,
        RealtimeClock,
    )
    from chronopype_mp.clocks.config import ClockConfig
    from chronopype_mp.coordinator.handle import WorkerHandle
    from chronopype_mp.core.backoff import BackoffPolicy
    from chronopype_mp.core.limits import Limits
    from chronopype_mp.core.outputs import Output, OutputPolicy
    from chronopype_mp.core.policy import GroupStrategy, RestartType, Supervision
    from chronopype_mp.core.resources import Resources
    from chronopype_mp.core.restart import RestartBudget
    from chronopype_mp.core.worker_events import WorkerStatus
    from chronopype_mp.core.worker_statistics import WorkerStatistics
    from chronopype_mp.exceptions import (
        AttributeNotSetError,
        CallError,
        CallLostError,
        CallTimeoutError,
        CallTooLargeError,
        CallValueError,
        ClockContextError,
        ClockError,
        ClockRuntimeError,
        ConfigError,
        FleetError,
        HookError,
        MessageError,
        NotRemoteError,
        OutputError,
        OutputsFull,
        PermanentFailure,
        ProcessorError,
        ProcessorTimeoutError,
        RemoteError,
        RetryAfter,
        SnapshotError,
        TransferError,
        TransportError,
        WorkerError,
        WorkerUnavailableError,
    )
    from chronopype_mp.launchers.frozen import freeze_support
    from chronopype_mp.processors import (
        NetworkProcessor,
        NetworkStatus,
        ProcessorSpec,
        ProcessorState,
        StartWhen,
        TickProcessor,
        remote,
    )
    from chronopype_mp.version import __version__

_HOMES = {
    "chronopype_mp.clocks": (
        "BaseClock",
        "ClockMode",
        "ClockStartEvent",
        "ClockStopEvent",
        "ClockTickEvent",
        "ProcessorStats",
        "RealtimeClock",
    ),
    "chronopype_mp.clocks.config": ("ClockConfig",),
    "chronopype_mp.coordinator.handle": ("WorkerHandle",),
    "chronopype_mp.core.backoff": ("BackoffPolicy",),
    "chronopype_mp.core.worker_events": ("WorkerStatus",),
    "chronopype_mp.core.worker_statistics": ("WorkerStatistics",),
    "chronopype_mp.core.limits": ("Limits",),
    "chronopype_mp.core.outputs": ("Output", "OutputPolicy"),
    "chronopype_mp.core.policy": ("GroupStrategy", "RestartType", "Supervision"),
    "chronopype_mp.core.resources": ("Resources",),
    "chronopype_mp.core.restart": ("RestartBudget",),
    "chronopype_mp.exceptions": (
        "CallError",
        "CallLostError",
        "CallTimeoutError",
        "CallTooLargeError",
        "CallValueError",
        "AttributeNotSetError",
        "ClockContextError",
        "ClockError",
        "ClockRuntimeError",
        "ConfigError",
        "FleetError",
        "HookError",
        "MessageError",
        "NotRemoteError",
        "OutputError",
        "OutputsFull",
        "PermanentFailure",
        "ProcessorError",
        "ProcessorTimeoutError",
        "RemoteError",
        "RetryAfter",
        "SnapshotError",
        "TransferError",
        "TransportError",
        "WorkerError",
        "WorkerUnavailableError",
    ),
    "chronopype_mp.launchers.frozen": ("freeze_support",),
    "chronopype_mp.processors": (
        "NetworkProcessor",
        "NetworkStatus",
        "ProcessorSpec",
        "ProcessorState",
        "StartWhen",
        "TickProcessor",
        "remote",
    ),
    "chronopype_mp.version": ("__version__",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AttributeNotSetError",
    "BackoffPolicy",
    "BaseClock",
    "CallError",
    "CallLostError",
    "CallTimeoutError",
    "CallTooLargeError",
    "CallValueError",
    "ClockConfig",
    "ClockContextError",
    "ClockError",
    "ClockMode",
    "ClockRuntimeError",
    "ClockStartEvent",
    "ClockStopEvent",
    "ClockTickEvent",
    "ConfigError",
    "FleetError",
    "GroupStrategy",
    "HookError",
    "Limits",
    "MessageError",
    "NetworkProcessor",
    "NetworkStatus",
    "NotRemoteError",
    "Output",
    "OutputError",
    "OutputPolicy",
    "OutputsFull",
    "PermanentFailure",
    "ProcessorError",
    "ProcessorSpec",
    "ProcessorState",
    "ProcessorStats",
    "ProcessorTimeoutError",
    "RealtimeClock",
    "RemoteError",
    "Resources",
    "RestartBudget",
    "RestartType",
    "RetryAfter",
    "SnapshotError",
    "StartWhen",
    "Supervision",
    "TickProcessor",
    "TransferError",
    "TransportError",
    "WorkerError",
    "WorkerHandle",
    "WorkerStatistics",
    "WorkerStatus",
    "WorkerUnavailableError",
    "__version__",
    "freeze_support",
    "remote",
]


# A reload looks the version up again, as in chronopype.
globals().pop("__version__", None)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
