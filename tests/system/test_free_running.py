"""Free-running ticks: every one is run by every worker, however fast they are published."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.free_running import FreeRunningClock
from chronopype_mp import ClockConfig, ClockMode, Supervision, TickProcessor
from chronopype_mp.events import WorkerReady
from chronopype_mp.testing import EventRecorder, faults
from tests.system.clocks import eventually, run
from tests.system.neighbours import QUICK
from tests.system.processors import Scribe, ticks_in
from tests.waiting import running

COUNT = 20_000


class AsyncScribe(Scribe):
    """Suspends in each tick."""

    async def async_tick(self, timestamp: float) -> None:
        await asyncio.sleep(0)
        self.tick(timestamp)


def make_clock() -> FreeRunningClock:
    config = ClockConfig(clock_mode=ClockMode.BACKTEST, tick_size=0.5, on_error="continue")
    return FreeRunningClock(
        config, launcher="forkserver", supervision=Supervision(backoff=QUICK), name="free"
    )


def test_none_is_lost_on_any_worker_whatever_its_pace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_clock() as clock:
            fast = [clock.add_processor(TickProcessor(), name=f"fast-{n}") for n in range(2)]
            slow = [
                clock.add_processor(Scribe(tmp_path / "plain"), name="plain"),
                clock.add_processor(AsyncScribe(tmp_path / "async"), name="async"),
            ]
            for handle in (*fast, *slow):
                await handle.wait_ready()
            await clock.run_til(0.5 * COUNT / 2)
            await clock.run_til(0.5 * COUNT)
        for handle in (*fast, *slow):
            statistics = handle.statistics()
            assert statistics.published == statistics.run == COUNT, handle.name
            assert statistics.executions.count == COUNT
        expected = [0.5 * number for number in range(1, COUNT + 1)]
        for name in ("plain", "async"):
            assert ticks_in(tmp_path / name) == expected

    run(scenario())


def test_a_worker_that_dies_holds_up_nobody_and_its_ticks_are_accounted_for(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with make_clock() as clock:
            events = EventRecorder(clock.events)
            victim = clock.add_processor(Scribe(tmp_path / "victim"), name="victim")
            other = clock.add_processor(TickProcessor(), name="other")
            for handle in (victim, other):
                await handle.wait_ready()
            async with running(clock):
                await eventually((tmp_path / "victim").exists)
                faults.kill(victim)
                await events.wait_for(WorkerReady, worker="victim", incarnation=2)
                at = clock.position.seq
                await eventually(lambda: clock.position.seq > at + 10_000)
        for handle in (victim, other):
            s = handle.statistics()
            assert s.published == s.run + s.missed + s.skipped + s.lost, handle.name
        assert (other.statistics().missed, other.statistics().lost) == (0, 0)
        assert len(ticks_in(tmp_path / "victim")) >= victim.statistics().run

    run(scenario())
