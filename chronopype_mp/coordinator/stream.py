"""The stream of events, and the two ways to follow it: callbacks and async iteration."""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable

from chronopype_mp.coordinator.callbacks import Guard, callback_problem
from chronopype_mp.core.worker_events import Event

__all__ = ["EventIterator", "EventStream"]

EVENTS_KEPT = 10_000
"""Events buffered for a slow iterator; the oldest are dropped first."""

BYTES_KEPT = 16_000_000
"""Bytes that they may take, about."""

EVENT_BYTES = 500
"""Bytes of an event, about, without its texts."""


def _size(event: Event) -> int:
    """Return about how many bytes an event takes."""
    size = EVENT_BYTES
    for name in event.__struct_fields__:
        value = getattr(event, name)
        texts = value if isinstance(value, tuple) else (value,)
        size += sum(sys.getsizeof(text) for text in texts if isinstance(text, str))
    return size


class EventIterator(AsyncIterator[Event]):
    """Iterates over the events from its creation until the clock's context is left.

    It buffers up to 10,000 events of together 16 MB. Then the oldest are dropped.

    It stops following the stream once nothing refers to it any more. Cancelling a task that waits
    for the next event loses no event: the iteration may go on.

    Attributes:
        dropped: events that were dropped so far, because they were not read in time.
    """

    def __init__(self, waiting: set[EventIterator]) -> None:
        self._waiting = waiting
        self._buffer: deque[tuple[Event, int]] = deque()  # with its size
        self._bytes = 0
        self._changed = asyncio.Event()
        self._closed = False
        self.dropped = 0

    async def __anext__(self) -> Event:
        try:
            while not self._buffer:
                if self._closed:
                    raise StopAsyncIteration
                self._changed.clear()
                # Nothing else may refer to the task that waits here.
                self._waiting.add(self)
                try:
                    await self._changed.wait()
                finally:
                    self._waiting.discard(self)
            return self._take()
        finally:
            del self  # the traceback of a cancellation must not keep the iterator alive

    def _take(self) -> Event:
        event, size = self._buffer.popleft()
        self._bytes -= size
        return event

    def put(self, event: Event) -> None:
        """Buffer an event; for the stream's own use."""
        if not self._closed:
            size = _size(event)  # may change, because Python caches the encoded text
            self._buffer.append((event, size))
            self._bytes += size
            while len(self._buffer) > EVENTS_KEPT or self._bytes > BYTES_KEPT:
                self._take()
                self.dropped += 1
            self._changed.set()

    def close(self) -> None:
        """End the iteration after what is buffered; for the stream's own use."""
        self._closed = True
        self._changed.set()

    async def aclose(self) -> None:
        """End the iteration now, as `contextlib.aclosing` does."""
        self._buffer.clear()
        self._bytes = 0
        self.close()


class _Subscription:
    """A callback and the event classes that it wants; none means all."""

    def __init__(self, callback: Callable[[Event], object], types: tuple[type[Event], ...]) -> None:
        self._callback = callback
        self._types = types

    def __repr__(self) -> str:
        return repr(self._callback)

    def __call__(self, event: Event) -> None:
        if not self._types or isinstance(event, self._types):
            self._callback(event)


class EventStream:
    """Everything that happens in a clock, as frozen records in the order in which it happened.

    Follow it with ``async for event in clock.events`` or with `subscribe`. A follower sees the
    events from then on. Followers do not affect each other. All see the events in the same order:
    what a callback asks for leads to events after the present one.

    Args:
        guard: calls the callbacks.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        self._guard = Guard() if guard is None else guard
        self._iterators: weakref.WeakSet[EventIterator] = weakref.WeakSet()
        self._waiting: set[EventIterator] = set()
        self._subscriptions: list[_Subscription] = []

    def subscribe(
        self, callback: Callable[[Event], object], *types: type[Event]
    ) -> Callable[[], None]:
        """Call ``callback(event)`` in the clock's event loop for each event.

        What the callback raises is logged and goes no further. `KeyboardInterrupt` and `SystemExit`
        end the program once the supervisor has dealt with the event.

        Args:
            callback: a plain function.
            types: event classes, such as ``WorkerDied``, to call it for; none given means all.

        Returns:
            A function that ends the subscription. Calling it again does nothing.

        Raises:
            TypeError: ``callback`` cannot be called with an event, or is a coroutine function; or
                one of ``types`` is not an event class.
        """
        problem = callback_problem(callback, "event")
        if problem is not None:
            raise TypeError(f"subscribe: {callback!r} {problem}")
        for kind in types:
            if not isinstance(kind, type) or not issubclass(kind, Event):
                raise TypeError(
                    f"subscribe: {kind!r} is not an event class; pass classes from "
                    "chronopype_mp.events, such as WorkerDied, each as an argument of its own"
                )
        subscription = _Subscription(callback, types)
        self._subscriptions.append(subscription)

        def unsubscribe() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

        return unsubscribe

    def __aiter__(self) -> EventIterator:
        """Follow the stream until the clock's context is left."""
        iterator = EventIterator(self._waiting)
        self._iterators.add(iterator)
        return iterator

    def publish(self, event: Event) -> None:
        """Pass an event to all followers; for the clock's own use."""
        for iterator in self._iterators:
            iterator.put(event)
        for subscription in tuple(self._subscriptions):
            self._guard.call("an event callback", subscription, event)

    def close(self) -> None:
        """End the present iterations after what is buffered; callbacks stay subscribed."""
        for iterator in self._iterators:
            iterator.close()
        self._iterators.clear()
