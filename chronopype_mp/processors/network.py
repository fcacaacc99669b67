"""NetworkProcessor: a processor that keeps its own connection alive.

`chronopype_mp.core.connection` decides; this module is its edge, which calls the hooks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import ClassVar, NamedTuple

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.checks import finite
from chronopype_mp.core.connection import (
    Check,
    Connection,
    ConnectionPolicy,
    Failed,
    Interrupted,
    NetworkStatus,
    NotifyConnected,
    NotifyDisconnected,
    Operation,
    Outcome,
    Returned,
    Start,
    StartWhen,
    Stop,
    Stopped,
    TimedOut,
    Wait,
)
from chronopype_mp.core.error_text import message_of, name_of
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.hooks import (
    HookCancelled,
    HookInterrupted,
    HookStuck,
    HookTimeout,
    bounded,
)
from chronopype_mp.timing import wall

__all__ = ["NetworkListener", "NetworkProcessor", "NetworkStatus", "StartWhen"]

SHORTEST_SETTING = 0.1
"""Seconds; shorter settings are set to this, as in chronopype."""


def _no_change(error: str | None) -> None:
    """Nobody listens."""


def _no_failure(hook: str, error: BaseException) -> None:
    """Nobody listens."""


def _no_stuck(hook: str) -> None:
    """Nobody listens."""


def _no_end(reason: BaseException) -> None:
    """Nobody listens."""


class NetworkListener(NamedTuple):
    """Who is told about a hosted processor's network.

    Attributes:
        changed: called with the error text, or None, after the status changed.
        failed: called with the hook's name and its exception.
        stuck: called with the hook's name when a hook cannot be ended; only a restart helps.
        ended: called with the reason when the network loop has ended without a `stop`.
    """

    changed: Callable[[str | None], None]
    failed: Callable[[str, BaseException], None]
    stuck: Callable[[str], None]
    ended: Callable[[BaseException], None]


NOBODY = NetworkListener(_no_change, _no_failure, _no_stuck, _no_end)


class NetworkProcessor(TickProcessor):
    """A processor with a connection. Override `logger`, `check_network` and what else you need.

    Its network loop checks the connection, starts the network when a check needs it, backs off
    and retries; `chronopype_mp.core.connection` has the rules. Ticks come only while the status is
    CONNECTED and after `start_network` has returned.

    Class attributes:
        LOGGER_NAME: a name for `logger` to use.
        ticks_while_disconnected: True: ticks come whatever the status.
        start_network_when: `StartWhen.NEEDED` (default) calls `start_network` when a check says not
            connected, `StartWhen.CONNECTED` only after a successful check.
        start_network_timeout, stop_network_timeout: seconds.
        network_backoff: the wait after a failed attempt.
    """

    LOGGER_NAME: ClassVar[str] = "NetworkProcessor"
    ticks_while_disconnected: bool = False
    start_network_when: StartWhen = StartWhen.NEEDED
    start_network_timeout: float = 30.0
    stop_network_timeout: float = 5.0
    network_backoff: BackoffPolicy = BackoffPolicy()

    _check_network_interval: float = 10.0
    _check_network_timeout: float = 5.0
    _network_error_wait_time: float = 60.0
    _last_connected_timestamp: float = math.nan
    _connection: Connection | None = None
    _loop_task: asyncio.Task[None] | None = None
    _stopped: asyncio.Event | None = None
    _interrupt: asyncio.Future[None] | None = None
    _held: asyncio.Event | None = None
    _wake: asyncio.Event | None = None
    _last_network_error: str | None = None
    _listener: NetworkListener = NOBODY

    @classmethod
    def logger(cls) -> logging.Logger:
        """Return the logger to use. Must be overridden."""
        raise NotImplementedError(f"{cls.__name__} must override the classmethod logger()")

    async def check_network(self) -> NetworkStatus:
        """Return the status now: CONNECTED, NOT_CONNECTED or ERROR. Must be overridden.

        It is cancelled after ``check_network_timeout``, which counts as NOT_CONNECTED. An exception
        counts as ERROR and is retried after ``network_error_wait_time``.
        """
        raise NotImplementedError(f"{type(self).__name__} must override check_network()")

    async def start_network(self) -> None:
        """Make the connection. It is retried after an exception or a timeout."""

    async def stop_network(self) -> None:
        """Close the connection. Called after a loss, after a failed start, and at the end."""

    def on_connected(self) -> None:
        """Called when the status has become CONNECTED."""
        self.logger().info("Network connected")

    def on_disconnected(self) -> None:
        """Called when the connection is lost or given up."""
        self.logger().info("Stopping networking")

    @property
    def network_status(self) -> NetworkStatus:
        """The status; in the owner's process, the one last reported by the worker."""
        if self._host is None and self._mirror is not None:
            return self._mirror.network_status
        return NetworkStatus.STOPPED if self._connection is None else self._connection.status

    @property
    def last_connected_timestamp(self) -> float:
        """When the status last became CONNECTED, wall clock in seconds; nan if never."""
        if self._host is None and self._mirror is not None:
            return self._mirror.last_connected_timestamp
        return self._last_connected_timestamp

    @property
    def check_network_interval(self) -> float:
        """Seconds between two checks while connected; at least 0.1.

        Set outside, it reaches the worker. Set in the worker, it holds until its process ends.
        """
        return self._setting("check_network_interval")

    @check_network_interval.setter
    def check_network_interval(self, value: float) -> None:
        self._set("check_network_interval", value)

    @property
    def check_network_timeout(self) -> float:
        """Seconds that a check may take; at least 0.1. See `check_network_interval`."""
        return self._setting("check_network_timeout")

    @check_network_timeout.setter
    def check_network_timeout(self, value: float) -> None:
        self._set("check_network_timeout", value)

    @property
    def network_error_wait_time(self) -> float:
        """Seconds to wait after a check raised; at least 0.1. See `check_network_interval`."""
        return self._setting("network_error_wait_time")

    @network_error_wait_time.setter
    def network_error_wait_time(self, value: float) -> None:
        self._set("network_error_wait_time", value)

    def _setting(self, name: str) -> float:
        own: float = getattr(self, f"_{name}")
        hosting = self._hosting
        return own if hosting is None else hosting.network_settings.get(name, own)

    def _set(self, name: str, value: float) -> None:
        """In a worker set it for this incarnation, else for this object and its worker."""
        seconds = max(SHORTEST_SETTING, finite(type(self).__name__, name, value))
        hosting = self._hosting
        if hosting is not None:
            hosting.network_settings[name] = seconds
        else:
            setattr(self, f"_{name}", seconds)
            if self._mirror is not None:
                self._mirror.network_setting_changed(name, seconds)
            if self._host is not None:
                return  # the clock sends it to the host
        if self._connection is not None:
            self._connection.policy = self._connection_policy()
        if self._wake is not None:
            self._wake.set()

    def _connection_policy(self) -> ConnectionPolicy:
        return ConnectionPolicy(
            check_interval=self.check_network_interval,
            error_wait=self.network_error_wait_time,
            start_when=self.start_network_when,
            backoff=self.network_backoff,
        )

    @property
    def wants_ticks(self) -> bool:
        """Whether ticks reach the processor now: CONNECTED and started, or opted out of that."""
        return self.ticks_while_disconnected or (
            self._connection is not None and self._connection.ready
        )

    def start(self, timestamp: float) -> None:
        """Start the network loop, unless it runs.

        While a `stop` is under way, the loop starts again as soon as that has ended.

        Args:
            timestamp: the clock's time, seconds.

        Raises:
            RuntimeError: no event loop is running.
        """
        super().start(timestamp)
        if self._connection is not None and self._is_looping:
            if self._connection.ending:
                self._make_signals()
                self._connection.policy = self._connection_policy()
            self._connection.begin()
            return
        loop = asyncio.get_running_loop()
        self._make_signals()
        self._connection = Connection(self._connection_policy(), random.Random())
        first = self._connection.begin()
        self._changed(None)
        self._loop_task = loop.create_task(
            self._network_loop(self._connection, first),
            name=f"network loop of {type(self).__name__}",
        )
        self._loop_task.add_done_callback(self._loop_ended)

    @property
    def _is_looping(self) -> bool:
        return self._loop_task is not None and not self._loop_task.done()

    def _make_signals(self) -> None:
        """Make what `stop`, `pause`, `resume` and changed settings signal the network loop with."""
        self._interrupt = asyncio.get_running_loop().create_future()
        self._wake = asyncio.Event()
        self._held = asyncio.Event()
        self._held.set()

    def pause(self) -> None:
        """Hold the network loop before its next check. Status and connection stay."""
        if self._held is not None:
            self._held.clear()

    def resume(self) -> None:
        """Continue the network loop, with a check at once."""
        if self._held is not None and not self._held.is_set():
            self._held.set()
            if self._wake is not None:
                self._wake.set()

    def stop(self) -> None:
        """Stop the network loop. When `await_cleanup` returns, `stop_network` has run.

        A `check_network` or `start_network` under way is cancelled. An `on_disconnected` or
        `stop_network` under way may finish and is not called again, so every hook may call `stop`.
        """
        super().stop()
        connection = self._connection
        if connection is None or not self._is_looping:
            return
        if not connection.ending:
            self._stopped = asyncio.Event()
        if connection.end() and self._interrupt is not None and not self._interrupt.done():
            self._interrupt.set_result(None)

    async def await_cleanup(self, timeout: float | None = None) -> None:
        """Wait until a `stop` under way has ended; return at once if there is none.

        Args:
            timeout: seconds, after which the hook under way is cancelled and no further hook is
                called. None: the timeouts of the hooks bound the wait.
        """
        stopped = self._stopped
        if stopped is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await stopped.wait()
        except TimeoutError:
            self._drop()

    def _drop(self) -> None:
        """Abandon the network as a killed process would: no further hook is called."""
        if self._loop_task is not None:
            self._loop_task.cancel()
        if self._stopped is not None:
            self._stopped.set()
        # Keep nothing of the event loop, so that the object can be added to a clock again.
        self._loop_task = self._connection = self._stopped = None
        self._interrupt = self._held = self._wake = None

    async def _network_loop(self, connection: Connection, operation: Operation) -> None:
        """Ask the state machine what to do, do it, and hand the outcome back."""
        shown = connection.status
        while not isinstance(operation, Stopped):
            operation = connection.handle(await self._perform(operation))
            if not connection.ending and self._stopped is not None:
                self._stopped.set()
            if connection.status is not shown:
                shown = connection.status
                if shown is NetworkStatus.CONNECTED:
                    self._last_connected_timestamp = wall()
                self._changed(self._last_network_error if shown is NetworkStatus.ERROR else None)

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """Report an end without a `stop`, for instance by a hook that cancels all tasks."""
        if task is not self._loop_task:
            return  # dropped
        if self._stopped is not None:
            self._stopped.set()
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            error = RuntimeError("the task of the network loop was cancelled")
        if error is not None:
            self._listener.ended(error)

    def _changed(self, error: str | None) -> None:
        self._listener.changed(error)

    async def _perform(self, operation: Operation) -> Outcome:
        match operation:
            case Check():
                return await self._hook(
                    "check_network", self._check, self.check_network_timeout, self._interrupt
                )
            case Start():
                return await self._hook(
                    "start_network",
                    self.start_network,
                    self.start_network_timeout,
                    self._interrupt,
                )
            case Stop():
                return await self._hook(
                    "stop_network", self.stop_network, self.stop_network_timeout
                )
            case NotifyConnected():
                return await self._hook("on_connected", self._on_connected, None)
            case NotifyDisconnected():
                return await self._hook("on_disconnected", self._on_disconnected, None)
            case Wait():
                return await self._wait(operation.seconds)
            case Stopped():
                raise AssertionError("Stopped is not an operation to perform")

    async def _check(self) -> NetworkStatus:
        status = await self.check_network()
        if not isinstance(status, NetworkStatus):
            raise TypeError(
                f"{type(self).__name__}.check_network() returned {status!r}; "
                "it must return a NetworkStatus"
            )
        return status

    async def _on_connected(self) -> None:
        self.on_connected()

    async def _on_disconnected(self) -> None:
        self.on_disconnected()

    async def _hook(
        self,
        name: str,
        hook: Callable[[], Awaitable[NetworkStatus | None]],
        timeout: float | None,
        interrupt: asyncio.Future[None] | None = None,
    ) -> Outcome:
        try:
            result = await bounded(hook(), timeout, interrupt)
        except HookInterrupted:
            return Interrupted()
        except HookTimeout as error:
            self._hook_failed(name, error)
            return TimedOut()
        except HookStuck as error:
            self._hook_failed(name, error)
            self._listener.stuck(name)
            return TimedOut()
        except (asyncio.CancelledError, SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._hook_failed(name, error)
            return Failed()
        if isinstance(result, NetworkStatus):
            if result is NetworkStatus.ERROR:
                self._last_network_error = "check_network() returned ERROR"
            return Returned(result)
        return Returned()

    def _hook_failed(self, name: str, error: BaseException) -> None:
        self._last_network_error = f"{name}: {name_of(type(error))}: {message_of(error)}"
        self._listener.failed(name, error)

    async def _wait(self, seconds: float) -> Outcome:
        """Wait until the next check is due; a changed setting or a resume ends the wait."""
        assert self._wake is not None
        assert self._held is not None
        self._wake.clear()
        try:
            await bounded(_until_due(seconds, self._wake, self._held), None, self._interrupt)
        except HookInterrupted:
            return Interrupted()
        except HookCancelled:
            pass  # a hook has cancelled all tasks: check at once
        return Returned()


async def _until_due(seconds: float, wake: asyncio.Event, held: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
    await held.wait()
