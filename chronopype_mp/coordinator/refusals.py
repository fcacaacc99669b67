"""What belongs to the owner's process, and why it cannot be sent to another one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import io
import multiprocessing.process
import socket
import subprocess
import threading
import weakref

import multiprocess.process

from chronopype_mp.processors import TickProcessor

__all__ = ["INSTEAD", "OWN_MODULE", "Refused", "is_channel", "opens_again", "why_refused"]

OWN_MODULE = "Put it into a module and import it"
"""What helps with code that cannot travel."""

# Without the abstract base class, whose instance check is slow.
_IO_BASE = io.IOBase.__mro__[1]

REASONS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((_IO_BASE,), "an open file belongs to this process"),
    ((socket.socket,), "a socket belongs to this process"),
    (
        (subprocess.Popen, multiprocessing.process.BaseProcess, multiprocess.process.BaseProcess),
        "only the process that started a child process can wait for it",
    ),
    ((threading.Thread,), "a thread runs in this process only"),
    (
        (asyncio.Future, asyncio.AbstractEventLoop, asyncio.BaseTransport, asyncio.Handle),
        "it belongs to the event loop of this process",
    ),
    (
        (concurrent.futures.Executor, concurrent.futures.Future),
        "an executor and its futures belong to this process",
    ),
    ((weakref.finalize,), "a finalizer waits for the end of an object of this process"),
    ((contextvars.Token,), "a token belongs to a context of this process"),
    (
        (contextvars.ContextVar, threading.local),
        "a worker finds it only as a global of a main module whose source is known",
    ),
)

CHANNELS = ("connection", "pool", "queues", "sharedctypes", "synchronize")
"""Modules of `multiprocessing` and `multiprocess` whose objects only their own processes get."""

INSTEAD = (
    "To get data out of a worker, call self.emit(...) there and read clock.outputs(...) here; "
    "between workers, use self.subscribe(...); to ask a worker, await handle.call(...)"
)
"""What replaces channels that the program made itself."""

KINDS = tuple(kind for kinds, _ in REASONS for kind in kinds)


class Refused(TypeError):
    """Something cannot be sent; the message says why.

    Attributes:
        remedy: what to do instead; None is to make it in the worker.
        culprit: the object, if it is not something in it.
    """

    def __init__(self, reason: str, remedy: str | None = None, culprit: object = None) -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.culprit = culprit


def why_refused(value: object) -> str | None:
    """Return why an object cannot leave this process; None if it is not known to be so."""
    if isinstance(value, TickProcessor):
        if value._mirror is not None:
            return (
                "it is another processor, which was added to a clock and has a worker of its own; "
                "a copy of it would not show what that worker does"
            )
        return None
    stays = getattr(type(value), "_stays_with_owner", None)
    if isinstance(stays, str):
        return stays
    if isinstance(value, KINDS):
        return next(reason for kinds, reason in REASONS if isinstance(value, kinds))
    if is_channel(value):
        return "the standard library passes it on only to a process that it starts itself"
    return None


def opens_again(value: object) -> bool:
    """Whether to make an object again opens a file, a connection or a process again."""
    if isinstance(value, (subprocess.Popen, socket.socket)):
        return True
    if isinstance(value, _IO_BASE):
        with contextlib.suppress(OSError, ValueError):  # in memory, or closed
            return int(value.fileno()) > 2  # type: ignore[attr-defined]
    return type(value).__module__ == "sqlite3" and hasattr(value, "execute")


def is_channel(value: object) -> bool:
    """Whether an object is a queue, a pipe, a lock or the like between processes."""
    for kind in type(value).__mro__:
        package, _, module = str(kind.__module__).partition(".")
        if package in ("multiprocessing", "multiprocess") and module in CHANNELS:
            return True
        if kind.__module__ == "multiprocessing.managers":
            return True  # a worker has the key of the managers of `multiprocess` alone
    return False
