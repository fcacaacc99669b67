"""The events that a fleet keeps for its clients."""

from __future__ import annotations

import msgspec

from chronopype_mp.control import event_buffer
from chronopype_mp.control.event_buffer import EventBuffer, record_of
from chronopype_mp.core.worker_events import DeathReason, WorkerDied, WorkerStopped
from tests.waiting import run


def named(buffer: EventBuffer, after: int) -> tuple[list[str], int, int]:
    read = buffer.after(after)
    return [event["worker"] for event in read.events], read.last, read.missed


def test_a_client_reads_on_from_the_last_event_that_it_knows() -> None:
    """Nothing twice, nothing left out; a number of another fleet's is as good as the last."""
    buffer = EventBuffer()
    for name in "abc":
        buffer.put(WorkerStopped(worker=name))
    assert named(buffer, 0) == (["a", "b", "c"], 3, 0)
    assert named(buffer, 2) == (["c"], 3, 0)
    assert named(buffer, 3) == ([], 3, 0)
    assert named(buffer, 99) == ([], 3, 0)


def test_a_client_that_reads_too_late_is_told_how_many_it_has_missed() -> None:
    """The memory stays flat."""
    buffer = EventBuffer()
    for number in range(event_buffer.EVENTS_KEPT + 10):
        buffer.put(WorkerStopped(worker=str(number)))
    read = buffer.after(4)
    assert (read.missed, read.events[0]["worker"]) == (6, "10")
    assert len(read.events) == read.last - 10 == event_buffer.MOST_AT_ONCE


def test_large_events_are_dropped_earlier_and_sent_in_parts() -> None:
    """By their bytes."""
    buffer = EventBuffer()
    for _ in range(100):
        buffer.put(WorkerStopped(worker="x" * 400_000))
    read = buffer.after(0)
    assert read.missed == 81
    assert len(read.events) == 2


def test_whoever_waits_is_woken_by_the_next_event() -> None:
    """All of them, once."""

    async def scenario() -> None:
        buffer = EventBuffer()
        waiters = buffer.next(), buffer.next()
        buffer.put(WorkerStopped(worker="a"))
        for waiter in waiters:
            await waiter
        assert not buffer.next().done()

    run(scenario())


def test_dossiers_are_kept_apart_and_have_a_report() -> None:
    """Text that is not UTF-8, and an exception object, are no hindrance."""
    death = WorkerDied(
        worker="a",
        incarnation=1,
        pid=7,
        reason=DeathReason.EXITED,
        exitcode=3,
        uptime=1.0,
        output=("caf\udce9",),
        exception=ValueError("x"),
    )
    buffer = EventBuffer()
    for _ in range(30):
        buffer.put(death)
    dossiers = buffer.dossiers("a")
    assert len(dossiers) == 20
    assert dossiers[0]["report"].startswith("worker 'a' (incarnation 1, pid 7) died")
    assert dossiers[0]["output"] == ["caf\\udce9"]
    msgspec.msgpack.encode(record_of(death))
    assert buffer.died == ["a"]
    assert buffer.dossiers("b") == []
