"""The event stream: callbacks and iterators see the same, and none disturbs another."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chronopype_mp.coordinator.stream import BYTES_KEPT, EVENTS_KEPT, EventStream
from chronopype_mp.core.worker_events import Event, ProcessorFailed, WorkerStarting, WorkerStopped
from tests.waiting import run, turns


def stopped(worker: str) -> WorkerStopped:
    return WorkerStopped(worker=worker)


def test_a_callback_gets_the_events_from_its_subscription_to_its_end() -> None:
    stream = EventStream()
    got: list[Event] = []
    stream.publish(stopped("before"))
    unsubscribe = stream.subscribe(got.append)
    stream.publish(stopped("a"))
    stream.publish(stopped("b"))
    unsubscribe()
    unsubscribe()
    stream.publish(stopped("after"))
    assert got == [stopped("a"), stopped("b")]


def test_a_callback_may_want_some_types_only() -> None:
    stream = EventStream()
    got: list[Event] = []
    stream.subscribe(got.append, WorkerStopped)
    both: list[Event] = []
    stream.subscribe(both.append, WorkerStopped, WorkerStarting)
    events: list[Event] = [WorkerStarting(worker="a", incarnation=1), stopped("a"), Event()]
    for event in events:
        stream.publish(event)
    assert got == events[1:2]
    assert both == events[:2]


def test_what_a_callback_raises_is_logged_and_the_next_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = EventStream()
    got: list[Event] = []

    def fail(event: Event) -> None:
        raise RuntimeError("no, thanks")

    stream.subscribe(fail)
    stream.subscribe(got.append)
    stream.publish(stopped("a"))
    assert got == [stopped("a")]
    assert "no, thanks" in caplog.text
    assert caplog.records[0].name == "chronopype_mp.events"


@pytest.mark.parametrize(
    "kind", ["WorkerDied", WorkerStopped(worker="a"), (WorkerStopped, WorkerStarting), int, None]
)
def test_a_class_filter_that_is_no_event_class_is_refused_at_once(kind: Any) -> None:
    stream = EventStream()
    got: list[Event] = []
    with pytest.raises(TypeError, match=r"not an event class; pass classes from") as caught:
        stream.subscribe(got.append, WorkerStopped, kind)
    assert repr(kind) in str(caught.value)
    stream.publish(stopped("a"))
    assert got == []


def test_a_callback_that_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"subscribe: 'print' is not callable; pass a plain"):
        EventStream().subscribe("print")  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [StopIteration(), asyncio.CancelledError(), GeneratorExit()])
def test_whatever_a_callback_raises_the_next_is_called(error: BaseException) -> None:
    stream = EventStream()
    got: list[Event] = []

    def fail(event: Event) -> None:
        raise error

    stream.subscribe(fail)
    stream.subscribe(got.append)
    stream.publish(stopped("a"))
    assert got == [stopped("a")]


class Treacherous(type(Event)):  # type: ignore[misc]
    """Makes classes whose ``isinstance`` raises."""

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("undecided")


class Undecided(Event, metaclass=Treacherous, frozen=True, kw_only=True):
    """Passes for an event class."""


def test_a_class_filter_that_raises_affects_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    stream = EventStream()
    got: list[Event] = []
    stream.subscribe(print, Undecided)
    stream.subscribe(got.append)
    stream.publish(stopped("a"))
    assert got == [stopped("a")]
    assert "undecided" in caplog.text


def test_an_exit_from_a_callback_comes_after_the_other_callbacks() -> None:
    stream = EventStream()
    got: list[Event] = []

    def leave(event: Event) -> None:
        raise SystemExit(3)

    async def scenario() -> None:
        stream.subscribe(leave)
        stream.subscribe(got.append)
        stream.publish(stopped("a"))
        assert got == [stopped("a")]
        await asyncio.Event().wait()

    with pytest.raises(SystemExit):
        asyncio.run(scenario())


def test_a_coroutine_function_is_refused_because_nobody_would_await_it() -> None:
    async def callback(event: Event) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="coroutine function"):
        EventStream().subscribe(callback)


def test_a_callback_may_end_its_subscription_while_it_is_called() -> None:
    stream = EventStream()
    got: list[str] = []

    def once(event: Event) -> None:
        got.append("once")
        unsubscribe()

    unsubscribe = stream.subscribe(once)
    stream.subscribe(lambda event: got.append("always"))
    stream.publish(stopped("a"))
    stream.publish(stopped("b"))
    assert got == ["once", "always", "always"]


def test_an_iterator_gets_what_happens_until_the_stream_closes() -> None:
    async def scenario() -> None:
        stream = EventStream()
        stream.publish(stopped("before"))

        async def follow() -> list[Event]:
            return [event async for event in stream]

        followers = [asyncio.create_task(follow()) for _ in range(2)]
        await turns()
        stream.publish(stopped("a"))
        await turns()
        stream.publish(stopped("b"))
        stream.publish(stopped("c"))
        stream.close()
        for follower in followers:
            assert await follower == [stopped("a"), stopped("b"), stopped("c")]

    run(scenario())


def test_an_iterator_buffers_what_it_has_no_time_for() -> None:
    async def scenario() -> None:
        stream = EventStream()
        iterator = aiter(stream)
        for number in range(5):
            stream.publish(stopped(str(number)))
        stream.close()
        assert [event async for event in iterator] == [stopped(str(n)) for n in range(5)]

    run(scenario())


def test_an_iterator_that_does_not_keep_up_loses_the_oldest() -> None:
    async def scenario() -> None:
        stream = EventStream()
        iterator = aiter(stream)
        events = [stopped(str(number)) for number in range(EVENTS_KEPT + 3)]
        for event in events:
            stream.publish(event)
        stream.close()
        assert [event async for event in iterator] == events[3:]
        assert iterator.dropped == 3

    run(scenario())


def test_what_an_iterator_that_does_not_keep_up_takes_is_bounded_in_bytes() -> None:
    def failed(number: int) -> Event:
        return ProcessorFailed(
            worker=str(number),
            incarnation=1,
            hook="async_tick",
            type_name="ValueError",
            message="no",
            traceback="\U0001f600" * 10_000,
        )

    async def scenario() -> None:
        stream = EventStream()
        slow, prompt = aiter(stream), aiter(stream)
        total = 2 * BYTES_KEPT // 40_000
        for number in range(total):
            stream.publish(failed(number))
            assert await anext(prompt) == failed(number)
        for _ in range(3):  # the bound is on what is buffered now
            await anext(slow)
        for number in range(total, total + 3):
            stream.publish(failed(number))
        stream.close()
        left = [event async for event in slow]
        assert BYTES_KEPT * 0.9 < len(left) * 40_000 < BYTES_KEPT
        assert left == [failed(number) for number in range(total + 3)][-len(left) :]
        assert slow.dropped == total - len(left)
        assert prompt.dropped == 0

    run(scenario())


def test_leaving_one_iteration_leaves_the_others_alone() -> None:
    async def scenario() -> None:
        stream = EventStream()
        first, second = aiter(stream), aiter(stream)
        stream.publish(stopped("a"))
        assert await anext(first) == stopped("a")
        assert isinstance(first, AsyncIterator)
        await first.aclose()
        stream.publish(stopped("b"))
        assert [await anext(second), await anext(second)] == [stopped("a"), stopped("b")]

    run(scenario())


def test_after_a_close_callbacks_stay_and_a_new_iteration_follows_what_comes() -> None:
    async def scenario() -> None:
        stream = EventStream()
        got: list[Event] = []
        stream.subscribe(got.append)
        stream.close()
        iterator = aiter(stream)
        stream.publish(stopped("a"))
        assert got == [stopped("a")]
        assert await anext(iterator) == stopped("a")

    run(scenario())


# Who follows no longer


def followers(stream: EventStream) -> int:
    """Return for how many iterators events are buffered."""
    return len(stream._iterators)


def test_an_iterator_that_is_dropped_unused_is_forgotten() -> None:
    stream = EventStream()
    iterator = aiter(stream)
    assert followers(stream) == 1
    del iterator
    gc.collect()
    assert followers(stream) == 0


def test_an_iteration_that_is_left_by_a_break_is_forgotten() -> None:
    async def scenario() -> None:
        stream = EventStream()

        async def first() -> Event:
            async for event in stream:
                return event
            raise AssertionError

        task = asyncio.create_task(first())
        await turns()
        assert followers(stream) == 1
        stream.publish(stopped("a"))
        assert await task == stopped("a")
        gc.collect()
        assert followers(stream) == 0

    run(scenario())


def test_an_iteration_that_is_cancelled_is_forgotten_while_its_task_is_kept() -> None:
    async def scenario() -> None:
        stream = EventStream()

        async def follow() -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(follow())
        await turns()
        task.cancel()
        await asyncio.wait({task})
        gc.collect()
        assert task.cancelled()
        assert followers(stream) == 0

    run(scenario())


def test_a_task_that_nobody_refers_to_goes_on_following() -> None:
    async def scenario() -> None:
        stream = EventStream()
        got: list[Event] = []

        async def follow() -> None:
            async for event in stream:
                got.append(event)

        forgotten = weakref.ref(asyncio.create_task(follow()))
        await turns()
        gc.collect()
        assert forgotten() is not None
        stream.publish(stopped("a"))
        await turns()
        stream.close()
        await turns()
        assert got == [stopped("a")]

    run(scenario())


def test_a_wait_that_timed_out_loses_no_event() -> None:
    async def scenario() -> None:
        stream = EventStream()
        iterator = aiter(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(iterator), 0.001)
        stream.publish(stopped("a"))
        assert await anext(iterator) == stopped("a")

    run(scenario())


def test_an_iterator_that_is_closed_ends_at_once_and_gets_nothing_more() -> None:
    async def scenario() -> None:
        stream = EventStream()
        iterator = aiter(stream)
        stream.publish(stopped("a"))
        await iterator.aclose()
        stream.publish(stopped("b"))
        assert [event async for event in iterator] == []

    run(scenario())
