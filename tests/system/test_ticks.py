"""Ticks: on time, in order, each accounted for."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from chronopype_mp import Supervision
from chronopype_mp.core.schedule import Schedule
from tests.system.clocks import Watched, closes, run
from tests.system.processors import Scribe, ran, run_times_in, ticks_in

MEGABYTE = 1 << 20


@pytest.mark.quiet
def test_timestamps_are_multiples_that_rise_and_nothing_before_ready_counts(
    tmp_path: Path,
) -> None:
    run(_timestamps(tmp_path))


async def _timestamps(tmp_path: Path) -> None:
    watched = Watched(tick_size=0.05)
    async with watched.clock as clock:
        early = clock.add_processor(Scribe(tmp_path / "early"), name="early")
        await early.wait_ready()
        running = asyncio.create_task(watched.run_for(2.0))
        await watched.ticks(8)
        late = clock.add_processor(Scribe(tmp_path / "late"), name="late")
        await running
    schedule = Schedule(0.05)
    published = watched.published
    assert all(a < b for a, b in pairwise(published))
    assert all(schedule.timestamp(schedule.number_at(t)) == t for t in published)
    assert ticks_in(tmp_path / "early") == published
    late_ticks = ticks_in(tmp_path / "late")
    # From the first one on it got every one: none was lost to a late subscription.
    assert late_ticks == published[-len(late_ticks) :]
    assert len(late_ticks) == late.statistics().published >= 10
    assert closes(early)
    assert closes(late)


@pytest.mark.quiet
def test_an_owner_that_blocks_its_event_loop_delays_no_tick(tmp_path: Path) -> None:
    run(_blocked_owner(tmp_path / "ticks"))


async def _blocked_owner(path: Path) -> None:
    watched = Watched(tick_size=0.05)
    async with watched.clock as clock:
        handle = clock.add_processor(Scribe(path), name="a")
        await handle.wait_ready()
        running = asyncio.create_task(watched.run_for(2.0))
        await watched.ticks(5)
        began = time.time()
        time.sleep(1.0)  # noqa: ASYNC251 – the fault under test
        ended = time.time()
        await running
    assert clock.position.skipped == 0
    assert ticks_in(path) == watched.published
    during = [at for at in run_times_in(path) if began < at < ended]
    assert len(during) >= 18
    assert handle.restarts == 0


def test_a_worker_that_does_not_read_for_10_000_ticks_costs_no_memory_and_is_counted_exactly(
    tmp_path: Path,
) -> None:
    run(_stalled_reader(tmp_path / "ticks"))


async def _stalled_reader(path: Path) -> None:
    tick_size = 0.0005
    watched = Watched(tick_size=tick_size, supervision=Supervision(loop_stall_timeout=60.0))
    async with watched.clock as clock:
        handle = clock.add_processor(Scribe(path), name="a")
        await handle.wait_ready()
        await watched.run_for(0.5)
        assert handle.pid is not None
        os.kill(handle.pid, signal.SIGSTOP)
        me = psutil.Process()
        await watched.run_for(1.5)  # the queues, which are bounded, fill up
        before, seq = me.memory_info().rss, clock.tick_counter
        while clock.tick_counter < seq + 10_000:
            await watched.run_for(0.5)
        grown = me.memory_info().rss - before
        os.kill(handle.pid, signal.SIGCONT)
        await watched.run_for(1.0)
    published = watched.published
    assert grown < 4 * MEGABYTE, grown
    statistics = handle.statistics()
    assert statistics.published == len(published) == clock.tick_counter
    ticks = ticks_in(path)
    assert statistics.run == len(ticks) == len(set(ticks))
    assert statistics.missed == len(published) - len(ticks) > 10_000
    assert closes(handle)
    assert handle.restarts == 0


def test_a_run_that_is_cancelled_leaves_the_workers_running_and_can_be_followed_by_another(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        watched = Watched(tick_size=0.05)
        async with watched.clock as clock:
            handle = clock.add_processor(Scribe(tmp_path / "ticks"), name="a")
            await handle.wait_ready()
            running = asyncio.create_task(clock.run())
            await watched.ticks(3)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            count = clock.tick_counter
            pid = handle.pid
            await watched.run_for(0.3)
            assert handle.pid == pid
            assert clock.tick_counter > count
        assert ran(ticks_in(tmp_path / "ticks"), watched.published)

    run(scenario())
