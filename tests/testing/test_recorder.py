"""EventRecorder returns recorded events and waits for new ones."""

from __future__ import annotations

import asyncio

import pytest

from chronopype_mp.coordinator.stream import EventStream
from chronopype_mp.core.worker_events import Event, WorkerBackingOff, WorkerStopped, WorkerStopping
from chronopype_mp.testing import EventRecorder
from tests.waiting import run, turns


def stopped(worker: str) -> WorkerStopped:
    return WorkerStopped(worker=worker)


def test_it_keeps_all_events_from_its_beginning_in_order() -> None:
    async def scenario() -> None:
        stream = EventStream()
        stream.publish(stopped("before"))
        recorder = EventRecorder(stream)
        events: list[Event] = [stopped("a"), WorkerStopping(worker="a", incarnation=1)]
        for event in events:
            stream.publish(event)
        assert recorder.events == events

    run(scenario())


def test_events_are_asked_for_by_kind_and_fields() -> None:
    async def scenario() -> None:
        stream = EventStream()
        recorder = EventRecorder(stream)
        first = WorkerBackingOff(worker="a", delay=0.1, restarts=0)
        second = WorkerBackingOff(worker="a", delay=0.2, restarts=1)
        for event in (first, stopped("a"), second, stopped("b")):
            stream.publish(event)
        assert recorder.of(WorkerBackingOff) == [first, second]
        assert recorder.of(WorkerBackingOff, worker="a", restarts=1) == [second]
        assert recorder.of(WorkerStopped, worker="c") == []
        assert len(recorder.of(Event)) == 4

    run(scenario())


def test_an_event_of_the_past_is_not_waited_for() -> None:
    async def scenario() -> None:
        stream = EventStream()
        recorder = EventRecorder(stream)
        stream.publish(stopped("a"))
        assert await recorder.wait_for(WorkerStopped, worker="a") == stopped("a")

    run(scenario())


def test_the_first_event_that_fits_ends_a_wait() -> None:
    async def scenario() -> None:
        stream = EventStream()
        recorder = EventRecorder(stream)
        wait = asyncio.create_task(recorder.wait_for(WorkerStopped, worker="b"))
        both = asyncio.create_task(recorder.wait_for(WorkerStopped, worker="b"))
        await turns()
        stream.publish(WorkerStopping(worker="b", incarnation=1))
        stream.publish(stopped("a"))
        await turns()
        assert not wait.done()
        stream.publish(stopped("b"))
        assert await wait == await both == stopped("b")

    run(scenario())


def test_a_wait_for_the_second_passes_over_the_first() -> None:
    async def scenario() -> None:
        stream = EventStream()
        recorder = EventRecorder(stream)
        stream.publish(WorkerBackingOff(worker="a", delay=0.1, restarts=0))
        wait = asyncio.create_task(recorder.wait_for(WorkerBackingOff, count=2))
        await turns()
        assert not wait.done()
        stream.publish(WorkerBackingOff(worker="a", delay=0.2, restarts=1))
        assert (await wait).restarts == 1

    run(scenario())


def test_what_did_not_come_in_time_is_named_beside_what_did() -> None:
    async def scenario() -> None:
        stream = EventStream()
        recorder = EventRecorder(stream)
        with pytest.raises(TimeoutError, match=r"no WorkerStopped with .*'b'.*\n  nothing"):
            await recorder.wait_for(WorkerStopped, worker="b", timeout=0)
        stream.publish(stopped("a"))
        with pytest.raises(TimeoutError, match=r"recorded events:\n  WorkerStopped\(.*worker='a'"):
            await recorder.wait_for(WorkerStopped, worker="b", timeout=0)

    run(scenario())
