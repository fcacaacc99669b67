"""Tools for your tests: a clock that the test advances, events to wait for, and faults."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chronopype_mp.testing.faulty_launcher import FaultyLauncher
    from chronopype_mp.testing.manual_clock import ManualClock
    from chronopype_mp.testing.recorder import EventRecorder
    from chronopype_mp.testing.wire import Wire

__all__ = ["EventRecorder", "FaultyLauncher", "ManualClock", "Wire"]

# Every worker loads `chronopype_mp.testing.inflict`, and shall not load the coordinator with it.
_HOMES = {
    "EventRecorder": "recorder",
    "FaultyLauncher": "faulty_launcher",
    "ManualClock": "manual_clock",
    "Wire": "wire",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
