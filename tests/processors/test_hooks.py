"""Running a user's coroutine within a bound."""

from __future__ import annotations

import asyncio
import gc
from typing import NoReturn

import pytest

from chronopype_mp.processors import hooks
from chronopype_mp.processors.hooks import (
    HookCancelled,
    HookInterrupted,
    HookStuck,
    HookTimeout,
    bounded,
)
from tests.waiting import run

FOREVER = 3600.0


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "CANCEL_GRACE", 0.05)


class Stubborn:
    """A hook that swallows every cancellation until it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancellations = 0

    async def hook(self) -> None:
        self.begun.set()
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.cancellations += 1
        self.ended.set()
        raise ValueError("too late to matter")


def test_what_the_hook_returns_is_returned() -> None:
    async def hook() -> str:
        await asyncio.sleep(0)  # suspends once
        return "done"

    assert run(bounded(hook(), 5.0)) == "done"
    assert run(bounded(hook(), None)) == "done"


def test_a_future_is_as_good_as_a_coroutine() -> None:
    async def scenario() -> int:
        future = asyncio.get_running_loop().create_future()
        future.set_result(3)
        return await bounded(future, 1.0)

    assert run(scenario()) == 3


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("the hook's own")])
def test_what_the_hook_raises_comes_out_as_it_is(error: Exception) -> None:
    async def hook() -> NoReturn:
        raise error

    with pytest.raises(type(error)) as caught:
        run(bounded(hook(), 5.0))
    assert caught.value is error


def test_a_hook_that_takes_too_long_is_cancelled() -> None:
    cleaned_up = []

    async def hook() -> None:
        try:
            await asyncio.sleep(FOREVER)  # stands for a hook that hangs
        finally:
            cleaned_up.append(True)

    with pytest.raises(HookTimeout, match=r"timed out after 0\.02s"):
        run(bounded(hook(), 0.02))
    assert cleaned_up == [True]


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("answer", ["returns", "raises"])
def test_a_hook_that_ends_otherwise_when_it_is_cancelled_has_timed_out_all_the_same(
    answer: str,
) -> None:
    async def hook() -> str:
        try:
            await asyncio.sleep(FOREVER)  # stands for a hook that hangs
        except asyncio.CancelledError:
            if answer == "raises":
                raise ValueError("on the way out") from None
        return "too late"

    async def scenario() -> None:
        with pytest.raises(HookTimeout) as caught:
            await bounded(hook(), 0.02)
        assert isinstance(caught.value.__cause__, ValueError) is (answer == "raises")
        gc.collect()

    run(scenario())  # which fails on an exception that nobody retrieved


@pytest.mark.usefixtures("short_grace")
def test_a_hook_that_swallows_its_cancellation_is_left_behind_as_stuck() -> None:
    async def scenario() -> None:
        stubborn = Stubborn()
        with pytest.raises(HookStuck, match=r"0\.05 s after"):
            await bounded(stubborn.hook(), 0.02)
        assert stubborn.cancellations == 1
        assert not stubborn.ended.is_set()
        stubborn.let_go.set()
        await stubborn.ended.wait()
        gc.collect()

    run(scenario())


def test_a_hook_that_awaits_something_cancelled_is_told_from_one_that_we_cancelled() -> None:
    async def hook() -> None:
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        await other

    async def scenario() -> None:
        with pytest.raises(HookCancelled):
            await bounded(hook(), 5.0)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(scenario())


def test_a_hook_that_cancels_its_own_task_does_not_cancel_who_awaits_it() -> None:
    async def hook() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)  # where the cancellation arrives

    with pytest.raises(HookCancelled):
        run(bounded(hook(), 5.0))


def test_cancelling_from_outside_cancels_the_hook_and_waits_for_its_clean_up() -> None:
    async def scenario() -> None:
        begun = asyncio.Event()
        steps = []

        async def hook() -> None:
            begun.set()
            try:
                await asyncio.sleep(FOREVER)  # stands for a hook that hangs
            finally:
                await asyncio.sleep(0)  # a clean-up that needs the loop
                steps.append("cleaned up")

        task = asyncio.create_task(bounded(hook(), None))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["cleaned up"]

    run(scenario())


@pytest.mark.usefixtures("short_grace")
def test_cancelling_from_outside_leaves_a_stubborn_hook_behind() -> None:
    async def scenario() -> None:
        stubborn = Stubborn()
        task = asyncio.create_task(bounded(stubborn.hook(), None))
        await stubborn.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stubborn.cancellations == 1
        assert not stubborn.ended.is_set()
        stubborn.let_go.set()
        await stubborn.ended.wait()
        del task
        gc.collect()

    run(scenario())


def test_an_interrupt_cancels_the_hook_and_waits_for_its_clean_up() -> None:
    async def scenario() -> None:
        begun = asyncio.Event()
        interrupt = asyncio.get_running_loop().create_future()
        steps: list[str] = []

        async def hook() -> None:
            try:
                begun.set()
                await asyncio.sleep(FOREVER)
            finally:
                await asyncio.sleep(0)  # a clean-up that needs the loop
                steps.append("cleaned up")

        task = asyncio.create_task(bounded(hook(), FOREVER, interrupt))
        await begun.wait()
        interrupt.set_result(None)
        with pytest.raises(HookInterrupted):
            await task
        assert steps == ["cleaned up"]

    run(scenario())


def test_a_hook_that_ended_before_the_interrupt_returns_its_result() -> None:
    async def hook() -> int:
        return 3

    async def scenario() -> None:
        interrupt = asyncio.get_running_loop().create_future()
        assert await bounded(hook(), None, interrupt) == 3
        assert not interrupt.cancelled()

    run(scenario())


@pytest.mark.usefixtures("short_grace")
def test_an_interrupt_leaves_a_stubborn_hook_behind() -> None:
    async def scenario() -> None:
        stubborn = Stubborn()
        interrupt = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(bounded(stubborn.hook(), None, interrupt))
        await stubborn.begun.wait()
        interrupt.set_result(None)
        with pytest.raises(HookStuck, match=r"0\.05 s after"):
            await task
        stubborn.let_go.set()
        await stubborn.ended.wait()

    run(scenario())
