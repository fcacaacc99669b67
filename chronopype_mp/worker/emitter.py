"""Sends what the processor emits to the owner, on a socket of its own, and to other processors.

Its pure twin is `chronopype_mp.core.output_buffer`. Outputs may come from any thread; the socket
belongs to the thread of the event loop. What is emitted in one turn of the loop is sent together at
its end, or as soon as it fills a frame.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import NamedTuple

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.output_buffer import OUTPUT_BYTES, OutputBuffer
from chronopype_mp.core.output_counters import OutputCounters
from chronopype_mp.core.outputs import (
    BATCH_BYTES,
    LARGEST_OUTPUT,
    PayloadTypes,
    encode_batch,
    encode_output,
)
from chronopype_mp.core.topics import match_any, topic_problem
from chronopype_mp.exceptions import OutputError, OutputsFull
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import wall
from chronopype_mp.transport.base import Link, OutputSender
from chronopype_mp.worker.publisher import MessagePublisher

__all__ = ["Emitter"]

logger = GuardedLogger("chronopype_mp.worker")

TOPICS_KNOWN = 10_000
"""Topics whose rules are kept; a processor may use each topic once."""

FRAMES_PER_TURN = 16
"""Frames sent in one turn of the event loop."""


class _Rule(NamedTuple):
    """What holds for the outputs of a topic.

    Attributes:
        kind: the class of which payloads must be instances; None for any.
        is_wanted: somebody reads them.
        is_subscribed: a processor may have subscribed to them.
    """

    kind: type | None
    is_wanted: bool
    is_subscribed: bool


class Emitter:
    """Takes the outputs of one incarnation. Make it in the thread of the running event loop.

    Args:
        boot: of which worker, and what happens when the buffer is full.
        link: its sockets; that for outputs is connected when the first one is sent.
        processor: the name of the processor's class, for errors.
        types: the declared types of its payloads.
    """

    def __init__(self, boot: WorkerBoot, link: Link, processor: str, types: PayloadTypes) -> None:
        self._token = boot.token
        self._waits = boot.outputs.when_full == "wait"
        self._link = link
        self._processor = processor
        self._types = types
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._sender: OutputSender | None = None
        self._wanted: Sequence[str] = ()
        self._rules: dict[str, _Rule] = {}
        self._bound = boot.outputs.buffer_bytes
        # Of everything below that other threads use; the condition: there is room again.
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._buffer = OutputBuffer(self._bound)
        self._emitted = self._sent = self._lost = 0
        self._since_flush = 0
        self._is_scheduled = False
        self._is_closed = False
        self._is_blocked = False
        self._has_dropped = False
        self._must_turn = False  # a frame was sent before the loop has turned
        self._frame: bytes | None = None  # refused by the socket
        self._in_frame = 0
        self._sendings: set[asyncio.Future[None]] = set()
        self._publisher = MessagePublisher(boot, link, self._forget_rules)

    @property
    def counters(self) -> OutputCounters:
        """The counts so far."""
        with self._lock:
            return OutputCounters(self._emitted, self._sent, self._buffer.dropped + self._lost)

    def want(self, patterns: Sequence[str]) -> None:
        """Take note of the topics that somebody reads."""
        self._wanted = patterns
        self._forget_rules()

    def _forget_rules(self) -> None:
        self._rules = {}

    def emit(self, payload: object, topic: str, retain: bool = False) -> None:
        """Take an output; see `TickProcessor.emit`."""
        rule = self._rules.get(topic) if isinstance(topic, str) else None
        if rule is None:
            rule = self._learn(topic)
        kind, is_wanted, is_subscribed = rule
        if (
            self._is_closed
            or self._link.is_abandoned
            or (kind is not None and not isinstance(payload, kind))
        ):
            self._refuse_one(payload, topic, kind)
        publishes = retain or is_subscribed
        item = self._encoded(payload, topic) if is_wanted or publishes else b""
        if is_wanted:
            self._put(item, topic)
        else:
            with self._lock:
                self._emitted += 1
        if publishes:
            self._publisher.put(topic, item, retain)

    def _put(self, item: bytes, topic: str) -> None:
        """Keep an output for the owner, and send it soon."""
        is_in_loop = threading.get_ident() == self._thread
        with self._lock:
            if self._waits and not self._buffer.fits(item):
                self._wait_for_room(item, topic, is_in_loop)
            self._buffer.put(item)
            self._emitted += 1
            self._since_flush += len(item) + OUTPUT_BYTES
            must_schedule = not self._is_scheduled
            self._is_scheduled = True
        if must_schedule:
            self._schedule(is_in_loop)
        if is_in_loop and self._since_flush >= BATCH_BYTES:
            self._send()
            self._must_turn = True

    @property
    def must_drain(self) -> bool:
        """Whether `drain` waits."""
        is_full = self._waiting_bytes > self._bound // 2
        return self._must_turn or is_full or self._publisher.must_drain

    async def drain(self) -> None:
        """Wait until the buffers are no more than half full; let the loop turn now and then."""
        await asyncio.sleep(0)  # the caller may never wait for anything else
        if self._waiting_bytes > self._bound // 2:
            while self._waiting_bytes > self._bound // 4 and not self._is_closed:
                await self._something_sent()
        await self._publisher.drain()

    async def finish(self, timeout: float) -> None:
        """Wait until everything is sent, at most ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._waiting_bytes:
                    await self._something_sent()
                await self._publisher.finish()
        except TimeoutError:
            pass

    async def _something_sent(self) -> None:
        done = self._loop.create_future()
        self._sendings.add(done)
        try:
            await done
        finally:
            self._sendings.discard(done)

    def close(self) -> None:
        """Send what the sockets take and drop the rest; further outputs are refused."""
        self._publisher.close()
        self._send()
        with self._lock:
            self._is_closed = True
            self._buffer.drop_all()
            if self._frame is not None:
                self._lost += self._in_frame
                self._frame = None
            self._room.notify_all()
        self._tell_waiting()

    @property
    def _waiting_bytes(self) -> int:
        return self._buffer.bytes + (0 if self._frame is None else len(self._frame))

    def _learn(self, topic: object) -> _Rule:
        problem = topic_problem(topic)
        if problem is not None:
            self._refuse(topic, f"the topic {problem}")
        assert isinstance(topic, str)
        wanted, rules = self._wanted, self._rules
        rule = _Rule(
            self._types.kind(topic), match_any(wanted, topic), self._publisher.is_wanted(topic)
        )
        if len(rules) >= TOPICS_KNOWN:
            rules.clear()
        rules[topic] = rule
        return rule

    def _encoded(self, payload: object, topic: str) -> bytes:
        try:
            item = encode_output(topic, wall(), payload)
        except Exception as error:
            kind = type(payload).__name__
            problem = (
                f"the payload, a {kind}, cannot be encoded: {error}. Emit what msgspec encodes: a "
                "Struct, a dataclass, or numbers, texts, bytes, lists and dicts"
            )
            raise OutputError(self._processor, topic, problem) from error
        if len(item) > LARGEST_OUTPUT:
            problem = (
                f"the payload has {len(item)} bytes, but at most {LARGEST_OUTPUT} are allowed; "
                "emit it in parts, or write a file and emit its name"
            )
            self._refuse(topic, problem)
        return item

    def _refuse(self, topic: object, problem: str) -> None:
        raise OutputError(self._processor, topic, problem)

    def _refuse_one(self, payload: object, topic: str, kind: type | None) -> None:
        if self._link.is_abandoned:
            self._refuse(topic, "a forked child of the worker cannot emit; hand it to the worker")
        if self._is_closed:
            self._refuse(topic, "the worker has stopped")
        declared, given = getattr(kind, "__name__", kind), type(payload).__name__
        self._refuse(topic, f"output_types declares {declared}, but the payload is a {given}")

    def _wait_for_room(self, item: bytes, topic: str, is_in_loop: bool) -> None:
        """Wait in another thread; in that of the event loop, which must not block, raise."""
        if not is_in_loop:
            self._room.wait_for(lambda: self._is_closed or self._buffer.fits(item))
            if self._is_closed:
                self._refuse(topic, "the worker has stopped")
            return
        self._lock.release()
        try:
            self._send()
        finally:
            self._lock.acquire()
        if not self._buffer.fits(item):
            problem = (
                f"{self._buffer.bytes} bytes of outputs wait for their readers, the limit is "
                f"{self._bound}; `await self.drain_outputs()` before you emit more"
            )
            raise OutputsFull(self._processor, topic, problem)

    def _schedule(self, is_in_loop: bool) -> None:
        """Send once the loop turns."""
        if is_in_loop:
            self._loop.call_soon(self._flush)
        else:
            self._loop.call_soon_threadsafe(self._flush)
        if self._buffer.dropped and not self._has_dropped:
            self._has_dropped = True
            logger.warning(
                "outputs are dropped, since they are not read in time; statistics() counts them"
            )

    def _flush(self) -> None:
        self._is_scheduled = self._must_turn = False
        if not self._is_blocked:
            self._send()

    def _writable(self) -> None:
        self._is_blocked = False
        self._send()

    def _send(self) -> None:
        """Send until the socket is full, or for one turn of the event loop."""
        self._since_flush = 0
        for _ in range(FRAMES_PER_TURN):
            if self._frame is None and not self._take():
                break
            assert self._frame is not None
            if self._sender is None:
                self._sender = self._link.output_sender()
            if not self._sender.send(self._frame):
                self._is_blocked = True
                self._sender.when_writable(self._loop, self._writable)
                break
            self._frame, self._is_blocked = None, False
            with self._lock:
                self._sent += self._in_frame
        else:
            self._is_scheduled = True
            self._schedule(is_in_loop=True)
        self._tell_waiting()

    def _take(self) -> bool:
        """Make the next frame; return whether there is one."""
        with self._lock:
            if not len(self._buffer):
                return False
            first, items = self._buffer.take()
            self._room.notify_all()
        self._frame = encode_batch(self._token, first, items, len(items))
        self._in_frame = len(items)
        return True

    def _tell_waiting(self) -> None:
        for done in tuple(self._sendings):
            if not done.done():
                done.set_result(None)
