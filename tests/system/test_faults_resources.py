"""Rows 25 and 26 of the table of faults, and what a worker may use: memory, cores, output."""

from __future__ import annotations

import logging
from pathlib import Path

import psutil
import pytest

from chronopype_mp import Limits, RestartBudget, Supervision, WorkerHandle, WorkerStatus
from chronopype_mp.events import (
    DeathReason,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStopping,
)
from chronopype_mp.testing import faults
from tests.system.clocks import eventually, run
from tests.system.neighbours import QUICK, SHORT, Neighbourhood, row
from tests.system.processors import Network, Scribe, run_times_in

MEGABYTE = 1 << 20

PATIENT = Supervision(backoff=QUICK)
"""A storm is made in the event loop, which does nothing else for a few seconds meanwhile."""


def limited(**limits: float) -> Supervision:
    return SHORT.model_copy(update={"limits": Limits(**limits)})


def notes_in(path: Path) -> list[str]:
    return path.read_text().splitlines()


async def restarted_in_order(n: Neighbourhood, victim: WorkerHandle, path: Path) -> WorkerDied:
    """Wait for the death of the first incarnation, and look whether it was an orderly one."""
    death = await n.events.wait_for(WorkerDied, worker=victim.name, incarnation=1)
    assert death.reason is DeathReason.LIMIT_EXCEEDED
    assert (death.exitcode, death.signal, death.ticks_lost) == (0, None, 0)
    stopping = await n.events.wait_for(WorkerStopping, worker=victim.name)
    assert stopping.detail == death.detail
    assert notes_in(path)[:3] == ["started", "stop begun", "stop ended"]
    await n.events.wait_for(WorkerReady, worker=victim.name, incarnation=2)
    assert victim.last_failure == death
    return death


@row(25)
def test_a_worker_that_leaks_past_max_rss_is_restarted_in_order_with_the_reason(
    tmp_path: Path, launcher: str
) -> None:
    policy = limited(max_rss=150 * MEGABYTE)

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=policy) as n:
            victim = await n.add(Network(tmp_path / "victim"), name="victim")
            await n.run_for(1.0)
            assert victim.restarts == 0
            faults.leak(victim, 200 * MEGABYTE)
            death = await restarted_in_order(n, victim, tmp_path / "victim")
            assert "above max_rss = 157,286,400" in (death.detail or "")
            assert death.rss > 200 * MEGABYTE
            await n.run_for(0.5)
            assert victim.restarts == 1

    run(scenario())


@row(25)
def test_a_worker_that_burns_more_than_max_cpu_is_restarted_in_order_with_the_reason(
    tmp_path: Path, launcher: str
) -> None:
    policy = limited(max_cpu=0.4, cpu_window=1.0)

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=policy) as n:
            victim = await n.add(Network(tmp_path / "victim"), name="victim")
            await n.run_for(2.0)
            assert victim.restarts == 0
            faults.burn_cpu(victim, 60.0)
            death = await restarted_in_order(n, victim, tmp_path / "victim")
            assert "above max_cpu = 0.4" in (death.detail or "")
            assert death.cpu > 0.4

    run(scenario())


@row(25)
def test_workers_past_max_lifetime_are_restarted_without_charge_and_not_together(
    tmp_path: Path, launcher: str
) -> None:
    policy = limited(max_lifetime=1.5, lifetime_jitter=0.5).model_copy(
        update={"budget": RestartBudget(max_restarts=0)}
    )

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=policy) as n:
            victims = [
                await n.add(Network(tmp_path / f"victim-{i}"), name=f"victim-{i}") for i in range(6)
            ]
            for victim in victims:
                death = await restarted_in_order(n, victim, tmp_path / victim.name)
                assert death.detail == "max_lifetime of 1.5 s is over"
                assert 0.7 < death.uptime < 1.5 * 1.5 + 1.0
            for victim in victims:
                await n.events.wait_for(WorkerReady, worker=victim.name, incarnation=3)
            firsts = [n.events.of(WorkerDied, worker=v.name)[0].at for v in victims]
            assert max(firsts) - min(firsts) > 0.05
            assert not n.events.of(WorkerQuarantined)

    run(scenario())


class Counting(logging.Handler):
    """Counts records and keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self.records = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1


@pytest.mark.alone
@row(26)
def test_a_storm_of_100_000_log_records_blocks_nobody_and_each_is_counted(
    tmp_path: Path, launcher: str
) -> None:
    me = psutil.Process()
    storm = 100_000
    logger, counting = logging.getLogger("chronopype_mp.faults"), Counting()

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=PATIENT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            pid = victim.pid
            await n.ticks(5)
            before = me.memory_info().rss
            faults.flood_logs(victim, storm)
            await eventually(
                lambda: counting.records + victim.statistics().reports_lost >= storm, 30.0
            )
            grown = me.memory_info().rss - before
            await goes_on(n, victim, tmp_path / "victim")
            # Of what was lost, a few may be beats.
            assert storm <= counting.records + victim.statistics().reports_lost <= storm + 20
            assert counting.records > 0
            assert grown < 64 * MEGABYTE
            assert (victim.pid, victim.restarts) == (pid, 0)

    propagate, logger.propagate = logger.propagate, False  # pytest keeps each in memory
    logger.addHandler(counting)
    try:
        run(scenario())
    finally:
        logger.removeHandler(counting)
        logger.propagate = propagate


@pytest.mark.alone
@row(26)
@pytest.mark.parametrize("stream", ["lines", "junk"])
def test_a_storm_of_output_blocks_nobody_and_its_lines_are_counted(
    tmp_path: Path, launcher: str, stream: str, capfd: pytest.CaptureFixture[str]
) -> None:
    me = psutil.Process()
    lines, size = 100_000, 5 * MEGABYTE

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=PATIENT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            pid = victim.pid
            await n.ticks(5)
            before = me.memory_info().rss
            if stream == "lines":
                faults.flood_output(victim, lines)
                await eventually(lambda: victim.statistics().output_lines == lines, 30.0)
            else:
                faults.junk_output(victim, size)
                # A line ends at one byte of 256; the long ones are cut in pieces.
                await eventually(lambda: victim.statistics().output_lines > 0.9 * size / 256, 30.0)
            grown = me.memory_info().rss - before
            await goes_on(n, victim, tmp_path / "victim")
            assert grown < 16 * MEGABYTE
            assert (victim.pid, victim.restarts) == (pid, 0)
            # What it said is in the dossier of a later death, still.
            faults.kill(victim)
            death = await n.events.wait_for(WorkerDied, worker="victim")
            assert len(death.output) == 50
            if stream == "lines":
                assert death.output[-1] == f"flood {lines - 1}"

    run(scenario())
    shown = capfd.readouterr()
    assert "lines not shown" in shown.out + shown.err


async def goes_on(n: Neighbourhood, victim: WorkerHandle, path: Path) -> None:
    """Wait until a worker runs ten more ticks."""
    so_far = len(run_times_in(path))
    await eventually(lambda: len(run_times_in(path)) >= so_far + 10)
    assert victim.status is WorkerStatus.READY
