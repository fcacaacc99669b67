"""The ZeroMQ transport: PUB to the workers and PUSH back, over ipc in a private directory or tcp.

The sockets are read through their file descriptors, because zmq.asyncio carries far fewer messages
per second (docs/performance.md, Throughput). A descriptor is edge-triggered, so a reader must read
until the socket is empty, or schedule another read itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
from collections.abc import Callable
from functools import partial

import zmq

from chronopype_mp.core.codec import MAX_FRAME, TICK_TOPIC, TICKS_TOPIC, command_topic
from chronopype_mp.core.outputs import MAX_BATCH
from chronopype_mp.exceptions import TransportError
from chronopype_mp.transport.base import BATCHES_QUEUED, FRAMES_QUEUED, REPORTS_QUEUED, REST
from chronopype_mp.transport.doorkeeper import BACKLOG, Doorkeeper
from chronopype_mp.transport.forwarder import Forwarder
from chronopype_mp.transport.message_sockets import OwnerMessages, ZmqPublisher, ZmqSubscriber
from chronopype_mp.transport.private_directory import DIRECTORY_PREFIX, PrivateDirectory, sweep

__all__ = ["ZmqHub", "ZmqLink", "ZmqOutputSender", "ZmqSender"]

READABLE, WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)

DESCRIPTORS_PER_WORKER = 11
"""Six connections, two pipes of what it prints, and three by which its process is watched."""

MESSAGES_IN, MESSAGES_OUT = "pub", "sub"
"""The files by which workers publish messages and receive them."""

MAX_IPC_PATH = 107
"""Bytes. The size of sun_path in Linux's sockaddr_un without the final NUL."""


def _drain(socket: zmq.Socket[bytes], most: int) -> list[bytes]:
    """Return up to ``most`` frames. Each part of a multipart message is one frame."""
    frames: list[bytes] = []
    receive, append = socket.recv, frames.append
    try:
        append(receive(zmq.DONTWAIT))
        # Usually there was only one. Asking costs half as much as the exception.
        if int(socket.getsockopt(zmq.EVENTS)) & READABLE:
            for _ in range(most - 1):
                append(receive(zmq.DONTWAIT))
    except zmq.Again:
        pass
    return frames


class _Readable:
    """Calls back when a socket may have frames. A reader that stops early must ask again.

    Args:
        socket: the socket.
        rests: a reader that has asked again is not called earlier, whatever arrives.
    """

    def __init__(self, socket: zmq.Socket[bytes], rests: bool = False) -> None:
        self._socket = socket
        self._rests = rests
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd: int | None = None
        self._on_readable: Callable[[], None] | None = None
        self._asked: asyncio.TimerHandle | asyncio.Handle | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        self._loop, self._on_readable = loop, on_readable
        self._fd = self._socket.fileno()
        loop.add_reader(self._fd, self._look if self._rests else on_readable)
        self.ask_again()

    def ask_again(self, rest: float = 0.0) -> None:
        """Call back in ``rest`` seconds, because the socket was not read until it was empty."""
        if self._loop is not None and self._asked is None:
            if rest:
                self._asked = self._loop.call_later(rest, self._call_back)
            else:
                self._asked = self._loop.call_soon(self._call_back)

    def _call_back(self) -> None:
        self._asked = None
        if self._loop is not None and self._on_readable is not None:
            self._on_readable()

    def _look(self) -> None:
        if self._asked is None:
            self._call_back()
        else:
            self.receive(0)

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` frames; with 0, only make the descriptor unreadable."""
        if most:
            return _drain(self._socket, most)
        self._socket.getsockopt(zmq.EVENTS)
        return []

    def detach(self) -> None:
        if self._loop is not None and self._fd is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        if self._asked is not None:
            self._asked.cancel()
        self._loop = None


class ZmqHub:
    """The coordinator's sockets.

    Args:
        addresses: the addresses to bind, such as ``tcp://127.0.0.1:*``: of the PUB socket, the PULL
            socket, that for outputs, and those to which workers send messages and from which they
            receive them. None for ipc in a new directory that only this user can enter.
        queued: the number of frames queued for one worker before frames are dropped.

    Attributes:
        per_worker: descriptors of this process that a connected worker takes.
        down: the address for the workers' SUB sockets.
        up: the address for the workers' PUSH sockets.
        data_up: that for their outputs.
        messages_in: that to which they publish messages.
        messages_out: that from which they receive them.
        outputs: receives outputs.
        messages: receives what is to be retained, and answers.

    Raises:
        TransportError: an address cannot be bound.
    """

    per_worker = DESCRIPTORS_PER_WORKER

    def __init__(
        self, addresses: tuple[str, str, str, str, str] | None = None, queued: int = FRAMES_QUEUED
    ) -> None:
        self._directory: PrivateDirectory | None = None
        self._is_down_lost = False
        self._numbers = itertools.count(2)
        # Files that were bound again, by the names of the sockets. The first one of a socket is
        # never unbound, because libzmq would remove the file that has its name by then.
        self._bound: dict[str, str] = {}
        # Those before, with the looks of the doorkeeper until then.
        self._lost: dict[str, dict[str, int]] = {}
        bound = [] if addresses is None else [*addresses]
        if addresses is None:
            sweep()
            self._directory = PrivateDirectory()
            directory = f"ipc://{self.directory}"
            names = "down", "up", "data", MESSAGES_IN, MESSAGES_OUT
            bound = [f"{directory}/{name}" for name in names]
        self._context = zmq.Context(io_threads=2)
        self._pub: zmq.Socket[bytes] = self._context.socket(zmq.PUB)
        self._pull: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        self._data: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        for socket in (self._pub, self._pull, self._data):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_BATCH if socket is self._data else MAX_FRAME)
            socket.setsockopt(zmq.BACKLOG, BACKLOG)
        self._forwarder = Forwarder(self._context)
        self._pub.setsockopt(zmq.SNDHWM, queued)
        self._pull.setsockopt(zmq.RCVHWM, REPORTS_QUEUED)
        self._data.setsockopt(zmq.RCVHWM, BATCHES_QUEUED)
        try:
            self.down = self._bind(self._pub, bound[0])
            self.up = self._bind(self._pull, bound[1])
            self.data_up = self._bind(self._data, bound[2])
            self.messages_in = self._bind(self._forwarder.from_publishers, bound[3])
            self.messages_out = self._bind(self._forwarder.to_subscribers, bound[4])
        except TransportError:
            self._pub.close()
            self.close()
            raise
        self._doorkeeper: Doorkeeper | None = None
        sockets = {
            self.down: self._pub,
            self.up: self._pull,
            self.data_up: self._data,
            self.messages_in: self._forwarder.from_publishers,
            self.messages_out: self._forwarder.to_subscribers,
        }
        paths = {address.removeprefix("ipc://"): socket for address, socket in sockets.items()}
        if paths != sockets:  # libzmq survives it over tcp
            self._doorkeeper = Doorkeeper(self._context, paths)
        self._forwarder.start()
        self.messages = OwnerMessages(self._context, partial(_Readable, rests=True))
        self._echo = ZmqSender(self._context, self.up)
        self.outputs = _Readable(self._data, rests=True)
        self._readable = _Readable(self._pull)

    @property
    def directory(self) -> str | None:
        """The private directory, or None if there is none."""
        return None if self._directory is None else self._directory.path

    def restore(self) -> None:
        """Make the files again that somebody has removed, such as a cleaner of temporary files.

        Connections that exist go on without them; new ones need them.

        Raises:
            OSError: that is impossible.
            TransportError: an address cannot be bound.
        """
        if self._directory is not None:
            self._directory.restore()
            if self._is_lost("up"):
                self._bind_again(self._pull, "up")
            if self._is_lost("data"):
                self._bind_again(self._data, "data")
            # In the threads to which the sockets belong.
            if self._is_lost(MESSAGES_IN) or self._is_lost(MESSAGES_OUT):
                self._forwarder.call(self._restore_forwarder)
            self._is_down_lost = self._is_lost("down")

    def _restore_forwarder(self) -> None:
        with contextlib.suppress(OSError, TransportError):  # `restore` sees it again
            if self._is_lost(MESSAGES_IN):
                self._bind_again(self._forwarder.from_publishers, MESSAGES_IN)
            if self._is_lost(MESSAGES_OUT):
                self._bind_again(self._forwarder.to_subscribers, MESSAGES_OUT)

    def _is_lost(self, name: str) -> bool:
        return self._doorkeeper is not None and not self._doorkeeper.has(self.file(name))

    def _bind_again(self, socket: zmq.Socket[bytes], name: str) -> None:
        assert self._doorkeeper is not None
        # Under another name first: libzmq keeps the old one in use.
        path = self.file(f"{name}{next(self._numbers)}")
        self._bind(socket, f"ipc://{path}")
        self._doorkeeper.put(path, self.file(name))
        lost = self._lost.setdefault(name, {})
        for old, looks in list(lost.items()):
            # Unbinding ends the connections that were made by the file.
            if self._doorkeeper.looks > looks + 1 and not self._doorkeeper.is_in_use(old):
                socket.unbind(f"ipc://{old}")
                del lost[old]
        if name in self._bound:
            lost[self._bound[name]] = self._doorkeeper.looks
        self._bound[name] = path

    @staticmethod
    def _bind(socket: zmq.Socket[bytes], address: str) -> str:
        path = address.removeprefix("ipc://")
        if path != address and len(os.fsencode(path)) > MAX_IPC_PATH:
            raise TransportError(
                address,
                f"the path has {len(os.fsencode(path))} bytes, but a Unix socket allows only "
                f"{MAX_IPC_PATH}; set TMPDIR to a directory with a shorter path",
            )
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise TransportError(address, f"cannot be bound: {error}") from error
        return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def file(self, name: str) -> str:
        """Return a path in the private directory, or "" if there is no such directory."""
        return "" if self.directory is None else os.path.join(self.directory, name)

    def publish(self, frame: bytes) -> None:
        """Send a frame. It is dropped for workers whose queue is full."""
        if self._is_down_lost:
            self._is_down_lost = False
            with contextlib.suppress(OSError, TransportError):  # `restore` sees it again
                self._bind_again(self._pub, "down")
        if not frame.startswith((TICK_TOPIC, TICKS_TOPIC)):
            # The frame may be for a worker that has just subscribed. A send processes new
            # subscriptions at most once a millisecond. Reading EVENTS always processes them.
            self._pub.getsockopt(zmq.EVENTS)
        self._pub.send(frame, zmq.DONTWAIT)

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` received frames."""
        frames = _drain(self._pull, most)
        if len(frames) == most:
            self._readable.ask_again(REST)
        return frames

    def echo(self, frame: bytes) -> bool:
        """Send a frame to `receive` by the same path as reports. Return False if that is full.

        libzmq's thread reads its connections in the order in which they became readable, about 8 KB
        at a time. This frame can therefore only overtake a report with at least that much in front
        of it.
        """
        return self._echo.send(frame)

    def watch_threads(self, on_failure: Callable[[BaseException], None]) -> None:
        """Call ``on_failure`` with an error that ends one of them, in whichever thread."""
        self._forwarder.watch(on_failure)
        if self._doorkeeper is not None:
            self._doorkeeper.watch(on_failure)

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop when frames may have come in."""
        self._readable.attach(loop, on_readable)

    def close_publisher(self) -> None:
        """Close the PUB socket. Call this in the thread that used it."""
        self._pub.close()

    def close(self) -> None:
        """Close what is left and the context, and remove the private directory."""
        if hasattr(self, "_readable"):
            self._readable.detach()
            self.outputs.detach()
            self.messages.close()
            self._echo.close(0)
            if self._doorkeeper is not None:
                self._doorkeeper.close()
        self._forwarder.close()
        self._pull.close()
        self._data.close()
        self._context.term()
        if self._directory is not None:
            self._directory.remove()


class ZmqSender:
    """A PUSH socket.

    Args:
        context: the context of this process.
        address: the coordinator's `ZmqHub.up`, or `ZmqHub.data_up`.
        queued: frames queued before any is refused.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        queued: int = FRAMES_QUEUED,
    ) -> None:
        self._push: zmq.Socket[bytes] = context.socket(zmq.PUSH)
        self._push.setsockopt(zmq.LINGER, 0)
        self._push.setsockopt(zmq.SNDHWM, queued)
        self._push.connect(address)
        self._is_abandoned = False

    def abandon(self) -> None:
        """Drop all frames from now on."""
        self._is_abandoned = True

    def send(self, frame: bytes) -> bool:
        """Send a frame. Return False if the queue is full."""
        if self._is_abandoned:
            return True
        try:
            self._push.send(frame, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def close(self, linger: float) -> None:
        """Close the socket. Queued frames then have ``linger`` seconds before the context ends."""
        self._push.close(linger=int(linger * 1000))


class ZmqOutputSender(ZmqSender):
    """A PUSH socket for outputs, which tells when it is writable again.

    Args:
        context: the context of this process.
        address: the coordinator's `ZmqHub.data_up`.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        super().__init__(context, address, BATCHES_QUEUED)
        self._watched: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._call: Callable[[], None] = lambda: None

    def when_writable(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Call ``call`` once in the loop when a frame may be accepted."""
        self._call = call
        if self._watched is None:
            self._watched = loop, self._push.fileno()
            loop.add_reader(self._watched[1], self._look)
        loop.call_soon(self._look)  # the last send may have taken the sign from the descriptor

    def _look(self) -> None:
        # Reading EVENTS makes the descriptor tell of the next change.
        if self._watched is not None and int(self._push.getsockopt(zmq.EVENTS)) & WRITABLE:
            self._stop_watching()
            self._call()

    def _stop_watching(self) -> None:
        if self._watched is not None:
            loop, fd = self._watched
            self._watched = None
            if not loop.is_closed():
                loop.remove_reader(fd)

    def close(self, linger: float) -> None:
        """Close the socket, as `ZmqSender.close`."""
        self._stop_watching()
        super().close(linger)


class ZmqLink:
    """A worker's sockets.

    Args:
        down: the coordinator's `ZmqHub.down`.
        up: the coordinator's `ZmqHub.up`.
        data_up: the coordinator's `ZmqHub.data_up`.
        messages: the coordinator's `ZmqHub.messages_in` and `ZmqHub.messages_out`.
        worker: the worker's name. The link subscribes to the commands for this worker.

    Attributes:
        is_abandoned: this is a forked child of the worker.
    """

    def __init__(
        self, down: str, up: str, data_up: str, messages: tuple[str, str], worker: str
    ) -> None:
        self._up = up
        self._data_up = data_up
        self._messages_in, self._messages_out = messages
        self.is_abandoned = False
        self._context = zmq.Context()
        self._sub: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        self._sub.setsockopt(zmq.LINGER, 0)
        self._sub.setsockopt(zmq.RCVHWM, FRAMES_QUEUED)
        # No MAXMSGSIZE: libzmq never reconnects this socket after a frame that is too large.
        self._sub.subscribe(TICK_TOPIC)
        self._sub.subscribe(TICKS_TOPIC)
        self._sub.subscribe(command_topic(worker))
        self._sub.connect(down)
        self._sender = ZmqSender(self._context, up)
        self._guards: list[ZmqSender] = []
        self._outputs: ZmqOutputSender | None = None
        self._publisher: ZmqPublisher | None = None
        self._subscriber: ZmqSubscriber | None = None
        self._readable = _Readable(self._sub)

    def receive(self, most: int) -> list[bytes]:
        """Return up to ``most`` received frames, oldest first."""
        if self.is_abandoned:
            return []
        frames = _drain(self._sub, most)
        if len(frames) == most:
            self._readable.ask_again()
        return frames

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the loop when frames may have come in."""
        self._readable.attach(loop, on_readable)

    def send(self, frame: bytes) -> bool:
        """Send a report. Return False if the queue is full."""
        return self._sender.send(frame)

    def guard_sender(self) -> ZmqSender:
        """Return a separate PUSH socket for use in another thread."""
        guard = ZmqSender(self._context, self._up)
        self._guards.append(guard)
        return guard

    def output_sender(self) -> ZmqOutputSender:
        """Return the PUSH socket for outputs, which is connected when it is first asked for."""
        if self._outputs is None:
            self._outputs = ZmqOutputSender(self._context, self._data_up)
        return self._outputs

    def publisher(self) -> ZmqPublisher:
        """Return the socket that publishes messages, connected when it is first asked for."""
        if self._publisher is None:
            self._publisher = ZmqPublisher(self._context, self._messages_in, _Readable)
        return self._publisher

    def subscriber(self) -> ZmqSubscriber:
        """Return the socket that receives messages, connected when it is first asked for."""
        if self._subscriber is None:
            self._subscriber = ZmqSubscriber(
                self._context, self._messages_out, partial(_Readable, rests=True)
            )
        return self._subscriber

    def abandon(self) -> None:
        """Stop using the sockets, in a forked child: they are its parent's."""
        self.is_abandoned = True
        self._sender.abandon()
        for socket in (self._outputs, self._publisher, self._subscriber):
            if socket is not None:
                socket.abandon()

    def clean_up(self) -> None:
        """Remove the private directory of a coordinator that has died."""
        directory = os.path.dirname(self._up.removeprefix("ipc://"))
        if os.path.basename(directory).startswith(DIRECTORY_PREFIX):
            shutil.rmtree(directory, ignore_errors=True)

    def close(self, linger: float) -> None:
        """Close all sockets and wait up to ``linger`` seconds for queued frames to be sent.

        The user of a `guard_sender` must have stopped before.
        """
        self._readable.detach()
        self._sub.close()
        self._sender.close(linger)
        for socket in (self._outputs, self._publisher, self._subscriber):
            if socket is not None:
                socket.close(linger)
        for guard in self._guards:
            guard.close(0)
        with contextlib.suppress(zmq.ZMQError):
            self._context.term()
