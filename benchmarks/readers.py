"""The bare processes: the minimum that receives ticks, without a framework.

A bare process has the sockets of a worker: a SUB socket for ticks, and a PUSH socket over which it
sends its records at the end. It subscribes last, so its subscription signals that it is ready.
Every bare process imports this module, so it imports little.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

import multiprocess.forkserver
import zmq

from benchmarks.probes import STAMP, Arrivals, FirstTick

__all__ = [
    "STOP",
    "TOPIC",
    "Reader",
    "asyncio_reader",
    "blocking_reader",
    "die_with_the_owner",
    "start_and_say_so",
]

TOPIC = b"t"
STOP = b"s"

LINGER = 10_000
"""Milliseconds to wait for the last message to be sent."""

PR_SET_PDEATHSIG = 1

Reader = Callable[[str, str], None]
"""Takes the addresses of a PUB and a PULL socket."""


class _Ends:
    """The sockets of a reader, and its handling of frames."""

    def __init__(self, down: str, up: str) -> None:
        self.arrivals = Arrivals()
        self.context = zmq.Context()
        self.sub: zmq.Socket[bytes] = self.context.socket(zmq.SUB)
        self.push: zmq.Socket[bytes] = self.context.socket(zmq.PUSH)
        self.push.connect(up)
        self.sub.connect(down)

    def subscribe(self) -> None:
        """Subscribe, which signals that the reader is ready."""
        self.sub.subscribe(b"")

    def take(self, frame: bytes) -> bool:
        """Record the tick in a frame. Return False if this is the last frame."""
        if frame == STOP:
            return False
        self.arrivals.note(STAMP.unpack_from(frame, 1)[0])
        return True

    def close(self) -> None:
        """Send the records and close the sockets."""
        self.push.send(self.arrivals.dump())
        self.push.close(LINGER)
        self.sub.close(0)
        self.context.term()


def asyncio_reader(down: str, up: str) -> None:
    """Read in an asyncio loop through the socket's file descriptor."""
    die_with_the_owner()
    asyncio.run(_read(down, up))


async def _read(down: str, up: str) -> None:
    loop, ends = asyncio.get_running_loop(), _Ends(down, up)
    over = loop.create_future()

    def drain() -> None:
        try:
            while ends.take(ends.sub.recv(zmq.NOBLOCK)):
                pass
        except zmq.Again:
            return
        over.set_result(None)

    fd = ends.sub.fileno()
    loop.add_reader(fd, drain)
    ends.subscribe()
    loop.call_soon(drain)
    await over
    loop.remove_reader(fd)
    ends.close()


def blocking_reader(down: str, up: str) -> None:
    """Read in a loop that blocks."""
    die_with_the_owner()
    ends = _Ends(down, up)
    ends.subscribe()
    while ends.take(ends.sub.recv()):
        pass
    ends.close()


def start_and_say_so(writer: Connection) -> None:
    """Create and start the processor of the restart benchmark and report it. Uses no event loop."""
    FirstTick("").start(0.0)
    writer.send_bytes(b"ready")


def die_with_the_owner() -> None:
    """End this process when the owner of the benchmark ends, and not on Ctrl-C before that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the owner handles Ctrl-C
    # The forkserver detects the owner's end by this pipe, which must not stay open in this process.
    server = multiprocess.forkserver._forkserver
    fd, server._forkserver_alive_fd = server._forkserver_alive_fd, None
    if fd is not None:
        os.close(fd)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
