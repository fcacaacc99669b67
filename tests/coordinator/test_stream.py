"""The event stream: callbacks and iterators see the same, and none disturbs another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from chronopype_mp.coordinator.stream import BOUND, EventStream
from chronopype_mp.core.events import Event, WorkerStarting, WorkerStopped
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
        events = [stopped(str(number)) for number in range(BOUND + 3)]
        for event in events:
            stream.publish(event)
        stream.close()
        assert [event async for event in iterator] == events[3:]

    run(scenario())


def test_leaving_one_iteration_leaves_the_others_alone() -> None:
    async def scenario() -> None:
        stream = EventStream()
        first, second = aiter(stream), aiter(stream)
        stream.publish(stopped("a"))
        assert await anext(first) == stopped("a")
        assert isinstance(first, AsyncIterator)
        await first.aclose()  # type: ignore[attr-defined]
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
