"""What a transport offers, whichever it is.

The coordinator's end is used from two threads: `Hub.publish` from the ticker thread alone, the
rest from the event loop's. A worker's link belongs to its event loop's thread, but for
`Link.guard_sender`, which makes a sender for the guard thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

__all__ = ["FRAMES_QUEUED", "Hub", "Link", "Sender"]

FRAMES_QUEUED = 1000
"""Frames queued for one peer. Beyond that ticks are dropped and reports are refused, so that memory
stays bounded."""


class Hub(Protocol):
    """The coordinator's end: publishes to all workers, receives from all.

    Attributes:
        down: where workers receive from.
        up: where they report to.
    """

    down: str
    up: str

    def file(self, name: str) -> str:
        """Return a path that a worker may write to, gone with the hub; "" if there is none."""
        ...

    def publish(self, frame: bytes) -> None:
        """Send a frame to every worker subscribed to its topic; never blocks."""
        ...

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames that have come in; never blocks."""
        ...

    def echo(self, frame: bytes) -> bool:
        """Send a frame to `receive`; never blocks.

        Once it has come, what workers had sent before, and had left them, can be received without
        waiting; but for what was more than some kilobytes of one worker.

        Returns:
            Whether it was taken.
        """
        ...

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have come in."""
        ...

    def close_publisher(self) -> None:
        """Close what the ticker thread owns; called in that thread."""
        ...

    def close(self) -> None:
        """Close the rest and remove all files; called in the event loop's thread."""
        ...


class Sender(Protocol):
    """A way to send reports."""

    def send(self, frame: bytes) -> bool:
        """Send a frame without blocking; return whether it was taken."""
        ...

    def close(self, linger: float) -> None:
        """Close, after giving what was taken ``linger`` seconds to leave the process."""
        ...


class Link(Sender, Protocol):
    """A worker's end: receives ticks and its own commands, sends reports."""

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames that have come in, oldest first; never blocks."""
        ...

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have come in."""
        ...

    def guard_sender(self) -> Sender:
        """Return a further sender, to be used by one other thread."""
        ...
