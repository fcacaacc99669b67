"""The runs of an entered clock, and the failures that end them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from chronopype_mp.coordinator.failures import ProcessorFailure
from chronopype_mp.coordinator.ticker import FreeRun, Run, Ticker
from chronopype_mp.exceptions import ClockError

__all__ = ["OnEnd", "Runs"]

T = TypeVar("T")

OnEnd = Callable[[BaseException | None], None]
"""Called in the ticker thread when a run is over, or with what went wrong."""

UNSUPERVISED = "The clock no longer supervises its workers; leave its context and enter it again."


class Runs:
    """One run at a time. A failure ends the run; without one, it waits for the next.

    Made in the event loop in which the clock is entered; its methods belong to that loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[BaseException | None] | None = None
        self._failure: asyncio.Future[ProcessorFailure] = self._loop.create_future()
        self._breakdown: asyncio.Future[BaseException] = self._loop.create_future()

    @property
    def is_running(self) -> bool:
        """Whether a run is in progress."""
        return self._over is not None

    async def run(self, ticker: Ticker, plan: Callable[[OnEnd], Run | FreeRun | None]) -> None:
        """Tick until the plan's end, until `end` or a failure, or until cancelled.

        Args:
            ticker: publishes the ticks.
            plan: returns what the ticker has to do; None for nothing.

        Raises:
            BaseException: what ended the run, or what had failed before it.
        """
        self._raise_breakdown()
        if self._failure.done():
            failure = self._failure.result()
            self._failure = self._loop.create_future()
            raise failure.error
        over: asyncio.Future[BaseException | None] = self._loop.create_future()

        def on_end(error: BaseException | None) -> None:
            self._loop.call_soon_threadsafe(_finish, over, error)

        stretch = plan(on_end)
        if stretch is None:
            return
        self._over = over
        try:
            ticker.begin(stretch)
            error = await over
        finally:
            ticker.end()
            self._over = None
        if error is not None:
            raise error

    def end(self, error: BaseException | None = None) -> bool:
        """End the run, with an error or without; return whether there was one to end."""
        return self._over is not None and _finish(self._over, error)

    def fail(self, failure: ProcessorFailure) -> None:
        """End the run with a failure; without a run, the next one raises the first of them."""
        if not self.end(failure.error):
            _finish(self._failure, failure)

    def break_down(self, error: BaseException) -> None:
        """End the run with an error of the machinery; every further run raises it, too."""
        if _finish(self._breakdown, error):
            error.add_note(UNSUPERVISED)
            self.end(error)

    async def wait_until(self, ready: Coroutine[Any, Any, None]) -> None:
        """Wait for ``ready`` before the first run; cancel it at the first failure.

        Raises:
            ClockError: a processor failed.
            BaseException: the machinery failed, or ``ready`` did.
        """
        waiting = asyncio.ensure_future(ready)
        ends: set[asyncio.Future[Any]] = {waiting, self._failure, self._breakdown}
        try:
            await asyncio.wait(ends, return_when="FIRST_COMPLETED")
        finally:
            waiting.cancel()
        self._raise_breakdown()
        if self._failure.done():
            failure = self._failure.result()
            raise ClockError(f"Failed to start processor {failure.worker!r}") from failure.error
        await waiting

    def _raise_breakdown(self) -> None:
        if self._breakdown.done():
            raise self._breakdown.result()


def _finish(future: asyncio.Future[T], result: T) -> bool:
    """Set a future's result unless it has one; return whether it had none."""
    if future.done():
        return False
    future.set_result(result)
    return True
