"""The two ends of a fleet's control socket: ROUTER for the coordinator, DEALER for a client."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

import zmq

from chronopype_mp.exceptions import TransportError
from chronopype_mp.transport.doorkeeper import BACKLOG, CLOSED, Doorkeeper

__all__ = ["ControlConnection", "ControlListener"]

MAX_REQUEST = 1_000_000
"""Bytes. libzmq ends the connection of a client that sends more."""

MAX_ANSWER = 32_000_000

QUEUED_REQUESTS = 1000
"""Messages queued for the coordinator from each client."""

QUEUED_ANSWERS = 32
"""Messages queued for each client. Further answers are dropped: the client does not read."""

READABLE = int(zmq.POLLIN)


class _Pollable:
    """A socket that is read through its descriptor, which is edge-triggered.

    Both receiving and sending use up the edge. Whoever does so looks again until there is nothing.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_readable: Callable[[], None] | None = None
        self._again: asyncio.Handle | None = None
        self._fd = -1

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop when messages may have come in."""
        self._loop, self._on_readable = loop, on_readable
        self._fd = self._socket.fileno()
        loop.add_reader(self._fd, self._call_back)
        self._look_again()

    def _look_again(self) -> None:
        """Call back soon if there is something to read."""
        if self._loop is not None and self._again is None and self._is_readable():
            self._again = self._loop.call_soon(self._call_back)

    def _is_readable(self) -> bool:
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & READABLE)

    def _call_back(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._on_readable is not None:
            self._on_readable()

    def _receive(self, most: int) -> list[list[bytes]]:
        messages = []
        with contextlib.suppress(zmq.Again):
            for _ in range(most):
                messages.append(self._socket.recv_multipart(zmq.DONTWAIT))
        self._look_again()
        return messages

    def _send(self, parts: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(parts, zmq.DONTWAIT)
        except zmq.ZMQError:  # the queue is full, or the peer is gone
            return False
        finally:
            self._look_again()
        return True

    def detach(self) -> None:
        """Stop reading."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._loop = self._on_readable = None


class ControlListener(_Pollable):
    """The coordinator's end.

    Args:
        path: of the socket's file.

    Attributes:
        garbage: messages without a single part for a request.

    Raises:
        TransportError: the path cannot be bound.
    """

    def __init__(self, path: str) -> None:
        self.garbage = 0
        self._path = path
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, MAX_REQUEST),
            (zmq.BACKLOG, BACKLOG),
            (zmq.RCVHWM, QUEUED_REQUESTS),
            (zmq.SNDHWM, QUEUED_ANSWERS),
            (zmq.ROUTER_MANDATORY, 1),
        ):
            socket.setsockopt(option, value)
        try:
            socket.bind(f"ipc://{path}")
        except zmq.ZMQError as error:
            socket.close()
            self._context.term()
            raise TransportError(f"ipc://{path}", f"cannot be bound: {error}") from error
        super().__init__(socket)
        self._doorkeeper = Doorkeeper(self._context, {path: socket})

    def watch_threads(self, on_failure: Callable[[BaseException], None]) -> None:
        """Call ``on_failure`` with an error that ends the thread, in whichever thread."""
        self._doorkeeper.watch(on_failure)

    def receive(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return up to ``most`` messages, each with the identity of its client."""
        messages = []
        for parts in self._receive(most):
            if len(parts) == 2:
                messages.append((parts[0], parts[1]))
            else:
                self.garbage += 1
        return messages

    def send(self, client: bytes, message: bytes) -> bool:
        """Send a message. Return False if the client is gone or does not read."""
        return self._send([client, message])

    def close(self) -> None:
        """Close the socket, and remove its file."""
        self.detach()
        self._doorkeeper.close()
        self._socket.close(linger=500)  # the last answers
        self._context.term()
        for path in (self._path, self._path + CLOSED):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


class ControlConnection(_Pollable):
    """A client's end. Messages are queued until the coordinator can be reached.

    Args:
        path: of the socket's file.
    """

    def __init__(self, path: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_ANSWER)
        socket.connect(f"ipc://{path}")
        super().__init__(socket)

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` messages."""
        return [parts[0] for parts in self._receive(most) if len(parts) == 1]

    def send(self, message: bytes) -> bool:
        """Send a message. Return False if the queue is full."""
        return self._send([message])

    def close(self) -> None:
        """Close the connection. What is queued is dropped."""
        self.detach()
        self._socket.close()
        self._context.term()
