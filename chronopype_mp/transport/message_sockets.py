"""The sockets at the forwarder: those of a worker, and those of the owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import zmq

from chronopype_mp.core.message_frames import ANSWER, RETAINED
from chronopype_mp.transport.base import FRAMES_QUEUED, MESSAGES_QUEUED, Receiver
from chronopype_mp.transport.forwarder import MESSAGES_IN, MESSAGES_OUT

__all__ = ["OwnerMessages", "Reader", "ZmqPublisher", "ZmqSubscriber"]

RETAINED_QUEUED = 20_000
"""Frames queued for the owner, which keeps retained messages, while its event loop is blocked.
Newer ones are dropped, and what they retain is old then until the next message of their topic."""

CHANGES_AT_ONCE = 1_000_000
"""Subscriptions read at once: all. They are few, and rare."""


class Reader(Receiver, Protocol):
    """Reads one socket."""

    def detach(self) -> None:
        """Stop reading."""
        ...


class ZmqPublisher:
    """A worker's XPUB socket. Unlike a PUB socket it shows what others have subscribed to.

    Args:
        context: the context of this process.
        address: the coordinator's `ZmqHub.messages_in`.
        reader: makes what reads a socket.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        reader: Callable[[zmq.Socket[bytes]], Reader],
    ) -> None:
        self._xpub: zmq.Socket[bytes] = context.socket(zmq.XPUB)
        self._xpub.setsockopt(zmq.LINGER, 0)
        self._xpub.setsockopt(zmq.SNDHWM, FRAMES_QUEUED)
        self._xpub.setsockopt(zmq.XPUB_NODROP, 1)
        self._xpub.connect(address)
        self._readable = reader(self._xpub)
        self._is_abandoned = False

    def publish(self, frame: bytes) -> bool:
        """Send a frame to the forwarder, if somebody has subscribed; return whether it had room."""
        if not self._is_abandoned:
            try:
                self._xpub.send(frame, zmq.DONTWAIT)
            except zmq.Again:
                return False
        return True

    def changes(self) -> list[bytes]:
        """Return what others have subscribed to, or no longer need."""
        return [] if self._is_abandoned else self._readable.receive(CHANGES_AT_ONCE)

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop when there may be changes, or room again."""
        self._readable.attach(loop, on_readable)

    def abandon(self) -> None:
        """Drop all frames from now on."""
        self._is_abandoned = True

    def close(self, linger: float) -> None:
        """Close the socket. Queued frames then have ``linger`` seconds before the context ends."""
        self._readable.detach()
        self._xpub.close(linger=int(linger * 1000))


class ZmqSubscriber:
    """A worker's SUB socket for messages.

    Args:
        context: the context of this process.
        address: the coordinator's `ZmqHub.messages_out`.
        reader: makes what reads a socket.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        reader: Callable[[zmq.Socket[bytes]], Reader],
    ) -> None:
        self._sub: zmq.Socket[bytes] = context.socket(zmq.SUB)
        self._sub.setsockopt(zmq.LINGER, 0)
        self._sub.setsockopt(zmq.RCVHWM, MESSAGES_QUEUED)
        self._sub.connect(address)
        self._readable = reader(self._sub)
        self._is_abandoned = False

    def subscribe(self, prefix: bytes) -> None:
        """Receive frames that begin with ``prefix``."""
        self._sub.subscribe(prefix)

    def unsubscribe(self, prefix: bytes) -> None:
        """Take back one `subscribe` of ``prefix``."""
        self._sub.unsubscribe(prefix)

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` received frames, oldest first."""
        return [] if self._is_abandoned else self._readable.receive(most)

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop when frames may have come in."""
        self._readable.attach(loop, on_readable)

    def ask_again(self, rest: float = 0.0) -> None:
        """Call ``on_readable`` in ``rest`` seconds, since not all frames have been received."""
        self._readable.ask_again(rest)

    def abandon(self) -> None:
        """Receive nothing from now on."""
        self._is_abandoned = True

    def close(self, linger: float) -> None:
        """Close the socket."""
        self._readable.detach()
        self._sub.close()


class OwnerMessages:
    """The owner's sockets at its forwarder.

    Args:
        context: of the forwarder.
        reader: makes what reads a socket.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        reader: Callable[[zmq.Socket[bytes]], Reader],
    ) -> None:
        self._sub: zmq.Socket[bytes] = context.socket(zmq.SUB)
        self._pub: zmq.Socket[bytes] = context.socket(zmq.PUB)
        self._sub.setsockopt(zmq.RCVHWM, RETAINED_QUEUED)
        for prefix in (RETAINED, ANSWER):
            self._sub.subscribe(prefix)
        self._sub.connect(MESSAGES_OUT)
        self._pub.connect(MESSAGES_IN)
        self._readable = reader(self._sub)

    def publish(self, frame: bytes) -> None:
        """Send a frame to the forwarder. It is dropped for workers whose queue is full."""
        self._pub.getsockopt(zmq.EVENTS)  # process subscriptions that have arrived
        self._pub.send(frame, zmq.DONTWAIT)

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames that have arrived."""
        return self._readable.receive(most)

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have arrived."""
        self._readable.attach(loop, on_readable)

    def ask_again(self, rest: float = 0.0) -> None:
        """Call ``on_readable`` in ``rest`` seconds, since not all frames have been received."""
        self._readable.ask_again(rest)

    def close(self) -> None:
        """Close both sockets."""
        self._readable.detach()
        for socket in (self._sub, self._pub):
            socket.close(linger=0)
