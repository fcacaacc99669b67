"""Tools for your tests: a clock that the test advances, events to wait for, and faults."""

from __future__ import annotations

from chronopype_mp.testing.faulty_launcher import FaultyLauncher
from chronopype_mp.testing.manual_clock import ManualClock
from chronopype_mp.testing.processor_runner import ProcessorTest, Transition
from chronopype_mp.testing.recorder import EventRecorder
from chronopype_mp.testing.wire import Wire

__all__ = ["EventRecorder", "FaultyLauncher", "ManualClock", "ProcessorTest", "Transition", "Wire"]
