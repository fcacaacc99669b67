"""Keeps the worker's plumbing out of the children that it forks.

A forked process starts as a copy of the worker: with the handlers and the wakeup descriptor by
which signals reach the worker's event loop, with the loop's epoll object, and with sockets that
still belong to the worker. A signal to the child would stop the worker, and a child that used the
sockets could crash it. All of that is taken from the child right after the fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from chronopype_mp.transport.zeromq import ZmqLink

__all__ = ["Plumbing", "no_effect", "status_of"]


def no_effect(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing.

    Unlike SIG_IGN, a handler is not inherited by the programs that the worker starts.
    """


def status_of(error: SystemExit) -> int:
    """Return the exit status that Python makes of it."""
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


class Plumbing:
    """What the forked children of this process do not inherit. There is one per process.

    Attributes:
        in_child: this is a forked child of the worker.
    """

    def __init__(self) -> None:
        self._handlers: list[object] = [no_effect]
        self._link: ZmqLink | None = None
        self._addresses: tuple[str, ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before_fork: Callable[[], None] = lambda: None
        self._signals = signal.valid_signals()
        self._held = threading.local()
        self.in_child = False
        os.register_at_fork(
            before=self._hold_signals,
            after_in_parent=self._release_signals,
            after_in_child=self._disown,
        )

    def add(
        self,
        link: ZmqLink,
        addresses: tuple[str, ...],
        loop: asyncio.AbstractEventLoop,
        handled: int,
        before_fork: Callable[[], None],
    ) -> None:
        """Add what a worker runs with.

        Args:
            link: its sockets.
            addresses: those to which the sockets are connected.
            loop: its event loop.
            handled: a signal for which the loop has a handler.
            before_fork: called before each fork, in the thread that forks.
        """
        self._link, self._addresses, self._loop = link, addresses, loop
        self._before_fork = before_fork
        self._handlers.append(signal.getsignal(handled))

    def end_child(self, error: BaseException) -> None:
        """End a forked child that has left the code that forked it; return in the worker itself."""
        if self.in_child:
            _end(error)

    def _hold_signals(self) -> None:
        self._before_fork()
        # A signal to a child that still has the wakeup descriptor would reach the worker's loop.
        self._held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def _release_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held.mask)

    def _disown(self) -> None:
        self.in_child = True
        self._before_fork = lambda: None  # it may need a lock that another thread held
        try:
            signal.set_wakeup_fd(-1)
            for number in self._signals:
                self._reset(number)
            if self._loop is not None:
                _own_epoll(self._loop)
                # Should the child come back to the worker's loop, that ends it.
                self._loop.stop()
            if self._link is not None:
                self._link.abandon()
            # The coordinator is to see the connections end with the worker.
            for name in os.listdir("/dev/fd"):
                if _peer_of(int(name)) in self._addresses:
                    os.close(int(name))
        finally:
            self._release_signals()

    def _reset(self, number: int) -> None:
        handler: Any = signal.getsignal(number)
        if handler in self._handlers:
            interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if interrupt else signal.SIG_DFL)
        elif number == signal.SIGQUIT and handler is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)  # alarm(2) is the handler, unknown to Python


def _own_epoll(loop: asyncio.AbstractEventLoop) -> None:
    """Give a forked child an epoll object of its own; the worker's would lose its descriptors."""
    selector = getattr(loop, "_selector", None)  # uvloop sees the fork by itself
    if selector is not None and hasattr(select, "epoll"):
        with contextlib.suppress(OSError), select.epoll() as own:
            os.dup2(own.fileno(), selector.fileno(), inheritable=False)


def _peer_of(fd: int) -> str | None:
    """Return the address to which a descriptor is connected, as ZeroMQ writes it."""
    try:
        connection = socket.socket(fileno=fd)
    except OSError:
        return None  # not a socket
    try:
        peer = connection.getpeername()
    except OSError:
        return None  # not connected
    finally:
        connection.detach()
    if connection.family == socket.AF_UNIX:
        return f"ipc://{os.fsdecode(peer)}"
    return f"tcp://{peer[0]}:{peer[1]}"


def _end(error: BaseException) -> NoReturn:
    if isinstance(error, SystemExit):
        status = status_of(error)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    else:
        status = 1
        print("a forked child has returned to the event loop of its worker", file=sys.stderr)
        sys.excepthook(type(error), error, error.__traceback__)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
