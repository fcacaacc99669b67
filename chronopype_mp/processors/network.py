"""NetworkProcessor: a processor that keeps its own connection alive.

`chronopype_mp.core.connection` decides; `chronopype_mp.processors.network_loop` calls the hooks.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Awaitable, Coroutine
from typing import Any, ClassVar, TypeVar

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.connection import ConnectionPolicy, NetworkStatus, StartWhen
from chronopype_mp.core.messages import WorkerSettings
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.network_loop import NOBODY, NetworkListener, NetworkLoop
from chronopype_mp.processors.network_settings import (
    adopt_settings,
    backoff_policy,
    error_types,
    network_setting,
    not_negative,
    optional_seconds,
    seconds,
    settings_of,
    start_when,
    timeout,
    yes_or_no,
)
from chronopype_mp.timing import SYSTEM_TIME, TimeSource

__all__ = ["SETTINGS", "NetworkProcessor", "NetworkStatus", "StartWhen"]

T = TypeVar("T")


class NetworkProcessor(TickProcessor):
    """A processor with a connection. Override `logger`, `check_network` and what else you need.

    Its network loop checks the connection, starts the network when a check needs it, backs off
    and retries; `chronopype_mp.core.connection` has the rules. Ticks come only while the status is
    CONNECTED and after `start_network` has returned.

    A tick that fails has the connection checked, unless the one before it failed, too.

    Every hook may raise `RetryAfter` or `PermanentFailure`. Any other exception, also one that is
    no `Exception`, is reported as the failure of that hook.

    The settings below are class attributes, which the body of a subclass and instances may set. Set
    outside, a setting reaches the worker. Set in the worker, it holds until its process ends. Times
    are in seconds.

    Class attributes:
        LOGGER_NAME: a name for `logger` to use.
        ticks_while_disconnected: True: ticks come whatever the status.
        start_network_when: `StartWhen.NEEDED` (default) calls `start_network` when a check says not
            connected, `StartWhen.CONNECTED` only after a successful check.
        start_network_timeout: for `start_network` and `on_connected`.
        stop_network_timeout: for `stop_network` and `on_disconnected`, and for the end of
            `run_network` and of spawned tasks.
        check_network_interval: between two checks while connected; at least 0.1.
        check_network_timeout: for a check; at least 0.1.
        network_error_wait_time: before the next attempt after an unexpected error of
            `check_network` or `start_network`; at least 0.1.
        network_backoff: the wait before the next attempt otherwise.
        expected_errors: exceptions of `check_network` and `start_network` that mean only that there
            is no connection. A library's exception that was raised because of one is expected, too.
            A `PermissionError` is an OSError: raise `PermanentFailure` if a key is refused.
        stable_after: a connection that held this long resets the backoff.
        stale_after: a connection that was not `heard` of for longer is lost; None: never.
        retry_permanent_after: before the next attempt after a `PermanentFailure`, even if it is set
            later than that was raised; None: there is none.
    """

    LOGGER_NAME: ClassVar[str] = "NetworkProcessor"
    ticks_while_disconnected: bool = network_setting(False, yes_or_no)
    start_network_when: StartWhen = network_setting(StartWhen.NEEDED, start_when)
    start_network_timeout: float = network_setting(30.0, timeout)
    stop_network_timeout: float = network_setting(5.0, timeout)
    check_network_interval: float = network_setting(10.0, seconds)
    check_network_timeout: float = network_setting(5.0, seconds)
    network_error_wait_time: float = network_setting(60.0, seconds)
    network_backoff: BackoffPolicy = network_setting(BackoffPolicy(), backoff_policy)
    expected_errors: tuple[type[Exception], ...] = network_setting(
        (OSError, TimeoutError), error_types
    )
    stable_after: float = network_setting(10.0, not_negative)
    stale_after: float | None = network_setting(None, optional_seconds)
    retry_permanent_after: float | None = network_setting(None, optional_seconds)

    _last_connected_timestamp: float = math.nan
    _network: NetworkLoop | None = None
    _listener: NetworkListener = NOBODY
    _timing: TimeSource = SYSTEM_TIME

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        adopt_settings(cls, SETTINGS)

    # Hooks

    @classmethod
    def logger(cls) -> logging.Logger:
        """Return the logger to use. Must be overridden."""
        raise NotImplementedError(f"{cls.__name__} must override the classmethod logger()")

    async def check_network(self) -> NetworkStatus:
        """Return the status now: CONNECTED, NOT_CONNECTED or ERROR. Must be overridden.

        It is cancelled after ``check_network_timeout``, which counts as NOT_CONNECTED, as do the
        ``expected_errors``. Another exception counts as ERROR and is retried after
        ``network_error_wait_time``.
        """
        raise NotImplementedError(f"{type(self).__name__} must override check_network()")

    async def start_network(self) -> None:
        """Make the connection. It is retried after an exception or a timeout.

        Context variables that it sets are seen by ticks and by the other hooks.
        """

    async def run_network(self) -> None:
        """Use the connection, for instance read from it. Runs while connected.

        The connection is lost when it returns or raises, for that reason. It begins after
        `on_connected`, and is cancelled when the connection is lost otherwise or given up. It runs
        in the same task as `start_network` and `stop_network`.
        """
        await asyncio.get_running_loop().create_future()

    async def stop_network(self) -> None:
        """Close the connection. Called after a loss, after a failed start, and at the end."""

    def on_connected(self) -> Awaitable[None] | None:
        """Called when the status has become CONNECTED and `start_network` has returned.

        May be a coroutine function. Ticks and `run_network` begin after it.
        """
        self.logger().info("Network connected")
        return None

    def on_disconnected(self) -> Awaitable[None] | None:
        """Called when the connection is lost or given up; may be a coroutine function."""
        self.logger().info("Stopping networking")
        return None

    # For hooks, ticks, tasks and threads of the worker

    def connection_lost(self, reason: object = None) -> None:
        """Report that the connection is lost. May be called in any thread, at any time.

        The hook under way is cancelled, unless it takes the connection down already. Without a
        connection nothing happens.

        Args:
            reason: shown beside the status. An exception, or a class of exceptions, is reported as
                if a hook had raised it, and a `RetryAfter` or `PermanentFailure` decides on the
                next attempt. Of anything else but a string, the ``repr()`` is shown.

        Raises:
            TypeError: a class of exceptions needs arguments.
            RuntimeError: it is called in the owner's process.
        """
        network = self._in_worker("connection_lost")
        if network is not None:
            network.lose(reason)

    def check_now(self) -> None:
        """Have the connection checked now. May be called in any thread, at any time.

        While not connected, the next attempt comes when it is due. A check that is asked for during
        a check follows it.

        Raises:
            RuntimeError: it is called in the owner's process.
        """
        network = self._in_worker("check_now")
        if network is not None:
            network.check_now()

    def heard(self) -> None:
        """Report that something has come over the connection, for ``stale_after``. In any thread.

        Raises:
            RuntimeError: it is called in the owner's process.
        """
        network = self._in_worker("heard")
        if network is not None:
            network.heard()

    def spawn(self, coro: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Start a task that belongs to the connection.

        An exception that it raises is reported, and the connection is lost for that reason. It is
        cancelled before `stop_network`.

        Args:
            coro: what to run.
            name: of the task, for reports; by default that of the coroutine.

        Raises:
            TypeError: ``coro`` is not a coroutine.
            RuntimeError: there is no connection, or this is not the worker's event loop.
        """
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"spawn({coro!r}): pass a coroutine, such as self.read()")
        network = self._in_worker("spawn")
        if network is None:
            coro.close()
            raise RuntimeError(
                "spawn() needs a connection; call it in start_network, or later while connected"
            )
        return network.spawn(coro, name)

    def _in_worker(self, what: str) -> NetworkLoop | None:
        """Return the network loop; None before it has begun.

        Raises:
            RuntimeError: this is the object in the owner's process.
        """
        if self._network is not None or self._is_hosted_in_place:
            return self._network  # an inline worker's may have ended, but its threads go on
        if self._host is None and self._mirror is not None:
            raise RuntimeError(
                f"{type(self).__name__}.{what}() works in the worker only; from outside, use "
                "handle.reconnect()"
            )
        return None

    # Status and settings

    @property
    def network_status(self) -> NetworkStatus:
        """The status; in the owner's process, the one last reported by the worker."""
        if self._host is None and self._mirror is not None:
            return self._mirror.network_status
        return NetworkStatus.STOPPED if self._network is None else self._network.connection.status

    @property
    def last_connected_timestamp(self) -> float:
        """When the status last became CONNECTED, wall clock in seconds; nan if never."""
        if self._host is None and self._mirror is not None:
            return self._mirror.last_connected_timestamp
        return self._last_connected_timestamp

    def _get_setting(self, name: str) -> Any:
        """Return the value of a setting; for `NetworkSetting`."""
        own = getattr(self, f"_{name}")
        hosting = self._hosting
        return own if hosting is None else hosting.network_settings.get(name, own)

    def _set_setting(self, name: str, value: Any) -> None:
        """Set a setting: in a worker for this incarnation, else for this object and its worker."""
        hosting = self._hosting
        if hosting is not None:
            if value == self._get_setting(name):
                return
            hosting.network_settings[name] = value
        else:
            if self._mirror is not None:
                if name not in WorkerSettings.__struct_fields__:
                    problem = "set it before add_processor, or in the class"
                    raise ConfigError(type(self).__name__, name, value, problem)
                self._mirror.network_setting_changed(name, value)
            setattr(self, f"_{name}", value)
        if self._network is not None:
            self._network.settings_changed()

    def _connection_policy(self) -> ConnectionPolicy:
        return ConnectionPolicy(
            check_interval=self.check_network_interval,
            error_wait=self.network_error_wait_time,
            start_when=self.start_network_when,
            backoff=self.network_backoff,
            stable_after=self.stable_after,
            stale_after=self.stale_after,
            retry_permanent_after=self.retry_permanent_after,
        )

    @property
    def wants_ticks(self) -> bool:
        """Whether ticks reach the processor now: CONNECTED and started, or opted out of that."""
        is_ready = self._network is not None and self._network.connection.ready
        return is_ready or self.ticks_while_disconnected

    @property
    def _tick_context(self) -> contextvars.Context | None:
        """The context variables that ticks see; None: those of the caller."""
        return None if self._network is None else self._network.tick_context

    # The network loop

    def start(self, timestamp: float) -> None:
        """Start the network loop, unless it runs.

        While a `stop` is under way, the loop starts again as soon as that has ended.

        Args:
            timestamp: the clock's time, seconds.

        Raises:
            RuntimeError: no event loop is running.
        """
        super().start(timestamp)
        if self._network is None or self._network.has_ended:
            self._network = NetworkLoop(self)
        self._network.begin()

    def pause(self) -> None:
        """Hold the network loop before its next check. Status and connection stay."""
        if self._network is not None:
            self._network.pause()

    def resume(self) -> None:
        """Continue the network loop. A connection is checked at once."""
        if self._network is not None:
            self._network.resume()

    def stop(self) -> None:
        """Stop the network loop. When `await_cleanup` returns, `stop_network` has run.

        A `check_network`, `start_network` or `on_connected` under way is cancelled. An
        `on_disconnected` or `stop_network` under way may finish and is not called again, so every
        hook may call `stop`.
        """
        super().stop()
        if self._network is not None:
            self._network.stop()

    async def await_cleanup(self, timeout: float | None = None) -> None:
        """Wait until a `stop` under way has ended; return at once if there is none.

        Args:
            timeout: seconds, after which the hook under way is cancelled and no further hook is
                called. None: the timeouts of the hooks bound the wait.
        """
        if self._network is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._network.wait_stopped()
        except TimeoutError:
            self._drop()

    def _drop(self) -> None:
        """Abandon the network as a killed process would: no further hook is called."""
        network, self._network = self._network, None
        # Nothing of the event loop is kept, so that the object can be added to a clock again.
        if network is not None:
            network.drop()


SETTINGS = settings_of(NetworkProcessor)
"""The settings, by name; whatever may be assigned to the class later."""
