"""The process that the forkserver's launcher has in reserve for the next start."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import multiprocess.forkserver
import psutil

from chronopype_mp import TickProcessor, WorkerHandle
from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.schedule import SETTLED
from chronopype_mp.events import DeathReason, WorkerDied, WorkerReady
from chronopype_mp.launchers import ForkserverLauncher, Gap, WorkerProcess
from chronopype_mp.testing import faults
from chronopype_mp.transport.base import Hub
from tests.system.clocks import Watched, eventually, run
from tests.system.neighbours import SHORT
from tests.system.scripts import TOKEN, Script, Scripts, processes_of, wait_until

BLOB = bytes(1_000_000)
"""More than a pipe holds."""


class Large(TickProcessor):
    """Has more to be told than a pipe holds."""

    def __init__(self) -> None:
        super().__init__()
        self.blob = BLOB


def forked() -> set[int]:
    """Return the processes of the forkserver."""
    server = psutil.Process(multiprocess.forkserver._forkserver._forkserver_pid)
    return {child.pid for child in server.children() if child.status() != psutil.STATUS_ZOMBIE}


async def reserve(*handles: WorkerHandle) -> psutil.Process:
    """Wait until there is one process more than there are workers, and return it."""
    workers = {handle.pid for handle in handles}
    await eventually(lambda: len(forked() - workers) == 1)
    (pid,) = forked() - workers
    return psutil.Process(pid)


@contextlib.asynccontextmanager
async def one_worker(
    processor: TickProcessor | None = None, **arguments: Any
) -> AsyncIterator[tuple[Watched, WorkerHandle, psutil.Process]]:
    """Enter a clock with one worker ``a``, which is READY, and a process in reserve.

    Args:
        processor: the worker's; a bare `TickProcessor` by default.
        arguments: as for `Watched`; ``supervision`` is `SHORT` unless given.
    """
    watched = Watched(**{"supervision": SHORT, **arguments})
    async with watched.clock as clock:
        handle = clock.add_processor(processor or TickProcessor(), name="a")
        await handle.wait_ready()
        yield watched, handle, await reserve(handle)


def test_a_worker_that_dies_becomes_the_process_in_reserve_and_another_is_made() -> None:
    async def scenario() -> None:
        async with one_worker(Large()) as (watched, handle, next_one):
            faults.kill(handle)
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
            assert handle.pid == next_one.pid
            next_one = await reserve(handle)
            faults.kill(handle)
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=3)
            assert handle.pid == next_one.pid

    run(scenario())


def test_many_starts_leave_one_process_in_reserve() -> None:
    async def scenario() -> None:
        watched = Watched(supervision=SHORT)
        async with watched.clock as clock:
            handles = [clock.add_processor(TickProcessor(), name=f"{n}") for n in range(10)]
            for handle in handles:
                await handle.wait_ready()
            await reserve(*handles)

    run(scenario())


def test_a_reserve_that_was_killed_is_replaced() -> None:
    async def scenario() -> None:
        async with one_worker() as (watched, handle, next_one):
            next_one.kill()
            await eventually(lambda: not next_one.is_running())
            faults.kill(handle)
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
            assert len(watched.events.of(WorkerDied)) == 1

    run(scenario())


def test_a_reserve_that_was_stopped_is_found_out_when_it_is_needed() -> None:
    async def scenario() -> None:
        policy = SHORT.model_copy(update={"start_timeout": 1.0})
        async with one_worker(supervision=policy) as (watched, handle, next_one):
            next_one.suspend()
            faults.kill(handle)
            death = await watched.events.wait_for(WorkerDied, worker="a", incarnation=2)
            assert (death.pid, death.reason) == (next_one.pid, DeathReason.STOPPED)
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=3)

    run(scenario())


def test_a_clock_is_left_although_the_reserve_was_stopped() -> None:
    async def scenario() -> None:
        async with one_worker() as (_, _, next_one):
            next_one.suspend()
        assert not next_one.is_running()

    run(scenario())


PUT_OFF = 0.3
"""Seconds, within which the launcher is told that a tick comes."""


class PutsOff(ForkserverLauncher):
    """Is told by the coordinator when a start disturbs a tick, and by the test that it does.

    Attributes:
        asked: when work was to begin, monotonic seconds.
        begun: when it did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []
        self.begun: list[float] = []

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> WorkerProcess:
        def put_off(work: float) -> float:
            assert 0.0 <= gap(work) <= work + SETTLED
            self.asked.append(time.monotonic())
            return PUT_OFF

        return await super().start(boot, hub, original, put_off)

    def _start(self, boot: WorkerBoot) -> WorkerProcess:
        self.begun.append(time.monotonic())
        return super()._start(boot)

    def _make_standby(self) -> None:
        self.begun.append(time.monotonic())
        super()._make_standby()


def test_a_start_and_the_making_of_the_reserve_are_put_off_until_they_disturb_no_tick() -> None:
    async def scenario() -> None:
        launcher = PutsOff()
        async with one_worker(launcher=launcher):
            pass  # entering makes both
        assert len(launcher.asked) == len(launcher.begun) == 2
        for asked, begun in zip(launcher.asked, launcher.begun, strict=True):
            assert begun - asked >= 0.99 * PUT_OFF

    run(scenario())


PROGRAM = """
import asyncio, sys
from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, TickProcessor

async def main():
    async with RealtimeClock(ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)) as clock:
        handle = clock.add_processor(TickProcessor())
        await handle.wait_ready()
        print("ready", flush=True)
        await clock.run()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""

ALL = 5
"""The owner, multiprocess' forkserver and resource tracker, a worker, the reserve."""


def started(scripts: Scripts) -> tuple[Script, str]:
    """Return the owner, once it has a process in reserve, and the mark of all its processes."""
    script = scripts.start(PROGRAM)
    script.wait_for("ready")
    token = os.environ[TOKEN]
    wait_until(lambda: len(processes_of(token)) == ALL, 10.0)
    return script, token


def test_the_reserve_goes_when_the_coordinator_is_killed(scripts: Scripts) -> None:
    script, token = started(scripts)
    os.kill(script.process.pid, signal.SIGKILL)
    script.wait()
    wait_until(lambda: not processes_of(token), 5.0, lambda: f"left: {processes_of(token)}")


def test_ctrl_c_passes_the_reserve_by(scripts: Scripts) -> None:
    script, token = started(scripts)
    script.signal_group(signal.SIGINT)
    assert script.wait() == 130
    assert not script.output.replace("ready", "").strip()
    wait_until(lambda: not processes_of(token), 5.0, lambda: f"left: {processes_of(token)}")
