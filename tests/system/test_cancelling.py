"""Cancelling at any await leaves a clock that is left, without processes and usable."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from chronopype_mp import BackoffPolicy, Supervision, TickProcessor, WorkerHandle, WorkerStatus
from chronopype_mp.events import WorkerReady
from tests.system.clocks import Watched, closes, run

QUICK = Supervision(backoff=BackoffPolicy(minimum=0.01, maximum=0.05), stop_grace=2.0)

MOST_AWAITS = 100
"""More than any visit has."""


class CancelledAt:
    """Awaits something and is cancelled meanwhile.

    Args:
        work: what to await.
        number: from 1; at which wait it is cancelled first.
        times: how often it is cancelled, at this and the following waits.
        cancel: cancels, among others, the task that waits.
    """

    def __init__(
        self, work: Awaitable[None], number: int, times: int, cancel: Callable[[], object]
    ) -> None:
        self._steps = work.__await__()
        self._number = number
        self._times = times
        self._cancel = cancel
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, None]:
        loop = asyncio.get_running_loop()
        step: Callable[[], Any] = lambda: self._steps.send(None)  # noqa: E731 – replaced below
        while True:
            try:
                waits_for = step()
            except StopIteration:
                return
            self.waits += 1
            if self._number <= self.waits < self._number + self._times:
                loop.call_soon(self._cancel)
            try:
                yield waits_for
            except BaseException as error:
                caught = error
                step = lambda: self._steps.throw(caught)  # noqa: E731, B023 – called before the next
            else:
                step = lambda: self._steps.send(None)  # noqa: E731


class Calm(TickProcessor):
    """Takes a moment to stop."""

    async def await_cleanup(self) -> None:
        await asyncio.sleep(0.01)  # so that leaving waits


async def visit(watched: Watched, handles: list[WorkerHandle]) -> None:
    """Do all that waits: enter, wait, run, restart, add, remove, shut down, leave."""
    clock = watched.clock
    async with clock:
        await handles[0].wait_ready()
        await watched.run_for(0.06)
        await handles[0].restart()
        handles.append(clock.add_processor(Calm(), name="added"))
        await handles[1].wait_ready()
        await clock.restart_all(max_unavailable=2)
        clock.remove_processor("added")
        await handles[1].wait_stopped()
        await clock.shutdown()


@pytest.mark.parametrize("cancelled", ["the task", "the task twice", "all tasks"])
@pytest.mark.parametrize("launcher", ["inline", "forkserver"])
@pytest.mark.parametrize("on_error", ["raise", "continue"])
def test_cancelling_at_any_await_leaves_a_usable_empty_clock(
    launcher: str, on_error: str, cancelled: str
) -> None:
    unseen: list[dict[str, Any]] = []

    async def cancelled_at(number: int) -> bool:
        """Return whether the visit waits that often."""
        watched = Watched(launcher=launcher, on_error=on_error, supervision=QUICK)
        clock = watched.clock
        handles = [clock.add_processor(Calm(), name="a")]
        followed: list[object] = []

        async def follow() -> None:
            followed.extend([event async for event in clock.events])

        async def ended(handle: WorkerHandle) -> None:
            await watched.events.wait_for(WorkerReady, worker=handle.name)
            await handle.wait_stopped()

        follower = asyncio.create_task(follow())
        waiter = asyncio.create_task(ended(handles[0]))
        await asyncio.sleep(0)
        times = 2 if cancelled == "the task twice" else 1

        async def work_off() -> None:
            await CancelledAt(visit(watched, handles), number, times, cancel)

        def cancel() -> None:
            """As `asyncio.run` does at its end, and many a signal handler."""
            for task in asyncio.all_tasks() - spared if cancelled == "all tasks" else {visitor}:
                task.cancel()

        spared = asyncio.all_tasks()
        visitor = asyncio.create_task(work_off())
        async with asyncio.timeout(20):
            await asyncio.wait({visitor})
        was_cancelled = visitor.cancelled()
        if not was_cancelled:
            visitor.result()
        assert not clock.is_in_context
        assert [(each.status, each.pid) for each in handles] == [
            (WorkerStatus.STOPPED, None) for each in handles
        ]
        assert all(closes(each) for each in handles)
        async with asyncio.timeout(5):
            if watched.events.of(WorkerReady, worker="a"):
                await waiter
            await follower
        waiter.cancel()
        assert followed == watched.events.events
        async with clock:
            for handle in clock.workers:
                await handle.wait_ready()
            await watched.run_for(0.06)
        assert all(each.status is WorkerStatus.STOPPED for each in handles)
        assert all(closes(each) for each in handles)
        return was_cancelled

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        reached = 0
        while await cancelled_at(reached + 1):
            reached += 1
            assert reached < MOST_AWAITS
        gc.collect()
        await asyncio.sleep(0)
        assert reached > 10

    run(scenario())
    assert not unseen
