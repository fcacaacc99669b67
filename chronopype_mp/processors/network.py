"""NetworkProcessor: a processor that keeps its own connection alive.

The rules are in `chronopype_mp.core.connection`; this is its edge, which calls the hooks.
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
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.hooks import HookStuck, HookTimeout, bounded
from chronopype_mp.timing import wall

__all__ = ["NetworkListener", "NetworkProcessor", "NetworkStatus", "StartWhen"]

SHORTEST = 0.1
"""Seconds; shorter settings are raised to this, as in chronopype."""


class NetworkListener(NamedTuple):
    """Whom a hosted processor tells of its network.

    Attributes:
        changed: called with the error text, or None, after the status changed.
        failed: called with the hook's name and its exception.
        stuck: called with the hook's name when a hook cannot be ended; only a new process helps.
    """

    changed: Callable[[str | None], None]
    failed: Callable[[str, BaseException], None]
    stuck: Callable[[str], None]


def _no_change(error: str | None) -> None:
    """Nobody is told."""


def _no_failure(hook: str, error: BaseException) -> None:
    """Nobody is told."""


def _no_stuck(hook: str) -> None:
    """Nobody is told."""


NOBODY = NetworkListener(_no_change, _no_failure, _no_stuck)


class NetworkProcessor(TickProcessor):
    """A processor with a connection. Override `logger` and `check_network`, and what is needed.

    Its network loop checks the connection, starts the network when a check needs it, backs off
    and retries; see `chronopype_mp.core.connection` for the rules. Ticks come only while the
    status is CONNECTED and after `start_network` has returned.

    Class attributes:
        LOGGER_NAME: a name for `logger` to use.
        ticks_while_disconnected: True lets ticks through whatever the status.
        start_network_when: `StartWhen.NEEDED` calls `start_network` when a check says not
            connected (the default), `StartWhen.CONNECTED` only after a successful check.
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
    _stop_task: asyncio.Task[None] | None = None
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

        Cancelled after ``check_network_timeout``, which counts as NOT_CONNECTED. An exception
        counts as ERROR and is tried again after ``network_error_wait_time``.
        """
        raise NotImplementedError(f"{type(self).__name__} must override check_network()")

    async def start_network(self) -> None:
        """Make the connection. An exception, or `start_network_timeout`, is followed by a retry."""

    async def stop_network(self) -> None:
        """Take the connection down; called after a loss, a failed start, and at the end."""

    def on_connected(self) -> None:
        """Run when the status has become CONNECTED."""
        self.logger().info("Network connected")

    def on_disconnected(self) -> None:
        """Run when a connection is lost or given up."""
        self.logger().info("Stopping networking")

    @property
    def network_status(self) -> NetworkStatus:
        """The status; in the owner's process the one that the worker reported last."""
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
        """Seconds between two checks while connected; at least 0.1. Reaches a running worker."""
        return self._check_network_interval

    @check_network_interval.setter
    def check_network_interval(self, value: float) -> None:
        self._set("check_network_interval", value)

    @property
    def check_network_timeout(self) -> float:
        """Seconds that a check may take; at least 0.1. Reaches a running worker."""
        return self._check_network_timeout

    @check_network_timeout.setter
    def check_network_timeout(self, value: float) -> None:
        self._set("check_network_timeout", value)

    @property
    def network_error_wait_time(self) -> float:
        """Seconds to wait after a check raised; at least 0.1. Reaches a running worker."""
        return self._network_error_wait_time

    @network_error_wait_time.setter
    def network_error_wait_time(self, value: float) -> None:
        self._set("network_error_wait_time", value)

    def _set(self, name: str, value: float) -> None:
        seconds = max(SHORTEST, finite(type(self).__name__, name, value))
        setattr(self, f"_{name}", seconds)
        if self._connection is not None:
            self._connection.policy = self._connection_policy()
        if self._wake is not None:
            self._wake.set()
        if self._mirror is not None:
            self._mirror.network_setting_changed(name, seconds)

    def _connection_policy(self) -> ConnectionPolicy:
        return ConnectionPolicy(
            check_interval=self._check_network_interval,
            error_wait=self._network_error_wait_time,
            start_when=self.start_network_when,
            backoff=self.network_backoff,
        )

    @property
    def _wants_ticks(self) -> bool:
        return self.ticks_while_disconnected or (
            self._connection is not None and self._connection.ready
        )

    def start(self, timestamp: float) -> None:
        """Start the network loop; a second call while it runs does nothing more.

        Args:
            timestamp: the clock's time, seconds.

        Raises:
            RuntimeError: no event loop is running.
        """
        super().start(timestamp)
        if self._loop_task is not None and not self._loop_task.done():
            return
        loop = asyncio.get_running_loop()
        self._connection = Connection(self._connection_policy(), random.Random())
        self._held = asyncio.Event()
        self._held.set()
        self._wake = asyncio.Event()
        first = self._connection.begin()
        self._changed(None)
        self._loop_task = loop.create_task(
            self._network_loop(self._connection, first),
            name=f"network loop of {type(self).__name__}",
        )

    def pause(self) -> None:
        """Hold the network loop before its next check; status and connection stay."""
        if self._held is not None:
            self._held.clear()

    def resume(self) -> None:
        """Let the network loop go on, with a check at once."""
        if self._held is not None and not self._held.is_set():
            self._held.set()
            if self._wake is not None:
                self._wake.set()

    def stop(self) -> None:
        """Stop the network loop; when `await_cleanup` returns, `stop_network` has run."""
        super().stop()
        if self._loop_task is None or self._connection is None:
            return
        self._stop_task = asyncio.get_running_loop().create_task(
            self._end(self._loop_task, self._connection),
            name=f"network stop of {type(self).__name__}",
        )
        self._loop_task = None

    async def await_cleanup(self, timeout: float | None = None) -> None:
        """Wait until a `stop` under way has ended; returns at once when there is none.

        Args:
            timeout: seconds, after which it is given up; None for `stop_network_timeout` and the
                time that a cancelled hook has to end.
        """
        task, self._stop_task = self._stop_task, None
        if task is None:
            return
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            task.cancel()

    def _drop(self) -> None:
        """Leave the network as a killed process would: no hook is called any more."""
        if self._loop_task is not None:
            self._loop_task.cancel()
        # No trace of the event loop either, so that the object can be added to a clock again.
        self._loop_task = self._connection = self._stop_task = self._held = self._wake = None

    async def _end(self, loop_task: asyncio.Task[None], connection: Connection) -> None:
        loop_task.cancel()
        await asyncio.wait({loop_task})
        operation = connection.end()
        self._changed(None)
        while not isinstance(operation, Stopped):
            operation = connection.handle(await self._perform(operation))
            self._changed(None)

    async def _network_loop(self, connection: Connection, operation: Operation) -> None:
        """Ask the machine what to do, do it, hand the outcome back."""
        shown = connection.status
        while True:
            if connection.status is not shown:
                shown = connection.status
                if shown is NetworkStatus.CONNECTED:
                    self._last_connected_timestamp = wall()
                self._changed(self._last_network_error if shown is NetworkStatus.ERROR else None)
            outcome = await self._perform(operation)
            operation = connection.handle(outcome)

    def _changed(self, error: str | None) -> None:
        self._listener.changed(error)

    async def _perform(self, operation: Operation) -> Outcome:
        match operation:
            case Check():
                return await self._hook("check_network", self._check, self._check_network_timeout)
            case Start():
                return await self._hook(
                    "start_network", self.start_network, self.start_network_timeout
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
                await self._wait(operation)
        return Returned()

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
        self, name: str, hook: Callable[[], Awaitable[NetworkStatus | None]], timeout: float | None
    ) -> Outcome:
        try:
            result = await bounded(hook(), timeout)
        except HookTimeout as error:
            self._hook_failed(name, error)
            return TimedOut()
        except HookStuck as error:
            self._hook_failed(name, error)
            self._listener.stuck(name)
            return TimedOut()
        except Exception as error:
            self._hook_failed(name, error)
            return Failed()
        if isinstance(result, NetworkStatus):
            if result is NetworkStatus.ERROR:
                self._last_network_error = "check_network() returned ERROR"
            return Returned(result)
        return Returned()

    def _hook_failed(self, name: str, error: Exception) -> None:
        self._last_network_error = f"{name}: {type(error).__name__}: {error}"
        self._listener.failed(name, error)

    async def _wait(self, operation: Wait) -> None:
        """Wait until the next check is due; a changed setting or a resume ends the wait."""
        assert self._wake is not None
        assert self._held is not None
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(operation.seconds):
                await self._wake.wait()
        await self._held.wait()
