"""The in-memory counterpart of the forwarder. Everybody who uses it is in one event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter, deque
from collections.abc import Callable

from chronopype_mp.core.message_frames import ANSWER, RETAINED
from chronopype_mp.transport.base import MESSAGES_QUEUED

__all__ = ["MemoryForwarder", "MemoryPublisher", "MemorySubscriber"]


class MemoryForwarder:
    """Passes each message to those who have subscribed.

    Attributes:
        owner: receives what is to be retained, and answers.
    """

    def __init__(self) -> None:
        self.subscribers: list[MemorySubscriber] = []
        self.publishers: list[MemoryPublisher] = []
        self.owner = MemorySubscriber(self, bound=5 * MESSAGES_QUEUED)
        for prefix in (RETAINED, ANSWER):
            self.owner.subscribe(prefix)

    def publish(self, frame: bytes) -> None:
        """Put a frame into the queue of each subscriber that has subscribed to it."""
        for subscriber in tuple(self.subscribers):
            subscriber.put(frame)

    def tell(self, change: bytes) -> None:
        """Tell all publishers of a subscription."""
        for publisher in tuple(self.publishers):
            publisher.put(change)


class _Reading:
    """A bounded queue that is read in the event loop."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._frames: deque[bytes] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_readable: Callable[[], None] = lambda: None
        self._context: contextvars.Context | None = None
        self._is_asked = False

    def put(self, frame: bytes) -> None:
        """Add a frame; drop it if the queue is full."""
        if len(self._frames) < self._bound:
            self._frames.append(frame)
            self.ask_again()

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames."""
        return [self._frames.popleft() for _ in range(min(most, len(self._frames)))]

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have arrived."""
        self._loop, self._on_readable = loop, on_readable
        self._context = contextvars.copy_context()
        self.ask_again()

    def ask_again(self, rest: float = 0.0) -> None:
        """Call ``on_readable`` in ``rest`` seconds."""
        if self._loop is not None and not self._is_asked and not self._loop.is_closed():
            self._is_asked = True
            self._loop.call_later(rest, self._call_back, context=self._context)

    def _call_back(self) -> None:
        self._is_asked = False
        if self._loop is not None:
            self._on_readable()

    def close(self) -> None:
        """Stop calling back."""
        self._loop = None


class MemorySubscriber(_Reading):
    """Receives messages; with `publish` it is the owner's port."""

    def __init__(self, forwarder: MemoryForwarder, bound: int = 2 * MESSAGES_QUEUED) -> None:
        super().__init__(bound)
        self._forwarder = forwarder
        self.prefixes: Counter[bytes] = Counter()
        self._beginnings: tuple[bytes, ...] = ()
        forwarder.subscribers.append(self)

    def subscribe(self, prefix: bytes) -> None:
        """Receive frames that begin with ``prefix``."""
        self.prefixes[prefix] += 1
        self._beginnings = tuple(self.prefixes)
        self._forwarder.tell(b"\1" + prefix)

    def unsubscribe(self, prefix: bytes) -> None:
        """Take back one `subscribe` of ``prefix``."""
        self.prefixes[prefix] -= 1
        if not self.prefixes[prefix]:
            del self.prefixes[prefix]
            self._beginnings = tuple(self.prefixes)
            if not any(prefix in each.prefixes for each in self._forwarder.subscribers):
                self._forwarder.tell(b"\0" + prefix)

    def put(self, frame: bytes) -> None:
        """Add a frame, if it was subscribed to."""
        if frame.startswith(self._beginnings):
            super().put(frame)

    def publish(self, frame: bytes) -> None:
        """Send a frame to all who have subscribed to what it begins with."""
        self._forwarder.publish(frame)

    def close(self) -> None:
        """Take back all subscriptions."""
        super().close()
        self._forwarder.subscribers.remove(self)
        for prefix in tuple(self.prefixes):
            self.prefixes[prefix] = 1
            self.unsubscribe(prefix)


class MemoryPublisher(_Reading):
    """Publishes messages of a worker, and shows what others have subscribed to."""

    def __init__(self, forwarder: MemoryForwarder) -> None:
        super().__init__(bound=10**6)
        self._forwarder = forwarder
        forwarder.publishers.append(self)
        for prefix in {prefix for each in forwarder.subscribers for prefix in each.prefixes}:
            self.put(b"\1" + prefix)

    def publish(self, frame: bytes) -> bool:
        """Send a frame to all who have subscribed to what it begins with."""
        self._forwarder.publish(frame)
        return True

    def changes(self) -> list[bytes]:
        """Return what others have subscribed to, or no longer need."""
        return self.receive(len(self._frames))

    def close(self) -> None:
        """Stop calling back."""
        super().close()
        self._forwarder.publishers.remove(self)
