"""The order of events when sinks ask for something: one for all, and causes before effects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chronopype_mp.core.worker_events import (
    Event,
    WorkerBackingOff,
    WorkerDied,
    WorkerReady,
    WorkerStarting,
    WorkerStopped,
    WorkerStopping,
)
from tests.clocks.bench import Bench, Scribe
from tests.waiting import run, turns

Reaction = Callable[[Bench, Event], None]


def remove_the_dead(bench: Bench, event: Event) -> None:
    if isinstance(event, WorkerDied) and event.worker == "bad":
        bench.clock.remove_processor("bad")


def replace_the_dead(bench: Bench, event: Event) -> None:
    if isinstance(event, WorkerDied) and event.worker == "bad":
        bench.clock.remove_processor("bad")
        bench.clock.add_processor(Scribe(), name="new")


def replace_the_stopped(bench: Bench, event: Event) -> None:
    if isinstance(event, WorkerStopped) and event.worker == "bad":
        bench.clock.add_processor(Scribe(), name="bad")


def remove_the_ready(bench: Bench, event: Event) -> None:
    if isinstance(event, WorkerReady) and event.worker == "good":
        bench.clock.remove_processor("good")


def remove_who_starts(bench: Bench, event: Event) -> None:
    if isinstance(event, WorkerStarting) and event.worker == "bad":
        bench.clock.remove_processor("bad")


@pytest.mark.parametrize(
    "reactions",
    [
        (remove_the_dead,),
        (replace_the_dead,),
        (remove_the_dead, replace_the_stopped),
        (remove_the_ready,),
        (remove_who_starts, replace_the_stopped),
        (remove_the_ready, replace_the_dead, replace_the_stopped),
    ],
    ids=lambda reactions: " ".join(reaction.__name__ for reaction in reactions),
)
def test_all_sinks_see_the_same_order_whatever_one_of_them_asks_for(
    reactions: tuple[Reaction, ...],
) -> None:
    first: list[Event] = []
    last: list[Event] = []
    iterated: list[Event] = []

    async def scenario() -> None:
        bench = Bench()
        clock = bench.clock
        clock.add_processor(Scribe("bad", fails=("start",)), name="bad")
        clock.add_processor(Scribe("good"), name="good")

        def react(event: Event) -> None:
            first.append(event)
            if clock.is_in_context:
                for reaction in reactions:
                    reaction(bench, event)

        async def follow() -> None:
            iterated.extend([event async for event in clock.events])

        clock.events.subscribe(react)
        clock.events.subscribe(last.append)
        follower = asyncio.create_task(follow())
        await turns()
        async with clock:
            await turns(200)
        await follower

    run(scenario())
    assert first == last == iterated
    for worker in {event.worker for event in first if isinstance(event, WorkerStarting)}:
        own = [type(event) for event in first if getattr(event, "worker", None) == worker]
        assert follows(own, WorkerBackingOff, WorkerDied)
        assert follows(own, WorkerReady, WorkerStarting)
        assert follows(own, WorkerStopping, WorkerStarting, WorkerReady)


def follows(kinds: list[type], effect: type, *causes: type) -> bool:
    """Whether each event of a kind comes right after one that can have caused it."""
    return all(
        place > 0 and kinds[place - 1] in causes
        for place, kind in enumerate(kinds)
        if kind is effect
    )


def test_what_is_asked_for_comes_after_all_that_has_the_same_cause() -> None:
    """A death and the restart are one step of the supervisor; the removal is a later one."""
    kinds: list[type] = []

    async def scenario() -> None:
        bench = Bench()
        bench.clock.add_processor(Scribe(fails=("start",)), name="bad")
        bench.clock.events.subscribe(lambda event: remove_the_dead(bench, event))
        bench.clock.events.subscribe(lambda event: kinds.append(type(event)))
        async with bench.clock:
            await bench.events.wait_for(WorkerStopped)

    run(scenario())
    # The first restart is immediate.
    restart = [WorkerDied, WorkerBackingOff, WorkerStarting]
    assert kinds[1:7] == [WorkerStarting, *restart, WorkerStopping, WorkerStopped]
