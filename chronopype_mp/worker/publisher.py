"""Publishes what the processor emits to the processors that have subscribed.

`chronopype_mp.worker.emitter` has encoded it. Messages of one topic in a row are sent together, at
the end of the event loop's turn or as soon as they fill a frame. Nothing here ever blocks. While
there is no connection, or no room in its queue, messages are kept up to a bound; subscribers see in
the numbers how many were dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.message_frames import MESSAGE, RETAINED, encode_messages, message_topic
from chronopype_mp.core.outputs import encode_output
from chronopype_mp.transport.base import Link, Publishing

__all__ = ["MessagePublisher"]

FRAME_BYTES = 32 * 1024
"""Bytes after which a frame takes no further message, with `MESSAGE_BYTES` for each: at most 320
messages. A subscriber that loses a frame loses all of them."""

KEPT_BYTES = 8_000_000
"""Bytes of messages kept. The oldest are dropped."""

MESSAGE_BYTES = 100
"""Bytes that a message takes besides its own, about."""

BATCHES_PER_SEND = 50
"""Batches that are sent before the event loop turns."""

TOPICS_KNOWN = 20_000
"""Topics whose numbers are kept; a topic that was forgotten is numbered from 1 again."""


class _Batch(NamedTuple):
    """Messages in a row.

    Attributes:
        topic: their topic.
        retain: whether the last one is kept for later subscribers.
        serial, seq: the numbers of the first; see `MessageBatch`.
        items: the messages, as encoded outputs.
    """

    topic: str
    retain: bool
    serial: int
    seq: int
    items: list[bytes]


class MessagePublisher:
    """Publishes messages of one incarnation. Make it in the thread of the running event loop.

    Args:
        boot: of which worker.
        link: its sockets; that for messages is connected at the first message.
        on_change: called when the subscriptions of other processors have changed.
    """

    def __init__(self, boot: WorkerBoot, link: Link, on_change: Callable[[], None]) -> None:
        self._worker, self._incarnation = boot.worker, boot.incarnation
        self._link = link
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._socket: Publishing | None = None
        self._is_connected = False
        self._is_blocked = False  # there was no room
        self._must_turn = False  # something was sent before the loop has turned
        self._emptied = asyncio.Event()
        self._prefixes: set[bytes] = set()
        # The lock of what follows, which other threads use.
        self._lock = threading.Lock()
        self._batches: deque[_Batch] = deque()
        self._bytes = 0
        self._last: _Batch | None = None
        self._room = 0  # bytes that the last batch still takes
        self._serial = 0
        self._seqs: dict[str, int] = {}
        self._is_scheduled = False
        self._is_closed = False

    def is_wanted(self, topic: str) -> bool:
        """Whether a processor may have subscribed to a topic."""
        return not self._is_connected or message_topic(topic).startswith(tuple(self._prefixes))

    def put(self, topic: str, item: bytes, retain: bool) -> None:
        """Publish a message.

        Args:
            topic: its topic.
            item: the message, as an encoded output.
            retain: whether it is kept for later subscribers.
        """
        size = len(item) + MESSAGE_BYTES
        with self._lock:
            last = self._last
            if last is None or last.topic != topic or last.retain != retain or self._room <= 0:
                if self._is_closed:
                    return
                last = self._begin(topic, retain)
            last.items.append(item)
            self._bytes += size
            self._room -= size
            is_full = self._room <= 0 or len(self._batches) >= BATCHES_PER_SEND
            must_schedule = not self._is_scheduled
            self._is_scheduled = True
        if threading.get_ident() != self._thread:
            if must_schedule:
                self._loop.call_soon_threadsafe(self._flush)
            return
        if must_schedule:
            self._loop.call_soon(self._flush)
        if is_full and not self._is_blocked:
            self._send()
            self._must_turn = True

    @property
    def must_drain(self) -> bool:
        """Whether `drain` waits."""
        return self._must_turn or self._bytes > KEPT_BYTES // 2

    async def drain(self) -> None:
        """Wait until no more than half of what may be kept is kept."""
        if self._bytes > KEPT_BYTES // 2:
            await self.finish()

    async def finish(self) -> None:
        """Wait until everything is handed to the socket, or the publisher is closed."""
        while self._batches and not self._is_closed:
            self._emptied.clear()
            await self._emptied.wait()

    def close(self) -> None:
        """Send what is left; further messages are dropped."""
        if self._batches:
            self._send()
        with self._lock:
            self._is_closed = True
            self._batches.clear()
        self._emptied.set()

    def _begin(self, topic: str, retain: bool) -> _Batch:
        """Return a new batch, the last one; drop the oldest if too much is kept."""
        self._end()
        while self._bytes > KEPT_BYTES and self._batches:
            self._bytes -= _size(self._batches.popleft())
        self._last = _Batch(topic, retain, self._serial + 1, self._seqs.get(topic, 0) + 1, [])
        self._batches.append(self._last)
        self._room = FRAME_BYTES
        return self._last

    def _end(self) -> None:
        """Number the messages of the last batch, which gets no more."""
        last, self._last = self._last, None
        if last is not None:
            self._serial += len(last.items)
            self._seqs.pop(last.topic, None)  # the topic that was quiet longest comes first
            self._seqs[last.topic] = last.seq + len(last.items) - 1
            if len(self._seqs) > TOPICS_KNOWN:
                del self._seqs[next(iter(self._seqs))]

    def _flush(self) -> None:
        self._is_scheduled = self._must_turn = False
        self._send()

    def _send(self) -> None:
        socket = self._socket
        if socket is None:
            if self._link.is_abandoned or self._is_closed:
                return
            socket = self._socket = self._link.publisher()
            socket.attach(self._loop, self._changed)
        if not self._is_connected:
            self._learn(socket)
        while self._is_connected:
            with self._lock:
                if not self._batches:
                    self._is_blocked = False
                    self._emptied.set()
                    return
                batch = self._batches.popleft()
                self._bytes -= _size(batch)
                if batch is self._last:
                    self._end()
            if not socket.publish(self._frame(batch)):
                with self._lock:
                    self._batches.appendleft(batch)
                    self._bytes += _size(batch)
                self._is_blocked = True
                return

    def _frame(self, batch: _Batch) -> bytes:
        before = len(encode_output(batch.topic, 0.0, None)) - 1  # bytes before the payload
        return encode_messages(
            message_topic(batch.topic, retain=batch.retain),
            self._worker,
            self._incarnation,
            batch.serial,
            batch.seq,
            [item[before:] for item in batch.items],
        )

    def _changed(self) -> None:
        """Take note of new subscriptions, and send what has waited for them or for room."""
        assert self._socket is not None
        self._learn(self._socket)
        if self._batches:
            self._send()

    def _learn(self, socket: Publishing) -> None:
        changes = socket.changes()
        for change in changes:
            kind, prefix = change[:1], change[1:]
            if prefix == RETAINED:
                self._is_connected = True  # the owner's
            elif prefix.startswith(MESSAGE):
                if kind == b"\1":
                    self._prefixes.add(prefix)
                else:
                    self._prefixes.discard(prefix)
        if changes:
            self._on_change()


def _size(batch: _Batch) -> int:
    return sum(map(len, batch.items)) + MESSAGE_BYTES * len(batch.items)
