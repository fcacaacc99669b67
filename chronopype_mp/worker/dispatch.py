"""From a tick that has arrived to the processor's hook, and the account of every tick.

One tick runs at a time. A tick that arrives while another waits replaces it: the newest wins, the
other counts as missed. Of a batch of ticks only the newest is decoded; sequence numbers tell how
many there were.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable

from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.messages import Tick
from chronopype_mp.core.state import TickAccount, TickRecorder
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.worker.failures import message_of

__all__ = ["FIRST_RETRY_PAUSE", "TickDispatcher"]

FIRST_RETRY_PAUSE = 0.1
"""Seconds before the first retry of a tick; each further pause is twice as long (chronopype)."""


class TickDispatcher:
    """Executes ticks on one processor.

    Args:
        processor: whose ``async_tick`` to call.
        rules: timeout and retries.
        recorder: counts what happens.
        on_failure: called with the exception, its printed traceback, the tick's timestamp and
            whether it was the timeout, when a tick has failed for good.
    """

    def __init__(
        self,
        processor: TickProcessor,
        rules: TickRules,
        recorder: TickRecorder,
        on_failure: Callable[[Exception, str, float, bool], None],
    ) -> None:
        self._processor = processor
        self._rules = rules
        self._recorder = recorder
        self._on_failure = on_failure
        self._base = 0
        self._run = 0
        self._missed = 0
        self._skipped = 0
        self._last_seen = 0
        self._pending: Tick | None = None
        self._idle = True
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._before: float | None = None
        self.largest_gap = 0.0
        self.paused = False
        self.attempt_started: float | None = None

    @property
    def account(self) -> TickAccount:
        """What became of the ticks so far; the one waiting or running is not in it yet."""
        return TickAccount(self._base, self._run, self._missed, self._skipped)

    def open(self, base: int) -> None:
        """Begin the account after tick ``base``."""
        self._base = self._last_seen = base

    def offer(self, tick: Tick) -> None:
        """Take the newest tick; the numbers between it and the last one seen are accounted for."""
        new = tick.seq - self._last_seen
        if new <= 0:
            return
        self._last_seen = tick.seq
        if not self._wanted:
            self._skipped += new
            self._before = None
            return
        self._missed += new - 1
        if self._pending is not None:
            self._missed += 1
        self._pending = tick
        self._settled.clear()
        self._wake.set()

    def close(self, seq: int) -> None:
        """Account for what was published up to ``seq`` and has not arrived."""
        if seq > self._last_seen:
            self._missed += seq - self._last_seen
            self._last_seen = seq

    def pause(self) -> None:
        """Let no tick through until `resume`; one that waits is skipped."""
        self.paused = True
        self._skip_pending()

    def resume(self) -> None:
        """Let ticks through again."""
        self.paused = False

    def drop_pending(self) -> None:
        """Count a tick that waits as missed: there is no time left to run it."""
        if self._pending is not None:
            self._pending = None
            self._missed += 1

    async def settle(self) -> None:
        """Wait until no tick waits or runs."""
        await self._settled.wait()

    async def run(self) -> None:
        """Execute ticks until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (tick := self._pending) is not None:
                if not self._wanted:
                    self._skip_pending()
                    break
                self._pending = None
                if self._before is not None:
                    self.largest_gap = max(self.largest_gap, tick.timestamp - self._before)
                self._before = tick.timestamp
                await self._execute(tick)
                self._run += 1
            self._settled.set()

    @property
    def _wanted(self) -> bool:
        return not self.paused and self._processor._wants_ticks

    def _skip_pending(self) -> None:
        if self._pending is not None:
            self._pending = None
            self._skipped += 1
            self._before = None

    async def _execute(self, tick: Tick) -> None:
        attempts = self._rules.max_retries + 1
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(FIRST_RETRY_PAUSE * 2 ** (attempt - 1))
            outcome = await self._attempt(tick.timestamp, attempt)
            if outcome is None:
                return
            failure, printed, timeout = outcome
        self._recorder.failed(tick.timestamp, message_of(failure), attempts)
        self._on_failure(failure, printed, tick.timestamp, timeout)

    async def _attempt(self, timestamp: float, retries: int) -> tuple[Exception, str, bool] | None:
        """Run the hook once; return its exception, printed, and whether it is the timeout's."""
        limit = asyncio.timeout(self._rules.processor_timeout)
        began = time.monotonic()
        self.attempt_started = began
        try:
            async with limit:
                await self._processor.async_tick(timestamp)
        except Exception as error:
            printed = traceback.format_exc()
            if isinstance(error, TimeoutError) and limit.expired():
                message = f"timed out after {self._rules.processor_timeout}s"
                return TimeoutError(message), printed, True
            return error, printed, False
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # The processor awaited something that was cancelled; the tick failed, no more.
            return (
                RuntimeError(f"the tick was cancelled from within: {error!r}"),
                (traceback.format_exc()),
                False,
            )
        finally:
            self.attempt_started = None
        self._recorder.succeeded(timestamp, time.monotonic() - began, retries, time.time())
        return None
