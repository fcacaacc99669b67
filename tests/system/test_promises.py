"""What is promised of many workers at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronopype_mp import NetworkStatus, Supervision
from chronopype_mp.events import NetworkChanged, WorkerDied
from tests.system.clocks import Watched, run
from tests.system.processors import Network, Scribe

LONG = float(os.environ.get("CHRONOPYPE_MP_TEST_SECONDS", "8"))
"""Seconds; the promise is kept for 120."""


@pytest.fixture
def two_busy_loops() -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for process in busy:
        process.kill()
        process.wait()


@pytest.mark.alone
@pytest.mark.timeout(LONG + 240)
@pytest.mark.usefixtures("two_busy_loops")
def test_no_worker_is_killed_for_a_machine_that_is_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tick_size=0.05)
        for number in range(50):
            watched.clock.add_processor(Scribe(tmp_path / f"{number}"), name=f"{number}")
        async with watched.clock as clock:
            for handle in clock.workers:
                await handle.wait_ready()
            pids = [handle.pid for handle in clock.workers]
            await watched.run_for(LONG)
            assert [handle.pid for handle in clock.workers] == pids
        assert not watched.events.of(WorkerDied)

    asyncio.run(scenario())


class NeverStops(Network):
    """Hangs in stop_network, and swallows what is to end that."""

    stop_network_timeout = 1000.0

    async def stop_network(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue


@pytest.mark.alone
def test_a_hundred_workers_that_hang_in_stop_network_hold_up_the_exit_for_one_grace(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        grace = 2.0
        watched = Watched(tick_size=0.5, supervision=Supervision(stop_grace=grace))
        for number in range(100):
            watched.clock.add_processor(NeverStops(tmp_path / "notes"), name=f"{number}")
        async with watched.clock:
            await watched.events.wait_for(
                NetworkChanged, count=100, after=NetworkStatus.CONNECTED, timeout=30.0
            )
            began = time.monotonic()
        assert time.monotonic() - began < grace + 2.0
        assert len(watched.events.of(WorkerDied)) == 100

    run(scenario())
