"""A clock that ticks while something is done to some of its workers, and neighbours to ask later.

::

    async with Neighbourhood(tmp_path, launcher="spawn", supervision=SHORT) as n:
        victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
        faults.kill(victim)
        await n.events.wait_for(WorkerReady, worker="victim", incarnation=2)

The clock runs from the entry to the exit; what happened to the neighbours is asserted at the exit.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from chronopype_mp import (
    BackoffPolicy,
    ProcessorSpec,
    RestartBudget,
    Supervision,
    TickProcessor,
    WorkerHandle,
    WorkerStatus,
)
from chronopype_mp.events import WorkerDied
from tests.system.clocks import Watched, closes
from tests.system.processors import Scribe, ran, ticks_in

__all__ = ["QUICK", "SHORT", "Neighbourhood", "row"]

QUICK = BackoffPolicy(minimum=0.01, maximum=0.05)

SHORT = Supervision(
    loop_stall_timeout=1.5, stop_grace=2.0, backoff=QUICK, budget=RestartBudget(max_restarts=20)
)
"""Deadlines that a test can wait for."""


def row(number: int, *launchers: str) -> pytest.MarkDecorator:
    """Run a test of a row of the table of faults under each launcher; forkserver if none is named.

    The test's id tells the row; its argument ``launcher`` tells the launcher.
    """
    return pytest.mark.parametrize(
        "launcher",
        [
            pytest.param(launcher, id=f"row-{number:02}-{launcher}")
            for launcher in launchers or ("forkserver",)
        ],
    )


class Neighbourhood(Watched):
    """A running clock with neighbours, which are READY on entry and under the default policy.

    Args:
        directory: where they write.
        neighbours: how many.
        tick_size: the clock's, seconds.
        arguments: the clock's others, as for `Watched`; ``supervision`` is that of what is added.

    Attributes:
        neighbours: their handles.
    """

    def __init__(
        self, directory: Path, *, neighbours: int = 2, tick_size: float = 0.1, **arguments: Any
    ) -> None:
        super().__init__(tick_size, **arguments)
        self._directory = directory
        self.neighbours = [
            self.clock.add_processor(Scribe(directory / name), name=name, supervision=Supervision())
            for name in (f"neighbour-{number}" for number in range(neighbours))
        ]
        self._pids: list[int | None] = []
        self._running: asyncio.Task[None] | None = None
        self._left = False

    async def __aenter__(self) -> Self:
        await self.clock.__aenter__()
        try:
            for handle in self.neighbours:
                await handle.wait_ready()
        except BaseException:
            await self.clock.shutdown(0.0)
            raise
        self._pids = [handle.pid for handle in self.neighbours]
        self._running = asyncio.create_task(self.clock.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.leave()
        elif not self._left:
            self._left = True
            assert self._running is not None
            self._running.cancel()
            with contextlib.suppress(BaseException):
                await self.clock.shutdown(1.0)
            await self.clock.__aexit__(kind, error, traceback)

    async def add(
        self, processor: TickProcessor | ProcessorSpec, *, ready: bool = True, **arguments: Any
    ) -> WorkerHandle:
        """Add a worker, by default until it is READY; the arguments are `add_processor`'s."""
        handle = self.clock.add_processor(processor, **arguments)
        if ready:
            await handle.wait_ready()
        return handle

    async def run_for(self, seconds: float) -> None:
        """Let so many seconds' ticks pass."""
        await self.ticks(max(1, round(seconds / self.tick_size)))

    async def leave(self) -> None:
        """Leave the clock and ask the neighbours; the exit does it if nobody did."""
        if self._left:
            return
        self._left = True
        present = [(handle.pid, handle.incarnation, handle.status) for handle in self.neighbours]
        assert self._running is not None
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        await self.clock.__aexit__(None, None, None)
        assert present == [(pid, 1, WorkerStatus.READY) for pid in self._pids]
        for handle in self.neighbours:
            assert not self.events.of(WorkerDied, worker=handle.name)
            ticks = ticks_in(self._directory / handle.name)
            assert ran(ticks, self.published), handle.name
            statistics = handle.statistics()
            assert (statistics.run, statistics.lost) == (len(ticks), 0), statistics
            assert statistics.published == len(self.published)
        assert self.published
        assert all(closes(handle) for handle in self.clock.workers)
