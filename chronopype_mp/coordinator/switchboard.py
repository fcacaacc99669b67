"""Calls of the workers' methods, by the owner and by other workers.

Its twin is `chronopype_mp.worker.call_runner`. A call waits here until its worker has answered all
but a few of those before it.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.core.call_outcome import IN_FLIGHT, failed
from chronopype_mp.core.messages import Call, CallDone, Downlink, Outcome
from chronopype_mp.core.worker_events import WorkerStatus
from chronopype_mp.exceptions import (
    CallError,
    CallLostError,
    CallTimeoutError,
    RemoteError,
    WorkerUnavailableError,
)
from chronopype_mp.timing import monotonic

if TYPE_CHECKING:
    from chronopype_mp.coordinator.record import WorkerRecord

__all__ = ["CallQueue", "Switchboard"]

logger = logging.getLogger("chronopype_mp.coordinator")

OVERDUE = 5.0
"""Seconds after a call's deadline at which its answer counts as lost. A worker cancels a method at
the deadline, and answers at most a second later unless it is blocked."""


class _Pending:
    """A call that has not been answered."""

    def __init__(self, method: str, arguments: bytes, timeout: float) -> None:
        self.method = method
        self.arguments = arguments
        self.deadline = monotonic() + timeout
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class CallQueue:
    """The calls of one incarnation's methods.

    Args:
        worker: its name.
        order: sends a command.
        guard: calls the owner's log handlers.
    """

    def __init__(self, worker: str, order: Callable[[Downlink], None], guard: Guard) -> None:
        self._worker = worker
        self._order = order
        self._guard = guard
        self._waiting: OrderedDict[int, _Pending] = OrderedDict()
        self._sent: dict[int, _Pending] = {}
        self._calls = 0

    async def call(self, method: str, arguments: bytes, timeout: float) -> Outcome:
        """Call a method; return what became of that, after ``timeout`` seconds at the latest.

        Cancelling this drops a call that waits here. One that was sent goes on in the worker.
        """
        self._calls += 1
        number = self._calls
        pending = self._waiting[number] = _Pending(method, arguments, timeout)
        self._send()
        try:
            async with asyncio.timeout(timeout):
                return await pending.outcome
        except TimeoutError:
            return failed(CallTimeoutError(self._worker, method, self._why_late(number, timeout)))
        finally:
            self._waiting.pop(number, None)

    def _why_late(self, number: int, timeout: float) -> str:
        if number in self._waiting:
            return (
                f"{len(self._sent)} earlier calls were not answered within {timeout:g} s; the "
                "method did not run"
            )
        return (
            f"no answer within {timeout:g} s; the method may have run. One tick or call runs at a "
            "time, so processors that call each other in their ticks wait for each other"
        )

    def take(self, done: CallDone) -> None:
        """Take an answer."""
        pending = self._sent.pop(done.call, None)
        if pending is None:
            return
        if not pending.outcome.done():
            pending.outcome.set_result(done.outcome)
        elif done.outcome.error == RemoteError.__name__:
            self._guard.log(
                logger,
                logging.WARNING,
                "worker %r: call of %r raised %s after its caller had given up: %s\n%s",
                self._worker,
                pending.method,
                done.outcome.type_name,
                done.outcome.message,
                done.outcome.traceback,
            )
        self._send()

    def end(self) -> None:
        """End all calls: the process has ended, and what it had sent is read."""
        self._finish(
            self._waiting, WorkerUnavailableError, "its process ended; the method did not run"
        )
        lost = "its process ended before it answered; the method may have run"
        self._finish(self._sent, CallLostError, lost)

    def _finish(self, calls: dict[int, _Pending], kind: type[CallError], problem: str) -> None:
        for pending in calls.values():
            if not pending.outcome.done():
                pending.outcome.set_result(failed(kind(self._worker, pending.method, problem)))
        calls.clear()

    def _send(self) -> None:
        """Send what may be sent now."""
        now = monotonic()
        if len(self._sent) >= IN_FLIGHT:
            self._sent = {
                number: pending
                for number, pending in self._sent.items()
                if now < pending.deadline + OVERDUE
            }
        while self._waiting and len(self._sent) < IN_FLIGHT:
            number, pending = self._waiting.popitem(last=False)
            if pending.outcome.done():
                continue
            self._sent[number] = pending
            self._order(
                Call(
                    call=number,
                    method=pending.method,
                    arguments=pending.arguments,
                    timeout=pending.deadline - now,
                )
            )
            pending.arguments = b""


class Switchboard:
    """Finds the worker that is called.

    Args:
        records: all workers by name.
        status: returns a worker's status.
    """

    def __init__(
        self, records: Mapping[str, WorkerRecord], status: Callable[[str], WorkerStatus]
    ) -> None:
        self._records = records
        self._status = status

    async def call(self, worker: str, method: str, arguments: bytes, timeout: float) -> Outcome:
        """Call a method of a worker; see `CallQueue.call`."""
        record = self._records.get(worker)
        if record is None:
            near = difflib.get_close_matches(worker, self._records, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problem = f"there is no worker of that name{hint}"
            return failed(WorkerUnavailableError(worker, method, problem))
        incarnation = record.incarnation
        if incarnation is None or not incarnation.is_ready:
            return failed(WorkerUnavailableError(worker, method, self._why_not(worker)))
        return await incarnation.calls.call(method, arguments, timeout)

    def _why_not(self, worker: str) -> str:
        status = self._status(worker)
        match status:
            case WorkerStatus.STOPPED | WorkerStatus.QUARANTINED:
                return f"it is {status.name}; start() starts it. The method did not run"
            case WorkerStatus.READY:
                return "it stops; the method did not run"
        return f"it is {status.name}; wait_ready() waits until it is READY. The method did not run"
