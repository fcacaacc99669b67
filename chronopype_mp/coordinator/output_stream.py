"""What processors emit, and the two ways to follow it: async iteration and callbacks.

`chronopype_mp.coordinator.output_inlet` reads the outputs and passes them to the followers here.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self

from chronopype_mp.coordinator.callbacks import Guard, callback_problem
from chronopype_mp.core.checks import whole
from chronopype_mp.core.outputs import Output, OutputPolicy, WhenFull, checked_when_full
from chronopype_mp.core.topics import EVERY, match_any, pattern_problem
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.guarded_log import GuardedLogger

__all__ = ["Follower", "OutputReader", "OutputStream"]

logger = GuardedLogger("chronopype_mp.coordinator")

TURN_OUTPUTS = 100
"""Outputs that a reader hands out before the event loop turns again."""


class Follower:
    """Whoever follows outputs.

    Args:
        patterns: of the topics.
        worker: the worker's name; None for all workers.
    """

    def __init__(self, patterns: tuple[str, ...], worker: str | None) -> None:
        self.patterns = patterns
        self.worker = worker

    def follows(self, worker: str, topic: str) -> bool:
        """Whether it wants the outputs of a worker with a topic."""
        return self.worker in (None, worker) and match_any(self.patterns, topic)

    def put(self, output: Output, size: int) -> None:
        """Take an output, of which ``size`` bytes have arrived."""
        raise NotImplementedError


class OutputReader(Follower, AsyncIterator[Output]):
    """Iterates over outputs until the clock's context is left, or until it is closed.

    It is also an async context manager that closes it. A reader to which nothing refers any more is
    closed as well. Cancelling a task that waits for the next output loses none: the iteration may
    go on.

    Attributes:
        dropped: outputs that it has dropped, because they were not read in time.
    """

    def __init__(
        self,
        patterns: tuple[str, ...],
        worker: str | None,
        bound: int,
        bytes_bound: int,
        waits: bool,
        stream: OutputStream,
    ) -> None:
        super().__init__(patterns, worker)
        self._bound = bound
        self._bytes_bound = bytes_bound
        self._waits = waits
        self._stream = stream
        self._buffer: deque[tuple[Output, int]] = deque()  # with its size
        self._bytes = 0
        self._in_turn = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self.is_holding = False
        self.dropped = 0

    async def __anext__(self) -> Output:
        try:
            if self._in_turn >= TURN_OUTPUTS:
                self._in_turn = 0
                await self._stream.turn()
            while not self._buffer:
                if self._is_closed:
                    raise StopAsyncIteration
                self._in_turn = 0
                self._waiter = asyncio.get_running_loop().create_future()
                with self._stream.waiting(self):
                    await self._waiter
            self._in_turn += 1
            output, size = self._buffer.popleft()
            self._bytes -= size
            if self.is_holding and not self._is_half_full:
                self.is_holding = False
                self._stream.reader_moved()
            return output
        finally:
            del self  # the traceback of a cancellation must not keep the reader alive

    async def __aenter__(self) -> Self:
        """Return the reader."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the reader."""
        await self.aclose()

    @property
    def _is_half_full(self) -> bool:
        return len(self._buffer) * 2 > self._bound or self._bytes * 2 > self._bytes_bound

    def put(self, output: Output, size: int) -> None:
        """Keep an output; for the stream's own use."""
        buffer = self._buffer
        buffer.append((output, size))
        self._bytes += size
        if len(buffer) >= self._bound or self._bytes >= self._bytes_bound:
            if self._waits:
                self.is_holding = True
                self._stream.is_held = True
            else:
                self._drop()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _drop(self) -> None:
        """Drop the oldest outputs that exceed the bounds."""
        buffer = self._buffer
        before = self.dropped
        while len(buffer) > self._bound or (self._bytes > self._bytes_bound and len(buffer) > 1):
            self._bytes -= buffer.popleft()[1]
            self.dropped += 1
            self._stream.dropped += 1
        if self.dropped and not before:
            logger.warning(
                "a reader of outputs (%s) drops its oldest ones, since it is not read in time; its "
                "`dropped` counts them",
                ", ".join(self.patterns),
            )

    def end(self) -> None:
        """End the iteration after what is buffered; for the stream's own use."""
        self._is_closed = True
        self.is_holding = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def aclose(self) -> None:
        """Stop following the outputs, and end the iteration now. Idempotent."""
        self._buffer.clear()
        self._bytes = 0
        self.end()
        self._stream.forget(self)


class _Subscription(Follower):
    """A callback."""

    def __init__(
        self,
        callback: Callable[[Output], object],
        patterns: tuple[str, ...],
        worker: str | None,
        guard: Guard,
    ) -> None:
        super().__init__(patterns, worker)
        self._callback = callback
        self._guard = guard

    def put(self, output: Output, size: int) -> None:
        """Call back."""
        self._guard.call("an output callback", self._callback, output)


class _Waiting:
    """Refers to a reader while somebody waits for its next output."""

    def __init__(self, readers: set[OutputReader], reader: OutputReader) -> None:
        self._readers = readers
        self._reader = reader

    def __enter__(self) -> None:
        self._readers.add(self._reader)

    def __exit__(self, *details: object) -> None:
        self._readers.discard(self._reader)


async def _turn() -> None:
    await asyncio.sleep(0)


class OutputStream:
    """The outputs of a clock's workers. Calling it makes a reader; `subscribe` takes a callback.

    Workers send only what a reader or a callback follows. One that is made while a worker runs
    gets that worker's outputs from a moment later on. Those made before the clock is entered get
    all outputs.

    Args:
        guard: calls the callbacks.
        policy: the clock's; its ``when_full`` is set.
        on_change: called when other outputs are followed than before.

    Attributes:
        is_held: a reader is full and waits. The owner reads no outputs then.
        version: changes with the followers.
        dropped: outputs that readers have dropped.
        turn: awaited by readers now and then, so that other tasks and threads get their turn.
        on_moved: called when no reader holds the outputs any more.
    """

    def __init__(
        self,
        guard: Guard,
        policy: OutputPolicy,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._guard = guard
        self._policy = policy
        self._on_change = on_change
        self._readers: dict[int, weakref.ref[OutputReader]] = {}
        self._waiting: set[OutputReader] = set()
        self._subscriptions: list[_Subscription] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_held = False
        self.version = 0
        self.dropped = 0
        self.turn: Callable[[], Awaitable[None]] = _turn
        self.on_moved: Callable[[], None] = lambda: None

    def __call__(
        self,
        *patterns: str,
        worker: str | None = None,
        buffer: int | None = None,
        when_full: WhenFull | None = None,
    ) -> OutputReader:
        """Return a reader: ``async for output in clock.outputs("prices.*")``.

        It ends when the clock's context is left, after the outputs that have arrived until then.

        Args:
            patterns: of the topics: words separated by dots, where ``*`` is any one word and a last
                ``**`` one word or more. None given means all topics.
            worker: the name of the only worker to read; None for all workers.
            buffer: the outputs that the reader keeps while it is not read; None for the clock's
                ``reader_outputs``. A reader that waits may keep a frame more.
            when_full: ``"drop_oldest"``: the reader drops and counts its oldest outputs.
                ``"wait"``: no outputs of the clock are read until this reader is read, and
                workers fill their buffers meanwhile. None for the clock's.

        Raises:
            ConfigError: an argument is invalid.
        """
        owner, policy = "outputs", self._policy
        patterns = _checked(owner, patterns, worker)
        bound = policy.reader_outputs if buffer is None else whole(owner, "buffer", buffer, 1)
        mode = policy.when_full if when_full is None else checked_when_full(owner, when_full)
        waits = mode == "wait"
        reader = OutputReader(patterns, worker, bound, policy.reader_bytes, waits, self)
        self._readers[id(reader)] = weakref.ref(reader, self._reader_is_gone)
        self._changed()
        return reader

    def subscribe(
        self, callback: Callable[[Output], object], *patterns: str, worker: str | None = None
    ) -> Callable[[], None]:
        """Call ``callback(output)`` in the clock's event loop for each output.

        What the callback raises is logged and goes no further. `KeyboardInterrupt` and `SystemExit`
        end the program.

        Args:
            callback: a plain function.
            patterns: of the topics, as in a call of this object.
            worker: the name of the only worker to follow; None for all workers.

        Returns:
            A function that ends the subscription. Calling it again does nothing.

        Raises:
            TypeError: ``callback`` cannot be called with an output, or is a coroutine function.
            ConfigError: a pattern or the worker is invalid.
        """
        problem = callback_problem(callback, "output")
        if problem is not None:
            raise TypeError(f"outputs.subscribe: {callback!r} {problem}")
        wanted = _checked("outputs.subscribe", patterns, worker)
        subscription = _Subscription(callback, wanted, worker, self._guard)
        self._subscriptions.append(subscription)
        self._changed()

        def unsubscribe() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                self._changed()

        return unsubscribe

    def wanted_of(self, worker: str) -> tuple[str, ...]:
        """Return the patterns that are followed of a worker; for the clock's own use."""
        wanted = {
            pattern
            for follower in self._followers()
            if follower.worker in (None, worker)
            for pattern in follower.patterns
        }
        return (EVERY,) if EVERY in wanted else tuple(sorted(wanted))

    def followers(self, worker: str, topic: str) -> list[Callable[[Output, int], None]]:
        """Return what takes the outputs of a worker with a topic."""
        return [each.put for each in self._followers() if each.follows(worker, topic)]

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take note of the loop in which the clock is entered; for its own use."""
        self._loop = loop

    def close(self) -> None:
        """End the present readers after what is buffered; callbacks stay subscribed."""
        for reader in self._present():
            reader.end()
        self._readers.clear()
        self._loop, self.turn, self.on_moved = None, _turn, lambda: None
        self.is_held = False

    def waiting(self, reader: OutputReader) -> _Waiting:
        """Return what keeps a reader alive while a task waits in it; for the reader's own use."""
        return _Waiting(self._waiting, reader)

    def forget(self, reader: OutputReader) -> None:
        """Stop following for a reader that was closed; for the reader's own use."""
        if self._readers.pop(id(reader), None) is not None:
            self._changed()

    def reader_moved(self) -> None:
        """Go on if no reader is full any more."""
        was_held, self.is_held = self.is_held, any(each.is_holding for each in self._present())
        if was_held and not self.is_held:
            self.on_moved()

    def _followers(self) -> Iterator[Follower]:
        yield from self._present()
        yield from self._subscriptions

    def _present(self) -> list[OutputReader]:
        readers = (reference() for reference in tuple(self._readers.values()))
        return [reader for reader in readers if reader is not None]

    def _reader_is_gone(self, reference: weakref.ref[OutputReader]) -> None:
        """Notice the end of a reader, in whichever thread."""
        if self._loop is None or self._loop.is_closed():
            self._drop_gone()
        else:
            self._loop.call_soon_threadsafe(self._drop_gone)

    def _drop_gone(self) -> None:
        for key, reference in tuple(self._readers.items()):
            if reference() is None:
                del self._readers[key]
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._on_change()
        self.reader_moved()


def _checked(owner: str, patterns: tuple[str, ...], worker: object) -> tuple[str, ...]:
    """Return the patterns; the one of all topics where none are given.

    Raises:
        ConfigError: a pattern or the worker's name is invalid.
    """
    for pattern in patterns:
        problem = pattern_problem(pattern)
        if problem is not None:
            raise ConfigError(owner, "patterns", pattern, problem)
    if worker is not None and not isinstance(worker, str):
        raise ConfigError(owner, "worker", worker, "must be the name of a worker, handle.name")
    return patterns or (EVERY,)
