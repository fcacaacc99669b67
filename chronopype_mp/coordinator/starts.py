"""How many workers start side by side."""

from __future__ import annotations

import asyncio
import os
from collections import deque

__all__ = ["Place", "Starts"]

PER_CORE = 8
"""Processes that start side by side: more would only wait for each other's imports."""

LONGEST = 1.0
"""Seconds after which a start that is still under way keeps the others waiting no longer."""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Place:
    """The right to start a process; given back once.

    Attributes:
        granted: done when the process may be started; its result is False if that is no longer
            wanted.
    """

    def __init__(self, starts: Starts) -> None:
        self._starts = starts
        self._timer: asyncio.TimerHandle | None = None
        self._left = False
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def take(self) -> None:
        """Grant it."""
        self._timer = asyncio.get_running_loop().call_later(LONGEST, self.leave)
        self.granted.set_result(True)

    def leave(self) -> None:
        """Give it back: the start is over, or nobody wants it any more."""
        if self._left:
            return
        self._left = True
        if self._timer is not None:
            self._timer.cancel()
            self._starts.left()
        elif not self.granted.done():
            self.granted.set_result(False)


class Starts:
    """Grants places, in the order in which they are asked for.

    Args:
        bound: places; None for a few per core.
    """

    def __init__(self, bound: int | None = None) -> None:
        self._free = PER_CORE * _cores() if bound is None else bound
        self._waiting: deque[Place] = deque()

    def ask(self) -> Place:
        """Return a place, which may be granted already."""
        place = Place(self)
        self._waiting.append(place)
        self._grant()
        return place

    def left(self) -> None:
        """Take a place back."""
        self._free += 1
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._free:
            place = self._waiting.popleft()
            if not place.granted.done():
                self._free -= 1
                place.take()
