"""The task in which the hooks of one connection run.

``start_network``, ``run_network`` and ``stop_network`` of a connection run one after another in a
single task. Clients whose contexts and cancel scopes must be left in the task that entered them
(anyio, httpx-ws, aiomqtt) need that.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from chronopype_mp.processors.hooks import HookCancelled

__all__ = ["ConnectionTask", "Hook"]

Hook = Callable[[], Awaitable[Any]]


class _Job(asyncio.Future[Any]):
    """A hook's result. Cancelling it cancels the hook; it is done when the hook has ended."""

    def __init__(self, task: ConnectionTask, hook: Hook) -> None:
        super().__init__()
        self.hook = hook
        self.begun = False
        self.cancellations = 0
        self._owner = task

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the hook. It may be done later, or not at all."""
        if self.done():
            return False
        self._owner.cancel_job(self)
        return True

    def end_as_cancelled(self) -> None:
        """Be done."""
        super().cancel()


class ConnectionTask:
    """Runs hooks in one task, one at a time.

    Args:
        name: of the task.
        context: in which the task runs.
        cancelled: called when somebody has cancelled the task between two hooks, or ended it.

    Attributes:
        context: see above; it has what the hooks have set.
        is_usable: whether another hook can be called.
    """

    def __init__(
        self, name: str, context: contextvars.Context, cancelled: Callable[[], None]
    ) -> None:
        self.context = context
        self.is_usable = True
        self._cancelled = cancelled
        self._job: _Job | None = None
        self._rest: asyncio.Future[None] | None = None
        self._task = asyncio.get_running_loop().create_task(
            self._work(), name=name, context=context
        )
        self._task.add_done_callback(self._ended)

    def call(self, hook: Hook) -> asyncio.Future[Any]:
        """Call a hook once the one before it has ended.

        Returns:
            A future with what the hook returns or raises. `HookCancelled` is raised if it ends as
            cancelled without a ``cancel()`` of that future.
        """
        assert self.is_usable
        assert self._job is None
        self._job = _Job(self, hook)
        self._wake()
        return self._job

    def close(self) -> None:
        """End the task when the hook under way has ended; call no further one."""
        self.is_usable = False
        self._wake()

    def kill(self) -> None:
        """Cancel the hook under way and end the task."""
        self.is_usable = False
        self._task.cancel()

    def cancel_job(self, job: _Job) -> None:
        """Cancel a hook; for `_Job`."""
        if job.begun:
            job.cancellations += 1
            self._task.cancel()
        else:
            self._job = None
            job.end_as_cancelled()

    def _wake(self) -> None:
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)

    async def _work(self) -> None:
        while self.is_usable or self._job is not None:
            if self._job is not None:
                await self._do(self._job)
                continue
            self._rest = asyncio.get_running_loop().create_future()
            try:
                await self._rest
            except asyncio.CancelledError:
                # Not the loss of this task: a cancel scope that a hook has entered does it too.
                if not self.is_usable:
                    raise
                self._cancelled()

    async def _do(self, job: _Job) -> None:
        job.begun = True
        try:
            result = await _called(job.hook)
        except asyncio.CancelledError:
            if job.cancellations or not self.is_usable:
                job.end_as_cancelled()
            else:
                job.set_exception(HookCancelled("the hook was cancelled from within"))
            if not self.is_usable:
                raise
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            job.set_exception(error)
        else:
            job.set_result(result)
        finally:
            self._job = None
            for _ in range(job.cancellations):
                self._uncancel()

    def _uncancel(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Deal with an end before `close`: cancelled before its first step, or a hook exits."""
        is_exit = not task.cancelled() and task.exception() is not None
        if is_exit or not self.is_usable:
            return
        self.is_usable = False
        job, self._job = self._job, None
        if job is not None:
            job.set_exception(HookCancelled("the task of the connection was cancelled"))
        self._cancelled()


async def _called(hook: Hook) -> Any:
    """Await a hook; a StopIteration that it raises becomes a RuntimeError, as in any coroutine."""
    return await hook()
