"""A clock with what tests want to know of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, WorkerHandle
from chronopype_mp.clocks.clock_events import ClockTickEvent
from chronopype_mp.testing import EventRecorder

T = TypeVar("T")

SCENARIO_TIMEOUT = 90.0
"""Seconds."""


class Watched:
    """A realtime clock, its events, and the timestamps that it published."""

    def __init__(self, tick_size: float = 0.05, **arguments: Any) -> None:
        settings = {
            name: arguments.pop(name)
            for name in ("max_retries", "processor_timeout", "on_error")
            if name in arguments
        }
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=tick_size, **settings)
        self.clock = RealtimeClock(config, **arguments)
        self.events = EventRecorder(self.clock.events)
        self.published: list[float] = []
        self.clock.add_subscriber_with_callback(
            self.clock.tick_publication, self._take, with_event_info=False
        )

    def _take(self, event: ClockTickEvent) -> None:
        self.published.append(event.timestamp)

    @property
    def tick_size(self) -> float:
        return self.clock.tick_size

    async def run_for(self, seconds: float) -> None:
        await self.clock.run_til(time.time() + seconds)

    async def ticks(self, count: int) -> None:
        """Wait until ``count`` more ticks have been published; a run must be going."""
        goal = len(self.published) + count
        arrived = asyncio.Event()

        def look(event: ClockTickEvent) -> None:
            if len(self.published) >= goal:
                arrived.set()

        publication = self.clock.tick_publication
        self.clock.add_subscriber_with_callback(publication, look, with_event_info=False)
        await arrived.wait()
        self.clock.remove_subscriber_with_callback(publication, look)


async def eventually(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Wait for what no event tells of, such as another process' file: look every 20 ms."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 – nothing tells
            await asyncio.sleep(0.02)


def closes(handle: WorkerHandle) -> bool:
    """Whether a worker's account closes; true only after its end."""
    s = handle.statistics()
    return s.published == s.run + s.missed + s.skipped + s.lost


def run(scenario: Coroutine[Any, Any, T], timeout: float = SCENARIO_TIMEOUT) -> T:
    """Run a scenario in an event loop of its own, bounded in time."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout):
            return await scenario

    return asyncio.run(bounded())
