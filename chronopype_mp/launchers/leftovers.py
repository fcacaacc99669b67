"""Children in sessions of their own that a worker leaves behind when it dies.

While a worker lives, its process group and its descendants are found through it. What it moved to
a session of its own has no parent to be found by once the worker has died. Such a process is known
by its environment: everything that a worker executes inherits a variable that names the worker's
process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

from chronopype_mp.core.boot import WORKER_MARK
from chronopype_mp.guarded_log import GuardedLogger

__all__ = ["Leftovers", "kill_marked"]

logger = GuardedLogger("chronopype_mp.launchers")

COLLECT = 0.05
"""Seconds within which the ends of several workers share one search."""

RETRY = 1.0
"""Seconds until a search that failed is repeated."""


class Leftovers:
    """Searches, in a thread, for what ended workers have left behind, and kills it."""

    def __init__(self) -> None:
        self._ended: set[bytes] = set()
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def of(self, pid: int) -> None:
        """Search for what the worker with that process id left behind; it has been reaped.

        Raises:
            RuntimeError: the system has no more threads.
        """
        with self._changed:
            self._ended.add(b"%d" % pid)
            self._changed.notify()
            if self._thread is None and not self._is_closing:
                thread = threading.Thread(
                    target=self._run, name="chronopype_mp leftovers", daemon=True
                )
                thread.start()
                self._thread = thread

    def close(self, timeout: float) -> bool:
        """Finish the searches and end the thread.

        Args:
            timeout: how long to wait for that, seconds.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

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
                # For example, no descriptors are left. The search is repeated.
                logger.warning("cannot search for what workers have left behind: %s", error)
                with self._changed:
                    if self._is_closing:
                        return
                    self._ended |= ended
                    self._changed.wait_for(lambda: self._is_closing, RETRY)


def kill_marked(ended: set[bytes]) -> None:
    """Kill all processes that carry the mark of one of these process ids.

    Raises:
        OSError: the search is impossible.
    """
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.isdigit() and _mark_of(entry) in ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _kill_if_marked(int(entry), ended)


def _kill_if_marked(pid: int, ended: set[bytes]) -> None:
    fd = os.pidfd_open(pid)
    try:
        # Checked again: the process id may have been reused before the descriptor was opened.
        if _mark_of(str(pid)) in ended:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def _mark_of(pid: str) -> bytes | None:
    try:
        environment = Path("/proc", pid, "environ").read_bytes()
    except OSError:  # it has ended, or belongs to another user
        return None
    _, found, rest = (b"\0" + environment).partition(b"\0" + WORKER_MARK + b"=")
    return rest.partition(b"\0")[0] if found else None
