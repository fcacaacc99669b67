"""Tools for testing your processors: a clock that the test advances, and events to wait for."""

from __future__ import annotations

from chronopype_mp.testing.manual_clock import ManualClock
from chronopype_mp.testing.recorder import EventRecorder
from chronopype_mp.testing.wire import Wire

__all__ = ["EventRecorder", "ManualClock", "Wire"]
