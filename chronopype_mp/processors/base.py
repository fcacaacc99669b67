"""TickProcessor, the base class of everything that a clock ticks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextvars import Context, ContextVar
from typing import Any, ClassVar, Protocol

import msgspec

from chronopype_mp.core.call_outcome import DEFAULT_TIMEOUT
from chronopype_mp.core.checks import whole
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.connection_counters import ConnectionRecorder
from chronopype_mp.core.topics import pattern_problem
from chronopype_mp.exceptions import HookError, MessageError, OutputError
from chronopype_mp.processors.models import ProcessorState
from chronopype_mp.processors.network_settings import NetworkSetting

__all__ = ["HOSTED_BY", "Emitting", "Hosting", "Mirror", "Subscribing", "TickProcessor"]


class Emitting(Protocol):
    """What takes the outputs of a processor."""

    def emit(self, payload: object, topic: str, retain: bool) -> None:
        """Take an output."""
        ...

    @property
    def must_drain(self) -> bool:
        """Whether `drain` waits."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more."""
        ...


class Subscribing(Protocol):
    """What gets the messages for a processor."""

    def subscribe(self, patterns: Iterable[str]) -> None:
        """Subscribe to topics."""
        ...

    def unsubscribe(self, patterns: Iterable[str]) -> None:
        """Unsubscribe."""
        ...


class Hosting(Protocol):
    """What a worker's host keeps for the processor that it hosts.

    Attributes:
        network_settings: those set in this incarnation, by name; the others are the processor's
            own.
        connections: counts those of this incarnation.
    """

    network_settings: dict[str, Any]
    connections: ConnectionRecorder

    @property
    def outputs(self) -> Emitting:
        """What takes the outputs."""
        ...

    @property
    def messages(self) -> Subscribing:
        """What gets the messages."""
        ...

    @property
    def state(self) -> ProcessorState:
        """The state, from the host's counters."""
        ...

    async def call(
        self, worker: str, method: str, args: Sequence[object], kwargs: dict[str, Any], timeout: Any
    ) -> Any:
        """Call a method of another worker; see `TickProcessor.call`."""
        ...


HOSTED_BY: ContextVar[Hosting | None] = ContextVar("HOSTED_BY", default=None)
"""The host to whose tasks the running code belongs.

An inline worker hosts the owner's own object. This distinguishes code in the worker from the
owner's code outside.
"""


class Mirror(Protocol):
    """What a clock keeps for a registered processor: the last reports of its worker."""

    @property
    def state(self) -> ProcessorState:
        """The state last reported."""
        ...

    @property
    def network_status(self) -> NetworkStatus:
        """The network status last reported."""
        ...

    @property
    def last_connected_timestamp(self) -> float:
        """When the network was last connected, wall clock in seconds; nan if never."""
        ...

    def network_setting_changed(self, name: str, value: Any) -> None:
        """Called when the owner has set a network setting."""
        ...

    def attribute_set(self, name: str) -> None:
        """Called when the owner sets an attribute that does not reach the worker.

        Raises:
            AttributeNotSetError: the worker runs, and the attribute is public.
        """
        ...


class TickProcessor:
    """The base class of processors. Subclass it and override what you need.

    `start`, `tick` or `async_tick`, and `stop` run in the worker process. The object given to
    ``clock.add_processor`` stays in the owner's process, where `state` shows the worker's last
    report.

    Args:
        stats_window_size: how many execution times are kept, 1 to 10,000. A clock overrides it.

    Attributes:
        snapshot_interval: seconds between two snapshots, at least 0.01.
        snapshot_version: the version of what `snapshot` returns. A snapshot of another version is
            not restored.
        mirrored: the names of attributes whose values the worker sends with every beat, for
            ``handle.mirrored``. Together they may have 16 kB.

    Raises:
        ConfigError: ``stats_window_size`` is out of range.
    """

    snapshot_interval: float = 10.0
    snapshot_version: int = 0
    mirrored: tuple[str, ...] = ()
    output_types: ClassVar[Any] = None
    """The types of the payloads that it emits: one type, or a dict of types by topic pattern, such
    as ``{"prices.*": Price}``. The owner gets payloads of these types; None leaves msgpack's."""

    message_types: ClassVar[Any] = None
    """The types of the payloads that `on_message` gets, declared like ``output_types``."""

    # Class-level defaults, so that a subclass need not call __init__.
    _own_state: ProcessorState = ProcessorState()
    _stats_window_size: int = 100
    _mirror: Mirror | None = None
    _host: Hosting | None = None
    _is_hosted_in_place: bool = False
    _initial_topics: tuple[str, ...] = ()

    def __init__(self, stats_window_size: int = 100) -> None:
        self._stats_window_size = whole(
            type(self).__name__, "stats_window_size", stats_window_size, 1, 10_000
        )

    @property
    def state(self) -> ProcessorState:
        """The host's state in a worker, the last reported one while registered, else its own."""
        source: Hosting | Mirror | None = self._host or self._mirror
        return self._own_state if source is None else source.state

    @property
    def current_timestamp(self) -> float:
        """Timestamp of the last finished tick, or of the start before any tick; else 0.0."""
        return self.state.last_timestamp or 0.0

    def start(self, timestamp: float) -> None:
        """Run once in the worker before the first tick.

        Args:
            timestamp: the clock's time, seconds.
        """
        self._own_state = msgspec.structs.replace(
            self._own_state, is_active=True, last_timestamp=timestamp
        )

    def tick(self, timestamp: float) -> None:
        """Run at every tick, unless `async_tick` is overridden.

        Args:
            timestamp: a multiple of the clock's tick size, seconds.
        """

    async def async_tick(self, timestamp: float) -> None:
        """Run at every tick; calls `tick`. Cancelled when it exceeds ``processor_timeout``.

        Args:
            timestamp: a multiple of the clock's tick size, seconds.
        """
        self.tick(timestamp)

    def stop(self) -> None:
        """Run once in the worker after the last tick."""
        self._own_state = msgspec.structs.replace(self._own_state, is_active=False)

    def pause(self) -> None:
        """Run in the worker when the processor is paused."""

    def resume(self) -> None:
        """Run in the worker when the processor is resumed."""

    async def call(
        self,
        worker: str,
        method: str,
        /,
        *args: Any,
        timeout: float = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> Any:
        """Call a method of another worker of the clock, which is marked with ``@remote``.

        It works in the worker, from its start to its stop: in ticks, in the hooks of a connection,
        in remote methods and in tasks. In a tick, ``processor_timeout`` bounds it as well.
        Cancelling it abandons the call: a method that has begun runs to its end.

        Args:
            worker: the other worker's name.
            method: the name of the method.
            args: positional arguments, which msgspec must be able to encode.
            timeout: seconds to wait for the result, above 0.
            kwargs: keyword arguments.

        Returns:
            What the method returned, as plain values: a dataclass, for instance, as a dict.

        Raises:
            CallError: there is no result; its subclasses say why.
            RemoteError: the method raised.
            ConfigError: ``timeout`` is not a number above 0.
            RuntimeError: it is called in the owner's process.
        """
        hosting = self._hosting
        if hosting is None:
            raise RuntimeError(
                f"{type(self).__name__}.call() works in the worker only; from outside, use "
                "handle.call()"
            )
        return await hosting.call(worker, method, args, kwargs, timeout)

    def snapshot(self) -> Any:
        """Return the state that the next process of the worker is to begin with.

        Runs in the worker between two ticks, every ``snapshot_interval`` seconds, and at an orderly
        stop after the last tick, before `stop`. The newest whole snapshot survives the process, and
        with the clock's ``state_dir`` also your program. No tick runs until it has returned.

        Returns:
            Plain data, dataclasses or msgspec structs, at most 3 MB in msgpack. The annotation of
            what is returned says as what `restore` gets it back; without one, it is plain data, in
            which tuples and sets are lists. None keeps the snapshot before.
        """
        return None

    def restore(self, state: Any) -> None:
        """Take over the state that `snapshot` returned last, in an earlier process.

        Runs in the worker before `start`, and only if there is a snapshot. If it raises, that is
        reported, the snapshot is given up, and a processor made anew starts without it.

        Args:
            state: what `snapshot` returned.
        """

    def on_message(self, topic: str, payload: Any) -> Any:
        """Get a message of another processor, or of this one; see `subscribe`.

        It runs in the worker between two ticks, one call at a time, as a plain method or as
        ``async def``. An async one is cancelled when it exceeds ``processor_timeout``. If it
        raises, that is reported as for other hooks, and the next message follows.

        Args:
            topic: the topic, as given to ``emit``.
            payload: what was emitted, of the type that ``message_types`` declares for the topic;
                without one, of msgpack's types.
        """

    def subscribe(self, *topics: str) -> None:
        """Get what processors of this clock emit with these topics, in `on_message`.

        It may be called in ``__init__``, and in the event loop of the worker from `start` on. The
        retained message of each topic comes first: those of subscriptions made in ``__init__`` and
        `start` before the first tick. They belong to the worker's process; a restarted one
        subscribes again.

        The messages of one process and topic come in order, and none comes twice. They are dropped
        while this worker does not read and its queue is full: ``handle.statistics()`` has the count
        in ``message_gaps``.

        Args:
            topics: topics, or patterns of topics as for ``clock.outputs``: ``"prices.*"`` or
                ``"prices.**"``.

        Raises:
            MessageError: a pattern is invalid, the object has been added to a clock and belongs to
                the owner's process, or the code runs in another thread of the worker.
            HookError: the class does not override `on_message`.
        """
        self._check_topics("subscribe", topics)
        if getattr(self.on_message, "__func__", None) is TickProcessor.on_message:
            kind = type(self).__name__
            problem = (
                f"{kind} calls subscribe(), but does not override on_message; add "
                "`def on_message(self, topic, payload)`"
            )
            raise HookError(kind, "on_message", problem)
        if self._hosting is not None:
            self._hosting.messages.subscribe(topics)
        else:
            self._initial_topics = tuple(dict.fromkeys((*self._initial_topics, *topics)))

    def unsubscribe(self, *topics: str) -> None:
        """Take back subscriptions; messages that wait are not given to `on_message` any more.

        Args:
            topics: as given to `subscribe`; others have no effect.

        Raises:
            MessageError: as `subscribe`.
        """
        self._check_topics("unsubscribe", topics)
        if self._hosting is not None:
            self._hosting.messages.unsubscribe(topics)
        else:
            self._initial_topics = tuple(
                each for each in self._initial_topics if each not in topics
            )

    def _check_topics(self, method: str, topics: tuple[str, ...]) -> None:
        kind = type(self).__name__
        for topic in topics:
            problem = pattern_problem(topic)
            if problem is not None:
                raise MessageError(kind, topic, f"{method}(): {problem}")
        if self._mirror is not None and self._hosting is None:
            problem = (
                f"{method}() works in __init__ and in the worker; this object has been added to a "
                "clock and belongs to the owner's process"
            )
            raise MessageError(kind, ", ".join(topics), problem)

    def emit(self, payload: object, *, topic: str = "", retain: bool = False) -> None:
        """Send an output to the owner's readers and to the processors that have subscribed to it.

        The owner reads it with ``clock.outputs``, other processors with `subscribe`.

        It may be called from `start` on until `await_cleanup` has returned, in hooks, tasks and
        threads of the worker. It never waits, except in a thread other than the event loop's if
        the clock's `OutputPolicy` says ``"wait"``. The outputs of one incarnation arrive in the
        order of these calls. What nobody reads is not sent, and not even encoded.

        What a hook emits is sent once the event loop turns, or when it fills a frame. An orderly
        stop waits until everything is sent.

        Args:
            payload: anything that msgspec encodes, such as a Struct, a dataclass, or numbers,
                texts, bytes, lists and dicts; at most 4 MiB. It is encoded at once.
            topic: words separated by dots, such as ``"prices.btc"``, at most 200 bytes.
            retain: keep it for processors that subscribe later, or again after a restart, in place
                of the topic's last retained one. It is kept until the clock is left, also when this
                worker has ended.

        Raises:
            OutputError: the payload cannot be encoded, is too large, or is not of the type that
                ``output_types`` declares; the topic is invalid; or the code does not run in the
                worker between `start` and its end.
            OutputsFull: the clock's policy is ``"wait"`` and the buffer is full. Await
                `drain_outputs` before you emit more.
        """
        self._emitting(topic).emit(payload, topic, retain)

    async def drain_outputs(self) -> None:
        """Wait until the buffer of outputs is at most half full; call it in the worker's loop.

        A loop that emits many outputs awaits it after each. Cancelling it loses no output. In a
        tick the wait counts towards ``processor_timeout``.

        Raises:
            OutputError: the code does not run in the worker.
        """
        outputs = self._emitting("")
        if outputs.must_drain:
            await outputs.drain()

    def _emitting(self, topic: object) -> Emitting:
        host = self._host
        if host is not None and self._is_hosted_in_place and HOSTED_BY.get() is not host:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                pass  # a thread of the worker's
            else:
                host = None
        if host is None:
            problem = (
                "only the worker can emit, from start() on; this object belongs to the owner's "
                "process, has not been started or has stopped"
            )
            raise OutputError(type(self).__name__, topic, problem)
        return host.outputs

    def record_execution(self, execution_time: float) -> None:
        """Add an execution time in seconds to this object's own state. Clocks do not call this."""
        self._own_state = self._own_state.update_execution_time(
            execution_time, self._stats_window_size
        )

    def record_error(self, error: Exception, timestamp: float) -> None:
        """Add an error to this object's own state. Clocks do not call this."""
        self._own_state = self._own_state.record_error(error, timestamp)

    def _register(self, mirror: Mirror | None) -> None:
        """Belong to a clock from now on, or, with None, to none any more."""
        # Not in the class from the start, so that workers do not pay for it.
        TickProcessor.__setattr__ = _set_attribute  # type: ignore[method-assign, assignment]
        self._mirror = mirror
        self._is_hosted_in_place = False

    @property
    def _hosting(self) -> Hosting | None:
        """The host, for code that runs in the worker; None for the owner's code."""
        if self._is_hosted_in_place and HOSTED_BY.get() is not self._host:
            return None
        return self._host

    @property
    def wants_ticks(self) -> bool:
        """Whether ticks reach the processor now."""
        return True

    @property
    def _tick_context(self) -> Context | None:
        """The context variables that ticks see; None: those of the caller."""
        return None


def _set_attribute(self: TickProcessor, name: str, value: object) -> None:
    """Set an attribute of a processor in a process that has a clock."""
    mirror = self._mirror
    if mirror is not None and not self._is_hosted_in_place and not _is_known(self, name):
        mirror.attribute_set(name)
    object.__setattr__(self, name, value)


def _is_known(processor: TickProcessor, name: str) -> bool:
    """Whether an attribute is the framework's own, or looks after itself, as a setting does."""
    if name == "_mirror":
        return True
    for kind in type(processor).__mro__:
        if name in vars(kind):
            is_ours = kind.__module__.startswith("chronopype_mp.") and name.startswith("_")
            return is_ours or isinstance(vars(kind)[name], property | NetworkSetting)
    return False
