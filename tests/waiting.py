"""Running a scenario in an event loop: bounded in time, and nothing goes wrong unseen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from chronopype_mp.clocks.base import BaseClock

__all__ = ["Noticeboard", "run", "running", "turns"]

T = TypeVar("T")

BOUND = 15.0
"""Seconds after which a scenario counts as hung; far more than any of them needs."""


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario; fail if it hangs, or if the loop had to report an error that nobody saw."""
    unseen: list[dict[str, Any]] = []

    async def bounded() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(BOUND):
            return await scenario

    result = asyncio.run(bounded())
    assert not unseen
    return result


async def turns(count: int = 20) -> None:
    """Let everything that is ready run, chains of a few callbacks included; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)  # yields; it waits for nothing


@contextlib.asynccontextmanager
async def running(clock: BaseClock) -> AsyncIterator[asyncio.Task[None]]:
    """Run a clock in a task, which is cancelled at the exit."""
    task = asyncio.create_task(clock.run())
    await asyncio.sleep(0)  # yields, so that the run begins
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


class Noticeboard:
    """Wakes whoever waits for a condition when something may have changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Say that something may have changed; in the loop's thread."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is looked at after every notice."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()
