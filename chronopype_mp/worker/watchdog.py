"""The watchdog: it writes the stacks of all threads when the event loop stands still.

The guard thread does that as long as Python runs at all, with the GIL: the stacks of a thread that
runs meanwhile may not be read without it (the reader may crash). When the GIL is held by code that
does not give it back, the coordinator asks for the stacks by a signal before it kills the process;
faulthandler's handlers of that one and of the fatal ones are written in C and need no GIL. All of
them write to one file, which the coordinator reads; a loop that turns again makes it empty.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from types import FrameType

from chronopype_mp.core.boot import STACKS_HEADER
from chronopype_mp.launchers.base import STACKS_SIGNAL

__all__ = ["Watchdog"]


class Watchdog:
    """The file with the stacks, and what writes to it.

    Args:
        path: the file; made here.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 – open for the process' life
        self._fd = self._file.fileno()
        self._has_written = False
        self.python_runs(time.monotonic())
        self._file.seek(STACKS_HEADER.size)
        faulthandler.enable(file=self._file, all_threads=True)
        faulthandler.register(STACKS_SIGNAL, file=self._file, all_threads=True)

    def python_runs(self, now: float) -> None:
        """Take note that Python code runs, at ``now`` on the monotonic clock, seconds."""
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, STACKS_HEADER.pack(now), 0)

    def loop_turns(self) -> None:
        """Forget the stacks that were written because the event loop did not turn.

        Those that the coordinator has asked for stay: the process is about to be killed, even if
        the signal has set its loop free.
        """
        if self._has_written:
            self._has_written = False
            self._file.truncate(STACKS_HEADER.size)
            self._file.seek(STACKS_HEADER.size)

    def write(self) -> None:
        """Write the stacks of all threads, that of the main thread last."""
        main = threading.main_thread().ident
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = sorted(sys._current_frames().items(), key=lambda item: item[0] == main)
        text = "\n".join(
            f"Thread {names.get(ident, ident)!r} (most recent call first):\n{_stack(frame)}"
            for ident, frame in frames
            if ident != threading.get_ident()
        )
        self._has_written = True
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode(errors="backslashreplace"))


def _stack(frame: FrameType | None) -> str:
    lines = []
    while frame is not None:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_qualname}\n')
        frame = frame.f_back
    return "".join(lines)
