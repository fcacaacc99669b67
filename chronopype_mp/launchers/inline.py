"""Workers in the coordinator's own process and loop: no isolation, but a debugger sees all.

The first incarnation hosts the very object that was added, so that a test can look at it after
the run; a restarted one is made anew from the payload, as everywhere.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections import OrderedDict

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.launchers.base import Gap
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Hub
from chronopype_mp.transport.memory import MemoryHub

__all__ = ["InlineLauncher"]

ENTRY = "chronopype_mp.worker.inline"

EXCEPTIONS_KEPT = 100


class _InlineWorker:
    """A worker that is a task."""

    pipes: tuple[int, int] | None = None

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._task: asyncio.Task[int] | None = None
        self._exceptions: OrderedDict[int, BaseException] = OrderedDict()

    def begin(self, boot: WorkerBoot, hub: MemoryHub, original: TickProcessor | None) -> None:
        work = importlib.import_module(ENTRY).work
        self._task = asyncio.get_running_loop().create_task(
            work(boot, hub.connect(boot.worker), original, self._keep),
            name=f"worker {boot.worker}",
        )

    def _keep(self, serial: int, error: BaseException) -> None:
        self._exceptions[serial] = error
        if len(self._exceptions) > EXCEPTIONS_KEPT:
            self._exceptions.popitem(last=False)

    async def wait(self) -> int | None:
        """Wait for the task's end; a crash of the host counts as exit status 1."""
        assert self._task is not None
        await asyncio.wait({self._task})
        if self._task.cancelled():
            return -9
        if self._task.exception() is not None:
            return 1
        return self._task.result()

    def kill(self) -> None:
        """Cancel the task."""
        if self._task is not None:
            self._task.cancel()

    def terminate(self) -> None:
        """Nothing to do: a task in this process hears what it is told."""

    def ask_for_stacks(self) -> None:
        """Nothing to do: its stacks are this process'."""

    def clean_up(self) -> None:
        """Nothing to do: children of this process are not the worker's alone."""

    def exception(self, serial: int) -> BaseException | None:
        """Return the exception of failure ``serial``, if it is still kept."""
        return self._exceptions.pop(serial, None)


class InlineLauncher:
    """Starts workers as tasks of the running event loop."""

    def open_hub(self, queued: int) -> MemoryHub:
        """Return an in-memory hub."""
        return MemoryHub(queued)

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> _InlineWorker:
        """Start a task for one incarnation."""
        assert isinstance(hub, MemoryHub)
        worker = _InlineWorker()
        worker.begin(boot, hub, original)
        return worker

    def close(self) -> None:
        """Nothing to give back."""
