"""Reads the outputs of workers and passes them to those who follow them.

Frames of outputs have a socket of their own. They are read in turns between two ticks, so that
neither reports nor ticks wait for them: a turn keeps the interpreter, and the ticker thread needs
it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from chronopype_mp.coordinator.output_stream import OutputStream
from chronopype_mp.core.codec import FrameError
from chronopype_mp.core.outputs import Batch, Output, PayloadTypes, decode_batch
from chronopype_mp.core.rate import TokenBucket
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import monotonic
from chronopype_mp.transport.base import Receiver

__all__ = ["OutputInlet"]

logger = GuardedLogger("chronopype_mp.coordinator")

TURN = 0.001
"""Seconds after which a turn takes no further frame. A frame takes about a millisecond."""

TURN_WORK = 0.0025
"""Seconds that a turn needs between two ticks."""

REST = 0.0005
"""Seconds, at least, between two turns: the ticker thread gets the interpreter then."""

TOPICS_KNOWN = 10_000
"""Topics of a worker whose followers are kept; a processor may use each topic once."""

SOURCES_KEPT = 1000
"""Ended processes whose outputs may still be on their way."""

OUTPUT_BYTES = 300
"""Bytes of an output in the owner, about, besides its payload."""


class _Route(NamedTuple):
    """Where the outputs of one topic go.

    Attributes:
        decode: decodes their payloads.
        followers: what takes them.
    """

    decode: Callable[[Any], Any]
    followers: list[Callable[[Output, int], None]]


class _Source:
    """An incarnation of a worker.

    Attributes:
        received: its outputs that have arrived.
        expected: those that it has sent before its `Bye`; None before that.
    """

    def __init__(self, worker: str, incarnation: int, types: PayloadTypes) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.types = types
        self.routes: dict[str, _Route] = {}
        self.version = -1
        self.received = 0
        self.expected: int | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether outputs are on their way that its `Bye` has overtaken."""
        return self.expected is not None and self.received < self.expected


class OutputInlet:
    """Reads outputs.

    Args:
        receiver: where they come from.
        stream: who follows them.
        drop: called for each frame that is dropped, with the field of `DropCounts` that counts it.
        wait_for_tick: returns in how many seconds there is time for so many seconds of work between
            two ticks.

    Attributes:
        undecoded: outputs whose payload was not of the declared type.
        lost: outputs that were sent by a process which ended before they had arrived.
    """

    def __init__(
        self,
        receiver: Receiver,
        stream: OutputStream,
        drop: Callable[[str], None],
        wait_for_tick: Callable[[float], float],
    ) -> None:
        self._receiver = receiver
        self._stream = stream
        self._drop = drop
        self._wait_for_tick = wait_for_tick
        self._sources: dict[int, _Source] = {}
        self._ended: deque[int] = deque()
        self._awaited: set[int] = set()
        self._changed = asyncio.Event()
        self._mismatches = TokenBucket(1.0, monotonic())
        self.undecoded = 0
        self.lost = 0
        stream.turn = self._turn
        stream.on_moved = receiver.ask_again

    # The processes

    def expect(self, token: int, worker: str, incarnation: int, types: PayloadTypes) -> None:
        """Accept the outputs of an incarnation."""
        self._sources[token] = _Source(worker, incarnation, types)

    def said_bye(self, token: int, sent: int) -> None:
        """Take note of how many outputs an incarnation has sent."""
        source = self._sources.get(token)
        if source is not None:
            source.expected = sent
            if source.is_awaited:
                # Read on even if a reader is full: the process waits for half a second only.
                self._awaited.add(token)
                self._receiver.ask_again()

    def ended(self, token: int) -> None:
        """Take note of the end of an incarnation; what it has sent is still accepted for long."""
        self._ended.append(token)
        if len(self._ended) > SOURCES_KEPT:
            gone = self._ended.popleft()
            self._forget(gone)
            self._sources.pop(gone, None)

    async def settle(self, timeout: float) -> None:
        """Read what has arrived, and wait for what ended processes say that they have sent.

        Args:
            timeout: seconds after which the rest counts as lost.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._awaited:
                    self._changed.clear()
                    await self._changed.wait()
        end = monotonic() + timeout
        while self._read_one() and monotonic() < end:
            pass
        for token in tuple(self._awaited):
            self._forget(token)

    def _forget(self, token: int) -> None:
        """Wait no longer for the outputs of an incarnation."""
        source = self._sources[token]
        if source.is_awaited and source.expected is not None:
            lost = source.expected - source.received
            self.lost += lost
            source.expected = None
            logger.warning(
                "%d outputs of worker %r were lost: its process ended before they had arrived",
                lost,
                source.worker,
            )
        self._awaited.discard(token)

    # The frames

    def on_readable(self) -> None:
        """Handle what fits into one turn, between two ticks."""
        rest = self._wait_for_tick(TURN_WORK)
        if rest:
            self._receiver.receive(0)
            self._receiver.ask_again(rest)
            return
        end = monotonic() + TURN
        while self._awaited or not self._stream.is_held:
            if not self._read_one():
                return
            if monotonic() >= end:
                self._receiver.ask_again(REST)
                return
        self._receiver.receive(0)

    async def _turn(self) -> None:
        """Let other tasks run; while a tick is due, the ticker thread, too."""
        await asyncio.sleep(self._wait_for_tick(TURN_WORK))

    def _read_one(self) -> bool:
        """Handle one frame; return whether there was one."""
        for frame in self._receiver.receive(1):
            try:
                batch = decode_batch(frame)
            except FrameError:
                self._drop("garbage")
                return True
            source = self._sources.get(batch.token)
            if source is None:
                self._drop("forged")
            else:
                self._take(source, batch)
            return True
        return False

    def _take(self, source: _Source, batch: Batch) -> None:
        source.received += len(batch.items)
        worker, incarnation, routes = source.worker, source.incarnation, source.routes
        for seq, (topic, at, raw) in enumerate(batch.items, batch.first):
            if source.version != self._stream.version:  # a callback may have changed it
                routes.clear()
                source.version = self._stream.version
            decode, followers = routes.get(topic) or self._route(source, topic)
            if not followers:
                continue
            try:
                payload = decode(raw)
            except Exception as error:
                self._mismatch(worker, topic, error)
                continue
            output = Output(worker, incarnation, topic, payload, seq, at)
            size = len(raw) + OUTPUT_BYTES
            for take in followers:
                take(output, size)
        if batch.token in self._awaited and not source.is_awaited:
            self._awaited.discard(batch.token)
            self._changed.set()

    def _mismatch(self, worker: str, topic: str, error: Exception) -> None:
        """Count an output that is dropped, and log it once a second."""
        self.undecoded += 1
        if self._mismatches.take(1, monotonic()):
            logger.error(
                "worker %r: an output with topic %r is dropped, since its payload is not what "
                "output_types declares: %s",
                worker,
                topic,
                error,
            )

    def _route(self, source: _Source, topic: str) -> _Route:
        if len(source.routes) >= TOPICS_KNOWN:
            source.routes.clear()
        followers = self._stream.followers(source.worker, topic)
        route = _Route(source.types.decoder(topic).decode, followers)
        source.routes[topic] = route
        return route
