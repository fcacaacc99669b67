"""A processor that notes what is called."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chronopype_mp.processors import TickProcessor

__all__ = ["Noted"]


class Noted(TickProcessor):
    """Notes its hooks, in the order in which they are called.

    The notes are no attributes that come home: a test with the inline launcher compares those of
    several incarnations.

    Attributes:
        notes: their names.
        calls: their names and the timestamps that they are given, such as ``"tick 10"``.
        ticks: the timestamps of its ticks, seconds.
        behave: awaited in each tick, with the timestamp; None for nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._notes: list[str] = []
        self._calls: list[str] = []
        self._ticks: list[float] = []
        self.behave: Callable[[float], Awaitable[object]] | None = None

    @property
    def notes(self) -> list[str]:
        return self._notes

    @property
    def calls(self) -> list[str]:
        return self._calls

    @property
    def ticks(self) -> list[float]:
        return self._ticks

    def note(self, hook: str, *timestamps: float) -> None:
        """Note a hook."""
        self.notes.append(hook)
        self.calls.append(" ".join([hook, *(f"{timestamp:g}" for timestamp in timestamps)]))

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.note("start", timestamp)

    async def async_tick(self, timestamp: float) -> None:
        self.ticks.append(timestamp)
        self.note("tick", timestamp)
        if self.behave is not None:
            await self.behave(timestamp)

    def pause(self) -> None:
        self.note("pause")

    def resume(self) -> None:
        self.note("resume")

    def stop(self) -> None:
        super().stop()
        self.note("stop")

    async def await_cleanup(self) -> None:
        await asyncio.sleep(0)  # yields; it waits for nothing
        self.note("await_cleanup")
