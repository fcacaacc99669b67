"""BlockingWatch: which ticks are warned of, and how often."""

from __future__ import annotations

import asyncio

import pytest

from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.state import TickRecorder
from chronopype_mp.processors import TickProcessor
from chronopype_mp.timing import sleep, wall
from chronopype_mp.worker.blocking import BlockingWatch
from chronopype_mp.worker.dispatch import TickDispatcher
from tests.waiting import run


def test_a_second_tick_in_a_row_that_blocks_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    watch = BlockingWatch("a", 0.2)
    watch.saw("tick", 0.5, 0, 100.0)
    assert caplog.messages == []
    watch.saw("tick", 0.5, 1, 100.5)
    assert caplog.messages == [
        "worker 'a': tick blocked the event loop for 0.5 s, longer than tick_size (0.2 s), as it "
        "did 2 times so far: ticks are missed, and the network loop stands still. Await in "
        "async_tick, call what blocks with asyncio.to_thread and a timeout, or choose a larger "
        "tick_size"
    ]


def test_warnings_come_at_most_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    watch = BlockingWatch("a", 0.2)
    for second in range(150):
        watch.saw("tick", 0.5, second, float(second))
    assert [message.partition(" times")[0].rpartition(" ")[2] for message in caplog.messages] == [
        "2",
        "62",
        "122",
    ]


def test_a_tick_now_and_then_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    watch = BlockingWatch("a", 0.2)
    for second in range(1, 50, 2):
        watch.saw("tick", 0.5, second, float(second))
    assert caplog.messages == []


class Plain(TickProcessor):
    def tick(self, timestamp: float) -> None:
        sleep(0.05)  # the mistake


class AtOnce(TickProcessor):
    async def async_tick(self, timestamp: float) -> None:
        sleep(0.05)  # the mistake


class AfterAWait(TickProcessor):
    async def async_tick(self, timestamp: float) -> None:
        await asyncio.sleep(0)  # yields; no time passes
        sleep(0.05)  # the mistake


class Fails(TickProcessor):
    async def async_tick(self, timestamp: float) -> None:
        sleep(0.05)  # the mistake
        raise ValueError


@pytest.mark.parametrize(
    ("kind", "hook"),
    [(Plain, "tick"), (AtOnce, "async_tick"), (AfterAWait, "async_tick"), (Fails, "async_tick")],
)
def test_the_time_that_a_tick_blocks_is_measured(kind: type[TickProcessor], hook: str) -> None:
    seen: list[tuple[str, int, int]] = []

    async def scenario() -> None:
        rules = TickRules(
            processor_timeout=10.0, max_retries=0, stats_window_size=10, tick_size=0.04
        )
        dispatcher = TickDispatcher(
            kind(),
            rules,
            TickRecorder(10, wall),
            lambda *failure: None,
            on_blocked=lambda *blocked: seen.append(blocked),
        )
        dispatcher.open(0)
        task = asyncio.create_task(dispatcher.run())
        dispatcher.offer(1, [1.0])
        await dispatcher.settle()
        task.cancel()

    run(scenario())
    ((name, nanoseconds, ended),) = seen
    assert (name, ended) == (hook, 0)
    assert nanoseconds >= 50_000_000


class Waits(TickProcessor):
    async def async_tick(self, timestamp: float) -> None:
        await asyncio.sleep(0.5)  # what is measured must not contain it


@pytest.mark.parametrize(("kind", "tick_size"), [(Waits, 0.5), (Plain, 10.0), (Plain, 0.0)])
def test_awaited_time_short_ticks_and_ticks_without_a_due_time_do_not_block(
    kind: type[TickProcessor], tick_size: float
) -> None:
    seen: list[int] = []

    async def scenario() -> None:
        rules = TickRules(
            processor_timeout=10.0, max_retries=0, stats_window_size=10, tick_size=tick_size
        )
        dispatcher = TickDispatcher(
            kind(),
            rules,
            TickRecorder(10, wall),
            lambda *failure: None,
            on_blocked=lambda hook, nanoseconds, ended: seen.append(nanoseconds),
        )
        dispatcher.open(0)
        task = asyncio.create_task(dispatcher.run())
        dispatcher.offer(1, [1.0])
        await dispatcher.settle()
        task.cancel()

    run(scenario())
    assert seen == []
