"""The in-memory twin of the ZeroMQ transport, for workers in the coordinator's process.

It has the same frames, topics and bounds. A link that is not read drops the newest ticks.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections import deque
from collections.abc import Callable

from chronopype_mp.core.codec import TICK_TOPIC, TICKS_TOPIC, command_topic
from chronopype_mp.transport.base import FRAMES_QUEUED
from chronopype_mp.transport.memory_messages import (
    MemoryForwarder,
    MemoryPublisher,
    MemorySubscriber,
)

__all__ = ["MemoryHub", "MemoryLink"]

REPORT_BYTES = 64 * 1024 * 1024
"""Bytes of reports, of all workers, that may wait to be read."""


BATCH_BYTES_QUEUED = 16 * 1024 * 1024
"""Bytes of outputs, of all workers, that may wait to be read. A single frame may exceed it."""


class _Queue:
    """A bounded queue, filled by one thread at a time and read by one event loop."""

    def __init__(self, bound: int, bytes_bound: float = math.inf) -> None:
        self._frames: deque[bytes] = deque()
        self._bound = bound
        self._bytes_bound = bytes_bound
        self._bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_readable: Callable[[], None] | None = None
        self._context: contextvars.Context | None = None
        self._told = False
        self._lock = threading.Lock()

    def put(self, frame: bytes) -> bool:
        with self._lock:
            if len(self._frames) >= self._bound or self._bytes + len(frame) > self._bytes_bound:
                return False
            self._frames.append(frame)
            self._bytes += len(frame)
            self._tell()
        return True

    def _tell(self) -> None:
        """Schedule a read in the loop, unless one is scheduled already."""
        if self._loop is not None and not self._told and not self._loop.is_closed():
            self._told = True
            self._loop.call_soon_threadsafe(self._ready, context=self._context)

    def _ready(self) -> None:
        with self._lock:
            self._told = False
        if self._on_readable is not None:
            self._on_readable()
        with self._lock:
            if self._frames:
                self._tell()

    def get(self, most: int) -> list[bytes]:
        with self._lock:
            frames = [self._frames.popleft() for _ in range(min(most, len(self._frames)))]
            self._bytes -= sum(map(len, frames))
            return frames

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        with self._lock:
            self._loop, self._on_readable = loop, on_readable
            # The reader's context, not the sender's, as with a watched file descriptor.
            self._context = contextvars.copy_context()
            self._tell()

    def detach(self) -> None:
        with self._lock:
            self._loop = self._on_readable = self._context = None


class _OutputQueue:
    """The frames of outputs of all workers. Everybody who uses it is in one event loop.

    Like a socket it is read until it is empty, or its reader asks again.
    """

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._waiting: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_readable: Callable[[], None] = lambda: None
        self._context: contextvars.Context | None = None

    def send(self, frame: bytes) -> bool:
        """Add a frame; return whether there was room."""
        if self._frames and self._bytes + len(frame) > BATCH_BYTES_QUEUED:
            return False
        self._frames.append(frame)
        self._bytes += len(frame)
        if len(self._frames) == 1:
            self.ask_again()
        return True

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames."""
        frames = [self._frames.popleft() for _ in range(min(most, len(self._frames)))]
        self._bytes -= sum(map(len, frames))
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
        return frames

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have arrived."""
        self._loop, self._on_readable = loop, on_readable
        self._context = contextvars.copy_context()
        self.ask_again()

    def ask_again(self, rest: float = 0.0) -> None:
        """Call ``on_readable`` in ``rest`` seconds."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_later(rest, self._call_back, context=self._context)

    def _call_back(self) -> None:
        if self._loop is not None:
            self._on_readable()

    def when_writable(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Call ``call`` once in the loop after frames have been received."""
        context = contextvars.copy_context()

        def call_soon() -> None:
            loop.call_soon(call, context=context)

        self._waiting.append(call_soon)

    def close(self, linger: float) -> None:
        """Nothing to close: what was sent has arrived."""

    def detach(self) -> None:
        """Stop calling back."""
        self._loop = None


class MemoryHub:
    """The coordinator's end.

    Args:
        queued: frames queued for one worker before any are dropped.
    """

    per_worker = 0
    down = up = data_up = messages_in = messages_out = "memory"

    def __init__(self, queued: int = FRAMES_QUEUED) -> None:
        self._links: dict[bytes, list[_Queue]] = {}
        self._lock = threading.Lock()
        self._queued = queued
        self._inbox = _Queue(100 * FRAMES_QUEUED, REPORT_BYTES)
        self.outputs = _OutputQueue()
        self._forwarder = MemoryForwarder()
        self.messages = self._forwarder.owner

    def file(self, name: str) -> str:
        """Return "", because there is no directory."""
        return ""

    def connect(self, worker: str) -> MemoryLink:
        """Return a worker's end."""
        queue = _Queue(self._queued)
        topics = (TICK_TOPIC, TICKS_TOPIC, command_topic(worker))
        with self._lock:
            for topic in topics:
                self._links.setdefault(topic, []).append(queue)

        def disconnect() -> None:
            with self._lock:
                for topic in topics:
                    if queue in self._links[topic]:
                        self._links[topic].remove(queue)

        return MemoryLink(queue, self._inbox, self.outputs, self._forwarder, disconnect)

    def publish(self, frame: bytes) -> None:
        """Put a frame into the queue of every link that has subscribed to its topic."""
        with self._lock:
            topic = frame[: len(TICK_TOPIC)]
            if topic not in (TICK_TOPIC, TICKS_TOPIC):
                topic = frame[: frame.find(b"\0") + 1]
            queues = list(self._links.get(topic, ()))
        for queue in queues:
            queue.put(frame)

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames that have arrived."""
        return self._inbox.get(most)

    def echo(self, frame: bytes) -> bool:
        """Send a frame to `receive`; return False if the queue is full."""
        return self._inbox.put(frame)

    def watch_threads(self, on_failure: Callable[[BaseException], None]) -> None:
        """Do nothing: there are no threads."""

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have arrived."""
        self._inbox.attach(loop, on_readable)

    def close_publisher(self) -> None:
        """Nothing to close."""

    def close(self) -> None:
        """Stop reading."""
        self._inbox.detach()
        self.outputs.detach()
        self.messages.close()


class MemoryLink:
    """A worker's end; made by `MemoryHub.connect`."""

    is_abandoned = False

    def __init__(
        self,
        queue: _Queue,
        inbox: _Queue,
        outputs: _OutputQueue,
        forwarder: MemoryForwarder,
        disconnect: Callable[[], None],
    ) -> None:
        self._forwarder = forwarder
        self._messages: list[MemoryPublisher | MemorySubscriber] = []
        self._queue = queue
        self._inbox = inbox
        self._outputs = outputs
        self._disconnect = disconnect

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames that have arrived, oldest first."""
        return self._queue.get(most)

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have arrived."""
        self._queue.attach(loop, on_readable)

    def send(self, frame: bytes) -> bool:
        """Send a report; return False if the coordinator's queue is full."""
        return self._inbox.put(frame)

    def guard_sender(self) -> MemoryLink:
        """Return this link, whose `send` may be called from any thread."""
        return self

    def output_sender(self) -> _OutputQueue:
        """Return the queue of outputs, which all workers share."""
        return self._outputs

    def publisher(self) -> MemoryPublisher:
        """Return what publishes messages."""
        publisher = MemoryPublisher(self._forwarder)
        self._messages.append(publisher)
        return publisher

    def subscriber(self) -> MemorySubscriber:
        """Return what receives messages."""
        subscriber = MemorySubscriber(self._forwarder)
        self._messages.append(subscriber)
        return subscriber

    def close(self, linger: float) -> None:
        """Stop receiving. What was sent has already arrived."""
        for each in self._messages:
            each.close()
        self._messages = []
        self._queue.detach()
        self._disconnect()
