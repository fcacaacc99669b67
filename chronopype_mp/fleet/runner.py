"""Runs a fleet on a clock: starts the workers in their order, ticks, and stops them.

A worker that depends on others is added to the clock once these are READY or CONNECTED. A
dependency sets an order and is no condition: a worker whose dependency takes too long is started
anyway, since its supervision and its network loop cope with what is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from chronopype_mp.clocks.base import BaseClock
from chronopype_mp.clocks.realtime import RealtimeClock
from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import Event, WorkerDied, WorkerQuarantined, WorkerReady
from chronopype_mp.exceptions import ClockError, WorkerError
from chronopype_mp.fleet.changes import Changes, compare
from chronopype_mp.fleet.notifier import Notifier
from chronopype_mp.fleet.plan import FleetPlan, WorkerPlan
from chronopype_mp.fleet.schema import Dependency
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.launchers import ForkserverLauncher

__all__ = ["RunningFleet", "make_clock", "run_fleet"]

logger = GuardedLogger("chronopype_mp.fleet")

SETTLED = (WorkerReady, WorkerDied, WorkerQuarantined)
"""What ends the first start of a worker."""


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

    It is `RunningFleet.run`, without the means to reload.

    Args:
        plan: the fleet.
        stop: set it to stop the fleet.
        on_event: called with each event of the clock.

    Raises:
        ConfigError: the directory for dossiers cannot be written to.
        Others as `RunningFleet.run`.
    """
    await RunningFleet(plan, on_event).run(stop)


class RunningFleet:
    """A fleet that runs.

    Args:
        plan: the fleet.
        on_event: called with each event of the clock.

    Raises:
        ConfigError: the directory for dossiers cannot be written to.
    """

    def __init__(self, plan: FleetPlan, on_event: Callable[[Event], object] | None = None) -> None:
        self._settings = plan.settings
        self._first = plan
        self.clock = make_clock(plan)
        if on_event is not None:
            self.clock.events.subscribe(on_event)
        self._starts = _Starts(self.clock, plan.settings.stagger)
        self._reloading = asyncio.Lock()
        self._unsettled = {worker.name for worker in plan.workers}
        self._settled = asyncio.Event()
        self.clock.events.subscribe(self._note, *SETTLED)

    @property
    def plan(self) -> FleetPlan:
        """The workers that have been added to the clock, and the settings."""
        return FleetPlan(settings=self._settings, workers=tuple(self._starts.added.values()))

    async def wait_settled(self) -> None:
        """Wait until each worker of the first plan was READY, or has died.

        Cancelling this changes nothing.
        """
        await self._settled.wait()

    def _note(self, event: Event) -> None:
        if isinstance(event, SETTLED):
            self._settle(event.worker)

    def _settle(self, *names: str) -> None:
        self._unsettled.difference_update(names)
        if not self._unsettled:
            self._settled.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run the fleet until it is told to stop, or its clock's ``end_time``.

        The workers stop gracefully and side by side. Cancelling kills those that have not stopped.

        Args:
            stop: set it to stop the fleet.

        Raises:
            ClockError: the clock cannot be entered, or a worker cannot be added.
            BaseException: what ended the clock's run, see `BaseClock.run`.
        """
        notify = self._settings.notify
        async with contextlib.AsyncExitStack() as stack:
            if notify.webhook is not None or notify.command:
                notifier = await stack.enter_async_context(Notifier(self._settings.name, notify))
                self.clock.events.subscribe(notifier.take)
            await stack.enter_async_context(self.clock)
            tasks = [
                asyncio.create_task(self._starts.run(self._first.workers)),
                asyncio.create_task(stop.wait()),
            ]
            starting, stopping = tasks
            try:
                await asyncio.sleep(0)  # the first worker is added before the run begins
                running = asyncio.create_task(self.clock.run())
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

    async def reload(self, new: FleetPlan) -> Changes:
        """Make this fleet that of another plan. Workers that are the same in both are left alone.

        One reload runs at a time. It returns once the workers of the new plan have been started;
        those that depend on others have waited for them. Cancelling it leaves it half done, and the
        next reload does the rest; so does one after an error.

        Args:
            new: what is wanted.

        Returns:
            What has changed.

        Raises:
            FleetError: a setting has changed that only a new run can apply. Nothing was changed.
            ClockError: the fleet has stopped, or a worker cannot be started. Others may be missing,
                too.
        """
        async with self._reloading:
            if not self.clock.is_in_context:
                raise ClockError(f"the fleet {self._settings.name!r} does not run")
            compare(self.plan, new)  # refuses before anything is changed
            await self._starts.cancel()
            changes = compare(self.plan, new)
            self._settings = new.settings
            self._starts.stagger = new.settings.stagger
            wanted = {worker.name: worker for worker in new.workers}
            for name in changes.adjust:
                self.clock.change_supervision(name, wanted[name].supervision)
            for worker in new.workers:
                if worker.name in self._starts.added and worker.name not in changes.restart:
                    self._starts.added[worker.name] = worker
            self._settle(*(self._unsettled - wanted.keys()))
            await self._starts.stop((*changes.stop, *changes.restart))
            again = {*changes.start, *changes.restart}
            await self._starts.run([w for w in new.workers if w.name in again])
            return changes


class _Starts:
    """Starts and stops the workers of a fleet.

    Args:
        clock: entered before the first call.
        stagger: the time between two starts, seconds.

    Attributes:
        added: the workers that are in the clock, by name.
    """

    def __init__(self, clock: BaseClock, stagger: float) -> None:
        self._clock = clock
        self.stagger = stagger
        self.added: dict[str, WorkerPlan] = {}
        self._turn = asyncio.Lock()
        self._handles: dict[str, asyncio.Future[WorkerHandle]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, workers: Sequence[WorkerPlan]) -> None:
        """Start workers in their order; those with dependencies once these are there.

        Returns early if `cancel` is called.

        Raises:
            ClockError: a worker cannot be added. Others may not have been started.
        """
        loop = asyncio.get_running_loop()
        self._handles.update((worker.name, loop.create_future()) for worker in workers)
        tasks = {loop.create_task(self._start_in_turn(worker)) for worker in workers}
        self._tasks |= tasks
        try:
            done = set[asyncio.Task[None]]()
            if tasks:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled():
                    task.result()
        finally:
            await self._end(tasks)

    async def cancel(self) -> None:
        """Forget the workers that have not been started."""
        await self._end(set(self._tasks))

    async def _end(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks -= tasks

    async def stop(self, names: Iterable[str]) -> None:
        """Remove workers from the clock; they stop side by side."""
        handles = [self._handles[name].result() for name in names]
        for handle in handles:
            self._clock.remove_processor(handle)
            del self.added[handle.name], self._handles[handle.name]
        await asyncio.gather(*(handle.wait_stopped() for handle in handles))

    async def _start_in_turn(self, worker: WorkerPlan) -> None:
        for dependency in worker.depends_on:
            await self._wait_for(worker, dependency)
        async with self._turn:  # held for a while, so that starts are staggered
            handle = self._clock.add_processor(
                worker.spec,
                name=worker.name,
                supervision=worker.supervision,
                group=worker.group,
                env=worker.env,
            )
            self.added[worker.name] = worker
            self._handles[worker.name].set_result(handle)
            if self.stagger:
                await asyncio.sleep(self.stagger)

    async def _wait_for(self, worker: WorkerPlan, dependency: Dependency) -> None:
        # Shielded, because several workers may wait for the same one.
        handle = await asyncio.shield(self._handles[dependency.name])
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
