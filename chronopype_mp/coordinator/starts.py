"""Limits how many workers start at the same time."""

from __future__ import annotations

import asyncio
import os
from collections import deque

__all__ = ["Place", "Starts"]

PER_CORE = 8
"""Concurrent starts per core. More would only wait for each other's imports."""

LONGEST_START = 1.0
"""Seconds after which an unfinished start no longer delays the others."""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Place:
    """The permission to start one process. It is given back once.

    Attributes:
        granted: done when the process may be started. The result is False if the place was given
            back before it was granted.
    """

    def __init__(self, starts: Starts) -> None:
        self._starts = starts
        self._timer: asyncio.TimerHandle | None = None
        self._left = False
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def grant(self) -> None:
        """Grant the place."""
        self._timer = asyncio.get_running_loop().call_later(LONGEST_START, self.leave)
        self.granted.set_result(True)

    def leave(self) -> None:
        """Give the place back, because the start is over or no longer wanted."""
        if self._left:
            return
        self._left = True
        if self._timer is not None:
            self._timer.cancel()
            self._starts.left()
        elif not self.granted.done():
            self.granted.set_result(False)


class Starts:
    """Grants places in the order of the requests.

    Args:
        bound: the number of places; None for `PER_CORE` per core.
    """

    def __init__(self, bound: int | None = None) -> None:
        self._free = PER_CORE * _cores() if bound is None else bound
        self._waiting: deque[Place] = deque()

    def ask(self) -> Place:
        """Request a place. It may be granted already when this returns."""
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
                place.grant()
