"""What happens to one worker does not happen to the others."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from chronopype_mp import Supervision
from chronopype_mp.events import DeathReason, WorkerDied, WorkerReady
from tests.system.clocks import Watched, closes, run
from tests.system.processors import BlockOnce, Scribe, ticks_in


@pytest.mark.quiet
def test_five_workers_run_every_tick_while_others_block_die_and_are_stopped(tmp_path: Path) -> None:
    run(_five_of_eight(tmp_path))


async def _five_of_eight(tmp_path: Path) -> None:
    watched = Watched(supervision=Supervision(loop_stall_timeout=4.0))
    clock, events = watched.clock, watched.events
    healthy = [clock.add_processor(Scribe(tmp_path / f"{n}"), name=f"{n}") for n in range(5)]
    blocker = clock.add_processor(BlockOnce(tmp_path / "blocker", 3.0), name="blocker")
    killed = clock.add_processor(Scribe(tmp_path / "killed"), name="killed")
    stopped = clock.add_processor(Scribe(tmp_path / "stopped"), name="stopped")
    async with clock:
        for handle in clock.workers:
            await handle.wait_ready()
        pids = {handle.name: handle.pid for handle in clock.workers}
        await watched.run_for(1.0)
        os.kill(pids["killed"] or 0, signal.SIGKILL)
        os.kill(pids["stopped"] or 0, signal.SIGSTOP)
        await watched.run_for(6.5)
        for name in ("killed", "stopped"):
            ready = await events.wait_for(WorkerReady, worker=name, incarnation=2)
            assert ready.pid != pids[name]
        assert [blocker.pid, *(h.pid for h in healthy)] == [
            pids["blocker"],
            *(pids[h.name] for h in healthy),
        ]
    published = watched.published
    for handle in healthy:
        assert ticks_in(tmp_path / handle.name) == published
        statistics = handle.statistics()
        assert statistics.run == statistics.published == len(published)
    gaps = [b - a for a, b in pairwise(published)]
    assert max(gaps) <= 2 * watched.tick_size + 1e-6
    assert blocker.statistics().missed > 40
    assert blocker.restarts == 0
    (death,) = events.of(WorkerDied, worker="killed")
    assert (death.reason, death.exitcode) == (DeathReason.SIGNALLED, -signal.SIGKILL)
    (death,) = events.of(WorkerDied, worker="stopped")
    assert death.reason is DeathReason.STOPPED
    assert all(closes(handle) for handle in (*healthy, blocker, killed, stopped))


@pytest.mark.alone
def test_a_hundred_workers_start_tick_at_10_hz_and_stop_without_a_missed_tick(
    tmp_path: Path,
) -> None:
    run(_a_hundred(tmp_path))


async def _a_hundred(tmp_path: Path) -> None:
    watched = Watched(tick_size=0.1)
    clock = watched.clock
    for number in range(100):
        clock.add_processor(Scribe(tmp_path / f"{number}"), name=f"{number}")
    async with clock:
        for handle in clock.workers:
            await handle.wait_ready()
        await watched.run_for(10.0)
    assert len(watched.published) >= 99
    assert clock.position.skipped == 0
    for handle in clock.workers:
        statistics = handle.statistics()
        assert (statistics.missed, statistics.lost) == (0, 0), handle
        assert ticks_in(tmp_path / handle.name) == watched.published
    assert not watched.events.of(WorkerDied)
