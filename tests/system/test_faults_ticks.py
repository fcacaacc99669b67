"""Row 22 of the table of faults: workers that subscribe late, or do not read. See test_ticks.py."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from chronopype_mp import Supervision
from chronopype_mp.testing import faults
from tests.system.clocks import Watched, closes, run
from tests.system.neighbours import SHORT, Neighbourhood, row
from tests.system.processors import Scribe, ran, ticks_in
from tests.waiting import running

MEGABYTE = 1 << 20


@pytest.mark.quiet
@row(22)
def test_workers_that_join_while_ticks_are_published_miss_none_after_ready(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(
            tmp_path, launcher=launcher, tick_size=0.05, supervision=SHORT
        ) as n:
            joiners = []
            for i in range(8):
                await n.ticks(2)
                joiners.append(await n.add(Scribe(tmp_path / f"joiner-{i}"), name=f"joiner-{i}"))
            await n.ticks(10)
        for joiner in joiners:
            ticks = ticks_in(tmp_path / joiner.name)
            assert len(ticks) >= 10
            statistics = joiner.statistics()
            assert statistics.run == len(ticks)
            assert ran(ticks, n.published[-statistics.published :])

    run(scenario())


@pytest.mark.alone
@row(22)
def test_a_worker_that_does_not_read_for_10_000_ticks_takes_nothing_from_its_neighbours(
    tmp_path: Path, launcher: str
) -> None:
    patient = Supervision(loop_stall_timeout=120.0)

    async def scenario() -> None:
        watched = Watched(tick_size=0.001, launcher=launcher, supervision=patient)
        clock, me = watched.clock, psutil.Process()
        names = ("victim", "a", "b")
        handles = [clock.add_processor(Scribe(tmp_path / name), name=name) for name in names]
        victim, *neighbours = handles
        async with clock:
            for handle in handles:
                await handle.wait_ready()
            pids = [handle.pid for handle in handles]
            async with running(clock):
                await watched.ticks(100)
                faults.stop(victim)
                await watched.ticks(2_500)  # the queues, which are bounded, fill up
                before = me.memory_info().rss
                await watched.ticks(10_000)
                grown = me.memory_info().rss - before
                faults.resume(victim)
                await watched.ticks(200)
                assert [handle.pid for handle in handles] == pids
        assert grown < 4 * MEGABYTE, grown
        published = len(watched.published)
        for handle in handles:
            assert closes(handle)
            statistics = handle.statistics()
            ticks = ticks_in(tmp_path / handle.name)
            assert (statistics.run, statistics.published) == (len(ticks), published)
            assert statistics.missed == published - len(ticks)
            assert statistics.restarts == statistics.lost == 0
        assert victim.statistics().missed > 10_000
        for neighbour in neighbours:
            # At 1,000 ticks a second a core that is busy elsewhere costs some; none stands still.
            assert neighbour.statistics().missed < published / 5
            assert neighbour.statistics().largest_gap < 1.0

    run(scenario())
