"""Children in sessions of their own that a worker leaves behind when it dies.

While a worker lives, its process group and its descendants are found through it. What it moved to
a session of its own has no parent to be found by once the worker has died. Such a process is known
by its environment: everything that a worker executes inherits a variable that names the worker's
process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

from chronopype_mp.core.boot import WORKER_MARK
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import monotonic

__all__ = ["Leftovers", "kill_marked", "reap"]

logger = GuardedLogger("chronopype_mp.launchers")

COLLECT = 0.05
"""Seconds within which the ends of several workers share one search."""

REAP_WITHIN = 1.0
"""Seconds to wait for the end of processes that were killed."""

RETRY = 1.0
"""Seconds until a search that failed is repeated."""


class Leftovers:
    """Searches, in a thread, for what ended workers have left behind, and kills it."""

    def __init__(self) -> None:
        self._ended: set[bytes] = set()
        self._killed: set[bytes] = set()
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def of(self, pid: int, killed: Iterable[int] = ()) -> None:
        """Search for what the worker with that process id left behind; it has been reaped.

        Args:
            pid: the worker's process id.
            killed: descendants that were killed with it.

        Raises:
            RuntimeError: the system has no more threads.
        """
        with self._changed:
            self._ended.add(b"%d" % pid)
            self._killed.update(b"%d" % descendant for descendant in killed)
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
                killed, self._killed = self._killed, set()
            if not ended:
                return
            try:
                reap(ended, killed | kill_marked(ended))
            except Exception as error:
                # For example, no descriptors are left. The search is repeated; the thread goes on.
                logger.warning("cannot search for what workers have left behind: %s", error)
                with self._changed:
                    if self._is_closing:
                        return
                    self._ended |= ended
                    self._killed |= killed
                    self._changed.wait_for(lambda: self._is_closing, RETRY)


def kill_marked(ended: set[bytes]) -> set[bytes]:
    """Kill all processes that carry the mark of one of these process ids.

    Returns:
        The ids of the processes that were killed.

    Raises:
        OSError: the search is impossible.
    """
    killed = set()
    for entry in _process_ids():
        if _marks_of(entry) & ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _kill_if_marked(int(entry), ended)
                killed.add(entry.encode())
    return killed


def _process_ids() -> list[str]:
    return list(filter(str.isdigit, os.listdir("/proc"))) if os.path.isdir("/proc/self") else []


def reap(ended: set[bytes], killed: set[bytes]) -> None:
    """Kill and reap what has become a child of this process because its worker has ended.

    Args:
        ended: the process ids of the workers, which lead sessions.
        killed: the ids of other processes that were killed.

    Raises:
        OSError: the search is impossible.
    """

    def is_theirs(pid: str) -> bool:
        parent, session = _parent_and_session_of(pid)
        return parent == own and (pid.encode() in killed or session in ended | killed)

    own = b"%d" % os.getpid()
    deadline = monotonic() + REAP_WITHIN
    for entry in filter(is_theirs, _process_ids()):
        # ChildProcessError: somebody else in this process reaps all children.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            fd = os.pidfd_open(int(entry))
            try:
                if is_theirs(entry):
                    if entry.encode() not in ended:  # the id may have a new owner
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                    poller = select.poll()
                    poller.register(fd, select.POLLIN)
                    poller.poll(1000 * max(0.0, deadline - monotonic()))
                    os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
            finally:
                os.close(fd)


def _parent_and_session_of(pid: str) -> tuple[bytes, bytes]:
    """Return the ids of a process's parent and session, in digits; empty if it has ended."""
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except OSError:
        return b"", b""
    # The name is in brackets and may hold anything. State, parent, group and session follow it.
    fields = stat.rpartition(b")")[2].split()
    return fields[1], fields[3]


def _kill_if_marked(pid: int, ended: set[bytes]) -> None:
    fd = os.pidfd_open(pid)
    try:
        # Checked again: the process id may have been reused before the descriptor was opened.
        if _marks_of(str(pid)) & ended:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def _marks_of(pid: str) -> set[bytes]:
    """Return the process ids of the workers from which a process descends."""
    try:
        environment = Path("/proc", pid, "environ").read_bytes()
    except OSError:  # it has ended, or belongs to another user
        return set()
    _, _, rest = (b"\0" + environment).partition(b"\0" + WORKER_MARK + b"=")
    return set(rest.partition(b"\0")[0].split())
