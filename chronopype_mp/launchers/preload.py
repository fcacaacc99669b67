"""Loaded once in the forkserver, so that every worker has it for nothing.

When the coordinator is gone, the forkserver waits until its workers have stopped in order, at most
`LAST_GRACE`; those that cannot run any Python to do so (the GIL held by C code) get SIGKILL as it
exits, by PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import time

__all__ = ["LAST_GRACE"]

LAST_GRACE = 4.0
"""Seconds; a little more than the worker's own grace for a loop that does not turn."""

importlib.import_module("chronopype_mp.worker.entry")


def _wait_for_children(server: int) -> None:
    deadline = time.monotonic() + LAST_GRACE
    with contextlib.suppress(ChildProcessError):
        while os.getpid() == server and time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.02)


atexit.register(_wait_for_children, os.getpid())
