"""What a processor emits goes to subscribers numbered, batched and within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chronopype_mp.core.message_frames import MESSAGE, MessageBatch, decode_messages
from chronopype_mp.core.outputs import encode_output
from chronopype_mp.transport.memory import MemoryHub
from chronopype_mp.transport.zeromq import ZmqHub, ZmqLink
from chronopype_mp.worker import publisher
from chronopype_mp.worker.publisher import MessagePublisher
from tests.boots import boot_of_a
from tests.waiting import Noticeboard, run


class Bench:
    """A publisher and a subscriber of everything."""

    def __init__(self, hub: MemoryHub | ZmqHub) -> None:
        self.hub = hub
        self.changes = 0
        self.topics: list[str] = []
        self.batches: list[MessageBatch] = []
        self.board = Noticeboard()
        self.links = [self._link("a"), self._link("b")]
        self.publisher = MessagePublisher(boot_of_a(), self.links[0], self._changed)
        self._subscriber = self.links[1].subscriber()
        self._subscriber.subscribe(MESSAGE)
        self._subscriber.attach(asyncio.get_running_loop(), self._read)

    def _link(self, worker: str) -> ZmqLink:
        if isinstance(self.hub, MemoryHub):
            return self.hub.connect(worker)  # type: ignore[return-value]
        hub = self.hub
        return ZmqLink(hub.down, hub.up, hub.data_up, (hub.messages_in, hub.messages_out), worker)

    def _changed(self) -> None:
        self.changes += 1
        self.board.notify()

    def _read(self) -> None:
        while frames := self._subscriber.receive(1000):
            for topic, batch in map(decode_messages, frames):
                self.topics.append(topic)
                self.batches.append(batch)
        self.board.notify()

    def put(self, topic: str, payload: object, *, retain: bool = False) -> None:
        self.publisher.put(topic, encode_output(topic, 0.0, payload), retain)

    async def known(self) -> None:
        """Wait until the publisher knows that everything is subscribed to."""
        self.put("first", None)  # connects it; nobody may have subscribed yet
        await self.board.until(lambda: MESSAGE in self.publisher._prefixes)
        self.put("second", None)
        await self.board.until(lambda: bool(self.batches) and self.batches[-1].last == 2)

    @property
    def seen(self) -> list[tuple[str, int, int, int]]:
        """The topic, first numbers and length of each batch."""
        each = zip(self.topics, self.batches, strict=True)
        return [(topic, b.serial, b.seq, len(b.payloads)) for topic, b in each]


@asynccontextmanager
async def bench(hub: MemoryHub | ZmqHub) -> AsyncIterator[Bench]:
    made = Bench(hub)
    try:
        await made.known()
        made.topics.clear()
        made.batches.clear()
        yield made
    finally:
        made.publisher.close()
        for link in made.links:
            link.close(0)
        hub.close_publisher()
        hub.close()


def test_messages_of_one_topic_in_a_row_share_a_frame_and_keep_the_order_of_topics() -> None:
    async def scenario() -> None:
        async with bench(MemoryHub()) as made:
            for topic in ("a", "a", "b", "a"):
                made.put(topic, 1)
            await made.board.until(lambda: len(made.batches) == 3)
            assert made.seen == [("a", 3, 1, 2), ("b", 5, 1, 1), ("a", 6, 3, 1)]

    run(scenario())


def test_a_full_frame_does_not_wait_for_the_event_loop() -> None:
    async def scenario() -> None:
        async with bench(MemoryHub()) as made:
            made.put("a", bytes(publisher.FRAME_BYTES))
            made._read()
            assert made.seen == [("a", 3, 1, 1)]

    run(scenario())


def test_threads_may_publish_and_no_message_is_lost() -> None:
    async def scenario() -> None:
        async with bench(ZmqHub()) as made:

            def work(topic: str) -> None:
                for number in range(500):
                    made.put(topic, number)

            threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
            for thread in threads:
                thread.start()
            work("loop")
            await made.board.until(lambda: sum(len(b.payloads) for b in made.batches) == 2500)
            for thread in threads:
                thread.join()
            serials = [s for b in made.batches for s in range(b.serial, b.last + 1)]
            assert serials == list(range(3, 2503))

    run(scenario())


def test_a_topic_is_wanted_while_somebody_has_subscribed_to_it() -> None:
    async def scenario() -> None:
        async with bench(MemoryHub()) as made:
            assert made.publisher.is_wanted("a")
            changes = made.changes
            made._subscriber.subscribe(b"mb\0")
            made._subscriber.unsubscribe(MESSAGE)
            await made.board.until(lambda: made.changes > changes)
            assert made.publisher.is_wanted("b")
            assert not made.publisher.is_wanted("a")

    run(scenario())


def test_while_the_forwarder_stands_still_a_bounded_number_of_bytes_is_kept() -> None:
    """The rest is sent as soon as there is room again; the numbers tell what was dropped."""

    async def scenario() -> None:
        hub = ZmqHub()
        async with bench(hub) as made:
            go_on = threading.Event()
            hub._forwarder.call(go_on.wait)  # type: ignore[arg-type]
            count = 30_000
            for number in range(count):
                made.put(f"t{number // 10 % 2}", bytes(1000))
            kept = made.publisher._bytes
            go_on.set()
            assert abs(kept - publisher.KEPT_BYTES) < 2 * publisher.FRAME_BYTES
            await made.publisher.finish()
            while "end" not in made.topics:  # a subscriber may lose it, as it may lose the others
                made.put("end", None)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await made.board.until(lambda: "end" in made.topics)
            arrived = sum(len(batch.payloads) for batch in made.batches)
            gaps = 0
            for before, batch in zip(made.batches, made.batches[1:], strict=False):
                gaps += batch.serial - before.last - 1
            assert gaps > 0
            assert arrived + gaps == made.batches[-1].last - 2 >= count

    run(scenario())


def test_topics_used_once_leave_a_bounded_number_behind() -> None:
    async def scenario() -> None:
        async with bench(MemoryHub()) as made:
            for number in range(publisher.TOPICS_KNOWN + 5000):
                made.put(f"t{number}", None)
                made._subscriber.receive(1000)
            assert len(made.publisher._seqs) == publisher.TOPICS_KNOWN

    run(scenario())
