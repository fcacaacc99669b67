"""The processors and bare senders that `benchmarks.outputs` starts. They import little."""

from __future__ import annotations

import asyncio
import struct
import time
from multiprocessing.connection import Connection

import zmq

from chronopype_mp import TickProcessor

__all__ = ["BATCHES_PER_SECOND", "WALL", "Floods", "Paced", "bare_sender"]

WALL = struct.Struct("!d")
"""The encoding of the time at which a bare sender has sent a message."""

PACE = 0.001
"""Seconds between two outputs where latency is measured."""

BATCHES_PER_SECOND = 1000


class _Emits(TickProcessor):
    """Emits in a task from its first tick on."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.task: asyncio.Task[None] | None = None

    def tick(self, timestamp: float) -> None:
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self.work())

    async def work(self) -> None:
        raise NotImplementedError


class Floods(_Emits):
    """Emits payloads of some bytes.

    Args:
        count: how many.
        size: bytes of each.
        rate: outputs per second; 0 for as fast as they are read.
    """

    def __init__(self, count: int, size: int, rate: int = 0) -> None:
        super().__init__()
        self.count, self.size, self.rate = count, size, rate

    async def work(self) -> None:
        payload = b"x" * self.size
        if not self.rate:
            for _ in range(self.count):
                self.emit(payload, topic="flood")
                await self.drain_outputs()
            return
        due = time.monotonic()
        for number in range(self.count):
            self.emit(payload, topic="flood")
            if number % (self.rate // BATCHES_PER_SECOND) == 0:
                due += 1 / BATCHES_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))


class Paced(_Emits):
    """Emits one payload a millisecond, so that none waits for another.

    Args:
        count: how many.
        size: bytes of each.
    """

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.count, self.size = count, size

    async def work(self) -> None:
        payload = b"x" * self.size
        for _ in range(self.count):
            self.emit(payload, topic="paced")
            await asyncio.sleep(PACE)


def bare_sender(
    address: str, count: int, size: int, is_paced: bool, go: Connection, ready: Connection
) -> None:
    """Send messages, each with its time, into a PUSH socket; then the CPU time that it took."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.connect(address)
        ready.send_bytes(b"ready")
        go.recv_bytes()
        cpu = time.process_time()
        rest = b"x" * (size - WALL.size)
        for _ in range(count):
            push.send(WALL.pack(time.time()) + rest)
            if is_paced:
                time.sleep(PACE)
        ready.send_bytes(WALL.pack(time.process_time() - cpu))
