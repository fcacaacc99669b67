"""Runs the calls that a worker gets between its ticks, and makes those of its processor.

Its twin is `chronopype_mp.coordinator.switchboard`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, NamedTuple

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.call_outcome import (
    IN_FLIGHT,
    answered,
    failed,
    pack_arguments,
    raised,
    result_of,
)
from chronopype_mp.core.checks import positive
from chronopype_mp.core.messages import Call, CallAsked, CallDone, Downlink, Outcome, Reply, Uplink
from chronopype_mp.exceptions import (
    CallError,
    CallLostError,
    CallTimeoutError,
    WorkerUnavailableError,
)
from chronopype_mp.processors import TickProcessor
from chronopype_mp.processors.hooks import HookCancelled, HookStuck, HookTimeout, bounded
from chronopype_mp.processors.remote_methods import bound_call
from chronopype_mp.timing import monotonic
from chronopype_mp.worker.dispatch import TickDispatcher

__all__ = ["CallRunner"]


class _Awaited(NamedTuple):
    """A call that this worker has made."""

    reply: asyncio.Future[Outcome]
    callee: str
    method: str


class CallRunner:
    """The calls of one incarnation, in both directions.

    Args:
        boot: which incarnation it is.
        processor: whose methods are called.
        dispatcher: runs its ticks.
        post: sends reports.
        on_stuck: called with the name of what swallowed its cancellation.

    Attributes:
        deeds: what the host does for each kind of command that is about calls.
    """

    def __init__(
        self,
        boot: WorkerBoot,
        processor: TickProcessor,
        dispatcher: TickDispatcher,
        post: Callable[[list[Uplink]], None],
        on_stuck: Callable[[str], None],
    ) -> None:
        self._boot = boot
        self._processor = processor
        self._dispatcher = dispatcher
        self._post = post
        self._on_stuck = on_stuck
        self._asked = 0
        self._awaited: dict[int, _Awaited] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._is_stopping = False
        self.deeds: dict[type[Downlink], Callable[[Any], None]] = {
            Call: self._called,
            Reply: self._replied,
        }

    # Calls of this processor's methods

    def _called(self, command: Call) -> None:
        deadline = monotonic() + command.timeout
        self._dispatcher.run_between(functools.partial(self._answer, command, deadline))

    async def _answer(self, command: Call, deadline: float) -> None:
        outcome = await self._outcome(command, deadline)
        self._post([self._boot.report(CallDone, call=command.call, outcome=outcome)])

    async def _outcome(self, command: Call, deadline: float) -> Outcome:
        worker, method = self._boot.worker, command.method
        left = deadline - monotonic()
        if left <= 0.0:
            problem = "the worker was busy until the time was over; the method did not run"
            return failed(CallTimeoutError(worker, method, problem))
        try:
            call = bound_call(self._processor, worker, method, command.arguments)
        except CallError as error:
            return failed(error)
        late = f"it did not end in time and was cancelled, after {command.timeout:.3g} s"
        try:
            result = _in(self._processor._tick_context, call)
            if inspect.isawaitable(result):
                result = await bounded(
                    _in(self._processor._tick_context, asyncio.ensure_future, result), left
                )
        except (SystemExit, KeyboardInterrupt):
            raise  # as in every hook, it ends the process
        except HookTimeout:
            return failed(CallTimeoutError(worker, method, late))
        except HookStuck:
            self._on_stuck(f"call of {method}")
            return failed(CallTimeoutError(worker, method, late))
        except (HookCancelled, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return raised(
                RuntimeError("the method was cancelled from within").with_traceback(
                    error.__traceback__
                )
            )
        except BaseException as error:
            return raised(error)
        return answered(worker, method, result)

    # Calls that this processor makes

    async def call(
        self, callee: str, method: str, args: Sequence[object], kwargs: dict[str, Any], timeout: Any
    ) -> Any:
        """Call a method of another worker; see `TickProcessor.call`."""
        timeout = positive("call", "timeout", timeout)
        arguments = pack_arguments(callee, method, args, kwargs)
        deadline = monotonic() + timeout
        try:
            async with asyncio.timeout(timeout), self._slots:
                outcome = await self._ask(callee, method, arguments, deadline)
        except TimeoutError:
            problem = (
                f"{self._boot.worker!r} had no answer within {timeout:g} s; processors that call "
                "each other in their ticks wait for each other"
            )
            raise CallTimeoutError(callee, method, problem) from None
        return result_of(outcome, callee, method)

    async def _ask(self, callee: str, method: str, arguments: bytes, deadline: float) -> Outcome:
        if self._is_stopping:
            problem = f"{self._boot.worker!r} stops, and calls nobody any more"
            return failed(WorkerUnavailableError(callee, method, problem))
        self._asked += 1
        number = self._asked
        reply: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._awaited[number] = _Awaited(reply, callee, method)
        try:
            self._post(
                [
                    self._boot.report(
                        CallAsked,
                        call=number,
                        callee=callee,
                        method=method,
                        arguments=arguments,
                        timeout=deadline - monotonic(),
                    )
                ]
            )
            return await reply
        finally:
            del self._awaited[number]

    def _replied(self, command: Reply) -> None:
        awaited = self._awaited.get(command.call)
        if awaited is not None and not awaited.reply.done():
            awaited.reply.set_result(command.outcome)

    def stop(self) -> None:
        """End the calls that this processor makes: no answer comes after a stop."""
        self._is_stopping = True
        problem = f"{self._boot.worker!r} stops, and gets no answers any more"
        for reply, callee, method in self._awaited.values():
            if not reply.done():
                reply.set_result(failed(CallLostError(callee, method, problem)))


def _in(context: Context | None, function: Callable[..., Any], *args: object) -> Any:
    return function(*args) if context is None else context.run(function, *args)
