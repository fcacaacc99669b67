"""The processors and bare processes that `benchmarks.messages` starts. They import little."""

from __future__ import annotations

import asyncio
import struct
import time
from multiprocessing.connection import Connection

import zmq

from benchmarks.emitting import BATCHES_PER_SECOND, PACE, WALL
from benchmarks.readers import die_with_the_owner
from chronopype_mp import TickProcessor

__all__ = ["RECEIVED", "Publishes", "Subscribes", "bare_publisher", "bare_subscriber"]

RECEIVED = struct.Struct("!qddd")
"""How many messages a bare subscriber got, the time of the first and of the last one on the
monotonic clock, and its CPU time, seconds."""

END = b"end"


class Publishes(TickProcessor):
    """Publishes payloads on a topic of its own from its first tick on, and then that this is all.

    Args:
        number: of the topic.
        count: how many.
        size: bytes of each.
        rate: messages per second; 0 for as fast as they are sent.
        is_paced: one message a millisecond, with its time.
    """

    def __init__(
        self, number: int, count: int, size: int, rate: int = 0, is_paced: bool = False
    ) -> None:
        super().__init__()
        self.topic = f"flood.f{number}"
        self.count, self.size, self.rate, self.is_paced = count, size, rate, is_paced
        self.is_over = False

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.task: asyncio.Task[None] | None = None

    def tick(self, timestamp: float) -> None:
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self.work())
        elif self.is_over:
            self.emit(None, topic=self.topic)

    async def work(self) -> None:
        payload = b"x" * self.size
        emit, drain, topic = self.emit, self.drain_outputs, self.topic
        due = time.monotonic()
        for number in range(self.count):
            if self.is_paced:
                emit([time.time(), payload], topic=topic)
                await asyncio.sleep(PACE)
                continue
            emit(payload, topic=topic)
            if not self.rate:
                await drain()
            elif number % (self.rate // BATCHES_PER_SECOND) == 0:
                due += 1 / BATCHES_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        self.is_over = True
        emit(None, topic=topic)


class Subscribes(TickProcessor):
    """Counts messages, and emits when all publishers are at their end.

    Args:
        publishers: how many there are.
    """

    def __init__(self, publishers: int) -> None:
        super().__init__()
        self.publishers = publishers
        self.count = 0
        self.began = self.ended = 0.0
        self.late: list[float] = []
        self.over: set[str] = set()
        self.subscribe("flood.*")

    def on_message(self, topic: str, payload: object) -> None:
        if payload is None:
            self.end(topic)
            return
        if not self.count:
            self.began = time.monotonic()
        self.count += 1
        if type(payload) is list:
            self.late.append(time.time() - payload[0])

    def end(self, topic: str) -> None:
        if topic not in self.over:
            self.over.add(topic)
            if len(self.over) == self.publishers:
                figures = [self.count, self.began, time.monotonic(), self.late]
                self.emit(figures, topic="figures")


def bare_publisher(
    address: str,
    subscribers: int,
    count: int,
    size: int,
    is_paced: bool,
    go: Connection,
    answer: Connection,
) -> None:
    """Publish messages through a PUB socket, then the end; answer with the CPU time."""
    die_with_the_owner()
    with zmq.Context() as context, context.socket(zmq.XPUB) as pub:
        pub.setsockopt(zmq.SNDHWM, 0)
        pub.connect(address)
        pub.recv()  # an XPUB is a PUB that receives the subscription
        answer.send_bytes(b"ready")
        go.recv_bytes()
        cpu = time.process_time()
        rest = b"x" * (size - WALL.size)
        for _ in range(count):
            pub.send(WALL.pack(time.time()) + rest)
            if is_paced:
                time.sleep(PACE)
        pub.send(END)
        answer.send_bytes(WALL.pack(time.process_time() - cpu))
        go.recv_bytes()  # until all has arrived


def bare_subscriber(
    address: str, publishers: int, is_paced: bool, answer: Connection, late_answer: Connection
) -> None:
    """Count messages in a loop that blocks, until all publishers are at their end."""
    die_with_the_owner()
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.setsockopt(zmq.RCVHWM, 0)
        sub.subscribe(b"")
        sub.connect(address)
        receive, late, count = sub.recv, [], 0
        answer.send_bytes(b"ready")
        receive()
        count, began, cpu = 1, time.monotonic(), time.process_time()
        while publishers:
            message = receive()
            if message == END:
                publishers -= 1
                continue
            count += 1
            if is_paced:
                late.append(time.time() - WALL.unpack_from(message)[0])
        figures = RECEIVED.pack(count, began, time.monotonic(), time.process_time() - cpu)
        answer.send_bytes(figures)
        late_answer.send_bytes(b"".join(map(WALL.pack, late)))
