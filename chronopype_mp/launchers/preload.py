"""Loaded once in the forkserver, so that every worker has it for nothing.

When the coordinator is gone, the forkserver waits until its workers have stopped in order, at most
`LAST_GRACE`; those that cannot run any Python to do so (the GIL held by C code) get SIGKILL then,
and so do their children. It also removes the directory of its own socket, which multiprocess leaves
behind when the coordinator is killed.

multiprocess' forkserver ends, and all workers with it, when one fork fails or one client goes away
before it has said what it wants. Here it drops that request; ECONNABORTED is the one error after
which it goes on.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import gc
import importlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator

from multiprocess import reduction

from chronopype_mp.launchers.leftovers import kill_marked
from chronopype_mp.timing import monotonic, sleep

__all__ = ["LAST_GRACE"]

LAST_GRACE = 3.5
"""Seconds; a little more than the worker's own grace for a loop that does not turn."""

MULTIPROCESS_PREFIX = "pymp-"

importlib.import_module("chronopype_mp.worker.entry")
# So that a fault which is rehearsed takes no import, as the real one does not.
importlib.import_module("chronopype_mp.testing.inflict")
asyncio.new_event_loop().close()  # what that imports and makes once


def _socket_directory() -> str | None:
    """Return the temporary directory in which the forkserver listens."""
    for name in os.listdir("/dev/fd"):
        try:
            candidate = socket.socket(fileno=int(name))
        except OSError:
            continue  # no socket
        try:
            path = (
                os.fsdecode(candidate.getsockname()) if candidate.family == socket.AF_UNIX else ""
            )
        finally:
            candidate.detach()
        directory = os.path.dirname(path)
        if os.path.basename(directory).startswith(MULTIPROCESS_PREFIX):
            return directory
    return None


def _finish(server: int, directory: str | None) -> None:
    if os.getpid() != server:
        return
    deadline = monotonic() + LAST_GRACE
    with contextlib.suppress(ChildProcessError):
        while monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                sleep(0.02)
    with contextlib.suppress(OSError):
        stuck = set(_children_of(server))
        for pid in stuck:
            os.kill(int(pid), signal.SIGKILL)
        if stuck:
            kill_marked(stuck)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def _children_of(parent: int) -> Iterator[bytes]:
    """Find the processes that a process has started; their ids in digits."""
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
            # Behind the name in brackets, which may hold anything, come the state and the parent.
            if int(stat.read().rpartition(b")")[2].split()[1]) == parent:
                yield entry.encode()


def _drop_requests_that_fail(server: int) -> None:
    receive, fork = reduction.recvfds, os.fork
    received: list[int] = []

    def recvfds(client: socket.socket, size: int) -> list[int]:
        try:
            received[:] = receive(client, size)
        except (EOFError, RuntimeError) as error:
            if os.getpid() != server:
                raise
            raise OSError(errno.ECONNABORTED, str(error)) from error
        return list(received)

    def fork_or_drop() -> int:
        try:
            return fork()
        except OSError as error:
            if os.getpid() != server:
                raise
            # The coordinator sees the end of its pipe.
            for fd in received:
                os.close(fd)
            raise OSError(errno.ECONNABORTED, str(error)) from error

    reduction.recvfds, os.fork = recvfds, fork_or_drop


# What is loaded by now is every worker's for good; a collector that looked at it there would only
# copy its pages.
gc.collect()
gc.freeze()
_drop_requests_that_fail(os.getpid())
# A forked process has the forkserver's handler until it leads a session of its own; a Ctrl-C in
# these milliseconds is not for it either.
signal.signal(signal.SIGINT, signal.SIG_IGN)
atexit.register(_finish, os.getpid(), _socket_directory())
