"""ManualClock moves only when it is advanced, and wakes waiters whose deadline has passed."""

from __future__ import annotations

import asyncio
import queue
import threading

import pytest

from chronopype_mp.testing import ManualClock
from tests.waiting import run, turns

BOUND = 10.0
"""Seconds after which a thread counts as hung."""


class Getter:
    """A thread in ``get``, and its result."""

    def __init__(self, clock: ManualClock, items: queue.Queue[str], deadline: float | None) -> None:
        self._got: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(
            target=lambda: self._got.put(clock.get(items, deadline)), daemon=True
        ).start()

    def got(self) -> str | None:
        return self._got.get(timeout=BOUND)


def test_both_clocks_stand_still_until_they_are_moved() -> None:
    clock = ManualClock(wall=500.0, monotonic=20.0)
    assert (clock.wall(), clock.monotonic()) == (500.0, 20.0)
    clock.advance(1.5)
    clock.advance(0)
    assert (clock.wall(), clock.monotonic()) == (501.5, 21.5)


def test_setting_the_wall_clock_leaves_the_monotonic_one_alone() -> None:
    clock = ManualClock(wall=500.0, monotonic=20.0)
    clock.set_wall(3.0)
    clock.advance(1.0)
    assert (clock.wall(), clock.monotonic()) == (4.0, 21.0)


def test_time_does_not_run_backwards() -> None:
    clock = ManualClock(monotonic=20.0)
    with pytest.raises(ValueError, match=r"seconds = -0\.1"):
        clock.advance(-0.1)
    assert clock.monotonic() == 20.0


def test_an_item_that_is_there_is_got_even_when_the_deadline_has_come() -> None:
    clock, items = ManualClock(monotonic=20.0), queue.Queue[str]()
    items.put("a")
    assert clock.get(items, 5.0) == "a"
    assert clock.get(items, 5.0) is None
    assert clock.get(items, 20.0) is None


@pytest.mark.parametrize("deadline", [21.0, None])
def test_an_item_wakes_a_thread_that_waits(deadline: float | None) -> None:
    clock, items = ManualClock(monotonic=20.0), queue.Queue[str]()
    getter = Getter(clock, items, deadline)
    items.put("a")
    assert getter.got() == "a"


def test_a_thread_waits_until_its_deadline_and_no_shorter() -> None:
    clock, items = ManualClock(monotonic=20.0), queue.Queue[str]()
    early = Getter(clock, items, 21.0)
    clock.advance(0.5)
    items.put("still waiting")
    assert early.got() == "still waiting"
    late = Getter(clock, items, 21.0)
    clock.advance(0.5)
    assert late.got() is None


def test_advancing_leaves_nothing_of_its_own_in_a_queue() -> None:
    clock, items = ManualClock(monotonic=20.0), queue.Queue[str]()
    getter = Getter(clock, items, 30.0)
    for _ in range(5):
        clock.advance(1.0)
    items.put("a")
    items.put("b")
    assert getter.got() == "a"
    assert clock.get(items, 30.0) == "b"


def test_a_sleep_ends_when_its_time_has_come_and_not_before() -> None:
    async def scenario() -> None:
        clock = ManualClock(monotonic=20.0)
        sleeps = {
            deadline: asyncio.create_task(clock.sleep_until(deadline))
            for deadline in (19.0, 20.0, 21.0, 22.0)
        }
        await turns()
        assert [deadline for deadline, task in sleeps.items() if task.done()] == [19.0, 20.0]
        clock.advance(1.0)
        await sleeps[21.0]
        await turns()
        assert not sleeps[22.0].done()
        clock.advance(100.0)
        await sleeps[22.0]

    run(scenario())


def test_another_thread_may_move_the_time_of_a_sleep() -> None:
    async def scenario() -> None:
        clock = ManualClock(monotonic=20.0)
        sleep = asyncio.create_task(clock.sleep_until(21.0))
        await turns()
        await asyncio.to_thread(clock.advance, 1.0)
        await sleep

    run(scenario())


def test_a_sleep_that_was_cancelled_is_forgotten() -> None:
    async def scenario() -> None:
        clock = ManualClock(monotonic=20.0)
        sleep = asyncio.create_task(clock.sleep_until(21.0))
        await turns()
        sleep.cancel()
        await asyncio.wait({sleep})
        clock.advance(5.0)
        await turns()
        assert sleep.cancelled()

    run(scenario())


def test_a_sleep_in_a_loop_that_is_closed_hinders_nobody() -> None:
    clock = ManualClock(monotonic=20.0)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(clock.sleep_until(21.0), 0.001)

    run(scenario())
    clock.advance(5.0)
    assert clock.monotonic() == 25.0
