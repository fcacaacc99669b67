"""The watchdog: it writes the stacks of all threads when the event loop stands still.

faulthandler's own thread is written in C and dumps even while the GIL is held; the same file gets
the stacks when a fatal signal comes. The coordinator reads the file when the worker has died. A
loop that turns again makes the file empty.
"""

from __future__ import annotations

import faulthandler
import math
import os
import time

__all__ = ["Watchdog"]

WRITE_AT = 0.8
"""Share of the deadline after which stacks are written: before the coordinator looks."""

ARM_EVERY = 0.4
"""Share of it that may pass until a loop that turns arms the watchdog anew, which starts a thread.
So stacks are written a little earlier than told above, never later."""


class Watchdog:
    """Armed by every turn of the event loop.

    Args:
        path: the file.
        deadline: for how long the loop may stand still, seconds; the shortest of its deadlines.
    """

    def __init__(self, path: str, deadline: float) -> None:
        self._after = WRITE_AT * deadline
        self._armed_for = ARM_EVERY * deadline
        self._armed_at = -math.inf
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 – open for the process' life
        faulthandler.enable(file=self._file, all_threads=True)
        self.turned()

    def turned(self) -> None:
        """Take note that the loop turns."""
        now = time.monotonic()
        if os.fstat(self._file.fileno()).st_size:
            self._file.truncate(0)
            self._file.seek(0)
        elif now - self._armed_at < self._armed_for:
            return
        self._armed_at = now
        faulthandler.dump_traceback_later(self._after, file=self._file)

    def close(self) -> None:
        """Watch no longer; fatal signals are still written."""
        faulthandler.cancel_dump_traceback_later()
