"""The edge of `chronopype_mp.core.connection`: calls the hooks of a NetworkProcessor.

One task asks the state machine what to do, does it, and hands the outcome back. The hooks of a
connection run in its `ConnectionTask`, beside it the spawned tasks. Whatever happens outside (a
loss, a stop, a changed setting) is told to the state machine at once, which says whether the
operation under way is to be interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import math
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from chronopype_mp.core.connection import Connection
from chronopype_mp.core.error_text import LONGEST_REASON, line_of, repr_of, shortened
from chronopype_mp.core.operations import (
    Check,
    Failed,
    Interrupted,
    NetworkStatus,
    NotifyConnected,
    NotifyDisconnected,
    Operation,
    Outcome,
    Returned,
    Start,
    Stop,
    Stopped,
    TimedOut,
    Wait,
)
from chronopype_mp.exceptions import PermanentFailure, RetryAfter
from chronopype_mp.processors import hooks
from chronopype_mp.processors.connection_task import ConnectionTask
from chronopype_mp.processors.hooks import (
    HookCancelled,
    HookInterrupted,
    HookStuck,
    HookTimeout,
    bounded,
)

if TYPE_CHECKING:
    from chronopype_mp.processors.network import NetworkProcessor

__all__ = [
    "NOBODY",
    "NetworkChange",
    "NetworkFailure",
    "NetworkListener",
    "NetworkLoop",
    "says_when",
]

T = TypeVar("T")

LONGEST_CHAIN = 10
"""Exceptions that are looked at, from one to what caused it."""


class NetworkChange(NamedTuple):
    """A change of the network status, of its reason, or of the next attempt.

    Attributes:
        status: the status, which may be the same as before.
        reason: why it is what it is.
        next_attempt: when the next attempt to connect is due, wall clock in seconds; None if one
            runs, or none is planned.
    """

    status: NetworkStatus
    reason: str
    next_attempt: float | None

    @property
    def error(self) -> str | None:
        """The reason, where the status is an error."""
        return self.reason if self.status is NetworkStatus.ERROR else None


class NetworkFailure(NamedTuple):
    """A hook that failed.

    Attributes:
        hook: its name; that of a spawned task is ``"task NAME"``.
        error: what it raised.
        expected: it is an error that networks have, of which no traceback is needed.
        next_attempt: see `NetworkChange`.
    """

    hook: str
    error: BaseException
    expected: bool
    next_attempt: float | None


class NetworkListener(NamedTuple):
    """Who is told about a hosted processor's network.

    Attributes:
        changed: called after the status, its reason or the next attempt changed.
        failed: called after a hook failed.
        stuck: called with the hook's name when a hook cannot be ended; only a restart helps.
        ended: called with the reason when the network loop has ended without a `stop`.
    """

    changed: Callable[[NetworkChange], None]
    failed: Callable[[NetworkFailure], None]
    stuck: Callable[[str], None]
    ended: Callable[[BaseException], None]


def _ignore(_: object) -> None:
    """Nobody listens."""


NOBODY = NetworkListener(_ignore, _ignore, _ignore, _ignore)


class NetworkLoop:
    """Keeps the connection of a processor, in the running event loop.

    Args:
        processor: whose hooks to call.

    Attributes:
        connection: the state machine.
        tick_context: what ``start_network`` has set for the present connection; None without one.
    """

    def __init__(self, processor: NetworkProcessor) -> None:
        self._processor = processor
        self._timing = processor._timing
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self.connection = Connection(
            processor._connection_policy(),
            random.Random(),
            None if processor._host is None else processor._host.connections,
        )
        self.tick_context: contextvars.Context | None = None
        self._shown: tuple[NetworkStatus, str, float | None] = (NetworkStatus.STOPPED, "", None)
        self._hooks: ConnectionTask | None = None
        self._body: asyncio.Future[Any] | None = None
        self._spawned: set[asyncio.Task[Any]] = set()
        self._failures: list[tuple[str, BaseException, bool]] = []
        self._stopped: asyncio.Event | None = None
        self._is_final = False
        self._interrupt: asyncio.Future[None] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None

    # Calls from the processor

    def begin(self) -> None:
        """Begin, unless it has begun; while a `stop` is under way, when that has ended."""
        if self._is_final:
            return
        self.connection.begin(self._now())
        if self._task is not None:
            return
        self._show()
        name = f"network loop of {type(self._processor).__name__}"
        self._task = self._loop.create_task(self._run(), name=name)
        self._task.add_done_callback(self._ended)

    @property
    def has_ended(self) -> bool:
        """Whether another loop is needed to begin again."""
        return self._task is not None and self._task.done()

    @property
    def rests_until(self) -> float:
        """Until when it waits, monotonic seconds; -inf while it does anything else."""
        operation = self.connection.operation
        if self._task is None or self._task.done():
            return math.inf
        if not isinstance(operation, Wait) or self._interrupt.done():
            return -math.inf
        return operation.until

    @property
    def downtime(self) -> float:
        """For how long it has tried to connect in vain, seconds."""
        return self.connection.downtime(self._now())

    def stop_for_good(self) -> None:
        """Set out for STOPPED, and let no hook `begin` again."""
        self._is_final = True
        self.stop()

    def stop(self) -> None:
        """Set out for STOPPED."""
        if self.has_ended:
            return
        if not self.connection.ending:
            self._stopped = asyncio.Event()
        self._poke(self.connection.end())

    async def wait_stopped(self) -> None:
        """Wait until a `stop` under way has ended."""
        if self._stopped is not None:
            await self._stopped.wait()

    def pause(self) -> None:
        """Hold checks and attempts."""
        self.connection.pause()

    def resume(self) -> None:
        """Go on after a `pause`, with a check."""
        self._poke(self.connection.resume(self._now()))

    def drop(self) -> None:
        """Abandon the network as a killed process would: no further hook is called."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self.connection.recorder.disconnected(self._now())
        self._drop_hooks()

    def reconnect(self) -> None:
        """Make an attempt now, whatever it waits for; a connection is given up."""
        self._poke(self.connection.reconnect(self._now()))

    def heard(self) -> None:
        """Take note that the connection was heard of; in any thread."""
        self.connection.heard(self._now())

    def lose(self, reason: object) -> None:
        """Take the connection for lost; in any thread."""
        if isinstance(reason, type) and issubclass(reason, BaseException):
            reason = reason()
        self._call(lambda: self._lose(reason))

    def _lose(self, reason: object) -> None:
        if isinstance(reason, BaseException):
            self._tell_loss(self._note("connection_lost", reason), belongs=True)
            return
        text = reason if isinstance(reason, str) else "" if reason is None else repr_of(reason)
        cause = Failed(shortened(text or "connection_lost() was called", LONGEST_REASON))
        self._poke(self.connection.lose(cause, self._now()))

    def tick_failed(self, error: BaseException, *, is_first: bool) -> None:
        """Take note of what a tick raised, which often is the first to notice a loss.

        Args:
            error: `PermanentFailure` and `RetryAfter` are the loss of the connection.
            is_first: whether the tick before has not failed; then there is a check.
        """
        cause = self._cause("async_tick", error)
        if _is_signal(cause):
            self._poke(self.connection.lose(cause, self._now()))
        elif is_first:
            self.check_now()

    def check_now(self) -> None:
        """Have a check; in any thread."""
        self._call(lambda: self._poke(self.connection.check_now()))

    def settings_changed(self) -> None:
        """Reconsider the wait for the next check; in any thread."""
        self._call(lambda: self._poke(self.connection.waits))

    def spawn(self, coro: Coroutine[Any, Any, T], name: str | None) -> asyncio.Task[T]:
        """Start a task that belongs to the connection."""
        called = getattr(coro, "__qualname__", type(coro).__name__)
        where = f"spawn() of {called}"
        if not self._runs_here():
            coro.close()
            raise RuntimeError(f"{where}: must be called in the worker's event loop")
        if not self._has_connection:
            coro.close()
            raise RuntimeError(
                f"{where}: there is no connection; call it in start_network, or later"
            )
        task = self._loop.create_task(coro, name=name or called)
        self._spawned.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    @property
    def _has_connection(self) -> bool:
        """Whether there is something that can be lost, from the beginning of ``start_network``."""
        connection = self.connection
        return self._hooks is not None and not connection.ending and not connection.is_down

    def _runs_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _call(self, function: Callable[[], None]) -> None:
        """Call a function now, or in the next turn of the loop if this is another thread."""
        if self._runs_here():
            function()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: all is over
                self._loop.call_soon_threadsafe(function)

    def _poke(self, interrupt: bool) -> None:
        if interrupt and not self._interrupt.done():
            self._interrupt.set_result(None)

    def _now(self) -> float:
        return self._timing.monotonic()

    # The loop

    async def _run(self) -> None:
        """Ask the state machine what to do, do it, and hand the outcome back."""
        connection = self.connection
        while not isinstance(connection.operation, Stopped):
            outcome = await self._perform(connection.operation)
            self._interrupt = self._loop.create_future()
            connection.policy = self._processor._connection_policy()
            connection.handle(outcome, self._now())
            self._report_failures()
            self._show()
            if connection.ready and self._body is None:
                self._begin_body()
            if not connection.ending and self._stopped is not None:
                self._stopped.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Report an end without a `stop`, for instance by a hook that cancels all tasks."""
        if self._stopped is not None:
            self._stopped.set()
        if task is not self._task:
            return  # dropped
        self._drop_hooks()
        self._report_failures()
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            error = RuntimeError("the task of the network loop was cancelled")
        if error is not None:
            self._processor._listener.ended(error)

    def _show(self) -> None:
        """Tell of a new status, or of what has become of the wait for the next attempt."""
        connection, before = self.connection, self._shown
        shown = (connection.status, connection.reason, connection.next_attempt)
        is_new = connection.status is not before[0]
        if shown == before or not (is_new or connection.waits):
            return
        self._shown = shown
        if is_new and connection.status is NetworkStatus.CONNECTED:
            self._processor._last_connected_timestamp = self._timing.wall()
        change = NetworkChange(connection.status, connection.reason, self._next_attempt())
        self._processor._listener.changed(change)

    def _report_failures(self) -> None:
        failures, self._failures = self._failures, []
        for hook, error, expected in failures:
            failure = NetworkFailure(hook, error, expected, self._next_attempt())
            self._processor._listener.failed(failure)

    def _next_attempt(self) -> float | None:
        due = self.connection.next_attempt
        return None if due is None else self._timing.wall() + max(0.0, due - self._now())

    async def _perform(self, operation: Operation) -> Outcome:
        processor = self._processor
        match operation:
            case Check():
                return await self._beside("check_network", processor.check_network_timeout)
            case Start():
                return await self._start()
            case NotifyConnected():
                return await self._beside("on_connected", processor.start_network_timeout)
            case NotifyDisconnected():
                await self._end_tasks()
                timeout = processor.stop_network_timeout
                return await self._beside("on_disconnected", timeout, may_interrupt=False)
            case Stop():
                await self._end_tasks()
                return await self._stop()
            case Wait(until):
                return await self._wait(until)
            case Stopped():
                raise AssertionError("Stopped is not an operation to perform")

    async def _wait(self, until: float) -> Outcome:
        try:
            await bounded(self._timing.sleep_until(until), None, self._interrupt)
        except HookInterrupted:
            return Interrupted()
        except HookCancelled:
            pass  # a hook has cancelled all tasks; the state machine sees what is due
        return Returned()

    # Hooks

    async def _beside(self, hook: str, timeout: float, *, may_interrupt: bool = True) -> Outcome:
        """Run a hook in a task of its own, which knows what ``start_network`` has set."""
        context = self._context if self._hooks is None else self._hooks.context
        call = self._check() if hook == "check_network" else self._notify(hook)
        task = self._loop.create_task(
            call, name=f"{hook} of {type(self._processor).__name__}", context=context.copy()
        )
        return await self._bounded(hook, task, timeout, may_interrupt=may_interrupt)

    async def _check(self) -> NetworkStatus:
        status = await self._processor.check_network()
        if not isinstance(status, NetworkStatus):
            problem = "it must return a NetworkStatus"
            if type(status).__name__ == NetworkStatus.__name__:  # chronopype's
                problem += f" of chronopype_mp, but this one is of {type(status).__module__}"
            raise TypeError(
                f"{type(self._processor).__name__}.check_network() returned {repr_of(status)}; "
                f"{problem}"
            )
        return status

    async def _notify(self, hook: str) -> object:
        answer = getattr(self._processor, hook)()
        return await answer if inspect.isawaitable(answer) else answer

    async def _start(self) -> Outcome:
        processor = self._processor
        tasks = self._hooks = self._new_hooks()
        call = tasks.call(lambda: processor.start_network())
        try:
            outcome = await self._bounded("start_network", call, processor.start_network_timeout)
        finally:
            if not call.done():
                tasks.close()  # it is left behind in its task; other hooks need another one
        if isinstance(outcome, Returned):
            self.tick_context = tasks.context.copy()
        return outcome

    async def _stop(self) -> Outcome:
        processor = self._processor
        tasks = self._hooks
        if tasks is None or not tasks.is_usable:
            tasks = self._hooks = self._new_hooks()
        call = tasks.call(lambda: processor.stop_network())
        timeout = processor.stop_network_timeout
        try:
            return await self._bounded("stop_network", call, timeout, may_interrupt=False)
        finally:
            tasks.close()
            self._hooks = self.tick_context = None

    def _new_hooks(self) -> ConnectionTask:
        context = self._context if self._hooks is None else self._hooks.context
        return ConnectionTask(
            f"connection of {type(self._processor).__name__}",
            context.copy(),
            lambda: self.lose("the task of the connection was cancelled from within"),
        )

    async def _bounded(
        self, name: str, hook: asyncio.Future[Any], timeout: float, *, may_interrupt: bool = True
    ) -> Outcome:
        """Await a hook; note and return what became of it."""
        try:
            result = await bounded(hook, timeout, self._interrupt if may_interrupt else None)
        except HookInterrupted as error:
            raised = error.__cause__
            return Interrupted() if raised is None else self._note(name, raised)
        except HookTimeout as error:
            cause = self._note(name, error)
            return cause if _is_signal(cause) else TimedOut(cause.reason)
        except HookStuck as error:
            return TimedOut(self._stuck(name, error).reason)
        except (asyncio.CancelledError, SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            return self._note(name, error)
        return self._returned(name, result)

    def _returned(self, name: str, result: object) -> Outcome:
        """Return the outcome of a hook that has ended; what it returns must not be meant as one."""
        if name == "check_network":
            return Returned(cast(NetworkStatus, result))
        kind = result if isinstance(result, type) else type(result)
        if not issubclass(kind, BaseException | NetworkStatus):
            return Returned()
        what = f"{name}() returned {repr_of(result)}, which nobody looks at"
        remedy = "raise it" if issubclass(kind, BaseException) else "raise an exception"
        return self._note(name, TypeError(f"{what}; {remedy} instead"))

    def _note(self, hook: str, error: BaseException) -> Failed:
        """Keep a failure, to be reported when the next attempt is known; return it as a cause."""
        cause = self._cause(hook, error)
        self._failures.append((hook, error, cause.expected))
        return cause

    def _stuck(self, hook: str, error: HookStuck) -> Failed:
        """Report a hook that only a new process ends; return it as a cause."""
        cause = self._note(hook, error)
        self._report_failures()
        self._processor._listener.stuck(hook)
        return cause

    def _cause(self, hook: str, error: BaseException) -> Failed:
        """Return what an error says of the connection, and the gravest of what it consists of."""
        signals = list(_signals(error))
        permanent = next((each for each in signals if isinstance(each, PermanentFailure)), None)
        waits = [
            (seconds, each)
            for each in signals
            if isinstance(each, RetryAfter) and (seconds := _seconds(each)) is not None
        ]
        seconds, wait = max(waits, key=lambda each: each[0], default=(None, None))
        leaves = list(_leaves(error))
        known = (*self._processor.expected_errors, PermanentFailure, RetryAfter)
        unexpected = next((each for each in leaves if not _is_expected(each, known)), None)
        gravest = permanent or wait or unexpected or leaves[0]
        return Failed(
            shortened(f"{hook}: {line_of(gravest)}", LONGEST_REASON),
            expected=unexpected is None,
            retry_after=None if permanent else seconds,
            permanent=permanent is not None,
        )

    # What runs beside the loop while there is a connection

    def _begin_body(self) -> None:
        assert self._hooks is not None
        if self._hooks.is_usable:
            self._body = self._hooks.call(lambda: self._processor.run_network())
            self._body.add_done_callback(self._body_ended)

    def _body_ended(self, body: asyncio.Future[Any]) -> None:
        if body.cancelled():
            return
        error = body.exception()
        if error is not None:
            cause = self._note("run_network", error)
        else:
            outcome = self._returned("run_network", body.result())
            cause = outcome if isinstance(outcome, Failed) else Failed("run_network returned")
        self._tell_loss(cause, belongs=body is self._body)

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        belongs = task in self._spawned
        self._spawned.discard(task)
        if task.cancelled():
            if task.cancelling() or not belongs:
                return  # by who has it
            error: BaseException | None = HookCancelled("the task was cancelled from within")
        else:
            error = task.exception()
        if error is not None:
            self._tell_loss(self._note(f"task {task.get_name()}", error), belongs=belongs)

    def _tell_loss(self, cause: Failed, *, belongs: bool) -> None:
        """Take the connection for lost, unless what ended is left of an earlier one."""
        if belongs:
            self._poke(self.connection.lose(cause, self._now()))
        if self.rests_until > -math.inf:
            self._report_failures()

    async def _end_tasks(self) -> None:
        """Cancel the body and the spawned tasks, and wait for their ends."""
        names: dict[asyncio.Future[Any], str] = {
            task: f"task {task.get_name()}" for task in self._spawned
        }
        if self._body is not None:
            names[self._body] = "run_network"
        left = {each for each in names if not each.done()}
        for timeout in (self._processor.stop_network_timeout, hooks.CANCEL_GRACE):
            for each in left:
                each.cancel()
            if left:
                left = (await asyncio.wait(left, timeout=timeout))[1]
        await asyncio.sleep(0)  # until the ends of all have been noticed
        self._spawned, self._body = set(), None
        for each in left:
            self._stuck(names[each], HookStuck("did not end after it was cancelled twice"))
            if names[each] == "run_network" and self._hooks is not None:
                self._hooks.close()

    def _drop_hooks(self) -> None:
        for task in self._spawned:
            task.cancel()
        self._spawned = set()
        if self._hooks is not None:
            self._hooks.kill()
        self._hooks = self._body = self.tick_context = None


def _is_signal(cause: Failed) -> bool:
    """Return whether a hook has said when to try again."""
    return cause.permanent or cause.retry_after is not None


def says_when(error: BaseException) -> bool:
    """Return whether an exception says when to try again: a `RetryAfter` or `PermanentFailure`."""
    return any(True for _ in _signals(error))


def _signals(error: BaseException) -> Iterator[PermanentFailure | RetryAfter]:
    """Yield what says when to try again: in groups, and where another exception replaced it.

    For instance, a context manager may fail on the way out.
    """
    found, seen = [error], set[int]()
    while found:
        each = found.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, PermanentFailure | RetryAfter):
            yield each
        if isinstance(each, BaseExceptionGroup):
            found.extend(_kept(each, "exceptions"))
        context = None if _kept(each, "__suppress_context__") else _kept(each, "__context__")
        cause = _kept(each, "__cause__")
        found.extend(other for other in (cause, context) if other is not None)


def _kept(error: BaseException, name: str) -> Any:
    """Return an attribute as Python keeps it: a user's class may have a property that raises."""
    kind = BaseExceptionGroup if name == "exceptions" else BaseException
    return vars(kind)[name].__get__(error)


def _seconds(wait: RetryAfter) -> float | None:
    """Return for how long to wait; None if a subclass has not set that."""
    seconds: object = getattr(wait, "seconds", None)
    is_valid = isinstance(seconds, int | float) and 0.0 <= seconds < math.inf
    return float(seconds) if is_valid else None  # type: ignore[arg-type]  # it is a number


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group in order, or else the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in _kept(error, "exceptions"):
            yield from _leaves(each)
    else:
        yield error


def _is_expected(error: BaseException, expected: tuple[type[Exception], ...]) -> bool:
    """Return whether an exception is an expected one, or what a library has made of one.

    A library's own exception may have been raised because of an OSError, with or without ``from``.
    A built-in exception raised while another is handled is rather a mistake in the handler.
    """
    seen: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        if seen is None or isinstance(seen, expected):
            return seen is not None
        if isinstance(seen, BaseExceptionGroup):
            return all(_is_expected(each, expected) for each in _leaves(seen))
        is_own = type(seen).__module__ != "builtins"
        seen = _kept(seen, "__cause__") or (_kept(seen, "__context__") if is_own else None)
    return False
