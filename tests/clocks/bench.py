"""A clock on time that the test moves, and processors that note what is done to them."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from contextlib import AbstractAsyncContextManager
from typing import Any

from chronopype_mp.clocks import ClockMode, ClockTickEvent, RealtimeClock
from chronopype_mp.clocks.config import ClockConfig
from chronopype_mp.clocks.registry import Member
from chronopype_mp.core.policy import Supervision
from chronopype_mp.processors import NetworkProcessor, NetworkStatus, ProcessorState, TickProcessor
from chronopype_mp.testing import EventRecorder, ManualClock
from tests.noted import Noted
from tests.waiting import Noticeboard, running

__all__ = ["WALL", "Bench", "Network", "Scribe", "alive"]

WALL = 1_000_000.0
"""What the wall clock shows on entry; a boundary of most tick sizes."""

_boards: weakref.WeakSet[Noticeboard] = weakref.WeakSet()
_started: list[TickProcessor] = []


def alive(name: str | None = None) -> list[Any]:
    """Return the processors that have started in this bench, incarnations in order."""
    return [one for one in _started if name is None or getattr(one, "name", None) == name]


def _notify() -> None:
    for board in _boards:
        board.notify()


class Scribe(Noted):
    """Notes what is called; hooks named in ``fails`` raise."""

    def __init__(self, name: str = "scribe", fails: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.name = name
        self.fails = fails
        self.failure: BaseException | None = None

    def note(self, hook: str, *timestamps: float) -> None:
        super().note(hook, *timestamps)
        if hook == "start":
            _started.append(self)
        _notify()
        if hook in self.fails:
            self.failure = ValueError(f"{hook} of {self.name}")
            raise self.failure


class Network(NetworkProcessor):
    """Is what ``answer`` says."""

    def __init__(self, name: str = "network") -> None:
        super().__init__()
        self.name = name
        self.answer = NetworkStatus.CONNECTED
        self.ticks: list[float] = []

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.clocks")

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        _started.append(self)

    async def check_network(self) -> NetworkStatus:
        _notify()
        return self.answer

    def tick(self, timestamp: float) -> None:
        self.ticks.append(timestamp)
        _notify()


class Bench:
    """A `RealtimeClock` with inline workers, and records of what it does.

    Attributes:
        time: moves when the test says so.
        clock: ticks every second by default.
        events: all of ``clock.events``.
        ticks: the events of ``tick_publication``.
        failed: the calls of the error callback.
    """

    def __init__(
        self, *, wall: float = WALL, supervision: Supervision | None = None, **config: Any
    ) -> None:
        _started.clear()
        _boards.clear()
        self._board = Noticeboard()
        _boards.add(self._board)
        self.time = ManualClock(wall)
        self.failed: list[tuple[Member, BaseException]] = []
        self.clock = RealtimeClock(
            ClockConfig(clock_mode=ClockMode.REALTIME, **{"max_retries": 0, **config}),
            lambda processor, error: self.failed.append((processor, error)),
            launcher="inline",
            supervision=supervision,
            timing=self.time,
        )
        self.events = EventRecorder(self.clock.events)
        self.ticks: list[ClockTickEvent] = []
        self.until = self._board.until
        self.clock.events.subscribe(lambda event: _notify())
        self.clock.add_subscriber_with_callback(
            self.clock.tick_publication, self.ticked, with_event_info=False
        )

    def ticked(self, event: ClockTickEvent) -> None:
        self.ticks.append(event)
        _notify()

    @property
    def timestamps(self) -> list[float]:
        return [tick.timestamp for tick in self.ticks]

    @property
    def kinds(self) -> list[str]:
        """The names of all events so far."""
        return [type(event).__name__ for event in self.events.events]

    async def ready(self) -> None:
        """Wait until all workers are READY."""
        for handle in self.clock.workers:
            await handle.wait_ready()

    async def tick(self, count: int = 1) -> None:
        """Move time by one tick after another, and see each of them published."""
        for _ in range(count):
            told = len(self.ticks)
            self.time.advance(self.clock.tick_size)
            await self.until(lambda told=told: len(self.ticks) > told)  # type: ignore[misc]

    def block_until_ticked(self, count: int) -> None:
        """Keep the loop from turning until ``count`` ticks, and an end after them, have fired."""
        assert self.clock._coordinator is not None
        until = time.monotonic() + 10.0
        while self.clock.tick_counter < count:
            assert time.monotonic() < until
            time.sleep(0)  # gives the ticker thread its turn
        # What is due comes before what is asked for.
        self.clock._coordinator.ticker.end()

    def running(self) -> AbstractAsyncContextManager[asyncio.Task[None]]:
        """Run the clock in a task, which is cancelled at the exit."""
        return running(self.clock)

    def state(self, processor: Member) -> ProcessorState:
        """Return what the clock knows of a processor."""
        state = self.clock.get_processor_state(processor)
        assert state is not None
        return state
