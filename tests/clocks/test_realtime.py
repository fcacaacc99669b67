"""RealtimeClock: which ticks a run fires, when it begins and when it ends."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chronopype_mp.clocks import ClockMode, RealtimeClock
from chronopype_mp.clocks.config import ClockConfig
from chronopype_mp.core.schedule import Schedule
from chronopype_mp.core.worker_events import WorkerDied, WorkerReady
from chronopype_mp.exceptions import ClockContextError, ClockError, ConfigError
from tests.clocks.bench import WALL, Bench, Scribe
from tests.waiting import run, turns


def test_the_mode_must_be_realtime() -> None:
    with pytest.raises(ClockError, match="RealtimeClock requires REALTIME mode, not BACKTEST"):
        RealtimeClock(ClockConfig(clock_mode=ClockMode.BACKTEST), launcher="inline")


def test_before_the_entry_the_timestamp_is_the_boundary_before_now() -> None:
    bench = Bench(wall=WALL + 7.3, tick_size=0.5)
    assert bench.clock.current_timestamp == WALL + 7.0
    assert bench.clock.tick_counter == 0
    bench.time.advance(0.2)
    assert bench.clock.current_timestamp == WALL + 7.5


# What a run refuses


def test_a_run_needs_a_clock_that_is_entered() -> None:
    async def scenario() -> None:
        bench = Bench()
        for attempt in (bench.clock.run, lambda: bench.clock.run_til(WALL + 5)):
            with pytest.raises(ClockContextError, match="Clock must be started in a context"):
                await attempt()
        async with bench.clock:
            pass
        with pytest.raises(ClockContextError, match="Clock must be started in a context"):
            await bench.clock.run()

    run(scenario())


def test_one_run_at_a_time() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock, bench.running():
            assert bench.clock.is_running
            for attempt in (bench.clock.run, lambda: bench.clock.run_til(WALL + 5)):
                with pytest.raises(ClockError, match="Clock is already running"):
                    await attempt()
            # The one that was going is not disturbed.
            await bench.tick(2)
        assert not bench.clock.is_running

    run(scenario())


@pytest.mark.parametrize("target", [math.nan, math.inf, "soon", None])
def test_a_target_is_a_finite_number(target: Any) -> None:
    async def scenario() -> None:
        async with Bench().clock as clock:
            with pytest.raises(ConfigError, match="target_time"):
                await clock.run_til(target)

    run(scenario())


def test_a_target_in_the_past_returns_at_once_without_a_tick() -> None:
    async def scenario() -> None:
        bench = Bench(wall=WALL + 0.5)
        async with bench.clock:
            await bench.clock.run_til(WALL)
            await bench.clock.run_til(WALL + 0.5)
            assert bench.clock.tick_counter == 0

    run(scenario())


# Which ticks


def test_every_processor_runs_every_tick_and_the_counts_are_exact() -> None:
    async def scenario() -> None:
        bench = Bench(tick_size=0.1)
        scribes = [Scribe(str(number)) for number in range(3)]
        handles = [bench.clock.add_processor(scribe) for scribe in scribes]
        async with bench.clock:
            await bench.ready()
            running = asyncio.create_task(bench.clock.run_til(WALL + 2))
            await turns()
            await bench.tick(20)
            await running
        expected = [WALL + number / 10 for number in range(1, 21)]
        assert bench.timestamps == expected
        assert bench.clock.position == (20, WALL + 2, 0)
        for scribe, handle in zip(scribes, handles, strict=True):
            assert scribe.ticks == expected
            statistics = handle.statistics()
            assert (statistics.published, statistics.run) == (20, 20)
            assert (statistics.missed, statistics.skipped, statistics.lost) == (0, 0, 0)

    run(scenario())


def test_many_ticks_in_no_time_kill_no_worker() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            # More than the seconds after which a worker that does not beat is stalled.
            await bench.tick(300)
        assert bench.events.of(WorkerDied) == []
        assert len(scribe.ticks) == 300

    run(scenario())


def test_a_run_waits_for_the_first_boundary_that_comes() -> None:
    async def scenario() -> None:
        bench = Bench(wall=WALL + 0.75)
        async with bench.clock, bench.running():
            bench.time.advance(0.25)
            await bench.until(lambda: len(bench.ticks) == 1)
            await bench.tick(1)
        assert bench.timestamps == [WALL + 1, WALL + 2]

    run(scenario())


def test_boundaries_that_nobody_was_awake_for_are_skipped_and_counted() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        handle = bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(1)
            bench.time.advance(5.5)
            await bench.until(lambda: len(bench.ticks) == 2)
            bench.time.advance(0.5)
            await bench.until(lambda: len(bench.ticks) == 3)
        assert scribe.ticks == bench.timestamps == [WALL + 1, WALL + 2, WALL + 7]
        assert bench.clock.position == (3, WALL + 7, 4)
        # They were never published, so no worker has missed them.
        assert handle.statistics().published == 3
        assert handle.statistics().largest_gap == 5.0

    run(scenario())


def test_a_second_run_goes_on_where_time_is() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        bench.clock.add_processor(scribe)
        async with bench.clock:
            await bench.ready()
            async with bench.running():
                await bench.tick(2)
            bench.time.advance(10.5)
            async with bench.running():
                bench.time.advance(0.5)
                await bench.until(lambda: len(bench.ticks) == 3)
                await bench.tick(1)
        assert scribe.ticks == [WALL + 1, WALL + 2, WALL + 13, WALL + 14]
        # Between two runs nothing is skipped.
        assert bench.clock.position == (4, WALL + 14, 0)

    run(scenario())


def test_no_boundary_is_ticked_twice_by_two_runs() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock:
            for _ in range(3):
                running = asyncio.create_task(bench.clock.run_til(WALL + 1))
                await turns()
                if not bench.ticks:
                    await bench.tick(1)
                await running
        assert bench.timestamps == [WALL + 1]

    run(scenario())


# When it ends


def test_a_run_ends_at_its_target_with_a_boundary_there_included() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run_til(WALL + 3))
            await turns()
            await bench.tick(2)
            await turns()
            assert not running.done()
            await bench.tick(1)
            await running
            assert not bench.clock.is_running
        assert bench.timestamps == [WALL + 1, WALL + 2, WALL + 3]

    run(scenario())


def test_a_run_may_end_between_two_boundaries() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run_til(WALL + 1.5))
            await turns()
            await bench.tick(1)
            bench.time.advance(0.4)
            await turns()
            assert not running.done()
            bench.time.advance(0.1)
            await running
        assert bench.timestamps == [WALL + 1]

    run(scenario())


@settings(max_examples=40)
@given(
    wall=st.floats(1e9, 2e9),
    tick_size=st.sampled_from([0.01, 0.05, 0.1, 0.3, 1.0, 60.0]),
    ticks=st.integers(1, 5),
)
def test_a_target_that_is_computed_from_the_timestamp_is_included(
    wall: float, tick_size: float, ticks: int
) -> None:
    schedule = Schedule(tick_size)
    # Otherwise the first tick needs no time to pass.
    assume(schedule.timestamp(schedule.number_at(wall) + 1) - wall > 1e-5)

    async def scenario() -> None:
        bench = Bench(wall=wall, tick_size=tick_size)
        async with bench.clock as clock:
            target = clock.current_timestamp + ticks * tick_size
            last = schedule.number_at(clock.current_timestamp) + ticks
            running = asyncio.create_task(clock.run_til(target))
            await turns()
            await bench.tick(ticks)
            await running
            assert clock.position == (ticks, schedule.timestamp(last), 0)

    run(scenario())


def test_on_the_machines_clocks_a_boundary_at_the_target_is_included_every_time() -> None:
    async def scenario() -> None:
        for _ in range(20):
            clock = RealtimeClock(
                ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.01), launcher="inline"
            )
            schedule = Schedule(0.01)
            async with clock:
                last = schedule.number_at(time.time()) + 2
                await clock.run_til(schedule.timestamp(last))
            # One tick may be skipped on a busy machine, but none is left out.
            _, timestamp, skipped = clock.position
            assert schedule.number_at(timestamp) + skipped >= last

    run(scenario())


def test_the_clocks_end_time_ends_every_run() -> None:
    async def scenario() -> None:
        bench = Bench(end_time=WALL + 2)
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run())
            await turns()
            await bench.tick(2)
            await running
            await bench.clock.run()
            assert bench.timestamps == [WALL + 1, WALL + 2]
            bench.time.advance(1.0)
            await bench.clock.run()
            await bench.clock.run_til(WALL + 9)
        assert bench.timestamps == [WALL + 1, WALL + 2]

    run(scenario())


def test_a_target_before_the_end_time_counts() -> None:
    async def scenario() -> None:
        bench = Bench(end_time=WALL + 3)
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run_til(WALL + 1))
            await turns()
            await bench.tick(1)
            await running
            running = asyncio.create_task(bench.clock.run_til(WALL + 9))
            await turns()
            await bench.tick(2)
            await running
        assert bench.timestamps == [WALL + 1, WALL + 2, WALL + 3]

    run(scenario())


# When it begins


def test_no_tick_is_due_before_the_start_time_and_one_is_due_at_it() -> None:
    async def scenario() -> None:
        bench = Bench(start_time=WALL + 3)
        scribe = Scribe()
        bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            bench.time.advance(2.5)
            await turns()
            assert bench.clock.tick_counter == 0
            bench.time.advance(0.5)
            await bench.until(lambda: len(bench.ticks) == 1)
            await bench.tick(1)
        assert scribe.ticks == [WALL + 3, WALL + 4]
        assert bench.clock.position.skipped == 0

    run(scenario())


def test_a_start_time_between_boundaries_waits_for_the_next_one() -> None:
    async def scenario() -> None:
        bench = Bench(start_time=WALL + 1.5)
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run_til(WALL + 3))
            await turns()
            bench.time.advance(1.5)
            await turns()
            assert bench.clock.tick_counter == 0
            bench.time.advance(0.5)
            await bench.until(lambda: len(bench.ticks) == 1)
            await bench.tick(1)
            await running
        assert bench.timestamps == [WALL + 2, WALL + 3]

    run(scenario())


def test_a_run_that_ends_before_the_start_time_has_no_tick() -> None:
    async def scenario() -> None:
        bench = Bench(start_time=WALL + 10)
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run_til(WALL + 2))
            await turns()
            bench.time.advance(1.0)
            await turns()
            assert not running.done()
            bench.time.advance(1.0)
            await running
        assert bench.clock.position == (0, WALL, 0)

    run(scenario())


def test_a_start_time_in_the_past_changes_nothing() -> None:
    async def scenario() -> None:
        bench = Bench(start_time=WALL - 1000)
        async with bench.clock, bench.running():
            await bench.tick(2)
        assert bench.timestamps == [WALL + 1, WALL + 2]

    run(scenario())


def test_a_start_time_on_the_event_loops_time_makes_that_the_time_scale() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        schedule = Schedule(0.02)
        first = schedule.number_at(loop.time()) + 5
        start, target = schedule.timestamp(first), schedule.timestamp(first + 5)
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.02, start_time=start)
        clock = RealtimeClock(config, launcher="inline")
        scribe = Scribe()
        handle = clock.add_processor(scribe)
        async with clock:
            assert abs(clock.current_timestamp - loop.time()) < 1.0
            await handle.wait_ready()
            await clock.run_til(target)
            assert loop.time() >= target
        assert scribe.ticks
        assert start <= scribe.ticks[0] <= scribe.ticks[-1] <= target
        assert clock.position.seq + clock.position.skipped == 6

    run(scenario())


# The wall clock, and cancelling


def test_setting_the_wall_clock_during_a_run_moves_neither_ticks_nor_the_end() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run_til(WALL + 3))
            await turns()
            for wall in (WALL + 5000, WALL - 5000, 0.0):
                bench.time.set_wall(wall)
                await bench.tick(1)
            await running
        assert bench.timestamps == [WALL + 1, WALL + 2, WALL + 3]

    run(scenario())


@pytest.mark.parametrize("shift", [-3600.0, 3600.0])
def test_a_target_that_is_computed_from_a_wall_clock_that_was_set_is_as_far_away(
    shift: float,
) -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock:
            bench.time.set_wall(WALL + shift)
            running = asyncio.create_task(bench.clock.run_til(bench.time.wall() + 2.5))
            await turns()
            await bench.tick(2)
            bench.time.advance(0.5)
            await running
        # Timestamps go on as they began.
        assert bench.timestamps == [WALL + 1, WALL + 2]

    run(scenario())


def test_a_run_ends_with_its_target_and_leaving_waits_for_no_tick() -> None:
    async def scenario() -> None:
        bench = Bench(tick_size=3600.0)
        bench.clock.add_processor(Scribe())
        async with bench.clock as clock:
            await bench.ready()
            run_of_clock = asyncio.create_task(clock.run_til(target_time=WALL + 1.0))
            await turns()
            bench.time.advance(1.0)
            await run_of_clock
        assert bench.timestamps == []

    run(scenario())


def test_cancelling_a_run_ends_the_ticks_and_leaves_the_workers_running() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        handle = bench.clock.add_processor(scribe)
        async with bench.clock:
            await bench.ready()
            async with bench.running() as running:
                await bench.tick(1)
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
                assert not bench.clock.is_running
                bench.time.advance(5.5)
                await turns()
            assert bench.clock.tick_counter == 1
            assert "stop" not in scribe.notes
            async with bench.running():
                bench.time.advance(0.5)
                await bench.until(lambda: len(bench.ticks) == 2)
        assert scribe.ticks == [WALL + 1, WALL + 7]
        assert len(bench.events.of(WorkerReady)) == 1
        assert handle.incarnation == 1

    run(scenario())


def test_the_end_of_a_run_that_was_cancelled_does_not_end_the_next_one() -> None:
    async def scenario() -> None:
        bench = Bench()

        async def one_run_and_another() -> None:
            try:
                await bench.clock.run_til(WALL + 1)
            except asyncio.CancelledError:
                # As `asyncio.timeout` would: straight on, before the loop has turned.
                await bench.clock.run_til(WALL + 3)

        async with bench.clock:
            runner = asyncio.create_task(one_run_and_another())
            await turns()
            # Both at once: the run is cancelled, and its end comes.
            runner.cancel()
            bench.time.advance(1.0)
            bench.block_until_ticked(1)
            await turns()
            assert bench.clock.is_running
            await bench.tick(2)
            await runner
        assert bench.timestamps == [WALL + 1, WALL + 2, WALL + 3]

    run(scenario())


def test_a_failure_of_the_ticker_thread_ends_the_run_with_it() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock:
            running = asyncio.create_task(bench.clock.run())
            await bench.tick(1)
            assert bench.clock._coordinator is not None
            failure = OSError("no more sockets")

            def fail(position: object) -> None:
                raise failure

            bench.clock._coordinator.ticker.on_tick = fail
            bench.time.advance(1.0)
            with pytest.raises(OSError, match="no more sockets"):
                await running
            with pytest.raises(OSError, match="no more sockets") as again:
                await bench.clock.run()
            assert "enter it again" in again.value.__notes__[0]
            assert not bench.clock.is_running
        async with bench.clock, bench.running():
            await bench.tick(1)

    run(scenario())
