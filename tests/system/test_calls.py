"""Calls of methods in workers: one contract, whatever the launcher."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chronopype_mp import (
    CallError,
    CallLostError,
    CallTimeoutError,
    CallTooLargeError,
    CallValueError,
    ConfigError,
    NotRemoteError,
    ProcessorError,
    ProcessorSpec,
    RemoteError,
    Supervision,
    TickProcessor,
    WorkerHandle,
    WorkerUnavailableError,
    remote,
)
from chronopype_mp.core.call_outcome import IN_FLIGHT, MAX_BODY
from chronopype_mp.events import WorkerDied
from chronopype_mp.worker.host import EXIT_STUCK
from tests.system.clocks import Watched, run
from tests.system.processors import Scribe

LAUNCHERS = ("inline", "forkserver", "spawn")


@dataclass
class Order:
    symbol: str
    amount: float


class Fill(msgspec.Struct):
    order: Order
    price: float


class OutOfStock(Exception):
    pass


class Unprintable(BaseException):
    def __str__(self) -> str:
        raise ValueError("not printable")


class Shop(TickProcessor):
    """Sells, and shows whether anything ran beside anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.overlaps = 0
        self.ticks = 0
        self.finished: list[int] = []
        self.answers: list[Any] = []
        self.dial: tuple[str, str, float] | None = None

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        self.overlaps += self.inside
        self.inside += 1
        await asyncio.sleep(0.001)  # lets others in, if they may
        yield
        self.inside -= 1

    async def async_tick(self, timestamp: float) -> None:
        async with self.alone():
            self.ticks += 1
            if self.dial is not None:
                (worker, method, timeout), self.dial = self.dial, None
                try:
                    self.answers.append(await self.call(worker, method, timeout=timeout))
                except CallError as error:
                    self.answers.append(str(error))

    @remote
    def buy(self, order: Order, *, price: float = 2.0) -> Fill:
        assert isinstance(order, Order)
        return Fill(order, price * order.amount)

    @remote
    async def slow(self, number: int) -> int:
        async with self.alone():
            self.finished.append(number)
        return number

    @remote
    def seen(self) -> tuple[int, int, list[int]]:
        return self.overlaps, self.ticks, self.finished

    @remote
    def total(self, *amounts: float, **more: int) -> float:
        return sum(amounts) + sum(more.values())

    @remote
    async def fail(self, kind: str) -> None:
        if kind == "cancelled":
            raise asyncio.CancelledError
        if kind == "unprintable":
            raise Unprintable
        if kind == "key":
            raise KeyError("nothing there")
        raise OutOfStock("no more")

    @remote
    async def hang(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.finished.append(-1)

    @remote
    async def never_ends(self) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)  # swallows its cancellation

    @remote
    def pid(self) -> int:
        return os.getpid()

    @remote
    def leave(self) -> None:
        os._exit(3)

    @remote
    def unsendable(self) -> object:
        return self

    @remote
    def large(self, size: int) -> bytes:
        return bytes(size)

    @remote
    async def forward(
        self, worker: str, method: str, arguments: list[Any], timeout: float = 4.0
    ) -> Any:
        return await self.call(worker, method, *arguments, timeout=timeout)

    @remote
    def dial_in_a_tick(self, worker: str, method: str, limit: float = 8.0) -> None:
        self.dial = (worker, method, limit)

    @remote
    def heard(self) -> list[Any]:
        return self.answers

    @remote
    def fetch(self) -> int:
        return 7

    def private(self) -> None:
        pass


class Pair:
    """Two shops of a clock whose ticks run."""

    def __init__(self, watched: Watched, shop: Shop, a: WorkerHandle, b: WorkerHandle) -> None:
        self.watched = watched
        self.clock = watched.clock
        self.shop = shop
        self.a = a
        self.b = b


@contextlib.asynccontextmanager
async def pair(launcher: str, **policy: Any) -> AsyncIterator[Pair]:
    watched = Watched(tick_size=0.05, processor_timeout=10.0, launcher=launcher)
    async with watched.clock as clock:
        running = asyncio.create_task(clock.run())
        policies = Supervision(**policy)
        shop = Shop()
        a = clock.add_processor(shop, name="a", supervision=policies)
        spec = ProcessorSpec(target=f"{__name__}:Shop")
        b = clock.add_processor(spec, name="b", supervision=policies)
        await a.wait_ready()
        await b.wait_ready()
        yield Pair(watched, shop, a, b)
        await clock.shutdown()
        await running


async def arguments_and_results_arrive_as_what_they_are_declared(shops: Pair) -> None:
    fill = await shops.a.call("buy", Order("x", 3.0), price=4)
    assert fill == Fill(Order("x", 3.0), 12.0)
    assert await shops.a.call("total", 1, 2.5, x=3, method=4) == 10.5
    plain = {"order": {"symbol": "x", "amount": 3.0}, "price": 6.0}
    assert await shops.b.call("buy", Order("x", 3.0)) == plain  # only the worker knows its class


async def calls_run_one_at_a_time_in_their_order_and_beside_no_tick(shops: Pair) -> None:
    numbers = list(range(3 * IN_FLIGHT))
    assert await asyncio.gather(*(shops.a.call("slow", number) for number in numbers)) == numbers
    await shops.watched.ticks(2)
    overlaps, ticks, finished = await shops.a.call("seen")
    assert overlaps == 0
    assert ticks > 0
    assert finished == numbers


async def what_the_method_raises_is_raised_with_its_traceback(shops: Pair) -> None:
    with pytest.raises(OutOfStock, match="no more") as caught:
        await shops.a.call("fail", "stock")
    assert isinstance(caught.value, RemoteError)
    assert isinstance(caught.value, ProcessorError)
    assert (caught.value.worker, caught.value.method) == ("a", "fail")
    assert caught.value.type_name == "OutOfStock"
    assert 'raise OutOfStock("no more")' in caught.value.traceback
    for kind, expected in {
        "key": KeyError,
        "unprintable": RemoteError,
        "cancelled": RemoteError,
    }.items():
        with pytest.raises(expected):
            await shops.a.call("fail", kind)


async def what_cannot_be_called_is_named(shops: Pair) -> None:
    with pytest.raises(NotRemoteError, match=r"Shop has no such method; did you mean slow\?"):
        await shops.a.call("slwo", 1)
    with pytest.raises(NotRemoteError, match=r"Shop\.private is not marked; put @remote above"):
        await shops.a.call("private")
    with pytest.raises(CallValueError, match="missing a required argument: 'number'; it takes"):
        await shops.a.call("slow")
    with pytest.raises(CallValueError, match="argument number is not int: Expected `int`, got `s"):
        await shops.a.call("slow", "one")
    with pytest.raises(CallValueError, match="argument amount of type Shop cannot be sent"):
        await shops.a.call("slow", amount=Shop())
    with pytest.raises(CallValueError, match="the result of type Shop cannot be sent"):
        await shops.a.call("unsendable")
    with pytest.raises(CallTooLargeError, match="the arguments have 100,0"):
        await shops.a.call("total", bytes(MAX_BODY))
    with pytest.raises(CallTooLargeError, match="the result has 100,0"):
        await shops.a.call("large", MAX_BODY)
    assert len(await shops.a.call("large", MAX_BODY - 10)) == MAX_BODY - 10
    with pytest.raises(ConfigError, match=r"call\.timeout = 0: must be above 0"):
        await shops.a.call("slow", 1, timeout=0)


async def a_timeout_cancels_the_method_and_the_next_call_runs(shops: Pair) -> None:
    with pytest.raises(CallTimeoutError, match=r"no answer within 0\.5 s") as caught:
        await shops.a.call("hang", timeout=0.5)
    assert isinstance(caught.value, TimeoutError)
    assert (await shops.a.call("seen"))[2][-1] == -1


async def a_cancelled_caller_abandons_a_call_that_has_begun(shops: Pair) -> None:
    caller = asyncio.create_task(shops.a.call("slow", 77))
    await asyncio.sleep(0)  # yields, so that the call is made
    caller.cancel()
    assert await shops.a.call("fetch") == 7
    assert (await shops.a.call("seen"))[2][-1] == 77


async def a_paused_worker_is_called(shops: Pair) -> None:
    shops.a.pause()
    assert await shops.a.call("fetch") == 7
    shops.a.resume()


async def workers_call_each_other(shops: Pair) -> None:
    assert await shops.a.call("forward", "b", "total", [1, 2]) == 3
    with pytest.raises(KeyError, match="nothing there"):
        await shops.a.call("forward", "b", "fail", ["key"])
    with pytest.raises(RemoteError, match="there is no worker of that name; did you mean 'b'"):
        await shops.a.call("forward", "bb", "fetch", [])


async def the_owners_object_calls_nobody(shops: Pair) -> None:
    with pytest.raises(RuntimeError, match=r"Shop\.call\(\) works in the worker only"):
        await shops.shop.call("b", "fetch")


async def a_processor_that_calls_itself_ends_with_a_timeout(shops: Pair) -> None:
    with pytest.raises(RemoteError, match="wait for each other") as caught:
        await shops.a.call("forward", "a", "fetch", [], 0.3)
    assert caught.value.type_name == "CallTimeoutError"
    assert not isinstance(caught.value, CallError)  # the outer call was answered


async def ticks_call_a_worker_that_ticks_but_not_each_other(shops: Pair) -> None:
    await shops.a.call("dial_in_a_tick", "b", "fetch")
    while not (answers := await shops.a.call("heard")):
        await shops.watched.ticks(1)
    assert answers == [7]
    await asyncio.gather(
        shops.a.call("dial_in_a_tick", "b", "fetch", 0.3),
        shops.b.call("dial_in_a_tick", "a", "fetch", 0.3),
    )
    while len(first := await shops.a.call("heard")) < 2 or not (
        second := await shops.b.call("heard")
    ):
        await shops.watched.ticks(1)
    late = [each for each in (first[1], second[0]) if each != 7]
    assert all("wait for each other" in each for each in late)


async def a_restart_in_between_loses_what_was_sent_and_says_so(shops: Pair) -> None:
    hangs = asyncio.create_task(shops.a.call("hang", timeout=30))
    waiting = [
        asyncio.create_task(shops.a.call("slow", 1, timeout=30)) for _ in range(2 * IN_FLIGHT)
    ]
    assert await shops.b.call("fetch") == 7
    await shops.a.restart()
    with pytest.raises(CallLostError, match="its process ended before it answered; the method may"):
        await hangs
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    kinds = Counter(type(end) for end in ends)
    assert kinds == {CallLostError: IN_FLIGHT - 1, WorkerUnavailableError: IN_FLIGHT + 1}
    assert (await shops.a.call("seen"))[2] == []


async def a_worker_that_is_not_ready_is_not_called(shops: Pair) -> None:
    shops.b.stop()
    await shops.b.wait_stopped()
    with pytest.raises(WorkerUnavailableError, match=r"it is STOPPED; start\(\) starts it"):
        await shops.b.call("fetch")
    with pytest.raises(RemoteError, match="it is STOPPED"):
        await shops.a.call("forward", "b", "fetch", [])
    shops.b.start()
    with pytest.raises(WorkerUnavailableError, match="it is STARTING; wait_ready"):
        await shops.b.call("fetch")
    await shops.b.wait_ready()
    assert await shops.b.call("fetch") == 7
    shops.clock.remove_processor("b")
    with pytest.raises(WorkerUnavailableError, match="it was removed from its clock") as caught:
        await shops.b.call("fetch")
    assert (caught.value.worker, caught.value.method) == ("b", "fetch")


CONTRACT = (
    arguments_and_results_arrive_as_what_they_are_declared,
    calls_run_one_at_a_time_in_their_order_and_beside_no_tick,
    what_the_method_raises_is_raised_with_its_traceback,
    what_cannot_be_called_is_named,
    a_timeout_cancels_the_method_and_the_next_call_runs,
    a_cancelled_caller_abandons_a_call_that_has_begun,
    a_paused_worker_is_called,
    workers_call_each_other,
    the_owners_object_calls_nobody,
    a_processor_that_calls_itself_ends_with_a_timeout,
    ticks_call_a_worker_that_ticks_but_not_each_other,
    a_restart_in_between_loses_what_was_sent_and_says_so,
    a_worker_that_is_not_ready_is_not_called,
)
"""Statements that hold whatever the launcher. They share a clock, in this order."""


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_calls_keep_their_contract(launcher: str) -> None:
    async def scenario() -> None:
        async with pair(launcher, stop_grace=2.0) as shops:
            for statement in CONTRACT:
                await statement(shops)
        with pytest.raises(WorkerUnavailableError, match="needs an entered clock"):
            await shops.a.call("fetch")

    run(scenario())


def test_a_killed_worker_and_one_that_does_not_let_go_end_their_calls() -> None:
    async def scenario() -> None:
        async with pair("forkserver") as shops:
            hangs = asyncio.create_task(shops.a.call("hang", timeout=60))
            pid = await shops.b.call("pid")
            assert await shops.b.call("fetch") == 7
            assert shops.a.pid is not None
            os.kill(shops.a.pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(CallLostError):
                await hangs
            await shops.a.wait_ready()
            assert await shops.a.call("pid") == shops.a.pid
            with pytest.raises(CallLostError):
                await shops.a.call("leave", timeout=60)
            await shops.b.wait_ready()
            with pytest.raises(CallTimeoutError):
                await shops.b.call("never_ends", timeout=0.5)
            died = await shops.watched.events.wait_for(WorkerDied, worker="b", exitcode=EXIT_STUCK)
            assert "swallowed its cancellation" in str(died.error_message)

    run(scenario())


class Till(Scribe):
    """Notes each call in a file, in every incarnation."""

    def tick(self, timestamp: float) -> None:
        pass

    @remote
    async def take(self, number: int) -> int:
        self.note(str(number))
        await asyncio.sleep(0)  # as a method that awaits does
        return number


class Storm:
    """Calls at once, while some of the workers are killed.

    Attributes:
        ends: how many calls ended how.
        answered: the numbers of those that were answered.
    """

    def __init__(self, path: Path, calls: int, workers: int, kills: int, timeout: float) -> None:
        self.path = path
        self.calls = calls
        self.timeout = timeout
        self.ends: Counter[str] = Counter()
        self.answered: list[int] = []
        self.watched = Watched(tick_size=0.1)
        self.handles = [
            self.watched.clock.add_processor(Till(path), name=f"{number}")
            for number in range(workers)
        ]
        share = calls // (4 * kills)
        self.kill_after = {share * (number + 1): number for number in range(kills)}

    async def run(self) -> None:
        async with self.watched.clock as clock:
            for handle in self.handles:
                await handle.wait_ready()
            running = asyncio.create_task(clock.run())
            async with asyncio.TaskGroup() as group:
                for number in range(self.calls):
                    group.create_task(self._call(number))
            await clock.shutdown()
            await running

    async def _call(self, number: int) -> None:
        handle = self.handles[number % len(self.handles)]
        try:
            async with asyncio.timeout(self.timeout + 1.0):
                self.answered.append(await handle.call("take", number, timeout=self.timeout))
        except CallError as error:
            self.ends[type(error).__name__] += 1
            return
        self.ends["answered"] += 1
        victim = self.kill_after.get(len(self.answered))
        if victim is not None and (pid := self.handles[victim].pid) is not None:
            os.kill(pid, signal.SIGKILL)

    def check(self) -> None:
        ran = Counter(int(line) for line in self.path.read_text().split())
        assert self.ends.total() == self.calls
        assert set(ran.values()) == {1}
        assert set(self.answered) <= set(ran)
        assert len(set(self.answered)) == len(self.answered) == self.ends["answered"]


def test_2000_calls_of_10_workers_end_and_run_at_most_once_while_workers_are_killed(
    tmp_path: Path,
) -> None:
    storm = Storm(tmp_path / "calls", calls=2000, workers=10, kills=3, timeout=30.0)
    run(storm.run())
    storm.check()
    assert storm.ends["answered"] >= 1000
    assert storm.ends["CallTimeoutError"] == 0
    assert storm.ends["CallLostError"] + storm.ends["WorkerUnavailableError"] > 0
