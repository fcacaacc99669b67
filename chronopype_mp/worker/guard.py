"""The guard thread: it sees the parent die and the event loop stop turning.

The coordinator's death is seen through the parent's sentinel, which works under every start
method. A worker whose loop still turns then stops in order; one whose loop does not is ended after
`ORPHAN_GRACE`, with its process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.codec import encode_report
from chronopype_mp.core.messages import GuardBeat
from chronopype_mp.launchers.leftovers import kill_marked
from chronopype_mp.transport.base import Sender

__all__ = ["ORPHAN_GRACE", "Guard", "end_with_children"]

ORPHAN_GRACE = 2.5
"""Seconds that a worker has for an orderly stop after the coordinator has died. Under spawn its
alarm rings after 3 s, which leaves its children alone: this must come first."""


class Guard:
    """Watches from a thread of its own.

    Args:
        boot: whose guard this is.
        parent: the sentinel of the coordinator's process.
        sender: makes the guard's own way to the coordinator; called in the guard's thread.
        turned_at: returns when the event loop last turned, monotonic seconds.
        on_orphaned: called in the guard's thread when the coordinator has died.

    Attributes:
        orphaned: the coordinator has died.
    """

    def __init__(
        self,
        boot: WorkerBoot,
        parent: int,
        sender: Callable[[], Sender],
        turned_at: Callable[[], float],
        on_orphaned: Callable[[], None],
    ) -> None:
        self._boot = boot
        self._parent = parent
        self._sender = sender
        self._turned_at = turned_at
        self._on_orphaned = on_orphaned
        self.orphaned = False
        self._ended = threading.Event()
        self._end_read, self._end_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="chronopype_mp guard", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and wait for it."""
        self._ended.set()
        os.close(self._end_write)
        self._thread.join()
        os.close(self._end_read)

    def _run(self) -> None:
        sender = self._sender()
        poller = select.poll()
        for fd in (self._parent, self._end_read):
            poller.register(fd, select.POLLIN)
        while not self._ended.is_set():
            ready = {fd for fd, _ in poller.poll(1000 * self._boot.beat_interval)}
            if self._end_read in ready:
                break
            if self._parent in ready:
                self._stop_as_orphan()
                break
            stalled = time.monotonic() - self._turned_at()
            sender.send(
                encode_report(
                    GuardBeat(
                        worker=self._boot.worker,
                        incarnation=self._boot.incarnation,
                        stalled=max(0.0, stalled - self._boot.beat_interval),
                    )
                )
            )
        sender.close(0)

    def _stop_as_orphan(self) -> None:
        self.orphaned = True
        self._on_orphaned()
        if not self._ended.wait(ORPHAN_GRACE):
            end_with_children()


def end_with_children() -> None:
    """End this process and all that it has started, at once; there is nobody else to do it."""
    with contextlib.suppress(OSError):
        kill_marked({b"%d" % os.getpid()})
    os.killpg(0, signal.SIGKILL)
