"""Runs the processor's hook for the ticks that arrive, and accounts for every tick.

One tick runs at a time. A tick that arrives while another waits replaces it: the newest wins, and
the other counts as missed. (In modes where every tick runs, it waits its turn.) Sequence numbers
show how many ticks there were, so ticks that will not run need not be decoded.

A failed tick is tried again after a pause, as long as ticks are let through at all: not while the
processor is paused, not connected or stopping. A `RetryAfter` or `PermanentFailure` of a network
processor's tick decides about the connection, so that tick is not tried again.

A processor without an ``async_tick`` of its own is ticked where the tick arrives, without a task
switch. An ``async_tick`` runs in the dispatcher's one task. A timer for its timeout is only created
once it suspends.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextvars import Context
from typing import Any, NamedTuple, ParamSpec, TypeVar

from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.error_text import message_of, traceback_of
from chronopype_mp.core.state import TickAccount, TickRecorder
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.network import NetworkProcessor
from chronopype_mp.processors.network_loop import says_when
from chronopype_mp.timing import monotonic_ns

__all__ = ["FIRST_RETRY_PAUSE", "TickDispatcher"]

FIRST_RETRY_PAUSE = 0.1
"""Seconds before the first retry of a tick; each further pause doubles (as in chronopype)."""

P = ParamSpec("P")
R = TypeVar("R")


class _Failed(NamedTuple):
    """A failed attempt: its exception, the traceback as text, and whether it timed out."""

    error: Exception
    printed: str
    timeout: bool = False


class _Begun:
    """The rest of an awaitable that has already suspended once. It runs in a context.

    Attributes:
        longest_step: the longest time between two suspensions, nanoseconds.
    """

    def __init__(
        self, steps: Generator[Any, Any, Any], waits_for: object, context: Context | None
    ) -> None:
        self._steps = steps
        self._waits_for = waits_for
        self._context = context
        self.longest_step = 0

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    _in(self._context, self._steps.close)
                    raise
                except BaseException as error:
                    waits_for = self._timed(self._steps.throw, error)
                else:
                    waits_for = self._timed(self._steps.send, sent)
        except StopIteration:
            return

    def _timed(self, step: Callable[[Any], Any], value: object) -> Any:
        began = monotonic_ns()
        try:
            return _in(self._context, step, value)
        finally:
            self.longest_step = max(self.longest_step, monotonic_ns() - began)


class TickDispatcher:
    """Executes ticks on one processor.

    Args:
        processor: whose ``tick`` or ``async_tick`` to call.
        rules: timeout and retries.
        recorder: counts the ticks and their durations.
        on_failure: called when the last attempt of a tick has failed, or ``wants_ticks``, with the
            exception, its traceback as text, the tick's timestamp, and whether it timed out.
        on_settled: called when no more ticks wait for the task.
        on_blocked: called after each tick that kept the event loop from turning for longer than
            ``rules.tick_size``, with the hook's name, the longest such time in nanoseconds, and
            how many ticks ended before. Not called if ``tick_size`` is 0.0.

    Attributes:
        largest_gap: the largest difference between the timestamps of consecutive ticks, seconds.
        paused: whether ticks are skipped.
        attempt_started: when a suspended ``async_tick`` began, monotonic seconds; else None.
    """

    def __init__(
        self,
        processor: TickProcessor,
        rules: TickRules,
        recorder: TickRecorder,
        on_failure: Callable[[BaseException, str, float, bool], None],
        on_settled: Callable[[], None] = lambda: None,
        on_blocked: Callable[[str, int, int], None] = lambda hook, nanoseconds, ended: None,
    ) -> None:
        self._processor = processor
        self._on_settled = on_settled
        self._on_blocked = on_blocked
        self._blocks_after = rules.tick_size * 1e9 or math.inf
        self._plain = self._has_plain_tick()
        self._choosy = type(processor).wants_ticks is not TickProcessor.wants_ticks
        self._timeout = rules.processor_timeout
        self._attempts = rules.max_retries + 1
        self._every = rules.every_tick
        self._recorder = recorder
        self._on_failure = on_failure
        self._base = 0
        self._run = 0
        self._missed = 0
        self._skipped = 0
        self._last_seen = 0
        self._pending: deque[float] = deque()
        self._between: deque[Callable[[], Awaitable[None]]] = deque()
        self._failed: tuple[float, _Failed | BaseException] | None = None
        self._busy = False
        self._closed = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._before: float | None = None
        self.largest_gap = 0.0
        self.paused = False
        self._undecided: BaseException | None = None
        self.attempt_started: float | None = None

    @property
    def account(self) -> TickAccount:
        """The account so far, without ticks that wait or run."""
        return TickAccount(self._base, self._run, self._missed, self._skipped)

    @property
    def through(self) -> int:
        """The sequence number of the last tick in the account."""
        return self.account.through

    def open(self, base: int) -> None:
        """Open the account after tick ``base``."""
        self._base = self._last_seen = base
        self._plain = self._has_plain_tick()

    def _has_plain_tick(self) -> bool:
        """Whether ``async_tick`` is not overridden; a processor may assign one in its start."""
        hook = getattr(self._processor.async_tick, "__func__", None)
        return hook is TickProcessor.async_tick

    def offer(self, seq: int, timestamps: Sequence[float]) -> None:
        """Take ticks, and account for those between the last one seen and these.

        Args:
            seq: the number of the first; the numbers of the others follow it.
            timestamps: of each, seconds. Where not every tick runs, the newest one is enough.
        """
        missing = seq - self._last_seen - 1
        if missing < 0:
            timestamps = timestamps[-missing:]
        if not timestamps:
            return
        self._last_seen = max(self._last_seen, seq - 1) + len(timestamps)
        if missing > 0 and self._lets_through:
            self._missed += missing
        elif missing > 0:
            self._skipped += missing
        first = 0
        while first < len(timestamps):
            if self._plain and not self._busy and self._lets_through:
                rest = timestamps[first:] if first else timestamps
                context, tick = self._processor._tick_context, self._processor.tick
                if context is None:
                    first += self._run_here(tick, rest)
                else:
                    first += context.run(self._run_here, tick, rest)
            else:
                self._put_off(timestamps[first])
                first += 1
        if self._undecided is not None:
            error, self._undecided = self._undecided, None
            self._on_failure(error, traceback_of(error), timestamps[-1], False)

    def _put_off(self, timestamp: float) -> None:
        """Let a tick wait for the task, or skip it."""
        if not self._lets_through:
            self._skipped += 1
            self._before = None
            return
        if self._pending and not self._every:
            self._pending.clear()
            self._missed += 1
        self._pending.append(timestamp)
        self._wake_up()

    @property
    def _lets_through(self) -> bool:
        if self.paused or not self._choosy:
            return not self.paused
        try:
            return self._processor.wants_ticks
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # a user may override it
            self._undecided = error
            return False

    def close(self, seq: int) -> None:
        """Account for ticks up to ``seq`` that have not arrived; try no failed tick again.

        What was to run between ticks and has not begun is dropped.
        """
        self._closed = True
        self._between.clear()
        if seq > self._last_seen:
            self._missed += seq - self._last_seen
            self._last_seen = seq

    def pause(self) -> None:
        """Skip ticks until `resume`, including those that wait."""
        self.paused = True
        self._skip_pending()

    def resume(self) -> None:
        """Run ticks again."""
        self.paused = False

    def drop_pending(self) -> None:
        """Count the ticks that wait as missed, because no time is left to run them."""
        self._missed += len(self._pending)
        self._pending.clear()

    @property
    def has_waiting(self) -> bool:
        """Whether a tick waits for what runs in the task."""
        return bool(self._pending)

    def run_between(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something in the task while no tick runs, also when ticks are held back.

        It comes after a tick under way, with its retries, and after the one that waits. Plain ticks
        that arrive meanwhile wait, too.

        Args:
            work: what to call and await; what it raises ends the task.
        """
        self._between.append(work)
        self._wake_up()

    async def settle(self) -> None:
        """Wait until no tick, and nothing between ticks, waits or runs."""
        await self._settled.wait()

    def _wake_up(self) -> None:
        self._busy = True
        self._settled.clear()
        self._wake.set()

    def _skip_pending(self) -> None:
        if self._pending:
            self._skipped += len(self._pending)
            self._pending.clear()
            self._before = None

    def _begin(self, timestamp: float) -> None:
        before, self._before = self._before, timestamp
        if before is not None and timestamp - before > self.largest_gap:
            self.largest_gap = timestamp - before

    # Ticks that are plain calls

    def _run_here(self, hook: Callable[[float], object], timestamps: Sequence[float]) -> int:
        """Run ticks now, one after the other, until one fails or no more are wanted.

        A failed tick is passed to the task, which can wait between retries.

        Returns:
            How many ticks were begun, at least 1.
        """
        clock, recorder = monotonic_ns, self._recorder
        took = recorder.unrecorded.append
        begun = recorder.begun
        ran = 0
        timestamp = timestamps[0]
        before = timestamp if self._before is None else self._before
        largest_gap = self.largest_gap
        failed: _Failed | BaseException
        try:
            for timestamp in timestamps:
                if timestamp - before > largest_gap:
                    largest_gap = timestamp - before
                before = timestamp
                began = clock()
                if begun is not None:
                    begun += timestamp, began
                hook(timestamp)
                took(clock() - began)
                recorder.last_timestamp = timestamp
                ran += 1
                if self.paused or (self._choosy and not self._lets_through):
                    break
        except SystemExit:
            raise
        except Exception as error:
            failed = _Failed(error, traceback_of(error))
        except asyncio.CancelledError as error:
            failed = _cancelled_from_within(error)
        except BaseException as error:
            failed = error
        else:
            return ran
        finally:
            self._before, self.largest_gap = timestamp, largest_gap
            self._run += ran
            if ran and recorder.unrecorded[-1] > self._blocks_after:
                self._on_blocked("tick", recorder.unrecorded[-1], self._run - 1)
            recorder.record()
        self._fail_here(timestamp, failed)
        return ran + 1

    def _fail_here(self, timestamp: float, failed: _Failed | BaseException) -> None:
        if isinstance(failed, _Failed) and self._attempts == 1:
            # Report at once: the failure may be about to end the process.
            self._give_up(timestamp, failed, 1)
            self._run += 1
        else:
            self._failed = (timestamp, failed)
            self._wake_up()

    # Ticks that run in the task

    async def run(self) -> None:
        """Execute ticks until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._failed is not None:
                await self._go_on_after(*self._failed)
            while self._pending or self._between:
                if not self._lets_through:
                    self._skip_pending()
                if self._pending:
                    await self._run_next()
                if self._between:
                    await self._between.popleft()()
            self._busy = False
            self._settled.set()
            self._on_settled()

    async def _run_next(self) -> None:
        timestamp = self._pending.popleft()
        self._begin(timestamp)
        failed = await self._attempt(timestamp, 0)
        if failed is not None:
            await self._retry(timestamp, failed)
        self._run += 1

    async def _go_on_after(self, timestamp: float, failed: _Failed | BaseException) -> None:
        """Go on with a tick that failed where it arrived."""
        self._failed = None
        if not isinstance(failed, _Failed):
            raise failed
        await self._retry(timestamp, failed)
        self._run += 1

    async def _retry(self, timestamp: float, failed: _Failed) -> None:
        attempts = 1
        while attempts < self._attempts and self._may_retry and not self._is_final(failed):
            await asyncio.sleep(FIRST_RETRY_PAUSE * 2 ** (attempts - 1))
            if not self._may_retry:
                break
            again = await self._attempt(timestamp, attempts)
            if again is None:
                return
            failed = again
            attempts += 1
        self._give_up(timestamp, failed, attempts)

    @property
    def _may_retry(self) -> bool:
        return self._lets_through and not self._closed

    def _is_final(self, failed: _Failed) -> bool:
        """Whether the failure decides about the connection, so that a retry would ignore it."""
        return isinstance(self._processor, NetworkProcessor) and says_when(failed.error)

    def _give_up(self, timestamp: float, failed: _Failed, attempts: int) -> None:
        self._recorder.failed(timestamp, message_of(failed.error), attempts)
        self._on_failure(failed.error, failed.printed, timestamp, failed.timeout)

    async def _attempt(self, timestamp: float, retries: int) -> _Failed | None:
        """Run the hook once; return the failure, or None."""
        began = monotonic_ns()
        if not retries and self._recorder.begun is not None:
            self._recorder.begun += timestamp, began
        limit: asyncio.Timeout | None = None
        context = self._processor._tick_context
        blocked = 0
        rest: _Begun | None = None
        try:
            steps: Generator[Any, Any, Any]
            try:
                if context is None:
                    steps = self._processor.async_tick(timestamp).__await__()
                    waits_for = steps.send(None)
                else:
                    steps = context.run(self._processor.async_tick, timestamp).__await__()
                    waits_for = context.run(steps.send, None)
            except StopIteration:
                pass
            else:
                self.attempt_started = began / 1e9
                blocked = monotonic_ns() - began
                limit = asyncio.timeout(self._timeout - blocked / 1e9)
                rest = _Begun(steps, waits_for, context)
                async with limit:
                    await rest
        except Exception as error:
            printed = traceback_of(error)
            if isinstance(error, TimeoutError) and limit is not None and limit.expired():
                return _Failed(TimeoutError(f"timed out after {self._timeout}s"), printed, True)
            return _Failed(error, printed)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _cancelled_from_within(error)
        finally:
            self.attempt_started = None
            took = monotonic_ns() - began
            blocked = took if rest is None else max(blocked, rest.longest_step)
            if blocked > self._blocks_after:
                self._on_blocked("tick" if self._plain else "async_tick", blocked, self._run)
        self._recorder.succeeded(timestamp, took, retries)
        return None


def _in(context: Context | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a context, or in the present one."""
    if context is None:
        return function(*args, **kwargs)
    return context.run(function, *args, **kwargs)


def _cancelled_from_within(error: asyncio.CancelledError) -> _Failed:
    """Return the failure of a tick that awaited something cancelled, or raised CancelledError."""
    return _Failed(
        RuntimeError(f"the tick was cancelled from within: {error!r}"), traceback_of(error)
    )
