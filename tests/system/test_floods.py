"""What a worker reports is bounded, however much it wants to report and however little is read."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import psutil
import pytest

from chronopype_mp import NetworkStatus, Supervision, TickProcessor
from chronopype_mp.events import NetworkChanged, ProcessorFailed
from tests.system.clocks import Watched, eventually, run
from tests.system.processors import Network
from tests.waiting import running

MEGABYTE = 1 << 20

BLOCKED = 4.0
"""Seconds for which the owner reads nothing."""

HUGE = 5_000_000

LONG = 100_000
"""Characters; more than any report holds, and few enough to be formatted often."""

LOGGER = "tests.floods"

every_process_launcher = pytest.mark.parametrize("launcher", ["forkserver", "spawn"])


class Floods(TickProcessor):
    """Logs and fails with long texts, as fast as it can for half a second per tick."""

    def tick(self, timestamp: float) -> None:
        long = "x" * LONG
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            try:
                raise ValueError(long)
            except ValueError:
                logging.getLogger(LOGGER).exception(long, stack_info=True, extra={"body": long})
        raise ValueError(long)


@every_process_launcher
def test_a_flood_of_huge_reports_takes_bounded_memory_in_a_blocked_owner(launcher: str) -> None:
    me = psutil.Process()

    async def scenario() -> None:
        patient = Supervision(loop_stall_timeout=30.0)
        watched = Watched(
            launcher=launcher, max_retries=0, supervision=patient, processor_timeout=30.0
        )
        async with watched.clock as clock, running(clock):
            handle = clock.add_processor(Floods(), name="a")
            await handle.wait_ready()
            await watched.events.wait_for(ProcessorFailed, worker="a")
            before = me.memory_info().rss
            time.sleep(BLOCKED)  # noqa: ASYNC251 – the fault under test
            grown = me.memory_info().rss - before
            await eventually(lambda: handle.statistics().reports_lost > 0)
            assert grown < 32 * MEGABYTE, grown
            failures = watched.events.of(ProcessorFailed)
            assert max(len(event.traceback) for event in failures) < 40_000
            assert handle.restarts == 0

    logger = logging.getLogger(LOGGER)
    propagate, logger.propagate = logger.propagate, False  # pytest keeps each in memory
    logger.addHandler(handler := logging.NullHandler())
    try:
        run(scenario())
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class BreaksLoudly(Network):
    """Connects, and then fails with a text of megabytes."""

    async def check_network(self) -> NetworkStatus:
        if self.up:
            raise ValueError("x" * HUGE)
        return NetworkStatus.NOT_CONNECTED


@every_process_launcher
def test_a_huge_error_text_hides_no_status(launcher: str, tmp_path: Path) -> None:
    processor = BreaksLoudly(tmp_path / "network")
    processor.check_network_interval = 0.1
    processor.network_error_wait_time = 600.0

    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        async with watched.clock as clock, running(clock):
            handle = clock.add_processor(processor, name="a")
            change = await watched.events.wait_for(
                NetworkChanged, worker="a", after=NetworkStatus.ERROR
            )
            assert change.error is not None
            assert len(change.error) < 10_000
            assert handle.network_status is NetworkStatus.ERROR
            assert handle.restarts == 0
            assert handle.statistics().reports_lost == 0

    run(scenario())


@every_process_launcher
def test_at_the_smallest_tick_size_workers_start_and_a_run_and_the_clock_end(
    launcher: str,
) -> None:
    async def scenario() -> None:
        watched = Watched(tick_size=1e-4, launcher=launcher)
        async with watched.clock as clock:
            async with running(clock):
                handle = clock.add_processor(TickProcessor(), name="a")
                await handle.wait_ready()
                clock.pause_processor("a")
                await watched.ticks(100)
                clock.resume_processor("a")
                await handle.restart()
                await watched.ticks(100)
            seq = clock.tick_counter
            clock.remove_processor("a")
            await handle.wait_stopped()
            assert clock.tick_counter == seq

    run(scenario())
