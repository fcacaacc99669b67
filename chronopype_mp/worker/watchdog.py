"""The watchdog: it writes the stacks of all threads when the event loop stands still.

The guard thread does that as long as Python runs at all, with the GIL: the stacks of a thread that
runs meanwhile may not be read without it (the reader may crash). When the GIL is held by code that
does not give it back, the coordinator asks for the stacks by a signal before it kills the process;
faulthandler's handlers of that one and of the fatal ones are written in C and need no GIL. All of
them write to one file, which the coordinator reads; a loop that turns again takes back what the
guard has written.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import sys
import tempfile
import threading
from types import FrameType
from typing import IO

from chronopype_mp.core.boot import STACKS_HEADER
from chronopype_mp.launchers.base import STACKS_SIGNAL
from chronopype_mp.timing import monotonic

__all__ = ["Watchdog"]

INNERMOST, OUTERMOST = 100, 20
"""Frames that are shown of a stack with more."""


class Watchdog:
    """The file with the stacks, and what writes to it.

    Args:
        path: the file, which is created; "" for one without a name, which nobody reads.
    """

    def __init__(self, path: str) -> None:
        self._file = _open(path)  # for the process' life
        self._fd = self._file.fileno()
        self._own_end = STACKS_HEADER.size
        # No limit on the size of files applies to what is mapped.
        self._header = mmap.mmap(self._fd, STACKS_HEADER.size)
        faulthandler.enable(file=self._file, all_threads=True)
        faulthandler.register(STACKS_SIGNAL, file=self._file, all_threads=True)
        os.register_at_fork(after_in_child=_leave_it_to_the_parent)

    def python_runs(self, now: float) -> None:
        """Take note that Python code runs, at ``now`` on the monotonic clock, seconds."""
        STACKS_HEADER.pack_into(self._header, 0, now)

    def loop_turns(self) -> None:
        """Forget the stacks that were written because the event loop did not turn."""
        if self._own_end > STACKS_HEADER.size:
            self._write(b"")

    def write(self) -> None:
        """Write the stacks of all threads, that of the main thread last, in place of the last."""
        main = threading.main_thread().ident
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = sorted(sys._current_frames().items(), key=lambda item: item[0] == main)
        text = "\n".join(
            f"Thread {names.get(ident, ident)!r} (most recent call first):\n{_stack(frame)}"
            for ident, frame in frames
            if ident != threading.get_ident()
        )
        self._write(text.encode(errors="backslashreplace"))

    def _write(self, stacks: bytes) -> None:
        """Replace what this has written, unless the coordinator has asked for more meanwhile.

        Then the process is about to be killed, even if the signal has set its loop free.
        """
        with contextlib.suppress(OSError):
            if os.fstat(self._fd).st_size <= self._own_end:
                os.pwrite(self._fd, stacks, STACKS_HEADER.size)
                self._own_end = STACKS_HEADER.size + len(stacks)
                self._file.truncate(self._own_end)
                self._file.seek(self._own_end)  # there the signal handlers write


def _open(path: str) -> IO[bytes]:
    """Open the file and write its header.

    It has no name if there is none, if its directory was removed, or if the disk is full.
    """
    if path:
        with contextlib.suppress(OSError):
            return _begun(open(path, "w+b", buffering=0))
    if hasattr(os, "memfd_create"):
        return _begun(os.fdopen(os.memfd_create("chronopype_mp stacks"), "w+b", buffering=0))
    return _begun(tempfile.TemporaryFile(buffering=0))


def _begun(file: IO[bytes]) -> IO[bytes]:
    try:
        file.write(STACKS_HEADER.pack(monotonic()))
    except BaseException:
        file.close()
        raise
    return file


def _leave_it_to_the_parent() -> None:
    """A forked child shares the file; what becomes of it is nothing to the worker."""
    faulthandler.disable()
    faulthandler.unregister(STACKS_SIGNAL)


def _stack(frame: FrameType | None) -> str:
    lines = []
    while frame is not None:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_qualname}\n')
        frame = frame.f_back
    if len(lines) > INNERMOST + OUTERMOST:
        left_out = len(lines) - INNERMOST - OUTERMOST
        lines[INNERMOST:-OUTERMOST] = [f"  ... {left_out} frames\n"]
    return "".join(lines)
