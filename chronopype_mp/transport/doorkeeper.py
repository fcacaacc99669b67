"""Refuses connections to the coordinator's ipc sockets before they use up its file descriptors.

libzmq aborts the process when it cannot accept a connection to an ipc socket because no descriptor
is left. A thread therefore sees every connection as soon as it is accepted. A new descriptor has
the lowest free number, so the number tells how many are left at most.

- A connection that leaves fewer than `RESERVE` is ended, and so is one of a process that has
  `CONNECTIONS_PER_PROCESS`.
- While there are fewer than `RESERVE`, for whatever reason, the door is closed: the sockets' files
  have another name, and who connects is refused by the kernel. A worker's libzmq tries again every
  0.1 s. Connections that exist are not affected.
- After a burst of connections the door is closed for a moment, until all of them have been looked
  at.

What it cannot do: see anything while another thread keeps the interpreter, or stop a program that
opens its last descriptors in the milliseconds between a look and a new worker's connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import zmq

from chronopype_mp.core.rate import TokenBucket
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import monotonic
from chronopype_mp.transport.descriptors import ENOUGH, soft_limit, spare_descriptors

__all__ = ["BACKLOG", "CONNECTIONS_PER_PROCESS", "RESERVE", "Doorkeeper"]

logger = GuardedLogger("chronopype_mp.transport")

RESERVE = ENOUGH
"""Descriptors that connections do not get: for the owner's own use, and for what is accepted before
the door is closed."""

BACKLOG = 16
"""Connections that the kernel queues: they are accepted even if the door is closed by now."""

CONNECTIONS_PER_PROCESS = 32
"""To each socket. A worker has one or two. This process is exempt."""

LOOK_EVERY = 100
"""Milliseconds between two looks at the free descriptors."""

LOOK_OFTEN = 10
"""The same for a second after each new connection, when more of a starting worker may follow."""

BURST = 100
"""Connections at once after which the door is closed; the starts of a machine with many cores side
by side."""

CONNECTIONS_PER_SECOND = 1000.0

PAUSE = 0.02
"""Seconds that the door is closed after a burst, at least."""

CLOSED = ".closed"

_ACCEPTED, _DISCONNECTED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_DISCONNECTED)


class _Peer(NamedTuple):
    """The other end of a connection.

    Attributes:
        pid: of its process; 0 if that is unknown.
        bound: the name under which the file was bound by which it came.
    """

    pid: int
    bound: str


class Doorkeeper:
    """Watches two or more bound ipc sockets, from its making to `close`.

    Args:
        context: of the sockets.
        sockets: the sockets by the paths at which they are bound. None of them is in use yet.

    Attributes:
        refused: connections that it has ended.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        sockets: Mapping[str, zmq.Socket[bytes]],
    ) -> None:
        self.refused = 0
        self._paths = list(sockets)
        self._is_open = True
        self._failure: BaseException | None = None
        self._on_failure: Callable[[BaseException], None] | None = None
        self._failing = threading.Lock()
        self._renaming = threading.Lock()
        self._often_until = self._closed_until = 0.0
        self._rate = TokenBucket(CONNECTIONS_PER_SECOND, monotonic(), BURST)
        self._looks = 0
        self._has_missed_one = False
        self._peers: dict[tuple[str, int], _Peer] = {}
        self._counts: Counter[tuple[str, int]] = Counter()
        self._end_read, self._end_write = os.pipe()
        self._monitors: dict[zmq.Socket[bytes], str] = {}
        for number, (path, watched) in enumerate(sockets.items()):
            address = f"inproc://monitor-{number}"
            watched.monitor(address, _ACCEPTED | _DISCONNECTED)
            monitor: zmq.Socket[bytes] = context.socket(zmq.PAIR)
            monitor.setsockopt(zmq.LINGER, 0)
            monitor.setsockopt(zmq.RCVHWM, 0)  # libzmq's thread never waits for this one
            monitor.connect(address)
            self._monitors[monitor] = path
        self._thread = threading.Thread(
            target=self._run, name="chronopype_mp doorkeeper", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread. Connections are no longer watched."""
        os.write(self._end_write, b"\0")  # closing it is no sign while a forked child has it open
        self._thread.join()
        os.close(self._end_write)
        os.close(self._end_read)

    def watch(self, on_failure: Callable[[BaseException], None]) -> None:
        """Call ``on_failure`` with the error that ends the thread, also if it has ended already.

        It is called in the thread itself, or in this one.
        """
        with self._failing:
            self._on_failure = on_failure
            failure = self._failure
        if failure is not None:
            on_failure(failure)

    def has(self, path: str) -> bool:
        """Whether the file of a socket exists, under the name that it has now."""
        with self._renaming:
            return os.path.exists(path) or os.path.exists(path + CLOSED)

    @property
    def looks(self) -> int:
        """Return how often it has looked at all connections that there were."""
        return self._looks

    def is_in_use(self, bound: str) -> bool:
        """Whether a connection may exist that was made by a socket's file.

        Args:
            bound: the name under which the file was bound, which it need not have any more.
        """
        return self._has_missed_one or any(
            peer.bound == bound for peer in tuple(self._peers.values())
        )

    def put(self, new: str, path: str) -> None:
        """Put the file of a socket that was bound again in the place of a lost one.

        Args:
            new: its name, which is ``path`` with something appended.
            path: the name of the lost one while the door is open.

        Raises:
            OSError: it cannot be renamed.
        """
        with self._renaming:
            os.rename(new, path if self._is_open else path + CLOSED)

    def _run(self) -> None:
        try:
            self._look_until_closed()
        except BaseException as error:
            with self._failing:
                self._failure, on_failure = error, self._on_failure
            if on_failure is not None:
                on_failure(error)
        finally:
            for monitor in self._monitors:
                monitor.close()

    def _look_until_closed(self) -> None:
        poller = zmq.Poller()
        for monitor in self._monitors:
            poller.register(monitor, zmq.POLLIN)
        poller.register(self._end_read, zmq.POLLIN)
        while True:
            often = not self._is_open or monotonic() < self._often_until
            ready = dict(poller.poll(LOOK_OFTEN if often else LOOK_EVERY))
            if self._end_read in ready:
                break
            events = [
                (path, event)
                for monitor, path in self._monitors.items()
                if monitor in ready
                for event in _events_of(monitor)
            ]
            self._slow_down(sum(event == _ACCEPTED for _, (event, _) in events))
            self._mind_the_door(spare_descriptors())
            for path, (event, fd) in events:
                if event == _ACCEPTED:
                    self._accepted(path, fd)
                else:
                    self._disconnected(path, fd)
            self._looks += 1

    def _slow_down(self, accepted: int) -> None:
        """Close the door for a moment if too many have come at once; before they are looked at."""
        now = monotonic()
        if accepted:
            self._often_until = now + 1.0
        if self._rate.take(accepted, now) < accepted:
            self._closed_until = now + PAUSE
            if self._is_open:
                self._rename("", CLOSED)

    def _accepted(self, path: str, fd: int) -> None:
        spare = soft_limit() - fd
        try:
            duplicate = os.dup(fd)
        except OSError as error:
            self._has_missed_one |= error.errno != errno.EBADF  # no descriptor is left to look with
            return
        # Whoever has it by now: the number may have been given to something else meanwhile.
        with contextlib.suppress(OSError), _socket_of(duplicate) as connection:
            if connection.family != socket.AF_UNIX or not connection.getsockname().startswith(path):
                return
            peer = _pid_of_peer(connection)
            self._disconnected(path, fd)
            self._peers[path, fd] = _Peer(peer, connection.getsockname())
            self._counts[path, peer] += 1
            is_greedy = (
                peer not in (0, os.getpid()) and self._counts[path, peer] > CONNECTIONS_PER_PROCESS
            )
            if is_greedy or spare < RESERVE:
                self.refused += 1
                connection.shutdown(socket.SHUT_RDWR)

    def _disconnected(self, path: str, fd: int) -> None:
        peer = self._peers.pop((path, fd), None)
        if peer is not None:
            self._counts[path, peer.pid] -= 1
            if not self._counts[path, peer.pid]:
                del self._counts[path, peer.pid]

    def _mind_the_door(self, spare: int) -> None:
        """Close or open the door."""
        if self._is_open and spare < RESERVE:
            logger.error(
                "only %d file descriptors are left: no process can connect until there are %d",
                spare,
                RESERVE,
            )
            self._rename("", CLOSED)
        elif not self._is_open and spare >= RESERVE and monotonic() >= self._closed_until:
            self._rename(CLOSED, "")

    def _rename(self, before: str, after: str) -> None:
        with self._renaming:
            self._is_open = not after
            for path in self._paths:
                with contextlib.suppress(OSError):
                    os.rename(path + before, path + after)


def _socket_of(fd: int) -> socket.socket:
    """Return the socket of a descriptor, which is closed if it is none.

    Raises:
        OSError: it is no socket.
    """
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise


def _events_of(monitor: zmq.Socket[bytes]) -> Iterator[tuple[int, int]]:
    """Yield what has happened at a socket, and to which descriptor."""
    # Imports zmq.asyncio, which workers do without; they load this module, too.
    from zmq.utils.monitor import parse_monitor_message

    with contextlib.suppress(zmq.Again):
        while True:
            event = parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
            yield event["event"], event["value"]


def _pid_of_peer(connection: socket.socket) -> int:
    """Return the process id of the other end; 0 if the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid: int = struct.unpack("iII", credentials)[0]
    return pid
