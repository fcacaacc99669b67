"""A rolling restart: who is restarted, in which order, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from chronopype_mp.coordinator.rolling import roll
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import WorkerStatus
from chronopype_mp.exceptions import WorkerError
from chronopype_mp.processors import NetworkProcessor, TickProcessor
from tests.waiting import run, turns

PATIENCE = 10.0
"""Seconds; more than any of these rolls needs."""


class Record:
    """What rolling reads of a worker's record."""

    def __init__(self, name: str, network: bool = False) -> None:
        self.name = name
        self.source = NetworkProcessor() if network else TickProcessor()
        self.network_status = NetworkStatus.CONNECTED if network else NetworkStatus.STOPPED

    def __repr__(self) -> str:
        return self.name


class Hand:
    """Stands for a coordinator whose workers do what the test says.

    Attributes:
        restarted: the names of the restarted workers, in order.
        most_down: how many were down at a time.
    """

    def __init__(self, *records: Record) -> None:
        self.records = list(records)
        self.status = dict.fromkeys((record.name for record in records), WorkerStatus.READY)
        self.restarted: list[str] = []
        self.most_down = 0
        self.coming_back: Callable[[str], Awaitable[None]] = self._at_once
        self._waiters: list[asyncio.Future[None]] = []

    async def _at_once(self, name: str) -> None:
        await asyncio.sleep(0)

    def has(self, record: Record) -> bool:
        return record in self.records

    def view(self, name: str) -> Any:
        return SimpleNamespace(status=self.status[name])

    def next_event(self) -> asyncio.Future[None]:
        self._waiters.append(asyncio.get_running_loop().create_future())
        return self._waiters[-1]

    def becomes(self, name: str, status: WorkerStatus) -> None:
        self.status[name] = status
        self.notify()

    def connects(self, record: Record, status: NetworkStatus) -> None:
        record.network_status = status
        self.notify()

    def remove(self, record: Record) -> None:
        self.records.remove(record)
        del self.status[record.name]
        self.notify()

    def notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def restart(self, name: str) -> None:
        self.restarted.append(name)
        self.becomes(name, WorkerStatus.STARTING)
        down = sum(1 for status in self.status.values() if status is not WorkerStatus.READY)
        self.most_down = max(self.most_down, down)
        await self.coming_back(name)
        self.becomes(name, WorkerStatus.READY)

    async def roll(self, max_unavailable: int = 1, timeout: float = PATIENCE) -> None:
        await roll(self, lambda: self.records, max_unavailable, timeout)  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_all_are_restarted_in_order_and_never_more_than_allowed_are_down(most: int) -> None:
    async def scenario() -> None:
        hand = Hand(*map(Record, "abcd"))
        await hand.roll(most)
        assert hand.restarted == ["a", "b", "c", "d"]
        assert hand.most_down == min(most, 4)
        assert set(hand.status.values()) == {WorkerStatus.READY}

    run(scenario())


def test_of_none_there_is_nothing_to_do() -> None:
    run(Hand().roll())


def test_those_that_are_down_go_first_and_those_that_are_stopped_not_at_all() -> None:
    async def scenario() -> None:
        hand = Hand(*map(Record, "abcd"))
        hand.status["b"] = WorkerStatus.STOPPED
        hand.status["c"] = WorkerStatus.QUARANTINED
        hand.status["d"] = WorkerStatus.BACKOFF
        await hand.roll()
        assert hand.restarted == ["c", "d", "a"]

    run(scenario())


def test_a_network_is_back_when_it_is_connected() -> None:
    async def scenario() -> None:
        network, plain = Record("network", network=True), Record("plain")
        hand = Hand(network, plain)

        async def disconnected(name: str) -> None:
            if name == "network":
                network.network_status = NetworkStatus.NOT_CONNECTED

        hand.coming_back = disconnected
        rolling = asyncio.create_task(hand.roll())
        await turns()
        assert hand.restarted == ["network"]
        hand.connects(network, NetworkStatus.CONNECTING)
        await turns()
        assert hand.restarted == ["network"]
        hand.connects(network, NetworkStatus.CONNECTED)
        await rolling
        assert hand.restarted == ["network", "plain"]

    run(scenario())


def test_a_worker_without_a_network_is_back_when_it_is_ready() -> None:
    async def scenario() -> None:
        # A network processor that never started its network has none.
        record = Record("a", network=True)
        record.network_status = NetworkStatus.STOPPED
        hand = Hand(record)
        await hand.roll()
        assert hand.restarted == ["a"]

    run(scenario())


def test_nobody_goes_while_another_is_down_for_whatever_reason() -> None:
    async def scenario() -> None:
        hand = Hand(*map(Record, "abc"))
        crashed = asyncio.Event()

        async def crash(name: str) -> None:
            if name == "a":
                hand.becomes("c", WorkerStatus.BACKOFF)
                crashed.set()

        hand.coming_back = crash
        rolling = asyncio.create_task(hand.roll())
        await crashed.wait()
        await turns()
        assert hand.restarted == ["a"]
        hand.becomes("c", WorkerStatus.READY)
        await rolling
        assert hand.restarted == ["a", "b", "c"]

    run(scenario())


def test_one_that_is_added_meanwhile_counts_while_it_is_down_and_is_not_restarted() -> None:
    async def scenario() -> None:
        hand = Hand(*map(Record, "ab"))

        async def another(name: str) -> None:
            if name == "a":
                hand.records.append(Record("new"))
                hand.status["new"] = WorkerStatus.STARTING

        hand.coming_back = another
        rolling = asyncio.create_task(hand.roll())
        await turns()
        assert hand.restarted == ["a"]
        hand.becomes("new", WorkerStatus.READY)
        await rolling
        assert hand.restarted == ["a", "b"]

    run(scenario())


def test_one_that_is_removed_before_its_turn_is_passed_over() -> None:
    async def scenario() -> None:
        first, second, third = records = [Record(name) for name in "abc"]
        hand = Hand(*records)

        async def remove(name: str) -> None:
            if name == first.name:
                hand.remove(second)
                # The next one waits for a place while this happens.
                hand.becomes("c", WorkerStatus.READY)

        hand.coming_back = remove
        await hand.roll()
        assert hand.restarted == [first.name, third.name]

    run(scenario())


def test_one_that_is_removed_while_it_waits_for_a_place_is_passed_over() -> None:
    async def scenario() -> None:
        first, second, down = records = [Record(name) for name in "abc"]
        hand = Hand(*records)

        async def crash(name: str) -> None:
            if name == first.name:
                hand.becomes(down.name, WorkerStatus.BACKOFF)

        hand.coming_back = crash
        rolling = asyncio.create_task(hand.roll())
        await turns()
        hand.remove(second)
        await turns()
        assert hand.restarted == ["a", "c"]
        await rolling

    run(scenario())


def test_it_gives_up_when_one_does_not_come_back_in_time() -> None:
    async def scenario() -> None:
        hand = Hand(*map(Record, "abc"))

        async def never(name: str) -> None:
            if name == "b":
                await asyncio.Event().wait()

        hand.coming_back = never
        with pytest.raises(WorkerError, match=r"'b'.*did not come back within 0.05 s.*the rest"):
            await hand.roll(timeout=0.05)
        assert hand.restarted == ["a", "b"]

    run(scenario())


def test_it_gives_up_when_one_must_wait_for_too_long() -> None:
    async def scenario() -> None:
        hand = Hand(*map(Record, "abc"))

        async def crash(name: str) -> None:
            hand.becomes("c", WorkerStatus.BACKOFF)

        hand.coming_back = crash
        with pytest.raises(WorkerError, match=r"'b'.*too many others are down"):
            await hand.roll(timeout=0.05)
        assert hand.restarted == ["a"]

    run(scenario())


def test_it_gives_up_when_a_restart_fails() -> None:
    async def scenario() -> None:
        hand = Hand(*map(Record, "abc"))

        async def quarantined(name: str) -> None:
            if name == "b":
                raise WorkerError(name, "it is QUARANTINED and will not get READY")

        hand.coming_back = quarantined
        with pytest.raises(WorkerError, match=r"'b'.*QUARANTINED"):
            await hand.roll()
        assert hand.restarted == ["a", "b"]

    run(scenario())


def test_it_gives_up_when_one_is_stopped_before_its_network_is_back() -> None:
    async def scenario() -> None:
        network, other = Record("network", network=True), Record("other")
        hand = Hand(network, other)

        async def disconnected(name: str) -> None:
            network.network_status = NetworkStatus.NOT_CONNECTED

        hand.coming_back = disconnected
        rolling = asyncio.create_task(hand.roll())
        await turns()
        hand.becomes("network", WorkerStatus.STOPPED)
        with pytest.raises(WorkerError, match=r"'network'.*stopped before it was back"):
            await rolling
        assert hand.restarted == ["network"]

    run(scenario())


def test_cancelling_restarts_no_further_one() -> None:
    async def scenario() -> None:
        hand = Hand(*map(Record, "abc"))
        begun = asyncio.Event()

        async def never(name: str) -> None:
            begun.set()
            await asyncio.Event().wait()

        hand.coming_back = never
        rolling = asyncio.create_task(hand.roll())
        await begun.wait()
        rolling.cancel()
        await asyncio.wait({rolling})
        assert rolling.cancelled()
        await turns()
        assert hand.restarted == ["a"]

    run(scenario())
