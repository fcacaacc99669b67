"""Rows 16, 17, 18, 27 of the table of faults: when restarts are many, or cannot be had."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import multiprocess.forkserver
import psutil
import pytest

from chronopype_mp import RestartBudget, Supervision, TickProcessor, WorkerHandle, WorkerStatus
from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.supervisor import CLOCK_BUDGET
from chronopype_mp.events import (
    DeathReason,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
)
from chronopype_mp.launchers import ForkserverLauncher
from chronopype_mp.testing import EventRecorder, faults
from tests.system.clocks import eventually, run
from tests.system.neighbours import QUICK, SHORT, Neighbourhood, row
from tests.system.processors import Scribe

SECONDS = float(os.environ.get("CHRONOPYPE_MP_TEST_SECONDS", "16"))
"""Of random kills; 60 is what the table of faults asks for."""

MEGABYTE = 1 << 20

HEALTHY_AFTER = 1.0

THRIFTY = SHORT.model_copy(
    update={"budget": RestartBudget(max_restarts=2), "healthy_after": HEALTHY_AFTER}
)


async def kill_when_ready(n: Neighbourhood, victim: WorkerHandle, incarnation: int) -> None:
    await n.events.wait_for(WorkerReady, worker=victim.name, incarnation=incarnation)
    faults.kill(victim)
    await n.events.wait_for(WorkerDied, worker=victim.name, incarnation=incarnation)


@row(16)
def test_a_healthy_stretch_makes_the_next_failure_the_first_and_a_spent_budget_quarantines(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=THRIFTY) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            for incarnation in (1, 2):
                await kill_when_ready(n, victim, incarnation)
            await n.events.wait_for(WorkerReady, worker="victim", incarnation=3)
            await n.run_for(HEALTHY_AFTER + 0.3)
            for incarnation in (3, 4, 5):
                await kill_when_ready(n, victim, incarnation)
            quarantined = await n.events.wait_for(WorkerQuarantined, worker="victim")
            assert quarantined.restarts == 4
            assert victim.status is WorkerStatus.QUARANTINED
            assert victim.pid is None
            delays = [event.delay for event in n.events.of(WorkerBackingOff, worker="victim")]
            assert [delay > 0.0 for delay in delays] == [False, True, False, True]
            await n.run_for(0.5)
            assert victim.incarnation == 5
            await victim.restart()
            assert (victim.status, victim.incarnation) == (WorkerStatus.READY, 6)
            await kill_when_ready(n, victim, 6)  # the operator's restart has cleared the history
            await n.events.wait_for(WorkerReady, worker="victim", incarnation=7)

    run(scenario())


@row(16)
def test_a_quarantined_worker_gets_one_try_per_probation_interval(
    tmp_path: Path, launcher: str
) -> None:
    policy = THRIFTY.model_copy(
        update={"budget": RestartBudget(max_restarts=0), "probation_interval": 0.5}
    )

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=policy) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            for incarnation in (1, 2, 3):
                await kill_when_ready(n, victim, incarnation)
                quarantined = await n.events.wait_for(
                    WorkerQuarantined, worker="victim", count=incarnation
                )
                ready = await n.events.wait_for(
                    WorkerReady, worker="victim", incarnation=incarnation + 1
                )
                assert ready.at - quarantined.at >= 0.49
            assert victim.status is WorkerStatus.READY
            assert not n.events.of(WorkerBackingOff, worker="victim")

    run(scenario())


@contextlib.contextmanager
def fds_left(spare: int) -> Iterator[None]:
    """Leave this process ``spare`` free file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + spare, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@row(17)
@pytest.mark.parametrize("spare", [0, 5, 12])
def test_without_file_descriptors_starts_fail_and_are_tried_again(
    tmp_path: Path, launcher: str, spare: int
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            with fds_left(spare):
                victim_pid = faults.kill(victim)
                failed = await n.events.wait_for(
                    WorkerDied, worker="victim", reason=DeathReason.START_FAILED, count=3
                )
                await n.ticks(3)
            assert failed.pid is None
            assert "Too many open files" in (failed.error or "")
            await n.events.wait_for(WorkerReady, worker="victim")
            await eventually(lambda: victim.status is WorkerStatus.READY)
            assert victim.pid not in (None, victim_pid)
            deaths = n.events.of(WorkerDied, worker="victim")
            backoffs = n.events.of(WorkerBackingOff, worker="victim")
            assert len(deaths) == len(backoffs) == victim.restarts
            assert all(event.delay > 0.0 for event in backoffs[1:])

    run(scenario())


class ForkFailsTwice(ForkserverLauncher):
    """The system has no process to give, two times."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    def _start(self, boot: WorkerBoot):  # type: ignore[no-untyped-def]
        if boot.worker == "victim" and boot.incarnation > 1 and self.failures < 2:
            self.failures += 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return super()._start(boot)


def test_a_launcher_that_fails_with_eagain_is_asked_again_after_the_backoff(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=ForkFailsTwice(), supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            faults.kill(victim)
            await n.events.wait_for(WorkerReady, worker="victim", incarnation=4)
            signalled, *failed = n.events.of(WorkerDied, worker="victim")
            assert signalled.reason is DeathReason.SIGNALLED
            assert [(death.reason, death.pid) for death in failed] == [
                (DeathReason.START_FAILED, None)
            ] * 2
            assert all("BlockingIOError" in (death.error or "") for death in failed)

    run(scenario())


@row(18)
@pytest.mark.timeout(300)
def test_after_random_kills_all_are_ready_and_nothing_has_leaked(
    tmp_path: Path, launcher: str
) -> None:
    rate, rng = 3.0, random.Random(18)
    policy = Supervision(backoff=QUICK, budget=RestartBudget(max_restarts=1000))
    me = psutil.Process()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=policy) as n:
            victims = [await n.add(TickProcessor(), name=f"victim-{i}") for i in range(20)]
            server = psutil.Process(multiprocess.forkserver._forkserver._forkserver_pid)

            async def all_ready() -> None:
                await eventually(lambda: all(v.status is WorkerStatus.READY for v in victims))

            async def kill_at_random(end: float) -> int:
                kills = 0
                while loop.time() < end:
                    await asyncio.sleep(rng.expovariate(rate))  # the Poisson process itself
                    ready = [v for v in victims if v.status is WorkerStatus.READY]
                    # One that was killed a moment ago may not have been reaped yet.
                    faults.kill(rng.choice(ready))
                    kills += 1
                await all_ready()
                await n.ticks(5)
                await eventually(lambda: len(server.children(recursive=True)) == processes)
                return kills

            processes = len(victims) + len(n.neighbours) + 1  # the last one is in reserve
            kills = await kill_at_random(loop.time() + SECONDS / 4)
            before = (me.num_fds(), server.num_fds())
            rss = me.memory_info().rss, server.memory_info().rss
            kills += await kill_at_random(loop.time() + SECONDS * 3 / 4)
            # A thread may have one open for a moment, at each of the two looks.
            await eventually(lambda: me.num_fds() <= before[0] and server.num_fds() <= before[1])
            assert me.memory_info().rss - rss[0] < 4 * MEGABYTE
            assert server.memory_info().rss - rss[1] < 2 * MEGABYTE
            assert len({victim.pid for victim in victims}) == len(victims)
            deaths = n.events.of(WorkerDied)
            assert kills * 0.8 <= len(deaths) <= kills
            assert {death.reason for death in deaths} <= {
                DeathReason.SIGNALLED,
                DeathReason.START_FAILED,
            }
            assert len(deaths) == sum(victim.restarts for victim in victims)
            assert all(victim.last_failure is not None for victim in victims if victim.restarts)

    run(scenario())


@row(27)
def test_when_all_die_at_once_the_restarts_are_spread_by_the_clocks_budget(
    tmp_path: Path, launcher: str
) -> None:
    assert (CLOCK_BUDGET.max_restarts, CLOCK_BUDGET.window) == (10, 1.0)

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victims = [await n.add(TickProcessor(), name=f"victim-{i}") for i in range(25)]
            for victim in victims:
                faults.kill(victim)
            recorder: EventRecorder = n.events
            await recorder.wait_for(WorkerReady, incarnation=2, count=25, timeout=20.0)
            starts = [event.at for event in recorder.of(WorkerStarting, incarnation=2)]
            assert len(starts) == 25
            assert all(a <= b for a, b in pairwise(starts))
            # Stamped a moment after they were decided on.
            assert all(
                eleventh - first > 0.98
                for first, eleventh in zip(starts[:-10], starts[10:], strict=True)
            )
            assert starts[-1] - starts[0] < 5.0
            assert all(victim.status is WorkerStatus.READY for victim in victims)
            assert all(victim.restarts == 1 for victim in victims)

    run(scenario())
