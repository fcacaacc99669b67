"""Row 30 of the table of faults: many workers stopped at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from chronopype_mp import Supervision, TickProcessor, WorkerStatus
from chronopype_mp.events import WorkerDied
from tests.system.clocks import Watched
from tests.system.neighbours import Neighbourhood, row

pytestmark = pytest.mark.alone

ROUNDS = 3
"""How often to measure at most. The first rounds of a busy machine may mislead."""

ROOM = 1.5
"""How much longer than three times as long three times as many may take."""


async def seconds_to_stop(workers: int) -> float:
    watched = Watched(supervision=Supervision(start_timeout=120.0, loop_stall_timeout=60.0))
    clock = watched.clock
    handles = [clock.add_processor(TickProcessor(), name=f"w{i}") for i in range(workers)]
    async with clock:
        for handle in handles:
            await handle.wait_ready()
        began = time.monotonic()
        await clock.shutdown()
        took = time.monotonic() - began
        assert all(handle.status is WorkerStatus.STOPPED for handle in handles)
        assert not watched.events.of(WorkerDied)
    return took


@row(30)
@pytest.mark.timeout(600)
def test_stopping_three_times_as_many_workers_takes_about_three_times_as_long(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        # The neighbours are another clock's, and slow, because the cores are busy with starts.
        async with Neighbourhood(tmp_path, launcher=launcher, tick_size=1.0):
            few, many = [], []
            for _ in range(ROUNDS):
                few.append(await seconds_to_stop(100))
                many.append(await seconds_to_stop(300))
                ratio = statistics.median(many) / statistics.median(few)
                if ratio <= 3 * ROOM:
                    break
        print(f"100 workers: {few}, 300 workers: {many}, ratio {ratio:.2f}")
        assert ratio <= 3 * ROOM, (few, many)

    asyncio.run(scenario())
