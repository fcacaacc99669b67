"""Runs belong to every clock: one whose time is another has to say no more than that."""

from __future__ import annotations

import asyncio
import math

import pytest

from chronopype_mp.clocks import BaseClock, ClockMode
from chronopype_mp.clocks.config import ClockConfig
from chronopype_mp.clocks.runs import OnEnd, Runs
from chronopype_mp.coordinator.failures import ProcessorFailure
from chronopype_mp.coordinator.ticker import FreeRun
from chronopype_mp.exceptions import ClockContextError, ClockError, ConfigError
from tests.clocks.bench import Scribe
from tests.waiting import run, turns


class CountingClock(BaseClock):
    """Its time is a number that grows by the ticks, which come as fast as they are run."""

    _every_tick = True

    def _settle_time(self) -> None:
        pass

    def _now(self) -> float:
        return 100.0

    def _plan(self, target: float | None, on_end: OnEnd) -> FreeRun | None:
        last = 10**9 if target is None else self._schedule.number_at(target)
        first = self._schedule.number_at(self.current_timestamp) + 1
        if last < first:
            return None
        return FreeRun(self._schedule, first, last + 1 - first, 100, on_end)


def counting(on_error: str = "continue", end_time: float = 0.0) -> CountingClock:
    config = ClockConfig(
        clock_mode=ClockMode.BACKTEST,
        on_error=on_error,  # type: ignore[arg-type]
        end_time=end_time,
        max_retries=0,
    )
    return CountingClock(config, launcher="inline")


def test_a_clock_with_another_time_has_all_of_a_run() -> None:
    async def scenario() -> None:
        clock = counting()
        scribe = Scribe()
        handle = clock.add_processor(scribe)
        assert clock.current_timestamp == 100.0
        with pytest.raises(ClockContextError, match="must be started in a context"):
            await clock.run_til(103.0)
        async with clock:
            await handle.wait_ready()
            await clock.run_til(103.0)
            await clock.run_til(103.0)
            await clock.run_til(104.5)
            assert clock.position == (4, 104.0, 0)
            with pytest.raises(ConfigError, match="target_time"):
                await clock.run_til(math.nan)
            running = asyncio.create_task(clock.run())
            await turns()
            assert clock.is_running
            with pytest.raises(ClockError, match="already running"):
                await clock.run_til(105.0)
            await clock.shutdown()
            await running
        assert not clock.is_running
        assert scribe.ticks[:4] == [101.0, 102.0, 103.0, 104.0]

    run(scenario())


def test_the_end_time_ends_the_runs_of_every_clock() -> None:
    async def scenario() -> None:
        clock = counting(end_time=102.0)
        handle = clock.add_processor(Scribe())
        async with clock:
            await handle.wait_ready()
            await clock.run()
            await clock.run_til(200.0)
            assert clock.position == (2, 102.0, 0)

    run(scenario())


def test_a_failure_ends_the_run_of_every_clock() -> None:
    async def scenario() -> None:
        clock = counting(on_error="raise")
        bad = Scribe("bad", fails=("tick",))
        clock.add_processor(bad)
        async with clock:
            with pytest.raises(ValueError, match="tick of bad"):
                await clock.run()
            assert not clock.is_running

    run(scenario())


def test_the_first_of_several_failures_is_kept_for_the_next_run() -> None:
    async def scenario() -> None:
        runs = Runs()
        runs.fail(ProcessorFailure("a", KeyError("first")))
        runs.fail(ProcessorFailure("b", KeyError("second")))
        assert not runs.end()
        with pytest.raises(KeyError, match="first"):
            await runs.run(None, lambda on_end: None)  # type: ignore[arg-type]
        await runs.run(None, lambda on_end: None)  # type: ignore[arg-type]

    run(scenario())


def test_a_breakdown_comes_before_the_failures_and_stays() -> None:
    async def scenario() -> None:
        runs = Runs()
        runs.fail(ProcessorFailure("a", KeyError("a")))
        runs.break_down(OSError("no more sockets"))
        for _ in range(2):
            with pytest.raises(OSError, match="no more sockets"):
                await runs.run(None, lambda on_end: None)  # type: ignore[arg-type]
            with pytest.raises(OSError, match="no more sockets"):
                await runs.wait_until(asyncio.sleep(0))

    run(scenario())


def test_waiting_ends_with_what_is_waited_for_or_with_a_failure() -> None:
    async def scenario() -> None:
        runs = Runs()
        await runs.wait_until(asyncio.sleep(0))
        cancelled: list[bool] = []

        async def never() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        waiting = asyncio.create_task(runs.wait_until(never()))
        await turns()
        runs.fail(ProcessorFailure("a", KeyError("a")))
        with pytest.raises(ClockError, match="Failed to start processor 'a'"):
            await waiting
        await turns()
        assert cancelled == [True]

    run(scenario())


def test_an_unexpected_error_of_what_is_waited_for_is_raised() -> None:
    async def scenario() -> None:
        async def broken() -> None:
            raise LookupError("no such worker")

        with pytest.raises(LookupError):
            await Runs().wait_until(broken())

    run(scenario())
