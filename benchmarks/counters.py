"""The bare processes of the throughput benchmark. They count the frames that arrive.

Each one answers the last frame with the number of frames before it and the CPU time used for them.
Every bare process imports this module, so it imports little.
"""

from __future__ import annotations

import asyncio
import struct
import time
from multiprocessing.connection import Connection

import zmq
import zmq.asyncio

from benchmarks.readers import STOP, die_with_the_owner

__all__ = ["COUNTED", "asyncio_counter", "blocking_counter", "pipe_counter"]

COUNTED = struct.Struct("!qd")
"""The number of frames, and the CPU time in seconds."""

LINGER = 10_000


def blocking_counter(down: str, up: str) -> None:
    """Count frames in a loop that blocks in ``recv``."""
    die_with_the_owner()
    with zmq.Context() as context, context.socket(zmq.SUB) as sub, context.socket(zmq.PUSH) as push:
        sub.setsockopt(zmq.RCVHWM, 0)
        push.connect(up)
        sub.connect(down)
        sub.subscribe(b"")
        receive, count, before = sub.recv, 0, time.process_time()
        while receive() != STOP:
            count += 1
        push.send(COUNTED.pack(count, time.process_time() - before))
        push.close(LINGER)


def asyncio_counter(down: str, up: str) -> None:
    """Count frames with zmq.asyncio sockets."""
    die_with_the_owner()
    asyncio.run(_count(down, up))


async def _count(down: str, up: str) -> None:
    with zmq.asyncio.Context() as context:
        sub, push = context.socket(zmq.SUB), context.socket(zmq.PUSH)
        sub.setsockopt(zmq.RCVHWM, 0)
        push.connect(up)
        sub.connect(down)
        sub.subscribe(b"")
        count, before = 0, time.process_time()
        while await sub.recv() != STOP:
            count += 1
        await push.send(COUNTED.pack(count, time.process_time() - before))
        sub.close(0)
        push.close(LINGER)


def pipe_counter(frames: Connection, answer: Connection) -> None:
    """Count the frames from a pipe."""
    die_with_the_owner()
    answer.send_bytes(b"ready")
    receive, count, before = frames.recv_bytes, 0, time.process_time()
    while receive() != STOP:
        count += 1
    answer.send_bytes(COUNTED.pack(count, time.process_time() - before))
