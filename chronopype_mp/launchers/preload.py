"""Loaded once in the forkserver, so that every worker has it for nothing.

When the coordinator is gone, the forkserver waits until its workers have stopped in order, at most
`LAST_GRACE`; those that cannot run any Python to do so (the GIL held by C code) get SIGKILL as it
exits, by PR_SET_PDEATHSIG. It also removes the directory of its own socket, which multiprocess
leaves behind when the coordinator is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import shutil
import socket
import time

__all__ = ["LAST_GRACE"]

LAST_GRACE = 4.0
"""Seconds; a little more than the worker's own grace for a loop that does not turn."""

MULTIPROCESS_PREFIX = "pymp-"

importlib.import_module("chronopype_mp.worker.entry")


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
    deadline = time.monotonic() + LAST_GRACE
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.02)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


atexit.register(_finish, os.getpid(), _socket_directory())
