"""Children that a worker left behind by dying, in sessions of their own.

A worker's process group and its descendants are found through the worker, while it is there. What
it moved to a session of its own is nobody's once the worker has died by itself. It is known by its
environment, which all that a worker executes inherits and that names the worker's process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from pathlib import Path

from chronopype_mp.core.boot import WORKER_MARK

__all__ = ["Leftovers", "kill_marked"]

logger = logging.getLogger("chronopype_mp.launchers")

COLLECT = 0.05
"""Seconds in which the ends of several workers make one search."""

RETRY = 1.0
"""Seconds until a search that failed is tried again."""


class Leftovers:
    """Searches for what ended workers have left behind, in a thread, and kills it."""

    def __init__(self) -> None:
        self._ended: set[bytes] = set()
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run, name="chronopype_mp leftovers", daemon=True
        )
        self._thread.start()

    def of(self, pid: int) -> None:
        """Search for what the worker of that process id has left behind; it has been reaped."""
        with self._changed:
            self._ended.add(b"%d" % pid)
            self._changed.notify()

    def close(self) -> None:
        """Return when all has been searched for."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._is_closing)
                self._changed.wait_for(lambda: self._is_closing, COLLECT)
                ended, self._ended = self._ended, set()
            if not ended:
                return
            try:
                kill_marked(ended)
            except OSError as error:
                # No descriptors are left, or the like. Those that were not found stay wanted.
                logger.warning("what workers have left behind cannot be searched for: %s", error)
                with self._changed:
                    if self._is_closing:
                        return
                    self._ended |= ended
                    self._changed.wait_for(lambda: self._is_closing, RETRY)


def kill_marked(ended: set[bytes]) -> None:
    """Kill all that carry the mark of one of these process ids.

    Raises:
        OSError: they cannot be searched for.
    """
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.isdigit() and _mark_of(entry) in ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _kill_if_marked(int(entry), ended)


def _kill_if_marked(pid: int, ended: set[bytes]) -> None:
    fd = os.pidfd_open(pid)
    try:
        # Looked at again: from here on the descriptor is of the very process that is killed.
        if _mark_of(str(pid)) in ended:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def _mark_of(pid: str) -> bytes | None:
    try:
        environment = Path("/proc", pid, "environ").read_bytes()
    except OSError:  # it has ended, or is another user's
        return None
    _, found, rest = (b"\0" + environment).partition(b"\0" + WORKER_MARK + b"=")
    return rest.partition(b"\0")[0] if found else None
