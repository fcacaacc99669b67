"""The emitter never blocks the event loop, and accounts for every output."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chronopype_mp.core.outputs import LARGEST_OUTPUT, OutputPolicy, PayloadTypes, decode_batch
from chronopype_mp.exceptions import OutputError, OutputsFull
from chronopype_mp.transport.memory import MemoryHub
from chronopype_mp.transport.memory_messages import MemoryForwarder, MemoryPublisher
from chronopype_mp.worker.emitter import TOPICS_KNOWN, Emitter
from tests.boots import boot_of_a
from tests.waiting import run, turns

SMALLEST = 128 * 1024


class Price(msgspec.Struct):
    value: float


class Narrow:
    """A link whose socket takes as many frames as it is told to."""

    is_abandoned = False

    def __init__(self, room: int) -> None:
        self.room = room
        self.frames: list[bytes] = []
        self._writable: Callable[[], None] = lambda: None

    def output_sender(self) -> Narrow:
        return self

    def publisher(self) -> MemoryPublisher:
        return MemoryPublisher(MemoryForwarder())

    def send(self, frame: bytes) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.frames.append(frame)
        return True

    def when_writable(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._writable = call

    def make_room(self, frames: int) -> None:
        self.room += frames
        self._writable()

    @property
    def payloads(self) -> list[Any]:
        batches = map(decode_batch, self.frames)
        return [msgspec.msgpack.decode(item.payload) for each in batches for item in each.items]

    @property
    def numbers(self) -> list[int]:
        batches = map(decode_batch, self.frames)
        return [each.first + i for each in batches for i in range(len(each.items))]


def emitter(link: Any, when_full: str = "drop_oldest", types: Any = None) -> Emitter:
    policy = OutputPolicy(when_full=when_full, buffer_bytes=SMALLEST)  # type: ignore[arg-type]
    made = Emitter(boot_of_a(outputs=policy), link, "P", PayloadTypes(types))
    made.want(("**",))
    return made


async def filled(made: Emitter) -> None:
    """Wait until threads have filled half of the buffer."""
    while made._buffer.bytes < SMALLEST // 2:  # noqa: ASYNC110 – nothing tells
        await asyncio.sleep(0)


def test_outputs_of_one_turn_of_the_loop_share_a_frame() -> None:
    async def scenario() -> None:
        hub = MemoryHub()
        made = emitter(hub.connect("a"))
        for number in range(3):
            made.emit(number, "a")
        assert hub.outputs.receive(1) == []
        await turns()
        batch = decode_batch(hub.outputs.receive(1)[0])
        assert (batch.token, batch.first, len(batch.items)) == (99, 1, 3)
        assert made.counters == msgspec.structs.replace(made.counters, emitted=3, sent=3, dropped=0)

    run(scenario())


def test_a_long_turn_of_the_loop_sends_what_fills_a_frame() -> None:
    async def scenario() -> None:
        link = Narrow(100)
        made = emitter(link)
        for number in range(1000):
            made.emit(str(number) * 100, "a")
        assert len(link.frames) > 1
        assert not made.counters.dropped

    run(scenario())


def test_what_nobody_reads_is_counted_and_not_even_encoded() -> None:
    async def scenario() -> None:
        link = Narrow(100)
        made = emitter(link)
        made.want(("b",))
        made.emit(0, "a")
        await turns()  # now it is known that no processor has subscribed
        made.emit(object(), "a")
        made.emit(1, "b")
        await turns()
        assert link.payloads == [1]
        assert link.numbers == [1]
        assert (made.counters.emitted, made.counters.sent) == (3, 1)

    run(scenario())


def test_the_oldest_outputs_are_dropped_and_the_counts_are_exact() -> None:
    async def scenario() -> None:
        link = Narrow(1)
        made = emitter(link)
        for number in range(5000):
            made.emit(number, "a")
            if number % 100 == 0:
                await turns(2)
        link.make_room(1000)
        await made.finish(5.0)
        counters = made.counters
        assert counters.dropped > 0
        assert counters.emitted == counters.sent + counters.dropped == 5000
        assert link.payloads == [number - 1 for number in link.numbers]
        assert link.payloads[-1] == 4999
        assert sorted(set(link.numbers)) == link.numbers

    run(scenario())


def test_a_full_buffer_that_may_drop_nothing_raises_in_the_loop_and_takes_more_when_drained() -> (
    None
):
    async def scenario() -> None:
        link = Narrow(0)
        made = emitter(link, "wait")
        taken = 0
        while made._buffer.fits(b"x" * 100):
            made.emit(taken, "a")
            taken += 1
        with pytest.raises(OutputsFull, match=r"await self\.drain_outputs"):
            made.emit("x" * 100, "a")
        draining = asyncio.ensure_future(made.drain())
        await turns()
        assert not draining.done()
        link.make_room(1000)
        await draining
        made.emit(taken, "a")
        await made.finish(5.0)
        assert link.payloads == list(range(taken + 1))
        assert not made.counters.dropped

    run(scenario())


def test_a_thread_waits_for_room() -> None:
    async def scenario() -> None:
        link = Narrow(0)
        made = emitter(link, "wait")
        threads = [
            threading.Thread(target=lambda: [made.emit(n, "a") for n in range(3000)])
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        await filled(made)
        for _ in range(50):
            link.make_room(1)
            await turns(3)
        ended = asyncio.to_thread(lambda: [thread.join() for thread in threads])
        link.make_room(10_000)
        await ended
        await made.finish(5.0)
        assert sorted(link.payloads) == sorted([*range(3000), *range(3000)])
        assert link.numbers == list(range(1, 6001))

    run(scenario())


def test_a_thread_that_waits_for_room_is_refused_at_the_end() -> None:
    async def scenario() -> None:
        made = emitter(Narrow(0), "wait")
        refused: list[OutputError] = []

        def work() -> None:
            try:
                while True:
                    made.emit("x" * 1000, "a")
            except OutputError as error:
                refused.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        await filled(made)
        made.close()
        await asyncio.to_thread(thread.join)
        assert "the worker has stopped" in str(refused[0])
        assert made.counters.emitted == made.counters.dropped

    run(scenario())


def test_a_socket_that_was_written_to_out_of_turn_is_not_waited_for_in_vain() -> None:
    """A full buffer tries again at once. What it sends then takes the sign from the descriptor."""

    async def scenario() -> None:
        link = Narrow(0)
        made = emitter(link, "wait")
        while made._buffer.fits(b"x" * 1100):
            made.emit("x" * 1000, "a")
        with pytest.raises(OutputsFull):
            made.emit("x" * 1100, "a")
        link.room = 1000  # and nothing tells
        made.emit("last" * 300, "a")
        await made.finish(5.0)
        made.emit("one more", "a")
        await turns()
        assert link.payloads[-2:] == ["last" * 300, "one more"]

    run(scenario())


def test_what_cannot_be_sent_is_refused_by_name() -> None:
    async def scenario() -> None:
        link = Narrow(10)
        made = emitter(link, types={"prices.*": Price})
        for payload, topic, problem in (
            (object(), "a", r"P\.emit\(…, topic='a'\): the payload, a object, cannot be encoded"),
            ("\ud800", "a", "cannot be encoded"),
            (2**64, "a", "cannot be encoded"),
            (b"x" * LARGEST_OUTPUT, "a", "at most 4194304 are allowed"),
            (1, "a..b", "empty word"),
            (1, None, "must be a str"),
            ({"value": 1.0}, "prices.btc", "declares Price, but the payload is a dict"),
        ):
            with pytest.raises(OutputError, match=problem):
                made.emit(payload, topic)  # type: ignore[arg-type]
        link.is_abandoned = True  # type: ignore[misc]
        with pytest.raises(OutputError, match="forked child"):
            made.emit(1, "a")
        link.is_abandoned = False  # type: ignore[misc]
        made.close()
        with pytest.raises(OutputError, match="has stopped"):
            made.emit(1, "a")
        assert made.counters.emitted == 0

    run(scenario())


def test_a_hundred_thousand_topics_used_once_take_no_memory() -> None:
    async def scenario() -> None:
        made = emitter(Narrow(10_000))
        for number in range(100_000):
            made.emit(None, f"topic.{number}")
        assert len(made._rules) <= TOPICS_KNOWN

    run(scenario())
