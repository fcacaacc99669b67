"""Runs a fleet on a clock: starts the workers in their order, ticks, and stops them.

A worker that depends on others is added to the clock once these are READY or CONNECTED. A
dependency sets an order and is no condition: a worker whose dependency takes too long is started
anyway, since its supervision and its network loop cope with what is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from chronopype_mp.clocks.base import BaseClock
from chronopype_mp.clocks.realtime import RealtimeClock
from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import Event
from chronopype_mp.exceptions import WorkerError
from chronopype_mp.fleet.plan import FleetPlan, WorkerPlan
from chronopype_mp.fleet.schema import Dependency
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.launchers import ForkserverLauncher

__all__ = ["make_clock", "run_fleet"]

logger = GuardedLogger("chronopype_mp.fleet")


def make_clock(plan: FleetPlan) -> RealtimeClock:
    """Return the clock of a fleet, without workers.

    Raises:
        ConfigError: the directory for dossiers cannot be written to.
    """
    settings = plan.settings
    preload = settings.preload
    return RealtimeClock(
        settings.clock,
        launcher=ForkserverLauncher(preload) if preload else settings.launcher,
        supervision=settings.supervision,
        groups=settings.groups,
        restart_budget=settings.restart_budget,
        state_dir=settings.state_dir,
        event_loop=settings.event_loop,
        name=settings.name,
    )


async def run_fleet(
    plan: FleetPlan,
    stop: asyncio.Event,
    on_event: Callable[[Event], object] | None = None,
) -> None:
    """Run a fleet until it is told to stop, or its clock's ``end_time``.

    The workers stop gracefully and side by side. Cancelling kills those that have not stopped.

    Args:
        plan: the fleet.
        stop: set it to stop the fleet.
        on_event: called with each event of the clock.

    Raises:
        ClockError: the clock cannot be entered, or a worker cannot be added.
        BaseException: what ended the clock's run, see `BaseClock.run`.
    """
    clock = make_clock(plan)
    if on_event is not None:
        clock.events.subscribe(on_event)
    async with clock:
        tasks = [
            asyncio.create_task(_Starts(clock, plan).run()),
            asyncio.create_task(stop.wait()),
        ]
        starting, stopping = tasks
        try:
            await asyncio.sleep(0)  # the first worker is added before the run begins
            running = asyncio.create_task(clock.run())
            tasks.append(running)
            while not (running.done() or stopping.done()):
                awaited = [task for task in tasks if not task.done()]
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
            if running.done():
                running.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Starts:
    """The starts of a fleet's workers.

    Args:
        clock: entered already.
        plan: the fleet.
    """

    def __init__(self, clock: BaseClock, plan: FleetPlan) -> None:
        self._clock = clock
        self._plan = plan
        self._turn = asyncio.Lock()
        loop = asyncio.get_running_loop()
        self._added: dict[str, asyncio.Future[WorkerHandle]] = {
            worker.name: loop.create_future() for worker in plan.workers
        }

    async def run(self) -> None:
        """Start all workers. Those without dependencies start in the order of the file.

        Raises:
            ClockError: a worker cannot be added.
        """
        waiting = [worker for worker in self._plan.workers if worker.depends_on]
        tasks = [asyncio.create_task(self._start_in_turn(worker)) for worker in waiting]
        try:
            for worker in self._plan.workers:
                if not worker.depends_on:
                    await self._start(worker)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_in_turn(self, worker: WorkerPlan) -> None:
        for dependency in worker.depends_on:
            await self._wait_for(worker, dependency)
        await self._start(worker)

    async def _start(self, worker: WorkerPlan) -> None:
        """Add a worker to the clock, which starts it; then wait, so that starts are staggered."""
        async with self._turn:
            handle = self._clock.add_processor(
                worker.spec,
                name=worker.name,
                supervision=worker.supervision,
                group=worker.group,
                env=worker.env,
            )
            self._added[worker.name].set_result(handle)
            if self._plan.settings.stagger:
                await asyncio.sleep(self._plan.settings.stagger)

    async def _wait_for(self, worker: WorkerPlan, dependency: Dependency) -> None:
        # Shielded, because several workers may wait for the same one.
        handle = await asyncio.shield(self._added[dependency.name])
        problem = f"was not {dependency.until} within {dependency.timeout:g} s"
        try:
            async with asyncio.timeout(dependency.timeout):
                await handle.wait_ready()
                if dependency.until == "connected":
                    await self._wait_connected(handle)
                return
        except TimeoutError:
            pass
        except WorkerError as error:
            problem = str(error)
        logger.warning(
            "worker %r is started although it depends on %r: %s",
            worker.name,
            dependency.name,
            problem,
        )

    async def _wait_connected(self, handle: WorkerHandle) -> None:
        async with contextlib.aclosing(aiter(self._clock.events)) as events:
            while handle.network_status is not NetworkStatus.CONNECTED:
                await anext(events)
