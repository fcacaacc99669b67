"""The inbox: reports are delivered, everything else is counted and dropped."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.coordinator.inbox import BATCH, DRAIN_WITHIN, TURN, DropCounts, Inbox
from chronopype_mp.core.codec import encode_report
from chronopype_mp.core.messages import GuardBeat, Uplink
from chronopype_mp.transport.memory import MemoryHub
from chronopype_mp.transport.zeromq import ZmqHub, ZmqLink
from tests.waiting import Noticeboard, run

GARBAGE = b"\xc1 is no msgpack"


def frame(worker: str, incarnation: int = 1) -> bytes:
    return encode_report(GuardBeat(worker=worker, incarnation=incarnation, token=5, stalled=0.0))


class Rig:
    """An inbox that knows incarnation 1 of a worker ``a``."""

    def __init__(self) -> None:
        self.hub = MemoryHub()
        self.link = self.hub.connect("a")
        self.inbox = Inbox(self.hub, self._deliver)
        self.delivered: list[Uplink] = []
        self.board = Noticeboard()

    def _deliver(self, report: Uplink) -> str | None:
        self.board.notify()
        if report.worker != "a":
            return "foreign"
        if report.incarnation != 1:
            return "stale"
        self.delivered.append(report)
        return None


def test_reports_are_delivered_in_order() -> None:
    rig = Rig()
    reports = [GuardBeat(worker="a", incarnation=1, token=5, stalled=float(n)) for n in range(5)]
    for report in reports:
        rig.link.send(encode_report(report))
    rig.inbox.drain()
    assert rig.delivered == reports
    assert rig.inbox.dropped == DropCounts()


def test_what_is_no_report_of_a_present_worker_is_counted_by_kind() -> None:
    rig = Rig()
    for each in (
        GARBAGE,
        frame("b"),
        frame("a", 2),
        b"",
        frame("a"),
        frame("a")[:-3],
        frame("b"),
        frame("a", 0),
        GARBAGE,
        frame("b", 7),
        frame("a", 9),
    ):
        rig.link.send(each)
    rig.inbox.drain()
    assert rig.inbox.dropped == DropCounts(garbage=4, foreign=3, stale=3)
    assert len(rig.delivered) == 1


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_garbage_stops_what_comes_after_it(frames: list[bytes]) -> None:
    rig = Rig()
    for each in frames:
        rig.link.send(each)
    rig.link.send(frame("a"))
    rig.inbox.drain()
    assert len(rig.delivered) >= 1
    dropped = rig.inbox.dropped
    assert dropped.garbage + dropped.foreign + dropped.stale + len(rig.delivered) == len(frames) + 1


def test_one_turn_handles_one_batch_and_drain_handles_all() -> None:
    rig = Rig()
    for _ in range(3 * BATCH):
        rig.link.send(frame("a"))
    assert rig.inbox.read() == BATCH
    assert len(rig.delivered) == BATCH
    rig.inbox.drain()
    assert len(rig.delivered) == 3 * BATCH
    assert rig.inbox.read() == 0


def test_a_turn_ends_in_time_however_much_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each report is handled at a price, and somebody sends without end."""
    now = itertools.count()
    rig = Rig()
    monkeypatch.setattr("chronopype_mp.coordinator.inbox.monotonic", lambda: next(now) * TURN)
    for _ in range(1000 * BATCH):
        rig.link.send(frame("a"))
    rig.inbox.on_readable()
    assert len(rig.delivered) == BATCH
    rig.inbox.drain()
    assert len(rig.delivered) <= (1 + DRAIN_WITHIN / TURN) * BATCH


def test_who_catches_up_has_handled_all_that_was_sent_before() -> None:
    """Here over real sockets: what was sent is with libzmq's thread, or not even there yet."""

    async def scenario() -> None:
        hub = ZmqHub()
        numbers: list[int] = []

        def deliver(report: Uplink) -> None:
            numbers.append(report.incarnation)

        inbox = Inbox(hub, deliver)
        hub.attach(asyncio.get_running_loop(), inbox.on_readable)
        total = 0
        for burst in (1, 3 * BATCH, 20, 1):
            messages = hub.messages_in, hub.messages_out
            link = ZmqLink(hub.down, hub.up, hub.data_up, messages, "a")
            for _ in range(burst):
                assert link.send(frame("a", total))
                total += 1
            link.close(5.0)  # as a process that ends: all has left it
            await inbox.catch_up(10.0)
            assert numbers == list(range(total))
        assert inbox.dropped == DropCounts()
        hub.close_publisher()
        hub.close()

    run(scenario())


def test_who_catches_up_waits_no_longer_than_told_and_a_late_mark_is_no_garbage() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.inbox.catch_up(0.001)  # nobody reads
        rig.link.send(GARBAGE)
        rig.inbox.drain()
        assert rig.inbox.dropped == DropCounts(garbage=1)

    run(scenario())


def test_several_catch_up_at_once_and_one_gives_up() -> None:
    async def scenario() -> None:
        rig = Rig()
        waiting = [asyncio.create_task(rig.inbox.catch_up(10.0)) for _ in range(3)]
        await asyncio.sleep(0)  # yields, so that they wait
        waiting[1].cancel()
        rig.hub.attach(asyncio.get_running_loop(), rig.inbox.on_readable)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            type(None),
            asyncio.CancelledError,
            type(None),
        ]
        rig.hub.close()

    run(scenario())


def test_a_flood_is_read_in_turns_until_nothing_is_left() -> None:
    async def scenario() -> None:
        rig = Rig()
        for _ in range(3 * BATCH + 7):
            rig.link.send(frame("a"))
        rig.hub.attach(asyncio.get_running_loop(), rig.inbox.on_readable)
        await rig.board.until(lambda: len(rig.delivered) == 3 * BATCH + 7)
        rig.hub.close()

    run(scenario())
