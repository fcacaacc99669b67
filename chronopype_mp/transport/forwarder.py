"""Passes messages from the workers that publish them to those that have subscribed.

It is libzmq's proxy between an XSUB and an XPUB socket, in a thread. It runs no Python, so it needs
no interpreter: messages go on while the owner's code holds it. A worker's XPUB socket drops what
nobody has subscribed to. Frames for a worker that does not read are dropped by the proxy, which
waits for nobody; ones from a worker wait in its own socket while the proxy does not run.

The proxy serves the sockets in one order, and that is the order of all messages and subscriptions.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

import zmq

from chronopype_mp.core.codec import MAX_FRAME
from chronopype_mp.core.outputs import MAX_BATCH
from chronopype_mp.transport.base import FRAMES_QUEUED, MESSAGES_QUEUED

__all__ = ["MESSAGES_IN", "MESSAGES_OUT", "Forwarder"]

IO_THREAD = 2
"""The bit of libzmq's second thread: a flood of messages does not keep the first one from carrying
ticks and reports."""

MESSAGES_IN, MESSAGES_OUT = "inproc://messages-in", "inproc://messages-out"
"""The addresses of the sockets for sockets of the same context."""


class Forwarder:
    """The proxy. Bind both sockets before `start`; they belong to its thread from then on.

    Args:
        context: with two threads for input and output.

    Attributes:
        from_publishers: the XSUB socket.
        to_subscribers: the XPUB socket.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.from_publishers: zmq.Socket[bytes] = context.socket(zmq.XSUB)
        self.to_subscribers: zmq.Socket[bytes] = context.socket(zmq.XPUB)
        self._control: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._controlled: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        for socket in self._sockets:
            socket.setsockopt(zmq.LINGER, 0)
        for socket in (self.from_publishers, self.to_subscribers):
            socket.setsockopt(zmq.AFFINITY, IO_THREAD)
        self.from_publishers.setsockopt(zmq.MAXMSGSIZE, MAX_BATCH)
        self.from_publishers.setsockopt(zmq.RCVHWM, FRAMES_QUEUED)
        self.to_subscribers.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        self.to_subscribers.setsockopt(zmq.SNDHWM, MESSAGES_QUEUED)
        self.from_publishers.bind(MESSAGES_IN)
        self.to_subscribers.bind(MESSAGES_OUT)
        self._controlled.bind("inproc://messages-control")
        self._control.connect("inproc://messages-control")
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failing = threading.Lock()
        self._failure: BaseException | None = None
        self._on_failure: Callable[[BaseException], None] | None = None
        self._thread: threading.Thread | None = None

    @property
    def _sockets(self) -> tuple[zmq.Socket[bytes], ...]:
        return self.from_publishers, self.to_subscribers, self._controlled, self._control

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(
            target=self._run, name="chronopype_mp forwarder", daemon=True
        )
        self._thread.start()

    def watch(self, on_failure: Callable[[BaseException], None]) -> None:
        """Call ``on_failure`` with the error that ends the thread, also if it has ended already.

        It is called in the thread itself, or in this one.
        """
        with self._failing:
            self._on_failure = on_failure
            failure = self._failure
        if failure is not None:
            on_failure(failure)

    def call(self, job: Callable[[], None]) -> None:
        """Call a function in the thread to which the sockets belong; messages wait meanwhile."""
        self._jobs.put(job)
        self._interrupt()

    def close(self) -> None:
        """End the thread and close the sockets. Messages on the way are dropped."""
        if self._thread is not None:
            self._jobs.put(None)
            self._interrupt()
            self._thread.join()
        for socket in self._sockets:
            socket.close()

    def _interrupt(self) -> None:
        with contextlib.suppress(zmq.Again):  # the thread has ended
            self._control.send(b"TERMINATE", zmq.DONTWAIT)

    def _run(self) -> None:
        try:
            while True:
                zmq.proxy_steerable(
                    self.from_publishers, self.to_subscribers, None, self._controlled
                )
                job = self._jobs.get()
                if job is None:
                    return
                job()
        except BaseException as error:
            with self._failing:
                self._failure, on_failure = error, self._on_failure
            if on_failure is not None:
                on_failure(error)
