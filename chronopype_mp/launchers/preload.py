"""Loaded once in the forkserver, so that workers inherit what it imports.

When the coordinator is gone, the forkserver waits at most `LAST_GRACE` until its workers have
stopped gracefully. Then it kills those that cannot run any Python to do so (the GIL held by C code)
and their children. It also removes the directory of its own socket, which multiprocess leaves
behind when the coordinator is killed, and the other directories that have no owner any more. If
its socket was removed, the directory is its successor's.

multiprocess' forkserver ends, and all workers with it, when a fork fails or a client disconnects
before it has sent its request. Here it drops that request: ECONNABORTED is the only error after
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
from collections.abc import Callable, Iterator
from typing import Any

from multiprocess import AuthenticationError, connection, reduction

from chronopype_mp.launchers.leftovers import kill_marked
from chronopype_mp.timing import monotonic, sleep
from chronopype_mp.transport.private_directory import DIRECTORY_PREFIX, sweep

__all__ = ["LAST_GRACE"]

LAST_GRACE = 3.5
"""Seconds; a little more than a worker's own grace for an event loop that does not turn."""

MULTIPROCESS_PREFIX = "pymp-"

importlib.import_module("chronopype_mp.worker.entry")
asyncio.new_event_loop().close()  # imports and caches what the first loop needs


def _socket_path() -> str | None:
    """Return the path of the socket, in a temporary directory, at which the forkserver listens."""
    for name in os.listdir("/dev/fd"):
        try:
            candidate = socket.socket(fileno=int(name))
        except OSError:
            continue  # not a socket
        try:
            path = (
                os.fsdecode(candidate.getsockname()) if candidate.family == socket.AF_UNIX else ""
            )
        finally:
            candidate.detach()
        directory = os.path.basename(os.path.dirname(path))
        if directory.startswith((MULTIPROCESS_PREFIX, DIRECTORY_PREFIX)):
            return path
    return None


def _finish(server: int, path: str | None) -> None:
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
    if path is not None:
        directory = os.path.dirname(path)
        if os.path.exists(path):
            shutil.rmtree(directory, ignore_errors=True)
        sweep(os.path.dirname(directory))


def _children_of(parent: int) -> Iterator[bytes]:
    """Yield the ids of the children of a process, in digits."""
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
            # The name is in brackets and may hold anything. The state and the parent follow it.
            if int(stat.read().rpartition(b")")[2].split()[1]) == parent:
                yield entry.encode()


def _drop_requests_that_fail(server: int) -> None:
    """Turn every error of a request into ECONNABORTED; in the forkserver alone."""
    receive, fork = reduction.recvfds, os.fork
    received: list[int] = []

    def or_drop(call: Callable[..., Any]) -> Callable[..., Any]:
        def call_or_drop(*arguments: Any) -> Any:
            try:
                return call(*arguments)
            except (EOFError, OSError, RuntimeError, AuthenticationError) as error:
                if os.getpid() != server:
                    raise
                raise OSError(errno.ECONNABORTED, str(error)) from error

        return call_or_drop

    def recvfds(client: socket.socket, size: int) -> list[int]:
        received[:] = receive(client, size)
        return list(received)

    def fork_or_drop() -> int:
        try:
            return fork()
        except OSError as error:
            if os.getpid() != server:
                raise
            # The coordinator sees its pipe close.
            for fd in received:
                os.close(fd)
            raise OSError(errno.ECONNABORTED, str(error)) from error

    reduction.recvfds, os.fork = or_drop(recvfds), fork_or_drop
    # Since Python 3.14 the two ends authenticate each other first.
    connection.deliver_challenge = or_drop(connection.deliver_challenge)
    connection.answer_challenge = or_drop(connection.answer_challenge)


# What is loaded by now stays in every worker. A garbage collector that scanned it there would copy
# its memory pages.
gc.collect()
gc.freeze()
_drop_requests_that_fail(os.getpid())
atexit.register(_finish, os.getpid(), _socket_path())
