"""Workers in the coordinator's own process and event loop: no isolation, but easy to debug.

The first incarnation hosts the object that was added, so that a test can inspect it after the run.
Later incarnations are made from the payload, as with every launcher.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from collections import OrderedDict

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.launchers.base import Gap, Look, ProcessEnd
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Hub
from chronopype_mp.transport.memory import MemoryHub

__all__ = ["InlineLauncher"]

ENTRY = "chronopype_mp.worker.inline_entry"

EXCEPTIONS_KEPT = 100
"""Of each worker; the oldest are dropped."""


class _InlineWorker:
    """A worker that is a task."""

    pipes: tuple[int, int] | None = None

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._task: asyncio.Task[int] | None = None
        self._exceptions: OrderedDict[int, BaseException] = OrderedDict()

    @property
    def inline(self) -> bool:
        """Whether the task runs: once it has ended, nothing of the worker is in this process."""
        return self._task is None or not self._task.done()

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

    async def wait(self) -> ProcessEnd:
        """Wait for the end of the task; a crash of the host counts as exit status 1."""
        assert self._task is not None
        await asyncio.wait({self._task})
        if self._task.cancelled():
            return ProcessEnd(exitcode=-signal.SIGKILL)
        if self._task.exception() is not None:
            return ProcessEnd(exitcode=1)
        return ProcessEnd(exitcode=self._task.result())

    async def look(self) -> Look:
        """Return whether the task has ended; nothing else can be seen of it."""
        return Look(gone=self._task is not None and self._task.done())

    def kill(self, stacks_within: float = 0.0) -> None:
        """Cancel the task."""
        if self._task is not None:
            self._task.cancel()

    def terminate(self) -> None:
        """Do nothing: a task in this process receives every command."""

    def clean_up(self) -> None:
        """Do nothing: children of this process need not be the worker's."""

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
        """Do nothing: the hub is all that was acquired."""
