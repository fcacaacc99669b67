"""Running a scenario in an event loop: bounded in time, and nothing goes wrong unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Noticeboard", "run", "turns"]

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
