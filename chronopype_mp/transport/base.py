"""The interface of a transport.

The coordinator's end is used from two threads: `Hub.publish` only from the ticker thread, the rest
from the event loop's thread. A worker's link belongs to its event loop's thread. The sender that
`Link.guard_sender` returns is for the guard thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

__all__ = [
    "BATCHES_QUEUED",
    "FRAMES_QUEUED",
    "MESSAGES_QUEUED",
    "REPORTS_QUEUED",
    "REST",
    "Hub",
    "Link",
    "OutputSender",
    "Receiver",
    "Sender",
]

FRAMES_QUEUED = 1000
"""Frames queued for one peer. Beyond that ticks are dropped and reports are refused, so that memory
stays bounded."""

REPORTS_QUEUED = 1000
"""Reports of one connection that the coordinator queues: 8 MB of the longest log records. Further
ones wait in the worker, which drops what exceeds its own bound.

Not fewer: when a process ends whose queue is full, libzmq drops what the kernel still holds of it,
and with it the last report, which says why."""

BATCHES_QUEUED = 8
"""Frames of outputs queued at each end of a worker's connection: half a megabyte, or 32 MB of the
largest outputs. Further ones stay in the worker's buffer."""

MESSAGES_QUEUED = 2000
"""Frames of messages queued for a subscriber at each end of its connection. Further ones are
dropped."""

REST = 0.0005
"""Seconds between two turns of reading reports while there are more of them. Other threads of the
owner, such as the ticker, get the interpreter then."""


class Receiver(Protocol):
    """Receives frames of all workers."""

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames that have arrived; never blocks.

        With 0 it only takes note that there are frames, and calls back when `ask_again` was called.
        """
        ...

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have arrived."""
        ...

    def ask_again(self, rest: float = 0.0) -> None:
        """Call ``on_readable`` in ``rest`` seconds, since not all frames have been received."""
        ...


class Publishing(Protocol):
    """Publishes messages of a worker to other workers."""

    def publish(self, frame: bytes) -> bool:
        """Send a frame to all who have subscribed to what it begins with; never blocks.

        It is dropped for those who do not read, and for all while there is no connection.

        Returns:
            Whether there was room. Otherwise ``on_readable`` is called when there is.
        """
        ...

    def changes(self) -> list[bytes]:
        """Return what others have subscribed to (byte 1) or no longer need (byte 0) meanwhile.

        Each is that byte and the beginning of frames. Retained messages are always subscribed to
        while there is a connection.
        """
        ...

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop when there may be changes, or room again."""
        ...


class Subscribing(Receiver, Protocol):
    """Receives messages of other workers."""

    def subscribe(self, prefix: bytes) -> None:
        """Receive frames that begin with ``prefix``. Subscriptions take effect in order."""
        ...

    def unsubscribe(self, prefix: bytes) -> None:
        """Take back a subscription."""
        ...


class OwnerPort(Receiver, Protocol):
    """The owner's access to messages: it receives those to be retained, and answers."""

    def publish(self, frame: bytes) -> None:
        """Send a frame to all who have subscribed to what it begins with; never blocks."""
        ...


class Hub(Protocol):
    """The coordinator's end: publishes to all workers, receives from all.

    Attributes:
        per_worker: file descriptors that a worker takes in the coordinator's process.
        down: where workers receive from.
        up: where they report to.
        data_up: where they send outputs to.
        messages_in: where they publish messages.
        messages_out: where they receive messages.
    """

    per_worker: int
    down: str
    up: str
    data_up: str
    messages_in: str
    messages_out: str

    @property
    def outputs(self) -> Receiver:
        """Receives outputs."""
        ...

    @property
    def messages(self) -> OwnerPort:
        """Receives messages that are to be retained."""
        ...

    def file(self, name: str) -> str:
        """Return a path for a worker to write to, removed with the hub; "" if there is none."""
        ...

    def publish(self, frame: bytes) -> None:
        """Send a frame to every worker subscribed to its topic; never blocks."""
        ...

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames that have arrived; never blocks."""
        ...

    def echo(self, frame: bytes) -> bool:
        """Send a frame to `receive`; never blocks.

        When it arrives, all frames that had left the workers before can be received without
        waiting, except for those beyond the first kilobytes of a worker.

        Returns:
            Whether it was accepted.
        """
        ...

    def watch_threads(self, on_failure: Callable[[BaseException], None]) -> None:
        """Call ``on_failure`` with an error that ends a thread of the hub, in whichever thread."""
        ...

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have arrived."""
        ...

    def close_publisher(self) -> None:
        """Close what the ticker thread owns. Call it in that thread."""
        ...

    def close(self) -> None:
        """Close the rest and remove all files. Call it in the event loop's thread."""
        ...


class Sender(Protocol):
    """Sends reports."""

    def send(self, frame: bytes) -> bool:
        """Send a frame without blocking; return whether it was accepted."""
        ...

    def close(self, linger: float) -> None:
        """Close. Accepted frames have ``linger`` seconds to leave the process."""
        ...


class OutputSender(Sender, Protocol):
    """Sends outputs."""

    def when_writable(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Call ``call`` once in the loop when a frame may be accepted, after `send` refused one."""
        ...


class Link(Sender, Protocol):
    """A worker's end: receives ticks and the worker's commands, sends reports.

    Attributes:
        is_abandoned: this is a forked child of the worker, to which the link belongs.
    """

    is_abandoned: bool

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames that have arrived, oldest first; never blocks."""
        ...

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop, and in this context, when frames may have arrived."""
        ...

    def guard_sender(self) -> Sender:
        """Return another sender, for one other thread."""
        ...

    def output_sender(self) -> OutputSender:
        """Return the sender of outputs, which this link closes."""
        ...

    def publisher(self) -> Publishing:
        """Return what publishes messages, which this link closes."""
        ...

    def subscriber(self) -> Subscribing:
        """Return what receives messages, which this link closes."""
        ...
