"""The one stream of events, and the two ways to follow it: callbacks and async iteration."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable

from chronopype_mp.core.events import Event

__all__ = ["EventStream"]

BOUND = 10_000
"""Events kept for an iterator that does not keep up; then the oldest are dropped."""

logger = logging.getLogger("chronopype_mp.events")


class _Listener:
    """One iterator's buffer."""

    def __init__(self) -> None:
        self.buffer: deque[Event] = deque(maxlen=BOUND)
        self.wake = asyncio.Event()
        self.closed = False


class EventStream:
    """What happens in a clock, as frozen records in the order in which they happened.

    Follow it with ``async for event in clock.events`` or with `subscribe`. Both see what happens
    from then on; several followers do not disturb each other.
    """

    def __init__(self) -> None:
        self._listeners: list[_Listener] = []
        self._callbacks: list[tuple[Callable[[Event], object], tuple[type[Event], ...]]] = []

    def subscribe(
        self, callback: Callable[[Event], object], *types: type[Event]
    ) -> Callable[[], None]:
        """Call ``callback(event)`` in the clock's event loop for each event.

        Args:
            callback: a plain function; what it raises is logged and goes no further.
            types: only events of these types; none given means all.

        Returns:
            A function that ends the subscription.

        Raises:
            TypeError: ``callback`` is a coroutine function, which nobody would await.
        """
        if inspect.iscoroutinefunction(callback):
            raise TypeError(f"{callback!r} is a coroutine function; give a plain one")
        entry = (callback, types)
        self._callbacks.append(entry)

        def unsubscribe() -> None:
            if entry in self._callbacks:
                self._callbacks.remove(entry)

        return unsubscribe

    def __aiter__(self) -> AsyncIterator[Event]:
        """Follow the stream until the clock's context is left."""
        listener = _Listener()
        self._listeners.append(listener)
        return self._iterate(listener)

    async def _iterate(self, listener: _Listener) -> AsyncIterator[Event]:
        try:
            while True:
                while listener.buffer:
                    yield listener.buffer.popleft()
                if listener.closed:
                    return
                listener.wake.clear()
                await listener.wake.wait()
        finally:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def publish(self, event: Event) -> None:
        """Hand an event to all followers; for the clock's own use."""
        for listener in self._listeners:
            listener.buffer.append(event)
            listener.wake.set()
        for callback, types in tuple(self._callbacks):
            if types and not isinstance(event, types):
                continue
            try:
                callback(event)
            except Exception:
                logger.exception("an event callback failed: %r", callback)

    def close(self) -> None:
        """End the iterations under way after what is buffered; callbacks stay subscribed."""
        for listener in self._listeners:
            listener.closed = True
            listener.wake.set()
        self._listeners.clear()
