"""The one place where time enters. `chronopype_mp.testing.ManualClock` is the twin for tests."""

from __future__ import annotations

import asyncio
import queue
import time
from typing import Protocol, TypeVar

__all__ = ["SYSTEM_TIME", "SystemTime", "TimeSource"]

T = TypeVar("T")

LONGEST_WAIT = 3600.0
"""Seconds; a thread that waits for longer looks at the clock again in between."""


class TimeSource(Protocol):
    """Clocks, and the two ways of waiting for one: in a thread and in an event loop."""

    def monotonic(self) -> float:
        """Return seconds on a clock that nobody can set."""
        ...

    def wall(self) -> float:
        """Return seconds since the epoch."""
        ...

    def get(self, items: queue.Queue[T], deadline: float | None) -> T | None:
        """Block this thread until an item is there, and return it, or None at the deadline.

        Args:
            items: where items arrive, from any thread.
            deadline: on the monotonic clock; None for none.
        """
        ...

    async def sleep_until(self, deadline: float) -> None:
        """Return at ``deadline`` on the monotonic clock. Cancelling it has no further effect."""
        ...


class SystemTime:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Return `time.monotonic`."""
        return time.monotonic()

    def wall(self) -> float:
        """Return `time.time`."""
        return time.time()

    def get(self, items: queue.Queue[T], deadline: float | None) -> T | None:
        """Block on the queue's own lock, whose resolution is microseconds.

        A SimpleQueue would not do: where a signal, or SIGSTOP and SIGCONT, interrupts its ``get``
        and the timeout is over by then, it waits for ever (CPython 3.11).
        """
        while True:
            wait = LONGEST_WAIT if deadline is None else deadline - time.monotonic()
            try:
                if wait <= 0:
                    return items.get_nowait()
                return items.get(timeout=min(wait, LONGEST_WAIT))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    return None

    async def sleep_until(self, deadline: float) -> None:
        """Sleep in the running event loop."""
        await asyncio.sleep(max(0.0, deadline - time.monotonic()))


SYSTEM_TIME = SystemTime()
