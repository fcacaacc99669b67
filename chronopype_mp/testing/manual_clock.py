"""ManualClock, a time source that moves only when it is advanced."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any, TypeVar

__all__ = ["ManualClock"]

T = TypeVar("T")


class ManualClock:
    """A time source for tests. Pass it to a clock as ``timing=``, then `advance` it.

    The clock's ticks and supervision follow this time. Whatever processors await still takes real
    time.

    Args:
        wall: the initial wall-clock time, seconds.
        monotonic: the initial monotonic time, seconds.
    """

    def __init__(self, wall: float = 1_000_000.0, monotonic: float = 1000.0) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._moved = threading.Condition()
        self._waiting: list[queue.Queue[Any]] = []
        self._sleepers: list[tuple[float, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """Return the monotonic time, seconds."""
        with self._moved:
            return self._monotonic

    def wall(self) -> float:
        """Return the wall-clock time, seconds."""
        with self._moved:
            return self._wall

    def set_wall(self, wall: float) -> None:
        """Set the wall clock, as an administrator might. The monotonic clock is unaffected."""
        with self._moved:
            self._wall = wall

    def advance(self, seconds: float) -> None:
        """Advance both clocks, and wake everything whose deadline has passed.

        One long step fires one tick and skips the others, like a machine that was asleep. To get
        every tick, advance by one tick size at a time and wait for the tick.

        Args:
            seconds: how far to advance, at least 0.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds = {seconds!r}: must not be negative")
        with self._moved:
            self._monotonic += seconds
            self._wall += seconds
            now = self._monotonic
            waiting, self._waiting = self._waiting, []
            due = [sleeper for sleeper in self._sleepers if sleeper[0] <= now]
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > now]
        for items in waiting:
            items.put(None)
        for _, loop, future in due:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_finish, future)

    def get(self, items: queue.Queue[T], deadline: float | None) -> T | None:
        """Block this thread until an item arrives or the deadline passes; see `TimeSource`."""
        while True:
            with self._moved:
                try:
                    item = items.get_nowait()
                except queue.Empty:
                    if deadline is not None and self._monotonic >= deadline:
                        return None
                    self._waiting.append(items)
                else:
                    if item is not None:
                        return item
                    continue
            item = items.get()
            with self._moved:
                if items in self._waiting:
                    self._waiting.remove(items)
            if item is not None:
                return item

    async def sleep_until(self, deadline: float) -> None:
        """Return once the monotonic clock has been advanced to ``deadline``."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._moved:
            if self._monotonic >= deadline:
                return
            self._sleepers.append((deadline, loop, future))
        await future


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
