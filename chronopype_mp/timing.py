"""The only module that reads time. `tests/test_time_is_read_in_timing.py` checks that.

A clock and its coordinator are given a `TimeSource`, whose twin for tests is
`chronopype_mp.testing.ManualClock`. Other code calls the functions of this module. Most are the
standard library's own functions, because every tick calls one of them twice.
"""

from __future__ import annotations

import asyncio
import queue
import time
from typing import Protocol, TypeVar

__all__ = [
    "SYSTEM_TIME",
    "SystemTime",
    "TimeSource",
    "cpu_time",
    "loop_time",
    "monotonic",
    "monotonic_ns",
    "sleep",
    "wall",
]

T = TypeVar("T")

LONGEST_WAIT = 3600.0
"""Seconds; a thread that waits longer than this checks the clock in between."""

monotonic = time.monotonic
"""Return seconds on the monotonic clock, which cannot be set."""

monotonic_ns = time.monotonic_ns
"""Return nanoseconds on the monotonic clock."""

wall = time.time
"""Return seconds since the epoch."""

cpu_time = time.process_time
"""Return the CPU time used by this process, seconds."""

sleep = time.sleep
"""Block this thread for a number of seconds."""


def loop_time() -> float:
    """Return seconds on the clock of the running event loop.

    Raises:
        RuntimeError: no event loop is running.
    """
    return asyncio.get_running_loop().time()


class TimeSource(Protocol):
    """The clocks, and two ways to wait: in a thread and in an event loop."""

    def monotonic(self) -> float:
        """Return seconds on the monotonic clock, which cannot be set."""
        ...

    def wall(self) -> float:
        """Return seconds since the epoch."""
        ...

    def get(self, items: queue.Queue[T], deadline: float | None) -> T | None:
        """Block this thread until there is an item; return it, or None at the deadline.

        Args:
            items: the queue; any thread may fill it.
            deadline: on the monotonic clock, seconds; None for no deadline.
        """
        ...

    async def sleep_until(self, deadline: float) -> None:
        """Return at ``deadline`` on the monotonic clock, seconds. It may be cancelled."""
        ...


class SystemTime:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Return `time.monotonic`."""
        return monotonic()

    def wall(self) -> float:
        """Return `time.time`."""
        return wall()

    def get(self, items: queue.Queue[T], deadline: float | None) -> T | None:
        """Block on the queue's lock, whose resolution is microseconds.

        A SimpleQueue cannot be used: if a signal, or SIGSTOP and SIGCONT, interrupts its ``get``
        when the timeout is already over, it waits for ever (CPython 3.11).
        """
        while True:
            wait = LONGEST_WAIT if deadline is None else deadline - monotonic()
            try:
                if wait <= 0:
                    return items.get_nowait()
                return items.get(timeout=min(wait, LONGEST_WAIT))
            except queue.Empty:
                if deadline is not None and monotonic() >= deadline:
                    return None

    async def sleep_until(self, deadline: float) -> None:
        """Sleep in the running event loop."""
        await asyncio.sleep(max(0.0, deadline - monotonic()))


SYSTEM_TIME = SystemTime()
