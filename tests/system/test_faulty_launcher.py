"""A launcher that raises, hangs or answers late costs restarts, and nothing else."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import msgspec
import pytest

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.events import DeathReason, WorkerDied, WorkerReady
from chronopype_mp.launchers import (
    ForkserverLauncher,
    Gap,
    Launcher,
    Look,
    ProcessEnd,
    WorkerProcess,
    get_launcher,
)
from chronopype_mp.processors import TickProcessor
from chronopype_mp.testing import faults
from chronopype_mp.transport.base import Hub
from tests.system.clocks import Watched, closes, run
from tests.system.neighbours import SHORT
from tests.system.processors import Scribe
from tests.system.scripts import Scripts

SOAK = Path(__file__).parents[2] / "scripts" / "_soak.py"


def test_under_random_faults_of_the_launcher_no_worker_stays_ready_without_a_process(
    scripts: Scripts,
) -> None:
    seed = random.randrange(1_000_000)
    options = f"--minutes 0.05 --workers 4 --launcher-faults 0.3 --seed {seed}"
    script = scripts.run([sys.executable, str(SOAK), *options.split()])
    status = script.wait()
    assert status == 0, f"scripts/soak {options}\n{script.output}"
    assert "faults of the launcher" in script.output


class FirstFails:
    """Has the first process fail in a way that the subclass chooses.

    Args:
        inner: starts the processes.
    """

    def __init__(self, inner: Launcher) -> None:
        self.inner = inner
        self.open_hub = inner.open_hub
        self.close = inner.close
        self.first: WorkerProcess | None = None

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> WorkerProcess:
        process = await self.inner.start(boot, hub, original, gap)
        if self.first is None:
            self.first = process
            await self.spoil(process)
        return process

    async def spoil(self, process: WorkerProcess) -> None:
        raise NotImplementedError


async def hang() -> None:
    await asyncio.get_running_loop().create_future()


class HidesTheEnd(FirstFails):
    """`wait` hangs once, and so do the first ``looks`` looks."""

    def __init__(self, looks: int, inner: Launcher | None = None) -> None:
        super().__init__(inner or ForkserverLauncher())
        self.looks = looks

    async def spoil(self, process: WorkerProcess) -> None:
        wait, look = process.wait, process.look

        async def wait_badly() -> ProcessEnd:
            process.wait = wait  # type: ignore[method-assign]
            await hang()
            raise AssertionError

        async def look_badly() -> Look:
            self.looks -= 1
            if self.looks < 0:
                return await look()
            await hang()
            raise AssertionError

        process.wait = wait_badly  # type: ignore[method-assign]
        process.look = look_badly  # type: ignore[method-assign]


class CannotWait(FirstFails):
    """`wait` raises once, and the first two kills do nothing."""

    kills = 2

    async def spoil(self, process: WorkerProcess) -> None:
        wait, kill = process.wait, process.kill

        async def wait_badly() -> ProcessEnd:
            process.wait = wait  # type: ignore[method-assign]
            raise asyncio.CancelledError

        def kill_badly(stacks_within: float = 0.0) -> None:
            self.kills -= 1
            if self.kills < 0:
                kill(stacks_within)

        process.wait = wait_badly  # type: ignore[method-assign]
        process.kill = kill_badly  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("looks", "reason"), [(0, DeathReason.SIGNALLED), (1, DeathReason.UNREACHABLE)]
)
def test_an_end_that_the_launcher_hides_is_found_and_its_exit_status_is_read(
    looks: int, reason: DeathReason
) -> None:
    policy = msgspec.structs.replace(SHORT, loop_stall_timeout=0.5)

    async def scenario() -> None:
        watched = Watched(launcher=HidesTheEnd(looks), supervision=policy)
        async with watched.clock as clock:
            handle = clock.add_processor(TickProcessor(), name="a")
            await handle.wait_ready()
            faults.kill(handle)
            death = await watched.events.wait_for(WorkerDied)
            assert (death.reason, death.signal) == (reason, "SIGKILL")
            assert "wait() did not return" in (death.detail or "")
            assert (death.detail or "").count("look() failed: TimeoutError") == looks
            await watched.events.wait_for(WorkerReady, incarnation=2)

    run(scenario())


def test_an_end_of_an_inline_worker_that_the_launcher_hides_is_found_too() -> None:
    policy = msgspec.structs.replace(SHORT, loop_stall_timeout=0.5)

    async def scenario() -> None:
        launcher = HidesTheEnd(0, get_launcher("inline"))
        watched = Watched(launcher=launcher, supervision=policy)
        async with watched.clock as clock:
            await clock.add_processor(TickProcessor(), name="a").wait_ready()
            assert launcher.first is not None
            launcher.first.kill()
            death = await watched.events.wait_for(WorkerDied)
            assert "wait() did not return" in (death.detail or "")
            await watched.events.wait_for(WorkerReady, incarnation=2)

    run(scenario())


@pytest.mark.parametrize("inner", ["forkserver", "inline"])
def test_a_process_that_cannot_be_waited_for_is_killed_until_it_is_gone(inner: str) -> None:
    async def scenario() -> None:
        launcher = CannotWait(get_launcher(inner))
        watched = Watched(launcher=launcher, supervision=SHORT)
        async with watched.clock as clock:
            handle = clock.add_processor(TickProcessor(), name="a")
            death = await watched.events.wait_for(WorkerDied)
            assert death.signal == "SIGKILL"
            assert "wait() was cancelled" in (death.detail or "")
            assert launcher.kills < 0
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
            assert handle.restarts == 1

    run(scenario())


class FailsOnceReady(FirstFails):
    """The start raises once the process has reported that it is READY, and has run a tick."""

    path: Path

    async def spoil(self, process: WorkerProcess) -> None:
        while not self.path.exists() or not self.path.stat().st_size:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nothing tells
        process.kill()
        for fd in process.pipes or ():
            os.close(fd)
        await process.wait()
        raise OSError("the connection to the machine was lost")


def test_the_account_closes_of_a_process_that_ran_before_its_start_failed(tmp_path: Path) -> None:
    async def scenario() -> None:
        launcher = FailsOnceReady(ForkserverLauncher())
        launcher.path = tmp_path / "a"
        watched = Watched(launcher=launcher, supervision=SHORT)
        async with watched.clock as clock:
            handle = clock.add_processor(Scribe(launcher.path), name="a")
            running = asyncio.create_task(clock.run())
            death = await watched.events.wait_for(WorkerDied)
            assert death.reason is DeathReason.START_FAILED
            assert "the connection to the machine was lost" in (death.error or "")
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
            await watched.ticks(3)
            running.cancel()
            await asyncio.wait({running})
        assert closes(handle)
        assert handle.statistics().lost == death.ticks_lost >= 1

    run(scenario())
