"""The guard thread: it sees the coordinator die and the event loop stall.

It watches the sentinel of the coordinator's process, which works under every start method. When the
coordinator has died, a worker whose loop turns stops gracefully. One whose loop does not is killed
after `ORPHAN_GRACE`, with its process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.codec import encode_report
from chronopype_mp.core.messages import GuardBeat
from chronopype_mp.launchers.leftovers import kill_marked
from chronopype_mp.timing import monotonic
from chronopype_mp.transport.base import Sender
from chronopype_mp.worker.watchdog import Watchdog

__all__ = ["ORPHAN_GRACE", "Guard", "end_with_children"]

ASK_AFTER = 1.5
"""Guard intervals without a turn of the event loop, after which the guard asks for one."""

ORPHAN_GRACE = 2.5
"""Seconds that a worker has for a graceful stop after the coordinator has died. The alarm under
spawn, which does not kill the worker's children, comes after 3 s."""


class Guard:
    """Watches from a thread of its own; all callbacks are called in that thread.

    Args:
        boot: whose guard this is.
        parent: the sentinel of the coordinator's process.
        sender: makes the guard's own connection to the coordinator.
        watchdog: writes the stacks when the loop stalls.
        turned_at: returns when the event loop last turned, monotonic seconds.
        ask_to_turn: makes the event loop update ``turned_at`` as soon as it can.
        on_orphaned: called when the coordinator has died.
        on_failed: called with what the guard raised. The guard has ended then, so the worker is to
            end too.

    Attributes:
        orphaned: the coordinator has died.
    """

    def __init__(
        self,
        boot: WorkerBoot,
        parent: int,
        sender: Callable[[], Sender],
        watchdog: Watchdog,
        turned_at: Callable[[], float],
        ask_to_turn: Callable[[], None],
        on_orphaned: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self._boot = boot
        self._parent = parent
        self._sender = sender
        self._watchdog = watchdog
        self._turned_at = turned_at
        self._ask_to_turn = ask_to_turn
        self._asked_at = 0.0
        self._on_orphaned = on_orphaned
        self._on_failed = on_failed
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
        os.write(self._end_write, b"\0")  # a forked child may hold the pipe open
        self._thread.join()
        os.close(self._end_write)
        os.close(self._end_read)

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException as error:
            self._on_failed(error)

    def _watch(self) -> None:
        sender: Sender | None = None
        poller = select.poll()
        for fd in (self._parent, self._end_read):
            poller.register(fd, select.POLLIN)
        while not self._ended.is_set():
            ready = {fd for fd, _ in poller.poll(1000 * self._boot.guard_interval)}
            if self._end_read in ready:
                break
            if self._parent in ready:
                self._stop_as_orphan()
                break
            sender = sender or self._sender()  # not earlier, to keep the worker's start short
            report = self._boot.report(GuardBeat, stalled=self._look(monotonic()))
            sender.send(encode_report(report))
        if sender is not None:
            sender.close(0)

    def _look(self, now: float) -> float:
        """Return for how long the event loop has stalled, seconds; 0 if it turns.

        A loop that has not turned for a while is asked to; only one that does not answer stalls.
        """
        self._watchdog.python_runs(now)
        turned_at = self._turned_at()
        late = now - turned_at
        if late < ASK_AFTER * self._boot.guard_interval:
            return 0.0
        if self._asked_at <= turned_at:
            self._asked_at = now
            self._ask_to_turn()
            return 0.0
        if late >= self._boot.stacks_after:
            # At every look: the latest stacks count.
            self._watchdog.write()
        return late

    def _stop_as_orphan(self) -> None:
        self.orphaned = True
        try:
            self._on_orphaned()
        finally:
            if not self._ended.wait(ORPHAN_GRACE):
                end_with_children()


def end_with_children() -> None:
    """Kill this process and everything that it has started, at once."""
    with contextlib.suppress(OSError):
        kill_marked({b"%d" % os.getpid()})
    os.killpg(0, signal.SIGKILL)
