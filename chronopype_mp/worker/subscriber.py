"""Receives messages of other processors and calls ``on_message`` between ticks.

Its pure twin is `chronopype_mp.core.subscriptions`. The dispatcher gives it a turn when no tick
runs, and it gives the turn back as soon as a tick waits. What is not read meanwhile waits in the
socket, and what does not fit there is dropped and counted.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.codec import FrameError
from chronopype_mp.core.message_counters import MessageCounters
from chronopype_mp.core.message_frames import answer_topic, prefixes_of
from chronopype_mp.core.messages import AskRetained
from chronopype_mp.core.outputs import PayloadTypes
from chronopype_mp.core.subscriptions import Subscriptions
from chronopype_mp.exceptions import MessageError
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.hooks import HookCancelled, HookStuck, HookTimeout, bounded
from chronopype_mp.timing import monotonic_ns
from chronopype_mp.transport.base import REST, Link, Subscribing
from chronopype_mp.worker.dispatch import TickDispatcher
from chronopype_mp.worker.outbox import Outbox

__all__ = ["MessageSubscriber"]

logger = GuardedLogger("chronopype_mp.worker")

TURN = 2_000_000
"""Nanoseconds of messages in one turn of the event loop."""

FRAMES_PER_READ = 100

FLOOD = 100
"""Messages in a turn from which on the next one waits for `FLOOD_REST`."""

FLOOD_REST = 0.002
"""Seconds. Waking up for each frame of a flood would cost a third of the time."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds after which the owner is asked again for retained messages; each pause doubles. After
the longest one it is logged that they are missing."""

DECODERS_KEPT = 10_000


class MessageSubscriber:
    """Receives the messages of one incarnation. Make it in the thread of the running event loop.

    Args:
        boot: of which worker.
        link: its sockets; that for messages is connected at the first subscription.
        outbox: sends requests to the owner.
        processor: whose ``on_message`` to call.
        types: the declared types of payloads.
        dispatcher: runs the ticks.
        on_failure: called with what ``on_message`` raised, or why it was not called.
        on_stuck: called when it has swallowed its cancellation.

    Attributes:
        garbage: frames that did not decode.
    """

    def __init__(
        self,
        boot: WorkerBoot,
        link: Link,
        outbox: Outbox,
        processor: TickProcessor,
        types: PayloadTypes,
        dispatcher: TickDispatcher,
        on_failure: Callable[[BaseException], None],
        on_stuck: Callable[[], None],
    ) -> None:
        self._boot = boot
        self._link = link
        self._outbox = outbox
        self._processor = processor
        self._types = types
        self._dispatcher = dispatcher
        self._on_failure = on_failure
        self._on_stuck = on_stuck
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._state = Subscriptions()
        self._socket: Subscribing | None = None
        self._decoders: dict[str, Callable[[Any], Any]] = {}
        self._answers: bytes | None = None
        self._asking: asyncio.Handle | None = None
        self._pause = FIRST_PAUSE
        self._arrived = asyncio.Event()
        self._is_open = False  # ticks run, and messages between them
        self._is_closed = False
        self._has_asked = False  # for a turn
        self._has_changed = False  # what is subscribed to, by the hook that was called
        self.garbage = 0

    @property
    def counters(self) -> MessageCounters:
        """The counts so far."""
        return self._state.counters

    def subscribe(self, patterns: Iterable[str]) -> None:
        """Subscribe; see `TickProcessor.subscribe`. The patterns have been checked."""
        patterns = self._checked("subscribe", patterns)
        if self._is_closed or not patterns:
            return
        if self._socket is None:
            self._socket = self._link.subscriber()
            self._socket.attach(self._loop, self._on_readable)
        for pattern in self._state.add(patterns):
            for prefix in prefixes_of(pattern):
                self._socket.subscribe(prefix)
        self._pause = FIRST_PAUSE
        self._ask_in(0.0)

    def unsubscribe(self, patterns: Iterable[str]) -> None:
        """Unsubscribe; see `TickProcessor.unsubscribe`."""
        patterns = self._checked("unsubscribe", patterns)
        for pattern in self._state.remove(patterns):
            assert self._socket is not None
            for prefix in prefixes_of(pattern):
                self._socket.unsubscribe(prefix)
        self._has_changed = True  # what waits may not be wanted any more
        self._arrived.set()

    async def catch_up(self) -> None:
        """Call ``on_message`` for all retained messages of the subscriptions so far.

        Messages that arrive later wait for their turn between ticks.
        """
        while not self._state.is_caught_up and not self._is_closed:
            self._arrived.clear()
            if not self._read():
                await self._arrived.wait()
        while self._state.is_ready and not self._is_closed:
            await self._give(monotonic_ns() + TURN)
            await asyncio.sleep(0)
        self._is_open = True
        self._on_readable()

    def close(self) -> None:
        """Call ``on_message`` no more."""
        self._is_closed = self._has_changed = True
        self._arrived.set()
        if self._asking is not None:
            self._asking.cancel()

    def _checked(self, method: str, patterns: Iterable[str]) -> list[str]:
        patterns = list(patterns)
        if self._link.is_abandoned or threading.get_ident() != self._thread:
            where = "process" if self._link.is_abandoned else "thread"
            problem = f"{method}() works in the {where} of the worker's event loop only"
            raise MessageError(type(self._processor).__name__, ", ".join(patterns), problem)
        return patterns

    # Retained messages

    def _ask_in(self, seconds: float) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._asking = self._loop.call_later(seconds, self._ask)

    def _ask(self) -> None:
        """Ask the owner for retained messages, if there are any to come, and later again."""
        mark = self._state.ask()
        if mark is None or self._socket is None:
            return
        if self._pause >= LONGEST_PAUSE:
            logger.warning(
                "worker %r waits for the retained messages of %s; messages of these topics wait, "
                "too. The owner's event loop may be blocked",
                self._boot.worker,
                ", ".join(mark.patterns),
            )
        # After the patterns: whoever gets the answer has them.
        if self._answers is not None:
            self._socket.unsubscribe(self._answers)
        self._answers = answer_topic(self._boot.worker, self._boot.incarnation, mark.request)
        self._socket.subscribe(self._answers)
        self._outbox.post_if_free(
            self._boot.report(AskRetained, request=mark.request, patterns=mark.patterns)
        )
        self._ask_in(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    # Messages

    def _on_readable(self) -> None:
        self._arrived.set()
        if self._is_open and not self._is_closed:
            self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if not self._has_asked:
            self._has_asked = True
            self._dispatcher.run_between(self._turn)

    async def _turn(self) -> None:
        """Call ``on_message`` until a tick waits, or for one turn of the event loop."""
        self._has_asked = False
        until = monotonic_ns() + TURN
        before, has_read = self.counters.received, False
        while self._state.is_ready or self._read():
            has_read = True
            if self._is_closed:
                return
            if monotonic_ns() > until or self._dispatcher.has_waiting:
                self._loop.call_soon(self._on_readable)
                return
            await self._give(until)
        if has_read and self._socket is not None:
            # What arrives until then comes in one turn.
            is_flood = self.counters.received - before >= FLOOD
            self._socket.ask_again(FLOOD_REST if is_flood else REST)

    def _read(self) -> bool:
        """Read frames; return whether there were any."""
        frames = [] if self._socket is None else self._socket.receive(FRAMES_PER_READ)
        for frame in frames:
            try:
                self._state.take(frame)
            except FrameError:
                self.garbage += 1
        return bool(frames)

    async def _give(self, until: int) -> None:
        """Call ``on_message`` for messages of one topic, until a time in nanoseconds."""
        if not self._state.is_ready:
            return
        topic, payloads = self._state.next()
        self._has_changed = False
        context = self._processor._tick_context
        given = 0
        while given < len(payloads) and not self._has_changed:
            if context is None:
                result = self._give_plain(topic, payloads, given, until)
            else:
                result = context.run(self._give_plain, topic, payloads, given, until)
            given, awaited = result
            if awaited is not None:
                await self._finish(topic, awaited)
            if self._dispatcher.has_waiting or monotonic_ns() > until:
                break
        self._state.put_back(topic, payloads[given:])

    def _give_plain(
        self, topic: str, payloads: list[msgspec.Raw], given: int, until: int
    ) -> tuple[int, asyncio.Future[Any] | None]:
        """Call ``on_message`` until one is to be awaited, or a time has come, in nanoseconds.

        Args:
            topic: of the messages.
            payloads: those of the messages.
            given: how many of them were given before.
            until: the time.

        Returns:
            How many have been given by now, and what is to be awaited.
        """
        decode, call, clock = self._decoder(topic), self._processor.on_message, monotonic_ns
        for encoded in payloads[given:] if given else payloads:
            given += 1
            try:
                payload = decode(encoded)
            except Exception as error:
                problem = f"the payload is not what message_types declares: {error}"
                self._on_failure(MessageError(type(self._processor).__name__, topic, problem))
                continue
            try:
                result = call(topic, payload)
                if result is not None and inspect.isawaitable(result):
                    return given, asyncio.ensure_future(result)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                self._fail(topic, error)
            if self._has_changed or clock() > until:
                break
        return given, None

    async def _finish(self, topic: str, result: asyncio.Future[Any]) -> None:
        """Await an ``on_message``."""
        limit = self._boot.rules.processor_timeout
        try:
            await bounded(result, limit)
        except (KeyboardInterrupt, SystemExit):
            raise
        except HookStuck:
            self._on_stuck()
        except HookTimeout:
            self._fail(topic, TimeoutError(f"topic {topic!r}: timed out after {limit:g}s"))
        except asyncio.CancelledError:
            raise  # of the worker's task; `bounded` tells the hook's own
        except HookCancelled:
            self._fail(topic, RuntimeError("on_message was cancelled from within"))
        except BaseException as error:
            self._fail(topic, error)

    def _fail(self, topic: str, error: BaseException) -> None:
        error.add_note(f"on_message got a message with topic {topic!r}")
        self._on_failure(error)

    def _decoder(self, topic: str) -> Callable[[Any], Any]:
        decoder = self._decoders.get(topic)
        if decoder is None:
            if len(self._decoders) >= DECODERS_KEPT:
                self._decoders.clear()
            decoder = self._decoders[topic] = self._types.decoder(topic).decode
        return decoder
